//! Ctrl-C in the middle of a sweep: what is finished stays in the log, and the same command goes on from there to
//! results that are the same, byte for byte, as those of a run that nobody stopped.

#![cfg(unix)]

mod program;

use program::{Folder, Outcome};
use std::process::{Command, Stdio};

/// Many groups of points, one after the other.
const LONG: &str = "trace = 'traces/samples/smollm2-pages.parquet'\nmodel = 'smollm2-135m'\n\
    machine = 'h100-pcie5'\n[batch]\nrequests = ['s-d01', 's-d02']\n[grid]\n\
    'hot.policy' = ['lru', 'lru-step', 'lfu', 'random']\n\
    'hot.slots' = [40, 44, 48, 52, 56, 60, 64, 72]\n'time.overlap' = ['serial', 'hit-first']\n";

fn sweep(folder: &Folder, out: &str) -> [String; 6] {
    ["sweep".into(), folder.arg("long.toml"), "--out".into(), folder.arg(out), "--threads".into(), "1".into()]
}

fn log(folder: &Folder, out: &str) -> String {
    std::fs::read_to_string(folder.at(out).join("points.jsonl")).unwrap_or_default()
}

/// Starts the sweep, sends it a Ctrl-C once its log holds something, and returns how it ended.
fn interrupted(folder: &Folder, out: &str) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvtier"))
        .current_dir(program::root())
        .args(sweep(folder, out))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    while log(folder, out).is_empty() && child.try_wait().expect("it can be asked").is_none() {
        std::thread::yield_now();
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    kill.expect("kill is there");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn an_interrupted_sweep_keeps_what_is_finished_and_resumes() {
    let folder = Folder::new();
    folder.write("long.toml", LONG);
    let stopped = interrupted(&folder, "resumed").ended(130);
    assert_eq!(stopped.err.lines().count(), 1, "{}", stopped.err);
    assert!(stopped.err.contains("interrupted; finished points are kept, run the same command again"));
    assert_eq!(program::names(&folder.at("resumed")), ["points.jsonl"], "no results of half a sweep");
    let before = log(&folder, "resumed");
    assert!(before.ends_with('\n') && !before.is_empty(), "the log holds whole points");

    Outcome::of(sweep(&folder, "resumed")).ended(0);
    let after = log(&folder, "resumed");
    assert!(after.starts_with(&before), "finished points stay first in the log");
    let points = |log: &str| -> Vec<String> {
        let point = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("whole lines");
        let mut ids: Vec<String> = log.lines().map(|line| point(line)["id"].to_string()).collect();
        ids.sort_unstable();
        ids
    };
    let finished = points(&after);
    assert_eq!(finished.len(), 4 * 8 * 2 + 2, "every point and both baselines");
    assert!(finished.windows(2).all(|pair| pair[0] != pair[1]), "no point ran twice");
    assert!(points(&before).len() < finished.len(), "it was stopped before its end");

    Outcome::of(sweep(&folder, "whole")).ended(0);
    for name in ["points.parquet", "points.csv", "summary.json", "report.html"] {
        let read = |out: &str| std::fs::read(folder.at(out).join(name)).expect("results are there");
        assert!(read("resumed") == read("whole"), "{name} differs from that of an uninterrupted run");
    }
}

#[test]
fn a_torn_last_line_is_cut_off_and_its_point_runs_again() {
    let folder = Folder::new();
    folder.write("long.toml", program::SMALL);
    Outcome::of(sweep(&folder, "out")).ended(0);
    let (path, table) = (folder.at("out/points.jsonl"), folder.at("out/points.parquet"));
    let (whole, points) = (log(&folder, "out"), std::fs::read(&table).expect("results are there"));
    let kept = whole.trim_end().rfind('\n').expect("several points") + 1;
    for torn in [kept + 1, (kept + whole.len()) / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..torn]).expect("the log can be written");
        std::fs::remove_file(&table).expect("the table is there");
        Outcome::of(sweep(&folder, "out")).ended(0);
        assert_eq!(log(&folder, "out"), whole, "torn after {torn} bytes");
        assert!(std::fs::read(&table).is_ok_and(|again| again == points), "torn after {torn} bytes");
    }
}

#[test]
fn a_log_of_another_sweep_or_version_does_no_harm() {
    let folder = Folder::new();
    folder.write("long.toml", program::SMALL);
    Outcome::of(sweep(&folder, "clean")).ended(0);
    Outcome::of(sweep(&folder, "mixed").into_iter().chain(["--set".into(), "seed=2".into()])).ended(0);
    let other = log(&folder, "mixed");
    let foreign = "{\"id\": \"of another version\"}\nnot JSON at all\n";
    std::fs::write(folder.at("mixed/points.jsonl"), format!("{foreign}{other}"))
        .expect("the log can be written");
    Outcome::of(sweep(&folder, "mixed")).ended(0);
    let read = |out: &str| std::fs::read(folder.at(out).join("points.parquet")).expect("results are there");
    assert!(read("mixed") == read("clean"), "only points of this sweep are in its results");
    assert!(log(&folder, "mixed").starts_with(&format!("{foreign}{other}")), "nothing is lost from the log");
}
