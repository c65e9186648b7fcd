//! The device's commands on whatever machine this is: a replay where there is a device, one clear line where there is none.

#![allow(clippy::print_stdout)] // A test that can do only half of its work says so.

mod program;

use program::{Folder, Outcome, kvtier, root};
use std::process::Command;

#[test]
fn a_replay_runs_on_the_device_or_says_in_one_line_why_not() {
    let info = Outcome::of(["hw", "info"]);
    let replay = ["hw", "replay", "--policy", "lru-step", "--concurrency", "2", "--set", "batch.steps=20"];
    if info.code == Some(0) {
        let ran = Outcome::of(replay).ended(0);
        assert!(ran.out.contains("(equal), 0 of") && ran.out.contains("in place"), "{}", ran.out);
        return;
    }
    println!("no device: only its absence is tested: {}", info.err.trim_end());
    let refused = Outcome::of(replay).refused(&[]);
    assert_eq!((refused.out.as_str(), refused.err), ("", info.err));
}

/// The stand-in driver of `hw/tests` has a device that fails on demand.
#[test]
fn a_device_that_cannot_is_told_in_one_line_and_nothing_leaks() {
    let folder = Folder::new();
    let (library, live) = (folder.arg("libcuda.so.1"), folder.arg("live"));
    let source = root().join("hw/tests/fake_libcuda.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", &library])
        .arg(source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler to build the stand-in driver with");
        return;
    }
    for (mode, parts) in [
        ("none", "no CUDA device"),
        ("old", "the CUDA driver is too old: it supports CUDA 12.4, and 13.0 is needed"),
        ("well", "out of device memory: "),
        ("unpinnable", "too little pinnable host memory: "),
    ] {
        let mut command = kvtier(["hw", "replay", "--concurrency", "1", "--set", "batch.steps=20"]);
        command.env("KVTIER_LIBCUDA", &library).env("FAKE_CUDA", mode).env("FAKE_CUDA_LIVE", &live);
        let outcome = Outcome::ran(&mut command).refused(&[parts]);
        assert_eq!(outcome.out, "", "{mode}: nothing is printed of what did not run");
        assert_eq!(std::fs::read_to_string(&live).expect("the driver was there to the end"), "0", "{mode}");
    }
}

#[test]
fn a_wrong_flag_is_refused_before_any_device_is_looked_for() {
    Outcome::of(["hw", "replay", "--set", "nonsense"]).refused(&["write field=value"]);
    let outcome = Outcome::of(["hw", "replay", "--managed", "nobody"]).ended(2);
    assert!(outcome.err.contains("[possible values: either, device, host]"), "{}", outcome.err);
}

#[test]
fn the_page_of_shipped_results_needs_no_device() {
    let folder = Folder::new();
    let page = folder.arg("hw.html");
    Outcome::of(["hw", "report", "--out", &page]).ended(0);
    let text = std::fs::read_to_string(&page).expect("the page was written");
    for part in ["Parity", "0 mismatches", "Whole steps", "Roofline", "Checks", "echo"] {
        assert!(text.contains(part), "no {part}");
    }
    assert!(!text.contains("NaN"), "every figure is a number");
    Outcome::of(["hw", "report", "traces"]).refused(&["traces: holds none of parity.json"]);
}
