//! LRU by step, as SGLang HiSparse keeps it: after each step the order is stale, loaded, hits.
//! <https://github.com/sgl-project/sglang> `python/sglang/jit_kernel/csrc/hisparse.cuh`
//!
//! Stale blocks and hits keep their previous relative order and loaded blocks keep victim order, so ranks within a
//! step play no part. Prefetched and newly filled blocks, which HiSparse does not have, enter as most recent.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

/// Least recently used, exact by step.
pub struct LruStep {
    /// Slots from least to most recent.
    order: Vec<Slot>,
    /// The step that loaded each slot last.
    loaded_in: Vec<u32>,
    step: u32,
    hits: Vec<Slot>,
}

impl EvictionPolicy for LruStep {
    const NAME: &'static str = "lru-step";
    const SUMMARY: &'static str = "SGLang HiSparse's order: stale, just loaded, hits";
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(LruStep {
            order: (0..shape.slots).map(Slot).collect(),
            loaded_in: vec![0; shape.slots as usize],
            step: 0,
            hits: Vec::with_capacity(shape.slots as usize),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        out.extend(self.order.iter().copied().filter(|&slot| !view.pins.holds(slot)).take(need));
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.step += 1;
        for slot in view.loaded() {
            self.loaded_in[slot.index()] = self.step;
        }
        // Free slots count as held: they sort with the hits until they are filled.
        self.hits.clear();
        let mut stale = 0;
        for at in 0..self.order.len() {
            let slot = self.order[at];
            if !view.pins.holds(slot) {
                self.order[stale] = slot;
                stale += 1;
            } else if self.loaded_in[slot.index()] != self.step {
                self.hits.push(slot);
            }
        }
        let (loaded, hits) = self.order[stale..].split_at_mut(view.misses.len());
        for (at, slot) in loaded.iter_mut().zip(view.loaded()) {
            *at = slot;
        }
        hits.copy_from_slice(&self.hits);
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        let at = self.order.iter().position(|&other| other == slot).expect("every slot stands in the order");
        self.order[at..].rotate_left(1);
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
