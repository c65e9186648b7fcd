//! Ghosts: blocks that left the buffer, remembered in order of leaving. State is per block of the context, so that
//! nothing is hashed on the way, and one look says in which of several lists a ghost stands.

use kvtier_units::BlockId;

/// Stamp of a block that is no ghost.
const ABSENT: u32 = 0;
/// Stamp of a ghost that has been recalled: its block is about to enter the buffer.
const RECALLED: u32 = u32::MAX;

/// One list: entries at positions `oldest..next`, each at its position modulo the length of `entries`, a power of two.
#[derive(Clone, Debug)]
struct List {
    entries: Vec<BlockId>,
    oldest: u32,
    next: u32,
    len: usize,
}

impl List {
    #[inline(always)]
    fn entry(&mut self, position: u32) -> &mut BlockId {
        let mask = self.entries.len() - 1;
        &mut self.entries[position as usize & mask]
    }
}

/// Bounded lists of blocks that left, with removal from anywhere. A block stands in one of them at most.
#[derive(Clone, Debug)]
pub(crate) struct Ghosts<const LISTS: usize> {
    /// An entry counts only while its block's stamp says its list and position.
    lists: [List; LISTS],
    stamp_of: Vec<u32>,
    capacity: usize,
}

/// Bytes of state per block of the context.
pub(crate) const GHOST_BYTES_PER_BLOCK: u32 = 4;

/// What marks the entry of a list. Neither `ABSENT` nor `RECALLED`, since positions start at one and are bounded.
#[inline(always)]
fn stamp<const LISTS: usize>(list: usize, position: u32) -> u32 {
    position * small(LISTS) + small(list)
}

/// A number of lists.
#[inline(always)]
fn small(lists: usize) -> u32 {
    u32::try_from(lists).expect("ghosts stand in a few lists")
}

impl<const LISTS: usize> Ghosts<LISTS> {
    /// No ghosts yet, in each list at most `capacity` of a context of `blocks` blocks.
    pub(crate) fn new(blocks: u32, capacity: usize) -> Ghosts<LISTS> {
        let entries = vec![BlockId::NONE; (2 * capacity + 64).next_power_of_two()];
        let list = List { entries, oldest: 1, next: 1, len: 0 };
        Ghosts {
            lists: std::array::from_fn(|_| list.clone()),
            stamp_of: vec![ABSENT; blocks as usize],
            capacity,
        }
    }

    /// Ghosts in the list, recalled ones not counted.
    #[inline(always)]
    pub(crate) fn len(&self, list: usize) -> usize {
        self.lists[list].len
    }

    /// Remembers a block that left; the oldest ghosts of the list go where there are too many.
    #[inline(always)]
    pub(crate) fn add(&mut self, list: usize, block: BlockId) {
        let own = &mut self.lists[list];
        if (own.next - own.oldest) as usize == own.entries.len() {
            self.drop_stale(list);
        }
        let own = &mut self.lists[list];
        let position = own.next;
        *own.entry(position) = block;
        own.next += 1;
        own.len += 1;
        let full = own.len > self.capacity;
        assert!(position < RECALLED / small(LISTS) - 1, "a stream evicts fewer blocks than stamps count");
        self.stamp_of[block.index()] = stamp::<LISTS>(list, position);
        if full {
            self.forget_oldest(list);
        }
    }

    /// Closes the gaps that recalled ghosts left. There are some, since the entries outnumber the ghosts.
    #[cold]
    fn drop_stale(&mut self, list: usize) {
        let own = &mut self.lists[list];
        let mut first = own.next;
        for position in (own.oldest..own.next).rev() {
            let block = *own.entry(position);
            if self.stamp_of[block.index()] == stamp::<LISTS>(list, position) {
                first -= 1;
                *own.entry(first) = block;
                self.stamp_of[block.index()] = stamp::<LISTS>(list, first);
            }
        }
        own.oldest = first;
    }

    /// Forgets the oldest ghost of the list, if there is one.
    #[inline(always)]
    pub(crate) fn forget_oldest(&mut self, list: usize) {
        let own = &mut self.lists[list];
        while own.oldest < own.next {
            let position = own.oldest;
            let block = *own.entry(position);
            own.oldest += 1;
            if self.stamp_of[block.index()] == stamp::<LISTS>(list, position) {
                self.stamp_of[block.index()] = ABSENT;
                own.len -= 1;
                return;
            }
        }
    }

    /// The list in which the block is a ghost; if it is in one it is recalled and counts no more.
    #[inline(always)]
    pub(crate) fn recall(&mut self, block: BlockId) -> Option<usize> {
        let stamp = &mut self.stamp_of[block.index()];
        if *stamp == ABSENT || *stamp == RECALLED {
            return None;
        }
        let list = *stamp as usize % LISTS;
        *stamp = RECALLED;
        self.lists[list].len -= 1;
        Some(list)
    }

    /// Whether the block that enters was a ghost, recalled or not; it is one no more.
    #[inline(always)]
    pub(crate) fn take(&mut self, block: BlockId) -> bool {
        self.recall(block);
        std::mem::replace(&mut self.stamp_of[block.index()], ABSENT) != ABSENT
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
        assert_eq!((ghosts.len(0), ghosts.len(1), ghosts.lists[1].entries.len()), (0, 2, 128));
        ghosts.forget_oldest(1);
        assert!(!ghosts.take(BlockId(7)) && ghosts.take(BlockId(8)));
    }
}
