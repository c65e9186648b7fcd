//! Score: a block enters the warm pages if its stream's selections spoke well of it lately. Every selection of the block
//! while it is in the hot buffer adds to its score by its rank, a near miss may add as well, and the score fades.
//! The defaults did best over four sizes of the pages on the shipped trace; near misses did harm at three of them.
//!
//! The score stands per slot and restarts when the slot is filled. A selected block adds 256 at the best rank, down to
//! 128 at the worst (256 - 128 x rank / selected, rounded down); a near miss adds `near`. It halves every `half_life`
//! steps: by one bit for each whole half-life since it was last credited, rounded down.

use super::{AdmissionPolicy, Gate, GateState, Leaver, Seen, resize_slots, wrong};
use crate::PolicyError;
use kvtier_units::Slot;
use serde::Deserialize;

/// Parameters of [`Score`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreParams {
    /// Steps after which a score counts half.
    pub half_life: u32,
    /// What a near miss adds, if anything; a selection adds 128 to 256.
    pub near: u16,
    /// The least score that enters.
    pub threshold: u16,
}

impl Default for ScoreParams {
    fn default() -> Self {
        ScoreParams { half_life: 8, near: 0, threshold: 384 }
    }
}

const BEST: u32 = 256;
const SPAN: u32 = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Credit {
    score: u16,
    /// Step in which it was last credited.
    step: u32,
}

/// Scores per slot.
pub struct Score {
    params: ScoreParams,
    /// Per stream and slot.
    credits: Vec<Vec<Credit>>,
}

impl ScoreParams {
    /// A score as it counts in a later step.
    fn faded(&self, credit: Credit, step: u32) -> u16 {
        credit.score.checked_shr((step - credit.step) / self.half_life).unwrap_or(0)
    }

    fn add(&self, credit: &mut Credit, step: u32, more: u16) {
        *credit = Credit { score: self.faded(*credit, step).saturating_add(more), step };
    }
}

impl Gate for Score {
    fn open(&mut self, stream: u32, slots: u32) {
        let stream = stream as usize;
        if self.credits.len() <= stream {
            self.credits.resize_with(stream + 1, Vec::new);
        }
        self.credits[stream].clear();
        self.credits[stream].resize(slots as usize, Credit::default());
    }

    fn admits(&mut self, leaver: &Leaver) -> bool {
        let credit = self.credits[leaver.stream as usize][leaver.slot.index()];
        self.params.faded(credit, leaver.step) >= self.params.threshold
    }

    fn resize(&mut self, stream: u32, slots: u32, moved: &[(Slot, Slot)]) {
        resize_slots(&mut self.credits[stream as usize], slots, moved);
    }

    fn credit(&mut self, seen: &Seen<'_>) {
        let credits = &mut self.credits[seen.stream as usize];
        let fresh = Credit { score: 0, step: seen.step };
        seen.plan.fills().for_each(|fill| credits[fill.slot.index()] = fresh);
        let selected = u32::try_from(seen.plan.slots.len()).expect("a selection has fewer than 2^32 blocks");
        for (rank, slot) in (0u32..).zip(&seen.plan.slots) {
            let more = u16::try_from(BEST - SPAN * rank / selected).expect("at most 256");
            self.params.add(&mut credits[slot.index()], seen.step, more);
        }
        let near = if self.params.near == 0 { &[][..] } else { seen.near };
        for slot in near.iter().filter(|slot| **slot != Slot::NONE) {
            self.params.add(&mut credits[slot.index()], seen.step, self.params.near);
        }
    }
}

impl AdmissionPolicy for Score {
    const NAME: &'static str = "score";
    const SUMMARY: &'static str =
        "blocks whose fading score of selections and near misses reaches a threshold";
    const READS_NEAR: bool = true;
    /// The score, and the step in which it was last credited.
    const STATE: GateState = GateState { per_slot: 6, per_frame: 0 };
    type Params = ScoreParams;

    fn new(params: ScoreParams, _: usize) -> Result<Self, PolicyError> {
        if params.half_life == 0 {
            return Err(wrong("warm.params.half_life", "0 steps; give at least 1"));
        }
        if params.threshold == 0 {
            return Err(wrong(
                "warm.params.threshold",
                "0 admits every block; give at least 1, or choose `always`",
            ));
        }
        Ok(Score { params, credits: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use crate::warm::testing::Pages;

    #[test]
    fn rank_and_near_misses_decide() {
        let mut pages = Pages::new("score", "half_life = 4\nthreshold = 200\nnear = 96", 2, 4);
        pages.step(&[0, 1]);
        pages.step(&[2, 3]);
        assert_eq!(pages.warm(), [0], "0 was best: 256; 1 had 192");
        pages.step_near(&[2, 4], &[]);
        assert_eq!(pages.warm(), [0], "3 had 192");
        pages.step_near(&[2, 4], &[]);
        pages.step(&[5, 6]);
        assert_eq!(pages.warm(), [0, 2, 4], "4 was selected twice: 384");
    }

    #[test]
    fn a_score_fades_and_a_near_miss_revives_it() {
        let mut pages = Pages::new("score", "half_life = 1\nthreshold = 100\nnear = 96", 3, 4);
        pages.step(&[0, 1]);
        pages.step(&[2, 3]);
        pages.step(&[2, 3]);
        pages.step(&[4, 5]);
        assert_eq!(
            pages.warm(),
            [3],
            "0 and 1 faded to 64 and less; 3 has 192 and half of that, and half again"
        );
        let mut pages = Pages::new("score", "half_life = 1\nthreshold = 100\nnear = 96", 3, 4);
        pages.step(&[0, 1]);
        pages.step_near(&[2, 3], &[0]);
        pages.step_near(&[2, 3], &[0]);
        pages.step(&[4, 5]);
        assert!(pages.warm().contains(&0), "a near miss in each step keeps it above the threshold");
    }
}
