//! A doubly linked list over all slots of a buffer, as two dense arrays: the order behind every queue policy.

use kvtier_units::Slot;

/// All slots of one buffer in one order, from front (newest) to back (oldest). Every slot is always a member.
#[derive(Clone, Debug)]
pub struct SlotList {
    /// `[towards front, towards back]` for each slot; the last element is the sentinel.
    links: Vec<[u32; 2]>,
    sentinel: u32,
}

const FRONT: usize = 0;
const BACK: usize = 1;

impl SlotList {
    /// A list of slots `0..slots` with slot 0 at the back.
    pub fn new(slots: u32) -> SlotList {
        let size = slots + 1;
        let link = |slot: u32| [(slot + 1) % size, (slot + size - 1) % size];
        SlotList { links: (0..size).map(link).collect(), sentinel: slots }
    }

    /// Moves a slot to the front.
    #[inline(always)]
    pub fn move_to_front(&mut self, slot: Slot) {
        let at = slot.index();
        let [ahead, behind] = self.links[at];
        if ahead == self.sentinel {
            return;
        }
        let sentinel = self.sentinel as usize;
        self.links[ahead as usize][BACK] = behind;
        self.links[behind as usize][FRONT] = ahead;
        let first = self.links[sentinel][BACK];
        // The sentinel stands ahead of the front and behind the back.
        self.links[at] = [self.sentinel, first];
        self.links[first as usize][FRONT] = slot.0;
        self.links[sentinel][BACK] = slot.0;
    }

    /// Slots from the back (oldest) to the front.
    #[inline]
    pub fn from_back(&self) -> impl Iterator<Item = Slot> + '_ {
        let mut at = self.links[self.sentinel as usize][FRONT];
        std::iter::from_fn(move || {
            if at == self.sentinel {
                return None;
            }
            let slot = Slot(at);
            at = self.links[at as usize][FRONT];
            Some(slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(list: &SlotList) -> Vec<u32> {
        list.from_back().map(|slot| slot.0).collect()
    }

    #[test]
    fn starts_with_slot_zero_oldest() {
        assert_eq!(order(&SlotList::new(3)), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_vector(moves in prop::collection::vec(0u32..7, 0..60)) {
            let mut list = SlotList::new(7);
            let mut model: Vec<u32> = (0..7).collect();
            for slot in moves {
                list.move_to_front(Slot(slot));
                model.retain(|&other| other != slot);
                model.push(slot);
                prop_assert_eq!(order(&list), model.clone());
            }
        }
    }
}
