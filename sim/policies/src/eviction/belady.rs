//! Belady's MIN: evicts the block whose next selection is furthest away. The bound for demand-only policies.
//! L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966.
//!
//! A step is atomic: the selection is pinned and the furthest among the others go. Total order: (next use,
//! furthest first; slot number). It cannot price a prefetched block, and so runs without prefetch.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Furthest next use first.
pub struct Belady {
    /// Next step that selects the slot's block.
    next_use: Vec<u32>,
    /// Slots by next use; entries that no longer agree with `next_use` are stale and skipped.
    furthest: BinaryHeap<(u32, Reverse<Slot>)>,
    held: Vec<(u32, Reverse<Slot>)>,
}

/// Marks a chosen victim until its slot is filled again. Step 0 is never a *next* use.
const CHOSEN: u32 = 0;

impl Belady {
    fn set(&mut self, slot: Slot, next_use: u32) {
        self.next_use[slot.index()] = next_use;
        self.furthest.push((next_use, Reverse(slot)));
        if self.furthest.len() > 4 * self.next_use.len() + 64 {
            self.furthest.clear();
            let live = (0u32..).map(Slot).zip(&self.next_use).filter(|&(_, &next)| next != CHOSEN);
            self.furthest.extend(live.map(|(slot, &next)| (next, Reverse(slot))));
        }
    }
}

impl EvictionPolicy for Belady {
    const NAME: &'static str = "belady";
    const SUMMARY: &'static str = "offline bound: evicts the block selected furthest in the future";
    const NEEDS_FUTURE: bool = true;
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const PLAIN: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let slots = shape.slots as usize;
        Ok(Belady {
            next_use: vec![CHOSEN; slots],
            furthest: BinaryHeap::with_capacity(4 * slots + 65),
            held: Vec::with_capacity(slots),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.held.clear();
        for _ in 0..need {
            let slot = loop {
                let (next, Reverse(slot)) = self.furthest.pop().expect("an evictable slot has a live entry");
                if self.next_use[slot.index()] != next {
                    continue;
                }
                if view.pins.holds(slot) {
                    self.held.push((next, Reverse(slot)));
                    continue;
                }
                break slot;
            };
            self.next_use[slot.index()] = CHOSEN;
            out.push(slot);
        }
        self.furthest.extend(self.held.drain(..));
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        let foresight = view.selection.foresight.expect("belady runs with foresight");
        for (&slot, &next) in view.slots.iter().zip(foresight.next_use) {
            self.set(slot, next);
        }
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot, next_use: u32) {
        self.set(slot, next_use);
    }

    #[inline(always)]
    fn replace(&mut self, _: BlockId, next_use: u32, _: &[BlockId]) -> Slot {
        let slot = loop {
            let (next, Reverse(slot)) = self.furthest.pop().expect("a full buffer has a live entry");
            if self.next_use[slot.index()] == next {
                break slot;
            }
        };
        self.set(slot, next_use);
        slot
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, next_use: u32) {
        self.set(slot, next_use);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_furthest_unpinned_goes() {
        // Textbook string on three slots, one block a step: 7 misses.
        let string = [0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4];
        let mut bench = Bench::with_future("belady", 3, 5, string.iter().map(|&block| vec![block]).collect());
        let misses: u64 = string.iter().map(|&block| bench.step(&[block]).counts.misses).sum();
        assert_eq!(misses, 7);
    }

    #[test]
    fn a_pinned_block_stays_however_far_its_next_use() {
        let steps = vec![vec![0, 1, 2], vec![0, 3], vec![1], vec![2], vec![1]];
        let mut bench = Bench::with_future("belady", 3, 4, steps.clone());
        bench.step(&steps[0]);
        assert_eq!(bench.step(&steps[1]).victims(), [2], "0 is never used again, but pinned");
        assert_eq!(bench.step(&steps[2]).victims(), [0u32; 0]);
        assert_eq!(bench.step(&steps[3]).victims(), [0], "0 and 3 are never used again: lower slot first");
    }
}
