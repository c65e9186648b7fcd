//! Every file in configs/ lowers: machines and models parse and are built in, policies can be chosen with the parameters
//! they list, and every point of every sweep and baseline is accepted without running it.

mod program;

use kvtier_policies::eviction::EVICTION;
use kvtier_reports::gate::Baseline;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::presets::{self, MACHINES, MODELS};
use kvtier_sim::sweep::Sweep;
use std::path::{Path, PathBuf};

/// The files of a folder of configs/, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = program::root().join("configs").join(folder);
    program::names(&folder).into_iter().map(|name| folder.join(name)).collect()
}

fn stem(path: &Path) -> String {
    assert_eq!(path.extension().and_then(|kind| kind.to_str()), Some("toml"), "{}", path.display());
    path.file_stem().expect("files have names").to_string_lossy().into_owned()
}

#[test]
fn there_is_a_test_for_every_folder() {
    for name in program::names(&program::root().join("configs")) {
        let folder = program::root().join("configs").join(&name);
        let known =
            ["baselines", "machines", "models", "policies", "prefetch", "sweeps"].contains(&name.as_str());
        assert!(
            known || program::names(&folder).is_empty(),
            "configs/{name}: say in this file how its files are lowered"
        );
    }
}

/// The file names of a folder are the presets' names, and each file says the same name.
#[track_caller]
fn presets_are(
    folder: &str,
    built_in: &[(&str, &str)],
    load: impl Fn(&str) -> Result<String, presets::PresetError>,
) {
    let mut names: Vec<String> = Vec::new();
    for file in files(folder) {
        let name = stem(&file);
        let path = file.to_str().expect("plain names");
        let loaded = load(path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded, name, "{path} names itself otherwise");
        let text = std::fs::read_to_string(&file).expect("readable");
        let constants = presets::constants(&text).expect("TOML");
        assert!(!constants.is_empty(), "{path} has no constant");
        for constant in constants {
            assert!(!constant.source.trim().is_empty(), "{path}: {} has no source", constant.path);
        }
        names.push(name);
    }
    let mut known: Vec<String> = built_in.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort_unstable();
    assert_eq!(names, known, "files of configs/{folder} against the presets that are built in");
}

#[test]
fn machines() {
    presets_are("machines", MACHINES, |path| presets::machine(path).map(|machine| machine.name));
}

#[test]
fn models() {
    presets_are("models", MODELS, |path| presets::model(path).map(|model| model.name));
}

/// A policy's file has the form of a section of a configuration; the trace has scores, which some of them read.
#[track_caller]
fn can_be_chosen(folder: &str, section: &str, one: &str) {
    let files = files(folder);
    assert!(files.iter().any(|file| stem(file) == one));
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let policy: toml::Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(policy["policy"].as_str(), Some(stem(&path).as_str()), "a file is named after its policy");
        let trace =
            "trace = 'traces/samples/gemma3-pages.parquet'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n";
        let mut run: toml::Table = trace.parse().expect("TOML");
        run.insert(section.into(), toml::Value::Table(policy));
        let run = toml::to_string(&run).expect("a table prints");
        let sweep = ConfigFile::parse(&run).and_then(Sweep::plan);
        sweep.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn policies() {
    can_be_chosen("policies", "hot", "lru");
}

#[test]
fn prefetchers() {
    can_be_chosen("prefetch", "prefetch", "next-ranked");
}

#[test]
fn sweeps() {
    let files = files("sweeps");
    assert!(files.iter().any(|file| stem(file) == "quickstart"));
    for path in files {
        let file = ConfigFile::read(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.name, stem(&path), "a sweep's results folder is named after its file");
        let sweep = Sweep::plan(file).unwrap_or_else(|error| panic!("{error}"));
        assert!(sweep.len() > 1, "{} has one point only", path.display());
    }
}

#[test]
fn the_quickstart_covers_what_the_readme_promises() {
    let path = program::root().join("configs/sweeps/quickstart.toml");
    let runs = ConfigFile::read(&path).and_then(|file| file.runs()).unwrap_or_else(|error| panic!("{error}"));
    let count = |of: &dyn Fn(&kvtier_sim::config::RunConfig) -> String| {
        runs.iter().map(of).collect::<std::collections::BTreeSet<String>>().len()
    };
    assert!(count(&|run| run.hot.policy.clone()) >= 7);
    assert!(count(&|run| run.hot.slots.to_string()) >= 6);
    assert_eq!(count(&|run| run.time.overlap.clone()), 3);
}

#[test]
fn baselines() {
    for path in files("baselines") {
        let baseline = Baseline::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let file = ConfigFile::parse_as(&path, baseline.config());
        let sweep = file.and_then(Sweep::plan).unwrap_or_else(|error| panic!("{error}"));
        assert!(!sweep.is_empty(), "{} has no point", path.display());
    }
}

/// No policy changes its decisions unnoticed: each has its counts among those of `configs/baselines/policies.toml`.
#[test]
fn every_policy_has_a_golden_row() {
    let path = program::root().join("configs/baselines/policies.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for policy in EVICTION {
        let row = format!("point = \"gemma3-pages.parquet {} C=", policy.name);
        assert!(text.contains(&row), "run `kvtier check {} --bless` for `{}`", path.display(), policy.name);
    }
}
