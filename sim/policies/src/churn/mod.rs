//! Replay by churn: a step costs time in proportion to what changed in the selection, not to its size. For sweeps that
//! ask what is missed, loaded and evicted, and not in which slot each hit stands.
//!
//! # Which policies allow it, and why
//! After a step its whole selection is resident. So of the next one only blocks that *entered* (they were not selected
//! before) can miss. What is left to show is that a hit which merely stays selected needs no work:
//!
//! - **fifo**: no hit changes the order, so only misses do. Pins come and go with blocks that enter and leave.
//! - **lru-step**: a step moves its loaded blocks and then its hits, both in an order that they already have, behind
//!   everything else. Blocks that stay selected therefore stand last in every step and keep their order
//!   among themselves, so it is enough to know from when until when each was selected (`lru_step.rs`).
//! - **lru** does not: it touches by rank, and ranks change from step to step where the blocks do not. Neither do policies that
//!   count selections (clock's bits, lfu, lirs, ...) without more work, nor **belady**, whose order is the next
//!   use of every selected block.
//!
//! Prefetch and warm pages are left out: both act on blocks that no selection names.

mod diff;
mod fifo;
mod frames;
mod lru_step;

use crate::Fill;
use crate::eviction::BufferShape;
use kvtier_units::BlockId;

pub use diff::SelectionDiff;
pub use fifo::FifoChurn;
pub use lru_step::LruStepChurn;

/// What changed between two consecutive selections of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Blocks selected now and not in the step before, best rank first.
    pub entered: &'a [BlockId],
    /// Blocks selected in the step before and not now, in any order.
    pub left: &'a [BlockId],
    /// Blocks selected now.
    pub selected: usize,
}

/// What a step loads; the same fills as in the plan of a whole step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChurnPlan {
    /// Misses, in rank order.
    pub loads: Vec<Fill>,
    /// Of the misses, blocks never yet in HBM.
    pub cold: u64,
    /// The newly filled block, where it found a slot.
    pub growth: Option<Fill>,
}

/// A hot buffer that is told changes instead of selections. Its loads, victims and slots are those of the plain replay.
pub trait ChurnReplay {
    /// Makes blocks resident before the first step, least recent first; they have been in HBM.
    fn start(&mut self, blocks: &[BlockId]);

    /// Declares that blocks `0..blocks` have been in HBM, so that missing them is never cold.
    fn mark_prefilled(&mut self, blocks: u32);

    /// Decides one step; `grown` is the block that the step fills.
    fn step(&mut self, change: &Change<'_>, grown: Option<BlockId>) -> &ChurnPlan;
}

/// The replay by churn of an eviction policy, for those that have one.
///
/// # Panics
/// If the buffer cannot hold one selection.
pub fn build(policy: &str, shape: BufferShape) -> Option<Box<dyn ChurnReplay>> {
    match policy {
        "fifo" => Some(Box::new(FifoChurn::new(shape))),
        "lru-step" => Some(Box::new(LruStepChurn::new(shape))),
        _ => None,
    }
}
