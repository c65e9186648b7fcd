//! 2Q: new blocks pass through a FIFO; only those asked for again after they left it enter the main LRU.
//! T. Johnson, D. Shasha, "2Q: a low overhead high performance buffer management replacement algorithm", VLDB 1994,
//! <https://www.vldb.org/conf/1994/P439.PDF>.
//!
//! The full version with the paper's sizes: A1in a quarter of the slots, A1out as many ghosts as half of them, each at
//! least one. Victims: the oldest of A1in where it holds more than its share, else the least recent of Am; where
//! all of that queue is pinned, of the other. Total order: each queue's.

use super::classic::ClassicPolicy;
use super::ghosts::{GHOST_BYTES_PER_BLOCK, Ghosts};
use super::two_lists::TwoLists;
use super::{BufferShape, Pins, StateClass, percent_of};
use crate::PolicyError;
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`TwoQ`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TwoQParams {
    /// Percent of the slots in which new blocks pass through.
    pub in_percent: u32,
    /// Ghosts, in percent of the slots.
    pub out_percent: u32,
}

impl Default for TwoQParams {
    fn default() -> Self {
        TwoQParams { in_percent: 25, out_percent: 50 }
    }
}

const IN: u8 = 0;
const MAIN: u8 = 1;

/// A FIFO for new blocks, ghosts of those that left it, and a main LRU.
pub struct TwoQ {
    queues: TwoLists,
    in_slots: u32,
    out: Ghosts<1>,
}

impl ClassicPolicy for TwoQ {
    const NAME: &'static str = "2q";
    const SUMMARY: &'static str = "new blocks pass through a FIFO; those that come back enter the main LRU";
    /// Two links, one with the queue; ghosts.
    const STATE: StateClass = StateClass { per_slot: 8, per_block: GHOST_BYTES_PER_BLOCK, per_stream: 0 };
    type Params = TwoQParams;

    fn new(params: TwoQParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let out = percent_of("hot.params.out_percent", params.out_percent, shape.slots)?;
        Ok(TwoQ {
            queues: TwoLists::new(shape.slots),
            in_slots: percent_of("hot.params.in_percent", params.in_percent, shape.slots)?,
            out: Ghosts::new(shape.blocks, out as usize),
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        if self.queues.list_of(slot) == MAIN {
            self.queues.move_front(MAIN, slot);
        }
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, block_of: &[BlockId]) -> Slot {
        self.out.recall(incoming);
        let first = if self.queues.len(IN) > self.in_slots { IN } else { MAIN };
        let victim = [first, MAIN - first]
            .into_iter()
            .find_map(|queue| self.queues.oldest_evictable(queue, pins))
            .expect("an evictable slot stands in a queue");
        if self.queues.list_of(victim) == IN {
            self.out.add(0, block_of[victim.index()]);
        }
        self.queues.remove(victim);
        victim
    }

    #[inline(always)]
    fn replace(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        let enters = if self.out.take(block) { MAIN } else { IN };
        // Of a full buffer one of them has a slot.
        let from = if self.queues.len(IN) > self.in_slots || self.queues.len(MAIN) == 0 { IN } else { MAIN };
        let victim = self.queues.back(from);
        if from == IN {
            self.out.add(0, block_of[victim.index()]);
        }
        self.queues.move_front(enters, victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        let queue = if self.out.take(block) { MAIN } else { IN };
        self.queues.push_front(queue, slot);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_block_that_comes_back_enters_the_main_queue() {
        let mut bench = Bench::new("2q", 4, 20);
        [0, 1, 2, 3].into_iter().for_each(|block| drop(bench.step(&[block])));
        bench.step(&[0]);
        assert_eq!(bench.step(&[4]).victims(), [0], "a hit in the FIFO does not save");
        assert_eq!(bench.step(&[0]).victims(), [1], "0 was a ghost and enters the main queue");
        assert_eq!(bench.step(&[2, 5]).victims(), [3], "2 is pinned");
        assert_eq!(bench.step(&[6]).victims(), [2]);
        // FIFO 4, 5, 6 (one is its share), main 0, ghosts 3 and 2.
        assert_eq!(bench.step(&[3, 2]).victims(), [4, 5]);
        assert_eq!(
            bench.step(&[7]).victims(),
            [0],
            "the FIFO keeps to its share now: the main queue's oldest goes"
        );
    }
}
