//! SIEVE: a hand sweeps from the oldest insertion to the newest, spares what was hit since it last passed, and moves
//! nothing. Y. Zhang and others, "SIEVE is simpler than LRU", NSDI 2024,
//! <https://www.usenix.org/conference/nsdi24/presentation/zhang-yazhuo>.
//!
//! The hand passes over a pinned block without changing its bit. Total order: the hand's. Any capacity will do.

use super::classic::ClassicPolicy;
use super::{BufferShape, NoParams, Pins, StateClass};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};

/// Order of insertion, one bit per slot, and a hand.
pub struct Sieve {
    queue: SlotQueues,
    visited: Vec<bool>,
    /// Where the next sweep starts; `None` at the oldest.
    hand: Option<Slot>,
}

impl ClassicPolicy for Sieve {
    const NAME: &'static str = "sieve";
    const SUMMARY: &'static str =
        "a hand spares what was hit since it last passed; new blocks enter behind it";
    /// Two links and a bit.
    const STATE: StateClass = StateClass { per_slot: 9, per_block: 0, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let visited = vec![false; shape.slots as usize];
        Ok(Sieve { queue: SlotQueues::new(shape.slots, 1), visited, hand: None })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        self.visited[slot.index()] = true;
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let mut hand = self.hand;
        let victim = loop {
            let slot = hand.or_else(|| self.queue.back(0)).expect("an evictable slot stands in the queue");
            hand = self.queue.newer(slot);
            if !pins.holds(slot) && !std::mem::take(&mut self.visited[slot.index()]) {
                break slot;
            }
        };
        self.hand = hand;
        self.queue.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        self.visited[slot.index()] = false;
        self.queue.push_front(0, slot);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_hand_moves_on_and_hits_do_not_move() {
        let mut bench = Bench::new("sieve", 3, 9);
        [0, 1, 2, 0].into_iter().for_each(|block| drop(bench.step(&[block])));
        assert_eq!(bench.step(&[3]).victims(), [1], "0 was hit: spared, its bit cleared");
        // Oldest to newest 0, 2, 3; the hand stands at 2.
        assert_eq!(bench.step(&[2, 4]).victims(), [3], "2 is pinned; 3 was never hit");
        // 0, 2 (hit), 4; the hand, past 3, stands at the newest of then, and wraps to 0.
        assert_eq!(bench.step(&[5]).victims(), [0]);
    }
}
