//! Attention mass: an exponentially weighted mean of the scores with which a block was selected.
//! Accumulated attention as the measure of importance: Z. Zhang and others, "H2O: heavy-hitter oracle", NeurIPS 2023,
//! <https://arxiv.org/abs/2306.14048>; here it fades, decides residency and loses nothing.
//!
//! Scores are the trace's, quantised to 16 bits; a trace without scores gives every selected block the largest. Blocks
//! that are filled in place or start resident get the largest too, prefetched ones none. Total order: (mass, slot).

use super::scores::{FadeParams, FadingScores, ONE, Smallest};
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;

/// Fading sums of scores.
pub struct AttentionMass {
    masses: FadingScores,
    smallest: Smallest,
}

impl EvictionPolicy for AttentionMass {
    const NAME: &'static str = "attention-mass";
    const SUMMARY: &'static str =
        "evicts the smallest sum of selection scores, which fades from step to step";
    const READS_SCORES: bool = true;
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = FadeParams;

    fn new(params: FadeParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let masses = FadingScores::new(shape.slots as usize, params.checked()?);
        Ok(AttentionMass { masses, smallest: Smallest::default() })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.masses.before_victims(view);
        self.smallest.choose(&view.pins, need, out, |slot| u64::from(self.masses.score[slot.index()]));
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.masses.before_credit();
        view.loaded().for_each(|slot| self.masses.score[slot.index()] = 0);
        for (rank, slot) in view.slots.iter().enumerate() {
            let score = view.selection.scores.get(rank).map_or(ONE - 1, |&score| u32::from(score));
            self.masses.score[slot.index()] += score;
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, why: Insertion, _: u32) {
        self.masses.score[slot.index()] = if why == Insertion::Prefetch { 0 } else { ONE - 1 };
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.masses.relocate(kept);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_block_read_with_little_mass_goes_first() {
        let mut bench = Bench::new("attention-mass", 3, 9);
        bench.scores = vec![60_000, 100];
        bench.step(&[0, 1]);
        bench.scores = vec![50_000];
        bench.step(&[2]);
        assert_eq!(bench.step(&[3]).victims(), [1]);
        assert_eq!(bench.step(&[2, 4]).victims(), [0], "0 has 60,000 x 0.512, 3 has 50,000 x 0.8");
    }
}
