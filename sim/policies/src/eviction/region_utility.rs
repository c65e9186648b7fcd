//! Region utility: a block is worth its own fading count of selections plus a share of its neighbourhood's.
//! Selections cluster in position (sentences, chunks), as chunked retrieval supposes: C. Xiao and others, "InfLLM",
//! NeurIPS 2024, <https://arxiv.org/abs/2402.04617>.
//!
//! A region is `region` neighbouring blocks, resident or not; its score sums their selections and fades alike. Blocks
//! that are filled in place or start resident get the score of one selection, prefetched ones of none. Scores have 16
//! bits of fraction and round down. Total order: (score + share of the region's, slot). Any capacity will do.

use super::scores::{FadeParams, FadingScores, ONE, Smallest};
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::Slot;
use serde::Deserialize;

/// Parameters of [`RegionUtility`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionUtilityParams {
    /// Neighbouring blocks in a region, a power of two from 4 to 256.
    pub region: u32,
    /// What a region's score adds to each of its blocks', in 256ths.
    pub share: u32,
    /// What is left of a score after a step, in 256ths.
    pub keep: u32,
}

impl Default for RegionUtilityParams {
    fn default() -> Self {
        RegionUtilityParams { region: 8, share: 32, keep: FadeParams::default().keep }
    }
}

/// Fading counts of selections, by slot and by region.
pub struct RegionUtility {
    own: FadingScores,
    regions: FadingScores,
    /// Bits of a block's number within its region.
    bits: u32,
    share: u64,
    smallest: Smallest,
}

impl EvictionPolicy for RegionUtility {
    const NAME: &'static str = "region-utility";
    const SUMMARY: &'static str = "evicts the smallest fading count of selections, neighbours' included";
    /// The score; a quarter of a score per block where regions are smallest.
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 1, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = RegionUtilityParams;

    fn new(params: RegionUtilityParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let keep = FadeParams { keep: params.keep }.checked()?;
        if !params.region.is_power_of_two() || !(4..=256).contains(&params.region) || params.share > 1 << 16 {
            return Err(PolicyError::Params {
                field: "hot.params",
                message: "region-utility takes a region of 4, 8, ... 256 blocks and a share up to 65536"
                    .into(),
            });
        }
        Ok(RegionUtility {
            own: FadingScores::new(shape.slots as usize, keep),
            regions: FadingScores::new(shape.blocks.div_ceil(params.region) as usize, keep),
            bits: params.region.trailing_zeros(),
            share: u64::from(params.share),
            smallest: Smallest::default(),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.own.before_victims(view);
        self.regions.before_victims(view);
        self.smallest.choose(&view.pins, need, out, |slot| {
            let region = view.block_of[slot.index()].index() >> self.bits;
            let around = (u64::from(self.regions.score[region]) * self.share) >> 8;
            u64::from(self.own.score[slot.index()]) + around
        });
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.own.before_credit();
        self.regions.before_credit();
        view.loaded().for_each(|slot| self.own.score[slot.index()] = 0);
        for (slot, block) in view.slots.iter().zip(view.selection.blocks) {
            self.own.score[slot.index()] += ONE;
            // All blocks of a region may be selected at once, which would leave no room to multiply.
            let region = &mut self.regions.score[block.index() >> self.bits];
            *region = (*region + ONE).min(u32::MAX >> 8);
        }
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, why: Insertion, _: u32) {
        self.own.score[slot.index()] = if why == Insertion::Prefetch { 0 } else { ONE };
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.own.relocate(kept);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_block_in_a_busy_region_outlasts_an_equal_one() {
        let mut bench = Bench::new("region-utility", 4, 40);
        bench.step(&[0, 30]);
        bench.step(&[1, 2]);
        // 0 and 30 are equally old, but 0's neighbours are in use.
        assert_eq!(bench.step(&[20]).victims(), [30]);
        assert_eq!(bench.step(&[0, 21]).victims(), [1], "1 and 2 are equal; 1 stands in the lower slot");
    }
}
