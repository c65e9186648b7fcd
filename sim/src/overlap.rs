//! How steps are executed: overlap mode, baseline, launches, transfers. What the choices mean is in `issue.rs`.

use crate::attribution::Queue;
use crate::choice::Transfer;
use crate::transfer::Order;
use kvtier_units::Bytes;

/// How the operations of a layer are scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// Everything in one queue: swap-in stands between look-up and attention, prefetch after attention.
    #[default]
    Serial,
    /// Attention to the hits while the misses fly, then to the misses, then a merge.
    HitFirst,
    /// Misses as in serial; what the step before decided to prefetch for a layer flies during the layer before it.
    LayerAhead,
}

/// What the reader of a point must know that asked for layer-ahead without anything to send ahead.
pub const NOTHING_AHEAD: &str =
    "layer-ahead moved nothing ahead, for no prefetcher issued anything: it ran as serial";

impl Overlap {
    /// Every mode with its name.
    pub const ALL: [(&'static str, Overlap); 3] =
        [("serial", Overlap::Serial), ("hit-first", Overlap::HitFirst), ("layer-ahead", Overlap::LayerAhead)];

    /// The name used in configurations and reports.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).expect("ALL lists every mode").0
    }

    /// The queue in which misses are brought.
    pub fn demand_queue(self) -> Queue {
        if self == Overlap::HitFirst { Queue::CopyIn } else { Queue::Compute }
    }

    /// The queue in which prefetches are.
    pub fn prefetch_queue(self) -> Queue {
        if self == Overlap::Serial { Queue::Compute } else { Queue::CopyIn }
    }
}

/// Where the KV cache is, and what attention reads of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Hot buffers over a host tier.
    #[default]
    Offload,
    /// Baseline: all in HBM; attention reads the selection, nothing is looked up or moved.
    Resident,
    /// Baseline: all in HBM; attention reads the whole context, nothing is selected.
    Dense,
}

/// Who launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Launch {
    /// One CUDA graph per step: one submission, and a node per kernel.
    #[default]
    Graph,
    /// One CPU submission per kernel or transfer.
    Stream,
}

impl Launch {
    /// Every way with its name.
    pub const ALL: [(&'static str, Launch); 2] = [("graph", Launch::Graph), ("stream", Launch::Stream)];
}

/// How steps are executed.
#[derive(Clone, Copy, Debug)]
pub struct TimeConfig {
    /// Offload, or a baseline.
    pub variant: Variant,
    /// Schedule of a layer.
    pub overlap: Overlap,
    /// What moves blocks.
    pub transfer: Transfer,
    /// Order of transfers.
    pub order: Order,
    /// Who launches.
    pub launch: Launch,
    /// Host memory over which the blocks of one request are spread that one layer may ask for.
    pub request_region: Bytes,
    /// Whether every operation is recorded.
    pub record_ops: bool,
}
