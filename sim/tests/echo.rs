//! Echo, our own policy, on the shipped pages: its misses against an independent program's and every other online
//! policy's, on a model that it was not tuned on, and without each of its ideas. With `--nocapture` the tests print the
//! tables of sim/policies/ECHO.md.

// A failing test may panic; tables are printed; shares of a gap are small.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)]

use kvtier_policies::eviction::{EVICTION, Entry};
use kvtier_sim::config::RunConfig;
use kvtier_sim::engine::Replay;
use kvtier_sim::setup::{Blueprint, TraceIdentity};
use kvtier_traces::{Future, Recording, View};
use kvtier_units::Bytes;
use rayon::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

/// Misses by size and request.
type Misses = Vec<Vec<u64>>;

/// Share of the misses between LRU and Belady that is avoided, in tenths of a percent, by size and request.
type Closed = Vec<Vec<i64>>;

/// Parameters, and misses at steps 16 and later as counted by the program with which the policy was designed, which
/// shares nothing with this one; there as here the newest block leaves no gap in the ranks.
const COUNTED: [(&str, [[u64; 6]; 3]); 6] = [
    (
        "",
        [
            [78_747, 79_561, 80_718, 71_301, 63_956, 56_303],
            [45_582, 45_816, 45_965, 40_339, 33_430, 29_875],
            [21_627, 21_735, 21_390, 19_250, 14_647, 13_515],
        ],
    ),
    (
        "near = 'after'",
        [
            [80_455, 81_611, 82_216, 73_022, 65_700, 57_798],
            [46_657, 47_084, 46_891, 41_321, 34_290, 30_655],
            [21_897, 21_997, 21_624, 19_480, 14_816, 13_629],
        ],
    ),
    (
        "ghost = 0",
        [
            [80_059, 80_464, 81_665, 72_156, 64_853, 57_093],
            [46_310, 46_630, 46_477, 40_823, 33_771, 30_305],
            [22_027, 22_095, 21_583, 19_431, 14_774, 13_665],
        ],
    ),
    (
        "near = 'after'\nghost = 0",
        [
            [82_539, 83_243, 83_811, 74_726, 67_281, 59_034],
            [47_754, 48_147, 47_728, 42_155, 34_956, 31_100],
            [22_277, 22_510, 21_872, 19_725, 14_985, 13_779],
        ],
    ),
    (
        "ghost_worth = 'nothing'",
        [
            [79_521, 80_180, 81_111, 71_858, 64_452, 56_627],
            [45_995, 46_243, 46_227, 40_601, 33_569, 30_008],
            [21_716, 21_839, 21_470, 19_320, 14_612, 13_515],
        ],
    ),
    (
        "ghost_worth = 'selected'",
        [
            [79_187, 79_750, 80_760, 71_540, 64_292, 56_452],
            [45_895, 46_065, 46_051, 40_448, 33_491, 29_953],
            [21_669, 21_766, 21_393, 19_294, 14_622, 13_505],
        ],
    ),
];

/// What is left out, as parameters.
const ABLATION: [(&str, &str); 13] = [
    ("near misses count from the next step on", "near = 'after'"),
    ("no near misses", "near_worst = 0\nnear_gain = 0"),
    ("no ghost", "ghost = 0"),
    ("ghost keeps no worth", "ghost_worth = 'nothing'"),
    ("near misses do not reach the ghost", "ghost_worth = 'selected'"),
    ("ghost of 128 entries", "ghost = 128"),
    ("ghost of 64 entries", "ghost = 64"),
    ("decay as at 2k for every size", "decay_base = 72\ndecay_slack = 0"),
    ("no warp", "warp = false"),
    ("near misses count once at victim choice, not 7/4", "near_now = 4"),
    ("selected ranks earn alike", "selected_worst = 775\nselected_gain = 0"),
    ("steps since selection cost nothing", "recency = 0"),
    ("filled in place: worth one selection", "grown = 512"),
];

/// Other policies at settings that do better than their defaults at some size, of those tried.
const TUNED: [(&str, &str); 10] = [
    ("aged-score", "keep = 230"),
    ("aged-score", "keep = 243"),
    ("clock", "bits = 2"),
    ("clock", "bits = 3"),
    ("lfu-aging", "halve_every = 8"),
    ("lirs", "hir_percent = 20"),
    ("lru-k", "k = 3"),
    ("rank-recency", "rank_steps = 2\nnear_lag = 0"),
    ("region-utility", "region = 4\nshare = 4"),
    ("slru", "shares = [1, 1, 1]"),
];

/// A recording, decoded once, and three sizes of buffers.
struct Laboratory {
    trace: TraceIdentity,
    k: u32,
    slots: [u32; 3],
    recording: Recording,
    future: Future,
    lru: Misses,
    belady: Misses,
}

static LABORATORY: LazyLock<Laboratory> =
    LazyLock::new(|| Laboratory::open("smollm2-pages.parquet", 32, [48, 64, 96]));

impl Laboratory {
    fn open(file: &str, k: u32, slots: [u32; 3]) -> Laboratory {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/samples").join(file);
        let trace = TraceIdentity::read(&path, None).unwrap();
        let view =
            View { k: Some(k), near: u32::MAX, scores: trace.header.score.is_some(), ..View::default() };
        let recording = Recording::decode(&path, &view, Bytes(1 << 30)).unwrap();
        let future = Future::build(&recording, Bytes(1 << 30)).unwrap();
        let lab = Laboratory { trace, k, slots, recording, future, lru: vec![], belady: vec![] };
        Laboratory { lru: lab.misses("lru", ""), belady: lab.misses("belady", ""), ..lab }
    }

    /// Every online policy but echo that can read the recording.
    fn rivals(&self) -> Vec<&'static str> {
        let readable = |entry: &&Entry| !entry.reads_scores || self.trace.header.score.is_some();
        let rivals = EVICTION.iter().filter(|entry| !entry.needs_future && entry.name != "echo");
        rivals.filter(readable).map(|entry| entry.name).collect()
    }

    /// Misses at steps 16 and later.
    fn replay(&self, policy: &str, params: &str, slots: u32, request: &str) -> u64 {
        let text = format!(
            "trace = '{}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nbatch.requests = ['{request}']\n\
             selection.k = {}\nmeasure.from_step = 16\n\
             [hot]\npolicy = '{policy}'\nslots = {slots}\n[hot.params]\n{params}\n",
            self.trace.path.display(),
            self.k
        );
        let config: RunConfig = toml::from_str(&text).unwrap();
        let blueprint = Blueprint::new(&config, &self.trace).unwrap();
        let run = blueprint.lower(&self.recording).unwrap();
        let future = blueprint.eviction.needs_future.then_some(&self.future);
        let replay = Replay { run: &run, recording: &self.recording, future, stop: &|| false };
        replay.execute(&mut ()).unwrap().steady.misses
    }

    fn misses(&self, policy: &str, params: &str) -> Misses {
        let requests = &self.trace.requests;
        let of_size = |&slots| {
            requests.par_iter().map(|request| self.replay(policy, params, slots, &request.id)).collect()
        };
        self.slots.iter().map(of_size).collect()
    }

    fn closed(&self, misses: &Misses) -> Closed {
        let share = |((&lru, &belady), &misses): ((&u64, &u64), &u64)| {
            ((lru as f64 - misses as f64) * 1000.0 / (lru - belady) as f64).round() as i64
        };
        let sizes = self.lru.iter().zip(&self.belady).zip(misses);
        sizes.map(|((lru, belady), misses)| lru.iter().zip(belady).zip(misses).map(share).collect()).collect()
    }

    /// Prints a line of the table and returns its misses.
    fn show(&self, policy: &str, params: &str, title: &str) -> Misses {
        let misses = self.misses(policy, params);
        let cell = |size: &Vec<i64>| {
            let each: String = size.iter().map(|&tenths| format!("{:.1} ", tenths as f64 / 10.0)).collect();
            format!("{each}**{:.1}**", size.iter().sum::<i64>() as f64 / size.len() as f64 / 10.0)
        };
        println!("| {title} | {} |", self.closed(&misses).iter().map(cell).collect::<Vec<_>>().join(" | "));
        misses
    }
}

#[test]
fn misses_equal_an_independent_programs() {
    for (params, counted) in COUNTED {
        assert_eq!(LABORATORY.misses("echo", params), counted, "misses with `{params}`");
    }
}

#[test]
fn echo_misses_less_than_every_other_online_policy_on_every_request() {
    let echo = LABORATORY.show("echo", "", "echo");
    let others: Vec<(&str, &str)> =
        LABORATORY.rivals().into_iter().map(|policy| (policy, "")).chain(TUNED).collect();
    for (policy, params) in others {
        let title = format!("{policy} {}", params.replace('\n', ", "));
        let misses = LABORATORY.show(policy, params, title.trim_end());
        assert_fewer(&echo, &misses, &title);
    }
}

#[test]
fn echo_leads_on_a_model_that_it_was_not_tuned_on() {
    for k in [32, 64] {
        println!("Gemma, k = {k}");
        let laboratory = Laboratory::open("gemma3-pages.parquet", k, [k * 3 / 2, k * 2, k * 3]);
        let echo = laboratory.show("echo", "", "echo");
        for (title, params) in &ABLATION[..5] {
            laboratory.show("echo", params, title);
        }
        for policy in laboratory.rivals() {
            assert_fewer(&echo, &laboratory.show(policy, "", policy), policy);
        }
    }
}

#[test]
fn every_idea_of_echo_earns_its_place() {
    let total = |misses: &Misses| -> i64 { LABORATORY.closed(misses).iter().flatten().sum() };
    let whole = total(&LABORATORY.show("echo", "", "echo"));
    for (left_out, params) in ABLATION {
        let without = total(&LABORATORY.show("echo", params, left_out));
        assert!(without < whole, "{left_out}: no worse than the whole");
    }
}

fn assert_fewer(echo: &Misses, other: &Misses, name: &str) {
    for (size, (ours, theirs)) in echo.iter().zip(other).enumerate() {
        for (request, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            assert!(ours < theirs, "request {request}, size {size}: echo misses {ours}, {name} {theirs}");
        }
    }
}
