//! Runs the checks, the roofline or the parity scenarios on this machine's device and writes them as JSON:
//! `bench check|roofline|parity OUT.json DATE ...`; what may follow is in `usage`.

#![allow(clippy::print_stdout)] // A program, not a library.
#![allow(clippy::disallowed_methods)] // Every check draws fresh inputs.

use kvtier_hw::ops::lookup::{Lookup, Policy};
use kvtier_hw::parity::recorded::{self, RecordedAgreement};
use kvtier_hw::replay::{Kernels, Managed};
use kvtier_hw::{Device, DeviceInfo, HwError, check, parity, roofline};
use serde::Serialize;
use std::process::ExitCode;

/// Results with where and when they were taken.
#[derive(Serialize)]
struct Taken<'a, T> {
    device: &'a DeviceInfo,
    date: &'a str,
    #[serde(flatten)]
    results: T,
}

#[derive(Serialize)]
struct Checks {
    findings: Vec<check::Finding>,
}

#[derive(Serialize)]
struct Parity {
    policies: Vec<&'static str>,
    policies_decided_by_the_host: Vec<String>,
    accesses: u64,
    mismatches: u64,
    synthetic: Vec<parity::Agreement>,
    recorded: Vec<RecordedAgreement>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, out, date, rest @ ..] = &arguments[..] else {
        return usage();
    };
    if !["check", "roofline", "parity"].contains(&what.as_str()) {
        return usage();
    }
    // A check of nothing would pass.
    if what == "check" && rest.first().is_some_and(|group| !check::GROUPS.contains(&group.as_str())) {
        println!("groups: {}", check::GROUPS.join(", "));
        return usage();
    }
    match run(what, out, date, rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn usage() -> ExitCode {
    println!(
        "usage: bench check OUT.json DATE [group [brief]]\n       bench roofline OUT.json DATE [pinned GiB [matrix TFLOP/s [group]]]\n       \
         bench parity OUT.json DATE [folder of traces]"
    );
    ExitCode::from(2)
}

fn run(what: &str, out: &str, date: &str, rest: &[String]) -> Result<bool, HwError> {
    let device = Device::open()?;
    println!("{}", device.info());
    let pinned = rest.first().and_then(|gib| gib.parse().ok()).unwrap_or(32usize) << 30;
    match what {
        "check" => {
            let only = rest.first().map(String::as_str);
            let brief = rest.get(1).is_some_and(|word| word == "brief");
            checks(&device, out, date, check::Extent { only, brief })
        }
        "roofline" => {
            let matrix_rate = rest.get(1).and_then(|rate| rate.parse().ok()).unwrap_or(f64::NAN);
            let table = roofline::run(&device, pinned, matrix_rate, rest.get(2).map(String::as_str))?;
            table.rows.iter().for_each(print_row);
            save(out, &Taken { device: device.info(), date, results: table });
            Ok(true)
        }
        _ => agreements(&device, out, date, rest.first().map_or("traces/samples", String::as_str)),
    }
}

fn checks(device: &Device, out: &str, date: &str, extent: check::Extent<'_>) -> Result<bool, HwError> {
    let now = std::time::SystemTime::now();
    let seed = now.duration_since(std::time::UNIX_EPOCH).map_or(1, |age| age.as_secs());
    let findings = check::run(device, seed, extent)?;
    for finding in &findings {
        let verdict = if finding.passes() { "ok   " } else { "WRONG" };
        println!("{verdict} {:<70} {:9.2e} <= {:.0e}", finding.case, finding.error, finding.allowed);
    }
    let passes = findings.iter().all(check::Finding::passes);
    save(out, &Taken { device: device.info(), date, results: Checks { findings } });
    Ok(passes)
}

/// Drawn accesses in a thread per policy, since most of the time goes into deciding on the host; then the recorded ones
/// in turn, since a step is not captured while other threads wait for the device.
fn agreements(device: &Device, out: &str, date: &str, folder: &str) -> Result<bool, HwError> {
    let synthetic: Result<Vec<_>, HwError> = std::thread::scope(|scope| {
        let policies: Vec<_> =
            Policy::ALL.into_iter().map(|policy| scope.spawn(move || synthetic(device, policy))).collect();
        policies.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let kernels = Kernels::load(device)?;
    let recorded: Vec<_> = recorded::traces().flat_map(|trace| on_trace(&kernels, folder, trace)).collect();
    let synthetic: Vec<parity::Agreement> = synthetic?.into_iter().flatten().collect();
    let holds =
        synthetic.iter().all(parity::Agreement::holds) && recorded.iter().all(RecordedAgreement::holds);
    let mut by_host: Vec<String> =
        recorded.iter().filter(|run| run.managed == Managed::Host).map(|run| run.policy.clone()).collect();
    by_host.sort();
    by_host.dedup();
    let results = Parity {
        policies: Policy::ALL.iter().map(|policy| policy.name()).collect(),
        policies_decided_by_the_host: by_host,
        accesses: synthetic.iter().map(|run| run.accesses).sum::<u64>()
            + recorded.iter().map(|run| run.accesses).sum::<u64>(),
        mismatches: synthetic.iter().map(|run| run.mismatches).sum::<u64>()
            + recorded.iter().map(|run| run.mismatches).sum::<u64>(),
        synthetic,
        recorded,
    };
    println!("{} accesses, {} mismatches", results.accesses, results.mismatches);
    save(out, &Taken { device: device.info(), date, results });
    Ok(holds)
}

fn synthetic(device: &Device, policy: Policy) -> Result<Vec<parity::Agreement>, HwError> {
    let lookup = Lookup::load(device)?;
    let mut runs = Vec::new();
    for scenario in parity::scenarios() {
        let run = parity::run(device, &lookup, policy, &scenario)?;
        if !run.holds() {
            println!("WRONG {} {}: {} mismatches", run.policy, scenario.name, run.mismatches);
        }
        runs.push(run);
    }
    let accesses: u64 = runs.iter().map(|run| run.accesses).sum();
    println!("{:<15} {} scenarios, {accesses} accesses", policy.name(), runs.len());
    Ok(runs)
}

fn on_trace(kernels: &Kernels, folder: &str, trace: &str) -> Vec<RecordedAgreement> {
    let mut show = |run: &RecordedAgreement| {
        if !run.holds() {
            println!(
                "WRONG {} {} {} slots, {}: {} mismatches, {:?}",
                run.trace, run.policy, run.slots, run.prefetch, run.mismatches, run.integrity
            );
        }
    };
    let runs = match recorded::run(kernels, (folder, trace), &mut show) {
        Ok(runs) => runs,
        Err(error) => panic!("{trace}: {error}"),
    };
    let accesses: u64 = runs.iter().map(|run| run.accesses).sum();
    println!("{trace}: {} replays, {accesses} accesses", runs.len());
    runs
}

fn print_row(row: &roofline::Row) {
    let goal = row.goal.map_or(String::new(), |goal| format!("goal {goal:.2}"));
    println!(
        "{:<17}{:<75}{:9.2} {:<7}{:6.3} of {:9.2} {} {goal}",
        row.kernel, row.shape, row.achieved, row.unit, row.ratio, row.reference, row.against
    );
}

fn save<T: Serialize>(out: &str, value: &T) {
    let text = serde_json::to_string_pretty(value).expect("plain data becomes JSON");
    std::fs::write(out, text).expect("the output file can be written");
}
