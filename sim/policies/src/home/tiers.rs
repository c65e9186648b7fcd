//! The home tiers block by block: host, CXL and NVMe, and what moves between them. In use where demotion is; otherwise
//! the ledger in `home.rs` is all there is.
//!
//! Every full block has its home in exactly one tier; a block of a shared prefix has it once. A new block enters host,
//! or the first tier below with room. At a step's start each tier above its high watermark begins to move blocks down, in
//! the policy's order, into the nearest tier below with room, at most `batch` blocks a step, until it is at its low
//! watermark; lower tiers go first, to make room. An admission may overfill host until the policy has moved down what is
//! over, old blocks or the new ones (oldest position first among those of which nothing else is known). With `promote`
//! a block brought from below moves to host, while host has room.

use crate::PolicyError;
use crate::demotion::{Choice, Descent, HomeId, Tier};
use crate::hash::Recorder;
use crate::shared::StreamTables;
use crate::{Moves, Source};
use kvtier_units::BlockId;

/// A block that is not at home.
const ABSENT: u32 = u32::MAX;
/// Where a new block comes from, in the record.
const NEW: u32 = 3;

/// The tiers below host, and how blocks get there.
#[derive(Clone, Debug, Default)]
pub struct TierConfig {
    /// Bytes of the CXL pool; zero for none.
    pub cxl: u64,
    /// Bytes of the NVMe pool; zero for none.
    pub nvme: u64,
    /// The order in which blocks move down.
    pub demotion: Choice,
    /// Percent of a pool above which it begins to move blocks down.
    pub high: u32,
    /// Percent of a pool at which it stops.
    pub low: u32,
    /// Blocks that one tier moves down in one step, at most; admissions move what they must.
    pub batch: u32,
    /// Whether a block brought from below moves to host.
    pub promote: bool,
}

impl TierConfig {
    /// The tiers, where there are any below host.
    ///
    /// # Errors
    /// If pools and policy do not go together, or a parameter is out of range.
    pub(crate) fn build(&self, host: u64, block_bytes: u64) -> Result<Option<HomeTiers>, PolicyError> {
        let below = self.cxl + self.nvme > 0;
        let conflict = |field, message: &str| Err(PolicyError::Conflict { field, message: message.into() });
        let Some(descent) = self.demotion.build()? else {
            if below {
                let message =
                    "`none` moves nothing to cxl.pool or nvme.pool; set \"age\" or \"utility\", or drop them";
                return conflict("demotion.policy", message);
            }
            return Ok(None);
        };
        if !below {
            let message = format!(
                "`{}` has no tier below host; set cxl.pool or nvme.pool, or demotion.policy = \"none\"",
                self.demotion.entry.name
            );
            return conflict("demotion.policy", &message);
        }
        if self.high > 100 || self.low > self.high {
            let message = format!(
                "{} to {} percent; the low watermark is at most the high one, and that at most 100",
                self.low, self.high
            );
            return conflict("demotion.low", &message);
        }
        if self.batch == 0 {
            return conflict("demotion.batch", "0 blocks a step move nothing; give at least 1");
        }
        let capacity = [host, self.cxl, self.nvme].map(|bytes| bytes / block_bytes);
        Ok(Some(HomeTiers::new(capacity, self, descent)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Lodging {
    table: u32,
    block: u32,
    tier: Tier,
}

/// Where one stream's blocks have their homes: its shared prefix in the group's table, the rest in its own.
#[derive(Clone, Copy, Debug)]
pub struct HomeLookup<'a> {
    lodgings: &'a [Lodging],
    prefix: &'a [u32],
    own: &'a [u32],
}

impl HomeLookup<'_> {
    /// Every block in host memory.
    pub const HOST: HomeLookup<'static> = HomeLookup { lodgings: &[], prefix: &[], own: &[] };

    /// Where a block has its home: host, where it has not entered yet.
    pub fn tier(&self, block: BlockId) -> Tier {
        let table = if block.index() < self.prefix.len() { self.prefix } else { self.own };
        let id = table.get(block.index()).filter(|&&id| id != ABSENT);
        id.map_or(Tier::Host, |&id| self.lodgings[id as usize].tier)
    }
}

/// The home of every full block.
pub(crate) struct HomeTiers {
    /// Blocks that each tier can hold.
    capacity: [u64; 3],
    used: [u64; 3],
    high: [u64; 3],
    low: [u64; 3],
    batch: u32,
    promote: bool,
    /// Whether a tier has been above its high watermark and not yet at its low one since.
    draining: [bool; 3],
    descent: Box<dyn Descent>,
    lodgings: Vec<Lodging>,
    free: Vec<u32>,
    /// Per stream, or prefix group's stream: the id of each block.
    tables: Vec<Vec<u32>>,
    free_tables: Vec<u32>,
    /// Per table, whether it was opened for the admission under way.
    arriving: Vec<bool>,
    /// Moves that were not asked for yet.
    moves: Moves,
    /// Blocks that spilled at admission and were not asked for yet.
    spilled: u64,
    /// Words of the record of this step: (table, block, from, to) each; a new block comes from `NEW`.
    log: Vec<[u32; 4]>,
    hash: u64,
    recorder: Recorder,
}

impl HomeTiers {
    fn new(capacity: [u64; 3], config: &TierConfig, descent: Box<dyn Descent>) -> HomeTiers {
        let mark = |percent: u32| capacity.map(|blocks| blocks * u64::from(percent) / 100);
        HomeTiers {
            capacity,
            used: [0; 3],
            high: mark(config.high),
            low: mark(config.low),
            batch: config.batch,
            promote: config.promote,
            draining: [false; 3],
            descent,
            lodgings: Vec::new(),
            free: Vec::new(),
            tables: Vec::new(),
            free_tables: Vec::new(),
            arriving: Vec::new(),
            moves: Moves::default(),
            spilled: 0,
            log: Vec::new(),
            hash: 0,
            recorder: Recorder::default(),
        }
    }

    /// Blocks in each tier.
    pub(crate) fn used(&self) -> [u64; 3] {
        self.used
    }

    /// Blocks that all tiers hold together.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.iter().sum()
    }

    /// Hash of all that was placed and moved.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A table for `blocks` blocks.
    pub(crate) fn open_table(&mut self, blocks: u32) -> u32 {
        let table = vec![ABSENT; blocks as usize];
        match self.free_tables.pop() {
            Some(id) => {
                self.tables[id as usize] = table;
                self.arriving[id as usize] = true;
                id
            }
            None => {
                self.tables.push(table);
                self.arriving.push(true);
                u32::try_from(self.tables.len() - 1).expect("fewer than 2^32 streams")
            }
        }
    }

    /// Frees all blocks of a table, and the table.
    pub(crate) fn close_table(&mut self, id: u32) {
        for block in std::mem::take(&mut self.tables[id as usize]) {
            if block != ABSENT {
                let tier = self.lodgings[block as usize].tier;
                self.descent.leave(HomeId(block), tier);
                self.used[tier as usize] -= 1;
                self.free.push(block);
            }
        }
        self.free_tables.push(id);
    }

    /// The homes of a stream's blocks as they are now.
    pub(crate) fn look_up(&self, tables: &StreamTables) -> HomeLookup<'_> {
        let prefix =
            tables.prefix.map_or(&[][..], |id| &self.tables[id as usize][..tables.prefix_blocks as usize]);
        HomeLookup { lodgings: &self.lodgings, prefix, own: &self.tables[tables.own as usize] }
    }

    /// Gives a block that has none a home in host, whatever room there is.
    pub(crate) fn settle(&mut self, tables: &StreamTables, block: BlockId) {
        let table = tables.home_of(block);
        if self.tables[table as usize][block.index()] == ABSENT {
            self.create(table, block, Tier::Host);
        }
    }

    /// Moves down what host and CXL hold beyond their capacity, after an admission. Blocks of the tables that it opened
    /// are only now written to where they end up: they spill, and do not move.
    pub(crate) fn fit(&mut self) {
        for tier in [Tier::Host, Tier::Cxl] {
            while self.used[tier as usize] > self.capacity[tier as usize] {
                let id = self.descent.next(tier).expect("a tier above its capacity holds a block");
                let to = self.below(tier).expect("the ledger admits no more than all tiers hold");
                if self.arriving[self.lodgings[id.index()].table as usize] {
                    self.spilled += u64::from(tier == Tier::Host);
                    self.shift(id, to);
                } else {
                    self.move_down(id, tier, to);
                }
            }
        }
        self.arriving.fill(false);
    }

    /// Begins a step: what the watermarks ask for moves down.
    pub(crate) fn begin_step(&mut self, step: u32) {
        self.descent.begin_step(step);
        for tier in [Tier::Cxl, Tier::Host] {
            let at = tier as usize;
            self.draining[at] |= self.used[at] > self.high[at];
            self.draining[at] &= self.used[at] > self.low[at];
            for _ in 0..self.batch {
                let Some(to) = self.below(tier).filter(|_| self.draining[at]) else { break };
                let id = self.descent.next(tier).expect("a tier above its watermark holds a block");
                self.move_down(id, tier, to);
                self.draining[at] = self.used[at] > self.low[at];
            }
        }
    }

    /// A block is brought from its home to a hot buffer. Whether it moved up to host.
    pub(crate) fn fetch(&mut self, tables: &StreamTables, block: BlockId) -> bool {
        self.settle_within(tables, block);
        let id = HomeId(self.tables[tables.home_of(block) as usize][block.index()]);
        let from = self.lodgings[id.index()].tier;
        self.descent.demand(id, from);
        let rises = self.promote && from != Tier::Host && self.used[0] < self.capacity[0];
        if rises {
            self.moves.add(from, Tier::Host);
            self.shift(id, Tier::Host);
        }
        rises
    }

    /// Gives a block that has none a home in the first tier with room. Whether that is below host.
    pub(crate) fn settle_within(&mut self, tables: &StreamTables, block: BlockId) -> bool {
        let table = tables.home_of(block);
        if self.tables[table as usize][block.index()] != ABSENT {
            return false;
        }
        let room = |tier: &Tier| self.used[*tier as usize] < self.capacity[*tier as usize];
        let tier = Tier::ALL.into_iter().find(room).expect("the ledger admits no more than all tiers hold");
        self.create(table, block, tier);
        if tier != Tier::Host {
            self.moves.add(Tier::Host, tier);
        }
        tier != Tier::Host
    }

    /// Moves since this was last asked.
    pub(crate) fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    /// New blocks that admissions sent straight below host since this was last asked.
    pub(crate) fn take_spilled(&mut self) -> u64 {
        std::mem::take(&mut self.spilled)
    }

    /// Ends a step: its record enters the hash.
    pub(crate) fn end_step(&mut self, step: u32) {
        self.hash = self.recorder.home_step(self.hash, step, &self.log);
        self.log.clear();
    }

    fn move_down(&mut self, id: HomeId, from: Tier, to: Tier) {
        self.moves.add(from, to);
        self.shift(id, to);
    }

    /// Moves one block down, whatever the watermarks say.
    #[cfg(test)]
    pub(super) fn push_out(&mut self, tier: Tier) {
        let id = self.descent.next(tier).expect("the tier holds a block");
        let to = self.below(tier).expect("there is room below");
        self.move_down(id, tier, to);
    }

    /// The nearest tier below with room.
    fn below(&self, tier: Tier) -> Option<Tier> {
        let room = |to: &Tier| *to > tier && self.used[*to as usize] < self.capacity[*to as usize];
        Tier::ALL.into_iter().find(room)
    }

    fn create(&mut self, table: u32, block: BlockId, tier: Tier) {
        let lodging = Lodging { table, block: block.0, tier };
        let id = match self.free.pop() {
            Some(id) => {
                self.lodgings[id as usize] = lodging;
                id
            }
            None => {
                self.lodgings.push(lodging);
                u32::try_from(self.lodgings.len() - 1).expect("fewer than 2^32 blocks at home")
            }
        };
        self.tables[table as usize][block.index()] = id;
        self.used[tier as usize] += 1;
        self.descent.create(HomeId(id));
        self.descent.enter(HomeId(id), tier);
        self.log.push([table, block.0, NEW, tier as u32]);
    }

    fn shift(&mut self, id: HomeId, to: Tier) {
        let Lodging { table, block, tier: from } = self.lodgings[id.index()];
        self.descent.leave(id, from);
        self.descent.enter(id, to);
        self.lodgings[id.index()].tier = to;
        self.used[from as usize] -= 1;
        self.used[to as usize] += 1;
        self.log.push([table, block, from as u32, to as u32]);
    }
}

impl From<Tier> for Source {
    fn from(tier: Tier) -> Source {
        match tier {
            Tier::Host => Source::Home,
            Tier::Cxl => Source::Cxl,
            Tier::Nvme => Source::Nvme,
        }
    }
}
