//! Which mechanism moves a list of blocks: the one that a configuration names, or the one by which the machine's transfer
//! model has the list there first. It stands apart so that the simulator and a device ask the same function and agree.

use crate::attribution::OpKind;
use crate::machine::Machine;
use crate::model::Model;
use crate::overlap::{Launch, TimeConfig};
use crate::transfer::{Mechanism, Order, TransferCost, TransferParams, TransferShape};
use crate::work::{LayerWork, Movement, StepWork};
use kvtier_units::{Bytes, Nanos};
use std::fmt;

/// Mechanisms that can swap in: one large copy cannot, for the misses of a step do not lie together. Of those that cost
/// the same the first is chosen.
const SWAP_IN: [Mechanism; 4] =
    [Mechanism::Gather, Mechanism::GatherPerRequest, Mechanism::CopyLoop, Mechanism::CopyBatch];

/// What moves the blocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// One mechanism, whatever it costs.
    Always(Mechanism),
    /// For every list of blocks, the one that the machine's transfer model prices lowest.
    Auto,
}

impl Transfer {
    /// Every choice with its name.
    pub const ALL: [(&'static str, Transfer); 5] = [
        ("gather", Transfer::Always(SWAP_IN[0])),
        ("gather-per-request", Transfer::Always(SWAP_IN[1])),
        ("copy-loop", Transfer::Always(SWAP_IN[2])),
        ("copy-batch", Transfer::Always(SWAP_IN[3])),
        ("auto", Transfer::Auto),
    ];

    /// Whether copy engines may move blocks: they take addresses from the host, and a graph has none in it.
    pub fn may_copy(self, launch: Launch) -> bool {
        match self {
            Transfer::Always(mechanism) => !mechanism.is_gather(),
            Transfer::Auto => launch == Launch::Stream,
        }
    }
}

/// Says what moves each list of a run, and what that costs; nothing but the list decides.
#[derive(Clone, Copy, Debug)]
pub struct Chooser {
    params: TransferParams,
    transfer: Transfer,
    order: Order,
    launch: Launch,
    block_bytes: Bytes,
    request_region: Bytes,
    submission: Nanos,
}

impl Chooser {
    /// The chooser of a run on this machine.
    pub fn new(machine: &Machine, model: &Model, config: &TimeConfig) -> Chooser {
        Chooser {
            params: machine.transfer,
            transfer: config.transfer,
            order: config.order,
            launch: config.launch,
            block_bytes: model.attention.block_bytes,
            request_region: config.request_region,
            submission: machine.kernels.submission,
        }
    }

    /// What brings a list of misses or prefetches from host memory; of an empty one it does not matter.
    pub fn mechanism(&self, kind: OpKind, movement: &Movement) -> Mechanism {
        match self.transfer {
            Transfer::Always(mechanism) => mechanism,
            Transfer::Auto if movement.blocks == 0 => SWAP_IN[0],
            Transfer::Auto => self.transfer(kind, movement).0.mechanism,
        }
    }

    /// The transfer of a list from host memory that is not empty, and what it costs.
    pub(crate) fn transfer(&self, kind: OpKind, movement: &Movement) -> (TransferShape, TransferCost) {
        self.transfer_at(movement, |shape| self.cost(kind, shape))
    }

    /// The same at a price of the caller's: what lies below host memory is bounded by more than the link.
    pub(crate) fn transfer_at(
        &self,
        movement: &Movement,
        price: impl Fn(&TransferShape) -> TransferCost,
    ) -> (TransferShape, TransferCost) {
        let shape = TransferShape {
            mechanism: SWAP_IN[0],
            order: self.order,
            blocks: movement.blocks,
            block_bytes: self.block_bytes,
            region: self.request_region * u64::from(movement.requests),
            requests: movement.requests,
            worst_request: u64::from(movement.worst_request),
            // Whoever brings blocks by a batch puts an event before it.
            queued: true,
        };
        let by = |mechanism| {
            let shape = TransferShape { mechanism, ..shape };
            (shape, price(&shape))
        };
        match self.transfer {
            Transfer::Always(mechanism) => by(mechanism),
            Transfer::Auto => {
                let engines = self.transfer.may_copy(self.launch);
                let carried = SWAP_IN.into_iter().filter(|one| engines || one.is_gather());
                carried.map(by).min_by_key(|(_, cost)| cost.total()).expect("a gather can always be had")
            }
        }
    }

    /// What a transfer costs. Before a copy engine can be told the misses, the host has to see the look-up and then to
    /// submit, where a gather was submitted long before and reads the device's own list. Prefetches are told while the
    /// layer attends, or were decided in an earlier step.
    pub(crate) fn cost(&self, kind: OpKind, shape: &TransferShape) -> TransferCost {
        let mut cost = self.params.cost(shape);
        if kind == OpKind::Demand && self.launch == Launch::Stream && !shape.mechanism.is_gather() {
            cost.setup += self.submission;
        }
        cost
    }

    /// Counts what brings the lists of a step from host memory, where that is chosen list by list.
    pub fn count(&self, work: &StepWork, chosen: &mut Chosen) {
        if self.transfer != Transfer::Auto {
            return;
        }
        let lists = |layer: &LayerWork| {
            let prefetches = [layer.prefetch, layer.ahead].map(|list| (OpKind::Prefetch, list));
            [(OpKind::Demand, layer.demand), prefetches[0], prefetches[1]]
        };
        for (kind, list) in work.layers.iter().flat_map(lists).filter(|(_, list)| list.blocks > 0) {
            let mechanism = self.mechanism(kind, &list);
            let at = SWAP_IN.iter().position(|one| *one == mechanism).expect("one of those chosen among");
            chosen.lists[at] += 1;
        }
    }
}

/// How many lists each mechanism was chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    lists: [u64; SWAP_IN.len()],
}

impl Chosen {
    /// What the reader of a point must know, if anything was chosen.
    pub fn note(&self) -> Option<String> {
        (self.lists != [0; SWAP_IN.len()]).then(|| self.to_string())
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = || SWAP_IN.iter().zip(self.lists).filter(|(_, lists)| *lists > 0);
        match (used().next(), used().count()) {
            // Without the number, so that points of a sweep that chose alike say the same.
            (Some((only, _)), 1) => write!(out, "auto: every list by {}", only.name()),
            _ => {
                let counts: Vec<String> =
                    used().map(|(mechanism, lists)| format!("{lists} by {}", mechanism.name())).collect();
                write!(out, "auto: of the lists {}", counts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlap::{Overlap, Variant};
    use crate::presets::{self, MACHINES};
    use crate::transfer::nanos;

    const MIB: u64 = 1 << 20;

    fn chooser(machine: &str, launch: Launch, block_bytes: u64) -> Chooser {
        let config = TimeConfig {
            variant: Variant::Offload,
            overlap: Overlap::Serial,
            transfer: Transfer::Auto,
            order: Order::Random,
            launch,
            request_region: Bytes(4 << 30),
            record_ops: false,
        };
        let mut model = presets::model("llama-3.1-8b").expect("a preset");
        model.attention.block_bytes = Bytes(block_bytes);
        Chooser::new(&presets::machine(machine).expect("a preset"), &model, &config)
    }

    fn list(requests: u32, each: u32) -> Movement {
        let mut list = Movement::default();
        (0..requests).for_each(|_| list.add_request(each));
        list
    }

    #[test]
    fn small_blocks_are_gathered_and_large_ones_copied() {
        let by =
            |bytes| chooser("h100-pcie5", Launch::Stream, bytes).mechanism(OpKind::Demand, &list(8, 256));
        for bytes in [656, 8 << 10, 64 << 10, 256 << 10] {
            assert_eq!(by(bytes), Mechanism::Gather, "blocks of {bytes} B");
        }
        // A block of a batch costs something of its own and then goes at the rate of the link, a little above a gather's.
        let params = chooser("h100-pcie5", Launch::Stream, 1).params;
        let crossing = params.copy_batch.queued_ns / (1.0 / params.gather.rate - 1.0 / params.copy.rate);
        assert!((crossing / 4.7e5 - 1.0).abs() < 0.01, "{crossing} B");
        for (share, mechanism) in [(97, Mechanism::Gather), (103, Mechanism::CopyBatch)] {
            let bytes = nanos(crossing).0 / 128 * 128 * share / 100;
            assert_eq!(by(bytes), mechanism, "{share}% of the block at which they cost the same");
        }
    }

    #[test]
    fn a_graph_holds_gathers_alone_and_the_flat_one_is_never_dearer() {
        for (machine, _) in MACHINES {
            for bytes in [128, 656, 8 << 10, MIB, 16 * MIB] {
                for (requests, each) in [(1, 1), (1, 2048), (8, 3), (64, 300)] {
                    let choice = chooser(machine, Launch::Graph, bytes);
                    let list = list(requests, each);
                    assert_eq!(choice.mechanism(OpKind::Demand, &list), Mechanism::Gather, "{machine}");
                }
            }
        }
    }

    #[test]
    fn an_engine_that_has_to_wait_for_the_look_up_pays_for_it() {
        let choice = chooser("h100-pcie5", Launch::Stream, 4 * MIB);
        let by = |kind, each| choice.mechanism(kind, &list(1, each));
        assert_eq!(by(OpKind::Demand, 1), Mechanism::Gather);
        assert_eq!(by(OpKind::Prefetch, 1), Mechanism::CopyBatch);
        assert_eq!(by(OpKind::Demand, 16), Mechanism::CopyBatch);
    }

    #[test]
    fn of_equals_the_first_is_chosen_and_what_was_chosen_is_said() {
        let mut choice = chooser("h100-pcie5", Launch::Stream, MIB);
        let params = &mut choice.params;
        params.gather.rate = 1.0;
        (params.copy_loop.call_ns, params.copy_loop.gap_ns) = (0.0, 0.0);
        params.copy_batch.queued_ns = 0.0;
        assert_eq!(choice.mechanism(OpKind::Demand, &list(8, 8)), Mechanism::CopyLoop);

        let mut chosen = Chosen::default();
        assert_eq!(chosen.note(), None);
        let layer = |each| LayerWork { demand: list(8, each), ..LayerWork::default() };
        let mut work = StepWork { layers: vec![layer(8), layer(0), layer(9)], ..StepWork::default() };
        choice.count(&work, &mut chosen);
        assert_eq!(chosen.note().as_deref(), Some("auto: every list by copy-loop"));
        choice.params.gather.rate = 40.0;
        work.layers[0].prefetch = list(1, 1);
        choice.params.copy.setup_ns = 12e3;
        choice.count(&work, &mut chosen);
        assert_eq!(chosen.note().as_deref(), Some("auto: of the lists 1 by gather, 4 by copy-loop"));
        choice.transfer = Transfer::Always(Mechanism::CopyBatch);
        choice.count(&work, &mut chosen);
        assert_eq!(chosen.lists.iter().sum::<u64>(), 5, "nothing was chosen");
    }
}
