//! A bench on which hand-worked traces of demotion run: one stream's blocks in home tiers of a few blocks each.

use super::tiers::{HomeTiers, TierConfig};
use crate::demotion::{Choice, DEMOTION, Tier, find};
use crate::shared::StreamTables;
use kvtier_units::BlockId;

/// Blocks that the context can hold.
const BLOCKS: u32 = 32;

pub(crate) struct Home {
    pub(crate) tiers: HomeTiers,
    pub(crate) tables: StreamTables,
    step: u32,
}

impl Home {
    pub(crate) fn new(policy: &str, params: &str, capacity: [u64; 3]) -> Home {
        let config = TierConfig { high: 100, low: 100, batch: 1, ..TierConfig::default() };
        Home::with(policy, params, capacity, config)
    }

    pub(crate) fn with(policy: &str, params: &str, [host, cxl, nvme]: [u64; 3], config: TierConfig) -> Home {
        let demotion = Choice { entry: *find(DEMOTION, policy).unwrap(), params: params.parse().unwrap() };
        let config = TierConfig { cxl, nvme, demotion, ..config };
        let mut tiers = config.build(host, 1).unwrap().unwrap();
        let tables = StreamTables::new(tiers.open_table(BLOCKS), None);
        Home { tiers, tables, step: 0 }
    }

    /// Admits the first so many blocks.
    pub(crate) fn admit(&mut self, blocks: u32) {
        (0..blocks).for_each(|block| self.tiers.settle(&self.tables, BlockId(block)));
        self.tiers.fit();
    }

    pub(crate) fn demand(&mut self, blocks: &[u32]) {
        for &block in blocks {
            self.tiers.fetch(&self.tables, BlockId(block));
        }
    }

    pub(crate) fn step(&mut self) {
        self.step += 1;
        self.tiers.begin_step(self.step);
    }

    pub(crate) fn tier(&self, block: u32) -> Tier {
        self.tiers.look_up(&self.tables).tier(BlockId(block))
    }

    /// Moves the next block of host down: which it was. Blocks that have not entered count as in host, so they stay out.
    pub(crate) fn demote_one(&mut self) -> u32 {
        let before: Vec<u32> = (0..BLOCKS).filter(|&block| self.tier(block) == Tier::Host).collect();
        self.tiers.push_out(Tier::Host);
        let moved: Vec<u32> = before.into_iter().filter(|&block| self.tier(block) != Tier::Host).collect();
        assert_eq!(moved.len(), 1, "one block moves down");
        moved[0]
    }
}
