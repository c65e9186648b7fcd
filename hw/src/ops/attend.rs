//! Sparse decode attention over frames: the operands and calls, and the grids that leave multiprocessors to others.
//! Attention with the device to itself is in `clusters`. Long because grouped-query and latent attention share operands.

use super::clusters::{GqaClusters, MlaClusters};
use super::count32;
use crate::compile::{ATTEND_GQA, ATTEND_MLA, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// Dimensions of a head.
pub const HEAD_DIM: usize = 128;
/// Dimensions of a latent row that are values.
pub const LATENT_DIM: usize = 512;
/// Dimensions of a query to latent rows: latent and rotary.
pub const LATENT_QUERY_DIM: usize = 576;
/// Tokens of a tile.
const TILE: u32 = 16;
/// Threads of a block of grouped-query attention, of which a multiprocessor holds one.
const THREADS: u32 = 256;
/// What a warp, or a block, has summed of a head: the values and some room between, maximum and sum.
const PIECE: usize = HEAD_DIM + 4 + 2;
/// Thread blocks of latent attention per multiprocessor.
const LATENT_BLOCKS_PER_SM: u32 = 1;
/// Query heads of latent attention that one thread block serves.
const LATENT_HEADS: u32 = 16;

/// Geometry of a grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gqa {
    /// Tokens per page: 16 or 64.
    pub page: u32,
    /// Query heads per KV head: 4 or 8.
    pub group: u32,
}

impl Gqa {
    /// Bytes of a frame: a page's keys, then its values.
    pub fn frame_bytes(self) -> usize {
        self.page as usize * HEAD_DIM * 4
    }

    /// Per warp, a ring of two tiles of keys and values, and two pieces of every head.
    fn shared_bytes(self) -> u32 {
        THREADS / 32 * 2 * (TILE * count32(HEAD_DIM) + self.group * count32(PIECE)) * 4
    }
}

/// What each stream attends to: `entries` of all streams in a row (frames, or rows of latent attention), where each
/// stream's begin, and its tokens. All of a stream's entries but the last are full.
pub struct Reading {
    entries: DeviceBuffer<u32>,
    rows: DeviceBuffer<[u32; 4]>,
    streams: u32,
    tokens: u32,
}

impl Reading {
    /// Readings known to the host: per stream, its entries and how many tokens they hold; `page` tokens to an entry.
    ///
    /// # Errors
    /// If the device has too little memory.
    ///
    /// # Panics
    /// If a stream's tokens do not need exactly its entries.
    pub fn from_host(device: &Device, page: u32, streams: &[(&[u32], u32)]) -> Result<Reading, HwError> {
        let (mut entries, mut rows, mut tiles) = (Vec::new(), Vec::new(), 0);
        for &(list, tokens) in streams {
            assert_eq!(count32(list.len()), tokens.div_ceil(page), "a stream's tokens fill its entries");
            rows.push([tiles, count32(entries.len()), tokens, 0]);
            entries.extend_from_slice(list);
            tiles += tokens.div_ceil(TILE);
        }
        rows.push([tiles, count32(entries.len()), 0, 0]);
        Ok(Reading {
            entries: DeviceBuffer::from_host(device, &entries)?,
            rows: DeviceBuffer::from_host(device, &rows)?,
            streams: count32(streams.len()),
            tokens: (tiles * TILE).checked_div(count32(streams.len())).unwrap_or(0),
        })
    }

    /// A reading that kernels fill in before it is read: room for `entries`, and a row per stream and one more,
    /// for streams of about so many tokens.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub(crate) fn to_fill(
        device: &Device,
        entries: usize,
        streams: usize,
        tokens: u32,
    ) -> Result<Reading, HwError> {
        Ok(Reading {
            entries: DeviceBuffer::filled(device, entries, 0)?,
            rows: DeviceBuffer::filled(device, streams + 1, 0)?,
            streams: count32(streams),
            tokens,
        })
    }

    /// The same, cut as if its streams had about so many tokens.
    #[must_use]
    pub(crate) fn expecting(self, tokens: u32) -> Reading {
        Reading { tokens, ..self }
    }

    /// Tokens of a stream, about: what a cut is chosen by.
    pub(super) fn usual_tokens(&self) -> u32 {
        self.tokens
    }

    /// Streams.
    pub(super) fn streams(&self) -> u32 {
        self.streams
    }

    /// Entries of a stream where all have as many.
    pub(super) fn usual_entries(&self) -> u32 {
        count32(self.entries.len()).checked_div(self.streams).unwrap_or(0)
    }

    /// Addresses of entries and rows, for the kernels that fill them in.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        (self.entries.address(), self.rows.address())
    }

    /// The entries, for corrupting them in a test.
    pub fn entries_mut(&mut self) -> &mut DeviceBuffer<u32> {
        &mut self.entries
    }
}

/// How an attention is cut into work for thread blocks.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// Tiles of 16 tokens for one thread block, at least, where multiprocessors are left to others.
    pub least: u32,
    /// Multiprocessors left to kernels beside this one; none means that there are no such kernels.
    pub spare: u32,
}

impl Default for Split {
    fn default() -> Split {
        Split { least: 8, spare: 0 }
    }
}

/// Where an attention's result goes: bf16 values, and the natural logarithm of the sum of exponentials.
pub struct Attended {
    /// Streams x group x 128, bf16.
    pub out: DeviceBuffer<u16>,
    /// Streams x group.
    pub lse: DeviceBuffer<f32>,
}

impl Attended {
    /// Room for a result, poisoned.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, streams: usize, heads: usize, dim: usize) -> Result<Attended, HwError> {
        Ok(Attended {
            out: DeviceBuffer::filled(device, streams * heads * dim, 0xff)?,
            lse: DeviceBuffer::filled(device, streams * heads, 0xff)?,
        })
    }
}

/// What an attention needs beside its operands; not shared by calls that overlap.
pub struct Scratch {
    pieces: DeviceBuffer<f32>,
    arrived: DeviceBuffer<u32>,
    grid: u32,
}

/// Operands of an attention.
pub struct Call<'a> {
    /// Streams x heads x dimensions, bf16.
    pub queries: &'a DeviceBuffer<u16>,
    /// Address of the frames or rows.
    pub pool: u64,
    /// What is attended to.
    pub reading: &'a Reading,
    /// Scratch for at least as many streams.
    pub scratch: &'a Scratch,
    /// Where the result goes.
    pub result: &'a Attended,
}

impl Call<'_> {
    fn launch(
        &self,
        stream: &Stream,
        kernel: Kernel,
        scale: f32,
        split: Split,
        shape: Shape,
    ) -> Result<(), HwError> {
        let arguments = [
            self.queries.address(),
            self.pool,
            self.reading.entries.address(),
            self.reading.rows.address(),
            u64::from(self.reading.streams),
            // Scores are exponentiated to base 2.
            u64::from((scale * std::f32::consts::LOG2_E).to_bits()),
            self.result.out.address(),
            self.result.lse.address(),
            self.scratch.pieces.address(),
            self.scratch.arrived.address(),
            u64::from(split.least),
            u64::from(self.reading.usual_entries()),
        ];
        // SAFETY: as declared in attend_gqa.cu and attend_mla.cu; the reading names entries within the pool.
        unsafe { stream.launch(kernel, shape, &arguments) }
    }
}

/// The grouped-query kernels.
pub struct AttendGqa {
    device: Device,
    clusters: GqaClusters,
    kernels: Vec<(Gqa, Kernel)>,
    merge: Kernel,
    _module: Module,
}

impl AttendGqa {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<AttendGqa, HwError> {
        let module = Module::load(device, ATTEND_GQA)?;
        let mut kernels = Vec::new();
        for (page, group) in [(16, 4), (16, 8), (64, 4), (64, 8)] {
            let gqa = Gqa { page, group };
            let kernel = module.kernel(&format!("attend_gqa_p{page}_g{group}"), gqa.shared_bytes())?;
            kernels.push((gqa, kernel));
        }
        let merge = module.kernel("merge_parts", 0)?;
        let clusters = GqaClusters::load(device)?;
        Ok(AttendGqa { device: device.clone(), clusters, kernels, merge, _module: module })
    }

    /// Scratch for attentions of at most `streams` streams.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn scratch(&self, streams: usize) -> Result<Scratch, HwError> {
        let grid = self.device.info().sms;
        Ok(Scratch {
            pieces: DeviceBuffer::filled(&self.device, grid as usize * 2 * 8 * PIECE, 0xff)?,
            arrived: DeviceBuffer::filled(&self.device, streams, 0)?,
            grid,
        })
    }

    /// Attends: `queries` is streams x group x 128 bf16.
    ///
    /// # Errors
    /// If the launch is refused.
    ///
    /// # Panics
    /// If there is no kernel for the geometry.
    pub fn attend(&self, stream: &Stream, gqa: Gqa, call: &Call<'_>, split: Split) -> Result<(), HwError> {
        let scale = 1.0 / (HEAD_DIM as f32).sqrt();
        if split.spare == 0 {
            return self.clusters.attend(stream, gqa, call, scale);
        }
        if call.reading.streams == 0 {
            return Ok(());
        }
        let found = self.kernels.iter().find(|(known, _)| *known == gqa);
        let &(_, kernel) = found.expect("pages of 16 or 64 tokens and groups of 4 or 8 heads");
        let grid = (call.scratch.grid - split.spare, 1);
        call.launch(stream, kernel, scale, split, Shape { grid, block: THREADS, shared: gqa.shared_bytes() })
    }

    /// Merges the attention over one part of each selection with that over the rest, into the first.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn merge(
        &self,
        stream: &Stream,
        into: &Attended,
        other: &Attended,
        dim: usize,
    ) -> Result<(), HwError> {
        let arguments = [
            into.out.address(),
            into.lse.address(),
            other.out.address(),
            other.lse.address(),
            u64::from(count32(dim)),
        ];
        // SAFETY: as declared in attend_gqa.cu.
        unsafe { stream.launch(self.merge, Shape::flat(count32(into.lse.len()), 128), &arguments) }
    }
}

/// Geometry of a latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mla {
    /// Query heads, a multiple of 16.
    pub heads: u32,
    /// Whether latent dimensions are fp8 with a scale per 128.
    pub fp8: bool,
}

impl Mla {
    /// Bytes of a row.
    pub fn row_bytes(self) -> usize {
        if self.fp8 { 656 } else { 1152 }
    }

    /// A ring of stages of one tile each.
    fn shared_bytes(self) -> u32 {
        let (stages, pitch) = if self.fp8 { (19, 656) } else { (11, 1168) };
        stages * TILE * pitch
    }
}

/// The latent-attention kernels.
pub struct AttendMla {
    device: Device,
    clusters: MlaClusters,
    bf16: Kernel,
    fp8: Kernel,
    add_pieces: Kernel,
    _module: Module,
}

impl AttendMla {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<AttendMla, HwError> {
        let module = Module::load(device, ATTEND_MLA)?;
        Ok(AttendMla {
            device: device.clone(),
            clusters: MlaClusters::load(device)?,
            bf16: module.kernel("attend_mla_bf16", Mla { heads: 16, fp8: false }.shared_bytes())?,
            fp8: module.kernel("attend_mla_fp8", Mla { heads: 16, fp8: true }.shared_bytes())?,
            add_pieces: module.kernel("add_pieces", 0)?,
            _module: module,
        })
    }

    /// Scratch for attentions of at most `streams` streams.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn scratch(&self, mla: Mla, streams: usize) -> Result<Scratch, HwError> {
        let (grid, groups) =
            (self.device.info().sms * LATENT_BLOCKS_PER_SM, (mla.heads / LATENT_HEADS) as usize);
        let piece = 16 * (LATENT_DIM + 2);
        Ok(Scratch {
            pieces: DeviceBuffer::filled(&self.device, grid as usize * 2 * groups * piece, 0xff)?,
            arrived: DeviceBuffer::filled(&self.device, streams * groups, 0)?,
            grid,
        })
    }

    /// Attends: `queries` is streams x heads x 576 bf16, the result streams x heads x 512. Scores are scaled by `scale`.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn attend(
        &self,
        stream: &Stream,
        mla: Mla,
        call: &Call<'_>,
        scale: f32,
        split: Split,
    ) -> Result<(), HwError> {
        if split.spare == 0 {
            return self.clusters.attend(stream, mla, call, scale);
        }
        let kernel = if mla.fp8 { self.fp8 } else { self.bf16 };
        let groups = mla.heads / LATENT_HEADS;
        // All head groups together fill the device once.
        let spare = split.spare * LATENT_BLOCKS_PER_SM;
        let grid = ((call.scratch.grid - spare) / groups).max(1);
        let shape = Shape { grid: (grid, groups), block: 256, shared: mla.shared_bytes() };
        call.launch(stream, kernel, scale, split, shape)?;
        let streams = call.reading.streams;
        let arguments = [
            call.reading.rows.address(),
            u64::from(streams),
            call.result.out.address(),
            call.result.lse.address(),
            call.scratch.pieces.address(),
            u64::from(grid),
            u64::from(split.least),
        ];
        let shape = Shape { grid: (streams, mla.heads), block: 128, shared: 0 };
        // SAFETY: as declared in attend_mla.cu.
        unsafe { stream.launch(self.add_pieces, shape, &arguments) }
    }
}
