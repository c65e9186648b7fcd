//! Ghosts: blocks that left the buffer, remembered in order of leaving. State is per block of the context, so that
//! nothing is hashed on the way.

use kvtier_units::BlockId;
use std::collections::VecDeque;

/// Stamp of a block that is no ghost.
const ABSENT: u32 = 0;
/// Stamp of a ghost that has been recalled: its block is about to enter the buffer.
const RECALLED: u32 = u32::MAX;

/// A bounded queue of blocks that left, with removal from anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Ghosts {
    /// Oldest first; an entry counts only while its stamp is its block's.
    queue: VecDeque<(BlockId, u32)>,
    stamp_of: Vec<u32>,
    last_stamp: u32,
    len: usize,
    capacity: usize,
}

impl Ghosts {
    /// Bytes of state per block of the context.
    pub(crate) const BYTES_PER_BLOCK: u32 = 4;

    /// No ghosts yet, at most `capacity` of a context of `blocks` blocks.
    pub(crate) fn new(blocks: u32, capacity: usize) -> Ghosts {
        Ghosts {
            queue: VecDeque::with_capacity(2 * capacity + 64),
            stamp_of: vec![ABSENT; blocks as usize],
            last_stamp: 0,
            len: 0,
            capacity,
        }
    }

    /// Ghosts held, recalled ones not counted.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Remembers a block that left; the oldest ghosts go where there are too many.
    pub(crate) fn add(&mut self, block: BlockId) {
        self.last_stamp += 1;
        assert!(self.last_stamp < RECALLED, "a stream evicts fewer than 2^32 blocks");
        self.stamp_of[block.index()] = self.last_stamp;
        if self.queue.len() == self.queue.capacity() {
            let stamp_of = &self.stamp_of;
            self.queue.retain(|&(block, stamp)| stamp_of[block.index()] == stamp);
        }
        self.queue.push_back((block, self.last_stamp));
        self.len += 1;
        while self.len > self.capacity {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest ghost, if there is one.
    pub(crate) fn forget_oldest(&mut self) {
        while let Some((block, stamp)) = self.queue.pop_front() {
            if self.stamp_of[block.index()] == stamp {
                self.stamp_of[block.index()] = ABSENT;
                self.len -= 1;
                return;
            }
        }
    }

    /// Whether the block is a ghost; if so it is recalled and counts no more.
    pub(crate) fn recall(&mut self, block: BlockId) -> bool {
        let stamp = &mut self.stamp_of[block.index()];
        let is_ghost = *stamp != ABSENT && *stamp != RECALLED;
        if is_ghost {
            *stamp = RECALLED;
            self.len -= 1;
        }
        is_ghost
    }

    /// Whether the block that enters was a ghost, recalled or not; it is one no more.
    pub(crate) fn take(&mut self, block: BlockId) -> bool {
        let stamp = std::mem::replace(&mut self.stamp_of[block.index()], ABSENT);
        self.len -= usize::from(stamp != ABSENT && stamp != RECALLED);
        stamp != ABSENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_a_recalled_ghost_counts_no_more() {
        let mut ghosts = Ghosts::new(9, 2);
        (0..3).for_each(|block| ghosts.add(BlockId(block)));
        assert!(!ghosts.take(BlockId(0)), "three do not fit");
        assert!(ghosts.recall(BlockId(1)));
        assert!(!ghosts.recall(BlockId(1)));
        assert_eq!(ghosts.len(), 1);
        ghosts.add(BlockId(4));
        assert!(ghosts.take(BlockId(1)) && ghosts.take(BlockId(2)) && ghosts.take(BlockId(4)));
        assert_eq!(ghosts.len(), 0);
        ghosts.add(BlockId(1));
        assert!(ghosts.take(BlockId(1)) && !ghosts.take(BlockId(1)));
    }

    #[test]
    fn the_queue_stays_bounded_when_ghosts_keep_coming_back() {
        let mut ghosts = Ghosts::new(9, 4);
        let room = ghosts.queue.capacity();
        for round in 0..10_000u32 {
            ghosts.add(BlockId(round % 3));
            assert!(ghosts.take(BlockId(round % 3)));
        }
        assert_eq!((ghosts.len(), ghosts.queue.capacity()), (0, room));
    }
}
