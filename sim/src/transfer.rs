//! What it costs to move n blocks of b bytes between host memory and HBM, as a function of a few physical parameters.
//! It stands apart from the links because it prices a lone transfer; sharing with others is the links' affair.

use kvtier_units::{Bandwidth, Bytes, Nanos};
use serde::{Deserialize, Serialize};

/// Bytes that the GPU requests from host memory at a time.
const LINE_BYTES: f64 = 128.0;
/// Smallest load; blocks start at a multiple of it.
const LOAD_BYTES: f64 = 16.0;

/// How blocks are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// One kernel with a flat grid over all blocks, reading pinned memory.
    Gather,
    /// One kernel with a CTA per request and a warp per block (SGLang HiSparse).
    GatherPerRequest,
    /// One large copy by the copy engine: all the bytes lie together.
    Copy,
    /// One cudaMemcpyAsync per block.
    CopyLoop,
    /// One cudaMemcpyBatchAsync for all blocks.
    CopyBatch,
}

impl Mechanism {
    /// Every mechanism with its name.
    pub const ALL: [(&'static str, Mechanism); 5] = [
        ("gather", Mechanism::Gather),
        ("gather-per-request", Mechanism::GatherPerRequest),
        ("copy", Mechanism::Copy),
        ("copy-loop", Mechanism::CopyLoop),
        ("copy-batch", Mechanism::CopyBatch),
    ];

    /// The name used in configurations and reports.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).expect("ALL lists every mechanism").0
    }

    /// Whether a kernel on the SMs does the work.
    pub fn is_gather(self) -> bool {
        matches!(self, Mechanism::Gather | Mechanism::GatherPerRequest)
    }
}

/// The order in which blocks are visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As selected: no locality.
    #[default]
    Random,
    /// By host address.
    Sorted,
}

/// One transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferShape {
    /// How.
    pub mechanism: Mechanism,
    /// In which order.
    pub order: Order,
    /// Blocks moved; at least one.
    pub blocks: u64,
    /// Size of each block.
    pub block_bytes: Bytes,
    /// Span of host memory that all of them are drawn from.
    pub region: Bytes,
    /// Requests they belong to; at least one.
    pub requests: u32,
    /// The most blocks that one request moves.
    pub worst_request: u64,
    /// Whether other work stands before it in its stream when it is submitted, an event say. On an idle stream the driver
    /// has the CPU make batches of small blocks at once.
    pub queued: bool,
}

impl TransferShape {
    /// Bytes moved.
    pub fn payload(&self) -> Bytes {
        self.block_bytes * self.blocks
    }
}

/// Reading host memory from the SMs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatherParams {
    /// Bytes/ns of whole lines over the link.
    pub rate: f64,
    /// Launch and event overhead of a gather timed alone, ns; a queue charges its own launch instead.
    pub issue_ns: f64,
    /// Shortest time in which one warp fetches one block whose translation is cold, ns.
    pub visit_ns: f64,
    /// Bytes that one cached translation covers.
    pub page: f64,
    /// Bytes that all cached translations cover together.
    pub reach: f64,
    /// Time the translation hardware is busy with one miss, ns.
    pub walk_ns: f64,
    /// Share of the lesser of link time and walk time that does not hide under the greater.
    pub exposed: f64,
    /// Warps that fetch blocks side by side in one CTA.
    pub warps: f64,
    /// Bytes/ns that one warp draws: its outstanding bytes over the latency.
    pub warp_rate: f64,
}

/// One copy by the copy engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyParams {
    /// Bytes/ns of a large copy: what the link carries.
    pub rate: f64,
    /// Set-up of a copy, ns.
    pub setup_ns: f64,
}

/// Copies in a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyLoopParams {
    /// CPU time per call, ns.
    pub call_ns: f64,
    /// What the engine needs between two copies, ns.
    pub gap_ns: f64,
}

/// Copies in a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyBatchParams {
    /// CPU time per block, ns.
    pub call_ns: f64,
    /// What the engine needs between two blocks, ns.
    pub gap_ns: f64,
    /// Bytes/ns of blocks above the staging limit.
    pub rate: f64,
    /// Blocks up to this size are staged by the driver, where their stream is idle.
    pub staged_up_to: f64,
    /// Bytes/ns of staging.
    pub staging_rate: f64,
    /// What a block of a batch that is queued behind other work takes beyond its bytes over the link, ns: the CPU tells
    /// it, and the engine goes on to it.
    pub queued_ns: f64,
}

/// The parameters of all mechanisms on one machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransferParams {
    /// SM gathers.
    pub gather: GatherParams,
    /// Single copies.
    pub copy: CopyParams,
    /// Copies in a loop.
    pub copy_loop: CopyLoopParams,
    /// Copies in a batch.
    pub copy_batch: CopyBatchParams,
}

/// What a lone transfer takes: `setup` without using the link, then `body` using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferCost {
    /// Latency before the link is used.
    pub setup: Nanos,
    /// Time on the link when alone; at least 1 ns.
    pub body: Nanos,
    /// Rate at which it loads the link, alone.
    pub rate: Bandwidth,
}

impl TransferCost {
    /// From begin to end.
    pub fn total(&self) -> Nanos {
        self.setup + self.body
    }
}

impl TransferParams {
    /// The cost of a transfer inside a queue, which charges the launch itself.
    pub fn cost(&self, shape: &TransferShape) -> TransferCost {
        let (setup_ns, body_ns) = self.parts(shape);
        let total = nanos(setup_ns + body_ns);
        let body = nanos(body_ns).max(Nanos(1));
        let rate = match shape.mechanism {
            // A gather keeps its bottleneck busy, be it the link or translation, so that two at once take turns; where
            // its own CTAs are the bottleneck, it leaves the rest to others.
            Mechanism::Gather => self.gather.rate,
            Mechanism::GatherPerRequest => self.gather.rate * min(1.0, self.gather.flat_ns(shape) / body_ns),
            Mechanism::Copy | Mechanism::CopyLoop | Mechanism::CopyBatch => {
                min(self.copy.rate, shape.payload().0 as f64 / body.0 as f64)
            }
        };
        TransferCost { setup: total.saturating_sub(body), body, rate: bandwidth(rate) }
    }

    /// The time of a transfer measured alone from event to event, ns.
    pub fn isolated_ns(&self, shape: &TransferShape) -> f64 {
        let (setup_ns, body_ns) = self.parts(shape);
        let issue_ns = if shape.mechanism.is_gather() { self.gather.issue_ns } else { 0.0 };
        issue_ns + setup_ns + body_ns
    }

    /// Set-up and body in ns.
    fn parts(&self, shape: &TransferShape) -> (f64, f64) {
        assert!(shape.blocks > 0 && shape.requests > 0, "a transfer moves at least one block of one request");
        let (blocks, bytes) = (shape.blocks as f64, shape.block_bytes.0 as f64);
        let copy = &self.copy;
        match shape.mechanism {
            Mechanism::Gather => (self.gather.visit_ns, self.gather.flat_ns(shape)),
            Mechanism::GatherPerRequest => (0.0, self.gather.per_request_ns(shape)),
            Mechanism::Copy => (copy.setup_ns, blocks * bytes / copy.rate),
            Mechanism::CopyLoop => (
                copy.setup_ns,
                blocks * max(self.copy_loop.call_ns, self.copy_loop.gap_ns + bytes / copy.rate),
            ),
            Mechanism::CopyBatch => {
                (copy.setup_ns, blocks * self.copy_batch.block_ns(bytes, shape.queued, copy.rate))
            }
        }
    }
}

impl GatherParams {
    /// Time that link and translation need, ns. Each page costs a walk when first touched (caches start cold: other
    /// layers have passed since), and again in proportion to how far the visits stray beyond the reach of the caches.
    /// They stray over one request's share of the region: a flat grid takes requests one after the other, and a CTA
    /// per request keeps to its own. In address order no page is left and met again.
    fn flat_ns(&self, shape: &TransferShape) -> f64 {
        let (blocks, bytes, region) =
            (shape.blocks as f64, shape.block_bytes.0 as f64, shape.region.0 as f64);
        let link_ns = blocks * touched_bytes(bytes) / self.rate;
        let first = distinct(blocks, max(1.0, region / self.page));
        let share = region / f64::from(shape.requests);
        let again = match shape.order {
            Order::Random => (blocks - first) * (share / (share + self.reach)),
            Order::Sorted => 0.0,
        };
        let walk_ns = (first + again) * self.walk_ns;
        max(link_ns, walk_ns) + self.exposed * min(link_ns, walk_ns)
    }

    /// Each request's CTA works through its own blocks, `warps` at a time, and all CTAs at once.
    fn per_request_ns(&self, shape: &TransferShape) -> f64 {
        let bytes = shape.block_bytes.0 as f64;
        let rounds = max(1.0, shape.worst_request as f64 / self.warps);
        let chain_ns = rounds * max(self.visit_ns, bytes / self.warp_rate);
        let shared_ns = self.visit_ns + self.flat_ns(shape);
        max(chain_ns, shared_ns) + self.exposed * min(chain_ns, shared_ns)
    }
}

impl CopyBatchParams {
    /// Time per block of a batch, ns, over a link of `link` bytes/ns.
    fn block_ns(&self, bytes: f64, queued: bool, link: f64) -> f64 {
        if queued {
            self.queued_ns + bytes / link
        } else if bytes <= self.staged_up_to {
            self.call_ns + bytes / self.staging_rate
        } else {
            max(self.call_ns, self.gap_ns + bytes / self.rate)
        }
    }
}

/// Bytes of whole lines that a block touches, on average over its possible starts.
fn touched_bytes(bytes: f64) -> f64 {
    if bytes % LINE_BYTES == 0.0 { bytes } else { bytes + LINE_BYTES - LOAD_BYTES }
}

/// Expected number of distinct pages (or experts) that `blocks` random visits touch: pages x (1 - exp(-x)) with
/// x = blocks / pages, exp by its first terms, so that no platform's libm decides a simulated time.
pub(crate) fn distinct(blocks: f64, pages: f64) -> f64 {
    let x = blocks / pages;
    let exp = 1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0)));
    min(blocks, pages * (1.0 - 1.0 / exp))
}

pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn min(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// A cost in ns, rounded to the nearest.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // costs are finite, positive and below 2^63 ns
pub(crate) fn nanos(ns: f64) -> Nanos {
    assert!((0.0..9e18).contains(&ns), "a cost is a finite, non-negative time, not {ns} ns");
    Nanos((ns + 0.5) as u64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // as above
fn bandwidth(bytes_per_ns: f64) -> Bandwidth {
    assert!(bytes_per_ns.is_finite() && bytes_per_ns > 0.0, "a rate is positive, not {bytes_per_ns} B/ns");
    Bandwidth(((bytes_per_ns * 1e9 + 0.5) as u64).max(1))
}
