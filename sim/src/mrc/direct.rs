//! Size k of lru-step where blocks grow, by plain replay: a block filled while all slots are pinned stays at home there and
//! nowhere else, and then the orders of that size and the next are too far apart for inclusion.

use super::curve::Curve;
use super::pass::{Part, Shape, StepInput};
use kvtier_policies::eviction::{BufferShape, EvictionPolicy, LruStep, NoParams};
use kvtier_policies::{HotBuffer, Residency, Selection, StreamPlan, WarmLookup};
use kvtier_units::{BlockId, Seed};

/// A hot buffer of k slots.
pub(crate) struct Direct {
    buffer: Residency<LruStep>,
    plan: StreamPlan,
    step: u32,
    misses: u64,
    cold: u64,
}

impl Direct {
    pub(crate) fn new(shape: &Shape) -> Direct {
        let buffer = BufferShape { slots: shape.k, blocks: shape.blocks, k: shape.k, seed: Seed(0) };
        let policy =
            LruStep::new(NoParams {}, buffer).expect("a policy without parameters has none to refuse");
        let mut buffer = Residency::new(policy, buffer);
        if shape.recent {
            buffer.mark_prefilled(shape.full);
        }
        if shape.recent || shape.full <= shape.k {
            let blocks: Vec<BlockId> =
                (shape.full.saturating_sub(shape.k)..shape.full).map(BlockId).collect();
            buffer.start(&blocks, &[]);
        }
        Direct { buffer, plan: StreamPlan::default(), step: 0, misses: 0, cold: 0 }
    }
}

impl Part for Direct {
    fn step(&mut self, input: &StepInput<'_>) {
        let selection = Selection {
            blocks: input.blocks,
            scores: &[],
            near: &[],
            newest: input.newest,
            grown: input.grown.map(|(block, _)| block),
            foresight: None,
        };
        self.buffer.step(self.step, &selection, None, WarmLookup::NONE, &mut self.plan);
        self.step += 1;
        if input.measured {
            self.misses += self.plan.counts.misses;
            self.cold += self.plan.counts.cold;
        }
    }

    fn finish(&self, curve: &mut Curve) {
        curve.misses[0] += self.misses;
        curve.cold[0] += self.cold;
    }
}
