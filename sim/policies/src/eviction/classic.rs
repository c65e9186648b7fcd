//! Textbook policies: one access at a time, behind an adapter that feeds them whole steps.
//!
//! A step first evicts once per miss that finds no free slot, in rank order; then credits its selection from the
//! worst rank to the best, hits and insertions alike. So rank 0 ends most recent, and with one block a step this is
//! the textbook's sequence of look-up, eviction and insertion.

use super::{BufferShape, EvictionPolicy, Insertion, Pins, StateClass, StepView};
use crate::PolicyError;
use crate::demotion::Tier;
use kvtier_units::{BlockId, Slot};
use serde::de::DeserializeOwned;

/// A policy that sees one access at a time.
pub trait ClassicPolicy: Sized + Send + 'static {
    /// Name in configurations.
    const NAME: &'static str;
    /// One line for `kvtier policies`.
    const SUMMARY: &'static str;
    /// Whether it asks from which home tier blocks come.
    const READS_HOMES: bool = false;
    /// Whether its buffers can change their size during a run.
    const RESIZES: bool = false;
    /// Bytes of state it keeps.
    const STATE: StateClass;
    /// Its parameters, all with defaults.
    type Params: DeserializeOwned;

    /// A policy for an empty buffer.
    ///
    /// # Errors
    /// If a parameter is out of range.
    fn new(params: Self::Params, shape: BufferShape) -> Result<Self, PolicyError>;

    /// The block in the slot was selected.
    fn on_hit(&mut self, slot: Slot);

    /// Takes a victim out of the policy's queues to make room for `incoming`. At least one slot that the queues hold
    /// is evictable; pinned slots are passed over and stay as they are. `block_of` is the block in every slot.
    fn evict(&mut self, incoming: BlockId, pins: &Pins<'_>, block_of: &[BlockId]) -> Slot;

    /// The block entered the slot: a free one, or that of a victim.
    fn on_insert(&mut self, slot: Slot, block: BlockId);

    /// `evict` and then `on_insert` where nothing is pinned, as in [`EvictionPolicy::replace`]: a policy may know a shorter way.
    #[inline(always)]
    fn replace(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        let slot = self.evict(block, &Pins::NOTHING, block_of);
        self.on_insert(slot, block);
        slot
    }

    /// Where the block came from, as in [`EvictionPolicy::brought_from`].
    fn brought_from(&mut self, slot: Slot, tier: Tier) {
        unreachable!("{} does not read homes, and {slot:?} came from {tier:?}", Self::NAME);
    }

    /// The buffer changed its size, as in [`EvictionPolicy::resize`].
    fn resize(&mut self, kept: &[Slot]) {
        unreachable!("{} does not resize, and nothing was to move to {} slots", Self::NAME, kept.len());
    }
}

/// Feeds steps to a textbook policy.
pub struct Classic<P>(P);

impl<P: ClassicPolicy> EvictionPolicy for Classic<P> {
    const NAME: &'static str = P::NAME;
    const SUMMARY: &'static str = P::SUMMARY;
    const READS_HOMES: bool = P::READS_HOMES;
    const RESIZES: bool = P::RESIZES;
    const PLAIN: bool = true;
    const STATE: StateClass = P::STATE;
    type Params = P::Params;

    fn new(params: P::Params, shape: BufferShape) -> Result<Self, PolicyError> {
        P::new(params, shape).map(Classic)
    }

    #[inline(always)]
    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        if let Some(incoming) = view.entering {
            assert_eq!(need, 1, "outside the demand path blocks enter one by one");
            return out.push(self.0.evict(incoming, &view.pins, view.block_of));
        }
        // The first misses take the free slots.
        for &rank in &view.misses[view.misses.len() - need..] {
            let incoming = view.selection.blocks[rank as usize];
            out.push(self.0.evict(incoming, &view.pins, view.block_of));
        }
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        let mut misses = view.misses.iter().rev().copied().peekable();
        for (rank, (&slot, &block)) in view.slots.iter().zip(view.selection.blocks).enumerate().rev() {
            if misses.next_if(|&miss| miss as usize == rank).is_some() {
                self.0.on_insert(slot, block);
            } else {
                self.0.on_hit(slot);
            }
        }
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot, _: u32) {
        self.0.on_hit(slot);
    }

    #[inline(always)]
    fn replace(&mut self, block: BlockId, _: u32, block_of: &[BlockId]) -> Slot {
        self.0.replace(block, block_of)
    }

    fn insert(&mut self, view: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.0.on_insert(slot, view.block_of[slot.index()]);
    }

    fn brought_from(&mut self, slot: Slot, tier: Tier) {
        self.0.brought_from(slot, tier);
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.0.resize(kept);
    }
}
