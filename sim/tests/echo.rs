//! Echo, our own policy, on the shipped pages: its misses against an independent program's, against every other online
//! policy, and without each of its ideas. With `--nocapture` the tests print the tables of sim/policies/ECHO.md.

use kvtier_policies::eviction::EVICTION;
use kvtier_sim::config::RunConfig;
use kvtier_sim::engine::Replay;
use kvtier_sim::setup::{Blueprint, TraceIdentity};
use kvtier_traces::{Future, Recording};
use kvtier_units::Bytes;
use rayon::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

const REQUESTS: [&str; 6] = ["s-d01", "s-d02", "s-d03", "s-d04", "s-d05", "s-d06"];
const SLOTS: [u32; 3] = [48, 64, 96];

/// Misses by size and request.
type Misses = [[u64; 6]; 3];

/// Share of the misses between LRU and Belady that is avoided, in tenths of a percent, by size and request.
type Closed = [[i64; 6]; 3];

/// Parameters, and misses at steps 16 and later as counted by the program with which the policy was designed, which
/// shares nothing with this one; there as here the newest block leaves no gap in the ranks.
const COUNTED: [(&str, Misses); 4] = [
    (
        "",
        [
            [79_274, 79_875, 81_112, 71_538, 64_312, 56_491],
            [45_768, 46_008, 46_206, 40_379, 33_505, 29_908],
            [21_772, 21_810, 21_501, 19_290, 14_653, 13_524],
        ],
    ),
    (
        "near = 'after'",
        [
            [81_298, 82_329, 83_004, 73_645, 66_557, 58_405],
            [47_005, 47_333, 47_332, 41_562, 34_488, 30_733],
            [22_014, 22_124, 21_749, 19_591, 14_859, 13_684],
        ],
    ),
    (
        "ghost = 0",
        [
            [80_203, 80_637, 82_206, 72_237, 65_093, 57_337],
            [46_310, 46_651, 46_740, 40_804, 33_962, 30_452],
            [22_171, 22_110, 21_641, 19_540, 14_902, 13_730],
        ],
    ),
    (
        "near = 'after'\nghost = 0",
        [
            [82_392, 83_180, 84_186, 74_431, 67_157, 59_089],
            [47_553, 47_943, 47_896, 41_915, 34_961, 31_141],
            [22_476, 22_452, 21_986, 19_802, 15_102, 13_957],
        ],
    ),
];

/// What is left out, as parameters.
const ABLATION: [(&str, &str); 12] = [
    ("near misses count from the next step on", "near = 'after'"),
    ("no near misses", "near_worst = 0\nnear_gain = 0"),
    ("no ghost", "ghost = 0"),
    ("ghost of 128 entries", "ghost = 128"),
    ("ghost of 64 entries", "ghost = 64"),
    ("decay as at 2k for every size", "decay_base = 55\ndecay_slack = 0"),
    ("no warp", "warp = false"),
    ("near misses count once at victim choice, not 7/4", "near_now = 4"),
    ("selected ranks earn alike", "selected_worst = 764\nselected_gain = 0"),
    ("steps since selection cost nothing", "recency = 0"),
    ("filled in place: worth one selection", "grown = 512"),
    ("near = \"after\", no ghost, no warp", "near = 'after'\nghost = 0\nwarp = false"),
];

/// The shipped pages, decoded once.
struct Laboratory {
    trace: TraceIdentity,
    recording: Recording,
    future: Future,
    lru: Misses,
    belady: Misses,
}

static LABORATORY: LazyLock<Laboratory> = LazyLock::new(|| {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/samples/smollm2-pages.parquet");
    let trace = TraceIdentity::read(&samples, None).unwrap();
    let view = Blueprint::new(&configure(&trace, "echo", "", SLOTS[0], REQUESTS[0]), &trace).unwrap().view;
    let recording = Recording::decode(&samples, &view, Bytes(1 << 30)).unwrap();
    let future = Future::build(&recording, Bytes(1 << 30)).unwrap();
    let none = [[0; 6]; 3];
    let laboratory = Laboratory { trace, recording, future, lru: none, belady: none };
    Laboratory { lru: laboratory.misses("lru", ""), belady: laboratory.misses("belady", ""), ..laboratory }
});

fn configure(trace: &TraceIdentity, policy: &str, params: &str, slots: u32, request: &str) -> RunConfig {
    let text = format!(
        "trace = '{}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nbatch.requests = ['{request}']\n\
         measure.from_step = 16\n[hot]\npolicy = '{policy}'\nslots = {slots}\n[hot.params]\n{params}\n",
        trace.path.display()
    );
    toml::from_str(&text).unwrap()
}

impl Laboratory {
    fn replay(&self, policy: &str, params: &str, slots: u32, request: &str) -> u64 {
        let config = configure(&self.trace, policy, params, slots, request);
        let blueprint = Blueprint::new(&config, &self.trace).unwrap();
        let run = blueprint.lower(&self.recording).unwrap();
        let future = blueprint.eviction.needs_future.then_some(&self.future);
        let replay = Replay { run: &run, recording: &self.recording, future, stop: &|| false };
        replay.execute(&mut ()).unwrap().steady.misses
    }

    fn misses(&self, policy: &str, params: &str) -> Misses {
        SLOTS.map(|slots| REQUESTS.map(|request| self.replay(policy, params, slots, request)))
    }

    fn closed(&self, misses: &Misses) -> Closed {
        let mut closed = [[0; 6]; 3];
        for (size, row) in closed.iter_mut().enumerate() {
            for (request, closed) in row.iter_mut().enumerate() {
                let avoided = self.lru[size][request] as i64 - misses[size][request] as i64;
                let gap = self.lru[size][request] - self.belady[size][request];
                *closed = (avoided as f64 * 1000.0 / gap as f64).round() as i64;
            }
        }
        closed
    }
}

/// A line of a table: each request, then the mean, by size.
fn print_row(name: &str, closed: &Closed) {
    let cell = |size: &[i64; 6]| {
        let each: String = size.iter().map(|tenths| format!("{:.1} ", *tenths as f64 / 10.0)).collect();
        format!("{each}**{:.1}**", size.iter().sum::<i64>() as f64 / 60.0)
    };
    println!("| {name} | {} |", closed.iter().map(cell).collect::<Vec<_>>().join(" | "));
}

#[test]
fn misses_equal_an_independent_programs() {
    COUNTED.par_iter().for_each(|(params, counted)| {
        assert_eq!(LABORATORY.misses("echo", params), *counted, "misses with `{params}`");
    });
}

#[test]
fn echo_misses_less_than_every_other_online_policy_on_every_request() {
    let online: Vec<&str> = EVICTION
        .iter()
        .filter(|entry| !entry.needs_future && !entry.reads_scores && entry.name != "echo")
        .map(|entry| entry.name)
        .collect();
    let echo = LABORATORY.misses("echo", "");
    let others: Vec<Misses> = online.par_iter().map(|policy| LABORATORY.misses(policy, "")).collect();
    for (policy, misses) in online.iter().zip(&others) {
        print_row(policy, &LABORATORY.closed(misses));
    }
    print_row("echo", &LABORATORY.closed(&echo));
    for (policy, misses) in online.iter().zip(&others) {
        for (size, slots) in SLOTS.iter().enumerate() {
            for (request, name) in REQUESTS.iter().enumerate() {
                let (ours, theirs) = (echo[size][request], misses[size][request]);
                assert!(ours < theirs, "{name} with {slots} slots: echo misses {ours}, {policy} {theirs}");
            }
        }
    }
}

#[test]
fn every_idea_of_echo_earns_its_place() {
    let whole = LABORATORY.closed(&LABORATORY.misses("echo", ""));
    print_row("echo", &whole);
    let mean = |closed: &Closed| closed.iter().flatten().sum::<i64>();
    let without: Vec<Closed> = ABLATION
        .par_iter()
        .map(|(_, params)| LABORATORY.closed(&LABORATORY.misses("echo", params)))
        .collect();
    for ((left_out, _), closed) in ABLATION.iter().zip(&without) {
        print_row(left_out, closed);
    }
    for ((left_out, _), closed) in ABLATION.iter().zip(&without) {
        assert!(mean(closed) < mean(&whole), "{left_out}: no worse than the whole");
    }
}
