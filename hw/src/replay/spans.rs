//! Times of a pass: from what the device noted to where a step's time went, in the words of the simulator.

use super::graph::StepGraph;
use super::marks::Marked;
use super::ways::Ways;
use kvtier_policies::StepPlan;
use kvtier_sim::attribution::{OpKind, Queue};
use kvtier_sim::choice::Chosen;
use kvtier_sim::overlap::Overlap;
use kvtier_sim::record::TimeTally;
use kvtier_sim::work::{LayerWork, StepWork};
use serde::Serialize;
use std::collections::BTreeMap;

/// One operation of one layer over the measured steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpTime {
    /// Layer of the model; none for what lies outside the layers.
    pub layer: Option<u32>,
    /// What it does.
    pub operation: &'static str,
    /// `compute`, or a queue beside it.
    pub queue: &'static str,
    /// Median over the measured steps, ns.
    pub median_ns: u64,
    /// Fastest, ns.
    pub min_ns: u64,
    /// Slowest, ns.
    pub max_ns: u64,
    /// Sum, ns.
    pub total_ns: u64,
}

/// What one pass took over its measured steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// Length of each measured step, admission included.
    pub(super) steps: Vec<u64>,
    admission: u64,
    /// Per place of the marks, the length in each measured step.
    ops: Vec<Vec<u64>>,
    /// Per measured step and layer that selects, first demands of blocks that were sent in the same step.
    sent: Vec<Vec<u64>>,
    /// Of all such, those of layers that had to wait.
    late: u64,
    moved: TimeTally,
    /// What brought the lists, where that was chosen list by list.
    pub(super) chosen: Chosen,
}

impl Times {
    /// Adds a step's row of times.
    pub(super) fn add(&mut self, (marks, last): (&[Marked], u32), row: &[u64], admission: u64) {
        let span = |begin: u32, end: u32| row[end as usize].saturating_sub(row[begin as usize]);
        let sent = self.sent.get(self.steps.len());
        let late = |mark: &&Marked| mark.kind == OpKind::Prefetch && mark.queue == Queue::CopyIn;
        for arrival in marks.iter().filter(late) {
            // The layer that waits for it, if it does in this step, begins to wait when it has looked up.
            let waits = marks.iter().find(|wait| {
                wait.kind == OpKind::Prefetch && wait.queue == Queue::Compute && wait.sparse == arrival.sparse
            });
            let blocks = arrival.sparse.zip(sent).map_or(0, |(layer, sent)| sent[layer as usize]);
            if waits.is_some_and(|wait| row[arrival.end as usize] > row[wait.begin as usize]) {
                self.late += blocks;
            }
        }
        self.steps.push(span(0, last) + admission);
        self.admission += admission;
        self.ops.resize_with(marks.len(), Vec::new);
        for (mark, spans) in marks.iter().zip(&mut self.ops) {
            spans.push(span(mark.begin, mark.end));
        }
    }

    /// Counts what a measured step moves. A prefetched block that is not sent in the step that wants it has arrived before.
    pub(super) fn count(&mut self, plan: &StepPlan, work: &StepWork, block_bytes: u64, ways: &Ways) {
        ways.chooser.count(work, &mut self.chosen);
        let moved = &mut self.moved;
        moved.tokens += u64::from(work.requests);
        moved.h2d_bytes += work.admission.blocks * block_bytes;
        for (layer, plans) in work.layers.iter().zip(&plan.layers) {
            moved.h2d_bytes +=
                (layer.demand.blocks + layer.prefetch.blocks + layer.ahead.blocks) * block_bytes;
            moved.d2h_bytes += layer.written_back * block_bytes;
            moved.hbm_copy_bytes += layer.warm_copies * block_bytes;
            moved.covered += plans.streams.iter().map(|stream| stream.counts.prefetched).sum::<u64>();
        }
        let sent = |(at, layer): (usize, &LayerWork)| {
            // Of the first layer's, what the step before decided was sent in that step.
            let decided = match (ways.sources[at], ways.overlap) {
                (Some(_), _) => Some(plan.step),
                (None, Overlap::LayerAhead) if at > 0 => plan.step.checked_sub(1),
                (None, _) => None,
            };
            let uses = layer.prefetch_uses.iter().filter(|one| Some(one.issued_step) == decided);
            uses.map(|one| u64::from(one.blocks)).sum()
        };
        self.sent.push(work.layers.iter().enumerate().map(sent).collect());
    }

    /// First demands of blocks that were still under way; known of a traced pass.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Length of the measured window.
    pub(super) fn total(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Every operation, in the order of the step. `overhead` is what noting a time adds to a span.
    pub(super) fn operations(&self, graph: &StepGraph, overhead: u64) -> Vec<OpTime> {
        let shown = |(mark, spans): (&Marked, &Vec<u64>)| {
            let mut sorted: Vec<u64> = spans.iter().map(|ns| ns.saturating_sub(overhead)).collect();
            sorted.sort_unstable();
            OpTime {
                layer: mark.layer,
                operation: mark.kind.name(),
                queue: mark.queue.name(),
                median_ns: sorted.get(sorted.len() / 2).copied().unwrap_or(0),
                min_ns: sorted.first().copied().unwrap_or(0),
                max_ns: sorted.last().copied().unwrap_or(0),
                total_ns: sorted.iter().sum(),
            }
        };
        graph.marks.iter().zip(&self.ops).map(shown).collect()
    }

    /// The window of this pass, whose parts, and how many blocks were late, are those of a `traced` one: stalls are what
    /// stands in the compute queue to move blocks, waiting is admission, and launches are within the operations.
    pub(super) fn tally(&self, traced: &[OpTime], late: u64) -> TimeTally {
        let stalls = [OpKind::Demand.name(), OpKind::Prefetch.name()];
        let sum = |kind: &str, queue: &str| {
            let of = traced.iter().filter(|op| op.operation == kind && op.queue == queue);
            of.map(|op| op.total_ns).sum::<u64>()
        };
        let stall: u64 = stalls.iter().map(|kind| sum(kind, "compute")).sum();
        // What flies beside the kernels is waited for on their queue; what does not is moved there.
        let moved = |kind: &&str| match sum(kind, "copy in") {
            0 => sum(kind, "compute"),
            aside => aside,
        };
        let busy: u64 = stalls.iter().map(moved).sum();
        let total = self.total();
        let wait_ns = self.admission.min(total);
        let stall_ns = stall.min(total - wait_ns);
        let mut sorted = self.steps.clone();
        sorted.sort_unstable();
        let percentile = |hundredths: usize| match sorted.len() {
            0 => 0,
            steps => sorted[(steps * hundredths).div_ceil(100).max(1) - 1],
        };
        TimeTally {
            compute_ns: total - wait_ns - stall_ns,
            stall_ns,
            wait_ns,
            total_ns: total,
            step_p50_ns: percentile(50),
            step_p90_ns: percentile(90),
            step_p99_ns: percentile(99),
            h2d_busy_ns: busy,
            covered: self.moved.covered - late.min(self.moved.covered),
            late,
            ..self.moved
        }
    }
}

/// Sums of operations over all layers, by kind and queue, ns.
pub(super) fn by_kind(operations: &[OpTime]) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for op in operations {
        let name = match op.queue {
            "compute" => op.operation.to_owned(),
            queue => format!("{} ({queue})", op.operation),
        };
        *sums.entry(name).or_default() += op.total_ns;
    }
    sums.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(operation: OpKind, queue: &'static str, total_ns: u64) -> OpTime {
        let operation = operation.name();
        OpTime { layer: Some(0), operation, queue, median_ns: 0, min_ns: 0, max_ns: 0, total_ns }
    }

    #[test]
    fn what_a_layer_waited_for_was_late() {
        let mark =
            |kind, queue, begin, end| Marked { kind, queue, layer: Some(1), sparse: Some(1), begin, end };
        // The step's begin, the look-up's end, the wait's, and the transfer's begin and end.
        let marks = [
            mark(OpKind::Lookup, Queue::Compute, 0, 1),
            mark(OpKind::Prefetch, Queue::Compute, 1, 2),
            mark(OpKind::Prefetch, Queue::CopyIn, 3, 4),
        ];
        let mut times = Times { sent: vec![vec![0, 7], vec![0, 5], vec![0, 3]], ..Times::default() };
        for arrival in [90, 130, 140] {
            times.add((&marks, 2), &[0, 100, arrival.max(100), 50, arrival], 0);
        }
        assert_eq!((times.late(), times.total()), (8, 370));
    }

    #[test]
    fn the_parts_of_a_window_add_up() {
        let times = Times { steps: vec![70, 30, 50], admission: 20, ..Times::default() };
        let traced = [
            op(OpKind::Demand, "compute", 40),
            op(OpKind::Attend, "compute", 60),
            op(OpKind::Demand, "copy in", 9),
        ];
        let tally = times.tally(&traced, 0);
        assert_eq!((tally.compute_ns, tally.stall_ns, tally.wait_ns, tally.total_ns), (90, 40, 20, 150));
        assert_eq!((tally.step_p50_ns, tally.step_p99_ns, tally.h2d_busy_ns), (50, 70, 9));
        let sums = by_kind(&traced);
        assert_eq!(sums[1], ("swap in".to_owned(), 40));
    }
}
