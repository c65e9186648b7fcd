//! Selection: page bounds and top k.

use super::count32;
use crate::compile::{Module, SELECT};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// Bytes of a page's summary: 128 maxima and 128 minima, bf16.
pub const SUMMARY_BYTES: usize = 512;

/// Words of a block that selects: counters of digits, three sets, their sum, its 32nds, how long the list is, and a bound.
const COUNTERS: u32 = 4 * 1024 + 32 + 2;
/// Keys that the blocks of a stream sort together at most, and that any of them sorts.
const TOP_LISTED: u32 = 8192;
const TOP_ALONE: u32 = 4096;

/// Scores of every stream's candidates: `counts[stream]` of them, `stride` apart.
pub struct Scores {
    /// Streams x stride.
    pub scores: DeviceBuffer<f32>,
    /// Candidates per stream.
    pub counts: DeviceBuffer<u32>,
    /// Elements between two streams' scores.
    pub stride: u32,
}

/// The selection kernels.
pub struct Select {
    device: Device,
    bound: [Kernel; 2],
    top_k: Kernel,
    _module: Module,
}

impl Select {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Select, HwError> {
        let module = Module::load(device, SELECT)?;
        Ok(Select {
            device: device.clone(),
            bound: [module.kernel("quest_bound_g4", 0)?, module.kernel("quest_bound_g8", 0)?],
            top_k: module.kernel("top_k", TOP_ALONE * 8 + (TOP_LISTED + 8 + COUNTERS) * 4)?,
            _module: module,
        })
    }

    /// Scores every page by the largest bound among the heads of its group (4 or 8).
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn bound(
        &self,
        stream: &Stream,
        group: u32,
        queries: &DeviceBuffer<u16>,
        summaries: u64,
        scores: &Scores,
    ) -> Result<(), HwError> {
        // Thread blocks per multiprocessor, as registers allow.
        let (kernel, per_sm) = match group {
            4 => (self.bound[0], 4),
            8 => (self.bound[1], 3),
            _ => panic!("groups of 4 or 8 heads, not {group}"),
        };
        let arguments = [
            queries.address(),
            summaries,
            scores.counts.address(),
            u64::from(scores.stride),
            scores.counts.len() as u64,
            scores.scores.address(),
        ];
        let grid = self.device.info().sms * per_sm;
        // SAFETY: as declared in select.cu.
        unsafe { stream.launch(kernel, Shape::flat(grid, 128), &arguments) }
    }

    /// The `k` best of each stream in rank order, ties to the lower index, `k` apart; `taken` says how many.
    ///
    /// # Errors
    /// If the launch is refused.
    ///
    /// # Panics
    /// If k exceeds 4096.
    pub fn top_k(
        &self,
        stream: &Stream,
        scores: &Scores,
        k: u32,
        best: &DeviceBuffer<u32>,
        taken: &DeviceBuffer<u32>,
    ) -> Result<(), HwError> {
        assert!(k <= 4096, "k of {k} is beyond 4096");
        let padded = k.next_power_of_two().max(64);
        let streams = count32(scores.counts.len());
        let arguments = [
            scores.scores.address(),
            scores.counts.address(),
            u64::from(scores.stride),
            u64::from(k),
            u64::from(padded),
            best.address(),
            taken.address(),
        ];
        let (parts, threads) = self.width(streams, scores.stride);
        let lists = if parts > 1 { TOP_LISTED + parts } else { 0 };
        let shape = Shape {
            grid: (streams * parts, 1),
            block: threads,
            shared: TOP_ALONE * 8 + (lists + COUNTERS) * 4,
        };
        // SAFETY: as declared in select.cu, whose blocks wait for the kernel before.
        unsafe { stream.launch_clusters(self.top_k, shape, parts, &arguments) }
    }

    /// Blocks that share a stream, as many as there are multiprocessors for and its scores are worth, and their threads.
    fn width(&self, streams: u32, scores: u32) -> (u32, u32) {
        let parts = [8, 4, 2]
            .into_iter()
            .find(|parts| parts * streams <= self.device.info().sms && scores / parts >= 8 * 1024);
        (parts.unwrap_or(1), if scores <= 8 * 1024 { 512 } else { 1024 })
    }
}
