//! LFU: evicts the block selected least often since it was loaded; among equals the least recently selected.
//! Constant time by a list of counts, each with its own list of slots: K. Shah, A. Mitra, D. Matani, "An O(1)
//! algorithm for implementing the LFU cache eviction scheme", 2010, <https://arxiv.org/abs/2110.11602>.
//!
//! The count is one when a block is loaded and restarts with every load. A prefetched or newly filled block also
//! starts at one. Total order: (count, recency), which is unique; within a step worse ranks are older.

use super::classic::ClassicPolicy;
use super::{BufferShape, NoParams, Pins, StateClass};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};

/// The newest slot of a count that has none.
const NIL: u32 = u32::MAX;
/// The node before the smallest count and after the largest.
const ENDS: u32 = 0;

/// All slots of one count.
#[derive(Clone, Copy, Debug)]
struct Node {
    count: u32,
    newest: u32,
    /// Nodes of the next smaller and the next larger count.
    smaller: u32,
    larger: u32,
}

/// A slot's node, and its place in the ring of the node's slots, where the oldest is next to the newest.
#[derive(Clone, Copy, Debug)]
struct Place {
    newer: u32,
    older: u32,
    node: u32,
}

/// Least frequently used.
pub struct Lfu {
    /// `nodes[ENDS]` closes the ring of nodes; one with no slot is free.
    nodes: Vec<Node>,
    free: Vec<u32>,
    places: Vec<Place>,
}

impl Lfu {
    fn empty(slots: u32) -> Lfu {
        let ends = Node { count: 0, newest: NIL, smaller: ENDS, larger: ENDS };
        Lfu {
            nodes: vec![ends; slots as usize + 2],
            free: (1..=slots + 1).rev().collect(),
            places: vec![Place { newer: NIL, older: NIL, node: ENDS }; slots as usize],
        }
    }

    #[inline(always)]
    fn node(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// Takes the slot out of its node; a node that empties goes.
    #[inline(always)]
    fn unlink(&mut self, slot: Slot) {
        let Place { newer, older, node } = self.places[slot.index()];
        if older == slot.0 {
            let Node { smaller, larger, .. } = self.nodes[node as usize];
            self.node(smaller).larger = larger;
            self.node(larger).smaller = smaller;
            return self.free.push(node);
        }
        self.places[newer as usize].older = older;
        self.places[older as usize].newer = newer;
        let newest = &mut self.node(node).newest;
        if *newest == slot.0 {
            *newest = older;
        }
    }

    /// Puts the slot into the node of `count`, which stands after `smaller` or is made there.
    #[inline(always)]
    fn link_newest(&mut self, slot: Slot, smaller: u32, count: u32) {
        let mut at = self.nodes[smaller as usize].larger;
        if at == ENDS || self.nodes[at as usize].count != count {
            let larger = at;
            at = self.free.pop().expect("there are as many nodes as slots, and one to spare");
            *self.node(at) = Node { count, newest: slot.0, smaller, larger };
            self.node(smaller).larger = at;
            self.node(larger).smaller = at;
            self.places[slot.index()] = Place { newer: slot.0, older: slot.0, node: at };
            return;
        }
        let newest = std::mem::replace(&mut self.node(at).newest, slot.0);
        let oldest = std::mem::replace(&mut self.places[newest as usize].newer, slot.0);
        self.places[oldest as usize].older = slot.0;
        self.places[slot.index()] = Place { newer: oldest, older: newest, node: at };
    }

    /// Slots from the least used to the most, older first within a count.
    fn ascending(&self) -> impl Iterator<Item = Slot> + '_ {
        let filled = |at: &u32| *at != ENDS;
        let larger = |at: u32| self.nodes[at as usize].larger;
        std::iter::successors(Some(larger(ENDS)).filter(filled), move |&at| Some(larger(at)).filter(filled))
            .flat_map(move |at| {
                let newest = self.nodes[at as usize].newest;
                let newer = |slot: u32| self.places[slot as usize].newer;
                let next = move |&slot: &u32| (slot != newest).then(|| newer(slot));
                std::iter::successors(Some(newer(newest)), next).map(Slot)
            })
    }
}

impl ClassicPolicy for Lfu {
    const NAME: &'static str = "lfu";
    const SUMMARY: &'static str =
        "evicts the least often selected since it was loaded, then the least recently";
    /// The count and the time of the last access, which the lists only keep in order.
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Lfu::empty(shape.slots))
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let Place { older, node: at, .. } = self.places[slot.index()];
        let Node { count, larger, .. } = self.nodes[at as usize];
        let alone = older == slot.0;
        if alone && (larger == ENDS || self.nodes[larger as usize].count > count + 1) {
            // It may keep its node, which counts one more.
            self.node(at).count += 1;
            return;
        }
        // A node that empties hands over to the one below it.
        let smaller = if alone { self.nodes[at as usize].smaller } else { at };
        self.unlink(slot);
        self.link_newest(slot, smaller, count + 1);
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let victim = self.ascending().find(|&slot| !pins.holds(slot));
        let victim = victim.expect("an evictable slot has a count");
        self.unlink(victim);
        victim
    }

    #[inline(always)]
    fn replace(&mut self, _: BlockId, _: &[BlockId]) -> Slot {
        let least = self.nodes[ENDS as usize].larger;
        let Node { count, newest, .. } = self.nodes[least as usize];
        let victim = Slot(self.places[newest as usize].newer);
        if count == 1 {
            // The oldest becomes the newest.
            self.node(least).newest = victim.0;
        } else {
            self.unlink(victim);
            self.link_newest(victim, ENDS, 1);
        }
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        self.link_newest(slot, ENDS, 1);
    }

    fn resize(&mut self, kept: &[Slot]) {
        let order: Vec<(Slot, u32)> = self
            .ascending()
            .map(|slot| (slot, self.nodes[self.places[slot.index()].node as usize].count))
            .collect();
        let mut now_at = vec![Slot::NONE; self.places.len()];
        let filled = kept.iter().enumerate().filter(|(_, from)| **from != Slot::NONE);
        filled.for_each(|(to, from)| now_at[from.index()] = Slot::at(to));
        *self = Lfu::empty(u32::try_from(kept.len()).expect("a buffer has fewer than 2^32 slots"));
        for (from, count) in order {
            // The largest count so far stands before the end of the ring.
            let (to, last) = (now_at[from.index()], self.nodes[ENDS as usize].smaller);
            let below = if self.nodes[last as usize].count == count {
                self.nodes[last as usize].smaller
            } else {
                last
            };
            self.link_newest(to, below, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_count_rules_and_recency_breaks_ties() {
        let mut bench = Bench::new("lfu", 3, 9);
        bench.step(&[0]);
        bench.step(&[0]);
        bench.step(&[1]);
        bench.step(&[2]);
        assert_eq!(bench.step(&[3]).victims(), [1], "1 and 2 were used once, 1 longer ago");
        assert_eq!(bench.step(&[1]).victims(), [2], "3 is newer; 0 was used twice");
        assert_eq!(bench.step(&[3, 2]).victims(), [1], "1 restarted at one; 3 is pinned");
    }
}
