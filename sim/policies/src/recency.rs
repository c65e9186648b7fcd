//! Slots by their last touch, kept as whichever is quicker: a log while whole steps come, a linked list while single
//! accesses do. Steps touch many slots for each victim; single accesses come with about as many victims as matter,
//! and there a log costs a search for each.

use crate::RecencyLog;
use kvtier_units::Slot;

/// A slot's neighbours in the list. No queue beside them, as in [`SlotQueues`](crate::SlotQueues): eight bytes straddle no
/// cache line, and only one queue is needed.
#[derive(Clone, Copy, Debug)]
struct Node {
    newer: u32,
    older: u32,
}

/// A linked list over all slots of a full buffer.
#[derive(Clone, Debug)]
struct List {
    /// A node for each slot, then the one that stands before the newest and after the oldest.
    nodes: Vec<Node>,
}

impl List {
    fn new(slots: u32) -> List {
        List { nodes: (0..=slots).map(|node| Node { newer: node, older: node }).collect() }
    }

    #[inline(always)]
    fn ends(&self) -> u32 {
        u32::try_from(self.nodes.len() - 1).expect("a buffer has fewer than 2^32 slots")
    }

    /// Links a slot that stands nowhere.
    #[inline(always)]
    fn push_newest(&mut self, slot: Slot) {
        let ends = self.ends();
        let second = std::mem::replace(&mut self.nodes[ends as usize].older, slot.0);
        self.nodes[slot.index()] = Node { newer: ends, older: second };
        self.nodes[second as usize].newer = slot.0;
    }

    #[inline(always)]
    fn renew(&mut self, slot: Slot) {
        let ends = self.ends();
        // Through one slice, which the compiler need not look for again after each write.
        let nodes = &mut self.nodes[..];
        let Node { newer, older } = nodes[slot.index()];
        nodes[newer as usize].older = older;
        nodes[older as usize].newer = newer;
        let second = std::mem::replace(&mut nodes[ends as usize].older, slot.0);
        nodes[slot.index()] = Node { newer: ends, older: second };
        nodes[second as usize].newer = slot.0;
    }

    #[inline(always)]
    fn oldest(&self) -> Slot {
        Slot(self.nodes[self.ends() as usize].newer)
    }

    fn ascending(&self) -> impl Iterator<Item = Slot> + '_ {
        let ends = self.ends();
        let newer = move |at: u32| Some(self.nodes[at as usize].newer).filter(|&next| next != ends);
        std::iter::successors(newer(ends), move |&at| newer(at)).map(Slot)
    }
}

/// The order of slots by last touch.
#[derive(Clone, Debug)]
pub(crate) struct Recency {
    log: RecencyLog,
    list: List,
    /// Whether the list holds the order now; the log does otherwise.
    listed: bool,
}

impl Recency {
    /// An empty order over `slots` slots.
    pub(crate) fn new(slots: u32) -> Recency {
        let list = List { nodes: Vec::new() };
        Recency { log: RecencyLog::new(slots), list, listed: false }
    }

    /// The order as a log.
    #[inline(always)]
    pub(crate) fn log(&mut self) -> &mut RecencyLog {
        if self.listed {
            self.write_log();
        }
        &mut self.log
    }

    #[cold]
    fn write_log(&mut self) {
        let order: Vec<Slot> = self.list.ascending().collect();
        self.log.restart(order.into_iter());
        self.listed = false;
    }

    /// Has the order kept as a list, for `touch` and `take_oldest`, until the next call of `log`.
    pub(crate) fn keep_list(&mut self) {
        if !self.listed {
            self.list = List::new(self.log.slots());
            self.log.ascending().for_each(|slot| self.list.push_newest(slot));
            self.listed = true;
        }
    }

    /// Touches a slot of the list.
    #[inline(always)]
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.list.renew(slot);
    }

    /// The least recently touched slot of the list, which is touched now.
    ///
    /// # Panics
    /// If no slot was ever touched.
    #[inline(always)]
    pub(crate) fn take_oldest(&mut self) -> Slot {
        let oldest = self.list.oldest();
        self.list.renew(oldest);
        oldest
    }

    /// The order of a buffer that changed its size, as in [`RecencyLog::resize`].
    pub(crate) fn resize(&mut self, kept: &[Slot]) {
        self.log().resize(kept);
    }
}
