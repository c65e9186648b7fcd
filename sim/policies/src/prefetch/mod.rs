//! Prefetch: the trait, the table that registers every prefetcher, and the candidates each one proposes.

mod next_ranked;

use crate::PolicyError;
use crate::eviction::StepView;
use kvtier_units::BlockId;

pub use next_ranked::NextRanked;

/// Proposes blocks to bring before they are demanded.
pub trait Prefetcher: Send {
    /// Appends candidates in order of preference, none of them resident, at most `budget`.
    fn propose(&mut self, view: &StepView<'_>, budget: u32, out: &mut Vec<BlockId>);
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
    build: fn() -> Option<Box<dyn Prefetcher>>,
}

impl Entry {
    /// A prefetcher for one stream; `None` where nothing is ever prefetched.
    pub fn build(&self) -> Option<Box<dyn Prefetcher>> {
        (self.build)()
    }
}

/// Every prefetcher, in the order in which they are listed to users.
pub const PREFETCH: &[Entry] = &[
    Entry { name: "none", summary: "never prefetches", reads_near: false, build: || None },
    Entry {
        name: "next-ranked",
        summary: "brings the blocks ranked just below the selection, best first",
        reads_near: true,
        build: || Some(Box::new(NextRanked)),
    },
];

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
