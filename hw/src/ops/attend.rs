//! Sparse decode attention over frames.

use super::count32;
use crate::compile::{ATTEND_GQA, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// Dimensions of a head.
pub const HEAD_DIM: usize = 128;
/// Thread blocks per multiprocessor; their registers fit, and no more do.
const BLOCKS_PER_SM: u32 = 3;

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
}

/// What each stream attends to: `frames` of all streams in a row, where each stream's begin, and its tokens. All of a
/// stream's frames but the last are full.
pub struct Reading {
    frames: DeviceBuffer<u32>,
    entry: DeviceBuffer<u32>,
    tokens: DeviceBuffer<u32>,
    first_tile: DeviceBuffer<u32>,
    streams: u32,
}

impl Reading {
    /// Readings known to the host: per stream, its frames and how many tokens they hold.
    ///
    /// # Errors
    /// If the device has too little memory.
    ///
    /// # Panics
    /// If a stream's tokens do not need exactly its frames.
    pub fn from_host(device: &Device, page: u32, streams: &[(&[u32], u32)]) -> Result<Reading, HwError> {
        let (mut frames, mut entry, mut first_tile) = (Vec::new(), Vec::new(), vec![0]);
        for &(list, tokens) in streams {
            assert_eq!(count32(list.len()), tokens.div_ceil(page), "a stream's tokens fill its frames");
            entry.push(count32(frames.len()));
            frames.extend_from_slice(list);
            first_tile.push(first_tile.last().copied().unwrap_or(0) + tokens.div_ceil(16));
        }
        let tokens: Vec<u32> = streams.iter().map(|&(_, tokens)| tokens).collect();
        Ok(Reading {
            frames: DeviceBuffer::from_host(device, &frames)?,
            entry: DeviceBuffer::from_host(device, &entry)?,
            tokens: DeviceBuffer::from_host(device, &tokens)?,
            first_tile: DeviceBuffer::from_host(device, &first_tile)?,
            streams: count32(streams.len()),
        })
    }

    /// Address of the frame numbers.
    pub fn frames(&self) -> &DeviceBuffer<u32> {
        &self.frames
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

/// What an attention needs beside its operands; one per stream of work.
pub struct Scratch {
    pieces: DeviceBuffer<f32>,
    arrived: DeviceBuffer<u32>,
    grid: u32,
}

/// The grouped-query kernels.
pub struct AttendGqa {
    device: Device,
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
            let kernel = module.kernel(&format!("attend_gqa_p{page}_g{group}"), 0)?;
            kernels.push((Gqa { page, group }, kernel));
        }
        let merge = module.kernel("merge_parts", 0)?;
        Ok(AttendGqa { device: device.clone(), kernels, merge, _module: module })
    }

    /// Scratch for attentions of at most `streams` streams.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn scratch(&self, streams: usize) -> Result<Scratch, HwError> {
        let grid = self.device.info().sms * BLOCKS_PER_SM;
        Ok(Scratch {
            pieces: DeviceBuffer::filled(&self.device, grid as usize * 2 * 8 * (HEAD_DIM + 2), 0xff)?,
            arrived: DeviceBuffer::filled(&self.device, streams, 0)?,
            grid,
        })
    }

    /// Attends: `queries` is streams x group x 128 bf16. At least `least` tiles of 16 tokens go to one thread block.
    ///
    /// # Errors
    /// If the launch is refused.
    ///
    /// # Panics
    /// If there is no kernel for the geometry.
    #[allow(clippy::too_many_arguments)] // An attention has this many operands.
    pub fn attend(
        &self,
        stream: &Stream,
        gqa: Gqa,
        queries: &DeviceBuffer<u16>,
        pool: u64,
        reading: &Reading,
        scratch: &Scratch,
        result: &Attended,
        least: u32,
    ) -> Result<(), HwError> {
        let found = self.kernels.iter().find(|(known, _)| *known == gqa);
        let &(_, kernel) = found.expect("pages of 16 or 64 tokens and groups of 4 or 8 heads");
        // Scores are exponentiated to base 2.
        let scale = std::f32::consts::LOG2_E / (HEAD_DIM as f32).sqrt();
        let arguments = [
            queries.address(),
            pool,
            reading.frames.address(),
            reading.entry.address(),
            reading.tokens.address(),
            reading.first_tile.address(),
            u64::from(reading.streams),
            u64::from(scale.to_bits()),
            result.out.address(),
            result.lse.address(),
            scratch.pieces.address(),
            scratch.arrived.address(),
            u64::from(least),
        ];
        // SAFETY: as declared in attend_gqa.cu; the reading names frames within the pool.
        unsafe { stream.launch(kernel, Shape::flat(scratch.grid, 128), &arguments) }
    }

    /// Merges the attention over one part of each selection with that over the rest, into the first.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn merge(&self, stream: &Stream, into: &Attended, other: &Attended, dim: usize) -> Result<(), HwError> {
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
