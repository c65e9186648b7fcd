//! Warm pages: frames shared by all streams of a device, holding blocks that left a hot buffer.
//! Moving between hot and warm exchanges frames, so no bytes move.
//!
//! Within a layer every stream looks up against the pages as they stood at the layer's start; then come the removals
//! (blocks that went back to a hot buffer), then the insertions in (stream, victim) order, then evictions, oldest
//! insertion first. A block of a shared prefix is held once: it belongs to its group's table, and a second
//! insertion only makes it newest again.

use crate::hash::Recorder;
use kvtier_units::BlockId;

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

/// The tables in which one stream's blocks are found: its own, and its prefix group's for the first blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WarmTables {
    pub(crate) own: u32,
    pub(crate) prefix: Option<u32>,
    pub(crate) prefix_blocks: u32,
}

impl WarmTables {
    fn home_of(&self, block: BlockId) -> u32 {
        match self.prefix {
            Some(prefix) if block.0 < self.prefix_blocks => prefix,
            _ => self.own,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    table: u32,
    block: u32,
    newer: u32,
    older: u32,
}

/// The pool of warm pages and the tables that say which blocks it holds.
#[derive(Clone, Debug)]
pub struct WarmPool {
    capacity: usize,
    frames: Vec<Frame>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
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
    /// An empty pool of `capacity` frames.
    pub fn new(capacity: usize) -> WarmPool {
        WarmPool {
            capacity,
            frames: Vec::new(),
            free: Vec::new(),
            newest: NIL,
            oldest: NIL,
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
    pub(crate) fn look_up(&self, tables: &WarmTables) -> WarmLookup<'_> {
        let prefix =
            tables.prefix.map_or(&[][..], |id| &self.tables[id as usize][..tables.prefix_blocks as usize]);
        WarmLookup { prefix, own: &self.tables[tables.own as usize] }
    }

    /// Notes that a block goes back to a hot buffer; takes effect in `settle`.
    pub(crate) fn remove(&mut self, tables: &WarmTables, block: BlockId) {
        self.removed.push((tables.home_of(block), block.0));
    }

    /// Notes that a block left a hot buffer; takes effect in `settle`.
    pub(crate) fn insert(&mut self, tables: &WarmTables, block: BlockId) {
        self.inserted.push((tables.home_of(block), block.0));
    }

    /// Ends a layer: removals, insertions, evictions. Returns the evictions.
    pub(crate) fn settle(&mut self, step: u32, layer: u32) -> u64 {
        for at in 0..self.removed.len() {
            let (table, block) = self.removed[at];
            // Two streams that share a prefix may both have taken the block; the first removes it.
            self.drop_block(table, block);
        }
        for at in 0..self.inserted.len() {
            let (table, block) = self.inserted[at];
            self.drop_block(table, block);
            self.push_newest(table, block);
        }
        while self.held > self.capacity {
            let oldest = self.frames[self.oldest as usize];
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

    fn drop_block(&mut self, table: u32, block: u32) {
        let entry = &mut self.tables[table as usize][block as usize];
        let frame = std::mem::replace(entry, NOT_WARM);
        if frame != NOT_WARM {
            self.unlink(frame);
            self.free.push(frame);
            self.held -= 1;
        }
    }

    fn push_newest(&mut self, table: u32, block: u32) {
        let frame = Frame { table, block, newer: NIL, older: self.newest };
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
        self.tables[table as usize][block as usize] = id;
        self.held += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Frame { newer, older, .. } = self.frames[id as usize];
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
mod tests {
    use super::*;

    fn contents(pool: &WarmPool, tables: &WarmTables) -> Vec<u32> {
        (0..8).filter(|&block| pool.look_up(tables).holds(BlockId(block))).collect()
    }

    fn private(pool: &mut WarmPool) -> WarmTables {
        WarmTables { own: pool.open_table(8), prefix: None, prefix_blocks: 0 }
    }

    #[test]
    fn a_layer_settles_in_order_and_the_oldest_leave() {
        let mut pool = WarmPool::new(2);
        let tables = private(&mut pool);
        [0, 1].into_iter().for_each(|block| pool.insert(&tables, BlockId(block)));
        assert_eq!(pool.settle(0, 0), 0);
        pool.remove(&tables, BlockId(0));
        [2, 3].into_iter().for_each(|block| pool.insert(&tables, BlockId(block)));
        assert_eq!(pool.settle(0, 1), 1, "1 is oldest once 0 has gone");
        assert_eq!(contents(&pool, &tables), [2, 3]);
        pool.close_table(tables.own);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_shared_block_is_held_once_and_becomes_newest_again() {
        let mut pool = WarmPool::new(3);
        let prefix = pool.open_table(8);
        let [one, two] =
            [0, 1].map(|_| WarmTables { prefix: Some(prefix), prefix_blocks: 2, ..private(&mut pool) });
        pool.insert(&one, BlockId(0));
        pool.insert(&one, BlockId(5));
        pool.insert(&two, BlockId(0));
        assert_eq!((pool.settle(0, 0), pool.held()), (0, 2), "block 0 is one block for both");
        pool.insert(&two, BlockId(5));
        pool.insert(&two, BlockId(6));
        assert_eq!(pool.settle(1, 0), 1, "one's block 5 was oldest, for block 0 was inserted again");
        assert_eq!(contents(&pool, &one), [0]);
        assert_eq!(contents(&pool, &two), [0, 5, 6]);
    }
}
