//! Runs a script through the crate, prefetcher included, for comparison with the model.

use super::{Ask, NEVER, Script, ids};
use kvtier_policies::eviction::{Entry, StepView};
use kvtier_policies::prefetch::{Prefetcher, Upcoming, Want};
use kvtier_policies::{Below, Foresight, HotBuffer, Prefetch, Selection, StreamPlan};
use kvtier_units::BlockId;

/// Runs a script through the crate; returns the plans and the blocks by slot after each step.
pub(crate) fn replay(
    entry: &Entry,
    params: &toml::Table,
    script: &Script,
) -> Vec<(StreamPlan, Vec<BlockId>)> {
    let mut buffer = entry.build(params, script.shape()).unwrap();
    buffer.mark_prefilled(script.prefilled);
    let start = ids(&script.start);
    let next_use: Vec<u32> = script.start.iter().map(|&block| script.next_use(-1, block)).collect();
    buffer.start(&start, if entry.needs_future { &next_use } else { &[] });
    let mut prefetcher = Scripted::of(script);
    (0u32..)
        .zip(&script.asks)
        .map(|(step, ask)| {
            let plan = one_step(buffer.as_mut(), entry.needs_future, script, step, ask, &mut prefetcher);
            (plan, buffer.blocks().to_vec())
        })
        .collect()
}

/// Wants what the script says, before the look-up or after the step.
pub(crate) struct Scripted {
    ahead: bool,
    wants: Vec<Want>,
}

impl Scripted {
    pub(crate) fn of(script: &Script) -> Scripted {
        Scripted { ahead: script.ahead, wants: Vec::new() }
    }
}

impl Prefetcher for Scripted {
    fn ahead(&mut self, _: &Selection<'_>, out: &mut Vec<Want>) {
        out.append(&mut self.wants);
    }

    fn propose(&mut self, _: &StepView<'_>, _: &Upcoming<'_>, out: &mut Vec<Want>) {
        assert!(!self.ahead || self.wants.is_empty(), "it was asked before the look-up");
        out.append(&mut self.wants);
    }
}

pub(crate) fn one_step(
    buffer: &mut dyn HotBuffer,
    foresees: bool,
    script: &Script,
    step: u32,
    ask: &Ask,
    prefetcher: &mut Scripted,
) -> StreamPlan {
    let next = |block: u32| script.next_use(i64::from(step), block);
    let next_use: Vec<u32> = ask.blocks.iter().map(|&block| next(block)).collect();
    let foresight = Foresight { next_use: &next_use, grown_next_use: ask.grown.map_or(NEVER, next) };
    let (blocks, near) = (ids(&ask.blocks), ids(&ask.near));
    let selection = Selection {
        blocks: &blocks,
        scores: &ask.scores,
        near: &near,
        newest: ask.newest,
        grown: ask.grown.map(BlockId),
        foresight: foresees.then_some(foresight),
    };
    let budget = script.budget;
    prefetcher.wants = ask.wants.iter().map(|&(block, due)| Want { block: BlockId(block), due }).collect();
    let source = script.ahead.then_some(Selection::NOTHING);
    let upcoming = Upcoming::default();
    let prefetch = (budget > 0).then_some(Prefetch { prefetcher, budget, source, upcoming });
    let mut plan = StreamPlan::default();
    buffer.step(step, &selection, prefetch, Below::HOST, &mut plan);
    plan
}
