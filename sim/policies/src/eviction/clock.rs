//! CLOCK (FIFO with reinsertion): a hand sweeps the slots, clears reference bits, and evicts where it finds none.
//! F. J. Corbató, "A paging experiment with the Multics system", 1968.
//!
//! The hand passes over a pinned block without changing its bit. A filled slot starts with its bit clear, and
//! the touch of the step that loads it does not set it. Total order: the hand's.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

/// One reference bit per slot and a hand.
pub struct Clock {
    referenced: Vec<bool>,
    hand: usize,
}

impl EvictionPolicy for Clock {
    const NAME: &'static str = "clock";
    const SUMMARY: &'static str = "a hand clears reference bits and evicts where it finds none";
    const STATE: StateClass = StateClass { per_slot: 1, per_block: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Clock { referenced: vec![false; shape.slots as usize], hand: 0 })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        let wanted = out.len() + need;
        let first = out.len();
        while out.len() < wanted {
            let slot = Slot::at(self.hand);
            self.hand = (self.hand + 1) % self.referenced.len();
            if view.pins.holds(slot) || out[first..].contains(&slot) {
                continue;
            }
            if self.referenced[slot.index()] {
                self.referenced[slot.index()] = false;
            } else {
                out.push(slot);
            }
        }
    }

    fn touch(&mut self, view: &StepView<'_>) {
        for &slot in view.slots {
            self.referenced[slot.index()] = true;
        }
        for slot in view.loaded() {
            self.referenced[slot.index()] = false;
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.referenced[slot.index()] = false;
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_hand_clears_bits_and_passes_over_pins() {
        let mut bench = Bench::new("clock", 3, 9);
        bench.step(&[0]);
        bench.step(&[1]);
        bench.step(&[2]);
        bench.step(&[0]);
        assert_eq!(bench.step(&[3]).victims(), [1], "0 is referenced, loses its bit, 1 goes");
        assert_eq!(bench.step(&[2, 4]).victims(), [0], "2 is pinned: passed over, bit unchanged");
        assert_eq!(bench.step(&[5]).victims(), [3], "the hand stands after 4's slot");
    }
}
