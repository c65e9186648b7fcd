//! Warm pages: frames shared by all streams of a device, holding blocks that left a hot buffer.
//! Moving between hot and warm exchanges frames, so no bytes move.
//!
//! Within a layer every stream looks up against the pages as they stood at the layer's start; then come the removals
//! (blocks that went back to a hot buffer), then the insertions in (stream, victim) order, of those that the admission
//! policy lets in, then evictions, oldest insertion first. A block of a shared prefix is held once: it belongs to its
//! group's table, and a second insertion only makes it newest again. Where two streams take one page in a layer, the
//! first takes its frame and the others a copy of it, made within HBM.

use crate::admission::{Gate, Leaver, Page, Seen};
use crate::hash::Recorder;
use crate::shared::StreamTables;
use crate::{Counts, Resized, Source, StreamPlan};
use kvtier_units::{BlockId, Slot};

/// Frame of a block that is not among the warm pages.
const NOT_WARM: u32 = u32::MAX;
const NIL: u32 = u32::MAX;

/// The warm pages as one stream sees them: its shared prefix in the group's table, the rest in its own.
#[derive(Clone, Copy, Debug)]
pub struct WarmLookup<'a> {
    prefix: &'a [u32],
    own: &'a [u32],
}

impl WarmLookup<'_> {
    /// No warm pages.
    pub const NONE: WarmLookup<'static> = WarmLookup { prefix: &[], own: &[] };

    /// Whether the block is among the warm pages.
    #[inline]
    pub fn holds(&self, block: BlockId) -> bool {
        let table = if block.index() < self.prefix.len() { self.prefix } else { self.own };
        table.get(block.index()).is_some_and(|&frame| frame != NOT_WARM)
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    table: u32,
    block: u32,
    newer: u32,
    older: u32,
    /// Whether it leaves when the layer ends: one of the oldest, for which no frame is left.
    doomed: bool,
}

/// The pool of warm pages and the tables that say which blocks it holds.
pub struct WarmPool {
    capacity: usize,
    gate: Box<dyn Gate>,
    frames: Vec<Frame>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// The frame that the next insertion without a free frame dooms: the oldest that is not doomed.
    next_out: u32,
    held: usize,
    /// Per home (a stream, or a prefix group's stream): the frame of each block.
    tables: Vec<Vec<u32>>,
    free_tables: Vec<u32>,
    removed: Vec<(u32, u32)>,
    inserted: Vec<(u32, u32)>,
    evicted: Vec<(u32, u32)>,
    hash: u64,
    recorder: Recorder,
}

impl WarmPool {
    /// An empty pool of `capacity` frames, at least one, into which `gate` lets blocks.
    pub fn new(capacity: usize, gate: Box<dyn Gate>) -> WarmPool {
        WarmPool {
            capacity,
            gate,
            frames: Vec::new(),
            free: Vec::new(),
            newest: NIL,
            oldest: NIL,
            next_out: NIL,
            held: 0,
            tables: Vec::new(),
            free_tables: Vec::new(),
            removed: Vec::new(),
            inserted: Vec::new(),
            evicted: Vec::new(),
            hash: 0,
            recorder: Recorder::default(),
        }
    }

    /// Blocks held.
    pub fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The tables of a stream of `slots` slots whose context can hold `blocks` blocks.
    pub(crate) fn open_stream(
        &mut self,
        blocks: u32,
        slots: u32,
        prefix: Option<(u32, u32)>,
    ) -> StreamTables {
        let own = self.open_table(blocks);
        self.gate.open(own, slots);
        StreamTables::new(own, prefix)
    }

    /// A table for `blocks` blocks of one home.
    pub(crate) fn open_table(&mut self, blocks: u32) -> u32 {
        let table = vec![NOT_WARM; blocks as usize];
        match self.free_tables.pop() {
            Some(id) => {
                self.tables[id as usize] = table;
                id
            }
            None => {
                self.tables.push(table);
                u32::try_from(self.tables.len() - 1).expect("fewer than 2^32 streams")
            }
        }
    }

    /// Frees a home's frames and its table.
    pub(crate) fn close_table(&mut self, id: u32) {
        for frame in std::mem::take(&mut self.tables[id as usize]) {
            if frame != NOT_WARM {
                self.unlink(frame);
                self.free.push(frame);
                self.held -= 1;
            }
        }
        self.free_tables.push(id);
    }

    /// The pages as a stream sees them now.
    pub(crate) fn look_up(&self, tables: &StreamTables) -> WarmLookup<'_> {
        let prefix =
            tables.prefix.map_or(&[][..], |id| &self.tables[id as usize][..tables.prefix_blocks as usize]);
        WarmLookup { prefix, own: &self.tables[tables.own as usize] }
    }

    /// Takes out the blocks that went back to a stream's hot buffer, and tells the gate what the stream demanded.
    pub(crate) fn take(&mut self, tables: &StreamTables, plan: &mut StreamPlan) {
        let taken = plan.ahead.iter().chain(&plan.loads).chain(&plan.prefetches);
        for fill in taken.filter(|fill| fill.source == Source::Warm) {
            let table = tables.home_of(fill.block);
            self.removed.push((table, fill.block.0));
            plan.counts.warm_copies += u64::from(!self.drop_block(table, fill.block.0));
        }
        for fill in &plan.loads {
            self.gate.demand(Page { table: tables.home_of(fill.block), block: fill.block });
        }
    }

    /// Offers the blocks that left a stream's hot buffer, in victim order, and credits the stream's step. `near` are the
    /// slots of its near misses.
    pub(crate) fn receive(&mut self, tables: &StreamTables, step: u32, near: &[Slot], plan: &mut StreamPlan) {
        let mut counts = Counts::default();
        // What went for a prefetch ahead and was demanded in the same step is in the buffer again.
        let back = |victim| !plan.ahead.is_empty() && plan.loads.iter().any(|fill| fill.block == victim);
        let left = plan.fills().filter(|fill| fill.victim != BlockId::NONE && !back(fill.victim));
        let mut rejected = Vec::new(); // without a gate that rejects, never allocated
        for fill in left {
            if !self.offer(tables, step, fill.victim, fill.slot, &mut counts) {
                rejected.push(fill.victim);
            }
        }
        plan.rejected = rejected;
        plan.counts += counts;
        self.gate.credit(&Seen { step, stream: tables.own, plan, near });
    }

    /// Offers the blocks that left a stream's hot buffer as it changed its size. Returns who entered and who did not.
    pub(crate) fn receive_resized(&mut self, tables: &StreamTables, step: u32, resized: &Resized) -> Counts {
        let mut counts = Counts::default();
        for (&block, &slot) in resized.evicted.iter().zip(&resized.left) {
            self.offer(tables, step, block, slot, &mut counts);
        }
        self.gate.resize(tables.own, resized.slots, &resized.moved);
        counts
    }

    /// Whether the block entered.
    fn offer(
        &mut self,
        tables: &StreamTables,
        step: u32,
        block: BlockId,
        slot: Slot,
        counts: &mut Counts,
    ) -> bool {
        let page = Page { table: tables.home_of(block), block };
        let held = self.tables[page.table as usize][block.index()] != NOT_WARM;
        let leaver = Leaver { stream: tables.own, slot, step, page, rival: self.rival() };
        let enters = held || self.gate.admits(&leaver);
        if enters {
            self.insert(page);
            counts.warm_insertions += 1;
        } else {
            counts.warm_rejected += 1;
        }
        enters
    }

    /// The block that an insertion now would push out; none while a frame is free.
    fn rival(&self) -> Option<Page> {
        let frame = (self.held >= self.capacity).then(|| &self.frames[self.next_out as usize]);
        frame.map(|frame| Page { table: frame.table, block: BlockId(frame.block) })
    }

    fn insert(&mut self, page: Page) {
        let (table, block) = (page.table, page.block.0);
        self.inserted.push((table, block));
        let again = self.tables[table as usize][block as usize];
        if again != NOT_WARM && self.frames[again as usize].doomed {
            self.doom_next(); // in its place
        }
        self.drop_block(table, block);
        self.push_newest(table, block);
        if again == NOT_WARM && self.held > self.capacity {
            self.doom_next();
        }
    }

    fn doom_next(&mut self) {
        let frame = &mut self.frames[self.next_out as usize];
        frame.doomed = true;
        self.next_out = frame.newer;
    }

    /// Ends a layer: the oldest leave until the rest fits. Returns how many.
    pub(crate) fn settle(&mut self, step: u32, layer: u32) -> u64 {
        while self.held > self.capacity {
            let oldest = self.frames[self.oldest as usize];
            assert!(oldest.doomed, "only what was announced to the gate as pushed out leaves");
            self.drop_block(oldest.table, oldest.block);
            self.evicted.push((oldest.table, oldest.block));
        }
        self.hash =
            self.recorder.pool_layer(self.hash, step, layer, [&self.removed, &self.inserted, &self.evicted]);
        let evictions = self.evicted.len() as u64;
        self.removed.clear();
        self.inserted.clear();
        self.evicted.clear();
        evictions
    }

    /// Frees the block's frame; false where it has none.
    fn drop_block(&mut self, table: u32, block: u32) -> bool {
        let entry = &mut self.tables[table as usize][block as usize];
        let frame = std::mem::replace(entry, NOT_WARM);
        if frame != NOT_WARM {
            self.unlink(frame);
            self.free.push(frame);
            self.held -= 1;
        }
        frame != NOT_WARM
    }

    fn push_newest(&mut self, table: u32, block: u32) {
        let frame = Frame { table, block, newer: NIL, older: self.newest, doomed: false };
        let id = match self.free.pop() {
            Some(id) => {
                self.frames[id as usize] = frame;
                id
            }
            None => {
                self.frames.push(frame);
                u32::try_from(self.frames.len() - 1).expect("fewer than 2^32 warm pages")
            }
        };
        match self.newest {
            NIL => self.oldest = id,
            newest => self.frames[newest as usize].newer = id,
        }
        self.newest = id;
        if self.next_out == NIL {
            self.next_out = id;
        }
        self.tables[table as usize][block as usize] = id;
        self.held += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Frame { newer, older, .. } = self.frames[id as usize];
        if self.next_out == id {
            self.next_out = newer;
        }
        match newer {
            NIL => self.newest = older,
            newer => self.frames[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.frames[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{ADMISSION, find};

    fn pool(frames: usize) -> WarmPool {
        let always = find(ADMISSION, "always").unwrap().build(&toml::Table::new(), frames).unwrap();
        WarmPool::new(frames, always)
    }

    fn contents(pool: &WarmPool, tables: &StreamTables) -> Vec<u32> {
        (0..8).filter(|&block| pool.look_up(tables).holds(BlockId(block))).collect()
    }

    fn insert(pool: &mut WarmPool, tables: &StreamTables, blocks: &[u32]) {
        for &block in blocks {
            pool.insert(Page { table: tables.home_of(BlockId(block)), block: BlockId(block) });
        }
    }

    #[test]
    fn a_layer_settles_in_order_and_the_oldest_leave() {
        let mut pool = pool(2);
        let tables = pool.open_stream(8, 2, None);
        insert(&mut pool, &tables, &[0, 1]);
        assert_eq!(pool.settle(0, 0), 0);
        assert!(pool.drop_block(tables.own, 0));
        insert(&mut pool, &tables, &[2, 3]);
        assert_eq!(pool.settle(0, 1), 1, "1 is oldest once 0 has gone");
        assert_eq!(contents(&pool, &tables), [2, 3]);
        pool.close_table(tables.own);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_shared_block_is_held_once_and_becomes_newest_again() {
        let mut pool = pool(3);
        let prefix = pool.open_table(8);
        let [one, two] = [0, 1].map(|_| pool.open_stream(8, 2, Some((prefix, 2))));
        insert(&mut pool, &one, &[0, 5]);
        insert(&mut pool, &two, &[0]);
        assert_eq!((pool.settle(0, 0), pool.held()), (0, 2), "block 0 is one block for both");
        insert(&mut pool, &two, &[5, 6]);
        assert_eq!(pool.settle(1, 0), 1, "one's block 5 was oldest, for block 0 was inserted again");
        assert_eq!(contents(&pool, &one), [0]);
        assert_eq!(contents(&pool, &two), [0, 5, 6]);
    }

    #[test]
    fn the_rival_is_the_block_that_leaves() {
        let mut pool = pool(2);
        let prefix = pool.open_table(8);
        let [one, two] = [0, 1].map(|_| pool.open_stream(8, 2, Some((prefix, 2))));
        let rival = |pool: &WarmPool| pool.rival().map(|page| page.block.0);
        insert(&mut pool, &one, &[0]);
        assert_eq!(rival(&pool), None, "a frame is free");
        insert(&mut pool, &one, &[5]);
        assert_eq!(rival(&pool), Some(0));
        insert(&mut pool, &one, &[6]);
        assert_eq!(rival(&pool), Some(5), "0 is doomed");
        insert(&mut pool, &two, &[0]);
        assert_eq!(rival(&pool), Some(6), "0 is newest again, so 5 is doomed in its place");
        assert_eq!(pool.settle(0, 0), 1);
        assert_eq!(contents(&pool, &one), [0, 6]);
        assert_eq!(rival(&pool), Some(6));
    }
}
