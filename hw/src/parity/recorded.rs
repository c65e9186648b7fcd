//! Parity on recorded traces: whole replays with real blocks, of the policies that the device decides and of those that
//! only the host does.

use crate::ops::lookup::Policy;
use crate::replay::{Home, Integrity, Kernels, Managed, ReplayError, audit};
use kvtier_policies::eviction::EVICTION;
use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::overlap::Variant;
use kvtier_sim::timer::Timer;
use kvtier_units::Bytes;
use serde::Serialize;

/// A recorded trace and how it is replayed: two or three requests at once that start apart, so that some end midway.
struct Recorded {
    file: &'static str,
    model: &'static str,
    batch: &'static str,
    /// Blocks per selection; ranks beyond it are near misses.
    k: u32,
}

const TRACES: [Recorded; 3] = [
    Recorded {
        file: "smollm2-pages.parquet",
        model: "smollm2-135m",
        batch: "requests = [\"s-d01\", \"s-d04\"]\nconcurrency = 4\nstagger = 170\nsteps = 128",
        k: 32,
    },
    Recorded {
        file: "gemma3-pages.parquet",
        model: "smollm2-135m",
        batch: "concurrency = 2\nstagger = 170\nsteps = 128",
        k: 64,
    },
    Recorded {
        file: "smollm2-tokens.parquet",
        model: "deepseek-v3.2-bf16",
        batch: "concurrency = 3\nstagger = 50\nsteps = 100",
        k: 192,
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
    /// Blocks selected in all.
    pub accesses: u64,
    /// Demand misses.
    pub misses: u64,
    /// Blocks evicted.
    pub evictions: u64,
    /// Blocks prefetched.
    pub prefetches: u64,
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
struct Case {
    trace: &'static Recorded,
    policy: &'static str,
    slots: &'static str,
    prefetch: &'static str,
    managed: Managed,
}

/// The traces that are replayed.
pub fn traces() -> impl Iterator<Item = &'static str> {
    TRACES.iter().map(|trace| trace.file)
}

/// Every policy of the device with three buffer sizes, with and without prefetch; every other one once on each trace,
/// where the device is told what to do.
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
                        all.push(Case { trace, policy: entry.name, slots, prefetch, managed });
                    }
                }
            }
        }
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

fn replay(
    kernels: &Kernels,
    folder: &str,
    case: &Case,
    home: &mut Home,
) -> Result<RecordedAgreement, ReplayError> {
    let Case { trace, policy, slots, prefetch, managed } = case;
    let text = format!(
        "trace = \"{folder}/{}\"\nmodel = \"{}\"\nmachine = \"h100-pcie5\"\n[selection]\nk = {}\n[batch]\n{}\n\
         [hot]\npolicy = \"{policy}\"\nslots = \"{slots}\"\n[prefetch]\npolicy = \"{prefetch}\"\nbudget = {}\n",
        trace.file,
        trace.model,
        trace.k,
        trace.batch,
        trace.k / 8
    );
    let single = Single::prepare(&ConfigFile::parse(&text)?, Bytes(8 << 30))?;
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
        accesses: counts.accesses,
        misses: counts.misses,
        evictions: counts.evictions,
        prefetches: counts.prefetches,
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
