//! LRU-K: evicts the block whose K-th last selection is longest ago.
//! E. J. O'Neil, P. E. O'Neil, G. Weikum, "The LRU-K page replacement algorithm for database disk buffering",
//! SIGMOD 1993, <https://doi.org/10.1145/170035.170081>.
//!
//! Blocks with fewer than K known selections go first, the least recently selected of them before the others. A block's
//! history outlives its stay, for the whole context (the paper's retained information period without end);
//! there is no correlated reference period. The variant `libcachesim` forgets the history when a block leaves, and
//! evicts blocks with fewer than K selections in order of insertion. Total order: (K-th last selection, last
//! selection or insertion), which is unique. Any capacity will do.

use super::classic::ClassicPolicy;
use super::lazy_heap::{LazyHeap, priority};
use super::{BufferShape, Pins, StateClass};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`LruK`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LruKParams {
    /// Which of the last selections counts: 2 is the one before the last.
    pub k: u8,
    /// What is known of blocks that come back.
    pub variant: LruKVariant,
}

impl Default for LruKParams {
    fn default() -> Self {
        LruKParams { k: 2, variant: LruKVariant::Paper }
    }
}

/// What is known of blocks that come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LruKVariant {
    /// Their history; of blocks with too little of it the least recently selected goes.
    Paper,
    /// Nothing; of blocks with too little history the first inserted goes.
    Libcachesim,
}

/// The last K selections of every block.
pub struct LruK {
    /// Slots whose blocks have too little history: new ones enter at the front, so that no search is needed for them.
    young: SlotQueues,
    /// The others, by K-th last selection.
    order: LazyHeap,
    block_of: Vec<BlockId>,
    /// The last `k` selections of each block, latest first; zero where there was none.
    history: Vec<u32>,
    k: usize,
    variant: LruKVariant,
    /// Accesses so far.
    now: u32,
}

/// The one queue of `young`.
const YOUNG: u8 = 0;

impl LruK {
    /// Notes a selection; returns the K-th last one as it was before and as it is now.
    #[inline(always)]
    fn note(&mut self, block: BlockId) -> [u32; 2] {
        self.now += 1;
        let times = &mut self.history[block.index() * self.k..][..self.k];
        let before = times[self.k - 1];
        times.copy_within(..self.k - 1, 1);
        times[0] = self.now;
        [before, times[self.k - 1]]
    }
}

impl ClassicPolicy for LruK {
    const NAME: &'static str = "lru-k";
    const SUMMARY: &'static str = "evicts the block whose K-th last selection is longest ago";
    /// The block and its place in the order; two selections per block for the usual K of 2.
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 8, per_stream: 0 };
    type Params = LruKParams;

    fn new(params: LruKParams, shape: BufferShape) -> Result<Self, PolicyError> {
        if !(1..=8).contains(&params.k) {
            return Err(PolicyError::Params {
                field: "hot.params.k",
                message: format!("lru-k looks back 1 to 8 selections, not {}", params.k),
            });
        }
        let (slots, k) = (shape.slots as usize, usize::from(params.k));
        Ok(LruK {
            young: SlotQueues::new(shape.slots, 1),
            order: LazyHeap::new(shape.slots),
            block_of: vec![BlockId::NONE; slots],
            history: vec![0; shape.blocks as usize * k],
            k,
            variant: params.variant,
            now: 0,
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let [before, kth] = self.note(self.block_of[slot.index()]);
        if before != 0 {
            self.order.raise(slot, priority(kth, 0));
        } else if kth != 0 {
            self.young.remove(slot);
            self.order.add(slot, priority(kth, 0));
        } else if self.variant == LruKVariant::Paper {
            self.young.renew(YOUNG, slot);
        }
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        match self.young.oldest_evictable(YOUNG, pins) {
            Some(slot) => {
                self.young.remove(slot);
                slot
            }
            None => self.order.take_smallest(pins).0,
        }
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        self.block_of[slot.index()] = block;
        if self.variant == LruKVariant::Libcachesim {
            self.history[block.index() * self.k..][..self.k].fill(0);
        }
        let [_, kth] = self.note(block);
        if kth == 0 {
            self.young.push_front(YOUNG, slot);
            self.order.release();
        } else {
            self.order.add(slot, priority(kth, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_second_last_selection_rules_and_is_remembered() {
        let mut bench = Bench::new("lru-k", 3, 9);
        [0, 1, 0, 1, 2].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[3]).victims(), [2], "2 was selected once only");
        assert_eq!(bench.step(&[2]).victims(), [3], "so was 3; 2 now has a history of two");
        // Second last selections: 0 at 1, 1 at 2, 2 at 5.
        assert_eq!(bench.step(&[0, 4]).victims(), [1], "0 is pinned");
        assert_eq!(bench.step(&[5]).victims(), [4]);
    }
}
