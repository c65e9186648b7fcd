//! Doubly linked queues over the slots of a buffer, as dense arrays: what every queue policy is made of.
//! A slot stands in at most one queue.

use crate::eviction::Pins;
use kvtier_units::Slot;

/// Queues there may be.
const MOST: usize = 16;
/// Queue of a slot that stands in none.
const NOWHERE: u8 = u8::MAX;

/// A slot's place: its neighbours and its queue, in one cache line.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The node towards the front.
    ahead: u32,
    /// The node towards the back.
    behind: u32,
    queue: u8,
}

/// Several queues over the slots of one buffer, each from front (newest) to back (oldest).
#[derive(Clone, Debug)]
pub struct SlotQueues {
    /// A node for each slot, then for each queue's sentinel, which stands ahead of the front and behind the back.
    nodes: Vec<Node>,
    lengths: [u32; MOST],
    slots: u32,
}

impl SlotQueues {
    /// `queues` empty queues over `slots` slots.
    ///
    /// # Panics
    /// If there are more than sixteen.
    pub fn new(slots: u32, queues: u8) -> SlotQueues {
        assert!(usize::from(queues) <= MOST, "{queues} queues, of {MOST} at most");
        let size = slots + u32::from(queues);
        SlotQueues {
            nodes: (0..size).map(|node| Node { ahead: node, behind: node, queue: NOWHERE }).collect(),
            lengths: [0; MOST],
            slots,
        }
    }

    #[inline(always)]
    fn sentinel(&self, queue: u8) -> u32 {
        self.slots + u32::from(queue)
    }

    /// Slots in the queue.
    #[inline(always)]
    pub fn len(&self, queue: u8) -> u32 {
        self.lengths[usize::from(queue) % MOST]
    }

    /// Whether the queue is empty.
    #[inline(always)]
    pub fn is_empty(&self, queue: u8) -> bool {
        self.len(queue) == 0
    }

    /// The queue that the slot stands in.
    ///
    /// # Panics
    /// If it stands in none.
    #[inline(always)]
    pub fn queue_of(&self, slot: Slot) -> u8 {
        let queue = self.nodes[slot.index()].queue;
        assert_ne!(queue, NOWHERE, "a filled slot stands in a queue");
        queue
    }

    /// Puts the slot at the front of a queue, taking it out of the one it stands in.
    #[inline(always)]
    pub fn push_front(&mut self, queue: u8, slot: Slot) {
        self.remove(slot);
        self.link_front(queue, slot);
        self.lengths[usize::from(queue) % MOST] += 1;
    }

    #[inline(always)]
    fn link_front(&mut self, queue: u8, slot: Slot) {
        let sentinel = self.sentinel(queue);
        let first = std::mem::replace(&mut self.nodes[sentinel as usize].behind, slot.0);
        self.nodes[slot.index()] = Node { ahead: sentinel, behind: first, queue };
        self.nodes[first as usize].ahead = slot.0;
    }

    /// Moves the slot to the front of the queue that it stands in.
    #[inline(always)]
    pub fn renew(&mut self, queue: u8, slot: Slot) {
        let sentinel = self.sentinel(queue);
        let Node { ahead, behind, .. } = self.nodes[slot.index()];
        debug_assert_eq!(self.nodes[slot.index()].queue, queue, "a slot is renewed in its own queue");
        self.nodes[ahead as usize].behind = behind;
        self.nodes[behind as usize].ahead = ahead;
        let first = std::mem::replace(&mut self.nodes[sentinel as usize].behind, slot.0);
        let node = &mut self.nodes[slot.index()];
        (node.ahead, node.behind) = (sentinel, first);
        self.nodes[first as usize].ahead = slot.0;
    }

    /// Takes the slot out of its queue, if it stands in one.
    #[inline(always)]
    pub fn remove(&mut self, slot: Slot) {
        let Node { ahead, behind, queue } = self.nodes[slot.index()];
        if queue == NOWHERE {
            return;
        }
        self.nodes[slot.index()].queue = NOWHERE;
        self.nodes[ahead as usize].behind = behind;
        self.nodes[behind as usize].ahead = ahead;
        self.lengths[usize::from(queue) % MOST] -= 1;
    }

    /// The oldest slot of a queue.
    #[inline(always)]
    pub fn back(&self, queue: u8) -> Option<Slot> {
        let last = self.nodes[self.sentinel(queue) as usize].ahead;
        (last < self.slots).then_some(Slot(last))
    }

    /// The next newer slot of the same queue.
    #[inline(always)]
    pub fn newer(&self, slot: Slot) -> Option<Slot> {
        let ahead = self.nodes[slot.index()].ahead;
        (ahead < self.slots).then_some(Slot(ahead))
    }

    /// Slots of a queue from the back (oldest) to the front.
    #[inline(always)]
    pub fn from_back(&self, queue: u8) -> impl Iterator<Item = Slot> + '_ {
        std::iter::successors(self.back(queue), |&slot| self.newer(slot))
    }

    /// The oldest slot of a queue that may be evicted.
    #[inline(always)]
    pub fn oldest_evictable(&self, queue: u8, pins: &Pins<'_>) -> Option<Slot> {
        self.from_back(queue).find(|&slot| !pins.holds(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[should_panic(expected = "17 queues, of 16 at most")]
    fn more_queues_than_lengths_are_refused() {
        let _ = SlotQueues::new(3, 17);
    }

    #[test]
    fn the_oldest_evictable_is_found_past_pins() {
        let mut queues = SlotQueues::new(3, 1);
        (0..3).for_each(|slot| queues.push_front(0, Slot(slot)));
        let pins = |stamps: &'static [u32]| Pins { stamps, epoch: 1 };
        assert_eq!(queues.oldest_evictable(0, &pins(&[0, 0, 0])), Some(Slot(0)));
        assert_eq!(queues.oldest_evictable(0, &pins(&[1, 1, 0])), Some(Slot(2)));
        assert_eq!(queues.oldest_evictable(0, &pins(&[1, 1, 1])), None);
    }

    proptest! {
        #[test]
        fn agree_with_vectors(moves in prop::collection::vec((0u32..7, 0u8..4), 0..80)) {
            let mut queues = SlotQueues::new(7, 3);
            let mut model = vec![Vec::new(); 3];
            for (slot, queue) in moves {
                model.iter_mut().for_each(|other| other.retain(|&member| member != slot));
                match queue {
                    3 => queues.remove(Slot(slot)),
                    queue => {
                        queues.push_front(queue, Slot(slot));
                        model[usize::from(queue)].push(slot);
                        prop_assert_eq!(queues.queue_of(Slot(slot)), queue);
                    }
                }
                for (queue, model) in (0u8..).zip(&model) {
                    let order: Vec<u32> = queues.from_back(queue).map(|slot| slot.0).collect();
                    prop_assert_eq!(&order, model);
                    prop_assert_eq!(queues.len(queue) as usize, model.len());
                    prop_assert_eq!(queues.back(queue).map(|slot| slot.0), model.first().copied());
                }
            }
        }
    }
}
