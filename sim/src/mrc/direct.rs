//! Size k of a stream that grows, by plain replay: a block that is filled while all slots are pinned stays at home there
//! and nowhere else, so that size does not lie on the same stack.

use super::curve::{Curve, CurvePolicy};
use super::pass::{Part, Shape, StepInput};
use kvtier_policies::eviction::{Belady, BufferShape, EvictionPolicy, Lru, LruStep, NoParams};
use kvtier_policies::{Foresight, HotBuffer, Residency, Selection, StreamPlan, WarmLookup};
use kvtier_units::{BlockId, Seed};

/// A hot buffer of k slots.
pub(crate) struct Direct {
    buffer: Box<dyn HotBuffer>,
    plan: StreamPlan,
    step: u32,
    misses: u64,
    cold: u64,
}

impl Direct {
    pub(crate) fn new(policy: CurvePolicy, shape: &Shape, first_uses: &[u32]) -> Direct {
        let buffer = BufferShape { slots: shape.k, blocks: shape.blocks, k: shape.k, seed: Seed(0) };
        let mut buffer = match policy {
            CurvePolicy::Lru => build::<Lru>(buffer),
            CurvePolicy::LruStep => build::<LruStep>(buffer),
            CurvePolicy::Belady => build::<Belady>(buffer),
        };
        if shape.recent {
            buffer.mark_prefilled(shape.full);
        }
        if shape.recent || shape.full <= shape.k {
            let blocks: Vec<BlockId> =
                (shape.full.saturating_sub(shape.k)..shape.full).map(BlockId).collect();
            let uses: Vec<u32> =
                blocks.iter().filter_map(|block| first_uses.get(block.index()).copied()).collect();
            buffer.start(&blocks, &uses);
        }
        Direct { buffer, plan: StreamPlan::default(), step: 0, misses: 0, cold: 0 }
    }
}

fn build<E: EvictionPolicy<Params = NoParams>>(shape: BufferShape) -> Box<dyn HotBuffer> {
    let policy = E::new(NoParams {}, shape).expect("a policy without parameters has none to refuse");
    Box::new(Residency::new(policy, shape))
}

impl Part for Direct {
    fn step(&mut self, input: &StepInput<'_>) {
        let selection = Selection {
            blocks: input.blocks,
            scores: &[],
            near: &[],
            newest: input.newest,
            grown: input.grown.map(|(block, _)| block),
            foresight: Some(Foresight {
                next_use: input.next_use,
                grown_next_use: input.grown.map_or(u32::MAX, |(_, next_use)| next_use),
            }),
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
