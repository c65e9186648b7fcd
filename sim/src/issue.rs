//! Turns the work of a step into operations: which there are, in which queue each runs and what it waits for.
//! An overlap mode only reorders operations; it stands apart from the executor, which only runs them.

use crate::attribution::{OpKind, Queue, StepSpans};
use crate::choice::Chooser;
use crate::kernels::{Kernel, KernelCosts};
use crate::links::{Resource, Route};
use crate::machine::{Machine, Tier};
use crate::model::Model;
use crate::overlap::{Launch, Overlap, TimeConfig, Variant};
use crate::queues::{Op, OpId, Queues, Work};
use crate::work::{LayerWork, Movement, StepWork};
use kvtier_units::{Bandwidth, Bytes, Nanos};
use prefetching::Decided;

mod below;
mod prefetching;

/// Resources of the links of one GPU.
pub(crate) const H2D: Resource = Resource(0);
pub(crate) const D2H: Resource = Resource(1);
pub(crate) const HOST: Resource = Resource(2);
pub(crate) const HBM: Resource = Resource(3);
/// Reading and writing of the tiers below host: CXL, NVMe.
pub(crate) const READ: [Resource; 2] = [Resource(4), Resource(6)];
pub(crate) const WRITE: [Resource; 2] = [Resource(5), Resource(7)];

/// Blocks of one issuing step that an attention uses, and the transfer that brings them, if it was still under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) transfer: Option<OpId>,
    pub(crate) blocks: u32,
}

/// Turns work into operations. What it remembers between steps: transfers that later operations may have to wait for.
#[derive(Debug)]
pub(crate) struct Issuer {
    config: TimeConfig,
    costs: KernelCosts,
    pub(crate) chooser: Chooser,
    model: Model,
    graph_node: Nanos,
    submission: Nanos,
    /// CPU time up to which submissions have been made.
    submitted: Nanos,
    step: u32,
    /// Uses of prefetched blocks in this step.
    pub(crate) uses: Vec<Use>,
    /// Per sparse layer, prefetches issued and perhaps under way: (issuing step, transfer).
    under_way: Vec<Vec<(u32, OpId)>>,
    /// Per sparse layer, under layer-ahead: prefetch decided and not yet issued.
    decided: Vec<Option<Decided>>,
    /// Per sparse layer, the last write-back.
    write_backs: Vec<Option<OpId>>,
    pub(crate) prefetched: bool,
    host_bandwidth: Bandwidth,
    /// CXL and NVMe.
    tiers: [Option<Tier>; 2],
    /// Moves between home tiers that this step's boundary asked for, and their blocks.
    pub(crate) boundary_moves: Vec<(OpId, u64)>,
}

impl Issuer {
    pub(crate) fn new(machine: &Machine, model: &Model, config: TimeConfig) -> Issuer {
        let sparse = model.sparse_layers();
        Issuer {
            config,
            costs: KernelCosts::new(machine, model),
            chooser: Chooser::new(machine, model, &config),
            model: model.clone(),
            graph_node: machine.kernels.graph_node,
            submission: machine.kernels.submission,
            submitted: Nanos::ZERO,
            step: 0,
            uses: Vec::new(),
            under_way: vec![Vec::new(); sparse],
            decided: vec![None; sparse],
            write_backs: vec![None; sparse],
            prefetched: false,
            host_bandwidth: machine.host_bandwidth,
            tiers: [machine.cxl, machine.nvme],
            boundary_moves: Vec::new(),
        }
    }

    /// Issues one step that begins at `now`; the operation returned is its last in the compute queue.
    pub(crate) fn issue(
        &mut self,
        work: &StepWork,
        now: Nanos,
        queues: &mut Queues,
        spans: &mut StepSpans,
    ) -> OpId {
        assert_eq!(work.layers.len(), self.model.sparse_layers(), "a step has work for every sparse layer");
        self.step = work.step;
        self.uses.clear();
        self.submitted = now + self.submission;
        let mut out = Sink { queues, spans };
        self.boundary_moves.clear();
        self.move_home(&mut out, &work.boundary_moves, None);
        let mut last = None;
        if self.config.variant == Variant::Offload && work.admission.blocks > 0 {
            last = Some(self.transfer(
                &mut out,
                OpKind::Admit,
                Queue::Compute,
                None,
                &work.admission,
                [None; 2],
            ));
        }
        let mut sparse = 0;
        for layer in 0..self.model.layers.len() {
            let place = u32::try_from(layer).expect("fewer than 2^32 layers");
            if self.model.layers[layer].sparse && self.config.variant != Variant::Dense {
                self.issue_sparse(&mut out, place, sparse, work, last);
            } else {
                self.kernel(
                    &mut out,
                    OpKind::Attend,
                    place,
                    self.costs.attend_context(work.context_entries),
                    [None; 2],
                );
            }
            sparse += usize::from(self.model.layers[layer].sparse);
            let dense = self.costs.dense(&self.model.layers[layer], work.requests);
            last = Some(self.kernel(&mut out, OpKind::Dense, place, dense, [None; 2]));
        }
        let head = self.costs.head(work.requests);
        let head = self.push(
            &mut out,
            OpKind::Head,
            Queue::Compute,
            None,
            head.nodes,
            Work::Kernel(head.body),
            [None; 2],
        );
        self.move_home(&mut out, &work.moves, Some(head));
        head
    }

    /// A sparse layer up to its attention; `before` is the last operation of the layer before.
    fn issue_sparse(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        sparse: usize,
        step: &StepWork,
        before: Option<OpId>,
    ) {
        let work = &step.layers[sparse];
        self.kernel(out, OpKind::Select, place, self.costs.select(work.candidate_blocks), [None; 2]);
        if self.config.variant == Variant::Resident {
            self.kernel(out, OpKind::Attend, place, self.costs.attend(work.selected_blocks), [None; 2]);
            return;
        }
        let lookup =
            self.kernel(out, OpKind::Lookup, place, self.costs.lookup(work.selected_blocks), [None; 2]);
        if self.config.overlap == Overlap::LayerAhead {
            self.issue_ahead(out, place, sparse, before);
        }
        if work.warm_copies > 0 {
            out.spans.of(Some(place)).copied += self.model.attention.block_bytes * work.warm_copies;
            self.kernel(out, OpKind::WarmCopy, place, self.costs.copy(work.warm_copies), [None; 2]);
        }
        let frames = self.write_backs[sparse];
        let (uses, arrival) = self.note_uses(out, sparse, work);
        let attend = match self.config.overlap {
            Overlap::HitFirst => {
                self.attend_hits_first(out, place, work, [Some(lookup), frames], uses, arrival)
            }
            Overlap::Serial | Overlap::LayerAhead => {
                let after = [Some(lookup), frames];
                let below = self.demand_below(out, place, work, after);
                self.demand(out, place, work, after);
                let attend = self.attend(out, place, work.selected_blocks, uses, arrival);
                out.queues.wait_for_below(attend, below);
                attend
            }
        };
        self.issue_prefetches(out, place, sparse, step, lookup);
        if work.written_back > 0 {
            let whole = spread(work.written_back, step.requests);
            let after = [Some(attend), None];
            let id = self.transfer(out, OpKind::WriteBack, Queue::CopyOut, Some(place), &whole, after);
            self.write_backs[sparse] = Some(id);
        }
    }

    /// The misses that come from host memory, if there are any.
    fn demand(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        work: &LayerWork,
        after: [Option<OpId>; 2],
    ) -> Option<OpId> {
        let queue = self.config.overlap.demand_queue();
        (work.demand.blocks > 0)
            .then(|| self.transfer(out, OpKind::Demand, queue, Some(place), &work.demand, after))
    }

    /// Attention to the hits, then to the misses, which fly on the copy queue meanwhile.
    fn attend_hits_first(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        work: &LayerWork,
        after: [Option<OpId>; 2],
        uses: (u32, u32),
        arrival: Option<OpId>,
    ) -> OpId {
        if work.missed() == 0 {
            return self.attend(out, place, work.selected_blocks, uses, arrival);
        }
        let below = self.demand_below(out, place, work, after);
        let misses = self.demand(out, place, work, after);
        let split = work.resident_blocks > 0;
        if split {
            self.attend(out, place, work.resident_blocks, uses, arrival);
        }
        let kernel = self.costs.attend(work.missed());
        let last = self.kernel(out, OpKind::AttendMisses, place, kernel, [misses, None]);
        out.queues.wait_for_below(last, below);
        match split {
            true => self.kernel(out, OpKind::Merge, place, self.costs.merge(work.streams), [None; 2]),
            false => last,
        }
    }

    fn attend(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        blocks: u64,
        uses: (u32, u32),
        arrival: Option<OpId>,
    ) -> OpId {
        let id = self.kernel(out, OpKind::Attend, place, self.costs.attend(blocks), [arrival, None]);
        out.queues.set_uses(id, uses);
        id
    }

    fn kernel(
        &mut self,
        out: &mut Sink<'_>,
        kind: OpKind,
        place: u32,
        kernel: Kernel,
        after: [Option<OpId>; 2],
    ) -> OpId {
        self.push(out, kind, Queue::Compute, Some(place), kernel.nodes, Work::Kernel(kernel.body), after)
    }

    /// Counts the bytes of a movement with a layer.
    fn book(&self, out: &mut Sink<'_>, place: Option<u32>, link: Resource, movement: &Movement) {
        let span = out.spans.of(place);
        *(if link == D2H { &mut span.d2h } else { &mut span.h2d }) += self.bytes(movement);
    }

    fn bytes(&self, movement: &Movement) -> Bytes {
        self.model.attention.block_bytes * movement.blocks
    }

    /// Moves blocks and counts their bytes.
    fn transfer(
        &mut self,
        out: &mut Sink<'_>,
        kind: OpKind,
        queue: Queue,
        place: Option<u32>,
        movement: &Movement,
        after: [Option<OpId>; 2],
    ) -> OpId {
        self.book(out, place, link_of(kind), movement);
        self.move_blocks(out, kind, queue, place, movement, after)
    }

    fn move_blocks(
        &mut self,
        out: &mut Sink<'_>,
        kind: OpKind,
        queue: Queue,
        place: Option<u32>,
        movement: &Movement,
        after: [Option<OpId>; 2],
    ) -> OpId {
        let (shape, cost) = self.chooser.transfer(kind, movement);
        let work =
            Work::Transfer { cost, route: Route::over(&[link_of(kind), HOST, HBM]), bytes: shape.payload() };
        self.push(out, kind, queue, place, 1, work, after)
    }

    #[allow(clippy::too_many_arguments)] // the fields of one operation, in one place
    fn push(
        &mut self,
        out: &mut Sink<'_>,
        kind: OpKind,
        queue: Queue,
        layer: Option<u32>,
        nodes: u32,
        work: Work,
        after: [Option<OpId>; 2],
    ) -> OpId {
        let submitted = self.submitted;
        if self.config.launch == Launch::Stream {
            self.submitted += self.submission * u64::from(nodes);
        }
        out.queues.push(Op {
            kind,
            queue,
            layer,
            step: self.step,
            launch: self.graph_node * u64::from(nodes),
            submitted,
            work,
            after,
            after_below: [None; 2],
            uses: (0, 0),
            begun: Nanos::ZERO,
            ended: false,
        })
    }
}

/// Blocks that the requests of a step move in equal parts.
fn spread(blocks: u64, requests: u32) -> Movement {
    let each = blocks.div_ceil(u64::from(requests.max(1)));
    Movement { blocks, requests, worst_request: u32::try_from(each).unwrap_or(u32::MAX) }
}

/// The link that an operation's blocks cross.
fn link_of(kind: OpKind) -> Resource {
    if kind == OpKind::WriteBack { D2H } else { H2D }
}

/// Where issued operations go.
struct Sink<'a> {
    queues: &'a mut Queues,
    spans: &'a mut StepSpans,
}
