//! `kvtier mrc` as its users run it: tables, layers, samples, files, splits, and what it refuses.

mod program;

use program::{Folder, Outcome, SMALL};
use serde_json::Value;

fn mrc(arguments: &[&str]) -> Outcome {
    let folder = Folder::new();
    let config = folder.write("small.toml", SMALL);
    let all: Vec<&str> = ["mrc", &config].into_iter().chain(arguments.iter().copied()).collect();
    Outcome::of(all)
}

fn json(arguments: &[&str]) -> Value {
    let outcome = mrc(&[&["--json"], arguments].concat()).ended(0);
    serde_json::from_str(&outcome.out).expect("JSON")
}

fn sum(list: &Value) -> u64 {
    list.as_array().expect("a list").iter().filter_map(Value::as_u64).sum()
}

/// The misses of a replay of the small run.
fn replayed(settings: &[&str]) -> u64 {
    let folder = Folder::new();
    let config = folder.write("small.toml", SMALL);
    let sets = settings.iter().flat_map(|setting| ["--set", setting]);
    let outcome = Outcome::of(["replay", &config, "--json"].into_iter().chain(sets)).ended(0);
    let point: Value = serde_json::from_str(&outcome.out).expect("JSON");
    let point = point.as_array().and_then(|points| points.first()).unwrap_or(&point);
    point["steady"]["misses"].as_u64().expect("a count")
}

#[test]
fn the_table_has_a_row_per_size_and_says_that_it_is_exact() {
    let out = mrc(&["--slots", "2k,1.5k,100"]).ended(0).out;
    assert!(out.contains("; exact"), "{out}");
    let rows: Vec<&str> = out.lines().filter(|line| line.contains("slots") && line.contains('%')).collect();
    assert_eq!(rows.len(), 3, "{out}");
    assert!(rows[0].starts_with("1.5k (48 slots)") && rows[2].starts_with("100 slots"), "ascending: {out}");
    assert!(out.contains("lru-step") && out.contains("belady"), "{out}");
}

#[test]
fn layers_add_up_to_the_whole_and_equal_a_replay() {
    let all = json(&["--policy", "lru-step", "--by-layer"]);
    let curves = all["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 31, "the whole and thirty layers");
    let whole = sum(&curves[0]["misses"]);
    assert_eq!(whole, curves[1..].iter().map(|layer| sum(&layer["misses"])).sum::<u64>());
    let at = 64 - curves[0]["least_slots"].as_u64().expect("a size");
    let misses = &curves[0]["misses"][usize::try_from(at).expect("small")];
    assert_eq!(misses.as_u64(), Some(replayed(&["hot.policy=lru-step", "hot.slots=64"])));
    let text = mrc(&["--policy", "lru", "--by-layer", "--slots", "2k"]).ended(0).out;
    assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("29 ")).count(), 1, "{text}");
}

#[test]
fn a_sample_says_what_it_rests_on() {
    let out = mrc(&["--sample", "0.2", "--policy", "lru", "--slots", "2k"]).ended(0).out;
    assert!(out.contains("estimated from") && out.contains('±'), "{out}");
    let sampled = json(&["--sample", "0.2", "--policy", "lru"]);
    let (some, all) = (sampled["sampled"].as_u64(), sampled["streams"].as_u64());
    assert!(some > Some(0) && some < all, "{some:?} of {all:?}");
    assert_eq!(sampled, json(&["--sample", "0.2", "--policy", "lru"]), "the seed decides");
}

#[test]
fn the_file_holds_every_size() {
    let folder = Folder::new();
    let config = folder.write("small.toml", SMALL);
    let file = folder.arg("curves.csv");
    Outcome::of(["mrc", &config, "--policy", "lru", "--out", &file]).ended(0);
    let text = std::fs::read_to_string(&file).expect("a file");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("policy,layer,slots,accesses,misses,cold,miss_ratio,half_width"));
    assert!(lines.next().is_some_and(|line| line.starts_with("lru,all,32,")), "from one selection on");
    assert!(lines.count() > 300, "to the longest context");
}

#[test]
fn a_split_is_a_configuration_that_misses_as_it_says() {
    for layers in [&[][..], &["--by-layer"]] {
        let out = mrc(&[&["--policy", "lru-step", "--split", "1.5k"], layers].concat()).ended(0).out;
        let table: toml::Table = toml::from_str(&out).expect("TOML");
        let hot = table["hot"].as_table().expect("a table");
        let slots = hot["allocation_params"]["slots"].as_array().expect("a list");
        assert_eq!(slots.len(), if layers.is_empty() { 90 } else { 30 });
        let sum: i64 = slots.iter().filter_map(toml::Value::as_integer).sum();
        assert_eq!(sum, 48 * i64::try_from(slots.len()).expect("small"), "all of the budget");
        let said: u64 =
            out.split_once(": ").and_then(|(_, rest)| rest.split(' ').next()).unwrap().parse().unwrap();
        let list = format!("hot.allocation_params.slots={}", hot["allocation_params"]["slots"]);
        let settings = ["hot.policy=lru-step", "hot.slots=48", "hot.allocation=static", &list];
        assert_eq!(replayed(&settings), said, "{out}");
        assert!(said < replayed(&["hot.policy=lru-step", "hot.slots=48"]));
    }
}

#[test]
fn what_has_no_curve_is_refused_with_a_remedy() {
    mrc(&["--policy", "clock"]).refused(&["--policy", "clock", "sweep hot.slots"]);
    mrc(&["--slots", "0.5k"]).refused(&["--slots", "0.5k", "at least 32"]);
    mrc(&["--split", "2k"]).refused(&["--split", "one policy"]);
    mrc(&["--policy", "lru", "--split", "16"]).refused(&["--split", "at least 32"]);
    mrc(&["--set", "warm.size='16 MiB'"]).refused(&["warm.size"]);
    mrc(&["--sample", "2"]).refused(&["sample"]);
}

#[test]
fn allocators_name_what_they_need() {
    let replay = |settings: &[&str]| {
        let folder = Folder::new();
        let config = folder.write("small.toml", SMALL);
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        Outcome::of(["replay", &config].into_iter().chain(sets))
    };
    replay(&["hot.allocation=utilty"]).refused(&["hot.allocation", "did you mean \"utility\"?"]);
    replay(&["hot.policy=arc", "hot.allocation=utility"]).refused(&[
        "hot.allocation",
        "`arc` cannot",
        "lru-step",
    ]);
    replay(&["hot.allocation=static"]).refused(&["hot.allocation_params", "slots"]);
    replay(&["hot.allocation=static", "hot.allocation_params.slots=[64, 64]"])
        .refused(&["2 figures", "30 layers"]);
    replay(&["hot.allocation_params.every=4"]).refused(&["hot.allocation_params", "every"]);
    replay(&["hot.allocation=utility", "hot.allocation_params.every=0"])
        .refused(&["hot.allocation_params.every"]);
}
