//! Slots by a priority that only grows while a block stays: a hit merely notes the new priority, and the heap is put
//! right when a victim is wanted. So hits cost one write, and only victims cost a logarithm.

use super::Pins;
use kvtier_units::Slot;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// The filled slots of a buffer, smallest priority first, then smallest slot.
#[derive(Clone, Debug)]
pub(crate) struct LazyHeap {
    /// One entry per slot that may be chosen, never above the slot's priority.
    heap: BinaryHeap<Reverse<(u64, Slot)>>,
    priority: Vec<u64>,
    /// Entries of pinned slots met on the way to victims; back in the heap with the next addition or release.
    held: Vec<Reverse<(u64, Slot)>>,
}

/// A priority of two parts, the first before the second.
#[inline(always)]
pub(crate) fn priority(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

/// The two parts of a priority.
#[inline(always)]
fn parts(priority: u64) -> [u32; 2] {
    let low = u32::try_from(priority & u64::from(u32::MAX)).expect("32 bits were kept");
    let high = u32::try_from(priority >> 32).expect("32 bits are left");
    [high, low]
}

impl LazyHeap {
    /// An empty heap for `slots` slots.
    pub(crate) fn new(slots: u32) -> LazyHeap {
        let slots = slots as usize;
        LazyHeap {
            heap: BinaryHeap::with_capacity(slots + 1),
            priority: vec![0; slots],
            held: Vec::with_capacity(slots),
        }
    }

    /// Raises the priority of a slot that is in the heap.
    #[inline(always)]
    pub(crate) fn raise(&mut self, slot: Slot, priority: u64) {
        debug_assert!(priority >= self.priority[slot.index()], "a resident block's priority only grows");
        self.priority[slot.index()] = priority;
    }

    /// Raises the first part of the priority of a slot that is in the heap.
    #[inline]
    pub(crate) fn raise_major(&mut self, slot: Slot, major: u32) {
        let [_, minor] = parts(self.priority[slot.index()]);
        self.raise(slot, priority(major, minor));
    }

    /// Adds a slot that is not in the heap.
    #[inline]
    pub(crate) fn add(&mut self, slot: Slot, priority: u64) {
        self.priority[slot.index()] = priority;
        self.heap.push(Reverse((priority, slot)));
        self.release();
    }

    /// Lets slots be chosen again that were pinned when victims were taken.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.heap.extend(self.held.drain(..));
    }

    /// Takes out the evictable slot of the smallest priority, and returns it with its priority. Slots that are pinned
    /// stay so until the next addition or release.
    ///
    /// # Panics
    /// If none is evictable.
    pub(crate) fn take_smallest(&mut self, pins: &Pins<'_>) -> (Slot, u64) {
        loop {
            let mut top = self.heap.peek_mut().expect("an evictable slot stands in the heap");
            let Reverse((noted, slot)) = *top;
            let priority = self.priority[slot.index()];
            if noted != priority {
                *top = Reverse((priority, slot));
                continue;
            }
            let entry = PeekMut::pop(top);
            if !pins.holds(slot) {
                return (slot, priority);
            }
            self.held.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_slots_are_found_where_they_belong_and_pins_stay() {
        let mut heap = LazyHeap::new(5);
        (0..4).for_each(|slot| heap.add(Slot(slot), u64::from(slot)));
        heap.raise(Slot(0), 9);
        heap.raise(Slot(1), 3);
        let pins = Pins { stamps: &[0, 0, 1, 0, 0], epoch: 1 };
        assert_eq!(
            heap.take_smallest(&pins),
            (Slot(1), 3),
            "2 is pinned; 1 and 3 are equal, 1 is the smaller"
        );
        heap.add(Slot(4), 7);
        let free = Pins { stamps: &[0; 5], epoch: 1 };
        assert_eq!([(); 4].map(|()| heap.take_smallest(&free).0), [2, 3, 4, 0].map(Slot));
    }
}
