//! W-TinyLFU: new blocks enter a small LRU window; to get on from there into the main segmented LRU, a block must have
//! been selected more often than the block it would displace, by the estimate of an ageing sketch.
//! G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM Transactions on
//! Storage 13(4), 2017, <https://doi.org/10.1145/3149371>.
//!
//! The window has at least one slot, the main part may have none. The sketch has four rows of counters up to 15, at
//! least one counter per slot and row, and halves all of them every ten accesses per slot; there is no doorkeeper. A
//! step makes room before it enters its blocks, so a window that overflows then passes its oldest on without
//! contest. Ties of the estimate go to the block already in the main part. Total order: each list's.

use super::classic::ClassicPolicy;
use super::{BufferShape, Pins, StateClass, percent_of};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`WTinyLfu`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WTinyLfuParams {
    /// Percent of the slots in the window.
    pub window_percent: u32,
    /// Percent of the main part that is protected.
    pub protected_percent: u32,
}

impl Default for WTinyLfuParams {
    fn default() -> Self {
        WTinyLfuParams { window_percent: 1, protected_percent: 80 }
    }
}

const ROWS: usize = 4;
const MOST: u8 = 15;
/// Odd multipliers, one per row: the upper bits of the product choose the counter.
const SPREAD: [u32; ROWS] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f];

/// Estimates how often each block was selected lately.
struct Sketch {
    counters: Vec<u8>,
    /// Bits of a row's index.
    bits: u32,
    additions: u32,
    /// Additions between halvings.
    sample: u32,
}

impl Sketch {
    fn new(slots: u32) -> Sketch {
        let bits = slots.max(16).next_power_of_two().trailing_zeros();
        Sketch { counters: vec![0; ROWS << bits], bits, additions: 0, sample: slots.saturating_mul(10) }
    }

    #[inline(always)]
    fn places(&self, block: BlockId) -> [usize; ROWS] {
        std::array::from_fn(|row| {
            let mixed = (block.0 ^ (block.0 >> 15)).wrapping_mul(SPREAD[row]);
            (row << self.bits) + (mixed >> (32 - self.bits)) as usize
        })
    }

    fn estimate(&self, block: BlockId) -> u8 {
        self.places(block).map(|place| self.counters[place]).into_iter().min().expect("there are four rows")
    }

    #[inline(always)]
    fn add(&mut self, block: BlockId) {
        for place in self.places(block) {
            self.counters[place] = (self.counters[place] + 1).min(MOST);
        }
        self.additions += 1;
        if self.additions == self.sample {
            self.additions /= 2;
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
        }
    }
}

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// A window, a main part in two segments, and the sketch between them.
pub struct WTinyLfu {
    lists: SlotQueues,
    sketch: Sketch,
    block_of: Vec<BlockId>,
    window_slots: u32,
    protected_slots: u32,
    /// Blocks on their way into the window.
    pending: u32,
}

impl ClassicPolicy for WTinyLfu {
    const NAME: &'static str = "w-tinylfu";
    const SUMMARY: &'static str =
        "a window, and a sketch of frequencies that guards the way on into a segmented LRU";
    /// Two links, list and block; four counters, rounded up to a power of two.
    const STATE: StateClass = StateClass { per_slot: 21, per_block: 0, per_stream: 0 };
    type Params = WTinyLfuParams;

    fn new(params: WTinyLfuParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let window_slots = percent_of("hot.params.window_percent", params.window_percent, shape.slots)?;
        let main = shape.slots.saturating_sub(window_slots);
        let protected_slots = percent_of("hot.params.protected_percent", params.protected_percent, main)?;
        Ok(WTinyLfu {
            lists: SlotQueues::new(shape.slots, 3),
            sketch: Sketch::new(shape.slots),
            block_of: vec![BlockId::NONE; shape.slots as usize],
            window_slots,
            protected_slots,
            pending: 0,
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        self.sketch.add(self.block_of[slot.index()]);
        let list = self.lists.queue_of(slot);
        if list != PROBATION {
            return self.lists.renew(list, slot);
        }
        self.lists.push_front(PROTECTED, slot);
        if self.lists.len(PROTECTED) > self.protected_slots {
            let oldest = self.lists.back(PROTECTED).expect("an overfull list has a slot");
            self.lists.push_front(PROBATION, oldest);
        }
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let candidate = self.lists.oldest_evictable(WINDOW, pins);
        let main =
            [PROBATION, PROTECTED].into_iter().find_map(|list| self.lists.oldest_evictable(list, pins));
        let window_is_full = self.lists.len(WINDOW) + self.pending >= self.window_slots;
        let victim = match (candidate, main) {
            (Some(candidate), Some(main)) if window_is_full => {
                let estimate = |slot: Slot| self.sketch.estimate(self.block_of[slot.index()]);
                if estimate(candidate) > estimate(main) {
                    self.lists.push_front(PROBATION, candidate);
                    main
                } else {
                    candidate
                }
            }
            (candidate, main) => main.or(candidate).expect("an evictable slot stands in a list"),
        };
        self.pending += 1;
        self.lists.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        self.sketch.add(block);
        self.block_of[slot.index()] = block;
        self.pending = self.pending.saturating_sub(1);
        self.lists.push_front(WINDOW, slot);
        if self.lists.len(WINDOW) > self.window_slots {
            let oldest = self.lists.back(WINDOW).expect("an overfull list has a slot");
            self.lists.push_front(PROBATION, oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_block_leaves_the_window_only_past_a_rarer_one() {
        let mut bench = Bench::new("w-tinylfu", 3, 20);
        [0, 0, 1, 1, 2].into_iter().for_each(|block| drop(bench.step(&[block])));
        // Window 2; probation 0, 1, selected twice each.
        assert_eq!(bench.step(&[3]).victims(), [2], "2 was selected once");
        [3, 3].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[4]).victims(), [0], "3, selected three times, displaces 0");
        assert_eq!(bench.step(&[4, 5]).victims(), [1], "4 is pinned: the main part gives");
    }
}
