//! Rank-aware recency: LRU by step, in which a better rank counts as a later step, and a near miss as an earlier one.
//! Evicting what ranked lowest is ArkVale's rule (R. Chen and others, "ArkVale", NeurIPS 2024,
//! <https://nips.cc/virtual/2024/poster/96635>); here rank and recency trade against each other.
//!
//! A selection at step t with rank r of n counts as use at t + `rank_steps` x (n - r) / n; a near miss of a resident
//! block counts as use at t - `near_lag`, if that is later than what stands. Times are in 256ths of a step, rounded
//! down. Blocks that are filled in place count as of the best rank, those that start resident or are prefetched
//! as of the worst. Total order: (time, slot). Any capacity will do.

use super::scores::Smallest;
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use crate::residency::relocate;
use kvtier_units::Slot;
use serde::Deserialize;

/// Parameters of [`RankRecency`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankRecencyParams {
    /// Steps by which the best rank counts as later than the worst.
    pub rank_steps: u16,
    /// Steps by which a near miss counts as earlier than the worst rank.
    pub near_lag: u16,
}

impl Default for RankRecencyParams {
    fn default() -> Self {
        RankRecencyParams { rank_steps: 8, near_lag: 4 }
    }
}

/// Ticks of a step.
const STEP: u64 = 256;

/// Time of use, moved by rank.
pub struct RankRecency {
    used: Vec<u64>,
    /// Start of this step, in ticks, large enough for every lag.
    now: u64,
    bonus: u64,
    lag: u64,
    smallest: Smallest,
}

impl EvictionPolicy for RankRecency {
    const NAME: &'static str = "rank-recency";
    const SUMMARY: &'static str =
        "recency by step in which better ranks count as later, near misses as earlier";
    const READS_NEAR: bool = true;
    /// Four bytes hold 2^24 steps.
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = RankRecencyParams;

    fn new(params: RankRecencyParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let lag = u64::from(params.near_lag) * STEP;
        Ok(RankRecency {
            used: vec![0; shape.slots as usize],
            now: lag + STEP,
            bonus: u64::from(params.rank_steps) * STEP,
            lag,
            smallest: Smallest::default(),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.smallest.choose(&view.pins, need, out, |slot| self.used[slot.index()]);
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.now += STEP;
        let n = view.slots.len() as u64;
        for (above, slot) in (1..=n).rev().zip(view.slots) {
            self.used[slot.index()] = self.now + self.bonus * above / n;
        }
        for block in view.selection.near {
            let slot = view.slot_of[block.index()];
            if slot != Slot::NONE {
                let used = &mut self.used[slot.index()];
                *used = (*used).max(self.now - self.lag);
            }
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, why: Insertion, _: u32) {
        let bonus = if why == Insertion::Growth { self.bonus } else { 0 };
        self.used[slot.index()] = self.now + bonus;
    }

    fn resize(&mut self, kept: &[Slot]) {
        relocate(&mut self.used, kept, 0);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;
    use kvtier_units::BlockId;

    #[test]
    fn rank_and_nearness_trade_against_recency() {
        let mut bench = Bench::new("rank-recency", 4, 9);
        bench.step(&[0, 1]);
        bench.step(&[2, 3]);
        // Times in steps: 0 at 1 + 8, 1 at 1 + 4, 2 at 2 + 8, 3 at 2 + 4.
        assert_eq!(bench.step(&[4]).victims(), [1]);
        assert_eq!(bench.step(&[5]).victims(), [3], "the newer 3 ranked worse than 0");
        bench.near = vec![BlockId(0)];
        (0..12).for_each(|_| drop(bench.step(&[4])));
        assert_eq!(bench.step(&[6]).victims(), [2], "0 was near the cut all along");
    }
}
