//! One stream's hot buffer: what is resident, and the exact order of one step. Generic over the policy, so that
//! the loop over a selection is monomorphic and only whole selections are dispatched.

use crate::eviction::{BufferShape, EvictionPolicy, Insertion, StepView};
use crate::home::HomeLookup;
use crate::prefetch::{Prefetcher, Upcoming};
use crate::warm::WarmLookup;
use crate::{Counts, Fill, Resized, Selection, Source, StreamPlan};
use kvtier_units::{BlockId, Slot};
use prefetching::Wants;
use tables::Tables;

mod plain;
mod prefetching;
mod resize;
mod tables;

pub(crate) use resize::relocate;

/// Bytes of one page-table entry or slot tag.
const TAG_BYTES: u64 = 4;
/// The block has been in HBM.
const BEEN: u8 = 1;
/// A prefetch evicted the block, and it has not been resident since.
const PREFETCH_EVICTED: u8 = 2;

/// A hot buffer whose policy is chosen at run time.
pub trait HotBuffer: Send {
    /// Makes blocks resident before the first step, least recent first; they have been in HBM.
    /// `next_use` is parallel to `blocks` for policies that need the future, and empty otherwise.
    fn start(&mut self, blocks: &[BlockId], next_use: &[u32]);

    /// Declares that blocks `0..blocks` have been in HBM, so that missing them is never cold.
    fn mark_prefilled(&mut self, blocks: u32);

    /// Changes the number of slots between two steps and says what left and what moved. Blocks leave only where they
    /// exceed the new size: victims of the policy, in its order; then the survivors in slots beyond it move to the
    /// lowest free slots, in slot order.
    ///
    /// # Panics
    /// If the policy cannot be resized, or `slots` cannot hold one selection.
    fn resize(&mut self, slots: u32, out: &mut Resized);

    /// Decides one step. `step` is the plane's, for the age of prefetches.
    fn step(
        &mut self,
        step: u32,
        selection: &Selection<'_>,
        prefetch: Option<Prefetch<'_>>,
        below: Below<'_>,
        plan: &mut StreamPlan,
    );

    /// Replays steps that select one block each, without plans, prefetch or warm pages: what a plain cache simulator
    /// does, decided exactly as `step` decides. `next_use` is parallel to `blocks` for policies that need the future,
    /// and empty otherwise. Returns the misses.
    fn access(&mut self, blocks: &[BlockId], next_use: &[u32]) -> u64;

    /// Prefetched blocks that stand in the buffer without ever having been demanded.
    fn unused_prefetches(&self) -> u64;

    /// Blocks in the buffer by slot, `BlockId::NONE` where a slot is free.
    fn blocks(&self) -> &[BlockId];

    /// Slot of a block, `Slot::NONE` where it is not resident.
    fn slot_of(&self, block: BlockId) -> Slot;
}

/// What a stream finds below its hot buffer, as it stood at the layer's start.
#[derive(Clone, Copy, Debug)]
pub struct Below<'a> {
    /// The warm pages.
    pub warm: WarmLookup<'a>,
    /// Where blocks have their homes.
    pub home: HomeLookup<'a>,
}

impl Below<'_> {
    /// No warm pages, and every home in host memory.
    pub const HOST: Below<'static> = Below { warm: WarmLookup::NONE, home: HomeLookup::HOST };
}

/// Who proposes prefetches for a stream, and how many it may bring in one step.
pub struct Prefetch<'a> {
    /// Proposes candidates.
    pub prefetcher: &'a mut dyn Prefetcher,
    /// Blocks per step, at most.
    pub budget: u32,
    /// What the prefetcher's source layer selects in this step; `None` where it has none.
    pub source: Option<Selection<'a>>,
    /// What the stream selects next, as far as the prefetcher looks ahead.
    pub upcoming: Upcoming<'a>,
}

/// A hot buffer run by policy `E`.
pub struct Residency<E> {
    policy: E,
    tables: Tables,
    /// Slots `filled..` are free; slots fill in ascending order and never empty again.
    filled: usize,
    /// Step that prefetched the block now in the slot, plus one; zero once demanded or if not prefetched.
    prefetched_in: Vec<u32>,
    unused_prefetches: u64,
    /// `BEEN` and `PREFETCH_EVICTED` per block.
    history: Vec<u8>,
    victims: Vec<Slot>,
    wants: Wants,
}

impl<E: EvictionPolicy> Residency<E> {
    /// An empty buffer.
    ///
    /// # Panics
    /// If the buffer cannot hold one selection.
    pub fn new(policy: E, shape: BufferShape) -> Residency<E> {
        assert!(shape.slots >= shape.k, "a buffer holds at least one selection");
        let slots = shape.slots as usize;
        Residency {
            policy,
            tables: Tables::new(shape),
            filled: 0,
            prefetched_in: vec![0; slots],
            unused_prefetches: 0,
            history: vec![0; shape.blocks as usize],
            victims: Vec::with_capacity(slots),
            wants: Wants::default(),
        }
    }

    fn free_slots(&self) -> usize {
        self.tables.block_of.len() - self.filled
    }

    /// Asks the policy for victims among the evictable slots.
    #[inline(always)]
    fn choose_victims(
        &mut self,
        selection: &Selection<'_>,
        slots: &[Slot],
        entering: Option<BlockId>,
        need: usize,
    ) {
        self.victims.clear();
        if need > 0 {
            let view = StepView { entering, ..self.tables.view(selection, slots) };
            self.policy.victims(&view, need, &mut self.victims);
            assert_eq!(self.victims.len(), need, "a policy names exactly as many victims as are needed");
        }
    }

    /// The slot for the next fill: the lowest free one, else the next victim's.
    #[inline(always)]
    fn take_slot(&mut self, victim: usize) -> Slot {
        if self.filled < self.tables.block_of.len() {
            self.filled += 1;
            Slot::at(self.filled - 1)
        } else {
            self.victims[victim]
        }
    }

    /// Puts `block` into `slot`, pins it, and books the victim.
    #[inline(always)]
    fn fill(&mut self, block: BlockId, slot: Slot, warm: bool, counts: &mut Counts) -> Fill {
        assert!(self.tables.pinned_in[slot.index()] != self.tables.epoch, "a pinned block is never evicted");
        let victim = std::mem::replace(&mut self.tables.block_of[slot.index()], block);
        if victim != BlockId::NONE {
            self.tables.slot_of[victim.index()] = Slot::NONE;
            counts.evictions += 1;
            if std::mem::take(&mut self.prefetched_in[slot.index()]) != 0 {
                counts.wasted += 1;
                self.unused_prefetches -= 1;
            }
        }
        counts.metadata_bytes += TAG_BYTES * if victim == BlockId::NONE { 2 } else { 3 };
        self.tables.slot_of[block.index()] = slot;
        self.tables.pinned_in[slot.index()] = self.tables.epoch;
        Fill { block, slot, victim, source: if warm { Source::Warm } else { Source::Home } }
    }

    /// Brings the misses in rank order and classes them.
    fn load_misses(&mut self, selection: &Selection<'_>, warm: WarmLookup<'_>, plan: &mut StreamPlan) {
        let need = self.tables.missed.saturating_sub(self.free_slots());
        self.choose_victims(selection, &plan.slots, None, need);
        let mut victim = 0;
        for at in 0..self.tables.missed {
            let rank = self.tables.ranks[at] as usize;
            let block = selection.blocks[rank];
            let is_warm = warm.holds(block);
            let from_victims = self.free_slots() == 0;
            let slot = self.take_slot(victim);
            victim += usize::from(from_victims);
            let fill = self.fill(block, slot, is_warm, &mut plan.counts);
            plan.slots[rank] = slot;
            plan.loads.push(fill);
            let history = std::mem::replace(&mut self.history[block.index()], BEEN);
            if is_warm {
                plan.counts.warm_hits += 1;
            } else {
                plan.counts.misses += 1;
                plan.counts.cold += u64::from(history & BEEN == 0);
                plan.counts.pollution += u64::from(history & PREFETCH_EVICTED != 0);
            }
        }
    }

    /// Counts first demands of prefetched blocks among the hits.
    fn credit_prefetches(&mut self, plan: &mut StreamPlan) {
        if self.unused_prefetches == 0 {
            return;
        }
        for &slot in &plan.slots {
            let issued = std::mem::take(&mut self.prefetched_in[slot.index()]);
            if issued != 0 {
                plan.prefetch_uses.push(issued - 1);
                self.unused_prefetches -= 1;
            }
        }
        plan.counts.prefetched += plan.prefetch_uses.len() as u64;
    }

    /// One more fill after the demand path, where a slot can be had.
    fn insert(
        &mut self,
        selection: &Selection<'_>,
        block: BlockId,
        why: Insertion,
        warm: bool,
        next_use: u32,
        plan: &mut StreamPlan,
    ) -> Option<Fill> {
        if self.free_slots() == 0 {
            self.tables.view(selection, &plan.slots).pins.evictable().next()?;
            self.choose_victims(selection, &plan.slots, Some(block), 1);
        }
        let slot = self.take_slot(0);
        let fill = self.fill(block, slot, warm, &mut plan.counts);
        let view = StepView { entering: Some(block), ..self.tables.view(selection, &plan.slots) };
        self.policy.insert(&view, slot, why, next_use);
        self.history[block.index()] = BEEN;
        Some(fill)
    }

    fn grow(&mut self, selection: &Selection<'_>, block: BlockId, plan: &mut StreamPlan) {
        plan.counts.written_back += 1;
        self.history[block.index()] = BEEN;
        let next_use = selection.foresight.map_or(u32::MAX, |foresight| foresight.grown_next_use);
        match self.insert(selection, block, Insertion::Growth, false, next_use, plan) {
            Some(fill) => plan.growth = Some(Fill { source: Source::Grown, ..fill }),
            None => plan.counts.homebound += 1,
        }
    }
}

impl<E: EvictionPolicy> HotBuffer for Residency<E> {
    fn start(&mut self, blocks: &[BlockId], next_use: &[u32]) {
        assert!(
            blocks.len() <= self.tables.block_of.len() && self.filled == 0,
            "a request starts within an empty buffer"
        );
        let mut plan = StreamPlan::default();
        for (at, &block) in blocks.iter().enumerate() {
            let next = next_use.get(at).copied().unwrap_or(u32::MAX);
            let filled = self.insert(&Selection::NOTHING, block, Insertion::Start, false, next, &mut plan);
            filled.expect("an empty buffer has a free slot for every starting block");
        }
    }

    fn mark_prefilled(&mut self, blocks: u32) {
        self.history[..blocks as usize].fill(BEEN);
    }

    fn step(
        &mut self,
        step: u32,
        selection: &Selection<'_>,
        mut prefetch: Option<Prefetch<'_>>,
        below: Below<'_>,
        plan: &mut StreamPlan,
    ) {
        plan.clear();
        if let Some(prefetch) = &mut prefetch {
            self.prefetch_ahead(step, prefetch, below, plan);
        }
        self.tables.look_up(selection, &mut plan.slots);
        plan.newest = selection.newest;
        plan.counts.newest = u64::from(selection.newest);
        plan.counts.accesses = selection.blocks.len() as u64 + plan.counts.newest;
        plan.counts.hits = (selection.blocks.len() - self.tables.missed) as u64;
        plan.counts.metadata_bytes += u64::from(E::STATE.per_slot) * selection.blocks.len() as u64;
        if self.tables.missed > 0 {
            self.load_misses(selection, below.warm, plan);
        }
        self.credit_prefetches(plan);
        self.policy.touch(&self.tables.view(selection, &plan.slots));
        if E::READS_HOMES {
            for fill in &plan.loads {
                self.policy.brought_from(fill.slot, below.home.tier(fill.block));
            }
        }
        if let Some(prefetch) = prefetch {
            self.prefetch_after(step, selection, prefetch, below, plan);
        }
        if let Some(block) = selection.grown {
            self.grow(selection, block, plan);
        }
    }

    fn access(&mut self, blocks: &[BlockId], next_use: &[u32]) -> u64 {
        self.access_all(blocks, next_use)
    }

    fn resize(&mut self, slots: u32, out: &mut Resized) {
        self.change_size(slots, out);
    }

    fn unused_prefetches(&self) -> u64 {
        self.unused_prefetches
    }

    fn blocks(&self) -> &[BlockId] {
        &self.tables.block_of
    }

    fn slot_of(&self, block: BlockId) -> Slot {
        self.tables.slot_of[block.index()]
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
