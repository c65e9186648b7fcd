//! Allocation: how the slots of one HBM budget are shared among layers, head groups and requests. The trait, what an
//! allocator may know, and the one table that registers every allocator.

mod ages;
mod fixed;
mod follow;
mod split;
mod utility;

use crate::eviction::StateClass;
use crate::{PolicyError, Selection};

pub use fixed::StaticParams;
pub use split::split;
pub use utility::UtilityParams;

/// Shares a budget among streams. It sees selections and nothing else, and speaks at step boundaries alone.
pub trait Allocator: Send {
    /// A request whose context can hold `blocks` blocks takes a seat. Returns the slots with which its streams start.
    fn join(&mut self, seat: u32, blocks: u32) -> Vec<u32>;

    /// The request in a seat has left.
    fn leave(&mut self, seat: u32);

    /// Takes note of what a stream selected in the step that has just been decided.
    fn observe(&mut self, seat: u32, stream: usize, selection: &Selection<'_>);

    /// Before a step: the slots of each stream of every seat where any changes.
    fn resize(&mut self) -> Vec<(u32, Vec<u32>)>;
}

/// What an allocator shares.
#[derive(Clone, Debug)]
pub struct BudgetShape {
    /// Slots per stream of an even share, one figure per layer. Their sum over the streams of all seats is the budget.
    pub slots: Vec<u32>,
    /// KV-head groups per layer.
    pub head_groups: u32,
    /// Blocks per selection, at most: no stream has fewer slots.
    pub k: u32,
}

impl BudgetShape {
    /// The even share of every stream, `layer * head_groups + head_group`.
    pub fn even(&self) -> Vec<u32> {
        let heads = self.head_groups as usize;
        self.slots.iter().flat_map(|&slots| std::iter::repeat_n(slots, heads)).collect()
    }
}

/// One registered allocator.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in configurations.
    pub name: &'static str,
    /// One line for `kvtier policies`.
    pub summary: &'static str,
    /// Bytes of state it keeps.
    pub state: StateClass,
    /// Whether sizes change during a run, which the eviction policy must allow.
    pub resizes: bool,
    build: Build,
}

/// Builds an allocator from its parameters; none where every stream has its even share for good.
type Build = fn(&toml::Table, &BudgetShape) -> Result<Option<Box<dyn Allocator>>, PolicyError>;

impl Entry {
    /// The allocator for a budget; `None` where every stream has its even share for good.
    ///
    /// # Errors
    /// If `params` has an unknown or ill-typed field, or does not fit the budget.
    pub fn build(
        &self,
        params: &toml::Table,
        shape: &BudgetShape,
    ) -> Result<Option<Box<dyn Allocator>>, PolicyError> {
        (self.build)(params, shape)
    }
}

/// An allocator and its parameters.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// The allocator.
    pub entry: Entry,
    /// Its parameters.
    pub params: toml::Table,
}

impl Default for Allocation {
    /// The same slots for every stream.
    fn default() -> Allocation {
        Allocation { entry: ALLOCATION[0], params: toml::Table::new() }
    }
}

/// Every allocator, in the order in which they are listed to users.
pub static ALLOCATION: &[Entry] = &[
    Entry {
        name: "uniform",
        summary: "the same slots for every stream",
        state: StateClass { per_slot: 0, per_block: 0, per_stream: 0 },
        resizes: false,
        build: |params, _| {
            fixed::read::<fixed::UniformParams>("uniform", params)?;
            Ok(None)
        },
    },
    Entry {
        name: "static",
        summary: "slots as listed, per layer or per layer and head group; `kvtier mrc --split` prints such lists",
        state: StateClass { per_slot: 0, per_block: 0, per_stream: 0 },
        resizes: false,
        build: |params, shape| Ok(Some(Box::new(fixed::Fixed::new(params, shape)?))),
    },
    Entry {
        name: "utility",
        summary: "learns how often blocks of each age are wanted again; layers and head groups share by it",
        state: utility::STATE,
        resizes: true,
        build: |params, shape| Ok(Some(Box::new(utility::Utility::new(params, shape, false)?))),
    },
    Entry {
        name: "adaptive",
        summary: "the same across layers, head groups and requests, under one budget",
        state: utility::STATE,
        resizes: true,
        build: |params, shape| Ok(Some(Box::new(utility::Utility::new(params, shape, true)?))),
    },
];

/// The allocator of that name.
///
/// # Errors
/// If there is none; the error lists all and suggests the nearest.
pub fn find(name: &str) -> Result<&'static Entry, PolicyError> {
    ALLOCATION.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALLOCATION.iter().map(|entry| entry.name).collect();
        PolicyError::unknown("hot.allocation", "allocator", name, &known)
    })
}
