//! A ghost of fixed size: how often blocks were selected lately and what they are worth, whether or not they are
//! resident, under tags, so that no two blocks share an entry. It stands apart because its bytes are per stream, whatever
//! the context.
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

/// Fading counts of selections and worths by block, of at most as many blocks as it has entries.
#[derive(Clone, Debug)]
pub(crate) struct TaggedGhost {
    tags: Vec<[u16; WAYS]>,
    worths: Vec<[u16; WAYS]>,
    /// Zero where an entry is free.
    counts: Vec<[u8; WAYS]>,
    sets: u32,
    /// Steps since the last fading.
    steps: u8,
}

impl TaggedGhost {
    /// Bytes of an entry: two of tag, two of worth, one of count.
    pub(crate) const BYTES_PER_ENTRY: u32 = 5;

    /// An empty ghost; with no entries it stays empty.
    ///
    /// # Panics
    /// If the entries do not form whole sets.
    pub(crate) fn new(entries: u32) -> TaggedGhost {
        assert!((entries as usize).is_multiple_of(WAYS), "a ghost has sets of {WAYS} entries");
        let sets = entries as usize / WAYS;
        TaggedGhost {
            tags: vec![[0; WAYS]; sets],
            worths: vec![[0; WAYS]; sets],
            counts: vec![[0; WAYS]; sets],
            sets: u32::try_from(sets).expect("fewer than entries"),
            steps: 0,
        }
    }

    /// The block's set, and its tag there.
    #[inline(always)]
    fn place(&self, block: BlockId) -> (usize, u16) {
        // A tag wraps after 2^16 sets' worth of blocks: those so far apart share an entry.
        let [low, high, ..] = (block.0 / self.sets).to_le_bytes();
        ((block.0 % self.sets) as usize, u16::from_le_bytes([low, high]))
    }

    /// The way of the set that holds the tag.
    #[inline(always)]
    fn way_of(&self, set: usize, tag: u16) -> Option<usize> {
        let (tags, counts) = (&self.tags[set], &self.counts[set]);
        (0..WAYS).find(|&way| tags[way] == tag && counts[way] > 0)
    }

    /// The block's set and way; `None` if it is not remembered.
    #[inline(always)]
    fn find(&self, block: BlockId) -> Option<(usize, usize)> {
        if self.sets == 0 {
            return None;
        }
        let (set, tag) = self.place(block);
        self.way_of(set, tag).map(|way| (set, way))
    }

    /// The block's count; zero if it is not remembered.
    #[inline]
    pub(crate) fn count(&self, block: BlockId) -> u8 {
        self.find(block).map_or(0, |(set, way)| self.counts[set][way])
    }

    /// What the block is worth; nothing if it is not remembered.
    #[inline]
    pub(crate) fn worth(&self, block: BlockId) -> u16 {
        self.find(block).map_or(0, |(set, way)| self.worths[set][way])
    }

    /// Puts `aged(worth)` in place of every worth.
    #[inline]
    pub(crate) fn age(&mut self, aged: impl Fn(u16) -> u16) {
        self.worths.as_flattened_mut().iter_mut().for_each(|worth| *worth = aged(*worth));
    }

    /// Adds `credit` to what the block is worth, if it is remembered.
    #[inline]
    pub(crate) fn earn(&mut self, block: BlockId, credit: u16) {
        if let Some((set, way)) = self.find(block) {
            let worth = &mut self.worths[set][way];
            *worth = worth.saturating_add(credit);
        }
    }

    /// Counts one step's selection, in rank order, each of whose blocks earns its credit. A block that is not remembered
    /// takes the set's smallest entry (the first of equals) once that is worn down to one selection, and wears it down by
    /// one otherwise, and earns nothing.
    pub(crate) fn select(&mut self, blocks: &[BlockId], credits: &[u16]) {
        if self.sets == 0 {
            return;
        }
        for (&block, &credit) in blocks.iter().zip(credits) {
            let (set, tag) = self.place(block);
            let known = self.way_of(set, tag);
            let (worths, counts) = (&mut self.worths[set], &mut self.counts[set]);
            if let Some(way) = known {
                counts[way] = counts[way].saturating_add(STEP);
                worths[way] = worths[way].saturating_add(credit);
                continue;
            }
            let smallest = (0..WAYS).min_by_key(|&way| counts[way]).expect("a set has entries");
            if counts[smallest] <= STEP {
                self.tags[set][smallest] = tag;
                (counts[smallest], worths[smallest]) = (STEP, credit);
            } else {
                counts[smallest] -= 1;
            }
        }
        self.steps += 1;
        if self.steps == FADE_EVERY {
            self.steps = 0;
            self.counts.as_flattened_mut().iter_mut().for_each(|count| *count -= count.div_ceil(4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ghost_after(entries: u32, steps: &[&[u32]]) -> TaggedGhost {
        let mut ghost = TaggedGhost::new(entries);
        for step in steps {
            let blocks: Vec<BlockId> = step.iter().copied().map(BlockId).collect();
            ghost.select(&blocks, &[100, 90, 80, 70, 60][..blocks.len()]);
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
    fn worth_stays_with_its_block_until_another_takes_the_entry() {
        let worths = |ghost: &TaggedGhost, blocks: &[u32]| -> Vec<u16> {
            blocks.iter().map(|&block| ghost.worth(BlockId(block))).collect()
        };
        // One set, whose entries are taken in turn.
        let mut ghost = ghost_after(4, &[&[0, 1, 2, 3], &[3, 0, 1, 2]]);
        assert_eq!(worths(&ghost, &[0, 1, 2, 3, 4]), [190, 170, 150, 170, 0]);
        ghost.age(|worth| worth / 2);
        ghost.earn(BlockId(3), 7);
        ghost.earn(BlockId(4), 7);
        assert_eq!(worths(&ghost, &[0, 1, 2, 3, 4]), [95, 85, 75, 92, 0]);
        ghost.earn(BlockId(1), u16::MAX);
        assert_eq!(worths(&ghost, &[1]), [u16::MAX]);
        // 0 is worn down from 6 to 3 by 4, 5 and 6; then 7 takes its entry, and with it nothing of its worth.
        ghost.select(&[4, 5, 6].map(BlockId), &[50; 3]);
        assert_eq!(worths(&ghost, &[0, 4, 5, 6]), [95, 0, 0, 0]);
        ghost.select(&[7].map(BlockId), &[50]);
        assert_eq!(worths(&ghost, &[0, 7]), [0, 50]);
    }

    #[test]
    fn what_has_faded_is_forgotten() {
        let idle = vec![&[][..] as &[u32]; 44];
        let faded = ghost_after(4, &[&[&[5u32][..]][..], &idle].concat());
        assert_eq!((counts(&faded, &[5]), faded.worth(BlockId(5))), (vec![1], 100));
        let forgotten = ghost_after(4, &[&[&[5u32][..]][..], &idle, &idle[..4]].concat());
        assert_eq!((counts(&forgotten, &[5]), forgotten.worth(BlockId(5))), (vec![0], 0));
        let again = ghost_after(4, &[&[&[5u32][..]][..], &idle, &idle[..4], &[&[9, 5]]].concat());
        assert_eq!((counts(&again, &[5]), again.worth(BlockId(5))), (vec![3], 90), "as if it were new");
    }

    #[test]
    fn without_entries_nothing_is_remembered() {
        assert_eq!(counts(&ghost_after(0, &[&[1, 2], &[1]]), &[1, 2]), [0, 0]);
    }
}
