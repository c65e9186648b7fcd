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
use super::two_lists::TwoLists;
use super::{BufferShape, NoParams, Pins, StateClass};
use crate::PolicyError;
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
    // Just short of half, and half where what is kept is odd: what that carries rounds up. No branch, which nobody could
    // foretell.
    let odd = (value >> surplus) & 1;
    ((value + (1 << (surplus - 1)) - 1 + odd) >> surplus) << surplus
}

/// `over / under`, at least one, in the fixed point of the target.
fn quotient(over: u64, under: u64) -> u128 {
    if over <= under {
        return 1 << FRACTION;
    }
    // Twelve more bits of fraction, and the remainder in the last, so that the one rounding is right. Two divisions of 64
    // bits, each for 32 bits of fraction: one of 128 bits takes several times as long.
    assert!(over < 1 << 32, "slots count in 32 bits");
    let (high, rest) = ((over << 32) / under, (over << 32) % under);
    let (low, rest) = ((rest << 32) / under, (rest << 32) % under);
    let exact = (u128::from(high) << 32) | u128::from(low | u64::from(rest != 0));
    round(exact) >> (64 - FRACTION)
}

/// T1 and T2 with their ghosts B1 and B2.
pub struct Arc {
    lists: TwoLists,
    ghosts: Ghosts<2>,
    slots: u64,
    /// Target length of T1, in 2^-52 slots, and in whole slots.
    target: u128,
    whole_target: u64,
    /// Blocks on their way into T1 and T2.
    pending: [u64; 2],
}

impl Arc {
    #[inline(always)]
    fn resident(&self, list: u8) -> u64 {
        u64::from(self.lists.len(list))
    }

    #[inline(always)]
    fn ghosts(&self, list: u8) -> u64 {
        self.ghosts.len(usize::from(list)) as u64
    }

    /// Moves the target after a ghost of `list` came back; the ghost is already out of its list.
    #[inline(always)]
    fn adapt(&mut self, list: u8) {
        let (own, other) = (self.ghosts(list) + 1, self.ghosts(1 - list));
        let by = quotient(other, own);
        self.target = match list {
            ONCE => round(self.target + by).min(u128::from(self.slots) << FRACTION),
            _ => round(self.target.saturating_sub(by)),
        };
        self.whole_target = u64::try_from(self.target >> FRACTION).expect("at most all slots");
    }

    /// The list whose oldest makes room.
    #[inline(always)]
    fn giver(&self, from_often: bool) -> u8 {
        let length = self.resident(ONCE);
        let is_target = from_often && u128::from(length) << FRACTION == self.target;
        let once = length > self.whole_target || (is_target && length > 0);
        if once || self.resident(OFTEN) == 0 { ONCE } else { OFTEN }
    }

    /// Adapts to a ghost that comes back; the list that gives.
    #[inline(always)]
    fn recall(&mut self, incoming: BlockId) -> u8 {
        let list = self.ghosts.recall(incoming).expect("a ghost comes back");
        let list = if list == usize::from(ONCE) { ONCE } else { OFTEN };
        self.adapt(list);
        self.giver(list == OFTEN)
    }

    /// Trims the ghosts for a block that is none; the list that gives, and whether its victim leaves one.
    #[inline(always)]
    fn trim(&mut self) -> (u8, bool) {
        let once = self.resident(ONCE) + self.pending[0] + self.ghosts(ONCE);
        if once >= self.slots && self.ghosts(ONCE) == 0 {
            return (ONCE, false);
        }
        let often = self.resident(OFTEN) + self.pending[1] + self.ghosts(OFTEN);
        if once >= self.slots || once + often >= 2 * self.slots {
            self.ghosts.forget_oldest(usize::from(once < self.slots));
        }
        (self.giver(false), true)
    }

    /// Brings back a ghost where nothing is pinned. Apart from blocks that are none, which are far more.
    #[inline(never)]
    fn replace_for_ghost(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        let giver = self.recall(block);
        self.ghosts.enter(block);
        self.renew_oldest(giver, OFTEN, block_of)
    }

    /// Moves the oldest slot of a list to the front of another, or of the same; its block leaves a ghost.
    #[inline(always)]
    fn renew_oldest(&mut self, from: u8, to: u8, block_of: &[BlockId]) -> Slot {
        let victim = self.lists.back(from);
        self.ghosts.add_within(usize::from(from), block_of[victim.index()]);
        self.lists.move_front(to, victim);
        victim
    }
}

impl ClassicPolicy for Arc {
    const NAME: &'static str = "arc";
    const SUMMARY: &'static str = "balances recency and frequency by where ghosts come back from";
    /// Two links, one with the list; two kinds of ghosts.
    const STATE: StateClass = StateClass { per_slot: 8, per_block: GHOST_BYTES_PER_BLOCK, per_stream: 0 };
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Arc {
            lists: TwoLists::new(shape.slots),
            ghosts: Ghosts::new(shape.blocks, 2 * shape.slots as usize),
            slots: u64::from(shape.slots),
            target: 0,
            whole_target: 0,
            pending: [0; 2],
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        self.lists.move_front(OFTEN, slot);
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, block_of: &[BlockId]) -> Slot {
        let (giver, enters, leaves_ghost) = if self.ghosts.holds(incoming) {
            (self.recall(incoming), OFTEN, true)
        } else {
            let (giver, leaves_ghost) = self.trim();
            (giver, ONCE, leaves_ghost)
        };
        self.pending[usize::from(enters)] += 1;
        let victim = [giver, 1 - giver]
            .into_iter()
            .find_map(|list| self.lists.oldest_evictable(list, pins))
            .expect("an evictable slot stands in a list");
        if leaves_ghost {
            self.ghosts.add(usize::from(self.lists.list_of(victim)), block_of[victim.index()]);
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
        if self.ghosts.holds(block) {
            return self.replace_for_ghost(block, block_of);
        }
        // As `trim` does in a full buffer that nothing is on its way to, which has two lengths to look at.
        let (once, often) = (self.ghosts.len(0), self.ghosts.len(1));
        let slots = usize::try_from(self.slots).expect("slots count in 31 bits");
        let once_is_full = self.lists.len(ONCE) as usize + once >= slots;
        if once_is_full && once == 0 {
            let slot = self.evict(block, &Pins::NOTHING, block_of);
            self.on_insert(slot, block);
            return slot;
        }
        if once_is_full | (once + often >= slots) {
            self.ghosts.forget_oldest(usize::from(!once_is_full));
        }
        self.renew_oldest(self.giver(false), ONCE, block_of)
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
        let small = (1..2000u64).map(|n| (n * n % 977 + n, n % 61 + 1));
        let pairs = small.chain((1..2000).map(|n| (n * 0x9E37_79B9 % (1 << 32), n * n % 65_521 + 1)));
        for (over, under) in pairs {
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
