//! The decision log hash: two runs decided alike exactly when their hashes agree.
//!
//! The record of one stream's step is a sequence of little-endian u32 words:
//! step; newest (0 or 1); n and the slots of the selection in rank order; n and the loads in rank order, each
//! (block, slot, victim, source); n and the prefetches after the step likewise; n (0 or 1) and the growth likewise; where
//! there are any, n and the prefetches ahead of the look-up likewise. Absent blocks are 0xffffffff; sources are 0 home in
//! host memory, 1 warm, 2 grown, 3 CXL, 4 NVMe. A change of a buffer's size before a step has a record of its own: step; 2;
//! the new slots; n and the blocks that left; n and the moves, each (from, to). A stream's hash after a step is xxh3-64 of
//! that record,
//! seeded with its hash before (0 at the start). A request's hash is xxh3-64 of its streams' hashes in
//! stream order (layer-major), as little-endian u64; the run's hash is xxh3-64 of the hashes of all requests in
//! admission order, followed by the hash of the warm pages (0 without them), whose record per layer is: step,
//! layer, n and the removed (table, block), n and the inserted (table, block), n and the evicted (table, block).
//! Where there are home tiers below host, their hash follows; their record per step is: step, n and the blocks placed or
//! moved in order, each (table, block, from, to), with tiers 0 host, 1 CXL, 2 NVMe, and 3 for a block that is new.

use crate::{Fill, Resized, StreamPlan};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Builds records in one reused buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    words: Vec<u32>,
}

impl Recorder {
    /// The stream's hash after `plan`, given the hash before.
    pub(crate) fn stream_step(&mut self, before: u64, step: u32, plan: &StreamPlan) -> u64 {
        self.words.clear();
        self.words.extend([step, u32::from(plan.newest), count(plan.slots.len())]);
        self.words.extend(plan.slots.iter().map(|slot| slot.0));
        self.fills(&plan.loads);
        self.fills(&plan.prefetches);
        self.fills(plan.growth.as_slice());
        if !plan.ahead.is_empty() {
            self.fills(&plan.ahead);
        }
        self.hash(before)
    }

    /// The stream's hash after its buffer changed its size before `step`, given the hash before.
    pub(crate) fn stream_resize(&mut self, before: u64, step: u32, resized: &Resized) -> u64 {
        self.words.clear();
        self.words.extend([step, 2, resized.slots, count(resized.evicted.len())]);
        self.words.extend(resized.evicted.iter().map(|block| block.0));
        self.words.push(count(resized.moved.len()));
        self.words.extend(resized.moved.iter().flat_map(|&(from, to)| [from.0, to.0]));
        self.hash(before)
    }

    fn fills(&mut self, fills: &[Fill]) {
        self.words.push(count(fills.len()));
        for fill in fills {
            self.words.extend([fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32]);
        }
    }

    /// The pool's hash after one layer, given the hash before.
    pub(crate) fn pool_layer(
        &mut self,
        before: u64,
        step: u32,
        layer: u32,
        lists: [&[(u32, u32)]; 3],
    ) -> u64 {
        self.words.clear();
        self.words.extend([step, layer]);
        for list in lists {
            self.words.push(count(list.len()));
            self.words.extend(list.iter().flat_map(|&(table, block)| [table, block]));
        }
        self.hash(before)
    }

    /// The home tiers' hash after one step, given the hash before.
    pub(crate) fn home_step(&mut self, before: u64, step: u32, moved: &[[u32; 4]]) -> u64 {
        self.words.clear();
        self.words.extend([step, count(moved.len())]);
        self.words.extend(moved.iter().flatten());
        self.hash(before)
    }

    fn hash(&mut self, before: u64) -> u64 {
        if cfg!(target_endian = "big") {
            self.words.iter_mut().for_each(|word| *word = word.to_le());
        }
        xxh3_64_with_seed(bytemuck::cast_slice(&self.words), before)
    }
}

/// xxh3-64 of a sequence of hashes, as little-endian u64.
pub(crate) fn combine(hashes: impl Iterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = hashes.flat_map(u64::to_le_bytes).collect();
    xxh3_64(&bytes)
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("a step's lists have fewer than 2^32 items")
}
