//! Demotion: in which order blocks move from one home tier to the next one down, and the one table that registers every
//! policy. Adding one is a file here and a line in [`DEMOTION`].
//!
//! When and how many move is not the policy's affair: `home/tiers.rs` moves blocks at step boundaries, from above a
//! tier's high watermark to its low one, and asks here which is next.

mod age;
mod lists;
mod utility;

use crate::PolicyError;
use serde::de::DeserializeOwned;

pub use age::Age;
pub use utility::{Utility, UtilityParams};

/// Every demotion policy, in the order in which they are listed to users.
pub static DEMOTION: &[Entry] = &[
    Entry {
        name: "none",
        summary: "nothing moves down: what does not fit the host pool is infeasible",
        bytes_per_block: 0,
        build: |_| Ok(None),
    },
    entry::<Age>(),
    entry::<Utility>(),
];

/// Where a block has its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Tier {
    /// Host memory.
    Host = 0,
    /// CXL memory.
    Cxl = 1,
    /// NVMe storage.
    Nvme = 2,
}

impl Tier {
    /// All tiers, from the top down.
    pub const ALL: [Tier; 3] = [Tier::Host, Tier::Cxl, Tier::Nvme];
}

/// A block at home; dense, and used again after the block is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeId(pub u32);

impl HomeId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The order in which the blocks of every tier move down.
pub trait Descent: Send {
    /// A new block, of which nothing is known; it enters a tier next.
    fn create(&mut self, id: HomeId);

    /// A block enters a tier.
    fn enter(&mut self, id: HomeId, tier: Tier);

    /// A block leaves its tier: for another one, or for good.
    fn leave(&mut self, id: HomeId, tier: Tier);

    /// A block was brought to a hot buffer from its home, by a miss or a prefetch.
    fn demand(&mut self, id: HomeId, tier: Tier);

    /// A step begins.
    fn begin_step(&mut self, _step: u32) {}

    /// The block of a tier that moves down next; none where it is empty.
    fn next(&self, tier: Tier) -> Option<HomeId>;
}

/// A demotion policy as it is registered.
pub trait DemotionPolicy: Descent + Sized + 'static {
    /// Name in configurations.
    const NAME: &'static str;
    /// One line for `kvtier policies`.
    const SUMMARY: &'static str;
    /// Bytes of state per block at home, kept in host memory.
    const BYTES_PER_BLOCK: u32;
    /// Its parameters, all with defaults.
    type Params: DeserializeOwned;

    /// A policy for empty tiers.
    ///
    /// # Errors
    /// If a parameter is out of range.
    fn new(params: Self::Params) -> Result<Self, PolicyError>;
}

/// One registered policy.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in configurations.
    pub name: &'static str,
    /// One line for `kvtier policies`.
    pub summary: &'static str,
    /// Bytes of state per block at home.
    pub bytes_per_block: u32,
    build: Build,
}

/// Builds a policy from its parameters; `None` where nothing moves down.
type Build = fn(&toml::Table) -> Result<Option<Box<dyn Descent>>, PolicyError>;

/// A policy and its parameters.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The policy.
    pub entry: Entry,
    /// Its parameters.
    pub params: toml::Table,
}

impl Default for Choice {
    /// Nothing moves down.
    fn default() -> Choice {
        Choice { entry: DEMOTION[0], params: toml::Table::new() }
    }
}

impl Choice {
    /// The policy for empty tiers; `None` where nothing moves down.
    ///
    /// # Errors
    /// If a parameter is unknown, ill-typed or wrong.
    pub fn build(&self) -> Result<Option<Box<dyn Descent>>, PolicyError> {
        (self.entry.build)(&self.params)
    }
}

/// The table line of a policy. A policy outside this crate is registered by extending a table of its own.
pub const fn entry<D: DemotionPolicy>() -> Entry {
    Entry { name: D::NAME, summary: D::SUMMARY, bytes_per_block: D::BYTES_PER_BLOCK, build: build::<D> }
}

fn build<D: DemotionPolicy>(params: &toml::Table) -> Result<Option<Box<dyn Descent>>, PolicyError> {
    let params = params.clone().try_into::<D::Params>().map_err(|error| PolicyError::Params {
        field: "demotion.params",
        message: format!("demotion `{}`: {}", D::NAME, error.message()),
    })?;
    Ok(Some(Box::new(D::new(params)?)))
}

/// The policy of that name in `table`.
///
/// # Errors
/// If there is none; the error lists all and suggests the nearest.
pub fn find<'a>(table: &'a [Entry], name: &str) -> Result<&'a Entry, PolicyError> {
    table.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|entry| entry.name).collect();
        PolicyError::unknown("demotion.policy", "demotion policy", name, &known)
    })
}
