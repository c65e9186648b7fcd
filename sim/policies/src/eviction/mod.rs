//! Eviction: the trait, what a policy sees of a step, and the one table that registers every policy.
//! Adding a policy is one file here and one line in [`EVICTION`].

mod aged_score;
mod arc;
mod attention_mass;
mod belady;
mod classic;
mod clock;
mod echo;
mod fifo;
mod gdsf;
mod ghosts;
mod hyperbolic;
mod lazy_heap;
mod lfu;
mod lfu_aging;
mod lirs;
mod lru;
mod lru_k;
mod lru_step;
mod random;
mod rank_recency;
mod region_utility;
mod s3_fifo;
mod scores;
mod sieve;
mod slru;
mod tagged_ghost;
mod two_lists;
mod two_q;
mod w_tinylfu;

use crate::demotion::Tier;
use crate::residency::{HotBuffer, Residency};
use crate::{PolicyError, Selection};
use kvtier_units::{BlockId, Seed, Slot};
use serde::de::DeserializeOwned;

pub use aged_score::AgedScore;
pub use arc::Arc;
pub use attention_mass::AttentionMass;
pub use belady::Belady;
pub use classic::{Classic, ClassicPolicy};
pub use clock::{Clock, ClockParams};
pub use echo::{Echo, EchoParams, GhostWorth, NearTiming};
pub use fifo::Fifo;
pub use gdsf::{Gdsf, GdsfParams};
pub use hyperbolic::Hyperbolic;
pub use lfu::Lfu;
pub use lfu_aging::{LfuAging, LfuAgingParams};
pub use lirs::{Lirs, LirsParams};
pub use lru::Lru;
pub use lru_k::{LruK, LruKParams, LruKVariant};
pub use lru_step::LruStep;
pub use random::Random;
pub use rank_recency::{RankRecency, RankRecencyParams};
pub use region_utility::{RegionUtility, RegionUtilityParams};
pub use s3_fifo::{S3Fifo, S3FifoParams, S3FifoVariant};
pub use scores::FadeParams;
pub use sieve::Sieve;
pub use slru::{Slru, SlruParams, SlruVariant};
pub use two_q::{TwoQ, TwoQParams};
pub use w_tinylfu::{WTinyLfu, WTinyLfuParams};

/// Every eviction policy, in the order in which they are listed to users.
pub static EVICTION: &[Entry] = &[
    entry::<Fifo>(),
    entry::<Clock>(),
    entry::<Lru>(),
    entry::<LruStep>(),
    entry::<Classic<Lfu>>(),
    entry::<Classic<Sieve>>(),
    entry::<Classic<Slru>>(),
    entry::<Classic<TwoQ>>(),
    entry::<Classic<Arc>>(),
    entry::<Classic<LruK>>(),
    entry::<Classic<Lirs>>(),
    entry::<Classic<S3Fifo>>(),
    entry::<Classic<WTinyLfu>>(),
    entry::<Classic<Gdsf>>(),
    entry::<LfuAging>(),
    entry::<Hyperbolic>(),
    entry::<RankRecency>(),
    entry::<AgedScore>(),
    entry::<AttentionMass>(),
    entry::<RegionUtility>(),
    entry::<Echo>(),
    entry::<Random>(),
    entry::<Belady>(),
];

/// What one buffer looks like to its policy.
#[derive(Clone, Copy, Debug)]
pub struct BufferShape {
    /// Slots of the hot buffer.
    pub slots: u32,
    /// Blocks that the stream's context can ever hold.
    pub blocks: u32,
    /// Blocks per selection, at most.
    pub k: u32,
    /// Seed of this stream's random decisions.
    pub seed: Seed,
}

/// Bytes of state that a policy keeps, charged to HBM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateClass {
    /// Bytes per slot.
    pub per_slot: u32,
    /// Bytes per block of the context: gigabytes at long contexts, so zero for most.
    pub per_block: u32,
    /// Bytes per stream, whatever its slots and context.
    pub per_stream: u32,
}

/// Why a block enters a slot outside the demand path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It is there when the request starts.
    Start,
    /// A prefetch brings it.
    Prefetch,
    /// It has just been filled with its last entry.
    Growth,
}

/// Which slots may not be evicted now: pinned by this step, or free (there is nothing to evict).
#[derive(Clone, Copy, Debug)]
pub struct Pins<'a> {
    pub(crate) stamps: &'a [u32],
    pub(crate) epoch: u32,
}

impl Pins<'_> {
    /// Every slot may be evicted, however many there are.
    pub const NOTHING: Pins<'static> = Pins { stamps: &[], epoch: 0 };

    /// Whether the slot may not be evicted.
    #[inline(always)]
    pub fn holds(&self, slot: Slot) -> bool {
        self.stamps.get(slot.index()).is_some_and(|&stamp| stamp >= self.epoch)
    }

    /// Slots of the buffer.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.stamps.len()).expect("a hot buffer has fewer than 2^32 slots")
    }

    /// The slots that may be evicted, ascending.
    pub fn evictable(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.slots()).map(Slot).filter(|&slot| !self.holds(slot))
    }
}

/// What a policy sees of a step. Before the fill the slots of misses are `Slot::NONE`; in `touch` all are known.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// What is selected.
    pub selection: &'a Selection<'a>,
    /// Slot of each selected block, in rank order.
    pub slots: &'a [Slot],
    /// Ranks of the blocks that were not in the buffer, ascending; they fill slots in this order.
    pub misses: &'a [u32],
    /// The block that a prefetch or growth is about to bring; `None` on the demand path, where the misses enter.
    pub entering: Option<BlockId>,
    /// Slots that may not be evicted.
    pub pins: Pins<'a>,
    /// The stream's page table: the slot of every block, `Slot::NONE` where it is not resident.
    pub slot_of: &'a [Slot],
    /// The block in every slot, `BlockId::NONE` where it is free.
    pub block_of: &'a [BlockId],
}

impl StepView<'_> {
    /// Slots loaded by this step, in fill order; only meaningful after the fill.
    #[inline]
    pub fn loaded(&self) -> impl ExactSizeIterator<Item = Slot> + '_ {
        self.misses.iter().map(|&rank| self.slots[rank as usize])
    }
}

/// An eviction policy over the slots of one hot buffer. State is per slot and restarts when a slot is filled.
///
/// A step calls `victims` (before any credit), then `touch` once all of the selection is resident, then for
/// each further block `victims` if no slot is free, and `insert`.
pub trait EvictionPolicy: Sized + Send + 'static {
    /// Name in configurations.
    const NAME: &'static str;
    /// One line for `kvtier policies`.
    const SUMMARY: &'static str;
    /// Whether it needs to know the future.
    const NEEDS_FUTURE: bool = false;
    /// Whether it reads near misses; they are decoded only for those that do.
    const READS_NEAR: bool = false;
    /// Whether it reads scores; they are decoded only for those that do.
    const READS_SCORES: bool = false;
    /// Whether it asks from which home tier blocks come.
    const READS_HOMES: bool = false;
    /// Whether its buffers can change their size during a run.
    const RESIZES: bool = false;
    /// Whether it can replay single accesses to a full buffer through `begin_plain`, `hit` and `replace`; else each is fed to
    /// it as a step.
    const PLAIN: bool = false;
    /// Bytes of state it keeps.
    const STATE: StateClass;
    /// Its parameters, all with defaults.
    type Params: DeserializeOwned;

    /// A policy for an empty buffer.
    ///
    /// # Errors
    /// If a parameter is out of range.
    fn new(params: Self::Params, shape: BufferShape) -> Result<Self, PolicyError>;

    /// Appends exactly `need` distinct evictable slots, in victim order. At least that many are evictable.
    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>);

    /// Credits this step's selection; every slot of it is filled.
    fn touch(&mut self, view: &StepView<'_>);

    /// Single accesses follow, until a method is called that is neither `hit` nor `replace`.
    fn begin_plain(&mut self) {}

    /// Decides as `touch` does where the block in `slot` is all that is selected.
    fn hit(&mut self, slot: Slot, next_use: u32) {
        unreachable!("{} is fed steps: slot {slot:?}, next use {next_use}", Self::NAME);
    }

    /// Decides as `victims` and then `touch` do where `block` is all that is selected, no slot is free and none is
    /// pinned: the slot in which it replaces the victim. `block_of` is as it was before.
    fn replace(&mut self, block: BlockId, next_use: u32, block_of: &[BlockId]) -> Slot {
        unreachable!(
            "{} is fed steps: {block:?} into {} slots, next use {next_use}",
            Self::NAME,
            block_of.len()
        );
    }

    /// Takes note of one more fill, outside the demand path. `next_use` is Belady's, `u32::MAX` otherwise.
    fn insert(&mut self, view: &StepView<'_>, slot: Slot, why: Insertion, next_use: u32);

    /// Follows `touch` or `insert` for every block that was just brought, where the policy reads homes: the tier that
    /// would have to bring it again. Blocks that start in the buffer, or grow there, count as host's.
    fn brought_from(&mut self, slot: Slot, tier: Tier) {
        unreachable!("{} does not read homes, and {slot:?} came from {tier:?}", Self::NAME);
    }

    /// Between two steps the buffer has `kept.len()` slots from now on; slot i holds what stood in `kept[i]`, with its
    /// state, or is free where that is `Slot::NONE`. Blocks named nowhere have left; `victims` named them, one by one.
    /// A policy that implements this sets [`RESIZES`](EvictionPolicy::RESIZES).
    fn resize(&mut self, kept: &[Slot]) {
        unreachable!("{} does not resize, and nothing was to move to {} slots", Self::NAME, kept.len());
    }
}

/// Parameters of a policy that has none.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// That percentage of the slots, rounded down, but at least one.
///
/// # Errors
/// If it is more than ten times all of them.
fn percent_of(field: &'static str, percent: u32, slots: u32) -> Result<u32, PolicyError> {
    if percent > 1000 {
        let message = format!("{percent} percent of the slots; give at most 1000");
        return Err(PolicyError::Params { field, message });
    }
    let part = u64::from(slots) * u64::from(percent) / 100;
    Ok(u32::try_from(part).expect("ten times the slots of a buffer count in 32 bits").max(1))
}

/// One registered policy.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in configurations.
    pub name: &'static str,
    /// One line for `kvtier policies`.
    pub summary: &'static str,
    /// Whether it needs to know the future.
    pub needs_future: bool,
    /// Whether it reads near misses.
    pub reads_near: bool,
    /// Whether it reads scores.
    pub reads_scores: bool,
    /// Whether its buffers can change their size during a run.
    pub resizes: bool,
    /// Bytes of state it keeps.
    pub state: StateClass,
    build: Build,
}

/// Builds a hot buffer from its policy's parameters.
type Build = fn(&toml::Table, BufferShape) -> Result<Box<dyn HotBuffer>, PolicyError>;

impl Entry {
    /// A hot buffer run by this policy.
    ///
    /// # Errors
    /// If `params` has an unknown or ill-typed field.
    pub fn build(&self, params: &toml::Table, shape: BufferShape) -> Result<Box<dyn HotBuffer>, PolicyError> {
        if shape.slots < shape.k {
            return Err(PolicyError::BufferTooSmall { slots: shape.slots, k: shape.k });
        }
        (self.build)(params, shape)
    }
}

/// The table line of a policy. A policy outside this crate is registered by extending a table of its own.
pub const fn entry<E: EvictionPolicy>() -> Entry {
    Entry {
        name: E::NAME,
        summary: E::SUMMARY,
        needs_future: E::NEEDS_FUTURE,
        reads_near: E::READS_NEAR,
        reads_scores: E::READS_SCORES,
        resizes: E::RESIZES,
        state: E::STATE,
        build: build::<E>,
    }
}

fn build<E: EvictionPolicy>(
    params: &toml::Table,
    shape: BufferShape,
) -> Result<Box<dyn HotBuffer>, PolicyError> {
    let params = params.clone().try_into::<E::Params>().map_err(|error| PolicyError::Params {
        field: "hot.params",
        message: format!("policy `{}`: {}", E::NAME, error.message()),
    })?;
    Ok(Box::new(Residency::new(E::new(params, shape)?, shape)))
}

/// The policy of that name in `table`.
///
/// # Errors
/// If there is none; the error lists all and suggests the nearest.
pub fn find<'a>(table: &'a [Entry], name: &str) -> Result<&'a Entry, PolicyError> {
    table.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|entry| entry.name).collect();
        PolicyError::unknown("hot.policy", "eviction policy", name, &known)
    })
}
