//! The results of a device as the page reads them: the JSON of `bench` and of `kvtier hw replay`.

use serde::{Deserialize, Serialize};

/// Device and date of a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Taken<T> {
    /// The device.
    pub device: Device,
    /// Date, as written by whoever took it.
    #[serde(default)]
    pub date: String,
    /// What was taken.
    #[serde(flatten)]
    pub results: T,
}

/// What a device says of itself, as far as the page shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Driver version.
    pub driver: Option<String>,
    /// Link to the host.
    pub pcie: Option<String>,
}

/// parity.json.
#[derive(Clone, Debug, Deserialize)]
pub struct Parity {
    /// Blocks selected in all.
    pub accesses: u64,
    /// Steps of streams in which anything differs.
    pub mismatches: u64,
    /// Runs over drawn accesses.
    pub synthetic: Vec<ParityRun>,
    /// Replays of recorded traces.
    pub recorded: Vec<ParityRun>,
}

/// One run on both planes.
#[derive(Clone, Debug, Deserialize)]
pub struct ParityRun {
    pub(super) policy: String,
    #[serde(default)]
    pub(super) managed: String,
    pub(super) accesses: u64,
    pub(super) misses: u64,
    pub(super) prefetches: u64,
    #[serde(default)]
    pub(super) warm_hits: u64,
    pub(super) grown: u64,
    pub(super) ended: u64,
    pub(super) mismatches: u64,
    pub(super) host_hash: String,
    pub(super) device_hash: String,
    #[serde(default)]
    pub(super) integrity: Option<Integrity>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Integrity {
    pub(super) bytes: u64,
    pub(super) wrong_bytes: u64,
}

/// roofline.json.
#[derive(Clone, Debug, Deserialize)]
pub struct Roofline {
    pub(super) rows: Vec<RooflineRow>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RooflineRow {
    pub(super) kernel: String,
    pub(super) shape: String,
    pub(super) achieved: f64,
    pub(super) unit: String,
    pub(super) against: String,
    pub(super) reference: f64,
    pub(super) ratio: f64,
    pub(super) goal: Option<f64>,
}

impl RooflineRow {
    /// Whether it has a goal and reached it.
    pub(super) fn is_met(&self) -> bool {
        self.goal.is_some_and(|goal| self.ratio >= goal)
    }
}

/// check.json.
#[derive(Clone, Debug, Deserialize)]
pub struct Checks {
    pub(super) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Finding {
    pub(super) case: String,
    pub(super) error: f64,
    pub(super) allowed: f64,
}

/// replays.json.
#[derive(Clone, Debug, Deserialize)]
pub struct Replays {
    pub(super) replays: Vec<Replay>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Replay {
    pub(super) command: String,
    pub(super) model: String,
    pub(super) policy: String,
    pub(super) managed: String,
    pub(super) overlap: String,
    pub(super) transfer: String,
    pub(super) prefetch: String,
    pub(super) weights: String,
    pub(super) concurrency: u32,
    pub(super) measured: Window,
    pub(super) modelled: Window,
    pub(super) mismatches: u64,
    pub(super) wrong_bytes: u64,
    pub(super) spread_percent: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Window {
    pub(super) total_ns: u64,
    pub(super) step_p50_ns: u64,
}
