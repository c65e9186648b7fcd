//! S3-FIFO: a small FIFO filters what is selected once, a main FIFO with counters keeps the rest, ghosts of the small
//! one enter the main one. J. Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023,
//! <https://doi.org/10.1145/3600006.3613147>.
//!
//! The small queue has at least one slot, and there is at least one ghost; the main queue may have none. A pinned
//! block is passed over as it stands. Where all of the queue that should give is pinned, the other gives. The
//! variant `libcachesim` fills the main queue too until the first eviction. Total order: each queue's.

use super::classic::ClassicPolicy;
use super::ghosts::{GHOST_BYTES_PER_BLOCK, Ghosts};
use super::{BufferShape, Pins, StateClass, percent_of};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`S3Fifo`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3FifoParams {
    /// Percent of the slots in the small queue.
    pub small_percent: u32,
    /// Ghosts, in percent of the slots.
    pub ghost_percent: u32,
    /// Hits in the small queue that earn a place in the main one.
    pub promote_after: u8,
    /// Where blocks enter before the first eviction.
    pub variant: S3FifoVariant,
}

impl Default for S3FifoParams {
    fn default() -> Self {
        let variant = S3FifoVariant::Paper;
        S3FifoParams { small_percent: 10, ghost_percent: 90, promote_after: 2, variant }
    }
}

/// Where blocks enter before the first eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum S3FifoVariant {
    /// The small queue.
    Paper,
    /// The main queue once the small one has its share.
    Libcachesim,
}

const SMALL: u8 = 0;
const MAIN: u8 = 1;
/// The largest count that the main queue knows.
const MOST: u8 = 3;

/// A small and a main FIFO with counters, and ghosts.
pub struct S3Fifo {
    queues: SlotQueues,
    hits: Vec<u8>,
    ghosts: Ghosts<1>,
    small_slots: u32,
    main_slots: u32,
    promote_after: u8,
    /// Whether blocks still enter the main queue when the small one is full.
    warming: bool,
}

impl S3Fifo {
    /// The next victim of the small queue; what it hits on the way that earned it moves to the main queue.
    fn evict_small(&mut self, pins: &Pins<'_>, block_of: &[BlockId]) -> Option<Slot> {
        let mut next = self.queues.back(SMALL);
        while let Some(slot) = next {
            next = self.queues.newer(slot);
            if pins.holds(slot) {
                continue;
            }
            if self.hits[slot.index()] < self.promote_after {
                self.ghosts.add(0, block_of[slot.index()]);
                return Some(slot);
            }
            self.hits[slot.index()] = 0;
            self.queues.push_front(MAIN, slot);
        }
        None
    }

    /// The next victim of the main queue; what has hits goes round again with one less.
    fn evict_main(&mut self, pins: &Pins<'_>) -> Option<Slot> {
        self.queues.oldest_evictable(MAIN, pins)?;
        let mut next = self.queues.back(MAIN);
        loop {
            let slot = match next {
                Some(slot) => slot,
                None => self.queues.back(MAIN).expect("an evictable slot stands in the queue"),
            };
            next = self.queues.newer(slot);
            if pins.holds(slot) {
                continue;
            }
            let hits = &mut self.hits[slot.index()];
            if *hits == 0 {
                return Some(slot);
            }
            *hits = (*hits).min(MOST) - 1;
            self.queues.renew(MAIN, slot);
        }
    }
}

impl ClassicPolicy for S3Fifo {
    const NAME: &'static str = "s3-fifo";
    const SUMMARY: &'static str =
        "a small FIFO filters one-time blocks, a main FIFO with counters keeps the rest";
    /// Two links, the queue and a counter; ghosts.
    const STATE: StateClass = StateClass { per_slot: 10, per_block: GHOST_BYTES_PER_BLOCK, per_stream: 0 };
    type Params = S3FifoParams;

    fn new(params: S3FifoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let ghosts = percent_of("hot.params.ghost_percent", params.ghost_percent, shape.slots)?;
        let small_slots = percent_of("hot.params.small_percent", params.small_percent, shape.slots)?;
        Ok(S3Fifo {
            queues: SlotQueues::new(shape.slots, 2),
            hits: vec![0; shape.slots as usize],
            ghosts: Ghosts::new(shape.blocks, ghosts as usize),
            small_slots,
            main_slots: shape.slots.saturating_sub(small_slots),
            promote_after: params.promote_after,
            warming: params.variant == S3FifoVariant::Libcachesim,
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let hits = &mut self.hits[slot.index()];
        *hits = hits.saturating_add(1);
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, block_of: &[BlockId]) -> Slot {
        self.warming = false;
        self.ghosts.recall(incoming);
        let main_first = self.queues.len(MAIN) > self.main_slots || self.queues.is_empty(SMALL);
        // Emptying the small queue into the main one may leave a victim there alone.
        let victim = if main_first {
            self.evict_main(pins)
                .or_else(|| self.evict_small(pins, block_of))
                .or_else(|| self.evict_main(pins))
        } else {
            self.evict_small(pins, block_of).or_else(|| self.evict_main(pins))
        };
        let victim = victim.expect("an evictable slot stands in a queue");
        self.queues.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        let back = self.ghosts.take(block);
        let overflow = self.warming && self.queues.len(SMALL) >= self.small_slots;
        self.hits[slot.index()] = 0;
        self.queues.push_front(if back || overflow { MAIN } else { SMALL }, slot);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn two_hits_earn_the_main_queue_and_ghosts_enter_it() {
        let mut bench = Bench::new("s3-fifo", 3, 20);
        [0, 1, 2, 0, 0, 1].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[3]).victims(), [1], "0 moved to the main queue, 1 had one hit");
        assert_eq!(bench.step(&[1]).victims(), [2], "1 comes back to the main queue");
        // Small 3; main 0, 1: no more than its two slots, so the small queue gives.
        assert_eq!(bench.step(&[4]).victims(), [3]);
        assert_eq!(bench.step(&[4, 5]).victims(), [0], "all of the small queue is pinned");
    }
}
