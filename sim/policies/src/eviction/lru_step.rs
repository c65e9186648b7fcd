//! LRU by step, as SGLang HiSparse keeps it: after each step the order is stale, loaded, hits.
//! <https://github.com/sgl-project/sglang> `python/sglang/jit_kernel/csrc/hisparse.cuh`
//!
//! Stale blocks and hits keep their previous relative order and loaded blocks keep victim order, so ranks within a
//! step play no part. Prefetched and newly filled blocks, which HiSparse does not have, enter as most recent.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use crate::recency::Recency;
use kvtier_units::{BlockId, Slot};

/// Least recently used, exact by step.
pub struct LruStep {
    order: Recency,
    /// Hits of the step with their previous place.
    hits: Vec<(u32, Slot)>,
}

impl EvictionPolicy for LruStep {
    const NAME: &'static str = "lru-step";
    const SUMMARY: &'static str = "SGLang HiSparse's order: stale, just loaded, hits";
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    const PLAIN: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(LruStep { order: Recency::new(shape.slots), hits: Vec::with_capacity(shape.k as usize) })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.order.log().victims(&view.pins, need, out);
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        let order = self.order.log();
        self.hits.clear();
        let mut misses = view.misses.iter().copied().peekable();
        for (rank, &slot) in (0u32..).zip(view.slots) {
            if misses.next_if_eq(&rank).is_none() {
                self.hits.push((order.last_touch(slot), slot));
            }
        }
        self.hits.sort_unstable();
        order.touch(view.loaded());
        order.touch(self.hits.iter().map(|&(_, slot)| slot));
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
    fn the_order_is_stale_then_loaded_then_hits() {
        let mut bench = Bench::new("lru-step", 5, 9);
        bench.step(&[0, 1, 2]);
        bench.step(&[3, 1]);
        // Now stale 0, 2; loaded 3; hit 1; slot 4 is free.
        bench.step(&[8]);
        assert_eq!(bench.step(&[5, 6]).victims(), [0, 2]);
        assert_eq!(bench.step(&[7]).victims(), [3], "loaded before hit, whatever the ranks");
        assert_eq!(bench.step(&[0]).victims(), [1]);
    }

    #[test]
    fn hits_keep_their_relative_order() {
        let mut bench = Bench::new("lru-step", 4, 9);
        bench.step(&[0, 1, 2, 3]);
        bench.step(&[2, 0]);
        // Stale 1, 3; then hits in their previous order 0, 2, not in rank order.
        assert_eq!(bench.step(&[4, 5]).victims(), [1, 3]);
        assert_eq!(bench.step(&[6]).victims(), [0]);
    }
}
