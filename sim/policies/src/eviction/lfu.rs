//! LFU: evicts the block selected least often since it was loaded; among equals the least recently selected.
//!
//! The count is one when a block is loaded and restarts with every load. A prefetched or newly filled block also
//! starts at one. Total order: (count, recency), which is unique; within a step worse ranks are older.

use super::classic::ClassicPolicy;
use super::lazy_heap::{LazyHeap, priority};
use super::{BufferShape, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};

/// Least frequently used.
pub struct Lfu {
    order: LazyHeap,
    count: Vec<u32>,
    /// Accesses so far.
    now: u32,
}

impl ClassicPolicy for Lfu {
    const NAME: &'static str = "lfu";
    const SUMMARY: &'static str =
        "evicts the least often selected since it was loaded, then the least recently";
    /// The count and the time of the last access.
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 0, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Lfu { order: LazyHeap::new(shape.slots), count: vec![0; shape.slots as usize], now: 0 })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        self.now += 1;
        self.count[slot.index()] += 1;
        self.order.raise(slot, priority(self.count[slot.index()], self.now));
    }

    fn evict(&mut self, _: BlockId, view: &StepView<'_>) -> Slot {
        self.order.take_smallest(&view.pins).0
    }

    #[inline]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        self.now += 1;
        self.count[slot.index()] = 1;
        self.order.add(slot, priority(1, self.now));
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_count_rules_and_recency_breaks_ties() {
        let mut bench = Bench::new("lfu", 3, 9);
        bench.step(&[0]);
        bench.step(&[0]);
        bench.step(&[1]);
        bench.step(&[2]);
        assert_eq!(bench.step(&[3]).victims(), [1], "1 and 2 were used once, 1 longer ago");
        assert_eq!(bench.step(&[1]).victims(), [2], "3 is newer; 0 was used twice");
        assert_eq!(bench.step(&[3, 2]).victims(), [1], "1 restarted at one; 3 is pinned");
    }
}
