//! Admission to the warm pages: which blocks that leave a hot buffer get a frame there, and the one table that registers
//! every policy. Adding one is a file here and a line in [`ADMISSION`].
//!
//! A layer settles in this order: blocks that went back to a hot buffer leave the pages; then every block that left a
//! hot buffer is judged, in (stream, victim) order, and enters if it is admitted; then the oldest leave until all fit.
//! A block that the pages hold already (of a shared prefix) only becomes newest again and is not judged.

mod always;
mod never;
mod score;
mod second_touch;
mod sketch;

use crate::{PolicyError, StreamPlan};
use kvtier_units::{BlockId, Slot};
use serde::de::DeserializeOwned;

pub use always::Always;
pub use never::Never;
pub use score::{Score, ScoreParams};
pub use second_touch::{SecondTouch, SecondTouchParams};
pub use sketch::{Sketch, SketchParams};

/// Every admission policy, in the order in which they are listed to users.
pub static ADMISSION: &[Entry] =
    &[entry::<Always>(), entry::<Never>(), entry::<SecondTouch>(), entry::<Sketch>(), entry::<Score>()];

/// One block wherever it is known: streams that share a prefix name its blocks alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Table of the stream, or of its prefix group's stream.
    pub table: u32,
    /// The block.
    pub block: BlockId,
}

/// A block that leaves a hot buffer.
#[derive(Clone, Copy, Debug)]
pub struct Leaver {
    /// The stream it leaves, by the number under which it was opened.
    pub stream: u32,
    /// The slot it leaves; what took it is not credited yet.
    pub slot: Slot,
    /// The plane's step.
    pub step: u32,
    /// The block.
    pub page: Page,
    /// The warm block that it would push out; none where a frame is free.
    pub rival: Option<Page>,
}

/// What one stream did in one step, after all its slots are filled.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The plane's step.
    pub step: u32,
    /// The stream, by the number under which it was opened.
    pub stream: u32,
    /// Its plan.
    pub plan: &'a StreamPlan,
    /// Slot of each near miss, best rank first, `Slot::NONE` where it is not resident; empty unless the policy reads them.
    pub near: &'a [Slot],
}

/// Who may enter the warm pages. Streams are numbered as they are opened, and numbers are used again.
pub trait Gate: Send {
    /// A stream of `slots` slots starts; nothing is known of its blocks.
    fn open(&mut self, _stream: u32, _slots: u32) {}

    /// A stream demanded a block that was not in its hot buffer; told before the layer's leavers are judged.
    fn demand(&mut self, _page: Page) {}

    /// Whether a block that leaves a hot buffer enters the warm pages.
    fn admits(&mut self, leaver: &Leaver) -> bool;

    /// A stream's buffer has so many slots from now on; survivors moved from slots beyond to others, as (from, to).
    fn resize(&mut self, _stream: u32, _slots: u32, _moved: &[(Slot, Slot)]) {}

    /// Takes note of a stream's step, after its leavers were judged.
    fn credit(&mut self, _seen: &Seen<'_>) {}
}

/// Bytes of state that an admission policy keeps, charged to HBM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateState {
    /// Bytes per slot of the hot buffers.
    pub per_slot: u32,
    /// Bytes per warm frame.
    pub per_frame: u32,
}

/// An admission policy as it is registered.
pub trait AdmissionPolicy: Gate + Sized + 'static {
    /// Name in configurations.
    const NAME: &'static str;
    /// One line for `kvtier policies`.
    const SUMMARY: &'static str;
    /// Whether it reads near misses; they are decoded only for those that do.
    const READS_NEAR: bool = false;
    /// Bytes of state it keeps.
    const STATE: GateState;
    /// Its parameters, all with defaults.
    type Params: DeserializeOwned;

    /// A policy for `frames` warm pages.
    ///
    /// # Errors
    /// If a parameter is out of range.
    fn new(params: Self::Params, frames: usize) -> Result<Self, PolicyError>;
}

/// One registered policy.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in configurations.
    pub name: &'static str,
    /// One line for `kvtier policies`.
    pub summary: &'static str,
    /// Whether it reads near misses.
    pub reads_near: bool,
    /// Bytes of state it keeps.
    pub state: GateState,
    build: Build,
}

/// Builds a gate from its policy's parameters.
type Build = fn(&toml::Table, usize) -> Result<Box<dyn Gate>, PolicyError>;

impl Entry {
    /// A gate to `frames` warm pages.
    ///
    /// # Errors
    /// If `params` has an unknown, ill-typed or wrong field.
    pub fn build(&self, params: &toml::Table, frames: usize) -> Result<Box<dyn Gate>, PolicyError> {
        (self.build)(params, frames)
    }
}

/// A policy and its parameters.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The policy.
    pub entry: Entry,
    /// Its parameters.
    pub params: toml::Table,
}

impl Choice {
    /// A gate to `frames` warm pages.
    ///
    /// # Errors
    /// If a parameter is unknown, ill-typed or wrong.
    pub fn build(&self, frames: usize) -> Result<Box<dyn Gate>, PolicyError> {
        self.entry.build(&self.params, frames)
    }
}

impl Default for Choice {
    /// Everything enters.
    fn default() -> Choice {
        Choice { entry: entry::<Always>(), params: toml::Table::new() }
    }
}

/// The table line of a policy. A policy outside this crate is registered by extending a table of its own.
pub const fn entry<A: AdmissionPolicy>() -> Entry {
    Entry {
        name: A::NAME,
        summary: A::SUMMARY,
        reads_near: A::READS_NEAR,
        state: A::STATE,
        build: build::<A>,
    }
}

fn build<A: AdmissionPolicy>(params: &toml::Table, frames: usize) -> Result<Box<dyn Gate>, PolicyError> {
    let params = params.clone().try_into::<A::Params>().map_err(|error| PolicyError::Params {
        field: "warm.params",
        message: format!("admission `{}`: {}", A::NAME, error.message()),
    })?;
    Ok(Box::new(A::new(params, frames)?))
}

/// The policy of that name in `table`.
///
/// # Errors
/// If there is none; the error lists all and suggests the nearest.
pub fn find<'a>(table: &'a [Entry], name: &str) -> Result<&'a Entry, PolicyError> {
    table.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|entry| entry.name).collect();
        PolicyError::unknown("warm.admission", "admission policy", name, &known)
    })
}

/// Rearranges what is kept per slot of a buffer that changed its size.
fn resize_slots<T: Copy + Default>(state: &mut Vec<T>, slots: u32, moved: &[(Slot, Slot)]) {
    let slots = slots as usize;
    state.resize(state.len().max(slots), T::default());
    moved.iter().for_each(|&(from, to)| state[to.index()] = state[from.index()]);
    state.truncate(slots);
}

/// A parameter that is out of range.
fn wrong(field: &'static str, message: &str) -> PolicyError {
    PolicyError::Params { field, message: message.into() }
}
