//! Every command as a newcomer meets it: its help, its plain and its JSON output, and what it says to a typo.

mod program;

use program::{Folder, Outcome, SMALL};
use serde_json::Value;

/// Every command and subcommand, found from the help itself; the empty one is the program.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut at = 0;
    while at < found.len() {
        let path: Vec<String> = found[at].clone();
        let help = help(&path);
        let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
        let listed = listed.take_while(|line| !line.trim().is_empty());
        // Names stand two spaces in; what continues a description stands further in.
        let names =
            listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|&name| name != "help") {
            found.push([path.as_slice(), &[name.to_owned()]].concat());
        }
        at += 1;
    }
    found
}

fn help(path: &[String]) -> String {
    Outcome::of(path.iter().map(String::as_str).chain(["--help"])).ended(0).out
}

fn json(arguments: &[&str]) -> Value {
    let outcome = Outcome::of(arguments).ended(0);
    serde_json::from_str(&outcome.out).unwrap_or_else(|error| panic!("{error} in {}", outcome.out))
}

#[test]
fn every_help_has_an_example_whose_files_exist() {
    let commands = commands();
    for expected in ["", "sweep", "trace validate", "hw info"] {
        assert!(commands.iter().any(|path| path.join(" ") == expected), "no `{expected}` among {commands:?}");
    }
    for path in commands {
        let help = help(&path);
        let example = help.find("Example").unwrap_or_else(|| panic!("no example in the help of {path:?}"));
        let call = format!("kvtier {}", path.join(" "));
        assert!(help[example..].contains(call.trim_end()), "the example of {path:?} does not call it");
        for word in help[example..].split_whitespace() {
            if word.starts_with("configs/") || word.starts_with("traces/") {
                assert!(program::root().join(word).exists(), "{word} in the help of {path:?} does not exist");
            }
        }
    }
}

#[test]
fn typos_in_commands_and_flags_are_answered() {
    let typo = Outcome::of(["swep"]).ended(2);
    assert!(
        typo.err.contains("unrecognized subcommand 'swep'") && typo.err.contains("'sweep'"),
        "{}",
        typo.err
    );
    let typo = Outcome::of(["replay", "--polcy", "lru"]).ended(2);
    assert!(typo.err.contains("--polcy") && typo.err.contains("'--policy'"), "{}", typo.err);
    let zero = Outcome::of(["replay", "--threads", "0"]).ended(2);
    assert!(zero.err.contains("--threads"), "{}", zero.err);
    let unit = Outcome::of(["replay", "--memory", "4"]).ended(2);
    assert!(unit.err.contains("--memory") && unit.err.contains("GiB"), "{}", unit.err);
    Outcome::of(["--version"]).ended(0);
}

#[test]
fn policies_lists_the_tables() {
    let text = Outcome::of(["policies"]).ended(0).out;
    let list = json(&["policies", "--json"]);
    for (kind, least) in [("eviction", 7), ("admission", 5), ("demotion", 3), ("prefetch", 2)] {
        let entries = list[kind].as_array().expect("a list");
        assert!(entries.len() >= least);
        for entry in entries {
            let (name, summary) = (entry["name"].as_str().expect("a name"), entry["summary"].as_str());
            let summary = summary.expect("a summary");
            let is_row = |line: &str| line.split_whitespace().next() == Some(name) && line.ends_with(summary);
            assert!(text.lines().any(is_row), "{kind} {name} is not listed");
        }
    }
}

#[test]
fn presets_lists_and_shows_every_constant_with_its_source() {
    let list = Outcome::of(["presets"]).ended(0).out;
    let names: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(names.contains(&"h100-pcie5") && names.contains(&"deepseek-v3.2-fp8"));
    for name in names {
        let shown = Outcome::of(["presets", name]).ended(0).out;
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() >= 2 && lines.len().is_multiple_of(2), "a constant, then its source: {shown}");
        for pair in lines.chunks(2) {
            let kinds = ["(measured)", "(specified)", "(fitted)", "(assumed)"];
            assert!(kinds.iter().any(|kind| pair[0].ends_with(kind)), "{}", pair[0]);
            assert!(pair[1].starts_with("    ") && !pair[1].trim().is_empty(), "{}", pair[1]);
        }
        let folder = Folder::new();
        let file = folder.write("mine.toml", Outcome::of(["presets", name, "--toml"]).ended(0).out);
        let field = if list.find(name) < list.find("models") { "--machine" } else { continue };
        let replay = ["replay", field, &file, "--set", "batch.requests=['s-d01']", "--set", "batch.steps=20"];
        Outcome::of(replay).ended(0);
    }
}

#[test]
fn trace_info_and_validate() {
    let file = "traces/samples/smollm2-tokens.parquet";
    let text = Outcome::of(["trace", "info", file]).ended(0).out;
    let info = json(&["trace", "info", file, "--json"]);
    let hash = info["hash"].as_str().expect("a hash");
    assert!(text.contains(hash) && text.contains("s-d01") && text.contains("Apache-2.0"), "{text}");
    assert_eq!(info["header"]["k"], 256);
    assert_eq!(info["rows"], 4 * 3 * 128, "layers x head groups x steps");
    for sample in program::names(&program::root().join("traces/samples")) {
        if sample.ends_with(".parquet") {
            Outcome::of(["trace", "validate", &format!("traces/samples/{sample}")]).ended(0);
        }
    }
}

#[test]
fn hw_info_tells_of_a_device_or_of_none() {
    let outcome = Outcome::of(["hw", "info"]);
    if outcome.code == Some(0) {
        println!("a device is here:\n{}", outcome.out);
        assert!(!outcome.out.trim().is_empty() && outcome.err.is_empty());
    } else {
        outcome.refused(&["CUDA", ";"]);
    }
}

#[test]
fn replay_runs_without_arguments_and_prints_the_same_points_as_json() {
    let plain = Outcome::of(["replay", "--set", "batch.steps=40"]).ended(0).out;
    let points = json(&["replay", "--set", "batch.steps=40", "--json"]);
    let points = points.as_array().expect("a list");
    let kinds: Vec<&str> = points.iter().filter_map(|point| point["kind"].as_str()).collect();
    assert_eq!(kinds, ["offload", "resident", "dense"]);
    let offload = &points[0];
    assert_eq!(offload["config"]["policy"], "lru");
    for value in [&offload["steady"]["misses"], &offload["decision_hash"], &offload["steady"]["cold"]] {
        let shown = value.to_string();
        assert!(plain.contains(shown.trim_matches('"')), "{shown} is not in\n{plain}");
    }
}

#[test]
fn replay_takes_a_file_and_flags_override_it() {
    let folder = Folder::new();
    let file = folder.write("mine.toml", SMALL);
    let flags = ["--policy", "fifo", "--slots", "3k", "--overlap", "hit-first", "--concurrency", "2"];
    let points = json(&[["replay", file.as_str(), "--json"].as_slice(), &flags].concat());
    let config = &points[0]["config"];
    let seen = ["policy", "slots", "overlap", "concurrency", "steps"].map(|field| config[field].to_string());
    assert_eq!(seen, ["\"fifo\"", "96", "\"hit-first\"", "2", "40"]);
}

#[test]
fn report_writes_the_report_of_a_sweep_again() {
    let folder = Folder::new();
    let file = folder.write("mine.toml", format!("{SMALL}[grid]\n'hot.policy' = ['lru', 'fifo']\n"));
    let out = folder.arg("out");
    Outcome::of(["sweep", &file, "--out", &out]).ended(0);
    let names = program::names(&folder.at("out"));
    let drawn = |name: &&String| name.ends_with(".html") || name.ends_with(".png");
    let read = || -> Vec<Vec<u8>> {
        let files = names.iter().filter(drawn).map(|name| folder.at("out").join(name));
        files.map(|path| std::fs::read(path).expect("it is there")).collect()
    };
    let first = read();
    assert!(first.len() >= 3, "a page and plots: {names:?}");
    names
        .iter()
        .filter(drawn)
        .for_each(|name| std::fs::remove_file(folder.at("out").join(name)).expect("it is there"));
    Outcome::of(["report", &out]).ended(0);
    assert_eq!(program::names(&folder.at("out")), names);
    assert!(read() == first, "the report differs");
}
