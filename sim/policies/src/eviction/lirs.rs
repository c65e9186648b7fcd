//! LIRS: keeps blocks whose last two selections were close together; the others pass through a small queue.
//! S. Jiang, X. Zhang, "LIRS: an efficient low inter-reference recency set replacement policy", SIGMETRICS 2002,
//! <https://doi.org/10.1145/511334.511340>.
//!
//! One percent of the slots, at least one, is for HIR blocks; with a single slot every block is one. Non-resident
//! blocks on the stack are bounded by the number of slots, the first that left being forgotten first (the paper
//! sets no bound). Victims: the oldest resident HIR block; where all of those are pinned, the LIR block lowest on the
//! stack. Total order: the queue's, then the stack's.

use super::classic::ClassicPolicy;
use super::ghosts::{GHOST_BYTES_PER_BLOCK, Ghosts};
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
const OFF_STACK: u32 = u32::MAX;

/// Where a block is: its place on the stack, and its slot. One line for both, since who prunes the stack asks for both.
#[derive(Clone, Copy)]
struct Standing {
    place: u32,
    slot: Slot,
}

/// Neither on the stack nor resident.
const NEVER_SEEN: Standing = Standing { place: OFF_STACK, slot: Slot::NONE };

/// The recency stack, as a log: a push appends, and entries that a later push overtook are skipped.
struct Stack {
    log: Vec<BlockId>,
    bottom: usize,
    blocks: Vec<Standing>,
}

impl Stack {
    fn new(blocks: u32, slots: u32) -> Stack {
        let log = Vec::with_capacity(12 * slots as usize + 64);
        Stack { log, bottom: 0, blocks: vec![NEVER_SEEN; blocks as usize] }
    }

    #[inline(always)]
    fn holds(&self, block: BlockId) -> bool {
        self.blocks[block.index()].place != OFF_STACK
    }

    #[inline(always)]
    fn push(&mut self, block: BlockId) {
        if self.log.len() == self.log.capacity() {
            self.drop_overtaken();
        }
        self.blocks[block.index()].place = u32::try_from(self.log.len()).expect("a log counts in 32 bits");
        self.log.push(block);
    }

    #[cold]
    fn drop_overtaken(&mut self) {
        let mut kept = 0;
        for at in self.bottom..self.log.len() {
            let block = self.log[at];
            if self.blocks[block.index()].place as usize == at {
                self.log[kept] = block;
                self.blocks[block.index()].place =
                    u32::try_from(kept).expect("rewriting only moves entries down");
                kept += 1;
            }
        }
        self.log.truncate(kept);
        self.bottom = 0;
    }

    fn remove(&mut self, block: BlockId) {
        self.blocks[block.index()].place = OFF_STACK;
    }

    /// Blocks from the bottom up.
    fn upwards(&self) -> impl Iterator<Item = BlockId> + '_ {
        let entries = self.log.iter().enumerate().skip(self.bottom);
        entries
            .filter(|&(at, block)| self.blocks[block.index()].place as usize == at)
            .map(|(_, &block)| block)
    }
}

/// LIR and HIR blocks, the stack, and the queue of resident HIR blocks.
pub struct Lirs {
    stack: Stack,
    hir: SlotQueues,
    /// Non-resident blocks on the stack.
    ghosts: Ghosts<1>,
    is_lir: Vec<bool>,
    block_of: Vec<BlockId>,
    lir: u32,
    lir_slots: u32,
}

impl Lirs {
    /// Takes blocks off the bottom of the stack until a LIR block stands there.
    fn prune(&mut self) {
        while let Some(&block) = self.stack.log.get(self.stack.bottom) {
            if self.stack.blocks[block.index()].place as usize == self.stack.bottom {
                let slot = self.stack.blocks[block.index()].slot;
                if slot != Slot::NONE && self.is_lir[slot.index()] {
                    return;
                }
                self.stack.remove(block);
                if slot == Slot::NONE {
                    self.ghosts.take(block);
                }
            }
            self.stack.bottom += 1;
        }
    }

    fn promote(&mut self, slot: Slot) {
        self.hir.remove(slot);
        self.is_lir[slot.index()] = true;
        self.lir += 1;
    }

    /// Makes the lowest LIR blocks HIR while there are too many.
    fn demote_overflow(&mut self) {
        while self.lir > self.lir_slots {
            let bottom = self.stack.log[self.stack.bottom];
            let slot = self.stack.blocks[bottom.index()].slot;
            self.is_lir[slot.index()] = false;
            self.lir -= 1;
            self.hir.push_front(0, slot);
            self.prune();
        }
    }

    fn lowest_lir(&self, pins: &Pins<'_>) -> Option<Slot> {
        let resident = self.stack.upwards().map(|block| self.stack.blocks[block.index()].slot);
        resident
            .filter(|&slot| slot != Slot::NONE && self.is_lir[slot.index()])
            .find(|&slot| !pins.holds(slot))
    }
}

impl ClassicPolicy for Lirs {
    const NAME: &'static str = "lirs";
    const SUMMARY: &'static str = "keeps blocks whose last two selections were close together";
    /// Two links, block and class; ghosts, the place on the stack and the slot.
    const STATE: StateClass =
        StateClass { per_slot: 13, per_block: GHOST_BYTES_PER_BLOCK + 8, per_stream: 0 };
    type Params = LirsParams;

    fn new(params: LirsParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let hir = percent_of("hot.params.hir_percent", params.hir_percent, shape.slots)?;
        Ok(Lirs {
            stack: Stack::new(shape.blocks, shape.slots),
            hir: SlotQueues::new(shape.slots, 1),
            ghosts: Ghosts::new(shape.blocks, shape.slots as usize),
            is_lir: vec![false; shape.slots as usize],
            block_of: vec![BlockId::NONE; shape.slots as usize],
            lir: 0,
            lir_slots: shape.slots.saturating_sub(hir),
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let block = self.block_of[slot.index()];
        let place = self.stack.blocks[block.index()].place;
        let was_at_bottom = place as usize == self.stack.bottom;
        self.stack.push(block);
        if self.is_lir[slot.index()] {
            // Any other leaves a LIR block at the bottom.
            if was_at_bottom {
                self.prune();
            }
        } else if place != OFF_STACK {
            self.promote(slot);
            self.prune();
            self.demote_overflow();
        } else {
            self.hir.push_front(0, slot);
        }
    }

    #[inline(always)]
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        // The bound on ghosts must not push out the very block that comes back.
        self.ghosts.recall(incoming);
        let victim = self.hir.oldest_evictable(0, pins).or_else(|| self.lowest_lir(pins));
        let victim = victim.expect("an evictable slot holds a LIR or a HIR block");
        let block = std::mem::replace(&mut self.block_of[victim.index()], BlockId::NONE);
        self.stack.blocks[block.index()].slot = Slot::NONE;
        if std::mem::take(&mut self.is_lir[victim.index()]) {
            self.stack.remove(block);
            self.lir -= 1;
            self.prune();
        } else if self.stack.holds(block) {
            self.ghosts.add(0, block);
        }
        self.hir.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, block: BlockId) {
        self.block_of[slot.index()] = block;
        self.stack.blocks[block.index()].slot = slot;
        // A ghost that was forgotten left its place on the stack behind; it counts as new.
        let back = self.ghosts.take(block) && self.stack.holds(block);
        self.stack.push(block);
        if back || self.lir < self.lir_slots {
            self.promote(slot);
            self.prune();
            self.demote_overflow();
        } else {
            self.is_lir[slot.index()] = false;
            self.hir.push_front(0, slot);
            if self.lir == 0 {
                self.prune();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

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
