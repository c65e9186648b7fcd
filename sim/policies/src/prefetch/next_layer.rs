//! Next-layer: adjacent layers select much the same, so what a layer has just selected predicts the layers after it.
//!
//! InfiniGen (<https://arxiv.org/abs/2406.19707>) predicts a layer from the one before by its hidden state; here the
//! earlier layer's selection itself stands for the prediction, as IndexCache found adjacent layers to share 70-100%.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want, want_all, within};
use crate::eviction::StepView;
use crate::{PolicyError, Selection};
use serde::Deserialize;

/// Parameters of [`NextLayer`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NextLayerParams {
    /// How many layers earlier the predicting layer is: a larger lead leaves more time and predicts worse.
    pub lead: u32,
}

impl Default for NextLayerParams {
    fn default() -> NextLayerParams {
        NextLayerParams { lead: 1 }
    }
}

/// Brings what the layer `lead` before selects in this step, in its rank order.
#[derive(Clone, Copy, Debug)]
pub struct NextLayer {
    source: Option<u32>,
}

impl Prefetcher for NextLayer {
    fn source(&self) -> Option<u32> {
        self.source
    }

    fn ahead(&mut self, source: &Selection<'_>, out: &mut Vec<Want>) {
        want_all(source, out);
    }

    fn propose(&mut self, _: &StepView<'_>, _: &Upcoming<'_>, _: &mut Vec<Want>) {}
}

impl PrefetchPolicy for NextLayer {
    const NAME: &'static str = "next-layer";
    const SUMMARY: &'static str = "brings what the layer before has just selected";
    const AHEAD: bool = true;
    type Params = NextLayerParams;

    fn new(params: NextLayerParams, shape: PrefetchShape) -> Result<NextLayer, PolicyError> {
        within("prefetch.params.lead", params.lead, 1..=1000)?;
        Ok(NextLayer { source: shape.layer.checked_sub(params.lead) })
    }

    fn state_bytes(_: &NextLayerParams, _: u32) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn what_the_layer_before_selects_is_held_and_brought() {
        let mut bench = Bench::new("lru", 4, 9);
        bench.prefetcher("next-layer", "", 1, 2);
        bench.step(&[0, 1, 2, 3]);
        // 0 and 3 are resident and held; 5 takes the slot of 2, the least recent of the rest, and 6 that of 1.
        let plan = bench.step_after(&[5, 3, 6, 7, 0], &[5, 0, 8]);
        assert_eq!((plan.brought(), plan.brought_for()), (vec![5, 6], vec![2, 1]), "7 is beyond the budget");
        assert_eq!(plan.prefetch_uses, [1], "5 is demanded in the step that brought it");
        assert_eq!((plan.counts.hits, plan.counts.prefetched, plan.counts.misses), (2, 1, 1));
        assert_eq!(plan.victims(), [2, 1, 3], "the look-up pins 5 and 0 alone");
    }

    #[test]
    fn the_first_layers_have_no_source() {
        let mut bench = Bench::new("lru", 4, 9);
        bench.prefetcher("next-layer", "lead = 2", 1, 2);
        assert_eq!(bench.step_after(&[5, 6], &[0]).brought(), [0; 0]);
    }
}
