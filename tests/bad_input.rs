//! Wrong settings, names, sizes and folders are refused with one line that names the field or file and the remedy,
//! before anything is written; what an earlier run wrote stays as it was.

mod program;

use program::{Folder, Outcome, SMALL};

/// `kvtier replay` of the shipped pages with these settings is refused.
#[track_caller]
fn refused(settings: &[&str], parts: &[&str]) {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let outcome = Outcome::of(["replay", "--set", "batch.steps=20"].into_iter().chain(set)).refused(parts);
    assert_eq!(outcome.out, "", "nothing is printed of what is refused");
}

/// A sweep over this configuration is refused, the file is named, and no results folder appears.
#[track_caller]
fn refused_file(config: &str, parts: &[&str]) {
    let folder = Folder::new();
    let file = folder.write("mine.toml", config);
    let named = [&["mine.toml"], parts].concat();
    Outcome::of(["sweep", &file, "--out", &folder.arg("out")]).refused(&named);
    assert_eq!(folder.names(), ["mine.toml"]);
    Outcome::of(["replay", &file]).refused(&named);
    Outcome::of(["check", &file]).refused(&named);
    Outcome::of(["check", &file, "--bless"]).refused(&named);
    assert_eq!(
        std::fs::read_to_string(file).ok().as_deref(),
        Some(config),
        "a refused baseline stays as it was"
    );
}

#[test]
fn unknown_fields() {
    refused(&["hot.polcy=lru"], &["hot.polcy: unknown field", "did you mean \"policy\"?", "slots"]);
    refused(&["colour=red"], &["colour: unknown field", "one of: trace, model, machine"]);
    refused_file(
        &format!("{SMALL}[hot]\nslot = 64\n"),
        &["hot.slot: unknown field", "did you mean \"slots\"?"],
    );
    refused_file(
        &format!("{SMALL}[grid]\n'time.overlaps' = ['serial']\n"),
        &["time.overlaps: unknown field"],
    );
}

#[test]
fn missing_fields_and_wrong_types() {
    refused_file("trace = 't.parquet'\nmodel = 'smollm2-135m'\n", &["machine: missing"]);
    refused(&["hot.slots=many"], &["hot.slots: `many`: give a number of slots such as 64, or a multiple"]);
    refused(&["hot.slots=-1"], &["hot.slots: give a number of slots such as 64, or a multiple"]);
    refused(&["warm.size=4096"], &["warm.size: invalid type: integer `4096`"]);
    refused(&["warm.size=4 MB"], &["warm.size: `4 MB`", "MiB"]);
    refused(&["hot=lru"], &["hot: is a table of settings: policy, slots, params, start"]);
    refused(&["measure.from_step=soon"], &["measure.from_step: invalid type: string \"soon\""]);
    refused(&["hot.start=warm"], &["hot.start: unknown variant `warm`", "`cold` or `recent`"]);
    refused(&["selection.newest=last"], &["selection.newest: unknown variant `last`", "`reserved`"]);
    refused(&["hot.policy"], &["--set: `hot.policy`: write field=value"]);
}

#[test]
fn one_wrong_point_of_a_grid_is_found_before_anything_runs() {
    let belady = "[prefetch]\npolicy = 'next-ranked'\n[grid]\n'hot.policy' = ['lru', 'belady']\n";
    refused_file(&format!("{SMALL}{belady}"), &["prefetch.policy: `belady`"]);
    refused_file(&format!("{SMALL}[grid]\n'measure.from_step' = [16, 40]\n"), &["measure.from_step: 40"]);
    refused_file(
        &format!("{SMALL}[grid]\n'hot.params.k' = [2, 0]\n[hot]\npolicy = 'lru-k'\n"),
        &["hot.params.k"],
    );
    refused_file(&format!("{SMALL}[grid]\n'batch.concurrency' = [2, 0]\n"), &["batch.concurrency: 0"]);
}

#[test]
fn files_that_are_no_configuration() {
    Outcome::of(["sweep", "none.toml"]).refused(&["none.toml: cannot read", "No such file"]);
    Outcome::of(["check", "none.toml"]).refused(&["none.toml: cannot read", "No such file"]);
    refused_file("trace = 'a\n", &["line 1, column", "invalid literal string"]);
    refused_file("[hot]\npolicy = 'lru'\npolicy = 'fifo'\n", &["line 3, column 1: duplicate key"]);
}

#[test]
fn a_grid_that_is_not_a_table_of_lists() {
    refused_file(
        &format!("{SMALL}[grid]\n'hot.policy' = 'lru'\n"),
        &["grid.\"hot.policy\": give a list of values"],
    );
    refused_file(
        &format!("{SMALL}[grid]\n'hot.policy' = []\n"),
        &["grid.\"hot.policy\": give a list of values"],
    );
    refused_file(&format!("grid = 'hot.policy'\n{SMALL}"), &["grid: invalid type", "expected a map"]);
    refused_file(
        &format!("{SMALL}[grid]\n'hot.policy' = ['lru', 2]\n"),
        &["hot.policy: invalid type: integer `2`"],
    );
}

#[test]
fn unknown_names_are_answered_with_the_nearest_known() {
    refused(
        &["hot.policy=lur"],
        &["hot.policy: unknown eviction policy `lur`", "did you mean \"lru\"?", "belady"],
    );
    refused(
        &["prefetch.policy=next-rank"],
        &["prefetch.policy: unknown", "did you mean \"next-ranked\"?", "none"],
    );
    refused(
        &["time.overlap=hit-frist"],
        &["time.overlap: unknown", "did you mean \"hit-first\"?", "layer-ahead"],
    );
    refused(
        &["time.transfer=gathre"],
        &["time.transfer: unknown", "did you mean \"gather\"?", "copy-batch", "auto"],
    );
    refused(&["time.launch=grahp"], &["time.launch: unknown", "did you mean \"graph\"?", "stream"]);
    refused(&["machine=h100-pcie"], &["unknown machine `h100-pcie`", "did you mean `h100-pcie5`?", "gb200"]);
    refused(
        &["model=smollm2-135"],
        &["unknown model `smollm2-135`", "did you mean `smollm2-135m`?", "glm-5"],
    );
    refused(
        &["batch.requests=['s-d1']"],
        &["batch.requests: ", "no request `s-d1`", "did you mean \"s-d01\"?"],
    );
    refused(&["machine=none.toml"], &["none.toml: No such file"]);
    Outcome::of(["presets", "gh20"]).refused(&["unknown preset `gh20`", "did you mean \"gh200\"?"]);
}

#[test]
fn policy_parameters() {
    refused(&["hot.params.depth=2"], &["hot.params: policy `lru`: unknown field `depth`"]);
    refused(
        &["hot.policy=slru", "hot.params.depth=2"],
        &["hot.params: policy `slru`: unknown field `depth`"],
    );
    refused(&["hot.policy=lru-k", "hot.params.k=0"], &["hot.params.k: lru-k", "not 0"]);
    refused(
        &["hot.policy=attention-mass"],
        &["hot.policy: `attention-mass` reads scores", "choose another policy"],
    );
}

#[test]
fn buffers_smaller_than_the_selection() {
    refused(&["hot.slots=31"], &["hot.slots: 31 slots cannot hold a selection of 32 blocks", "at least 32"]);
    refused(&["hot.slots=0.5k"], &["hot.slots: 16 slots cannot hold a selection of 32 blocks"]);
    refused(&["hot.slots=0"], &["hot.slots: 0 slots hold nothing"]);
    refused_file(
        &format!("{SMALL}[grid]\n'hot.slots' = ['2k', 20, '1k']\n"),
        &["hot.slots: 20 slots cannot hold a selection of 32 blocks"],
    );
}

#[test]
fn selections_and_windows_beyond_what_was_recorded() {
    refused(&["selection.k=33"], &["selection.k: 33 is not within 1..32", "smollm2-pages.parquet"]);
    refused(&["selection.k=0"], &["selection.k: 0 is not within 1..32"]);
    refused(&["selection.fold=0"], &["selection.fold: must be at least 1"]);
    refused(
        &["selection.fold=2"],
        &["model: `smollm2-135m` moves blocks of 16 entries", "set selection.fold = 1"],
    );
    refused(&["model=glm-5"], &["model: `glm-5`", "choose another model or trace"]);
    refused(&["measure.from_step=20"], &["measure.from_step: 20 leaves nothing to measure of 20 steps"]);
    refused(&["batch.concurrency=0"], &["batch.concurrency: 0 requests at once; give at least 1"]);
}

#[test]
fn pools_that_overflow() {
    let set = |setting: &str| {
        let arguments =
            ["replay", "--set", "batch.requests=['s-d01']", "--set", "batch.steps=20", "--set", setting];
        Outcome::of(arguments)
    };
    let host =
        set("host.pool=1 MiB").refused(&["host.pool: request `s-d01` needs ", "of 1 MiB", "raise host.pool"]);
    assert!(host.out.contains("does not fit") && !host.out.contains("misses"), "{}", host.out);
    let hbm =
        set("warm.size=200 GiB").refused(&["HBM: ", "warm 200 GiB", "the machine has 79 GiB", "warm.size"]);
    assert!(
        hbm.out.contains("does not fit") && !hbm.out.contains("compute"),
        "no time is told of it: {}",
        hbm.out
    );
}

#[test]
fn a_sweep_goes_on_past_points_that_do_not_fit() {
    let folder = Folder::new();
    let config = format!("{SMALL}[grid]\n'host.pool' = ['1 MiB', '1 GiB']\n");
    let file = folder.write("pools.toml", config);
    let outcome = Outcome::of(["sweep", &file, "--out", &folder.arg("out")]).ended(0);
    assert!(outcome.out.contains("1 that do not fit"), "{}", outcome.out);
    let table = std::fs::read_to_string(folder.at("out/points.csv")).expect("the table is written");
    assert!(table.contains("infeasible") && table.contains("raise host.pool"), "{table}");
}

/// A folder below a regular file cannot be written by anyone, not even by root.
#[test]
fn output_folders_that_cannot_be_written() {
    let folder = Folder::new();
    let file = folder.write("small.toml", SMALL);
    let out = format!("{file}/out");
    Outcome::of(["sweep", &file, "--out", &out])
        .refused(&["small.toml/out: cannot create", "Not a directory"]);
    Outcome::of(["sweep", &file, "--out", &file]).refused(&["small.toml: cannot create"]);
    Outcome::of(["report", &out]).refused(&["small.toml/out/points.parquet: cannot open"]);
    assert_eq!(folder.names(), ["small.toml"]);
}

#[test]
fn a_refused_run_leaves_earlier_results_as_they_were() {
    let folder = Folder::new();
    let file = folder.write("small.toml", SMALL);
    let out = folder.arg("out");
    let sweep = |setting: &str| Outcome::of(["sweep", &file, "--out", &out, "--set", setting]);
    sweep("seed=1").ended(0);
    let files = || {
        let names = program::names(&folder.at("out"));
        names
            .into_iter()
            .map(|name| (std::fs::read(folder.at("out").join(&name)).ok(), name))
            .collect::<Vec<_>>()
    };
    let before = files();
    assert!(before.iter().any(|(_, name)| name == "report.html"), "the first sweep has results");
    sweep("hot.policy=lur").refused(&["hot.policy"]);
    sweep("trace=Cargo.toml").refused(&["Cargo.toml: not a Parquet file"]);
    assert!(files() == before, "results changed");
}

#[test]
fn what_is_refused_makes_no_folder() {
    let folder = Folder::new();
    let out = folder.arg("new/curves.csv");
    Outcome::of(["mrc", "nosuch.toml", "--out", &out]).refused(&["nosuch.toml"]);
    Outcome::of(["mrc", "--slots", "1", "--out", &out]).refused(&["--slots"]);
    let machine = folder.arg("new/machine.toml");
    Outcome::of(["hw", "probe", "--base", "h9", "--out", &machine]).refused(&["--base h9"]);
    Outcome::of(["hw", "probe", "--from", "nosuch.json", "--out", &machine]).refused(&["nosuch.json"]);
    assert!(!folder.at("new").exists());
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/hw/results/probe.json");
    Outcome::of(["hw", "probe", "--from", from, "--out", &machine]).ended(0);
    assert!(folder.at("new/machine.toml").exists());
}
