//! Anchor-layer: layers that share an anchor's index bring what the anchor selects and they miss, as soon as the anchor
//! has selected: its miss plan is replayed for every follower while the layers between compute.
//!
//! SGLang HiSparse does this for models with a shared index, such as GLM-5.2; there the prediction is exact.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want, want_all, within};
use crate::eviction::StepView;
use crate::{PolicyError, Selection};
use serde::Deserialize;

/// Parameters of [`AnchorLayer`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnchorLayerParams {
    /// Layers that share one index, the anchor included.
    pub every: u32,
    /// The first so many layers select for themselves; the last of them is the first anchor.
    pub offset: u32,
}

impl Default for AnchorLayerParams {
    fn default() -> AnchorLayerParams {
        AnchorLayerParams { every: 4, offset: 3 }
    }
}

impl AnchorLayerParams {
    /// The layer whose index `layer` uses: itself, or an earlier one.
    pub fn anchor(&self, layer: u32) -> u32 {
        let first = self.offset.saturating_sub(1);
        if layer < first { layer } else { layer - (layer - first) % self.every }
    }
}

/// Brings what the anchor of the stream's layer selects in this step, in its rank order.
#[derive(Clone, Copy, Debug)]
pub struct AnchorLayer {
    source: Option<u32>,
}

impl Prefetcher for AnchorLayer {
    fn source(&self) -> Option<u32> {
        self.source
    }

    fn ahead(&mut self, source: &Selection<'_>, out: &mut Vec<Want>) {
        want_all(source, out);
    }

    fn propose(&mut self, _: &StepView<'_>, _: &Upcoming<'_>, _: &mut Vec<Want>) {}
}

impl PrefetchPolicy for AnchorLayer {
    const NAME: &'static str = "anchor-layer";
    const SUMMARY: &'static str = "brings for the layers of a group what its first layer has just selected";
    const AHEAD: bool = true;
    type Params = AnchorLayerParams;

    fn new(params: AnchorLayerParams, shape: PrefetchShape) -> Result<AnchorLayer, PolicyError> {
        within("prefetch.params.every", params.every, 2..=1000)?;
        within("prefetch.params.offset", params.offset, 0..=1000)?;
        let anchor = params.anchor(shape.layer);
        Ok(AnchorLayer { source: (anchor < shape.layer).then_some(anchor) })
    }

    fn state_bytes(_: &AnchorLayerParams, _: u32) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::testing::Bench;

    #[test]
    fn glm_5_2_has_21_full_layers_of_78() {
        let params = AnchorLayerParams::default();
        let anchors: Vec<u32> = (0..78).filter(|&layer| params.anchor(layer) == layer).collect();
        assert_eq!((anchors.len(), &anchors[..6]), (21, &[0, 1, 2, 6, 10, 14][..]));
        assert_eq!([3, 4, 5, 7, 77].map(|layer| params.anchor(layer)), [2, 2, 2, 6, 74]);
        let all = AnchorLayerParams { every: 3, offset: 0 };
        assert_eq!([0, 1, 2, 3, 5].map(|layer| all.anchor(layer)), [0, 0, 0, 3, 3]);
    }

    #[test]
    fn a_follower_brings_what_its_anchor_selects_and_an_anchor_nothing() {
        let mut follower = Bench::new("lru", 4, 9);
        follower.prefetcher("anchor-layer", "", 5, 4);
        let plan = follower.step_after(&[7, 4, 1], &[7, 4, 1]);
        assert_eq!((plan.brought(), plan.counts.misses, plan.counts.prefetched), (vec![7, 4, 1], 0, 3));
        let mut anchor = Bench::new("lru", 4, 9);
        anchor.prefetcher("anchor-layer", "", 6, 4);
        let plan = anchor.step_after(&[7, 4, 1], &[7, 4, 1]);
        assert_eq!((plan.brought(), plan.counts.misses), (vec![], 3));
    }
}
