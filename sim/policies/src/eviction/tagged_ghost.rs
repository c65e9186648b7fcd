//! A ghost of fixed size: how often blocks were selected lately, whether or not they are resident, under tags, so that
//! no two blocks share a count. It stands apart because its bytes are per stream, whatever the context.
//!
//! Sets of four entries; block b belongs to set b mod sets under the tag b / sets, both exact up to 2^16 x sets blocks.
//! Only the order within a set matters, so that one thread per set can take a whole selection.

use kvtier_units::BlockId;

/// Entries of a set.
const WAYS: usize = 4;
/// What one selection counts.
const STEP: u8 = 3;
/// Steps between two fadings, by each of which a count loses a quarter, rounded up.
const FADE_EVERY: u8 = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tag: u16,
    /// Zero if the entry is free.
    count: u8,
}

/// Fading counts of selections by block, at most as many as it has entries.
#[derive(Clone, Debug)]
pub(crate) struct TaggedGhost {
    entries: Vec<Entry>,
    /// Steps since the last fading.
    steps: u8,
}

impl TaggedGhost {
    /// Bytes of an entry: two of tag, one of count.
    pub(crate) const BYTES_PER_ENTRY: u32 = 3;

    /// An empty ghost; with no entries it stays empty.
    ///
    /// # Panics
    /// If the entries do not form whole sets.
    pub(crate) fn new(entries: u32) -> TaggedGhost {
        let entries = vec![Entry::default(); entries as usize];
        assert!(entries.len().is_multiple_of(WAYS), "a ghost has sets of {WAYS} entries");
        TaggedGhost { entries, steps: 0 }
    }

    /// The block's set, and its tag there.
    #[inline(always)]
    fn place(&self, block: BlockId) -> (usize, u16) {
        let sets = self.entries.len() / WAYS;
        // A tag wraps after 2^16 sets' worth of blocks: those so far apart share a count.
        let [low, high, ..] = (block.index() / sets).to_le_bytes();
        (block.index() % sets * WAYS, u16::from_le_bytes([low, high]))
    }

    /// The block's count; zero if it is not remembered.
    #[inline]
    pub(crate) fn count(&self, block: BlockId) -> u8 {
        if self.entries.is_empty() {
            return 0;
        }
        let (set, tag) = self.place(block);
        let ways = &self.entries[set..set + WAYS];
        ways.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.count)
    }

    /// Counts one step's selection, in rank order. A block that is not remembered takes the set's smallest entry (the
    /// first of equals) once that is worn down to one selection, and wears it down by one otherwise.
    pub(crate) fn select(&mut self, blocks: &[BlockId]) {
        if self.entries.is_empty() {
            return;
        }
        for &block in blocks {
            let (set, tag) = self.place(block);
            let ways = &mut self.entries[set..set + WAYS];
            if let Some(known) = ways.iter_mut().find(|entry| entry.tag == tag) {
                known.count = known.count.saturating_add(STEP);
                continue;
            }
            let smallest = ways.iter_mut().min_by_key(|entry| entry.count).expect("a set has entries");
            if smallest.count <= STEP {
                *smallest = Entry { tag, count: STEP };
            } else {
                smallest.count -= 1;
            }
        }
        self.steps += 1;
        if self.steps == FADE_EVERY {
            self.steps = 0;
            self.entries.iter_mut().for_each(|entry| entry.count -= entry.count.div_ceil(4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ghost_after(entries: u32, steps: &[&[u32]]) -> TaggedGhost {
        let mut ghost = TaggedGhost::new(entries);
        for step in steps {
            ghost.select(&step.iter().copied().map(BlockId).collect::<Vec<_>>());
        }
        ghost
    }

    fn counts(ghost: &TaggedGhost, blocks: &[u32]) -> Vec<u8> {
        blocks.iter().map(|&block| ghost.count(BlockId(block))).collect()
    }

    #[test]
    fn a_newcomer_wears_the_smallest_entry_down_and_then_takes_it() {
        // Eight entries are two sets; even blocks share the first.
        let full = ghost_after(8, &[&[0, 2, 4, 6, 1], &[0, 2, 4, 6], &[0, 2, 4]]);
        assert_eq!(counts(&full, &[0, 2, 4, 6, 1, 8]), [9, 9, 9, 6, 3, 0]);
        let worn = ghost_after(8, &[&[0, 2, 4, 6, 1], &[0, 2, 4, 6], &[0, 2, 4], &[8], &[8], &[8]]);
        assert_eq!(counts(&worn, &[0, 2, 4, 6, 8]), [9, 9, 9, 3, 0]);
        let taken = ghost_after(8, &[&[0, 2, 4, 6, 1], &[0, 2, 4, 6], &[0, 2, 4], &[8], &[8], &[8], &[8]]);
        assert_eq!(counts(&taken, &[0, 2, 4, 6, 8]), [9, 9, 9, 0, 3]);
    }

    #[test]
    fn counts_fade_every_sixteenth_step() {
        let often = vec![&[5u32][..]; 15];
        assert_eq!(counts(&ghost_after(4, &often), &[5]), [45]);
        assert_eq!(counts(&ghost_after(4, &[&often[..], &[&[5]]].concat()), &[5]), [36], "48 less 12");
        let forgotten = [&[&[5u32][..]][..], &vec![&[][..]; 47]].concat();
        assert_eq!(counts(&ghost_after(4, &forgotten), &[5]), [0], "3, 2, 1, 0");
    }

    #[test]
    fn without_entries_nothing_is_remembered() {
        assert_eq!(counts(&ghost_after(0, &[&[1, 2], &[1]]), &[1, 2]), [0, 0]);
    }
}
