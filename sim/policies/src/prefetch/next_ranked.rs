//! Next-ranked: what the selector ranked just below the cut is likely to be selected soon.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want};
use crate::PolicyError;
use crate::eviction::{NoParams, StepView};
use kvtier_units::Slot;

/// Brings near misses that are not resident, best rank first.
#[derive(Clone, Copy, Debug)]
pub struct NextRanked;

impl Prefetcher for NextRanked {
    fn propose(&mut self, view: &StepView<'_>, _: &Upcoming<'_>, out: &mut Vec<Want>) {
        // Near misses that are resident are not held: the eviction policy has seen them too, and values them itself.
        let absent = view.selection.near.iter().filter(|block| view.slot_of[block.index()] == Slot::NONE);
        out.extend(absent.map(|&block| Want { block, due: 0 }));
    }
}

impl PrefetchPolicy for NextRanked {
    const NAME: &'static str = "next-ranked";
    const SUMMARY: &'static str = "brings the blocks ranked just below the selection, best first";
    const READS_NEAR: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, _: PrefetchShape) -> Result<NextRanked, PolicyError> {
        Ok(NextRanked)
    }

    fn state_bytes(_: &NoParams, _: u32) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;
    use kvtier_units::BlockId;

    #[test]
    fn the_best_absent_near_misses_are_brought() {
        let mut bench = Bench::new("lru", 4, 9);
        bench.prefetcher("next-ranked", "", 0, 2);
        bench.near = [0, 5, 4, 3].map(BlockId).to_vec();
        assert_eq!(bench.step(&[0]).brought(), [5, 4], "0 is selected; the budget is two");
    }
}
