//! The shipped pages against figures computed independently when they were recorded: per request, overlap with the
//! previous step and the hit ratios of LRU and Belady with two selections' worth of slots, steps 16 and later.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_sim::config::RunConfig;
use kvtier_sim::engine::{Decisions, Replay};
use kvtier_sim::setup::{Blueprint, TraceIdentity};
use kvtier_traces::{Future, Recording};
use kvtier_units::Bytes;
use std::path::Path;

/// Request; hit ratios of LRU and Belady as published with the recordings, in thousandths. They count the page being
/// filled as resident and outside the buffer, which is what `newest = "reserved"` says.
const PUBLISHED: [(&str, [u64; 2]); 6] = [
    ("s-d01", [923, 956]),
    ("s-d02", [922, 956]),
    ("s-d03", [921, 955]),
    ("s-d04", [932, 962]),
    ("s-d05", [943, 969]),
    ("s-d06", [949, 972]),
];

/// Request; exact misses of LRU and Belady with the newest block reserved, then with it a block like any other.
/// The figures for LRU with an ordinary newest block were also counted by an independent program.
const MISSES: [(&str, [u64; 2], [u64; 2]); 6] = [
    ("s-d01", [53_584, 30_270], [55_780, 32_112]),
    ("s-d02", [53_858, 30_573], [56_050, 32_402]),
    ("s-d03", [54_821, 30_957], [56_926, 32_695]),
    ("s-d04", [47_253, 26_414], [49_368, 28_180]),
    ("s-d05", [39_594, 21_668], [41_541, 23_349]),
    ("s-d06", [35_446, 19_509], [37_433, 21_190]),
];

fn decide(request: &str, policy: &str, newest: &str) -> Decisions {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = '{}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nbatch.requests = ['{request}']\n\
         hot = {{ policy = '{policy}', slots = '2k' }}\nselection.newest = '{newest}'\n",
        samples.display()
    );
    let config: RunConfig = toml::from_str(&text).unwrap();
    let trace = TraceIdentity::read(&config.trace, None).unwrap();
    let blueprint = Blueprint::new(&config, &trace).unwrap();
    let recording = Recording::decode(&samples, &blueprint.view, Bytes(1 << 30)).unwrap();
    let future = Future::build(&recording, Bytes(1 << 30)).unwrap();
    let run = blueprint.lower(&recording).unwrap();
    let future = blueprint.eviction.needs_future.then_some(&future);
    Replay { run: &run, recording: &recording, future, stop: &|| false }.execute(&mut ()).unwrap()
}

#[test]
fn hit_ratios_agree_with_the_published_table() {
    for (request, published) in PUBLISHED {
        for (policy, published) in ["lru", "belady"].into_iter().zip(published) {
            let counts = decide(request, policy, "reserved").steady;
            let hits = counts.accesses - counts.misses;
            let far = (hits * 1_000_000 / counts.accesses).abs_diff(published * 1000);
            println!("{request} {policy}: {hits} of {} hit, published {published}/1000", counts.accesses);
            assert!(
                far <= 600,
                "{request} {policy}: {far} millionths off a ratio published to the thousandth"
            );
        }
    }
}

#[test]
fn misses_are_exact_under_both_conventions_for_the_newest_block() {
    for (request, reserved, ordinary) in MISSES {
        for (newest, expected) in [("reserved", reserved), ("ordinary", ordinary)] {
            let found = ["lru", "belady"].map(|policy| decide(request, policy, newest).steady.misses);
            assert_eq!(found, expected, "{request}, newest {newest}: misses of lru and belady");
        }
    }
}
