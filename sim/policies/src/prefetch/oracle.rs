//! Oracle: the bound of prefetch. It sees the next steps, brings first what is demanded soonest, and never for the
//! place of a block that is demanded as soon. It bounds what better prediction could save within a budget, not what a
//! better choice of victims could: demand misses still evict by the eviction policy alone.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want, within};
use crate::PolicyError;
use crate::eviction::StepView;
use serde::Deserialize;

/// Parameters of [`Oracle`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OracleParams {
    /// Steps that it sees in advance.
    pub look_ahead: u32,
}

impl Default for OracleParams {
    fn default() -> OracleParams {
        OracleParams { look_ahead: 8 }
    }
}

/// Brings what is demanded soonest within the steps it sees.
#[derive(Clone, Debug)]
pub struct Oracle {
    look_ahead: u32,
    /// The last step in which each block was listed, so that it is listed once.
    listed_in: Vec<u32>,
    step: u32,
}

impl Prefetcher for Oracle {
    fn look_ahead(&self) -> u32 {
        self.look_ahead
    }

    fn propose(&mut self, _: &StepView<'_>, upcoming: &Upcoming<'_>, out: &mut Vec<Want>) {
        self.step += 1;
        for due in 1..=self.look_ahead {
            for block in upcoming.selection(due) {
                if std::mem::replace(&mut self.listed_in[block.index()], self.step) != self.step {
                    out.push(Want { block, due });
                }
            }
        }
    }
}

impl PrefetchPolicy for Oracle {
    const NAME: &'static str = "oracle";
    const SUMMARY: &'static str = "the bound: sees the next steps and brings what is demanded soonest";
    const NEEDS_FUTURE: bool = true;
    type Params = OracleParams;

    fn new(params: OracleParams, shape: PrefetchShape) -> Result<Oracle, PolicyError> {
        within("prefetch.params.look_ahead", params.look_ahead, 1..=64)?;
        Ok(Oracle { look_ahead: params.look_ahead, listed_in: vec![0; shape.blocks as usize], step: 0 })
    }

    /// Nothing on a device: it cannot be built.
    fn state_bytes(_: &OracleParams, _: u32) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    fn bench(slots: u32, params: &str, budget: u32, steps: &[&[u32]]) -> Bench {
        let mut bench = Bench::new("lru", slots, 9);
        bench.upcoming = steps.iter().map(|step| step.to_vec()).collect();
        bench.prefetcher("oracle", params, 0, budget);
        bench
    }

    #[test]
    fn the_soonest_come_first_and_only_for_what_is_later() {
        let steps: [&[u32]; 5] = [&[0, 1], &[2, 0], &[3, 0], &[1, 4], &[2]];
        let mut bench = bench(4, "look_ahead = 3", 9, &steps);
        // Demanded after step 0: 2 and 0, then 3, then 1 and 4. 0 and 1 are selected now; 2 and 3 find free slots,
        // and 4 may not take their places, for they are demanded sooner.
        let plan = bench.step(steps[0]);
        assert_eq!((plan.brought(), plan.counts.dropped), (vec![2, 3], 1));
        // Demanded after step 1: 3, 0, then 1 and 4, then 2: all but 4 are resident, and 2 is selected.
        let plan = bench.step(steps[1]);
        assert_eq!((plan.brought(), plan.counts.misses, plan.counts.dropped), (vec![], 0, 1));
        // Demanded after step 2: 1, 4, then 2, which goes for 4 although 1 is the least recent.
        let plan = bench.step(steps[2]);
        assert_eq!((plan.brought(), plan.brought_for(), plan.counts.misses), (vec![4], vec![2], 0));
        assert_eq!(bench.step(steps[3]).brought(), [2], "3 and 0 are not demanded again");
        assert_eq!(bench.step(steps[4]).counts.misses, 0);
    }

    #[test]
    fn it_brings_no_more_than_its_budget_and_nothing_unfilled() {
        let steps: [&[u32]; 2] = [&[0], &[3, 1, 2]];
        let mut budgeted = bench(4, "", 2, &steps);
        assert_eq!(budgeted.step(steps[0]).brought(), [3, 1]);
        let mut short = bench(4, "", 9, &steps);
        short.complete = 2;
        assert_eq!(short.step(steps[0]).brought(), [1]);
    }
}
