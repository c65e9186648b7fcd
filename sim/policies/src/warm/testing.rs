//! A bench on which hand-worked traces of admission run: one stream under lru, and the warm pages behind it.

use super::WarmPool;
use crate::admission::{self, ADMISSION, Entry};
use crate::eviction::{self, BufferShape, EVICTION};
use crate::shared::StreamTables;
use crate::{Below, HotBuffer, Selection, StreamPlan};
use kvtier_units::{BlockId, Seed, Slot};

/// Blocks that the context can hold.
const BLOCKS: u32 = 64;

pub(crate) struct Pages {
    entry: Entry,
    buffer: Box<dyn HotBuffer>,
    pool: WarmPool,
    tables: StreamTables,
    now: u32,
}

impl Pages {
    pub(crate) fn new(policy: &str, params: &str, slots: u32, frames: usize) -> Pages {
        let entry = *admission::find(ADMISSION, policy).unwrap();
        let mut pool = WarmPool::new(frames, entry.build(&params.parse().unwrap(), frames).unwrap());
        let shape = BufferShape { slots, blocks: BLOCKS, k: slots, seed: Seed(0) };
        let buffer = eviction::find(EVICTION, "lru").unwrap().build(&toml::Table::new(), shape).unwrap();
        Pages { entry, buffer, tables: pool.open_stream(BLOCKS, slots, None), pool, now: 0 }
    }

    pub(crate) fn step(&mut self, blocks: &[u32]) -> StreamPlan {
        self.step_near(blocks, &[])
    }

    pub(crate) fn step_near(&mut self, blocks: &[u32], near: &[u32]) -> StreamPlan {
        let [blocks, near] = [blocks, near].map(|ids| ids.iter().copied().map(BlockId).collect::<Vec<_>>());
        let selection = Selection {
            blocks: &blocks,
            scores: &[],
            near: &near,
            newest: false,
            grown: None,
            foresight: None,
        };
        let mut plan = StreamPlan::default();
        let below = Below { warm: self.pool.look_up(&self.tables), ..Below::HOST };
        self.buffer.step(self.now, &selection, None, below, &mut plan);
        let near: Vec<Slot> = match self.entry.reads_near {
            true => near.iter().map(|&block| self.buffer.slot_of(block)).collect(),
            false => Vec::new(),
        };
        self.pool.take(&self.tables, &mut plan);
        self.pool.receive(&self.tables, self.now, &near, &mut plan);
        self.pool.settle(self.now, 0);
        self.now += 1;
        plan
    }

    /// Blocks among the warm pages, ascending.
    pub(crate) fn warm(&self) -> Vec<u32> {
        (0..BLOCKS).filter(|&block| self.pool.look_up(&self.tables).holds(BlockId(block))).collect()
    }
}
