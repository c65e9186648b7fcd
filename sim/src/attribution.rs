//! Where a step's time went: every nanosecond of the compute queue is compute, stall, launch or wait, and they add up.
//! It stands apart because reports and the hardware backend speak of time in the same words.

use kvtier_units::{Bytes, Nanos};
use std::ops::AddAssign;

/// The queues of one GPU; each runs its operations in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Kernels.
    Compute,
    /// Transfers to the device.
    CopyIn,
    /// Transfers to the host.
    CopyOut,
    /// Misses from CXL memory.
    CxlIn,
    /// Misses from NVMe storage.
    NvmeIn,
    /// Blocks that change their home tier, in the background.
    Background,
}

impl Queue {
    /// The name shown in reports.
    pub fn name(self) -> &'static str {
        match self {
            Queue::Compute => "compute",
            Queue::CopyIn => "copy in",
            Queue::CopyOut => "copy out",
            Queue::CxlIn => "cxl in",
            Queue::NvmeIn => "nvme in",
            Queue::Background => "background",
        }
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Loads short contexts at admission.
    Admit,
    /// Scores candidates and takes the best.
    Select,
    /// Finds which of them are resident.
    Lookup,
    /// Copies warm pages that two streams took at once.
    WarmCopy,
    /// Brings the misses.
    Demand,
    /// Attends to all that was selected, or to the hits.
    Attend,
    /// Attends to the misses.
    AttendMisses,
    /// Merges two partial results.
    Merge,
    /// Brings blocks that were not asked for yet.
    Prefetch,
    /// Projections and MLP.
    Dense,
    /// Writes filled blocks to their home.
    WriteBack,
    /// Moves blocks to a lower home tier.
    Demote,
    /// Keeps blocks brought from below in host memory.
    Promote,
    /// The output head.
    Head,
}

impl OpKind {
    /// The name shown in timelines.
    pub fn name(self) -> &'static str {
        match self {
            OpKind::Admit => "admit",
            OpKind::Select => "select",
            OpKind::Lookup => "look up",
            OpKind::WarmCopy => "copy warm pages",
            OpKind::Demand => "swap in",
            OpKind::Attend => "attend",
            OpKind::AttendMisses => "attend misses",
            OpKind::Merge => "merge",
            OpKind::Prefetch => "prefetch",
            OpKind::Dense => "dense",
            OpKind::WriteBack => "write back",
            OpKind::Demote => "demote",
            OpKind::Promote => "promote",
            OpKind::Head => "head",
        }
    }
}

/// The share of one layer, or of what lies outside the layers, in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSpan {
    /// Kernels computing.
    pub compute: Nanos,
    /// Waiting for blocks: misses, late prefetches, transfers in the compute queue.
    pub stall: Nanos,
    /// Launches: graph nodes, and kernels not yet submitted.
    pub launch: Nanos,
    /// Anything else waited for: admission loads, unfinished write-backs.
    pub wait: Nanos,
    /// Bytes that this step decided to send to the device.
    pub h2d: Bytes,
    /// Bytes sent to the host.
    pub d2h: Bytes,
    /// Bytes copied within HBM.
    pub copied: Bytes,
    /// First demands of prefetched blocks that had arrived, blocks.
    pub covered: u64,
    /// First demands of prefetched blocks still in flight, blocks.
    pub late: u64,
}

impl LayerSpan {
    /// Time on the compute queue.
    pub fn time(&self) -> Nanos {
        self.compute + self.stall + self.launch + self.wait
    }
}

impl AddAssign for LayerSpan {
    fn add_assign(&mut self, other: LayerSpan) {
        self.compute += other.compute;
        self.stall += other.stall;
        self.launch += other.launch;
        self.wait += other.wait;
        self.h2d += other.h2d;
        self.d2h += other.d2h;
        self.copied += other.copied;
        self.covered += other.covered;
        self.late += other.late;
    }
}

/// One operation as it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpSpan {
    /// What it did.
    pub kind: OpKind,
    /// Where.
    pub queue: Queue,
    /// Layer of the model; none for what lies outside the layers.
    pub layer: Option<u32>,
    /// Engine step that issued it; a transfer may end in a later one.
    pub step: u32,
    /// Begin, launch included.
    pub begin: Nanos,
    /// End.
    pub end: Nanos,
    /// Bytes moved.
    pub bytes: Bytes,
}

/// What a step moved over the links of the tiers below host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierSpan {
    /// Bytes read from CXL and from NVMe: by misses, prefetches, and moves to a lower tier.
    pub read: [Bytes; 2],
    /// Bytes written to CXL and to NVMe.
    pub written: [Bytes; 2],
    /// Blocks whose move at the step's boundary had not ended when the step did.
    pub late: u64,
}

/// One step as it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSpans {
    /// Engine step.
    pub step: u32,
    /// When it began: the end of the step before.
    pub start: Nanos,
    /// When its last kernel ended.
    pub end: Nanos,
    /// Admission, submission and output head.
    pub outside: LayerSpan,
    /// Layers of the model, in order.
    pub layers: Vec<LayerSpan>,
    /// Time the link to the device carried at least one transfer.
    pub h2d_busy: Nanos,
    /// Traffic of the tiers below host.
    pub tiers: TierSpan,
    /// Operations that ended in this step, if recorded, in order of their ends.
    pub ops: Vec<OpSpan>,
}

impl StepSpans {
    /// Length of the step.
    pub fn time(&self) -> Nanos {
        self.end - self.start
    }

    /// All layers and what lies outside them.
    pub fn total(&self) -> LayerSpan {
        let mut total = self.outside;
        self.layers.iter().for_each(|layer| total += *layer);
        total
    }

    /// Forgets the last step, keeping the memory.
    pub(crate) fn open(&mut self, step: u32, start: Nanos, layers: usize) {
        self.step = step;
        self.start = start;
        self.end = start;
        self.outside = LayerSpan::default();
        self.layers.clear();
        self.layers.resize(layers, LayerSpan::default());
        self.h2d_busy = Nanos::ZERO;
        self.tiers = TierSpan::default();
        self.ops.clear();
    }

    /// The share of a layer, or of what lies outside.
    pub(crate) fn of(&mut self, layer: Option<u32>) -> &mut LayerSpan {
        match layer {
            Some(layer) => &mut self.layers[layer as usize],
            None => &mut self.outside,
        }
    }

    /// Closes the step; its parts must add up to its length.
    pub(crate) fn close(&mut self, end: Nanos) {
        self.end = end;
        assert_eq!(self.total().time(), self.time(), "compute, stall, launch and wait add up to the step");
    }
}
