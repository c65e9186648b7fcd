//! Size k of lru-step where blocks grow, by replay of its own: a block filled while all slots are pinned stays at home there and
//! nowhere else, and then the orders of that size and the next are too far apart for inclusion.

use super::curve::Curve;
use super::pass::{Part, Shape, StepInput};
use kvtier_policies::churn::{ChurnReplay, LruStepChurn, SelectionDiff};
use kvtier_policies::eviction::BufferShape;
use kvtier_units::{BlockId, Seed};

/// A hot buffer of k slots.
pub(crate) struct Direct {
    buffer: LruStepChurn,
    diff: SelectionDiff,
    misses: u64,
    cold: u64,
}

impl Direct {
    pub(crate) fn new(shape: &Shape) -> Direct {
        let buffer = BufferShape { slots: shape.k, blocks: shape.blocks, k: shape.k, seed: Seed(0) };
        let mut buffer = LruStepChurn::new(buffer);
        if shape.recent {
            buffer.mark_prefilled(shape.full);
        }
        if shape.recent || shape.full <= shape.k {
            let blocks: Vec<BlockId> =
                (shape.full.saturating_sub(shape.k)..shape.full).map(BlockId).collect();
            buffer.start(&blocks);
        }
        Direct { buffer, diff: SelectionDiff::new(shape.blocks, shape.k), misses: 0, cold: 0 }
    }
}

impl Part for Direct {
    fn step(&mut self, input: &StepInput<'_>) {
        let plan = self.buffer.step(&self.diff.step(input.blocks), input.grown.map(|(block, _)| block));
        if input.measured {
            self.misses += plan.loads.len() as u64;
            self.cold += plan.cold;
        }
    }

    fn finish(&self, curve: &mut Curve) {
        curve.misses[0] += self.misses;
        curve.cold[0] += self.cold;
    }
}
