//! GDSF: priority is frequency times cost plus an inflation that follows the victims, so that old popularity fades.
//! L. Cherkasova, "Improving WWW proxies performance with greedy-dual-size-frequency caching policy", HP Laboratories
//! report HPL-98-69R1, 1998, <https://www.hpl.hp.com/techreports/98/HPL-98-69R1.html>.
//!
//! Blocks of a stream have one size, so only costs differ: `host`, `cxl` or `nvme`, by the home tier that a block came
//! from when it was loaded. A block that moves to another tier while it is resident keeps the cost it came with. With all
//! homes in host memory every cost is `host` and only the frequency since loading counts. Room is made before the block
//! enters (libCacheSim lets it enter first, so that it may leave at once; here the selection is pinned). Total order:
//! (priority, recency), which is unique.

use super::classic::ClassicPolicy;
use super::lazy_heap::{LazyHeap, priority};
use super::{BufferShape, Pins, StateClass};
use crate::PolicyError;
use crate::demotion::Tier;
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`Gdsf`]: what a block costs to bring, by the tier of its home.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GdsfParams {
    /// From host memory; at least 1.
    pub host: u16,
    /// From CXL memory; at least as much.
    pub cxl: u16,
    /// From NVMe; at least as much.
    pub nvme: u16,
}

impl Default for GdsfParams {
    fn default() -> Self {
        GdsfParams { host: 1, cxl: 1, nvme: 2 }
    }
}

/// Frequency times cost, with inflation.
pub struct Gdsf {
    costs: [u32; 3],
    order: LazyHeap,
    /// Inflation when the slot was filled or hit last, plus frequency times cost.
    value: Vec<u32>,
    count: Vec<u32>,
    cost: Vec<u32>,
    /// Value of the last victim.
    inflation: u32,
    now: u32,
}

impl Gdsf {
    /// What the block in the slot is worth now.
    #[inline(always)]
    fn appraise(&mut self, slot: Slot) -> u64 {
        let worth = self.count[slot.index()].saturating_mul(self.cost[slot.index()]);
        self.value[slot.index()] = self.inflation.saturating_add(worth);
        priority(self.value[slot.index()], self.now)
    }
}

impl ClassicPolicy for Gdsf {
    const NAME: &'static str = "gdsf";
    const SUMMARY: &'static str =
        "frequency times the cost of bringing, plus an inflation that follows the victims";
    const READS_HOMES: bool = true;
    /// Count, value and the time of the last access; two bits of the count are the tier.
    const STATE: StateClass = StateClass { per_slot: 12, per_block: 0, per_stream: 0 };
    type Params = GdsfParams;

    fn new(params: GdsfParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let GdsfParams { host, cxl, nvme } = params;
        if host == 0 || cxl < host || nvme < cxl {
            let message = format!(
                "costs {host}, {cxl}, {nvme}; give at least 1 for host, and no tier less than the one above"
            );
            return Err(PolicyError::Params { field: "hot.params", message });
        }
        let slots = shape.slots as usize;
        Ok(Gdsf {
            costs: [host, cxl, nvme].map(u32::from),
            order: LazyHeap::new(shape.slots),
            value: vec![0; slots],
            count: vec![0; slots],
            cost: vec![0; slots],
            inflation: 0,
            now: 0,
        })
    }

    #[inline]
    fn on_hit(&mut self, slot: Slot) {
        self.now += 1;
        self.count[slot.index()] += 1;
        let priority = self.appraise(slot);
        self.order.raise(slot, priority);
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
        self.cost[slot.index()] = self.costs[Tier::Host as usize];
        let priority = self.appraise(slot);
        self.order.add(slot, priority);
    }

    fn brought_from(&mut self, slot: Slot, tier: Tier) {
        let cost = self.costs[tier as usize];
        if cost == self.cost[slot.index()] {
            return;
        }
        // No tier costs less than host, so the priority only grows; the time of the access stays.
        self.cost[slot.index()] = cost;
        let worth = self.count[slot.index()].saturating_mul(cost);
        self.value[slot.index()] = self.inflation.saturating_add(worth);
        self.order.raise_major(slot, self.value[slot.index()]);
    }
}

#[cfg(test)]
mod tests {
    use crate::demotion::Tier;
    use crate::eviction::{BufferShape, EVICTION, find};
    use crate::home::testing::Home;
    use crate::residency::testing::Bench;
    use kvtier_units::Seed;

    #[test]
    fn inflation_lets_old_popularity_fade() {
        let mut bench = Bench::new("gdsf", 2, 9);
        [0, 0, 0, 1].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[2]).victims(), [1], "0 has 3, 1 has 1; inflation becomes 1");
        assert_eq!(bench.step(&[3]).victims(), [2], "2 has 2; inflation becomes 2");
        assert_eq!(bench.step(&[4]).victims(), [0], "3 has 3 as well, but 0 is older");
    }

    #[test]
    fn what_comes_from_nvme_is_worth_more() {
        let victims = |params: &str| {
            let mut bench = Bench::with_params("gdsf", &params.parse().unwrap(), 2, 9);
            let mut home = Home::new("age", "", [8, 0, 8]);
            home.admit(9);
            assert_eq!((home.tier(0), home.tier(1)), (Tier::Nvme, Tier::Host), "host has room for eight");
            bench.home = Some(home);
            [0, 1, 1].into_iter().for_each(|block| drop(bench.step(&[block])));
            bench.step(&[2]).victims()
        };
        assert_eq!(victims("nvme = 1"), [0], "0 has 1, 1 has 2");
        assert_eq!(victims("nvme = 2"), [0], "0 has 2 as well, but is older");
        assert_eq!(victims("nvme = 3"), [1], "0 has 3");
        let refused = "host = 2\ncxl = 1".parse().unwrap();
        let shape = BufferShape { slots: 2, blocks: 9, k: 2, seed: Seed(1) };
        let error = find(EVICTION, "gdsf").unwrap().build(&refused, shape).err().unwrap();
        assert!(error.to_string().contains("hot.params"), "{error}");
    }
}
