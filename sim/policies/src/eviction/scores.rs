//! What the priority policies share: scores that fade from step to step, and the choice of the smallest.

use super::{Pins, StepView};
use crate::PolicyError;
use crate::residency::relocate;
use kvtier_units::Slot;
use serde::Deserialize;

/// One selection, in the fixed point of scores: 16 bits of fraction.
pub(crate) const ONE: u32 = 1 << 16;

/// Parameters of a fading score.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FadeParams {
    /// What is left of a score after a step, in 256ths.
    pub keep: u32,
}

impl Default for FadeParams {
    fn default() -> Self {
        FadeParams { keep: 205 }
    }
}

impl FadeParams {
    /// The factor, if a score can fade by it.
    pub(crate) fn checked(self) -> Result<u32, PolicyError> {
        if self.keep > 255 {
            let message = format!("a score keeps at most 255 of 256 parts each step, not {}", self.keep);
            return Err(PolicyError::Params { field: "hot.params.keep", message });
        }
        Ok(self.keep)
    }
}

/// Scores that fade: every step each keeps `keep` 256ths, rounded down. A credit of at most [`ONE`] a step keeps a
/// score below 2^24, so that nothing overflows.
#[derive(Clone, Debug)]
pub(crate) struct FadingScores {
    pub(crate) score: Vec<u32>,
    keep: u32,
    /// Whether this step has faded them: it does so before it chooses victims or gives credit, whichever is first.
    faded: bool,
}

impl FadingScores {
    pub(crate) fn new(entries: usize, keep: u32) -> FadingScores {
        FadingScores { score: vec![0; entries], keep, faded: false }
    }

    /// Fades before victims are chosen; on the demand path that is the first thing a step does.
    pub(crate) fn before_victims(&mut self, view: &StepView<'_>) {
        if view.entering.is_none() {
            self.fade();
        }
    }

    /// Fades before credit, unless victims were chosen first.
    pub(crate) fn before_credit(&mut self) {
        self.fade();
        self.faded = false;
    }

    /// Slot i takes the score of `kept[i]`; free ones have none.
    pub(crate) fn relocate(&mut self, kept: &[Slot]) {
        relocate(&mut self.score, kept, 0);
    }

    fn fade(&mut self) {
        if !self.faded {
            let keep = self.keep;
            self.score.iter_mut().for_each(|score| *score = (*score * keep) >> 8);
            self.faded = true;
        }
    }
}

/// Chooses the evictable slots of the smallest priority, then of the smallest number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Smallest {
    pool: Vec<(u64, Slot)>,
}

impl Smallest {
    /// Appends `need` of them, smallest first.
    pub(crate) fn choose(
        &mut self,
        pins: &Pins<'_>,
        need: usize,
        out: &mut Vec<Slot>,
        priority: impl Fn(Slot) -> u64,
    ) {
        self.pool.clear();
        self.pool.extend(pins.evictable().map(|slot| (priority(slot), slot)));
        if need < self.pool.len() {
            self.pool.select_nth_unstable(need);
            self.pool.truncate(need);
        }
        self.pool.sort_unstable();
        out.extend(self.pool.iter().map(|&(_, slot)| slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_evictable_come_in_order() {
        let pins = Pins { stamps: &[0, 0, 1, 0, 0], epoch: 1 };
        let mut out = Vec::new();
        Smallest::default().choose(&pins, 3, &mut out, |slot| [5, 7, 0, 5, 1][slot.index()]);
        assert_eq!(out, [4, 0, 3].map(Slot));
    }

    #[test]
    fn scores_cannot_overflow() {
        let mut scores = FadingScores::new(1, FadeParams { keep: 255 }.checked().unwrap());
        for _ in 0..5000 {
            scores.before_credit();
            scores.score[0] += ONE;
        }
        assert!(scores.score[0] <= 256 * ONE);
        assert!(FadeParams { keep: 256 }.checked().is_err());
    }
}
