//! LRU: evicts the least recently selected block.
//!
//! Within a step the selection is touched from the worst rank to the best, so rank 0 ends most recent.
//! Total order: recency, which is unique. State: the time of the last touch. Prefetched and newly filled blocks enter as most recent.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use crate::recency::Recency;
use kvtier_units::{BlockId, Slot};

/// Least recently used.
pub struct Lru {
    order: Recency,
}

impl EvictionPolicy for Lru {
    const NAME: &'static str = "lru";
    const SUMMARY: &'static str = "evicts the least recently selected; better ranks count as later";
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    const PLAIN: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Lru { order: Recency::new(shape.slots) })
    }

    #[inline(always)]
    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.order.log().victims(&view.pins, need, out);
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        self.order.log().touch(view.slots.iter().rev().copied());
    }

    fn begin_plain(&mut self) {
        self.order.keep_list();
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot, _: u32) {
        self.order.touch(slot);
    }

    #[inline(always)]
    fn replace(&mut self, _: BlockId, _: u32, _: &[BlockId]) -> Slot {
        self.order.take_oldest()
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.order.log().touch(std::iter::once(slot));
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.order.resize(kept);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn ranks_order_recency_within_a_step() {
        let mut bench = Bench::new("lru", 4, 9);
        bench.step(&[0, 1]);
        bench.step(&[2, 3]);
        assert_eq!(bench.step(&[4]).victims(), [1], "1 had the worse rank of the older step");
        assert_eq!(bench.step(&[0, 5]).victims(), [3], "0 is pinned, then 3 had the worse rank");
        assert_eq!(bench.step(&[6, 7]).victims(), [2, 4], "victims come oldest first");
        assert_eq!(bench.step(&[8]).victims(), [5]);
    }
}
