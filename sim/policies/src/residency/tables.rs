//! The page table and slot tags of one buffer, and who is pinned: what policies may see, and every look-up writes.

use crate::Selection;
use crate::eviction::{BufferShape, Pins, StepView};
use kvtier_units::{BlockId, Slot};

/// What policies may see of a buffer.
pub(super) struct Tables {
    /// Page table: block to slot.
    pub(super) slot_of: Vec<Slot>,
    /// Slot tags: slot to block.
    pub(super) block_of: Vec<BlockId>,
    /// The step in which each slot was last pinned; free slots are always pinned. The last element stands for the
    /// missing blocks, so that a look-up writes without asking.
    pub(super) pinned_in: Vec<u32>,
    pub(super) epoch: u32,
    /// Ranks of this step's misses, the first `missed` of them.
    pub(super) ranks: Vec<u32>,
    pub(super) missed: usize,
}

impl Tables {
    /// All slots free.
    pub(super) fn new(shape: BufferShape) -> Tables {
        let slots = shape.slots as usize;
        Tables {
            slot_of: vec![Slot::NONE; shape.blocks as usize],
            block_of: vec![BlockId::NONE; slots],
            pinned_in: vec![u32::MAX; slots + 1],
            epoch: 0,
            ranks: vec![0; shape.k as usize],
            missed: 0,
        }
    }

    /// What the policy sees; `slots` are the selection's.
    #[inline(always)]
    pub(super) fn view<'a>(&'a self, selection: &'a Selection<'a>, slots: &'a [Slot]) -> StepView<'a> {
        StepView {
            selection,
            slots,
            misses: &self.ranks[..self.missed],
            entering: None,
            pins: Pins { stamps: &self.pinned_in[..self.block_of.len()], epoch: self.epoch },
            slot_of: &self.slot_of,
            block_of: &self.block_of,
        }
    }

    /// Forgets the pins and the misses of the step before.
    pub(super) fn open_step(&mut self) {
        self.epoch += 1;
        self.missed = 0;
    }

    /// Looks up the selection into `slots`: hits are pinned, misses noted by rank. No branch depends on what is
    /// resident.
    #[inline(always)]
    pub(super) fn look_up(&mut self, selection: &Selection<'_>, slots: &mut Vec<Slot>) {
        let Tables { slot_of, block_of, pinned_in, epoch, ranks, missed } = self;
        *epoch += 1;
        let (now, blocks, spare) = (*epoch, selection.blocks, block_of.len());
        assert!(blocks.len() <= ranks.len(), "a selection has at most k blocks");
        if slots.len() != blocks.len() {
            slots.resize(blocks.len(), Slot::NONE);
        }
        let mut misses = 0;
        for ((rank, block), out) in (0u32..).zip(blocks).zip(slots) {
            let slot = slot_of[block.index()];
            *out = slot;
            ranks[misses] = rank;
            misses += usize::from(slot == Slot::NONE);
            pinned_in[slot.index().min(spare)] = now;
        }
        *missed = misses;
    }
}
