//! Slots by their last touch, kept as whichever is quicker: a log while whole steps come, a linked list while single
//! accesses do. Steps touch many slots for each victim; single accesses come with about as many victims as matter,
//! and there a log costs a search for each.

use crate::{RecencyLog, SlotQueues};
use kvtier_units::Slot;

/// The order of slots by last touch.
#[derive(Clone, Debug)]
pub(crate) struct Recency {
    log: RecencyLog,
    list: SlotQueues,
    /// Whether the list holds the order now; the log does otherwise.
    listed: bool,
}

impl Recency {
    /// An empty order over `slots` slots.
    pub(crate) fn new(slots: u32) -> Recency {
        Recency { log: RecencyLog::new(slots), list: SlotQueues::new(slots, 1), listed: false }
    }

    /// The order as a log.
    #[inline(always)]
    pub(crate) fn log(&mut self) -> &mut RecencyLog {
        if self.listed {
            self.to_log();
        }
        &mut self.log
    }

    #[cold]
    fn to_log(&mut self) {
        let order: Vec<Slot> = self.list.from_back(0).collect();
        self.log.restart(order.into_iter());
        self.listed = false;
    }

    /// Has the order kept as a list, for `touch` and `take_oldest`, until the next call of `log`.
    pub(crate) fn keep_list(&mut self) {
        if !self.listed {
            self.log.ascending().for_each(|slot| self.list.push_front(0, slot));
            self.listed = true;
        }
    }

    /// Touches a slot of the list.
    #[inline(always)]
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.list.renew(0, slot);
    }

    /// The least recently touched slot of the list, which is touched now.
    ///
    /// # Panics
    /// If the list is empty.
    #[inline(always)]
    pub(crate) fn take_oldest(&mut self) -> Slot {
        let oldest = self.list.back(0).expect("a full buffer has an oldest slot");
        self.list.renew(0, oldest);
        oldest
    }

    /// The order of a buffer that changed its size, as in [`RecencyLog::resize`].
    pub(crate) fn resize(&mut self, kept: &[Slot]) {
        self.log().resize(kept);
        let slots = u32::try_from(kept.len()).expect("a buffer has fewer than 2^32 slots");
        self.list = SlotQueues::new(slots, 1);
    }
}
