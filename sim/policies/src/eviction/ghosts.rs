//! Ghosts: blocks that left the buffer, remembered in order of leaving. State is per block of the context, so that
//! nothing is hashed on the way, and one look says in which of several lists a ghost stands.

use kvtier_units::BlockId;

/// Stamp of a block that never was a ghost, or came back.
const ABSENT: u32 = 0;
/// Stamp of a ghost that has been recalled: its block is about to enter the buffer.
const RECALLED: u32 = 1;
/// Stamps of ghosts are larger than those.
const FIRST: u32 = 2;

/// The order in which ghosts left, in several lists. An entry's stamp is its position, and the remainder by the number of
/// lists says which of them it stands in; the entry is found at its stamp modulo the length of `entries`, a power of two.
/// Who forgets the oldest only moves on, and leaves its block's stamp behind: smaller than the oldest, it counts no more.
#[derive(Clone, Debug)]
pub(super) struct Leaving<const LISTS: usize> {
    /// `BlockId::NONE` where a ghost was taken out.
    entries: Vec<BlockId>,
    /// The oldest stamp of each list.
    oldest: [u32; LISTS],
    /// The stamp that each list gives next.
    next: [u32; LISTS],
    /// The stamp before which each list has room; what was forgotten since may have made more.
    until: [u32; LISTS],
    /// Not of the stamps' type: the compiler would count both up at once, and wait for what it had just written one by one.
    lengths: [usize; LISTS],
}

/// A number of lists, or of one among them.
#[inline(always)]
fn small(lists: usize) -> u32 {
    u32::try_from(lists).expect("ghosts stand in a few lists")
}

impl<const LISTS: usize> Leaving<LISTS> {
    /// Empty lists, with room for more than `capacity` entries in each.
    pub(super) fn new(capacity: usize) -> Leaving<LISTS> {
        assert!(LISTS.is_power_of_two(), "the remainder of a stamp says its list");
        let first = std::array::from_fn(|list| FIRST * small(LISTS) + small(list));
        let entries = vec![BlockId::NONE; LISTS * (2 * capacity + 64).next_power_of_two()];
        Leaving { entries, oldest: first, next: first, until: first, lengths: [0; LISTS] }
    }

    #[inline(always)]
    fn entry(&mut self, stamp: u32) -> &mut BlockId {
        let mask = self.entries.len() - 1;
        &mut self.entries[stamp as usize & mask]
    }

    #[inline(always)]
    pub(super) fn len(&self, list: usize) -> usize {
        self.lengths[list]
    }

    /// Whether the stamp is that of a ghost.
    #[inline(always)]
    pub(super) fn counts(&self, stamp: u32) -> bool {
        stamp >= self.oldest[stamp as usize % LISTS]
    }

    /// Whether the list has to make room before it takes another entry.
    #[inline(always)]
    pub(super) fn is_full(&self, list: usize) -> bool {
        self.next[list] == self.until[list]
    }

    /// Appends the block if it `stays`, and returns its stamp. No branch on that: the entry is written anyway.
    #[inline(always)]
    pub(super) fn append(&mut self, list: usize, block: BlockId, stays: bool) -> u32 {
        let stamp = self.next[list];
        *self.entry(stamp) = block;
        self.next[list] = stamp + small(LISTS) * u32::from(stays);
        self.lengths[list] += usize::from(stays);
        stamp
    }

    /// Takes out the entry of a stamp that counts.
    #[inline(always)]
    pub(super) fn remove(&mut self, stamp: u32) {
        *self.entry(stamp) = BlockId::NONE;
        self.lengths[stamp as usize % LISTS] -= 1;
    }

    /// Takes out the oldest entry of the list, if there is one.
    #[inline(always)]
    pub(super) fn remove_oldest(&mut self, list: usize) -> Option<BlockId> {
        while self.oldest[list] < self.next[list] {
            let block = *self.entry(self.oldest[list]);
            self.oldest[list] += small(LISTS);
            if block != BlockId::NONE {
                self.lengths[list] -= 1;
                return Some(block);
            }
        }
        None
    }

    /// Counts as room what was forgotten, and if there is none closes gaps, and has each block that moves `stamped` anew.
    /// There are gaps then, since entries outnumber ghosts.
    #[cold]
    pub(super) fn make_room(&mut self, list: usize, mut stamped: impl FnMut(BlockId, u32)) {
        let length = u32::try_from(self.entries.len()).expect("entries count in 32 bits");
        let room =
            |oldest: u32| oldest.checked_add(length).expect("a stream evicts fewer blocks than stamps count");
        self.until[list] = room(self.oldest[list]);
        if self.next[list] < self.until[list] {
            return;
        }
        let (mut stamp, mut first) = (self.next[list], self.next[list]);
        while stamp > self.oldest[list] {
            stamp -= small(LISTS);
            let block = *self.entry(stamp);
            if block != BlockId::NONE {
                first -= small(LISTS);
                *self.entry(first) = block;
                stamped(block, first);
            }
        }
        self.oldest[list] = first;
        self.until[list] = room(first);
    }
}

/// Bounded lists of blocks that left, with removal from anywhere. A block stands in one of them at most.
#[derive(Clone, Debug)]
pub(crate) struct Ghosts<const LISTS: usize> {
    lists: Leaving<LISTS>,
    stamp_of: Vec<u32>,
    capacity: usize,
}

/// Bytes of state per block of the context.
pub(crate) const GHOST_BYTES_PER_BLOCK: u32 = 4;

impl<const LISTS: usize> Ghosts<LISTS> {
    /// No ghosts yet, in each list at most `capacity` of a context of `blocks` blocks.
    pub(crate) fn new(blocks: u32, capacity: usize) -> Ghosts<LISTS> {
        Ghosts { lists: Leaving::new(capacity), stamp_of: vec![ABSENT; blocks as usize], capacity }
    }

    /// Ghosts in the list, recalled ones not counted.
    #[inline(always)]
    pub(crate) fn len(&self, list: usize) -> usize {
        self.lists.len(list)
    }

    /// Remembers a block that left; the oldest ghosts of the list go where there are too many.
    #[inline(always)]
    pub(crate) fn add(&mut self, list: usize, block: BlockId) {
        self.add_within(list, block);
        if self.lists.len(list) > self.capacity {
            self.forget_oldest(list);
        }
    }

    /// Remembers a block that left, where the caller sees to it that there are not too many.
    #[inline(always)]
    pub(crate) fn add_within(&mut self, list: usize, block: BlockId) {
        if self.lists.is_full(list) {
            self.lists.make_room(list, |block, stamp| self.stamp_of[block.index()] = stamp);
        }
        self.stamp_of[block.index()] = self.lists.append(list, block, true);
    }

    /// Forgets the oldest ghost of the list, if there is one.
    #[inline(always)]
    pub(crate) fn forget_oldest(&mut self, list: usize) {
        self.lists.remove_oldest(list);
    }

    /// Whether the block is a ghost that has not been recalled.
    #[inline(always)]
    pub(crate) fn holds(&self, block: BlockId) -> bool {
        self.lists.counts(self.stamp_of[block.index()])
    }

    /// The list in which the block is a ghost; if it is in one it is recalled and counts no more.
    #[inline(always)]
    pub(crate) fn recall(&mut self, block: BlockId) -> Option<usize> {
        let stamp = self.stamp_of[block.index()];
        self.lists.counts(stamp).then(|| {
            self.lists.remove(stamp);
            self.stamp_of[block.index()] = RECALLED;
            stamp as usize % LISTS
        })
    }

    /// A recalled block enters.
    #[inline(always)]
    pub(crate) fn enter(&mut self, block: BlockId) {
        self.stamp_of[block.index()] = ABSENT;
    }

    /// Whether the block that enters was a ghost, recalled or not; it is one no more.
    #[inline(always)]
    pub(crate) fn take(&mut self, block: BlockId) -> bool {
        let stamp = &mut self.stamp_of[block.index()];
        let counts = self.lists.counts(*stamp);
        if counts {
            self.lists.remove(*stamp);
        }
        let was = counts || *stamp == RECALLED;
        *stamp = ABSENT;
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_a_recalled_ghost_counts_no_more() {
        let mut ghosts = Ghosts::<1>::new(9, 2);
        (0..3).for_each(|block| ghosts.add(0, BlockId(block)));
        assert!(!ghosts.take(BlockId(0)), "three do not fit");
        assert_eq!([(); 2].map(|()| ghosts.recall(BlockId(1))), [Some(0), None]);
        assert_eq!(ghosts.len(0), 1);
        ghosts.add(0, BlockId(4));
        assert!(ghosts.take(BlockId(1)) && ghosts.take(BlockId(2)) && ghosts.take(BlockId(4)));
        assert_eq!(ghosts.len(0), 0);
        ghosts.add(0, BlockId(1));
        assert!(ghosts.take(BlockId(1)) && !ghosts.take(BlockId(1)));
    }

    #[test]
    fn lists_stay_bounded_and_in_order_when_ghosts_keep_coming_back() {
        let mut ghosts = Ghosts::<2>::new(9, 4);
        ghosts.add(1, BlockId(7));
        ghosts.add(1, BlockId(8));
        for round in 0..10_000u32 {
            ghosts.add(1, BlockId(round % 3));
            assert_eq!(ghosts.recall(BlockId(round % 3)), Some(1));
            assert!(ghosts.take(BlockId(round % 3)));
        }
        assert_eq!((ghosts.len(0), ghosts.len(1), ghosts.lists.entries.len()), (0, 2, 256));
        ghosts.forget_oldest(1);
        assert!(!ghosts.take(BlockId(7)) && ghosts.take(BlockId(8)));
    }
}
