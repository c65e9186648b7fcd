//! Prefetch: the traits, what a prefetcher sees and says, and the one table that registers every prefetcher.
//! Adding one is one file here and one line in [`PREFETCH`].

mod anchor_layer;
mod association;
mod last_steps;
mod next_layer;
mod next_ranked;
mod oracle;

use crate::eviction::{NoParams, StepView};
use crate::{PolicyError, Selection};
use kvtier_units::BlockId;
use serde::de::DeserializeOwned;
use std::fmt;

pub use anchor_layer::{AnchorLayer, AnchorLayerParams};
pub use association::{Association, AssociationParams};
pub use last_steps::{LastSteps, LastStepsParams};
pub use next_layer::{NextLayer, NextLayerParams};
pub use next_ranked::NextRanked;
pub use oracle::{Oracle, OracleParams};

/// Every prefetcher, in the order in which they are listed to users.
pub static PREFETCH: &[Entry] = &[
    Entry {
        name: "none",
        summary: "never prefetches",
        reads_near: false,
        needs_future: false,
        ahead: false,
        prefetches: false,
        build: build_none,
        state: |_, _| Ok(0),
    },
    entry::<NextRanked>(),
    entry::<LastSteps>(),
    entry::<Association>(),
    entry::<NextLayer>(),
    entry::<AnchorLayer>(),
    entry::<Oracle>(),
];

/// A block that a prefetcher expects to be demanded, and how soon: the smaller `due`, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The block; it may be resident.
    pub block: BlockId,
    /// When it is expected, in units of the prefetcher's own.
    pub due: u32,
}

/// Lists blocks to hold or to bring before they are demanded. It runs either ahead of its stream's look-up, or after
/// the step has been credited; the rule by which its list becomes fills is in ARCHITECTURE.md.
pub trait Prefetcher: Send {
    /// The layer on whose behalf it runs ahead: an earlier one, whose selection of this step is known by then.
    fn source(&self) -> Option<u32> {
        None
    }

    /// Steps that it must see in advance; only a bound that cannot be built needs any.
    fn look_ahead(&self) -> u32 {
        0
    }

    /// Appends what it wants before the stream's look-up, best first. `source` is the selection, in this very step, of
    /// the same head group in the source layer. Called only where there is a source layer.
    fn ahead(&mut self, source: &Selection<'_>, out: &mut Vec<Want>) {
        let _ = (source, out);
    }

    /// Appends what it wants after the step has been credited, best first; called in every step. A prefetcher that runs
    /// ahead lists nothing here and only learns.
    fn propose(&mut self, view: &StepView<'_>, upcoming: &Upcoming<'_>, out: &mut Vec<Want>);
}

/// What a prefetcher is besides a [`Prefetcher`]: its name, its parameters, and the state it keeps.
pub trait PrefetchPolicy: Prefetcher + Sized + 'static {
    /// Name in configurations.
    const NAME: &'static str;
    /// One line for `kvtier policies`.
    const SUMMARY: &'static str;
    /// Whether it reads near misses; they are decoded only for those that do.
    const READS_NEAR: bool = false;
    /// Whether it needs to know the future: a bound, not a policy.
    const NEEDS_FUTURE: bool = false;
    /// Whether it runs ahead of the look-up, in the layers where it has a source.
    const AHEAD: bool = false;
    /// Its parameters, all with defaults.
    type Params: DeserializeOwned;

    /// A prefetcher for one stream that has seen nothing.
    ///
    /// # Errors
    /// If a parameter is out of range.
    fn new(params: Self::Params, shape: PrefetchShape) -> Result<Self, PolicyError>;

    /// Bytes of state per stream for selections of at most `k` blocks, charged to HBM.
    fn state_bytes(params: &Self::Params, k: u32) -> u64;
}

/// What one stream looks like to its prefetcher.
#[derive(Clone, Copy, Debug)]
pub struct PrefetchShape {
    /// The stream's layer, of those that select.
    pub layer: u32,
    /// Blocks that the stream's context can ever hold.
    pub blocks: u32,
    /// Blocks per selection, at most.
    pub k: u32,
}

/// What a stream will select, as far as it was asked for.
#[derive(Clone, Copy, Default)]
pub struct Upcoming<'a> {
    look: Option<&'a dyn Fn(u32) -> Option<&'a [BlockId]>>,
    complete: u32,
}

impl<'a> Upcoming<'a> {
    /// `look(n)` is the selection n steps later; blocks from `complete` on are not filled yet.
    pub fn new(look: &'a dyn Fn(u32) -> Option<&'a [BlockId]>, complete: u32) -> Upcoming<'a> {
        Upcoming { look: Some(look), complete }
    }

    /// Those blocks selected `steps` steps later, from one, that are filled by now; best first.
    pub fn selection(&self, steps: u32) -> impl Iterator<Item = BlockId> + 'a {
        let blocks = self.look.and_then(|look| look(steps)).unwrap_or(&[]);
        let complete = self.complete;
        blocks.iter().copied().filter(move |block| block.0 < complete)
    }
}

impl fmt::Debug for Upcoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcoming").field("complete", &self.complete).finish_non_exhaustive()
    }
}

/// One registered prefetcher.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in configurations.
    pub name: &'static str,
    /// One line for `kvtier policies`.
    pub summary: &'static str,
    /// Whether it reads near misses.
    pub reads_near: bool,
    /// Whether it needs to know the future.
    pub needs_future: bool,
    /// Whether it runs ahead of the look-up.
    pub ahead: bool,
    /// Whether it ever brings a block.
    pub prefetches: bool,
    build: Build,
    state: fn(&toml::Table, u32) -> Result<u64, PolicyError>,
}

/// Builds a stream's prefetcher from its parameters.
type Build = fn(&toml::Table, PrefetchShape) -> Result<Option<Box<dyn Prefetcher>>, PolicyError>;

impl Entry {
    /// A prefetcher for one stream; `None` where nothing is ever prefetched.
    ///
    /// # Errors
    /// If `params` has an unknown, ill-typed or out-of-range field.
    pub fn build(
        &self,
        params: &toml::Table,
        shape: PrefetchShape,
    ) -> Result<Option<Box<dyn Prefetcher>>, PolicyError> {
        (self.build)(params, shape)
    }

    /// Bytes of state per stream for selections of at most `k` blocks.
    ///
    /// # Errors
    /// If `params` has an unknown or ill-typed field.
    pub fn state_bytes(&self, params: &toml::Table, k: u32) -> Result<u64, PolicyError> {
        (self.state)(params, k)
    }
}

/// The table line of a prefetcher. One outside this crate is registered by extending a table of its own.
pub const fn entry<P: PrefetchPolicy>() -> Entry {
    Entry {
        name: P::NAME,
        summary: P::SUMMARY,
        reads_near: P::READS_NEAR,
        needs_future: P::NEEDS_FUTURE,
        ahead: P::AHEAD,
        prefetches: true,
        build: |table, shape| Ok(Some(Box::new(P::new(params(P::NAME, table)?, shape)?))),
        state: |table, k| Ok(P::state_bytes(&params(P::NAME, table)?, k)),
    }
}

fn build_none(table: &toml::Table, _: PrefetchShape) -> Result<Option<Box<dyn Prefetcher>>, PolicyError> {
    params::<NoParams>("none", table).map(|_| None)
}

fn params<T: DeserializeOwned>(name: &str, table: &toml::Table) -> Result<T, PolicyError> {
    table.clone().try_into().map_err(|error: toml::de::Error| PolicyError::Params {
        field: "prefetch.params",
        message: format!("prefetcher `{name}`: {}", error.message()),
    })
}

/// The prefetcher of that name.
///
/// # Errors
/// If there is none; the error lists all and suggests the nearest.
pub fn find(name: &str) -> Result<&'static Entry, PolicyError> {
    PREFETCH.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = PREFETCH.iter().map(|entry| entry.name).collect();
        PolicyError::unknown("prefetch.policy", "prefetch policy", name, &known)
    })
}

/// Everything that `source` selects, in its order, all due at once: what is resident is held, the rest is brought.
fn want_all(source: &Selection<'_>, out: &mut Vec<Want>) {
    out.extend(source.blocks.iter().map(|&block| Want { block, due: 0 }));
}

/// A parameter that must lie within a range.
fn within(field: &'static str, value: u32, range: std::ops::RangeInclusive<u32>) -> Result<(), PolicyError> {
    if range.contains(&value) {
        return Ok(());
    }
    let message = format!("{value} is not within {}..{}", range.start(), range.end());
    Err(PolicyError::Params { field, message })
}
