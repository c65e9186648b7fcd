//! Slots by their last touch, as a log: a touch appends, and entries that a later touch overtook are skipped.
//! Much cheaper than a linked list where touches are many and victims few, which is what a hot buffer sees.

use crate::eviction::Pins;
use kvtier_units::Slot;

/// The order of slots by last touch. A slot that was never touched is not part of it.
#[derive(Clone, Debug)]
pub struct RecencyLog {
    /// Slots in order of touch in `head..tail`; an entry counts only while it is its slot's last.
    log: Vec<Slot>,
    head: usize,
    tail: usize,
    /// Where each slot's last entry stands.
    last: Vec<u32>,
}

impl RecencyLog {
    /// An empty order over `slots` slots.
    pub fn new(slots: u32) -> RecencyLog {
        let slots = slots as usize;
        RecencyLog { log: vec![Slot::NONE; 8 * slots + 64], head: 0, tail: 0, last: vec![u32::MAX; slots] }
    }

    /// Touches slots one after the other, each at most once per call.
    #[inline(always)]
    pub fn touch(&mut self, slots: impl ExactSizeIterator<Item = Slot>) {
        let end = self.tail + slots.len();
        if end > self.log.len() {
            self.drop_overtaken();
            return self.touch_all(slots);
        }
        self.touch_all(slots);
    }

    /// Touches one slot.
    #[inline(always)]
    pub fn touch_one(&mut self, slot: Slot) {
        if self.tail == self.log.len() {
            self.drop_overtaken();
        }
        self.log[self.tail] = slot;
        self.last[slot.index()] =
            u32::try_from(self.tail).expect("a log of eight entries per slot counts in 32 bits");
        self.tail += 1;
    }

    #[inline(always)]
    fn touch_all(&mut self, slots: impl ExactSizeIterator<Item = Slot>) {
        let end = self.tail + slots.len();
        let first = u32::try_from(self.tail).expect("a log of eight entries per slot counts in 32 bits");
        for ((at, entry), slot) in (first..).zip(&mut self.log[self.tail..end]).zip(slots) {
            *entry = slot;
            self.last[slot.index()] = at;
        }
        self.tail = end;
    }

    /// The order of a buffer that changed its size: slot i stands where `kept[i]` stood, and is not part of the order where
    /// that is `Slot::NONE`.
    pub fn resize(&mut self, kept: &[Slot]) {
        let mut now_at = vec![Slot::NONE; self.last.len()];
        let filled = kept.iter().enumerate().filter(|(_, from)| **from != Slot::NONE);
        filled.for_each(|(to, from)| now_at[from.index()] = Slot::at(to));
        let order = self.ascending().map(|slot| now_at[slot.index()]);
        let order: Vec<Slot> = order.filter(|&slot| slot != Slot::NONE).collect();
        *self = RecencyLog::new(u32::try_from(kept.len()).expect("a buffer has fewer than 2^32 slots"));
        self.touch(order.into_iter());
    }

    /// Slots of the buffer.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.last.len()).expect("a buffer has fewer than 2^32 slots")
    }

    /// All slots of the order, oldest first.
    pub(crate) fn ascending(&self) -> impl Iterator<Item = Slot> + '_ {
        (self.head..self.tail).filter(|&at| self.counts(at)).map(|at| self.log[at])
    }

    /// Forgets the order, for one that holds the same slots.
    pub(crate) fn restart(&mut self, ascending: impl ExactSizeIterator<Item = Slot>) {
        (self.head, self.tail) = (0, 0);
        self.touch(ascending);
    }

    /// The least recently touched slot, which is touched now.
    ///
    /// # Panics
    /// If no slot was ever touched.
    #[inline(always)]
    pub(crate) fn renew_oldest(&mut self) -> Slot {
        while !self.counts(self.head) {
            self.head += 1;
        }
        let slot = self.log[self.head];
        self.head += 1;
        self.touch_one(slot);
        slot
    }

    /// Rewrites the log with the entries that count; at most one per slot is left.
    #[cold]
    fn drop_overtaken(&mut self) {
        let mut kept = 0;
        for at in self.head..self.tail {
            let slot = self.log[at];
            if self.counts(at) {
                self.log[kept] = slot;
                self.last[slot.index()] = u32::try_from(kept).expect("rewriting only moves entries down");
                kept += 1;
            }
        }
        self.head = 0;
        self.tail = kept;
    }

    #[inline(always)]
    fn counts(&self, at: usize) -> bool {
        self.last[self.log[at].index()] as usize == at
    }

    /// Appends the `need` least recently touched of the evictable slots, oldest first. They stay in the order
    /// until they are touched.
    ///
    /// # Panics
    /// If fewer are evictable.
    #[inline(always)]
    pub fn victims(&mut self, pins: &Pins<'_>, need: usize, out: &mut Vec<Slot>) {
        let wanted = out.len() + need;
        // The head follows until an entry has to stay; victims are touched before anybody asks again.
        let mut stays = None;
        let mut at = self.head;
        while out.len() < wanted {
            if self.counts(at) {
                let slot = self.log[at];
                if pins.holds(slot) {
                    stays = stays.or(Some(at));
                } else {
                    out.push(slot);
                }
            }
            at += 1;
        }
        self.head = stays.unwrap_or(at);
    }

    /// When the slot was last touched, comparable among the slots touched so far.
    #[inline(always)]
    pub fn last_touch(&self, slot: Slot) -> u32 {
        self.last[slot.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every victim is touched before the next are chosen, as in a buffer.
        #[test]
        fn agrees_with_a_vector(
            rounds in prop::collection::vec((prop::collection::vec(0u32..7, 0..5), 0u8..128, 0usize..7), 0..80)
        ) {
            let mut log = RecencyLog::new(7);
            let mut model: Vec<u32> = (0..7).collect();
            log.touch((0..7).map(Slot));
            for (mut touched, pinned, need) in rounds {
                let stamps: Vec<u32> = (0..7).map(|slot| u32::from(pinned >> slot & 1)).collect();
                let pins = Pins { stamps: &stamps, epoch: 1 };
                let free: Vec<u32> = model.iter().copied().filter(|&slot| !pins.holds(Slot(slot))).collect();
                let need = need.min(free.len());
                let mut victims = Vec::new();
                log.victims(&pins, need, &mut victims);
                let victims: Vec<u32> = victims.iter().map(|slot| slot.0).collect();
                prop_assert_eq!(&victims[..], &free[..need]);
                touched.extend(victims);
                touched.sort_unstable();
                touched.dedup();
                log.touch(touched.iter().copied().map(Slot));
                model.retain(|slot| !touched.contains(slot));
                model.extend(touched);
            }
        }
    }
}
