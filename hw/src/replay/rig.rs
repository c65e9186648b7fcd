//! The device as a replay holds it: home, frames, tables and kernels, everything allocated before the first step.
//! Long because what is allocated and what is launched over it must agree.

use super::geometry::{Geometry, Shape as Attends};
use super::script::{Joined, layout};
use crate::ops::attend::{AttendGqa, AttendMla, Attended, Call as AttendCall, Reading, Scratch, Split};
use crate::ops::count32;
use crate::ops::dense::{BF16_NOISE, Dense, Gemm, Product};
use crate::ops::lookup::{Decided, Lookup, Policy, Residencies, Selected};
use crate::ops::replay::{Argument, Call, Meta, Part, ReplayKernels, Script};
use crate::ops::swap::{Lists, Move, Moves, Pools, Swap, Width};
use crate::{Device, DeviceBuffer, Event, HwError, PinnedBuffer, Shape, Stream};
use kvtier_policies::Start;

/// Multiprocessors that a swap-in beside attention keeps to itself.
pub(super) const COPY_SMS: u32 = 16;
/// Times that one step takes of itself, at most: two per operation.
const STAMPS_PER_LAYER: u32 = 28;

/// Where the script of a chunk lies: with the device, or in pinned host memory, from where it is uploaded as it is read.
enum ScriptMemory {
    Device(DeviceBuffer<u32>),
    Host(PinnedBuffer<u32>),
}

/// Every kernel of a replay, compiled once for any number of them.
pub struct Kernels {
    pub(super) device: Device,
    replay: ReplayKernels,
    pub(super) lookup: Lookup,
    pub(super) swap: Swap,
    pub(super) dense: Dense,
    gqa: AttendGqa,
    mla: AttendMla,
    /// Where weights are multiplied.
    pub(super) gemm: Option<Gemm>,
}

impl Kernels {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Kernels, HwError> {
        Ok(Kernels {
            device: device.clone(),
            replay: ReplayKernels::load(device)?,
            lookup: Lookup::load(device)?,
            swap: Swap::load(device)?,
            dense: Dense::load(device)?,
            gqa: AttendGqa::load(device)?,
            mla: AttendMla::load(device)?,
            gemm: None,
        })
    }
}

/// Pinned host memory that one replay leaves to the next: pinning takes longer than a short replay.
pub type Home = Option<PinnedBuffer<u8>>;

/// Everything a replay has on a device.
pub(super) struct Rig<'a> {
    pub(super) kernels: &'a Kernels,
    pub(super) device: Device,
    pub(super) stream: Stream,
    pub(super) copy_in: Stream,
    pub(super) copy_out: Stream,
    pub(super) geometry: Geometry,
    pub(super) state: Residencies,
    pub(super) selected: Selected,
    pub(super) metas: DeviceBuffer<Meta>,
    pub(super) decided: Decided,
    pub(super) owners: DeviceBuffer<u64>,
    pub(super) frame_of: DeviceBuffer<u32>,
    pub(super) frames: DeviceBuffer<u8>,
    pub(super) home: PinnedBuffer<u8>,
    pub(super) pool: DeviceBuffer<u8>,
    /// Misses and prefetches of each layer.
    pub(super) moves: Vec<[Lists; 2]>,
    /// Per stream, those of its loads that are brought from home.
    pub(super) missed: DeviceBuffer<u32>,
    /// Write-backs of each layer, and the loads of admissions.
    pub(super) written: Vec<Moves>,
    pub(super) admission: Moves,
    script: ScriptMemory,
    pub(super) step: DeviceBuffer<u32>,
    pub(super) stamps: DeviceBuffer<u64>,
    pub(super) admission_stamps: DeviceBuffer<u64>,
    pub(super) log: DeviceBuffer<u32>,
    pub(super) queries: DeviceBuffer<u16>,
    /// Result of each layer's last attention, and of the part of it over misses.
    pub(super) results: Vec<Attended>,
    pub(super) misses: Attended,
    pub(super) readings: [Reading; 2],
    scratch: Option<Scratch>,
    checksum: DeviceBuffer<u32>,
    pub(super) before_batch: Event,
    owners_on_host: Vec<u64>,
    /// What products take and give; nothing where weights are streamed.
    operands: Option<[DeviceBuffer<u16>; 2]>,
}

impl<'a> Rig<'a> {
    /// Allocates and fills everything; the largest buffers first, so that what does not fit is found at once.
    pub(super) fn new(kernels: &'a Kernels, geometry: Geometry, home: &mut Home) -> Result<Rig<'a>, HwError> {
        let device = &kernels.device;
        let (free, total) = device.memory()?;
        geometry.check_device(free, total)?;
        let bytes = |bytes: u64| usize::try_from(bytes).expect("memory that fits the device is addressable");
        let needed = geometry.home_bytes_on_host();
        let home = match home.take().filter(|home| home.len() >= needed) {
            Some(home) => home,
            None => PinnedBuffer::new(device, needed)?,
        };
        let frames = DeviceBuffer::filled(device, bytes(geometry.frame_bytes()), 0)?;
        let pool = DeviceBuffer::new(device, bytes(geometry.pool_words * 16))?;
        let (z, all) = (geometry.sizes, geometry.all() as usize);
        let per_layer = z.streams as usize;
        let words = bytes(geometry.step_words()) * geometry.chunk as usize;
        let script = match geometry.ways.policy {
            Some(_) => ScriptMemory::Device(DeviceBuffer::new(device, words)?),
            None => ScriptMemory::Host(PinnedBuffer::new(device, words)?),
        };
        let moves = |n: usize| -> Result<Moves, HwError> {
            Ok(Moves {
                list: DeviceBuffer::filled(device, n.max(1), 0)?,
                count: DeviceBuffer::filled(device, 1, 0)?,
            })
        };
        let lists = (0..geometry.layers).map(|_| {
            let (lists, per_list) = (geometry.lists(), z.streams / geometry.lists());
            let list = |blocks: u32| Lists::new(device, lists, per_list * blocks);
            Ok([list(z.k)?, list(geometry.budget)?])
        });
        let written = (0..geometry.layers).map(|_| moves(per_layer));
        let (heads, width) = geometry.result();
        let attended = || Attended::new(device, per_layer, heads, width);
        let tokens = geometry.tokens();
        let reading = || Reading::to_fill(device, per_layer * geometry.stride as usize, per_layer, tokens);
        let scratch = match geometry.shape {
            Attends::Gqa(_) => Some(kernels.gqa.scratch(per_layer)?),
            Attends::Mla(mla) => Some(kernels.mla.scratch(mla, per_layer)?),
            Attends::Read => None,
        };
        let query = if matches!(geometry.shape, Attends::Mla(_)) { 576 } else { width };
        let stamps = geometry.chunk as usize * stamps_per_step(&geometry) as usize;
        let mut selected = Selected::new(device, geometry.buffers(), all)?;
        selected.ids.write(&(0..geometry.all()).collect::<Vec<u32>>())?;
        if geometry.reads_scores() {
            selected.scores = Some(DeviceBuffer::filled(device, all * z.k as usize, 0)?);
        }
        let rig = Rig {
            stream: Stream::new(device)?,
            copy_in: Stream::new(device)?,
            copy_out: Stream::new(device)?,
            kernels,
            state: Residencies::new(
                device,
                geometry.ways.policy.unwrap_or(Policy::LruStep),
                geometry.buffers(),
            )?,
            selected,
            metas: DeviceBuffer::filled(device, all, 0)?,
            decided: Decided::new(device, geometry.buffers(), all)?,
            owners: DeviceBuffer::filled(device, all, 0)?,
            frame_of: DeviceBuffer::filled(device, geometry.hot_frames() as usize, 0)?,
            moves: lists.collect::<Result<_, HwError>>()?,
            missed: DeviceBuffer::filled(device, all, 0)?,
            written: written.collect::<Result<_, HwError>>()?,
            admission: moves(all * z.slots as usize)?,
            step: DeviceBuffer::filled(device, 1, 0)?,
            stamps: DeviceBuffer::filled(device, stamps, 0)?,
            admission_stamps: DeviceBuffer::filled(device, geometry.chunk as usize * 2, 0)?,
            log: DeviceBuffer::filled(device, bytes(geometry.log_words()) * geometry.chunk as usize, 0)?,
            queries: DeviceBuffer::new(device, (per_layer * heads * query).max(4))?,
            results: (0..geometry.layers).map(|_| attended()).collect::<Result<_, HwError>>()?,
            misses: attended()?,
            readings: [reading()?, reading()?],
            scratch,
            checksum: DeviceBuffer::filled(device, 1, 0)?,
            before_batch: Event::new(device)?,
            owners_on_host: vec![0; all],
            operands: operands(&kernels.device, &geometry)?,
            device: device.clone(),
            geometry,
            home,
            frames,
            pool,
            script,
        };
        for (to, bytes) in
            [(rig.pool.address(), rig.pool.len()), (rig.queries.address(), rig.queries.len() * 2)]
        {
            kernels.dense.fill_noise(&rig.stream, to, bytes as u64, 7, BF16_NOISE)?;
        }
        if let Some([inputs, _]) = &rig.operands {
            let bytes = inputs.len() as u64 * 2;
            kernels.dense.fill_noise(&rig.stream, inputs.address(), bytes, 7, BF16_NOISE)?;
            // The library allocates when it first sees a shape, which a graph cannot record.
            rig.geometry.products().try_for_each(|product| rig.multiply(*product, rig.pool.address()))?;
        }
        rig.stream.synchronize()?;
        Ok(rig)
    }

    /// Multiplies by weights that lie at `at`.
    pub(super) fn multiply(&self, product: Product, at: u64) -> Result<(), HwError> {
        let (gemm, operands) = (self.kernels.gemm.as_ref(), self.operands.as_ref());
        let (Some(gemm), Some([inputs, outputs])) = (gemm, operands) else { return Err(HwError::NoProducts) };
        gemm.multiply(&self.stream, product, (inputs.address(), at, outputs.address()))
    }

    pub(super) fn pools(&self) -> Pools {
        let block_bytes = self.geometry.cells.words * 16;
        Pools { home: self.home.address(), frames: self.frames.address(), block_bytes }
    }

    pub(super) fn script(&self) -> Script {
        let words = match &self.script {
            ScriptMemory::Device(buffer) => buffer.address(),
            ScriptMemory::Host(buffer) => buffer.address(),
        };
        layout(&self.geometry, words, self.step.address())
    }

    /// Uploads a chunk and starts counting its steps. Nothing may be running.
    pub(super) fn upload(&mut self, words: &[u32]) -> Result<(), HwError> {
        self.step.write(&[0])?;
        match &mut self.script {
            ScriptMemory::Device(buffer) => buffer.write(words),
            ScriptMemory::Host(buffer) => {
                buffer.as_mut_slice()[..words.len()].copy_from_slice(words);
                Ok(())
            }
        }
    }

    /// Begins a pass: every slot has the frame of its number, and nothing waits to be sent. Nothing may be running.
    pub(super) fn begin_pass(&mut self) -> Result<(), HwError> {
        self.frame_of.write(&(0..self.geometry.hot_frames()).collect::<Vec<u32>>())?;
        self.moves.iter_mut().try_for_each(|lists| lists[1].clear())
    }

    /// Launches one of the replay's kernels.
    pub(super) fn launch(
        &self,
        stream: &Stream,
        call: Call,
        shape: Shape,
        arguments: &[Argument],
    ) -> Result<(), HwError> {
        // SAFETY: callers pass what replay.cu declares; every address is of a buffer of this rig, which waits for its
        // streams before it is dropped or written to.
        unsafe { self.kernels.replay.launch(stream, call, shape, arguments) }
    }

    /// Seats requests: their home, their begun blocks, what their buffers start with. `loads` whether that is timed.
    pub(super) fn seat(&mut self, joined: &[Joined], start: Start) -> Result<(), HwError> {
        self.device.synchronize()?;
        let z = self.geometry.sizes;
        // Frames stay with the slots whoever has them.
        let frame_of = self.frame_of.read()?;
        let (mut opened, mut moves, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for request in joined {
            let ids: Vec<u32> = (0..self.geometry.layers)
                .flat_map(|layer| (0..self.geometry.heads).map(move |head| (layer, head)))
                .map(|(layer, head)| self.geometry.stream(request.seat, layer, head))
                .collect();
            let first = request.full.saturating_sub(z.slots);
            let (first, count) = match start {
                Start::Recent => (first, request.full - first),
                Start::Cold if request.full <= z.slots => (0, request.full),
                Start::Cold => (0, 0),
            };
            for (at, &g) in (0u32..).zip(&ids) {
                self.owners_on_host[g as usize] = owner(request.request, at);
                opened.push((g, first, count));
                let frames = &frame_of[(g * (z.slots + 1)) as usize..];
                let to = |i: u32| Move { home: g * z.blocks + first + i, frame: frames[i as usize] };
                moves.extend((0..count).map(to));
            }
            lists.push((request, DeviceBuffer::from_host(&self.device, &ids)?));
        }
        self.owners.write(&self.owners_on_host)?;
        self.kernels.lookup.open(&self.stream, &mut self.state, &opened)?;
        self.admission.list.write(&moves)?;
        self.admission.count.write(&[count32(moves.len())])?;
        for (request, ids) in &lists {
            self.redirect(request.seat)?;
            let arguments = [
                Argument::Sizes(z),
                Argument::Cells(self.geometry.cells),
                Argument::Word(ids.address()),
                Argument::Word(request.full.into()),
                Argument::Word(request.tokens.into()),
                Argument::Word(self.owners.address()),
                Argument::Word(self.frame_of.address()),
                Argument::Word(self.frames.address()),
                Argument::Word(self.home.address()),
            ];
            let shape = Shape { grid: (8, count32(ids.len())), block: 256, shared: 0 };
            self.launch(&self.stream, Call::Seat, shape, &arguments)?;
        }
        self.stamp(&self.stream, &self.admission_stamps, 2, 0)?;
        if !moves.is_empty() {
            let width = Width::shared(self.device.info().sms);
            self.kernels.swap.swap_in(&self.stream, self.pools(), &self.admission, width)?;
        }
        self.stamp(&self.stream, &self.admission_stamps, 2, 1)?;
        // The lists of ids are about to be freed.
        self.stream.synchronize()
    }

    /// Notes the time in the current step's row of `stamps`.
    pub(super) fn stamp(
        &self,
        stream: &Stream,
        stamps: &DeviceBuffer<u64>,
        stride: u32,
        at: u32,
    ) -> Result<(), HwError> {
        let arguments = [stamps.address(), self.step.address(), stride.into(), at.into()].map(Argument::Word);
        self.launch(stream, Call::Stamp, Shape::flat(1, 1), &arguments)
    }

    /// Attends to a part of a layer's selection, which `reading` describes.
    pub(super) fn attend(&self, layer: usize, part: Part, spare: u32) -> Result<(), HwError> {
        let miss = part == Part::Misses;
        let result = if miss { &self.misses } else { &self.results[layer] };
        self.attend_to(&self.readings[usize::from(miss)], self.frames.address(), result, spare)
    }

    /// Attends to entries of any pool.
    pub(super) fn attend_to(
        &self,
        reading: &Reading,
        pool: u64,
        result: &Attended,
        spare: u32,
    ) -> Result<(), HwError> {
        let split = Split { spare, ..Split::default() };
        let call = |scratch| AttendCall { queries: &self.queries, pool, reading, scratch, result };
        let scratch = self.scratch.as_ref();
        match (self.geometry.shape, scratch) {
            (Attends::Gqa(gqa), Some(scratch)) => {
                self.kernels.gqa.attend(&self.stream, gqa, &call(scratch), split)
            }
            (Attends::Mla(mla), Some(scratch)) => {
                self.kernels.mla.attend(&self.stream, mla, &call(scratch), 1.0 / 24.0, split)
            }
            _ => {
                let (entries, rows) = reading.addresses();
                let cells = self.geometry.cells;
                let words =
                    [pool, entries, rows, cells.page.into(), cells.words.into(), self.checksum.address()];
                let streams = self.geometry.sizes.streams;
                let parts = (self.device.info().sms * 4).div_ceil(streams).clamp(1, 64);
                let shape = Shape { grid: (streams, parts), block: 256, shared: 0 };
                self.launch(&self.stream, Call::ReadEntries, shape, &words.map(Argument::Word))
            }
        }
    }

    /// Adds the attention over misses to that over hits.
    pub(super) fn merge(&self, layer: usize) -> Result<(), HwError> {
        let (_, width) = self.geometry.result();
        self.kernels.gqa.merge(&self.stream, &self.results[layer], &self.misses, width)
    }

    pub(super) fn checksum(&self) -> u64 {
        self.checksum.address()
    }

    /// Address at which everything of the log stands that a chunk wrote, and how far its steps are apart.
    pub(super) fn stamps_per_step(&self) -> u32 {
        stamps_per_step(&self.geometry)
    }
}

fn operands(device: &Device, geometry: &Geometry) -> Result<Option<[DeviceBuffer<u16>; 2]>, HwError> {
    let (inputs, outputs) = geometry.operands();
    let buffers = || Ok([DeviceBuffer::new(device, inputs)?, DeviceBuffer::new(device, outputs)?]);
    (inputs > 0).then(buffers).transpose()
}

fn stamps_per_step(geometry: &Geometry) -> u32 {
    STAMPS_PER_LAYER * count32(geometry.model.len() + 1)
}

/// Who a stream's bytes belong to: a number that no other stream of any recorded request has.
pub(super) fn owner(request: u32, stream: u32) -> u64 {
    let mut z = (u64::from(request) << 32 | u64::from(stream)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}

impl Rig<'_> {
    /// Leaves its pinned memory to the next replay.
    pub(super) fn into_home(self) -> PinnedBuffer<u8> {
        self.home
    }
}
