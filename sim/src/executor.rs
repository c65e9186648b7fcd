//! The simulated backend: runs the operations of each step over queues and links, and says where the time went.
//! It decides nothing; what is outstanding at the end of a step flows on into the next.

use crate::attribution::{OpKind, OpSpan, Queue, StepSpans};
use crate::choice::Chooser;
use crate::events::EventQueue;
use crate::issue::{D2H, H2D, Issuer};
use crate::links::{Duplex, Links};
use crate::machine::{Machine, Tier};
use crate::model::Model;
use crate::overlap::{NOTHING_AHEAD, Overlap, TimeConfig, Variant};
use crate::queues::{Op, OpId, QUEUES, Queues, Work};
use crate::work::StepWork;
use kvtier_units::{Bandwidth, Bytes, Nanos};

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A kernel ends.
    Ended(OpId),
    /// A transfer's launch and set-up are over: it enters the links.
    Enters(OpId),
    /// The first flow to end does, unless the flows have changed since.
    FlowEnds { generation: u64 },
    /// The CPU has submitted the head of a queue.
    Submitted(Queue),
}

/// Events of one time happen in this order: what ends, then what enters, then what may start.
impl Event {
    fn class(self) -> u8 {
        match self {
            Event::Ended(_) | Event::FlowEnds { .. } => 0,
            Event::Enters(_) => 1,
            Event::Submitted(_) => 2,
        }
    }
}

/// Executes the steps of one run on one GPU.
#[derive(Debug)]
pub struct Executor {
    config: TimeConfig,
    layers: usize,
    issuer: Issuer,
    queues: Queues,
    links: Links,
    flows_changed: u64,
    events: EventQueue<Event>,
    now: Nanos,
    spans: StepSpans,
}

impl Executor {
    /// An idle GPU at time zero.
    pub fn new(machine: &Machine, model: &Model, config: TimeConfig) -> Executor {
        let duplex = Duplex { pair: [H2D, D2H], shared: machine.duplex };
        let mut capacities = vec![machine.h2d, machine.d2h, machine.host_bandwidth, machine.hbm_read];
        // No flow uses a tier that the machine lacks.
        let rates = |tier: Option<Tier>| tier.map_or([Bandwidth(1); 2], |tier| [tier.read, tier.write]);
        capacities.extend([machine.cxl, machine.nvme].into_iter().flat_map(rates));
        Executor {
            config,
            layers: model.layers.len(),
            issuer: Issuer::new(machine, model, config),
            queues: Queues::new(),
            links: Links::new(&capacities, Some(duplex)),
            flows_changed: 0,
            events: EventQueue::with_capacity(64),
            now: Nanos::ZERO,
            spans: StepSpans::default(),
        }
    }

    /// Runs one step from the end of the last; transfers that no attention waited for may outlast it.
    ///
    /// # Panics
    /// If the step does not have one entry per sparse layer of the model.
    pub fn run_step(&mut self, work: &StepWork) -> &StepSpans {
        let start = self.now;
        self.spans.open(work.step, start, self.layers);
        let busy_before = self.links.busy(start, H2D);
        let last = self.issuer.issue(work, start, &mut self.queues, &mut self.spans);
        self.start_heads();
        while !self.queues.has_ended(last) {
            let (now, event) =
                self.events.pop().expect("a step whose kernels have not ended has events to come");
            self.now = now;
            self.handle(event);
        }
        let late = self.issuer.boundary_moves.iter().filter(|(id, _)| !self.queues.has_ended(*id));
        self.spans.tiers.late = late.map(|(_, blocks)| blocks).sum();
        self.spans.h2d_busy = self.links.busy(self.now, H2D) - busy_before;
        self.spans.close(self.now);
        &self.spans
    }

    /// The time at which the last step ended.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Events scheduled since the start, for benchmarks.
    pub fn events(&self) -> u64 {
        self.events.scheduled()
    }

    /// What chooses the mechanism of every transfer.
    pub fn chooser(&self) -> &Chooser {
        &self.issuer.chooser
    }

    /// What the reader of the results must know: a mode that could not do what its name says.
    pub fn note(&self) -> Option<&'static str> {
        let ahead = self.config.overlap == Overlap::LayerAhead && self.config.variant == Variant::Offload;
        (ahead && !self.issuer.prefetched).then_some(NOTHING_AHEAD)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ended(id) => self.end(id),
            Event::Enters(id) => self.enter(id),
            Event::Submitted(queue) => self.start_head(queue),
            Event::FlowEnds { generation } if generation == self.flows_changed => {
                let (_, flow) = self.links.next_end().expect("the flow that ends is under way");
                self.links.end(self.now, flow);
                self.schedule_next_flow_end();
                self.end(OpId(flow));
            }
            Event::FlowEnds { .. } => {}
        }
    }

    fn enter(&mut self, id: OpId) {
        let op = self.queues.get(id).expect("a transfer that enters has not ended");
        let Work::Transfer { cost, route, .. } = op.work else {
            unreachable!("only transfers enter the links")
        };
        self.links.start_for(self.now, id.0, route, cost.rate, cost.body);
        self.schedule_next_flow_end();
    }

    fn schedule_next_flow_end(&mut self) {
        self.flows_changed += 1;
        if let Some((end, _)) = self.links.next_end() {
            self.schedule(end, Event::FlowEnds { generation: self.flows_changed });
        }
    }

    fn schedule(&mut self, time: Nanos, event: Event) {
        self.events.schedule(time, event.class(), event);
    }

    fn end(&mut self, id: OpId) {
        let op = self.queues.end(id, self.now);
        self.credit(&op);
        if self.config.record_ops {
            let bytes = match op.work {
                Work::Transfer { bytes, .. } => bytes,
                Work::Kernel(_) => Bytes::ZERO,
            };
            let Op { kind, queue, layer, step, begun: begin, .. } = op;
            self.spans.ops.push(OpSpan { kind, queue, layer, step, begin, end: self.now, bytes });
        }
        self.start_heads();
    }

    /// Attributes the time of an operation that ended on the compute queue.
    fn credit(&mut self, op: &Op) {
        if op.queue != Queue::Compute {
            return;
        }
        let worked = self.now - op.begun - op.launch;
        let span = self.spans.of(op.layer);
        span.launch += op.launch;
        match op.kind {
            OpKind::Admit => span.wait += worked,
            OpKind::Demand | OpKind::Prefetch => span.stall += worked,
            _ => span.compute += worked,
        }
    }

    fn start_heads(&mut self) {
        for queue in QUEUES {
            self.start_head(queue);
        }
    }

    /// Starts the head of `queue` if nothing holds it back; if only its submission does, comes back then.
    fn start_head(&mut self, queue: Queue) {
        let Some((_, op)) = self.queues.head(queue) else { return };
        if op.submitted > self.now {
            let submitted = op.submitted;
            if self.queues.wake_once(queue) {
                self.schedule(submitted, Event::Submitted(queue));
            }
            return;
        }
        self.note_arrivals(queue);
        let (_, op) = self.queues.head(queue).expect("the head still waits");
        if !self.queues.is_free(op) {
            return;
        }
        let idle_since = self.queues.free_since(queue);
        let (id, op) = self.queues.start(queue, self.now);
        if queue == Queue::Compute {
            self.credit_gap(&op, idle_since);
        }
        match op.work {
            Work::Kernel(body) => self.schedule(self.now + op.launch + body, Event::Ended(id)),
            Work::Transfer { cost, .. } => {
                self.schedule(self.now + op.launch + cost.setup, Event::Enters(id))
            }
        }
    }

    /// The first time an attention stands ready at the head: of the prefetched blocks it uses, which have arrived?
    fn note_arrivals(&mut self, queue: Queue) {
        let Some((layer, (first, last))) = self.queues.take_uses(queue) else { return };
        for one in &self.issuer.uses[first as usize..last as usize] {
            let arrived = one.transfer.is_none_or(|transfer| self.queues.has_ended(transfer));
            let span = self.spans.of(layer);
            *(if arrived { &mut span.covered } else { &mut span.late }) += u64::from(one.blocks);
        }
    }

    /// Attributes the time for which the compute queue stood idle before `op`: first to its submission, then to what
    /// it depends on.
    fn credit_gap(&mut self, op: &Op, idle_since: Nanos) {
        let submitted = op.submitted.max(idle_since);
        let span = self.spans.of(op.layer);
        span.launch += submitted - idle_since;
        let held_back = self.now - submitted;
        match op.kind {
            OpKind::Attend | OpKind::AttendMisses => span.stall += held_back,
            _ => span.wait += held_back,
        }
    }
}
