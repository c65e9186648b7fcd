//! What a replay needs of a device, worked out and checked before anything is allocated: streams, block layout, the
//! attention kernel that fits the model, and bytes.

use super::ways::{Ways, refuse};
use super::weights::{LayerBytes, WeightsRead, read_weights};
use super::{Managed, ReplayError, Weights};
use crate::HwError;
use crate::ops::attend::{Gqa, HEAD_DIM, LATENT_DIM, Mla};
use crate::ops::count32;
use crate::ops::dense::{Gemm, Product};
use crate::ops::lookup::{Buffers, Policy};
use crate::ops::replay::{Cells, Sizes};
use kvtier_sim::Single;
use kvtier_sim::model::{Attention, Model};
use kvtier_sim::overlap::Overlap;
use kvtier_sim::transfer::Mechanism;

/// Script and log of one chunk of steps, at most; and the steps of one.
const CHUNK_BYTES: u64 = 512 << 20;
const CHUNK_STEPS: u64 = 64;
/// Weights and index keys that are streamed, at most: beyond the L2 they are read from memory whatever they are.
const POOL_BYTES: u64 = 3 << 30;

/// The kernel that attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Gqa(Gqa),
    Mla(Mla),
    /// None has the shape: one that reads the same bytes stands in.
    Read,
}

/// Everything a replay is sized by.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) seats: u32,
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) sizes: Sizes,
    pub(super) cells: Cells,
    pub(super) shape: Shape,
    pub(super) ways: Ways,
    pub(super) budget: u32,
    /// Frames of warm pages.
    pub(super) warm: u32,
    /// Whether look-up reads near misses.
    pub(super) reads_near: bool,
    /// Entries between two streams' readings.
    pub(super) stride: u32,
    pub(super) model: Vec<LayerBytes>,
    pub(super) head: WeightsRead,
    /// Words of weights and keys to stream.
    pub(super) pool_words: u64,
    /// Steps of a chunk.
    pub(super) chunk: u32,
}

impl Geometry {
    /// The geometry of a point, decided by whom `managed` says.
    ///
    /// # Errors
    /// If the point asks for something that has no counterpart on a device.
    pub(super) fn new(single: &Single, managed: Managed, weights: Weights) -> Result<Geometry, ReplayError> {
        let (blueprint, run) = (&single.blueprint, &single.run);
        let ways = Ways::new(single, managed)?;
        let attention = &blueprint.model.attention;
        let prefetches = blueprint.prefetch.prefetches;
        let budget = if prefetches { run.plane.prefetch_budget } else { 0 };
        let recording = &single.recording;
        let reads_near = ways.policy.is_some() && (prefetches || blueprint.eviction.reads_near);
        let seats = run.schedule.seats();
        let last = |&request: &u32| {
            recording.blocks_at(request as usize, recording.steps(request as usize).saturating_sub(1))
        };
        let blocks = blueprint.requests.iter().map(last).max().unwrap_or(0) + 1;
        check_context(ways.policy, blocks)?;
        let sizes = Sizes {
            streams: seats * attention.head_groups,
            k: run.plane.k,
            near: if reads_near { blueprint.recorded_near.max(1) } else { 1 },
            fills: run.plane.k + budget + 1,
            slots: run.slots,
            blocks,
        };
        let (model, head) = read_weights(single, seats, weights)?;
        let mut geometry = Geometry {
            seats,
            layers: count32(run.map.layers()),
            heads: attention.head_groups,
            sizes,
            cells: cells(attention)?,
            shape: shape(attention),
            ways,
            budget,
            warm: count32(run.plane.warm_frames),
            reads_near,
            // Attention looks up to 64 entries ahead.
            stride: (run.plane.k + 1).next_multiple_of(64) + 64,
            model,
            head,
            pool_words: 0,
            chunk: 0,
        };
        geometry.pool_words = geometry.pool(&blueprint.model);
        let step = geometry.step_words() * 4 + geometry.log_words() * 4;
        geometry.chunk = count32(usize::try_from((CHUNK_BYTES / step).clamp(1, CHUNK_STEPS)).unwrap_or(1));
        Ok(geometry)
    }

    /// Streams of all layers.
    pub(super) fn all(&self) -> u32 {
        self.layers * self.sizes.streams
    }

    /// Number of a seat's stream: layers outermost, so that a layer's streams lie together.
    pub(super) fn stream(&self, seat: u32, layer: u32, head: u32) -> u32 {
        layer * self.sizes.streams + seat * self.heads + head
    }

    pub(super) fn block_bytes(&self) -> u64 {
        u64::from(self.cells.words) * 16
    }

    /// Words of 32 bits that one step of the script takes.
    pub(super) fn step_words(&self) -> u64 {
        let z = &self.sizes;
        let plan = match self.ways.policy {
            Some(_) => 0,
            None => z.k + 4 + 4 * z.fills + if self.warm > 0 { z.fills } else { 0 },
        };
        let scores = if self.reads_scores() { z.k } else { 0 };
        let lists = u64::from(self.all()) * u64::from(8 + z.k + z.near + plan + scores);
        (lists + self.model.len() as u64).next_multiple_of(4) + 16
    }

    /// Whether look-up reads scores.
    pub(super) fn reads_scores(&self) -> bool {
        self.ways.policy.is_some_and(Policy::reads_scores)
    }

    /// Words that one step of the log takes.
    pub(super) fn log_words(&self) -> u64 {
        u64::from(self.all()) * u64::from(4 + self.sizes.k + 4 * self.sizes.fills)
    }

    /// Query heads and width of a result.
    pub(super) fn result(&self) -> (usize, usize) {
        match self.shape {
            Shape::Gqa(gqa) => (gqa.group as usize, HEAD_DIM),
            Shape::Mla(mla) => (mla.heads as usize, LATENT_DIM),
            Shape::Read => (1, 1),
        }
    }

    pub(super) fn buffers(&self) -> Buffers {
        let z = &self.sizes;
        Buffers {
            streams: self.all(),
            slots: z.slots,
            blocks: z.blocks,
            k: z.k,
            near: z.near,
            budget: self.budget,
        }
    }

    /// Bytes of pinned host memory: every block of every seat's longest context.
    pub(super) fn home_bytes(&self) -> u64 {
        u64::from(self.all()) * u64::from(self.sizes.blocks) * self.block_bytes()
    }

    /// The same as the length of a buffer.
    pub(super) fn home_bytes_on_host(&self) -> usize {
        usize::try_from(self.home_bytes()).unwrap_or(usize::MAX)
    }

    /// Frames of slots, and of a reserved one per stream.
    pub(super) fn hot_frames(&self) -> u32 {
        self.all() * (self.sizes.slots + 1)
    }

    /// The last frame, which nobody reads: where moves go that have lost their purpose.
    pub(super) fn scrap(&self) -> u32 {
        self.hot_frames() + self.warm
    }

    /// Bytes of frames: slots and reserved ones, warm pages, the last.
    pub(super) fn frame_bytes(&self) -> u64 {
        u64::from(self.scrap() + 1) * self.block_bytes()
    }

    /// Tokens that a stream attends to, about.
    pub(super) fn tokens(&self) -> u32 {
        let page = if let Shape::Gqa(gqa) = self.shape { gqa.page } else { 1 };
        (self.sizes.k + 1) * page
    }

    /// Lists of moves of a layer: one, or one per request.
    pub(super) fn lists(&self) -> u32 {
        if self.ways.always == Some(Mechanism::GatherPerRequest) { self.seats } else { 1 }
    }

    /// Whether prefetches may be under way beside attention: whatever runs then leaves multiprocessors to them.
    pub(super) fn flies(&self) -> bool {
        let ahead = self.ways.sources.iter().any(Option::is_some);
        self.budget > 0
            && (self.ways.overlap == Overlap::LayerAhead || ahead && self.ways.overlap != Overlap::Serial)
    }

    /// Every product of a step.
    pub(super) fn products(&self) -> impl Iterator<Item = &Product> {
        self.model.iter().map(|layer| &layer.read).chain([&self.head]).flat_map(|read| &read.products)
    }

    /// Most elements that products take, and that they give.
    pub(super) fn operands(&self) -> (usize, usize) {
        let most = |side: fn(&Product) -> u32| {
            self.products().map(|product| product.batch as usize * side(product) as usize).max().unwrap_or(0)
        };
        (most(|product| product.from), most(|product| product.to))
    }

    /// Bytes of device memory, to within a few MiB.
    pub(super) fn device_bytes(&self) -> u64 {
        let z = &self.sizes;
        let (heads, width) = self.result();
        let tables = z.blocks + 5 * z.slots + z.k + z.near + 16 + 2 * z.k + 4 * z.fills + 8;
        let results = u64::from(self.all() + z.streams) * (heads * width * 2 + heads * 4) as u64;
        let never_moved = u64::from(z.streams) * u64::from(self.stride) * self.block_bytes();
        let chunk = u64::from(self.chunk) * (self.step_words() + self.log_words()) * 4;
        let tables = u64::from(self.all()) * u64::from(tables) * 4;
        let (inputs, outputs) = self.operands();
        let library = if inputs > 0 { Gemm::WORKSPACE } else { 0 };
        let results = results + (library + (inputs + outputs) * 2) as u64;
        self.frame_bytes() + tables + results + never_moved + chunk + self.pool_words * 16
    }

    /// Whether all of it fits the free memory of a device.
    ///
    /// # Errors
    /// If it does not.
    pub(super) fn check_device(&self, free: usize, total: usize) -> Result<(), HwError> {
        let asked = usize::try_from(self.device_bytes()).unwrap_or(usize::MAX);
        if asked > free {
            return Err(HwError::OutOfDeviceMemory { asked, free, total });
        }
        Ok(())
    }

    /// The most that one step streams of weights, or one layer of keys, within bounds.
    fn pool(&self, model: &Model) -> u64 {
        let layers = || self.model.iter().map(|layer| layer.read.words);
        let widest = layers().chain([self.head.words]).max().unwrap_or(0);
        let sum = layers().sum::<u64>() + self.head.words;
        let blocks = u64::from(self.sizes.streams) * u64::from(self.sizes.blocks);
        let keys = blocks * model.attention.index_bytes_per_block.0.div_ceil(16);
        (sum.min(POOL_BYTES / 16)).max(widest).max(keys).max(1 << 20)
    }
}

fn cells(attention: &Attention) -> Result<Cells, ReplayError> {
    let bytes = attention.block_bytes.0;
    let page = attention.entries_per_block;
    let halves = if page == 1 { 1 } else { 2 };
    let parts = u64::from(halves * page) * 16;
    if !bytes.is_multiple_of(parts) {
        let message = format!("a block of {bytes} B does not divide into {page} entries of 16-byte words");
        return Err(refuse("model", message));
    }
    let word = |bytes: u64| count32(usize::try_from(bytes / 16).unwrap_or(usize::MAX));
    let row = word(bytes / u64::from(halves * page));
    Ok(Cells { words: word(bytes), halves, page, row, fp8: u32::from(bytes == 656) })
}

fn shape(attention: &Attention) -> Shape {
    let dims = (attention.key_dims, attention.value_dims);
    let (page, group) = (attention.entries_per_block, attention.query_heads_per_group);
    let gqa = Gqa { page, group };
    let mla = Mla { heads: group, fp8: attention.block_bytes.0 == 656 };
    if dims == (128, 128) && matches!(page, 16 | 64) && matches!(group, 4 | 8) {
        if gqa.frame_bytes() as u64 == attention.block_bytes.0 {
            return Shape::Gqa(gqa);
        }
    } else if dims == (576, 512)
        && page == 1
        && group.is_multiple_of(16)
        && mla.row_bytes() as u64 == attention.block_bytes.0
    {
        return Shape::Mla(mla);
    }
    Shape::Read
}

/// Whether the device's own policy can number so many blocks.
fn check_context(policy: Option<Policy>, blocks: u32) -> Result<(), ReplayError> {
    match policy.map(Policy::most_blocks).filter(|&most| blocks > most) {
        None => Ok(()),
        Some(most) => Err(refuse(
            "hot.policy",
            format!(
                "contexts of {blocks} blocks, and the device takes {most}; let the host decide (--managed host)"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::testing::single;

    fn geometry(model: &str, rest: &str, managed: Managed) -> Result<Geometry, String> {
        Geometry::new(&single(model, rest), managed, Weights::Streamed).map_err(|error| error.to_string())
    }

    #[test]
    fn the_kernel_follows_the_model() {
        let shape = |model| geometry(model, "", Managed::Either).unwrap().shape;
        assert_eq!(shape("llama-3.1-8b"), Shape::Gqa(Gqa { page: 16, group: 4 }));
        assert_eq!(shape("smollm2-135m"), Shape::Read);
        let llama = geometry("llama-3.1-8b", "", Managed::Either).unwrap();
        assert_eq!((llama.cells.words, llama.cells.halves, llama.cells.row), (512, 2, 16));
        assert_eq!((llama.layers, llama.heads, llama.sizes.streams), (32, 8, 16));
        assert_eq!(llama.tokens(), (llama.sizes.k + 1) * 16);
        assert_eq!(llama.head.words * 16, 1_050_673_152);
        assert_eq!(llama.products().count(), 0, "weights are streamed");
    }

    #[test]
    fn a_context_longer_than_a_policy_of_the_device_takes_is_refused() {
        let most = Policy::Echo.most_blocks();
        assert!(check_context(Some(Policy::Echo), most).is_ok());
        let error = check_context(Some(Policy::Echo), most + 1).unwrap_err().to_string();
        assert!(error.starts_with("hot.policy: contexts of ") && error.contains("--managed host"), "{error}");
        // The host counts blocks as policies do.
        assert!(check_context(None, most + 1).is_ok());
    }

    #[test]
    fn a_device_that_is_too_small_is_told_before_anything_is_allocated() {
        let geometry = geometry("llama-3.1-8b", "", Managed::Either).unwrap();
        let needed = usize::try_from(geometry.device_bytes()).unwrap();
        assert!(geometry.check_device(needed, needed).is_ok());
        let error = geometry.check_device(needed - 1, 1 << 40).unwrap_err().to_string();
        assert!(error.contains("use fewer requests or smaller buffers"), "{error}");
    }
}
