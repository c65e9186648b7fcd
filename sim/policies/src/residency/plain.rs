//! Plain replay: selections of one block each, without plans, prefetch or warm pages. Apart from the step, because with one
//! block nothing has to be pinned, ranked or planned, and what is left is a loop of a few instructions.

use super::{BEEN, Residency};
use crate::eviction::EvictionPolicy;
use crate::{Foresight, Selection};
use kvtier_units::{BlockId, Slot};

impl<E: EvictionPolicy> Residency<E> {
    /// Replays the accesses; returns the misses. While slots are free, and for policies that know nothing else, each is a
    /// step.
    pub(super) fn access_all(&mut self, blocks: &[BlockId], next_use: &[u32]) -> u64 {
        assert_eq!(self.unused_prefetches, 0, "nothing is prefetched in a plain replay");
        // One block alone pins nobody else, and is resident before it is pinned: so no slot is stamped, and none stays pinned.
        self.tables.epoch += 1;
        self.tables.missed = 0;
        let mut misses = 0;
        let mut at = 0;
        while at < blocks.len() && (!E::PLAIN || self.free_slots() > 0) {
            let foresight = next_use.get(at..=at);
            misses += u64::from(self.access_as_step(&blocks[at..=at], foresight));
            at += 1;
        }
        let rest = &blocks[at..];
        if rest.is_empty() {
            return misses;
        }
        self.policy.begin_plain();
        if E::NEEDS_FUTURE {
            misses + self.access_full(rest.iter().copied().zip(next_use[at..].iter().copied()))
        } else {
            misses + self.access_full(rest.iter().map(|&block| (block, u32::MAX)))
        }
    }

    /// One access, fed to the policy as the step that it is; whether it missed.
    #[inline(always)]
    fn access_as_step(&mut self, block: &[BlockId], next_use: Option<&[u32]>) -> bool {
        let foresight = next_use.map(|next_use| Foresight { next_use, grown_next_use: u32::MAX });
        let selection = Selection { blocks: block, foresight, ..Selection::NOTHING };
        let found = self.tables.slot_of[block[0].index()];
        if found != Slot::NONE {
            self.policy.touch(&self.tables.view(&selection, &[found]));
            return false;
        }
        self.tables.ranks[0] = 0;
        self.tables.missed = 1;
        self.choose_victims(&selection, &[Slot::NONE], None, usize::from(self.free_slots() == 0));
        let slot = self.take_slot(0);
        let victim = std::mem::replace(&mut self.tables.block_of[slot.index()], block[0]);
        if victim != BlockId::NONE {
            self.tables.slot_of[victim.index()] = Slot::NONE;
        }
        self.tables.slot_of[block[0].index()] = slot;
        // Neither free nor pinned, in this and every later access.
        self.tables.pinned_in[slot.index()] = 0;
        self.history[block[0].index()] = BEEN;
        self.policy.touch(&self.tables.view(&selection, &[slot]));
        self.tables.missed = 0;
        true
    }

    /// Accesses to a full buffer, each with its block's next use; returns the misses.
    #[inline(always)]
    fn access_full(&mut self, accesses: impl Iterator<Item = (BlockId, u32)>) -> u64 {
        let (policy, history) = (&mut self.policy, &mut self.history[..]);
        let (slot_of, block_of) = (&mut self.tables.slot_of[..], &mut self.tables.block_of[..]);
        let mut misses = 0;
        for (block, next_use) in accesses {
            let slot = slot_of[block.index()];
            if slot != Slot::NONE {
                policy.hit(slot, next_use);
                continue;
            }
            misses += 1;
            let slot = policy.replace(block, next_use, block_of);
            let victim = std::mem::replace(&mut block_of[slot.index()], block);
            slot_of[victim.index()] = Slot::NONE;
            slot_of[block.index()] = slot;
            history[block.index()] = BEEN;
        }
        misses
    }
}
