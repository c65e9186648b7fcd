//! The same configuration gives the same bytes: again, on more threads, and when decoded rows do not fit in memory.

mod program;

use program::{Folder, Outcome, SMALL};

/// Policies of every family, random ones too, and everything that stands around the buffers.
fn config() -> String {
    format!(
        "{SMALL}concurrency = 2\nstagger = 7\n[grid]\n'hot.policy' = ['lru', 'random', 'lfu', 'clock']\n\
         'hot.slots' = ['1.5k', '2k']\n'prefetch.policy' = ['none', 'next-ranked']\n\
         'warm.size' = ['0 B', '1 MiB']\n'time.overlap' = ['serial', 'layer-ahead']\n"
    )
}

/// Runs the sweep with these arguments, and returns its results by file name.
fn results(folder: &Folder, out: &str, more: &[&str]) -> Vec<(String, Vec<u8>)> {
    let file = folder.write("grid.toml", config());
    Outcome::of([["sweep", &file, "--out", &folder.arg(out)].as_slice(), more].concat()).ended(0);
    let names = program::names(&folder.at(out)).into_iter();
    let results = names.filter(|name| name != "points.jsonl"); // its points are in the order in which they finished
    results
        .map(|name| {
            let bytes = std::fs::read(folder.at(out).join(&name)).expect("results are there");
            (name, bytes)
        })
        .collect()
}

#[track_caller]
fn same(one: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]) {
    let names =
        |results: &[(String, Vec<u8>)]| results.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
    for ((name, a), (_, b)) in one.iter().zip(other) {
        assert!(a == b, "{name} differs");
    }
}

#[test]
fn runs_threads_and_memory_change_nothing() {
    let folder = Folder::new();
    let first = results(&folder, "first", &["--threads", "1"]);
    for name in ["points.parquet", "points.csv", "summary.json", "report.html"] {
        assert!(first.iter().any(|(other, bytes)| other == name && !bytes.is_empty()), "no {name}");
    }
    same(&first, &results(&folder, "again", &["--threads", "1"]));
    same(&first, &results(&folder, "threads", &["--threads", "2"]));
    same(&first, &results(&folder, "spilled", &["--threads", "2", "--memory", "1 KiB"]));
    same(&first, &results(&folder, "first", &["--threads", "2"])); // all from the log
}

#[test]
fn another_seed_changes_what_is_random_and_nothing_else() {
    let misses = |policy: &str, seed: &str| {
        let folder = Folder::new();
        let file = folder.write("one.toml", SMALL);
        let outcome = Outcome::of(["replay", &file, "--json", "--policy", policy, "--set", seed]).ended(0);
        let points: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
        points[0]["decision_hash"].as_str().expect("a hash").to_owned()
    };
    assert_ne!(misses("random", "seed=1"), misses("random", "seed=2"));
    assert_eq!(misses("lru", "seed=1"), misses("lru", "seed=2"));
}
