//! LIRS: keeps blocks whose last two selections were close together; the others pass through a small queue.
//! S. Jiang, X. Zhang, "LIRS: an efficient low inter-reference recency set replacement policy", SIGMETRICS 2002,
//! <https://doi.org/10.1145/511334.511340>.
//!
//! One percent of the slots, at least one, is for HIR blocks; with a single slot every block is one. Non-resident
//! blocks on the stack are bounded by the number of slots, the first that left being forgotten first (the paper
//! sets no bound). Victims: the oldest resident HIR block; where all of those are pinned, the LIR block lowest on the
//! stack. Total order: the queue's, then the stack's. A stream may evict 2^31 blocks.

use super::classic::ClassicPolicy;
use super::ghosts::Leaving;
use super::{BufferShape, Pins, StateClass, percent_of};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`Lirs`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LirsParams {
    /// Percent of the slots for HIR blocks.
    pub hir_percent: u32,
}

impl Default for LirsParams {
    fn default() -> Self {
        LirsParams { hir_percent: 1 }
    }
}

/// Place of a block that is not on the stack.
const OFF_STACK: u32 = u32::MAX - 1;
/// Set in the place of a LIR block, which is always on the stack.
const LIR: u32 = 1;
/// Positions there may be before they are counted anew.
const POSITIONS: u32 = OFF_STACK >> 1;

/// Set in the standing of a block that left; the rest counts while the block is on the stack.
const GHOST: u32 = 1 << 31;
/// Standing of a ghost that has been recalled: its block is about to enter the buffer.
const RECALLED: u32 = GHOST;

/// The recency stack, as a log: a push appends, and entries that a later push overtook are skipped.
struct Stack {
    /// Each entry at its position modulo the length, a power of two.
    log: Vec<BlockId>,
    bottom: u32,
    top: u32,
    /// The position where room has to be looked for.
    until: u32,
    /// Twice the position of each block, plus `LIR` for a LIR block: all that a hit of one reads and writes, and all that is
    /// asked of an entry at the bottom.
    places: Vec<u32>,
}

impl Stack {
    fn new(blocks: u32, slots: u32) -> Stack {
        // LIR and HIR blocks and ghosts, each at most as many as slots, and room for as many overtaken ones.
        let length = (8 * slots as usize + 64).next_power_of_two();
        let mut stack = Stack {
            log: vec![BlockId::NONE; length],
            bottom: 0,
            top: 0,
            until: 0,
            places: vec![OFF_STACK; blocks as usize],
        };
        stack.find_room();
        stack
    }

    #[inline(always)]
    fn entry(&mut self, position: u32) -> &mut BlockId {
        let mask = self.log.len() - 1;
        &mut self.log[position as usize & mask]
    }

    #[inline(always)]
    fn holds(&self, block: BlockId) -> bool {
        self.places[block.index()] != OFF_STACK
    }

    #[inline(always)]
    fn is_lir(&self, block: BlockId) -> bool {
        self.places[block.index()] & LIR != 0
    }

    /// Puts a block on top. `lir` is `LIR` or zero.
    #[inline(always)]
    fn push(&mut self, block: BlockId, lir: u32) {
        if self.top == self.until {
            self.make_room();
        }
        let top = self.top;
        *self.entry(top) = block;
        self.places[block.index()] = 2 * top + lir;
        self.top = top + 1;
    }

    fn length(&self) -> u32 {
        u32::try_from(self.log.len()).expect("a log counts in 32 bits")
    }

    fn find_room(&mut self) {
        self.until = self.bottom.saturating_add(self.length()).min(POSITIONS);
    }

    /// Counts as room what was pruned, and if there is none drops what was overtaken.
    #[cold]
    fn make_room(&mut self) {
        self.find_room();
        if self.top < self.until {
            return;
        }
        // Positions fall by whole lengths, so that entries stay where they are.
        let fall = self.bottom - self.bottom % self.length();
        let mut kept = self.top;
        for position in (self.bottom..self.top).rev() {
            let block = *self.entry(position);
            let place = self.places[block.index()];
            if place >> 1 == position {
                kept -= 1;
                *self.entry(kept) = block;
                self.places[block.index()] = 2 * (kept - fall) + (place & LIR);
            }
        }
        (self.bottom, self.top) = (kept - fall, self.top - fall);
        self.find_room();
        assert!(self.top < self.until, "what is on the stack is bounded, and the log is longer");
    }

    /// Blocks from the bottom up.
    fn upwards(&self) -> impl Iterator<Item = BlockId> + '_ {
        let mask = self.log.len() - 1;
        let entries = (self.bottom..self.top).map(move |at| (at, self.log[at as usize & mask]));
        entries.filter(|&(at, block)| self.places[block.index()] >> 1 == at).map(|(_, block)| block)
    }
}

/// LIR and HIR blocks, the stack, and the queue of resident HIR blocks.
pub struct Lirs {
    stack: Stack,
    hir: SlotQueues,
    /// Non-resident blocks on the stack, as they left.
    ghosts: Leaving<1>,
    /// The slot of a resident block; of a ghost its stamp.
    standings: Vec<u32>,
    block_of: Vec<BlockId>,
    lir: u32,
    lir_slots: u32,
}

impl Lirs {
    /// Takes blocks off the bottom of the stack until a LIR block stands there.
    #[inline(always)]
    fn prune(&mut self) {
        while self.stack.bottom != self.stack.top {
            let bottom = self.stack.bottom;
            let block = *self.stack.entry(bottom);
            let place = self.stack.places[block.index()];
            if place >> 1 == bottom {
                if place & LIR != 0 {
                    return;
                }
                self.stack.places[block.index()] = OFF_STACK;
                self.take_ghost(block);
            }
            self.stack.bottom += 1;
        }
    }

    /// Takes a block on the stack out of the ghosts if it is one, and not recalled.
    #[inline(always)]
    fn take_ghost(&mut self, block: BlockId) {
        let standing = self.standings[block.index()];
        if standing > RECALLED {
            self.ghosts.remove(standing - GHOST);
        }
    }

    /// Makes a ghost of a block that left if it is on the stack. No branch on that, which cannot be foretold.
    #[inline(always)]
    fn add_ghost(&mut self, block: BlockId) {
        if self.ghosts.is_full(0) {
            let standings = &mut self.standings;
            self.ghosts.make_room(0, |block, stamp| standings[block.index()] = GHOST + stamp);
        }
        let stamp = self.ghosts.append(0, block, self.stack.holds(block));
        assert!(stamp < GHOST, "a stream evicts fewer blocks than stamps count");
        self.standings[block.index()] = GHOST + stamp;
        if self.ghosts.len(0) > self.block_of.len() {
            let oldest = self.ghosts.remove_oldest(0).expect("there are more than fit");
            // It counts as new when it comes back, wherever it stood.
            self.stack.places[oldest.index()] = OFF_STACK;
        }
    }

    /// Counts a block on the stack as LIR.
    #[inline(always)]
    fn promote(&mut self, block: BlockId) {
        self.stack.places[block.index()] |= LIR;
        self.lir += 1;
        self.prune();
        self.demote_overflow();
    }

    /// Makes the lowest LIR blocks HIR while there are too many.
    #[inline(always)]
    fn demote_overflow(&mut self) {
        while self.lir > self.lir_slots {
            let bottom = *self.stack.entry(self.stack.bottom);
            let slot = Slot(self.standings[bottom.index()]);
            self.stack.places[bottom.index()] = OFF_STACK;
            self.stack.bottom += 1;
            self.lir -= 1;
            self.hir.push_front(0, slot);
            self.prune();
        }
    }

    fn lowest_lir(&self, pins: &Pins<'_>) -> Option<Slot> {
        let lir = self.stack.upwards().filter(|&block| self.stack.is_lir(block));
        lir.map(|block| Slot(self.standings[block.index()])).find(|&slot| !pins.holds(slot))
    }
}

impl ClassicPolicy for Lirs {
    const NAME: &'static str = "lirs";
    const SUMMARY: &'static str = "keeps blocks whose last two selections were close together";
    /// Two links, block and whether it is queued; the place on the stack with the class, and the slot or the ghost's stamp.
    const STATE: StateClass = StateClass { per_slot: 13, per_block: 8, per_stream: 0 };
    type Params = LirsParams;

    fn new(params: LirsParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let hir = percent_of("hot.params.hir_percent", params.hir_percent, shape.slots)?;
        Ok(Lirs {
            stack: Stack::new(shape.blocks, shape.slots),
            hir: SlotQueues::new(shape.slots, 1),
            ghosts: Leaving::new(shape.slots as usize),
            standings: vec![GHOST; shape.blocks as usize],
            block_of: vec![BlockId::NONE; shape.slots as usize],
            lir: 0,
            lir_slots: shape.slots.saturating_sub(hir),
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let block = self.block_of[slot.index()];
        let place = self.stack.places[block.index()];
        let was_at_bottom = place >> 1 == self.stack.bottom;
        self.stack.push(block, place & LIR);
        if place & LIR != 0 {
            // Any other leaves a LIR block at the bottom.
            if was_at_bottom {
                self.prune();
            }
        } else if place != OFF_STACK {
            self.hir.remove(slot);
            self.promote(block);
        } else {
            self.hir.push_front(0, slot);
        }
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        // The bound on ghosts must not push out the very block that comes back.
        if self.stack.holds(incoming) {
            self.take_ghost(incoming);
            self.standings[incoming.index()] = RECALLED;
        }
        let victim = self.hir.oldest_evictable(0, pins).or_else(|| self.lowest_lir(pins));
        let victim = victim.expect("an evictable slot holds a LIR or a HIR block");
        let block = std::mem::replace(&mut self.block_of[victim.index()], BlockId::NONE);
        if self.stack.is_lir(block) {
            self.stack.places[block.index()] = OFF_STACK;
            self.lir -= 1;
            self.prune();
        } else {
            self.add_ghost(block);
        }
        self.hir.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        // A block that is on the stack and not resident is a ghost.
        let back = self.stack.holds(block);
        if back {
            self.take_ghost(block);
        }
        self.block_of[slot.index()] = block;
        self.standings[block.index()] = slot.0;
        self.stack.push(block, 0);
        if back || self.lir < self.lir_slots {
            self.promote(block);
        } else {
            self.hir.push_front(0, slot);
            if self.lir == 0 {
                self.prune();
            }
        }
    }

    #[inline(always)]
    fn replace(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        let oldest = self.hir.back(0).filter(|_| self.lir == self.lir_slots && self.lir > 0);
        let Some(victim) = oldest else {
            let victim = self.evict(block, &Pins::NOTHING, block_of);
            self.on_insert(victim, block);
            return victim;
        };
        let back = self.stack.holds(block);
        if back {
            self.take_ghost(block);
        }
        let left = std::mem::replace(&mut self.block_of[victim.index()], block);
        self.add_ghost(left);
        self.standings[block.index()] = victim.0;
        self.stack.push(block, u32::from(back) * LIR);
        if back {
            self.hir.remove(victim);
            self.lir += 1;
            self.demote_overflow();
        } else {
            self.hir.renew(0, victim);
        }
        victim
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockId, LIR, POSITIONS, Stack};
    use crate::residency::testing::Bench;

    #[test]
    fn the_stack_keeps_its_order_when_the_log_is_rewritten() {
        let mut stack = Stack::new(9, 1);
        (stack.bottom, stack.top) = (POSITIONS - 50, POSITIONS - 50);
        stack.find_room();
        let mut model: Vec<u32> = Vec::new();
        for block in (0..2_000u32).map(|at| at * at % 1013 % 9) {
            stack.push(BlockId(block), block & LIR);
            model.retain(|&other| other != block);
            model.push(block);
            let order: Vec<u32> = stack.upwards().map(|block| block.0).collect();
            assert_eq!(order, model);
            assert!(model.iter().all(|&block| stack.is_lir(BlockId(block)) == (block & LIR != 0)));
        }
    }

    #[test]
    fn a_short_distance_between_selections_makes_a_block_stay() {
        let mut bench = Bench::new("lirs", 3, 20);
        [0, 1, 2].into_iter().for_each(|block| drop(bench.step(&[block])));
        // LIR 0, 1; HIR 2, on the stack above them.
        assert_eq!(bench.step(&[3]).victims(), [2], "the HIR block goes, however recent");
        assert_eq!(bench.step(&[2]).victims(), [3], "2 is still on the stack: it becomes LIR, and 0 HIR");
        assert_eq!(bench.step(&[4]).victims(), [0]);
        assert_eq!(bench.step(&[4, 5]).victims(), [1], "4 is pinned: the lowest LIR block goes");
    }

    #[test]
    fn one_slot_is_a_hir_slot() {
        let mut bench = Bench::new("lirs", 1, 20);
        bench.step(&[0]);
        assert_eq!(bench.step(&[1]).victims(), [0]);
        assert_eq!(bench.step(&[1]).victims(), [0; 0]);
        assert_eq!(bench.step(&[0]).victims(), [1]);
    }
}
