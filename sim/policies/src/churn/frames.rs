//! The slots of a buffer and the plan being made: what a replay by churn has in common with any other.

use super::ChurnPlan;
use crate::eviction::BufferShape;
use crate::{Fill, Source};
use kvtier_units::{BlockId, Slot};

/// Slots, filled in ascending order and never emptied again, and who has been in them.
pub(super) struct Frames {
    pub(super) block_of: Vec<BlockId>,
    /// Slots `filled..` are free.
    pub(super) filled: usize,
    been: Vec<bool>,
    pub(super) plan: ChurnPlan,
}

impl Frames {
    /// All free.
    pub(super) fn new(shape: BufferShape) -> Frames {
        assert!(shape.slots >= shape.k, "a buffer holds at least one selection");
        let loads = Vec::with_capacity(shape.k as usize);
        Frames {
            block_of: vec![BlockId::NONE; shape.slots as usize],
            filled: 0,
            been: vec![false; shape.blocks as usize],
            plan: ChurnPlan { loads, ..ChurnPlan::default() },
        }
    }

    pub(super) fn mark_prefilled(&mut self, blocks: u32) {
        self.been[..blocks as usize].fill(true);
    }

    /// Begins the next plan.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.plan.loads.clear();
        self.plan.cold = 0;
        self.plan.growth = None;
    }

    /// The lowest free slot, if one is left.
    #[inline(always)]
    pub(super) fn take_free(&mut self) -> Option<Slot> {
        let slot = (self.filled < self.block_of.len()).then(|| Slot::at(self.filled));
        self.filled += usize::from(slot.is_some());
        slot
    }

    /// Puts a block into a slot. Whether it has never been in HBM comes second.
    #[inline(always)]
    pub(super) fn fill(&mut self, block: BlockId, slot: Slot, source: Source) -> (Fill, bool) {
        let victim = std::mem::replace(&mut self.block_of[slot.index()], block);
        let been = std::mem::replace(&mut self.been[block.index()], true);
        (Fill { block, slot, victim, source }, !been)
    }

    /// Loads a missing block.
    #[inline(always)]
    pub(super) fn load(&mut self, block: BlockId, slot: Slot) {
        let (fill, cold) = self.fill(block, slot, Source::Home);
        self.plan.loads.push(fill);
        self.plan.cold += u64::from(cold);
    }

    /// Whether the block that this step fills finds a slot, with the selection pinned; if not, it stays at home.
    pub(super) fn grows(&mut self, block: BlockId, selected: usize) -> bool {
        let finds = selected < self.block_of.len();
        self.been[block.index()] |= !finds;
        finds
    }
}
