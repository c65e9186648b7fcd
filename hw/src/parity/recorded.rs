//! Parity on recorded traces: whole replays with real blocks, of the policies that the device decides and of those that
//! only the host does.

use crate::ops::lookup::Policy;
use crate::replay::{Home, Integrity, Kernels, Managed, ReplayError, audit};
use kvtier_policies::eviction::EVICTION;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::overlap::Variant;
use kvtier_sim::presets;
use kvtier_sim::timer::Timer;
use kvtier_sim::{SimError, Single};
use kvtier_units::Bytes;
use serde::Serialize;

/// A recorded trace and how it is replayed: two or three requests at once that start apart, so that some end midway.
struct Recorded {
    file: &'static str,
    model: &'static str,
    batch: &'static str,
    /// Blocks per selection; ranks beyond it are near misses.
    k: u32,
    /// Streams of all requests that run at once.
    streams: u64,
}

const TRACES: [Recorded; 3] = [
    Recorded {
        file: "smollm2-pages.parquet",
        model: "smollm2-135m",
        batch: "requests = [\"s-d01\", \"s-d04\"]\nconcurrency = 4\nstagger = 170\nsteps = 128",
        k: 32,
        streams: 4 * 30 * 3,
    },
    Recorded {
        file: "gemma3-pages.parquet",
        model: "smollm2-135m",
        batch: "concurrency = 2\nstagger = 170\nsteps = 128",
        k: 64,
        streams: 2 * 30 * 3,
    },
    Recorded {
        file: "smollm2-tokens.parquet",
        model: "deepseek-v3.2-bf16",
        batch: "concurrency = 3\nstagger = 50\nsteps = 100",
        k: 192,
        streams: 3 * 61,
    },
];

/// One replay on both planes.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedAgreement {
    /// Trace.
    pub trace: String,
    /// Model whose geometry was used.
    pub model: String,
    /// Eviction policy.
    pub policy: String,
    /// Who decided on the device's side.
    pub managed: Managed,
    /// Slots per hot buffer.
    pub slots: u32,
    /// Blocks per selection.
    pub k: u32,
    /// Prefetcher.
    pub prefetch: String,
    /// Overlap mode.
    pub overlap: String,
    /// What brought the blocks.
    pub transfer: String,
    /// Frames of warm pages.
    pub warm_frames: usize,
    /// Blocks selected in all.
    pub accesses: u64,
    /// Demand misses.
    pub misses: u64,
    /// Blocks evicted.
    pub evictions: u64,
    /// Blocks prefetched.
    pub prefetches: u64,
    /// Blocks found among the warm pages.
    pub warm_hits: u64,
    /// Blocks that grew.
    pub grown: u64,
    /// Requests that ended before the run did.
    pub ended: u64,
    /// Stream steps compared.
    pub compared: u64,
    /// Stream steps in which anything differs.
    pub mismatches: u64,
    /// Decision hash of the decision plane that ran beside the device.
    pub host_hash: String,
    /// Decision hash of a run of the simulator.
    pub simulator_hash: String,
    /// Decision hash of the device.
    pub device_hash: String,
    /// The bytes that were moved.
    pub integrity: Integrity,
}

impl RecordedAgreement {
    /// Whether nothing differs and no byte is out of place.
    pub fn holds(&self) -> bool {
        self.mismatches == 0
            && self.host_hash == self.device_hash
            && self.host_hash == self.simulator_hash
            && self.integrity.holds()
    }
}

/// A replay to be.
#[derive(Clone, Copy)]
struct Case {
    trace: &'static Recorded,
    policy: &'static str,
    slots: &'static str,
    prefetch: &'static str,
    managed: Managed,
    way: Way,
}

/// How the steps of a replay run, beside the plainest: serial, gathered, one graph a step, no warm pages.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    overlap: &'static str,
    transfer: &'static str,
    launch: &'static str,
    sorted: bool,
    /// Warm pages, in percent of the slots of all streams.
    warm: u64,
}

/// The plainest.
const PLAIN: Way = Way { overlap: "serial", transfer: "gather", launch: "graph", sorted: false, warm: 0 };

/// Ways of every trace besides: policy, prefetcher, who decides, and how the steps run.
const WAYS: [(&str, &str, Managed, Way); 9] = [
    ("lru", "next-ranked", Managed::Device, Way { overlap: "layer-ahead", ..PLAIN }),
    (
        "lru-step",
        "none",
        Managed::Device,
        Way { transfer: "gather-per-request", overlap: "hit-first", ..PLAIN },
    ),
    ("lru", "next-layer", Managed::Host, Way { overlap: "hit-first", ..PLAIN }),
    ("lru-step", "last-steps", Managed::Host, Way { overlap: "layer-ahead", sorted: true, ..PLAIN }),
    ("lru", "none", Managed::Host, Way { warm: 50, ..PLAIN }),
    (
        "lru-step",
        "next-ranked",
        Managed::Host,
        Way { warm: 100, overlap: "layer-ahead", sorted: true, ..PLAIN },
    ),
    ("arc", "next-ranked", Managed::Host, Way { warm: 10, overlap: "hit-first", ..PLAIN }),
    (
        "lru",
        "next-ranked",
        Managed::Host,
        Way { warm: 20, overlap: "layer-ahead", transfer: "copy-batch", launch: "stream", ..PLAIN },
    ),
    (
        "lru-step",
        "next-ranked",
        Managed::Host,
        Way { overlap: "hit-first", transfer: "auto", launch: "stream", ..PLAIN },
    ),
];

/// The traces that are replayed.
pub fn traces() -> impl Iterator<Item = &'static str> {
    TRACES.iter().map(|trace| trace.file)
}

/// Every policy of the device with three buffer sizes, with and without prefetch; every other one once on each trace,
/// where the device is told what to do; then the other ways in which steps run.
fn cases(file: &str) -> Vec<Case> {
    let mut all = Vec::new();
    for trace in TRACES.iter().filter(|trace| trace.file == file) {
        let scored = trace.file != "smollm2-pages.parquet";
        for entry in EVICTION.iter().filter(|entry| scored || !entry.reads_scores) {
            let device = Policy::ALL.into_iter().any(|policy| policy.name() == entry.name);
            let managed = if device { Managed::Device } else { Managed::Host };
            let sizes: &[&str] = if device { &["1.25k", "2k", "3k"] } else { &["1.5k"] };
            for slots in sizes {
                for prefetch in ["none", "next-ranked"] {
                    if device || prefetch == "none" {
                        all.push(Case { trace, policy: entry.name, slots, prefetch, managed, way: PLAIN });
                    }
                }
            }
        }
        let ways = WAYS.iter().map(|&(policy, prefetch, managed, way)| Case {
            trace,
            policy,
            slots: "1.5k",
            prefetch,
            managed,
            way,
        });
        all.extend(ways);
    }
    all
}

/// Replays every case of a trace, which lies in `folder`; each is told to `finished`.
///
/// # Errors
/// If a trace cannot be read or the device fails. Differences are reported.
pub fn run(
    kernels: &Kernels,
    (folder, trace): (&str, &str),
    finished: &mut dyn FnMut(&RecordedAgreement),
) -> Result<Vec<RecordedAgreement>, ReplayError> {
    let mut home: Home = None;
    let mut all = Vec::new();
    for case in cases(trace) {
        let agreement = replay(kernels, folder, &case, &mut home)?;
        finished(&agreement);
        all.push(agreement);
    }
    Ok(all)
}

/// The configuration of a case.
fn configuration(folder: &str, case: &Case) -> Result<String, ReplayError> {
    let Case { trace, policy, slots, prefetch, way, .. } = case;
    let attention = presets::model(trace.model).map_err(SimError::from)?.attention;
    // One and a half selections of slots per stream.
    let slots_of_all = u64::from(trace.k) * trace.streams * 3 / 2;
    let warm = slots_of_all * way.warm / 100 * attention.block_bytes.0;
    Ok(format!(
        "trace = \"{folder}/{}\"\nmodel = \"{}\"\nmachine = \"h100-pcie5\"\n[selection]\nk = {}\n[batch]\n{}\n\
         [hot]\npolicy = \"{policy}\"\nslots = \"{slots}\"\n[prefetch]\npolicy = \"{prefetch}\"\nbudget = {}\n\
         [warm]\nsize = \"{warm} B\"\n[time]\noverlap = \"{}\"\ntransfer = \"{}\"\nlaunch = \"{}\"\nsorted = {}\n",
        trace.file,
        trace.model,
        trace.k,
        trace.batch,
        trace.k / 8,
        way.overlap,
        way.transfer,
        way.launch,
        way.sorted
    ))
}

fn replay(
    kernels: &Kernels,
    folder: &str,
    case: &Case,
    home: &mut Home,
) -> Result<RecordedAgreement, ReplayError> {
    let single = Single::prepare(&ConfigFile::parse(&configuration(folder, case)?)?, Bytes(8 << 30))?;
    let Case { trace, policy, prefetch, managed, way, .. } = case;
    let audited = audit(kernels, &single, *managed, home)?;
    let mut timer = Timer::new(&single.blueprint, Variant::Offload, &single.run, &single.recording)?;
    let simulated = single.replay(&mut timer, &|| false)?;
    let counts = audited.decisions.whole;
    Ok(RecordedAgreement {
        trace: trace.file.into(),
        model: trace.model.into(),
        policy: (*policy).into(),
        managed: audited.managed,
        slots: single.run.slots,
        k: trace.k,
        prefetch: (*prefetch).into(),
        overlap: way.overlap.into(),
        transfer: way.transfer.into(),
        warm_frames: single.run.plane.warm_frames,
        accesses: counts.accesses,
        misses: counts.misses,
        evictions: counts.evictions,
        prefetches: counts.prefetches,
        warm_hits: counts.warm_hits,
        grown: counts.written_back,
        ended: audited.decisions.requests[1],
        compared: audited.compared,
        mismatches: audited.mismatches,
        host_hash: format!("{:016x}", audited.decisions.hash),
        simulator_hash: format!("{:016x}", simulated.hash),
        device_hash: format!("{:016x}", audited.device_hash),
        integrity: audited.integrity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_configuration_that_a_device_takes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples");
        // The other traces are much alike and slow to decode.
        for case in cases("gemma3-pages.parquet").iter().rev().take(WAYS.len()) {
            let file = ConfigFile::parse(&configuration(folder, case).unwrap()).unwrap();
            let single = Single::prepare(&file, Bytes(1 << 30)).unwrap();
            crate::replay::accepts(&single, case.managed).unwrap();
            assert_eq!(single.run.plane.warm_frames > 0, case.way.warm > 0);
        }
        assert!(traces().all(|trace| cases(trace).len() > WAYS.len()));
    }
}
