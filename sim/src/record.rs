//! The run record: everything known of one point, in the shape in which it is stored, compared and reported.
//! One `Point` is one row of points.parquet; the columns are named after the fields.

use serde::{Deserialize, Serialize};

/// What kind of run a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointKind {
    /// Hot buffers over a host tier: the subject.
    Offload,
    /// Baseline: the whole KV cache in HBM, sparse attention, no transfers.
    Resident,
    /// Baseline: the whole KV cache in HBM and dense attention.
    Dense,
}

/// Whether a point could be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status", content = "reason")]
pub enum Status {
    /// It ran.
    Ok,
    /// It does not fit the machine; the reason names the pool and the remedy.
    Infeasible(String),
}

/// The configuration of a point as far as reports group, filter and label by it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointConfig {
    /// Trace file name, without its folder.
    pub trace: String,
    /// xxh3-64 of the trace file's bytes, in hex.
    pub trace_hash: String,
    /// Model preset whose geometry is used.
    pub model: String,
    /// How the trace's layers and head groups were mapped to the model's; empty where they are the same.
    pub mapping: String,
    /// Machine preset.
    pub machine: String,
    /// Blocks per selection.
    pub k: u32,
    /// Near misses kept per selection.
    pub near: u32,
    /// Recorded entries folded into one block.
    pub fold: u32,
    /// `reserved` (DESIGN semantics) or `ordinary` (the newest block is a block like any other).
    pub newest: String,
    /// Eviction policy of the hot buffers.
    pub policy: String,
    /// Slots per hot buffer.
    pub slots: u32,
    /// How the slots are shared among layers, head groups and requests; then `slots` is the even share.
    #[serde(default)]
    pub allocation: String,
    /// Start of a request: `cold` or `recent`.
    pub start: String,
    /// Frames of the shared warm pages.
    pub warm_frames: u64,
    /// Admission to the warm pages; empty where there are none.
    #[serde(default)]
    pub admission: String,
    /// Demotion between home tiers, and whether blocks move up again; empty where host is the only tier.
    #[serde(default)]
    pub demotion: String,
    /// Pools of the home tiers; empty where host is the only one.
    #[serde(default)]
    pub tiers: String,
    /// Prefetch policy.
    pub prefetch: String,
    /// Blocks a stream may prefetch in one step.
    pub prefetch_budget: u32,
    /// Overlap mode: `serial`, `hit-first` or `layer-ahead`.
    pub overlap: String,
    /// Transfer mechanism for swap-in, or `auto`; then the note says what was chosen.
    pub transfer: String,
    /// Requests decoding at once.
    pub concurrency: u32,
    /// Engine steps replayed.
    pub steps: u32,
    /// First engine step of the measured window.
    pub measure_from: u32,
    /// Seed of everything random.
    pub seed: u64,
}

/// Decision-plane counts over a window of engine steps; every count is of blocks unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Blocks selected, the newest included.
    pub accesses: u64,
    /// Selected blocks that were the newest, in their reserved slot (hits).
    pub newest: u64,
    /// Selected blocks found in the hot buffer, prefetched ones included.
    pub hits: u64,
    /// Of the hits, first demands of prefetched blocks.
    pub prefetched: u64,
    /// Found among the warm pages: no transfer and no miss.
    pub warm_hits: u64,
    /// Demand misses: cold + capacity + policy.
    pub misses: u64,
    /// Misses on blocks never yet in HBM.
    pub cold: u64,
    /// Non-cold misses that Belady would also take with the same slots; with even shares where sizes change online.
    pub capacity: u64,
    /// The rest. Negative where prefetch or warm pages beat demand-only Belady.
    pub policy: i64,
    /// Misses on blocks that a prefetch had evicted (also counted above).
    pub pollution: u64,
    /// Of the misses, blocks whose home was in CXL memory.
    #[serde(default)]
    pub misses_cxl: u64,
    /// Of the misses, blocks whose home was on NVMe storage; the rest came from host memory.
    #[serde(default)]
    pub misses_nvme: u64,
    /// Blocks prefetched.
    pub prefetches: u64,
    /// Of those, blocks whose home was in CXL memory.
    #[serde(default)]
    pub prefetches_cxl: u64,
    /// Of those, blocks whose home was on NVMe storage.
    #[serde(default)]
    pub prefetches_nvme: u64,
    /// Prefetched blocks that left, or stood at the end, unused.
    pub wasted: u64,
    /// Prefetches dropped for want of a slot that might be evicted.
    #[serde(default)]
    pub dropped: u64,
    /// Newly filled blocks written to their home.
    pub written_back: u64,
    /// Blocks loaded at admission.
    pub admitted: u64,
    /// Blocks evicted from hot buffers.
    pub evictions: u64,
    /// Bytes written to page tables, slot tags and policy state.
    pub metadata_bytes: u64,
    /// Blocks that left a hot buffer and entered the warm pages, or became newest there again.
    #[serde(default)]
    pub warm_insertions: u64,
    /// Blocks that left a hot buffer and were turned away from the warm pages.
    #[serde(default)]
    pub warm_rejected: u64,
    /// Warm pages that a second stream took in the same layer: copies within HBM.
    #[serde(default)]
    pub warm_copies: u64,
    /// Home blocks that moved down to CXL memory.
    #[serde(default)]
    pub demoted_cxl: u64,
    /// Home blocks that moved down to NVMe storage.
    #[serde(default)]
    pub demoted_nvme: u64,
    /// Home blocks that moved up to host memory when they were brought from below.
    #[serde(default)]
    pub promoted: u64,
    /// New blocks that found no room in host memory and went straight below.
    #[serde(default)]
    pub spilled: u64,
}

impl Tally {
    /// Misses per access, zero where there was no access.
    #[allow(clippy::cast_precision_loss)] // a report's seven digits
    pub fn miss_ratio(&self) -> f64 {
        if self.accesses == 0 { 0.0 } else { self.misses as f64 / self.accesses as f64 }
    }
}

/// Where HBM and the host pool go, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Model weights.
    pub weights: u64,
    /// Selection keys (indexer keys, or page minima and maxima), which stay in HBM.
    pub index: u64,
    /// Hot buffers and reserved slots, or the whole cache in a baseline.
    pub hot: u64,
    /// Warm pages.
    pub warm: u64,
    /// Page tables, slot tags and policy state.
    pub metadata: u64,
    /// HBM in use: the sum of the above.
    pub hbm_total: u64,
    /// HBM of the machine.
    pub hbm_capacity: u64,
    /// Home copies in host memory.
    pub host: u64,
    /// Host pool capacity.
    pub host_capacity: u64,
    /// Home blocks in CXL memory.
    #[serde(default)]
    pub cxl: u64,
    /// CXL pool capacity.
    #[serde(default)]
    pub cxl_capacity: u64,
    /// Home blocks on NVMe storage.
    #[serde(default)]
    pub nvme: u64,
    /// NVMe pool capacity.
    #[serde(default)]
    pub nvme_capacity: u64,
    /// Host memory that says where each block has its home, beside the pool; nothing where host is the only tier.
    #[serde(default)]
    pub host_metadata: u64,
}

/// Simulated time over the measured window; the first four add up to `total`, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeTally {
    /// Kernels computing, ns.
    pub compute_ns: u64,
    /// Attention waiting for misses, ns.
    pub stall_ns: u64,
    /// Launches and graph nodes, ns.
    pub launch_ns: u64,
    /// Anything else waited for, ns.
    pub wait_ns: u64,
    /// The window, ns.
    pub total_ns: u64,
    /// Median step, ns.
    pub step_p50_ns: u64,
    /// 90th percentile step, ns.
    pub step_p90_ns: u64,
    /// 99th percentile step, ns.
    pub step_p99_ns: u64,
    /// Tokens decoded in the window.
    pub tokens: u64,
    /// Host-to-device bytes moved in the window.
    pub h2d_bytes: u64,
    /// Device-to-host bytes moved in the window.
    pub d2h_bytes: u64,
    /// Bytes copied within HBM in the window: warm pages that two streams took at once.
    #[serde(default)]
    pub hbm_copy_bytes: u64,
    /// Bytes read from CXL memory in the window: misses, prefetches, and blocks that moved on to NVMe.
    #[serde(default)]
    pub cxl_read_bytes: u64,
    /// Bytes written to CXL memory in the window.
    #[serde(default)]
    pub cxl_write_bytes: u64,
    /// Bytes read from NVMe storage in the window.
    #[serde(default)]
    pub nvme_read_bytes: u64,
    /// Bytes written to NVMe storage in the window.
    #[serde(default)]
    pub nvme_write_bytes: u64,
    /// Blocks whose move to a lower tier, decided at a step's boundary, had not ended when the step did.
    #[serde(default)]
    pub late_moves: u64,
    /// Time the host-to-device link carried at least one flow, ns.
    pub h2d_busy_ns: u64,
    /// First demands of prefetched blocks that had arrived in time, blocks.
    pub covered: u64,
    /// First demands of prefetched blocks that were still in flight, blocks.
    pub late: u64,
}

impl TimeTally {
    /// Decoded tokens per simulated second.
    #[allow(clippy::cast_precision_loss)] // a report's seven digits
    pub fn tokens_per_s(&self) -> f64 {
        if self.total_ns == 0 { 0.0 } else { self.tokens as f64 * 1e9 / self.total_ns as f64 }
    }
}

/// Accesses and misses of one layer over the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTally {
    /// Blocks selected, the newest included.
    pub accesses: u64,
    /// Demand misses.
    pub misses: u64,
    /// Slots of all hot buffers, summed over the steps.
    #[serde(default)]
    pub slot_steps: u64,
    /// Hot buffers, summed over the steps: mean slots of a buffer are `slot_steps / buffer_steps`.
    #[serde(default)]
    pub buffer_steps: u64,
}

/// One point of a sweep, or one replay: configuration, decisions, memory and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Hex of the hash of the full configuration and the trace; the point's address.
    pub id: String,
    /// Offload, or one of the baselines.
    pub kind: PointKind,
    /// Whether it ran.
    #[serde(flatten)]
    pub status: Status,
    /// What the reader must know of this point; empty where there is nothing.
    #[serde(default)]
    pub note: String,
    /// The configuration.
    pub config: PointConfig,
    /// Counts over the measured window.
    pub steady: Tally,
    /// Counts over the whole run.
    pub whole: Tally,
    /// Memory.
    pub footprint: Footprint,
    /// Time over the measured window.
    pub time: TimeTally,
    /// Bytes moved / bytes selected over the measured window, in thousandths (folding and prefetch included).
    pub amplification_milli: u64,
    /// Decision log hash, hex; empty for baselines.
    pub decision_hash: String,
    /// Per layer of the model that selects, in order; empty for baselines.
    #[serde(default)]
    pub layers: Vec<LayerTally>,
}
