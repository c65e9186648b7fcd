//! LFU with ageing: counts of selections that are all halved from time to time, so that old popularity fades.
//! J. T. Robinson, M. V. Devarakonda, "Data cache management using frequency-based replacement", SIGMETRICS 1990,
//! <https://doi.org/10.1145/98457.98523>, which halves counts in the same way.
//!
//! The count starts at one with every load and is at most 2^32 - 1; every `halve_every` steps all counts halve, rounded
//! down, before victims are chosen. Total order: (count, step of the last selection, slot). Any capacity will do.

use super::lazy_heap::priority;
use super::scores::Smallest;
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use crate::residency::relocate;
use kvtier_units::Slot;
use serde::Deserialize;

/// Parameters of [`LfuAging`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LfuAgingParams {
    /// Steps between halvings.
    pub halve_every: u32,
}

impl Default for LfuAgingParams {
    fn default() -> Self {
        LfuAgingParams { halve_every: 16 }
    }
}

/// Counts that halve.
pub struct LfuAging {
    count: Vec<u32>,
    used: Vec<u32>,
    step: u32,
    halve_every: u32,
    /// Whether this step has halved already, having chosen victims.
    begun: bool,
    smallest: Smallest,
}

impl LfuAging {
    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.step += 1;
            if self.step.is_multiple_of(self.halve_every) {
                self.count.iter_mut().for_each(|count| *count /= 2);
            }
        }
    }
}

impl EvictionPolicy for LfuAging {
    const NAME: &'static str = "lfu-aging";
    const SUMMARY: &'static str = "evicts the least often selected; all counts are halved from time to time";
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = LfuAgingParams;

    fn new(params: LfuAgingParams, shape: BufferShape) -> Result<Self, PolicyError> {
        if params.halve_every == 0 {
            let message = "lfu-aging halves its counts every so many steps; give at least 1".into();
            return Err(PolicyError::Params { field: "hot.params.halve_every", message });
        }
        let slots = shape.slots as usize;
        let (count, used) = (vec![0; slots], vec![0; slots]);
        let smallest = Smallest::default();
        Ok(LfuAging { count, used, step: 0, halve_every: params.halve_every, begun: false, smallest })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        if view.entering.is_none() {
            self.begin();
        }
        self.smallest.choose(&view.pins, need, out, |slot| {
            priority(self.count[slot.index()], self.used[slot.index()])
        });
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.begin();
        self.begun = false;
        view.loaded().for_each(|slot| self.count[slot.index()] = 0);
        for slot in view.slots {
            let count = &mut self.count[slot.index()];
            *count = count.saturating_add(1);
            self.used[slot.index()] = self.step;
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.count[slot.index()] = 1;
        self.used[slot.index()] = self.step;
    }

    fn resize(&mut self, kept: &[Slot]) {
        relocate(&mut self.count, kept, 0);
        relocate(&mut self.used, kept, 0);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn halving_lets_new_blocks_overtake() {
        let mut bench = Bench::new("lfu-aging", 2, 9);
        (0..14).for_each(|_| drop(bench.step(&[0])));
        bench.step(&[1]);
        assert_eq!(bench.step(&[2]).victims(), [1], "0 has 14 halved, 1 has 1 halved");
        (0..15).for_each(|_| drop(bench.step(&[2])));
        // Before step 32: 0 has 7, 2 has 16; afterwards 3 and 8.
        assert_eq!(bench.step(&[3]).victims(), [0]);
        assert_eq!(bench.step(&[4]).victims(), [3], "2 has 8");
    }
}
