//! Next-ranked: what the selector ranked just below the cut is likely to be selected soon.

use super::Prefetcher;
use crate::eviction::StepView;
use kvtier_units::{BlockId, Slot};

/// Proposes near misses that are not resident, best rank first.
#[derive(Clone, Copy, Debug)]
pub struct NextRanked;

impl Prefetcher for NextRanked {
    fn propose(&mut self, view: &StepView<'_>, budget: u32, out: &mut Vec<BlockId>) {
        let absent =
            view.selection.near.iter().copied().filter(|block| view.slot_of[block.index()] == Slot::NONE);
        out.extend(absent.take(budget as usize));
    }
}
