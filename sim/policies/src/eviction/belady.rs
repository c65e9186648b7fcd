//! Belady's MIN: evicts the block whose next selection is furthest away. The bound for demand-only policies.
//! L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966.
//!
//! A step is atomic: the selection is pinned and the furthest among the others go. Total order: (next use,
//! furthest first; slot number). It cannot price a prefetched block, and so runs without prefetch.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};
use std::collections::BinaryHeap;

/// Furthest next use first. Only slots whose next use is far away are kept in order, since victims come from among them, and
/// most hits are of blocks that are used again soon.
pub struct Belady {
    /// Next step that selects the slot's block.
    next_use: Vec<u32>,
    /// Next uses from here on are far.
    far: u32,
    /// The places of slots whose next use was far when it became so, ascending; those that no longer agree with
    /// `next_use` are stale and skipped.
    furthest: Vec<Place>,
    /// The same of slots that were touched since.
    newer: BinaryHeap<Place>,
    held: Vec<Place>,
    /// Room to find out what is far.
    near: Vec<u32>,
}

/// A next use and, below it, the complement of its slot: the larger goes first.
type Place = u64;

#[inline(always)]
fn place(slot: Slot, next_use: u32) -> Place {
    u64::from(next_use) << 32 | u64::from(!slot.0)
}

/// Marks a chosen victim until its slot is filled again. Step 0 is never a *next* use.
const CHOSEN: u32 = 0;
/// Above every next use.
const ALL: u64 = 1 << 32;

impl Belady {
    #[inline(always)]
    fn set(&mut self, slot: Slot, next_use: u32) {
        self.next_use[slot.index()] = next_use;
        if next_use >= self.far {
            self.newer.push(place(slot, next_use));
            if self.newer.len() > 2 * self.next_use.len() + 64 {
                // Much of it is stale: time has come up to what once was far.
                self.newer.clear();
                self.order_furthest(ALL);
            }
        }
    }

    /// The slot of the furthest next use, whose place is taken out.
    #[inline(always)]
    fn pop(&mut self) -> (Place, Slot) {
        loop {
            let (sorted, newer) = (self.furthest.last().copied(), self.newer.peek().copied());
            let place = match sorted.max(newer) {
                Some(_) if sorted >= newer => self.furthest.pop(),
                Some(_) => self.newer.pop(),
                None => None,
            };
            let Some(place) = place else {
                self.order_furthest(u64::from(self.far));
                continue;
            };
            let [high, low] = [place >> 32, !place & u64::from(u32::MAX)];
            let slot = Slot(u32::try_from(low).expect("it was masked"));
            if u64::from(self.next_use[slot.index()]) == high {
                return (place, slot);
            }
        }
    }

    /// Puts in order the furthest quarter of the slots whose next use is below `bound`, and calls that far.
    #[cold]
    fn order_furthest(&mut self, bound: u64) {
        let within = |next: u32| next != CHOSEN && u64::from(next) < bound;
        self.near.clear();
        self.near.extend(self.next_use.iter().copied().filter(|&next| within(next)));
        assert!(!self.near.is_empty(), "an evictable slot has a next use");
        let nearest = self.near.len() - self.near.len().div_ceil(4);
        self.far = *self.near.select_nth_unstable(nearest).1;
        let found = (0u32..).map(Slot).zip(&self.next_use);
        let found = found.filter(|&(_, &next)| within(next) && next >= self.far);
        self.furthest.clear();
        self.furthest.extend(found.map(|(slot, &next)| place(slot, next)));
        self.furthest.sort_unstable();
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
            far: u32::MAX,
            furthest: Vec::with_capacity(slots),
            newer: BinaryHeap::with_capacity(2 * slots + 65),
            held: Vec::with_capacity(slots),
            near: Vec::with_capacity(slots),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.held.clear();
        for _ in 0..need {
            let slot = loop {
                let (place, slot) = self.pop();
                if !view.pins.holds(slot) {
                    break slot;
                }
                self.held.push(place);
            };
            self.next_use[slot.index()] = CHOSEN;
            out.push(slot);
        }
        self.newer.extend(self.held.drain(..));
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
        let (_, slot) = self.pop();
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
