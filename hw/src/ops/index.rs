//! Scores of an indexer over a whole context, by which the best tokens are selected.

use super::select::Scores;
use crate::compile::{INDEX, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// Query heads of an indexer.
pub const INDEX_HEADS: usize = 64;
/// Dimensions of an index key.
pub const INDEX_DIM: usize = 128;
/// Keys that lie together.
pub const INDEX_BLOCK: usize = 64;

/// Format of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFormat {
    /// bf16 rows.
    Bf16,
    /// Blocks of 64 rows e4m3, then their 64 scales in f32; queries without a scale.
    Fp8,
}

impl IndexFormat {
    /// Bytes of a block of keys.
    pub fn block_bytes(self) -> usize {
        match self {
            IndexFormat::Bf16 => INDEX_BLOCK * INDEX_DIM * 2,
            IndexFormat::Fp8 => INDEX_BLOCK * (INDEX_DIM + 4),
        }
    }

    /// Thread blocks per multiprocessor, and the shared memory of each: its ring of blocks, and the queries.
    fn width(self) -> (u32, u32) {
        match self {
            IndexFormat::Bf16 => (3, 3 * 16_384 + 16_384),
            IndexFormat::Fp8 => (5, 4 * 9216 + 8192),
        }
    }
}

/// What is scored with what.
pub struct IndexCall<'a> {
    /// Address of the queries: streams x 64 x 128.
    pub queries: u64,
    /// Streams x 64.
    pub head_weights: &'a DeviceBuffer<f32>,
    /// Address of the keys: per stream as many whole blocks as the stride of the scores needs.
    pub keys: u64,
    /// How many keys of each stream are scored, and where the scores go.
    pub scores: &'a Scores,
}

/// The scoring kernels.
pub struct Index {
    device: Device,
    kernels: [(IndexFormat, Kernel); 2],
    _module: Module,
}

impl Index {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Index, HwError> {
        let module = Module::load(device, INDEX)?;
        let load = |format: IndexFormat, name| Ok((format, module.kernel(name, format.width().1)?));
        let kernels =
            [load(IndexFormat::Bf16, "index_scores_bf16")?, load(IndexFormat::Fp8, "index_scores_fp8")?];
        Ok(Index { device: device.clone(), kernels, _module: module })
    }

    /// Scores keys: the sum over heads of weight x max(0, query . key).
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn score(&self, stream: &Stream, format: IndexFormat, call: &IndexCall<'_>) -> Result<(), HwError> {
        let found = self.kernels.iter().find(|(known, _)| *known == format);
        let &(_, kernel) = found.expect("a kernel for every format");
        let (per_sm, shared) = format.width();
        let arguments = [
            call.queries,
            call.head_weights.address(),
            call.keys,
            call.scores.counts.address(),
            u64::from(call.scores.stride),
            call.scores.counts.len() as u64,
            call.scores.scores.address(),
        ];
        let shape = Shape { grid: (self.device.info().sms * per_sm, 1), block: 128, shared };
        // SAFETY: as declared in index.cu; keys and scores have the stride's room for every stream.
        unsafe { stream.launch_clusters(kernel, shape, 1, &arguments) }
    }
}
