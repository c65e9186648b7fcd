//! Plans: the whole output of the decision plane for one step. Buffers are reused from step to step.

use crate::Counts;
use crate::demotion::Tier;
use kvtier_units::{BlockId, Slot};

/// Where a block that enters a hot buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    /// Its home in host memory: a transfer.
    Home = 0,
    /// The warm pages: frames are exchanged and no bytes move.
    Warm = 1,
    /// The reserved slot: the block was just filled, and its frame stays.
    Grown = 2,
    /// Its home in CXL memory: a transfer by way of host memory.
    Cxl = 3,
    /// Its home on NVMe storage: a transfer by way of host memory.
    Nvme = 4,
}

/// Blocks that changed their home, by the tier they left and the one they entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves([[u64; 3]; 3]);

impl Moves {
    /// One more block.
    pub fn add(&mut self, from: Tier, to: Tier) {
        self.0[from as usize][to as usize] += 1;
    }

    /// Blocks that went from one tier to another.
    pub fn between(&self, from: Tier, to: Tier) -> u64 {
        self.0[from as usize][to as usize]
    }

    /// Every pair of tiers between which blocks moved, and how many.
    pub fn all(&self) -> impl Iterator<Item = (Tier, Tier, u64)> + '_ {
        let pairs = Tier::ALL.into_iter().flat_map(|from| Tier::ALL.map(|to| (from, to)));
        pairs.map(|(from, to)| (from, to, self.between(from, to))).filter(|&(_, _, blocks)| blocks > 0)
    }
}

/// One block entering one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The block that enters.
    pub block: BlockId,
    /// The slot it takes.
    pub slot: Slot,
    /// The block that leaves, `BlockId::NONE` where the slot was free.
    pub victim: BlockId,
    /// Where the block comes from.
    pub source: Source,
}

/// The plan of one stream for one step.
#[derive(Clone, Debug, Default)]
pub struct StreamPlan {
    /// Slot of each selected block in rank order, after the fill.
    pub slots: Vec<Slot>,
    /// Misses and warm hits, in rank order.
    pub loads: Vec<Fill>,
    /// Prefetches brought before the look-up, in the prefetcher's order.
    pub ahead: Vec<Fill>,
    /// Prefetches brought after the step, in the prefetcher's order.
    pub prefetches: Vec<Fill>,
    /// The newly filled block, where it found a slot.
    pub growth: Option<Fill>,
    /// Blocks that left and that the admission policy kept out of the warm pages, in victim order.
    pub rejected: Vec<BlockId>,
    /// Whether the newest block was selected.
    pub newest: bool,
    /// For each first demand of a prefetched block, the plane's step that issued the prefetch.
    pub prefetch_uses: Vec<u32>,
    /// What happened, counted.
    pub counts: Counts,
}

impl StreamPlan {
    /// Empties the plan for the next step, keeping its memory. The slots stay: the look-up writes all of them.
    pub(crate) fn clear(&mut self) {
        self.loads.clear();
        self.ahead.clear();
        self.prefetches.clear();
        self.growth = None;
        self.rejected.clear();
        self.newest = false;
        self.prefetch_uses.clear();
        self.counts = Counts::default();
    }

    /// Every fill of the step in victim order: prefetches ahead, loads, prefetches after, growth.
    pub fn fills(&self) -> impl Iterator<Item = &Fill> {
        self.ahead.iter().chain(&self.loads).chain(&self.prefetches).chain(&self.growth)
    }
}

/// What a change of a buffer's size did, between two steps. Moves are of page tables: a slot is an indirection to a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resized {
    /// Slots from now on.
    pub slots: u32,
    /// Blocks that left, in victim order.
    pub evicted: Vec<BlockId>,
    /// The slots that they left, parallel to them.
    pub left: Vec<Slot>,
    /// Survivors that moved, as (from, to), ascending.
    pub moved: Vec<(Slot, Slot)>,
    /// Evictions, wasted prefetches, and bytes of metadata written.
    pub counts: Counts,
}

impl Resized {
    /// Begins another change, keeping the memory of the last.
    pub(crate) fn clear(&mut self, slots: u32) {
        self.slots = slots;
        self.evicted.clear();
        self.left.clear();
        self.moved.clear();
        self.counts = Counts::default();
    }
}

/// The plans of one layer: `streams[participant * head_groups + head_group]`.
#[derive(Clone, Debug, Default)]
pub struct LayerPlan {
    /// One plan per participating stream.
    pub streams: Vec<StreamPlan>,
    /// Slots of the layer's hot buffers, over all seated requests.
    pub slots: u64,
    /// The earlier layer during which the prefetches ahead are issued; `None` where there are none.
    pub source: Option<u32>,
    /// Warm pages evicted after the layer's insertions.
    pub warm_evictions: u64,
}

/// The plan of one engine step.
#[derive(Clone, Debug, Default)]
pub struct StepPlan {
    /// Number of the engine step, from zero.
    pub step: u32,
    /// Requests that take part.
    pub participants: usize,
    /// Blocks that changed their home at the boundary before the step, admissions included.
    pub boundary_moves: Moves,
    /// Blocks that changed their home within the step: up to host when they were brought from below, or straight down
    /// when they were newly filled and host was full.
    pub moves: Moves,
    /// What of the boundary is counted.
    pub counts: Counts,
    /// One plan per layer, in order.
    pub layers: Vec<LayerPlan>,
}
