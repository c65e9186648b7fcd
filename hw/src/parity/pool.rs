//! The pool of warm pages behind whatever admission, written once more from its definition: removals, insertions, the oldest
//! insertions leave. It stands apart from the decision plane's, which it checks, and keeps the frames of a replay.

use crate::ops::count32;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Warm pages of streams that share nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    capacity: usize,
    /// Pages by the number of their insertion.
    pages: BTreeMap<u64, (u32, u32)>,
    insertions: u64,
    /// Per table and block, the number of its insertion; zero for none.
    tables: Vec<Vec<u64>>,
    free_tables: Vec<u32>,
    hash: u64,
}

impl Pool {
    /// An empty pool of so many frames.
    pub(crate) fn new(capacity: usize) -> Pool {
        Pool { capacity, ..Pool::default() }
    }

    /// Hash of everything that was removed, inserted and evicted so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A table for the blocks of one stream.
    pub(crate) fn open(&mut self, blocks: u32) -> u32 {
        let table = vec![0; blocks as usize];
        match self.free_tables.pop() {
            Some(id) => {
                self.tables[id as usize] = table;
                id
            }
            None => {
                self.tables.push(table);
                count32(self.tables.len() - 1)
            }
        }
    }

    /// Frees a stream's pages and its table.
    pub(crate) fn close(&mut self, id: u32) {
        for insertion in std::mem::take(&mut self.tables[id as usize]) {
            self.pages.remove(&insertion);
        }
        self.free_tables.push(id);
    }

    /// Whether a block is among the warm pages.
    pub(super) fn holds(&self, table: u32, block: u32) -> bool {
        self.tables[table as usize][block as usize] != 0
    }

    fn drop_page(&mut self, (table, block): (u32, u32)) {
        let insertion = std::mem::take(&mut self.tables[table as usize][block as usize]);
        self.pages.remove(&insertion);
    }

    /// Ends a layer with the pages that went back to a hot buffer and those that left one, as (table, block); returns those
    /// for which no room is left.
    pub(crate) fn settle(
        &mut self,
        step: u32,
        layer: u32,
        removed: &[(u32, u32)],
        inserted: &[(u32, u32)],
    ) -> Vec<(u32, u32)> {
        removed.iter().for_each(|&page| self.drop_page(page));
        for &(table, block) in inserted {
            self.drop_page((table, block));
            self.insertions += 1;
            self.pages.insert(self.insertions, (table, block));
            self.tables[table as usize][block as usize] = self.insertions;
        }
        let mut evicted = Vec::new();
        while self.pages.len() > self.capacity {
            let (_, page) = self.pages.pop_first().expect("a pool beyond its capacity holds pages");
            self.tables[page.0 as usize][page.1 as usize] = 0;
            evicted.push(page);
        }
        let mut words = vec![step, layer];
        for list in [removed, inserted, &evicted] {
            words.push(count32(list.len()));
            words.extend(list.iter().flat_map(|&(table, block)| [table, block]));
        }
        self.hash = xxh3_64_with_seed(bytemuck::cast_slice(&words), self.hash);
        evicted
    }
}
