//! A bench on which hand-worked traces run: one buffer, one policy, selections as plain numbers.

use super::*;
use crate::Foresight;
use crate::eviction::{self, EVICTION};
use crate::home::testing::Home;
use crate::prefetch::{self, PrefetchShape};
use kvtier_units::Seed;

pub(crate) struct Bench {
    buffer: Box<dyn HotBuffer>,
    future: Vec<Vec<u32>>,
    now: usize,
    pub(crate) near: Vec<BlockId>,
    pub(crate) scores: Vec<u16>,
    pub(crate) newest: bool,
    pub(crate) grown: Option<BlockId>,
    pub(crate) prefetch: Option<(Box<dyn Prefetcher>, u32)>,
    /// Selections from the first step on, for a prefetcher that looks ahead.
    pub(crate) upcoming: Vec<Vec<u32>>,
    /// Where blocks have their homes; in host memory without.
    pub(crate) home: Option<Home>,
    /// Blocks that are filled by now.
    pub(crate) complete: u32,
}

fn ids(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

impl StreamPlan {
    pub(crate) fn victims(&self) -> Vec<u32> {
        self.fills().map(|fill| fill.victim).filter(|&v| v != BlockId::NONE).map(|v| v.0).collect()
    }

    /// Blocks prefetched.
    pub(crate) fn brought(&self) -> Vec<u32> {
        self.ahead.iter().chain(&self.prefetches).map(|fill| fill.block.0).collect()
    }

    /// Blocks that went for the prefetched.
    pub(crate) fn brought_for(&self) -> Vec<u32> {
        let victims = self.ahead.iter().chain(&self.prefetches).map(|fill| fill.victim);
        victims.filter(|&victim| victim != BlockId::NONE).map(|victim| victim.0).collect()
    }
}

impl Bench {
    pub(crate) fn new(policy: &str, slots: u32, blocks: u32) -> Bench {
        Bench::seeded(policy, slots, blocks, 0)
    }

    pub(crate) fn seeded(policy: &str, slots: u32, blocks: u32, seed: u64) -> Bench {
        Bench::built(policy, &toml::Table::new(), slots, blocks, seed)
    }

    pub(crate) fn with_params(policy: &str, params: &toml::Table, slots: u32, blocks: u32) -> Bench {
        Bench::built(policy, params, slots, blocks, 0)
    }

    fn built(policy: &str, params: &toml::Table, slots: u32, blocks: u32, seed: u64) -> Bench {
        let shape = BufferShape { slots, blocks, k: slots, seed: Seed(seed) };
        let entry = eviction::find(EVICTION, policy).unwrap();
        let buffer = entry.build(params, shape).unwrap();
        Bench {
            buffer,
            future: Vec::new(),
            now: 0,
            near: Vec::new(),
            scores: Vec::new(),
            newest: false,
            grown: None,
            prefetch: None,
            upcoming: Vec::new(),
            home: None,
            complete: u32::MAX,
        }
    }

    pub(crate) fn with_future(policy: &str, slots: u32, blocks: u32, steps: Vec<Vec<u32>>) -> Bench {
        Bench { future: steps, ..Bench::new(policy, slots, blocks) }
    }

    /// Prefetches by the policy of that name, as in a stream of `layer`.
    pub(crate) fn prefetcher(&mut self, name: &str, params: &str, layer: u32, budget: u32) {
        let blocks = u32::try_from(self.upcoming.iter().flatten().count()).unwrap().max(100);
        let shape = PrefetchShape { layer, blocks, k: 4 };
        let built = prefetch::find(name).unwrap().build(&params.parse().unwrap(), shape).unwrap();
        self.prefetch = Some((built.unwrap(), budget));
    }

    pub(crate) fn start(&mut self, blocks: &[u32]) {
        self.buffer.start(&ids(blocks), &[]);
    }

    pub(crate) fn mark_prefilled(&mut self, blocks: u32) {
        self.buffer.mark_prefilled(blocks);
    }

    fn next_use(&self, block: u32) -> u32 {
        let later = self.future.iter().skip(self.now + 1).position(|step| step.contains(&block));
        later.map_or(u32::MAX, |after| u32::try_from(self.now + 1 + after).unwrap())
    }

    pub(crate) fn step(&mut self, blocks: &[u32]) -> StreamPlan {
        self.step_after(&[], blocks)
    }

    /// A step before which the source layer selects `source`, if there is a prefetcher that has one.
    pub(crate) fn step_after(&mut self, source: &[u32], blocks: &[u32]) -> StreamPlan {
        let next_use: Vec<u32> = blocks.iter().map(|&block| self.next_use(block)).collect();
        let blocks = ids(blocks);
        let selection = Selection {
            blocks: &blocks,
            scores: &self.scores,
            near: &self.near,
            newest: self.newest,
            grown: self.grown,
            foresight: Some(Foresight { next_use: &next_use, grown_next_use: u32::MAX }),
        };
        let source = ids(source);
        let later: Vec<Vec<BlockId>> =
            self.upcoming.iter().skip(self.now + 1).map(|step| ids(step)).collect();
        let look = |steps: u32| later.get(steps as usize - 1).map(|blocks| &blocks[..]);
        let prefetch = self.prefetch.as_mut().map(|(prefetcher, budget)| Prefetch {
            budget: *budget,
            source: prefetcher.source().map(|_| Selection { blocks: &source, ..Selection::NOTHING }),
            upcoming: Upcoming::new(&look, self.complete),
            prefetcher: prefetcher.as_mut(),
        });
        let mut plan = StreamPlan::default();
        let step = u32::try_from(self.now).unwrap();
        let home = self.home.as_ref().map_or(HomeLookup::HOST, |home| home.tiers.look_up(&home.tables));
        let below = Below { home, ..Below::HOST };
        self.buffer.step(step, &selection, prefetch, below, &mut plan);
        self.now += 1;
        plan
    }

    pub(crate) fn resident(&self) -> Vec<u32> {
        self.buffer.blocks().iter().map(|block| block.0).collect()
    }

    pub(crate) fn unused_prefetches(&self) -> u64 {
        self.buffer.unused_prefetches()
    }
}
