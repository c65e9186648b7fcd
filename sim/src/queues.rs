//! In-order queues of operations, as CUDA streams: an operation starts when those before it in its queue have ended,
//! those it depends on have ended, and the CPU has submitted it.

use crate::attribution::{OpKind, Queue};
use crate::links::Route;
use crate::transfer::TransferCost;
use kvtier_units::{Bytes, Nanos};
use std::collections::VecDeque;

/// Names an operation, in the order in which they were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpId(pub(crate) u64);

/// What an operation occupies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// The device, for so long.
    Kernel(Nanos),
    /// A route, at the cost of a lone transfer or more.
    Transfer {
        /// Cost alone.
        cost: TransferCost,
        /// Where it goes.
        route: Route,
        /// Bytes moved.
        bytes: Bytes,
    },
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: OpKind,
    pub(crate) queue: Queue,
    pub(crate) layer: Option<u32>,
    pub(crate) step: u32,
    /// Device time of its launch.
    pub(crate) launch: Nanos,
    /// When the CPU has submitted it.
    pub(crate) submitted: Nanos,
    pub(crate) work: Work,
    /// Operations that must have ended.
    pub(crate) after: [Option<OpId>; 2],
    /// More such operations: transfers from the tiers below host.
    pub(crate) after_below: [Option<OpId>; 2],
    /// Its uses of prefetched blocks: a range of the executor's list for this step.
    pub(crate) uses: (u32, u32),
    pub(crate) begun: Nanos,
    pub(crate) ended: bool,
}

/// All operations that have not ended, and the queues they stand in.
#[derive(Debug)]
pub(crate) struct Queues {
    ops: VecDeque<Op>,
    first: u64,
    waiting: [VecDeque<OpId>; 6],
    running: [Option<OpId>; 6],
    free_since: [Nanos; 6],
    /// The operation whose submission was last waited for.
    woken_for: [Option<OpId>; 6],
}

pub(crate) const QUEUES: [Queue; 6] =
    [Queue::Compute, Queue::CopyIn, Queue::CopyOut, Queue::CxlIn, Queue::NvmeIn, Queue::Background];

impl Queues {
    pub(crate) fn new() -> Queues {
        Queues {
            ops: VecDeque::with_capacity(1024),
            first: 0,
            waiting: [const { VecDeque::new() }; 6],
            running: [None; 6],
            free_since: [Nanos::ZERO; 6],
            woken_for: [None; 6],
        }
    }

    /// Puts an operation at the end of its queue.
    pub(crate) fn push(&mut self, op: Op) -> OpId {
        let id = OpId(self.first + self.ops.len() as u64);
        assert!(op.after.iter().flatten().all(|before| *before < id), "an operation depends on earlier ones");
        self.waiting[op.queue as usize].push_back(id);
        self.ops.push_back(op);
        id
    }

    /// The operation, unless it ended and was forgotten.
    pub(crate) fn get(&self, id: OpId) -> Option<&Op> {
        let index = id.0.checked_sub(self.first)?;
        self.ops.get(usize::try_from(index).expect("an index into memory"))
    }

    pub(crate) fn has_ended(&self, id: OpId) -> bool {
        self.get(id).is_none_or(|op| op.ended)
    }

    /// The operation that may start next in `queue`: its head, if nothing runs there.
    pub(crate) fn head(&self, queue: Queue) -> Option<(OpId, &Op)> {
        if self.running[queue as usize].is_some() {
            return None;
        }
        let id = *self.waiting[queue as usize].front()?;
        Some((id, self.get(id).expect("a waiting operation has not ended")))
    }

    /// Whether all that an operation depends on has ended.
    pub(crate) fn is_free(&self, op: &Op) -> bool {
        op.after.iter().chain(&op.after_below).flatten().all(|before| self.has_ended(*before))
    }

    /// Since when `queue` has been idle.
    pub(crate) fn free_since(&self, queue: Queue) -> Nanos {
        self.free_since[queue as usize]
    }

    /// Whether this is the first wait for the submission of the head of `queue`.
    pub(crate) fn wake_once(&mut self, queue: Queue) -> bool {
        let head = self.waiting[queue as usize].front().copied();
        std::mem::replace(&mut self.woken_for[queue as usize], head) != head
    }

    /// Has an operation wait for transfers from the tiers below host as well.
    pub(crate) fn wait_for_below(&mut self, id: OpId, transfers: [Option<OpId>; 2]) {
        assert!(
            transfers.iter().flatten().all(|before| *before < id),
            "an operation depends on earlier ones"
        );
        self.op(id).after_below = transfers;
    }

    /// Notes which uses of prefetched blocks an operation has.
    pub(crate) fn set_uses(&mut self, id: OpId, uses: (u32, u32)) {
        self.op(id).uses = uses;
    }

    /// The layer and the uses of the head of `queue`, once.
    pub(crate) fn take_uses(&mut self, queue: Queue) -> Option<(Option<u32>, (u32, u32))> {
        let id = *self.waiting[queue as usize].front()?;
        let op = self.op(id);
        let uses = std::mem::take(&mut op.uses);
        (uses.0 < uses.1).then_some((op.layer, uses))
    }

    /// Starts the head of `queue`.
    pub(crate) fn start(&mut self, queue: Queue, now: Nanos) -> (OpId, Op) {
        let id = self.waiting[queue as usize].pop_front().expect("a queue starts its head");
        self.running[queue as usize] = Some(id);
        let op = self.op(id);
        op.begun = now;
        (id, *op)
    }

    /// Ends the operation that runs, and frees its queue.
    pub(crate) fn end(&mut self, id: OpId, now: Nanos) -> Op {
        let op = self.op(id);
        assert!(!op.ended, "an operation ends once");
        op.ended = true;
        let ended = *op;
        let queue = ended.queue as usize;
        assert_eq!(self.running[queue], Some(id), "the operation that ends is the one that runs");
        self.running[queue] = None;
        self.free_since[queue] = now;
        while self.ops.front().is_some_and(|op| op.ended) {
            self.ops.pop_front();
            self.first += 1;
        }
        ended
    }

    fn op(&mut self, id: OpId) -> &mut Op {
        let index = id.0.checked_sub(self.first).expect("an operation is forgotten only after its end");
        &mut self.ops[usize::try_from(index).expect("an index into memory")]
    }
}
