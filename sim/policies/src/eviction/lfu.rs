//! LFU: evicts the block selected least often since it was loaded; among equals the least recently selected.
//!
//! The count is one when a block is loaded and restarts with every load. A prefetched or newly filled block also
//! starts at one. Total order: (count, recency); within a step worse ranks are older.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

const NIL: u32 = u32::MAX;

/// Least frequently used: one recency list per count, and a bitmap of the counts in use.
pub struct Lfu {
    /// Count of each slot; zero until it is first filled.
    count: Vec<u32>,
    /// `[newer, older]` within the slot's count.
    links: Vec<[u32; 2]>,
    /// `[newest, oldest]` slot of each count.
    ends: Vec<[u32; 2]>,
    /// One bit per count that has slots.
    used: Vec<u64>,
}

impl Lfu {
    fn unlink(&mut self, slot: usize) {
        let count = self.count[slot] as usize;
        let [newer, older] = self.links[slot];
        match newer {
            NIL => self.ends[count][0] = older,
            newer => self.links[newer as usize][1] = older,
        }
        match older {
            NIL => self.ends[count][1] = newer,
            older => self.links[older as usize][0] = newer,
        }
        if self.ends[count][0] == NIL {
            self.used[count / 64] &= !(1 << (count % 64));
        }
    }

    fn link_newest(&mut self, slot: Slot, count: u32) {
        let at = count as usize;
        if at >= self.ends.len() {
            let counts = (at + 1).next_power_of_two().max(64);
            self.ends.resize(counts, [NIL; 2]);
            self.used.resize(counts / 64, 0);
        }
        let newest = self.ends[at][0];
        self.links[slot.index()] = [NIL, newest];
        match newest {
            NIL => self.ends[at][1] = slot.0,
            newest => self.links[newest as usize][0] = slot.0,
        }
        self.ends[at][0] = slot.0;
        self.used[at / 64] |= 1 << (at % 64);
        self.count[slot.index()] = count;
    }

    fn set_count(&mut self, slot: Slot, count: u32) {
        if self.count[slot.index()] != 0 {
            self.unlink(slot.index());
        }
        self.link_newest(slot, count);
    }

    /// Slots from the least used to the most, older first within a count.
    fn ascending(&self) -> impl Iterator<Item = Slot> + '_ {
        let counts = self.used.iter().enumerate().flat_map(|(word, &bits)| {
            std::iter::successors(Some(bits), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|&rest| rest != 0)
                .map(move |rest| word * 64 + rest.trailing_zeros() as usize)
        });
        counts.flat_map(move |count| {
            let mut at = self.ends[count][1];
            std::iter::from_fn(move || {
                let slot = (at != NIL).then_some(Slot(at))?;
                at = self.links[slot.index()][0];
                Some(slot)
            })
        })
    }
}

impl EvictionPolicy for Lfu {
    const NAME: &'static str = "lfu";
    const SUMMARY: &'static str =
        "evicts the least often selected since it was loaded, then the least recently";
    const STATE: StateClass = StateClass { per_slot: 12, per_block: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let slots = shape.slots as usize;
        let counts = 1024;
        Ok(Lfu {
            count: vec![0; slots],
            links: vec![[NIL; 2]; slots],
            ends: vec![[NIL; 2]; counts],
            used: vec![0; counts / 64],
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        out.extend(self.ascending().filter(|&slot| !view.pins.holds(slot)).take(need));
    }

    fn touch(&mut self, view: &StepView<'_>) {
        let mut misses = view.misses.iter().rev().copied().peekable();
        for (rank, &slot) in view.slots.iter().enumerate().rev() {
            let loaded = misses.next_if(|&miss| miss as usize == rank).is_some();
            let count = if loaded { 1 } else { self.count[slot.index()].saturating_add(1) };
            self.set_count(slot, count);
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.set_count(slot, 1);
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
