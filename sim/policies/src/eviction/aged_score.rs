//! Aged reuse score: every selection adds one to a block's score, and scores fade from step to step.
//! A priority for working sets that drift, as in ArkVale's recall by recent importance (NeurIPS 2024,
//! <https://nips.cc/virtual/2024/poster/96635>), from selections alone.
//!
//! Blocks that are filled in place or start resident get the score of one selection, prefetched ones of none. Scores
//! have 16 bits of fraction and round down. Total order: (score, slot). Any capacity will do.

use super::scores::{FadeParams, FadingScores, ONE, Smallest};
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

/// Fading counts of selections.
pub struct AgedScore {
    scores: FadingScores,
    smallest: Smallest,
}

impl EvictionPolicy for AgedScore {
    const NAME: &'static str = "aged-score";
    const SUMMARY: &'static str = "evicts the smallest count of selections, which fades from step to step";
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = FadeParams;

    fn new(params: FadeParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let scores = FadingScores::new(shape.slots as usize, params.checked()?);
        Ok(AgedScore { scores, smallest: Smallest::default() })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.scores.before_victims(view);
        self.smallest.choose(&view.pins, need, out, |slot| u64::from(self.scores.score[slot.index()]));
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.scores.before_credit();
        view.loaded().for_each(|slot| self.scores.score[slot.index()] = 0);
        view.slots.iter().for_each(|slot| self.scores.score[slot.index()] += ONE);
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, why: Insertion, _: u32) {
        self.scores.score[slot.index()] = if why == Insertion::Prefetch { 0 } else { ONE };
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.scores.relocate(kept);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn several_selections_outlast_one_that_is_newer() {
        let mut bench = Bench::new("aged-score", 3, 9);
        [0, 0, 0, 1, 2].into_iter().for_each(|block| drop(bench.step(&[block])));
        // Before step 6 fades: 0 has 2.44 x 0.64 = 1.56, 1 has 0.8, 2 has 1.
        assert_eq!(bench.step(&[3]).victims(), [1]);
        assert_eq!(bench.step(&[2, 4]).victims(), [3], "0 has 1.0, 3 has 0.8; 2 is pinned");
    }
}
