//! Hyperbolic caching: evicts the block with the fewest selections per step of its stay.
//! A. Blankstein, S. Sen, M. J. Freedman, "Hyperbolic caching: flexible caching for web applications", USENIX ATC 2017,
//! <https://www.usenix.org/conference/atc17/technical-sessions/presentation/blankstein>.
//!
//! Every evictable slot is weighed, where the paper draws a sample, so nothing is random. Time is counted in steps. The
//! quotient has 32 bits of fraction and rounds down. Total order: (selections per stay, slot).

use super::scores::Smallest;
use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

/// Selections and time of loading of each slot.
pub struct Hyperbolic {
    count: Vec<u32>,
    since: Vec<u32>,
    step: u32,
    smallest: Smallest,
}

impl EvictionPolicy for Hyperbolic {
    const NAME: &'static str = "hyperbolic";
    const SUMMARY: &'static str = "evicts the fewest selections per step of its stay";
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 0, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let slots = shape.slots as usize;
        Ok(Hyperbolic {
            count: vec![0; slots],
            since: vec![0; slots],
            step: 0,
            smallest: Smallest::default(),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        let now = self.step + 1;
        self.smallest.choose(&view.pins, need, out, |slot| {
            let stay = now - self.since[slot.index()];
            (u64::from(self.count[slot.index()]) << 32) / u64::from(stay)
        });
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.step += 1;
        for slot in view.loaded() {
            self.count[slot.index()] = 0;
            self.since[slot.index()] = self.step;
        }
        view.slots.iter().for_each(|slot| self.count[slot.index()] += 1);
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.count[slot.index()] = 1;
        self.since[slot.index()] = self.step;
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_rate_rules() {
        let mut bench = Bench::new("hyperbolic", 3, 9);
        [0, 0, 0, 1, 2].into_iter().for_each(|block| drop(bench.step(&[block])));
        // At step 6: 0 has 3 in 5 steps, 1 has 1 in 2, 2 has 1 in 1.
        assert_eq!(bench.step(&[3]).victims(), [1]);
        // At step 7: 0 has 3 in 6, 2 has 1 in 2, 3 has 1 in 1: equal, so the lower slot goes.
        assert_eq!(bench.step(&[4]).victims(), [0]);
        assert_eq!(bench.step(&[2, 5]).victims(), [3], "2 is pinned; 3 has 1 in 2, 4 has 1 in 1");
    }
}
