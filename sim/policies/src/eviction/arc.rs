//! ARC: two LRU lists, for blocks selected once and more often, whose sizes follow where ghosts come back from.
//! N. Megiddo, D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003,
//! <https://www.usenix.org/conference/fast-03/arc-self-tuning-low-overhead-replacement-cache>.
//!
//! The target p, a real number in the paper, is a fixed-point number of 52 bits of fraction, rounded to 53 significant
//! bits, half to even, which is what libCacheSim's doubles amount to. Blocks that a step has decided to bring
//! count towards the lists they will enter. Where all of the list that should give is pinned, the other gives. Total
//! order: each list's. Any capacity will do.

use super::classic::ClassicPolicy;
use super::ghosts::{GHOST_BYTES_PER_BLOCK, Ghosts};
use super::{BufferShape, NoParams, Pins, StateClass};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};

const ONCE: u8 = 0;
const OFTEN: u8 = 1;
/// Bits of fraction of the target, and its significant bits.
const FRACTION: u32 = 52;
const SIGNIFICANT: u32 = 53;

/// Rounds to the significant bits, half to even.
fn round(value: u128) -> u128 {
    let surplus = (u128::BITS - value.leading_zeros()).saturating_sub(SIGNIFICANT);
    if surplus == 0 {
        return value;
    }
    let (kept, rest, half) = (value >> surplus, value & ((1 << surplus) - 1), 1 << (surplus - 1));
    (kept + u128::from(rest > half || (rest == half && kept & 1 == 1))) << surplus
}

/// `over / under`, at least one, in the fixed point of the target.
fn quotient(over: u64, under: u64) -> u128 {
    if over <= under {
        return 1 << FRACTION;
    }
    // Forty more bits of fraction, and the remainder in the last, so that the one rounding is right.
    let (over, under) = (u128::from(over) << (FRACTION + 40), u128::from(under));
    let exact = (over / under) | u128::from(over % under != 0);
    round(exact) >> 40
}

/// T1 and T2 with their ghosts B1 and B2.
pub struct Arc {
    lists: SlotQueues,
    ghosts: Ghosts<2>,
    slots: u64,
    /// Target length of T1, in 2^-52 slots.
    target: u128,
    /// Blocks on their way into T1 and T2.
    pending: [u64; 2],
}

impl Arc {
    fn resident(&self, list: u8) -> u64 {
        u64::from(self.lists.len(list))
    }

    fn ghosts(&self, list: u8) -> u64 {
        self.ghosts.len(usize::from(list)) as u64
    }

    /// Moves the target after a ghost of `list` came back; the ghost is already out of its list.
    fn adapt(&mut self, list: u8) {
        let (own, other) = (self.ghosts(list) + 1, self.ghosts(1 - list));
        let by = quotient(other, own);
        self.target = match list {
            ONCE => round(self.target + by).min(u128::from(self.slots) << FRACTION),
            _ => round(self.target.saturating_sub(by)),
        };
    }

    /// The list whose oldest makes room.
    fn giver(&self, from_often: bool) -> u8 {
        let length = u128::from(self.resident(ONCE)) << FRACTION;
        let once = length > self.target || (length == self.target && from_often);
        if (once && length > 0) || self.lists.is_empty(OFTEN) { ONCE } else { OFTEN }
    }

    /// Adapts to a ghost that comes back, or trims the ghosts for a block seen for the first time.
    #[inline(always)]
    fn make_room(&mut self, incoming: BlockId) -> Room {
        if let Some(list) = self.ghosts.recall(incoming) {
            let list = if list == usize::from(ONCE) { ONCE } else { OFTEN };
            self.adapt(list);
            return Room { giver: self.giver(list == OFTEN), enters: OFTEN, leaves_ghost: true };
        }
        let once = self.resident(ONCE) + self.pending[0] + self.ghosts(ONCE);
        if once >= self.slots && self.ghosts(ONCE) == 0 {
            return Room { giver: ONCE, enters: ONCE, leaves_ghost: false };
        }
        let often = self.resident(OFTEN) + self.pending[1] + self.ghosts(OFTEN);
        if once >= self.slots || once + often >= 2 * self.slots {
            self.ghosts.forget_oldest(usize::from(once < self.slots));
        }
        Room { giver: self.giver(false), enters: ONCE, leaves_ghost: true }
    }
}

/// What a block that comes finds.
struct Room {
    /// The list whose oldest makes room.
    giver: u8,
    /// The list that the block will enter.
    enters: u8,
    /// Whether the victim leaves one.
    leaves_ghost: bool,
}

impl ClassicPolicy for Arc {
    const NAME: &'static str = "arc";
    const SUMMARY: &'static str = "balances recency and frequency by where ghosts come back from";
    /// Two links and the list; two kinds of ghosts.
    const STATE: StateClass = StateClass { per_slot: 9, per_block: GHOST_BYTES_PER_BLOCK, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Arc {
            lists: SlotQueues::new(shape.slots, 2),
            ghosts: Ghosts::new(shape.blocks, 2 * shape.slots as usize),
            slots: u64::from(shape.slots),
            target: 0,
            pending: [0; 2],
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        self.lists.move_front(OFTEN, slot);
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, block_of: &[BlockId]) -> Slot {
        let Room { giver, enters, leaves_ghost } = self.make_room(incoming);
        self.pending[usize::from(enters)] += 1;
        let victim = [giver, 1 - giver]
            .into_iter()
            .find_map(|list| self.lists.oldest_evictable(list, pins))
            .expect("an evictable slot stands in a list");
        if leaves_ghost {
            self.ghosts.add(usize::from(self.lists.queue_of(victim)), block_of[victim.index()]);
        }
        self.lists.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        let list = if self.ghosts.take(block) { OFTEN } else { ONCE };
        let pending = &mut self.pending[usize::from(list)];
        *pending = pending.saturating_sub(1);
        self.lists.push_front(list, slot);
    }

    #[inline(always)]
    fn replace(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        let Room { giver, enters, leaves_ghost } = self.make_room(block);
        if enters == OFTEN {
            self.ghosts.take(block);
        }
        let victim = self.lists.back(giver).expect("the list that gives has a slot");
        if leaves_ghost {
            self.ghosts.add(usize::from(giver), block_of[victim.index()]);
        }
        self.lists.move_front(enters, victim);
        victim
    }
}

#[cfg(test)]
mod tests {
    use super::{FRACTION, quotient, round};
    use crate::residency::testing::Bench;

    #[test]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // compares with the doubles that the fixed point stands for
    fn the_fixed_point_rounds_like_a_double() {
        let mut target = (0u128, 0f64);
        for (over, under) in (1..2000u64).map(|n| (n * n % 977 + n, n % 61 + 1)) {
            target.0 = round(target.0 + quotient(over, under));
            target.1 += (over as f64 / under as f64).max(1.0);
            assert_eq!(target.0, (target.1 * (1u64 << FRACTION) as f64) as u128);
        }
    }

    #[test]
    fn a_ghost_of_the_recent_list_moves_the_target() {
        let mut bench = Bench::new("arc", 3, 20);
        [0, 1, 2, 0].into_iter().for_each(|block| drop(bench.step(&[block])));
        // T1 1, 2; T2 0; the target is 0.
        assert_eq!(bench.step(&[3]).victims(), [1], "T1 gives while it is longer than its target");
        assert_eq!(bench.step(&[1]).victims(), [2], "1 comes back to T2; the target is 1");
        // T1 3; T2 0, 1; ghost 2. T1 is not longer than its target, so T2 gives.
        assert_eq!(bench.step(&[4]).victims(), [0]);
        assert_eq!(bench.step(&[3, 5]).victims(), [4], "T1 3, 4 is longer than its target; 3 is pinned");
    }
}
