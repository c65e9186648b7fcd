//! Two doubly linked lists over the slots of a buffer, for policies that have no more. Not
//! [`SlotQueues`](crate::SlotQueues): a node of eight bytes straddles no cache line, and with two lists one length says
//! both, so that a hit has one number to bring up to date. Lists are 0 and 1; a slot stands in at most one.

use super::Pins;
use kvtier_units::Slot;

/// Set in links of the second list.
const SECOND_LINK: u32 = 1 << 31;

/// A slot's neighbours in its list: towards the front, and towards the back with the mark of the list. Neighbours stand in the
/// same list, so who links two of them hands on the mark with the link.
#[derive(Clone, Copy)]
struct Node {
    ahead: u32,
    behind: u32,
}

/// Two lists over the slots of one buffer, each from front (newest) to back (oldest).
pub(super) struct TwoLists {
    /// A node for each slot, then for each list's sentinel, which stands ahead of the front and behind the back.
    nodes: Vec<Node>,
    slots: u32,
    /// Slots in either list, and in the first.
    all: u32,
    first: u32,
}

/// The number in a link.
#[inline(always)]
fn number(link: u32) -> usize {
    (link & !SECOND_LINK) as usize
}

/// A link towards a slot of the list.
#[inline(always)]
fn marked(slot: Slot, list: u8) -> u32 {
    slot.0 + u32::from(list) * SECOND_LINK
}

impl TwoLists {
    /// Empty lists over `slots` slots.
    pub(super) fn new(slots: u32) -> TwoLists {
        assert!(slots < SECOND_LINK - 1, "links count slots in 31 bits");
        let mut nodes: Vec<Node> = (0..slots + 2).map(|node| Node { ahead: node, behind: node }).collect();
        nodes[slots as usize + 1].behind |= SECOND_LINK;
        TwoLists { nodes, slots, all: 0, first: 0 }
    }

    #[inline(always)]
    fn sentinel(&self, list: u8) -> u32 {
        self.slots + u32::from(list)
    }

    /// Slots in the list.
    #[inline(always)]
    pub(super) fn len(&self, list: u8) -> u32 {
        if list == 0 { self.first } else { self.all - self.first }
    }

    /// The list that a slot stands in.
    #[inline(always)]
    pub(super) fn list_of(&self, slot: Slot) -> u8 {
        u8::from(self.nodes[slot.index()].behind & SECOND_LINK != 0)
    }

    #[inline(always)]
    fn unlink(&mut self, slot: Slot) {
        let Node { ahead, behind } = self.nodes[slot.index()];
        self.nodes[ahead as usize].behind = behind;
        self.nodes[number(behind)].ahead = ahead;
    }

    #[inline(always)]
    fn link_front(&mut self, list: u8, slot: Slot) {
        let sentinel = self.sentinel(list);
        let first = std::mem::replace(&mut self.nodes[sentinel as usize].behind, marked(slot, list));
        self.nodes[slot.index()] = Node { ahead: sentinel, behind: first };
        self.nodes[number(first)].ahead = slot.0;
    }

    /// Puts a slot that stands nowhere at the front of a list.
    #[inline(always)]
    pub(super) fn push_front(&mut self, list: u8, slot: Slot) {
        self.all += 1;
        self.first += u32::from(1 - list);
        self.link_front(list, slot);
    }

    /// Takes a slot out of the list that it stands in.
    #[inline(always)]
    pub(super) fn remove(&mut self, slot: Slot) {
        self.all -= 1;
        self.first -= u32::from(1 - self.list_of(slot));
        self.unlink(slot);
    }

    /// Moves a slot from the list that it stands in to the front of another, or of the same. Through one slice, which the
    /// compiler need not look for again after each write.
    #[inline(always)]
    pub(super) fn move_front(&mut self, to: u8, slot: Slot) {
        let sentinel = self.sentinel(to);
        let nodes = &mut self.nodes[..];
        let Node { ahead, behind } = nodes[slot.index()];
        nodes[ahead as usize].behind = behind;
        nodes[number(behind)].ahead = ahead;
        let first = std::mem::replace(&mut nodes[sentinel as usize].behind, marked(slot, to));
        nodes[slot.index()] = Node { ahead: sentinel, behind: first };
        nodes[number(first)].ahead = slot.0;
        self.first = self.first + (behind >> SECOND_LINK.trailing_zeros()) - u32::from(to);
    }

    /// The oldest slot of a list, which is not empty.
    #[inline(always)]
    pub(super) fn back(&self, list: u8) -> Slot {
        debug_assert!(self.len(list) > 0, "an empty list has no oldest slot");
        Slot(self.nodes[self.sentinel(list) as usize].ahead)
    }

    /// The oldest slot of a list that may be evicted.
    #[inline(always)]
    pub(super) fn oldest_evictable(&self, list: u8, pins: &Pins<'_>) -> Option<Slot> {
        let newer = |at: u32| Some(self.nodes[at as usize].ahead).filter(|&next| next != self.sentinel(list));
        std::iter::successors(newer(self.sentinel(list)), |&at| newer(at))
            .map(Slot)
            .find(|&slot| !pins.holds(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_evictable_is_found_past_pins() {
        let mut lists = TwoLists::new(3);
        (0..3).for_each(|slot| lists.push_front(1, Slot(slot)));
        let pins = |stamps: &'static [u32]| Pins { stamps, epoch: 1 };
        assert_eq!(lists.oldest_evictable(1, &pins(&[0, 0, 0])), Some(Slot(0)));
        assert_eq!(lists.oldest_evictable(1, &pins(&[1, 1, 0])), Some(Slot(2)));
        assert_eq!(lists.oldest_evictable(1, &pins(&[1, 1, 1])), None);
        assert_eq!(lists.oldest_evictable(0, &pins(&[0, 0, 0])), None);
    }

    proptest! {
        #[test]
        fn agree_with_vectors(moves in prop::collection::vec((0u32..7, 0u8..3), 0..80)) {
            let mut lists = TwoLists::new(7);
            let mut model = [Vec::new(), Vec::new()];
            for (slot, to) in moves {
                let stood = model.iter().position(|list| list.contains(&slot));
                model.iter_mut().for_each(|list| list.retain(|&member| member != slot));
                match (to, stood) {
                    (2, Some(_)) => lists.remove(Slot(slot)),
                    (2, None) => {}
                    (list, Some(_)) => lists.move_front(list, Slot(slot)),
                    (list, None) => lists.push_front(list, Slot(slot)),
                }
                if to < 2 {
                    model[usize::from(to)].push(slot);
                }
                for (list, model) in (0u8..).zip(&model) {
                    prop_assert_eq!(lists.len(list) as usize, model.len());
                    // From the oldest on, as victims are looked for.
                    let stamps = &mut [0u32; 7];
                    for &oldest in model {
                        let pins = Pins { stamps: &stamps[..], epoch: 1 };
                        prop_assert_eq!(lists.oldest_evictable(list, &pins), Some(Slot(oldest)));
                        prop_assert_eq!(lists.list_of(Slot(oldest)), list);
                        stamps[oldest as usize] = 1;
                    }
                    if let Some(&oldest) = model.first() {
                        prop_assert_eq!(lists.back(list), Slot(oldest));
                    }
                }
            }
        }
    }
}
