//! Last-steps: during a layer, brings for the next one what that next layer selected in its last steps and no longer
//! holds.
//!
//! The literal "previous step of the next layer" is empty: a buffer of at least one selection still holds all of the last
//! one, for only a later step may evict it. So the reading here looks back further, most recent first, and a block may
//! take the place of less recent ones only. Under lru next to nothing is left even so: what it holds is more recent than
//! what it dropped.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want, within};
use crate::eviction::StepView;
use crate::{PolicyError, Selection};
use kvtier_units::BlockId;
use serde::Deserialize;
use std::collections::VecDeque;

/// Parameters of [`LastSteps`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LastStepsParams {
    /// Steps that are remembered; the first of them is always resident.
    pub window: u32,
}

impl Default for LastStepsParams {
    fn default() -> LastStepsParams {
        LastStepsParams { window: 8 }
    }
}

/// Brings back what the stream selected lately, most recent first.
#[derive(Clone, Debug)]
pub struct LastSteps {
    source: Option<u32>,
    /// The last selections, most recent first.
    past: VecDeque<Vec<BlockId>>,
    window: usize,
}

impl Prefetcher for LastSteps {
    /// Its lead alone: the source's selection is not read.
    fn source(&self) -> Option<u32> {
        self.source
    }

    fn ahead(&mut self, _: &Selection<'_>, out: &mut Vec<Want>) {
        for (due, blocks) in (0u32..).zip(&self.past) {
            out.extend(blocks.iter().map(|&block| Want { block, due }));
        }
    }

    fn propose(&mut self, view: &StepView<'_>, _: &Upcoming<'_>, _: &mut Vec<Want>) {
        let oldest = if self.past.len() == self.window { self.past.pop_back() } else { None };
        let mut blocks = oldest.unwrap_or_default();
        blocks.clear();
        blocks.extend_from_slice(view.selection.blocks);
        self.past.push_front(blocks);
    }
}

impl PrefetchPolicy for LastSteps {
    const NAME: &'static str = "last-steps";
    const SUMMARY: &'static str = "during the layer before, brings back what was selected lately and dropped";
    const AHEAD: bool = true;
    type Params = LastStepsParams;

    fn new(params: LastStepsParams, shape: PrefetchShape) -> Result<LastSteps, PolicyError> {
        within("prefetch.params.window", params.window, 2..=1000)?;
        Ok(LastSteps {
            source: shape.layer.checked_sub(1),
            past: VecDeque::with_capacity(params.window as usize),
            window: params.window as usize,
        })
    }

    fn state_bytes(params: &LastStepsParams, k: u32) -> u64 {
        4 * u64::from(params.window) * u64::from(k)
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn what_was_dropped_lately_comes_back_for_what_is_older() {
        let mut bench = Bench::new("fifo", 4, 9);
        bench.prefetcher("last-steps", "", 1, 4);
        for step in [[0, 1], [2, 3], [0, 1], [0, 4]] {
            assert_eq!(bench.step_after(&[], &step).brought(), [0; 0]);
        }
        // 1 went for 4, as 0 was pinned. It was selected later than 2 and 3 and takes the place of the older of them.
        let plan = bench.step_after(&[], &[0, 4]);
        assert_eq!((plan.brought(), plan.brought_for()), (vec![1], vec![2]));
    }

    #[test]
    fn lru_holds_the_most_recent_already() {
        let mut bench = Bench::new("lru", 3, 9);
        bench.prefetcher("last-steps", "window = 5", 1, 4);
        for step in [[0, 1], [2, 3], [4, 5], [0, 1], [2, 0]] {
            let plan = bench.step_after(&[], &step);
            assert_eq!(plan.brought(), [0; 0]);
        }
    }
}
