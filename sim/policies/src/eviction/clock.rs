//! CLOCK (FIFO with reinsertion): a hand sweeps the slots, takes back references, and evicts where it finds none.
//! F. J. Corbató, "A paging experiment with the Multics system", 1968. With more than one bit, generalised CLOCK:
//! A. J. Smith, "Sequentiality and prefetching in database systems", ACM TODS 3(3), 1978.
//!
//! The hand passes over a pinned block without changing its count. A filled slot starts with no reference, and
//! the touch of the step that loads it does not count. Total order: the hand's.

use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};

/// Parameters of [`Clock`].
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockParams {
    /// Bits of the reference count of a slot: a block survives up to `2^bits - 1` sweeps.
    pub bits: u8,
}

impl Default for ClockParams {
    fn default() -> Self {
        ClockParams { bits: 1 }
    }
}

/// A reference count per slot and a hand.
pub struct Clock {
    references: Vec<u8>,
    most: u8,
    hand: usize,
}

/// Slots that the hand sweeps together where nothing is pinned.
const SWEPT: usize = 16;
/// One in each byte.
const ONES: u128 = u128::MAX / 255;

impl Clock {
    /// The next slot with no reference, where nothing is pinned; those before it have lost one. Many are looked at together,
    /// because how many the hand passes over cannot be foretold.
    #[inline(always)]
    fn sweep_unpinned(&mut self) -> usize {
        let mut hand = self.hand;
        loop {
            let Some(bytes) = self.references[hand..].first_chunk_mut::<SWEPT>() else {
                // Fewer are left before the end.
                for (slot, count) in (hand..).zip(&mut self.references[hand..]) {
                    if *count == 0 {
                        return slot;
                    }
                    *count -= 1;
                }
                hand = 0;
                continue;
            };
            let counts = u128::from_le_bytes(*bytes);
            // Of bytes that borrow from a zero below them only the lowest can be trusted, and it is the one that is asked for.
            let zeros = counts.wrapping_sub(ONES) & !counts & (ONES << 7);
            let lowest = zeros & zeros.wrapping_neg();
            // All bits below the zero; all there are, if there is none.
            let below = (lowest >> 7).wrapping_sub(1);
            *bytes = (counts - (ONES & below)).to_le_bytes();
            if zeros != 0 {
                return hand + zeros.trailing_zeros() as usize / 8;
            }
            hand += SWEPT;
            if hand == self.references.len() {
                hand = 0;
            }
        }
    }
}

impl EvictionPolicy for Clock {
    const NAME: &'static str = "clock";
    const SUMMARY: &'static str = "a hand takes back references and evicts where it finds none";
    const STATE: StateClass = StateClass { per_slot: 1, per_block: 0, per_stream: 0 };
    const PLAIN: bool = true;
    type Params = ClockParams;

    fn new(params: ClockParams, shape: BufferShape) -> Result<Self, PolicyError> {
        if !(1..=8).contains(&params.bits) {
            return Err(PolicyError::Params {
                field: "hot.params.bits",
                message: format!("clock counts with 1 to 8 bits, not {}", params.bits),
            });
        }
        let most = u8::MAX >> (8 - params.bits);
        Ok(Clock { references: vec![0; shape.slots as usize], most, hand: 0 })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        let wanted = out.len() + need;
        let first = out.len();
        while out.len() < wanted {
            let slot = Slot::at(self.hand);
            self.hand += 1;
            if self.hand == self.references.len() {
                self.hand = 0;
            }
            if view.pins.holds(slot) || out[first..].contains(&slot) {
                continue;
            }
            let references = &mut self.references[slot.index()];
            if *references == 0 {
                out.push(slot);
            } else {
                *references -= 1;
            }
        }
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        for &slot in view.slots {
            let references = &mut self.references[slot.index()];
            *references = references.saturating_add(1).min(self.most);
        }
        for slot in view.loaded() {
            self.references[slot.index()] = 0;
        }
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot, _: u32) {
        let references = &mut self.references[slot.index()];
        *references += u8::from(*references < self.most);
    }

    #[inline(always)]
    fn replace(&mut self, _: BlockId, _: u32, _: &[BlockId]) -> Slot {
        let slot = self.sweep_unpinned();
        self.hand = if slot + 1 == self.references.len() { 0 } else { slot + 1 };
        Slot::at(slot)
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.references[slot.index()] = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_hand_takes_references_and_passes_over_pins() {
        let mut bench = Bench::new("clock", 3, 9);
        bench.step(&[0]);
        bench.step(&[1]);
        bench.step(&[2]);
        bench.step(&[0]);
        assert_eq!(bench.step(&[3]).victims(), [1], "0 is referenced, loses its reference, 1 goes");
        assert_eq!(bench.step(&[2, 4]).victims(), [0], "2 is pinned: passed over, count unchanged");
        assert_eq!(bench.step(&[5]).victims(), [3], "the hand stands after 4's slot");
    }
}
