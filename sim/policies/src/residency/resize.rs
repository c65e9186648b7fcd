//! A buffer changes its size between two steps: the policy names victims, and survivors beyond the new size move to the
//! lowest free slots. Apart from the step itself, which never sees a size change.

use super::{Residency, TAG_BYTES};
use crate::eviction::{EvictionPolicy, StepView};
use crate::{Resized, Selection};
use kvtier_units::{BlockId, Slot};

impl<E: EvictionPolicy> Residency<E> {
    /// Victims leave one by one, each chosen as for a block that enters outside the demand path: nothing ages.
    pub(super) fn change_size(&mut self, slots: u32, out: &mut Resized) {
        assert!(E::RESIZES, "only buffers of policies that can be resized are");
        assert!(slots as usize >= self.tables.ranks.len(), "a buffer holds at least one selection");
        out.clear(slots);
        // A new epoch: what the last step pinned may go.
        self.tables.epoch += 1;
        self.tables.missed = 0;
        for _ in slots as usize..self.filled {
            self.give_up_slot(out);
        }
        let kept = self.keep(slots, out);
        self.filled = kept.iter().filter(|&&slot| slot != Slot::NONE).count();
        relocate(&mut self.tables.block_of, &kept, BlockId::NONE);
        relocate(&mut self.prefetched_in, &kept, 0);
        self.tables.pinned_in.pop();
        relocate(&mut self.tables.pinned_in, &kept, u32::MAX);
        self.tables.pinned_in.push(u32::MAX);
        for &(_, to) in &out.moved {
            self.tables.slot_of[self.tables.block_of[to.index()].index()] = to;
        }
        out.counts.evictions = out.evicted.len() as u64;
        out.counts.metadata_bytes =
            2 * TAG_BYTES * out.counts.evictions + 3 * TAG_BYTES * out.moved.len() as u64;
        self.policy.resize(&kept);
    }

    fn give_up_slot(&mut self, out: &mut Resized) {
        let nothing =
            Selection { blocks: &[], scores: &[], near: &[], newest: false, grown: None, foresight: None };
        self.victims.clear();
        let view = StepView { entering: Some(BlockId::NONE), ..self.tables.view(&nothing, &[]) };
        self.policy.victims(&view, 1, &mut self.victims);
        assert_eq!(self.victims.len(), 1, "a policy names exactly as many victims as are needed");
        let slot = self.victims[0];
        assert!(self.tables.pinned_in[slot.index()] != u32::MAX, "a free slot holds nothing to give up");
        let block = std::mem::replace(&mut self.tables.block_of[slot.index()], BlockId::NONE);
        self.tables.slot_of[block.index()] = Slot::NONE;
        self.tables.pinned_in[slot.index()] = u32::MAX;
        if std::mem::take(&mut self.prefetched_in[slot.index()]) != 0 {
            out.counts.wasted += 1;
            self.unused_prefetches -= 1;
        }
        out.evicted.push(block);
        out.left.push(slot);
    }

    /// For each slot of the new size the slot whose block it holds from now on, `Slot::NONE` where it is free.
    fn keep(&self, slots: u32, out: &mut Resized) -> Vec<Slot> {
        let holds = |slot: usize| self.tables.block_of[slot] != BlockId::NONE;
        let old = self.tables.block_of.len();
        let mut displaced = (slots as usize..old).filter(|&slot| holds(slot));
        (0..slots as usize)
            .map(|to| {
                if to < old && holds(to) {
                    return Slot::at(to);
                }
                let Some(from) = displaced.next() else { return Slot::NONE };
                out.moved.push((Slot::at(from), Slot::at(to)));
                Slot::at(from)
            })
            .collect()
    }
}

/// Rearranges what is kept per slot: slot i takes what stood in `kept[i]`, or `free`.
pub(crate) fn relocate<T: Copy>(state: &mut Vec<T>, kept: &[Slot], free: T) {
    *state = kept.iter().map(|&slot| if slot == Slot::NONE { free } else { state[slot.index()] }).collect();
}
