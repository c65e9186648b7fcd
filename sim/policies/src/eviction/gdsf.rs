//! GDSF: priority is frequency times cost plus an inflation that follows the victims, so that old popularity fades.
//! L. Cherkasova, "Improving WWW proxies performance with greedy-dual-size-frequency caching policy", HP Laboratories
//! report HPL-98-69R1, 1998, <https://www.hpl.hp.com/techreports/98/HPL-98-69R1.html>.
//!
//! Blocks of a stream have one size, and all come from one home tier, so size and cost are one and the priority is
//! frequency since loading plus inflation. Room is made before the block enters (libCacheSim lets it enter first, so
//! that it may leave at once; here the selection is pinned). Total order: (priority, recency), which is unique.

use super::classic::ClassicPolicy;
use super::lazy_heap::{LazyHeap, priority};
use super::{BufferShape, NoParams, Pins, StateClass};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};

/// Frequency with inflation.
pub struct Gdsf {
    order: LazyHeap,
    /// Inflation when the slot was filled or hit last, plus the frequency.
    value: Vec<u32>,
    count: Vec<u32>,
    /// Value of the last victim.
    inflation: u32,
    now: u32,
}

impl ClassicPolicy for Gdsf {
    const NAME: &'static str = "gdsf";
    const SUMMARY: &'static str = "frequency plus an inflation that follows the victims";
    /// Count, value and the time of the last access.
    const STATE: StateClass = StateClass { per_slot: 12, per_block: 0, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let slots = shape.slots as usize;
        let order = LazyHeap::new(shape.slots);
        Ok(Gdsf { order, value: vec![0; slots], count: vec![0; slots], inflation: 0, now: 0 })
    }

    #[inline]
    fn on_hit(&mut self, slot: Slot) {
        self.now += 1;
        self.count[slot.index()] += 1;
        let value = self.inflation + self.count[slot.index()];
        self.value[slot.index()] = value;
        self.order.raise(slot, priority(value, self.now));
    }

    #[inline]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let (victim, _) = self.order.take_smallest(pins);
        // A pinned block below the victim may leave later: inflation never falls.
        self.inflation = self.inflation.max(self.value[victim.index()]);
        victim
    }

    #[inline]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        self.now += 1;
        self.count[slot.index()] = 1;
        self.value[slot.index()] = self.inflation + 1;
        self.order.add(slot, priority(self.value[slot.index()], self.now));
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn inflation_lets_old_popularity_fade() {
        let mut bench = Bench::new("gdsf", 2, 9);
        [0, 0, 0, 1].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[2]).victims(), [1], "0 has 3, 1 has 1; inflation becomes 1");
        assert_eq!(bench.step(&[3]).victims(), [2], "2 has 2; inflation becomes 2");
        assert_eq!(bench.step(&[4]).victims(), [0], "3 has 3 as well, but 0 is older");
    }
}
