//! Runs the checks, the roofline or the parity scenarios on this machine's device and writes them as JSON:
//! `bench check|roofline|parity OUT.json DATE [pinned GiB [matrix TFLOP/s [group]]]`.

#![allow(clippy::print_stdout)] // A program, not a library.
#![allow(clippy::disallowed_methods)] // Every check draws fresh inputs.

use kvtier_hw::ops::lookup::{Lookup, Policy};
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
    accesses: u64,
    mismatches: u64,
    runs: Vec<parity::Agreement>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, out, date, rest @ ..] = &arguments[..] else {
        println!("usage: bench check|roofline|parity OUT.json DATE [pinned GiB [matrix TFLOP/s [group]]]");
        return ExitCode::from(2);
    };
    match run(what, out, date, rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(what: &str, out: &str, date: &str, rest: &[String]) -> Result<bool, HwError> {
    let device = Device::open()?;
    println!("{}", device.info());
    let pinned = rest.first().and_then(|gib| gib.parse().ok()).unwrap_or(32usize) << 30;
    match what {
        "check" => checks(&device, out, date),
        "roofline" => {
            let matrix_rate = rest.get(1).and_then(|rate| rate.parse().ok()).unwrap_or(f64::NAN);
            let table = roofline::run(&device, pinned, matrix_rate, rest.get(2).map(String::as_str))?;
            table.rows.iter().for_each(print_row);
            save(out, &Taken { device: device.info(), date, results: table });
            Ok(true)
        }
        _ => agreements(&device, out, date),
    }
}

fn checks(device: &Device, out: &str, date: &str) -> Result<bool, HwError> {
    let now = std::time::SystemTime::now();
    let seed = now.duration_since(std::time::UNIX_EPOCH).map_or(1, |age| age.as_secs());
    let findings = check::run(device, seed)?;
    for finding in &findings {
        let verdict = if finding.passes() { "ok   " } else { "WRONG" };
        println!("{verdict} {:<70} {:9.2e} <= {:.0e}", finding.case, finding.error, finding.allowed);
    }
    let passes = findings.iter().all(check::Finding::passes);
    save(out, &Taken { device: device.info(), date, results: Checks { findings } });
    Ok(passes)
}

fn agreements(device: &Device, out: &str, date: &str) -> Result<bool, HwError> {
    let lookup = Lookup::load(device)?;
    let scenarios = parity::scenarios();
    let mut runs = Vec::new();
    for (policy, scenario) in
        Policy::ALL.iter().flat_map(|&policy| scenarios.iter().map(move |s| (policy, s)))
    {
        let run = parity::run(device, &lookup, policy, scenario)?;
        let verdict = if run.holds() { "ok   " } else { "WRONG" };
        println!(
            "{verdict} {:<9}{:<40} accesses {:>9} misses {:>8} mismatches {} {} {}",
            run.policy,
            scenario.name,
            run.accesses,
            run.misses,
            run.mismatches,
            run.host_hash,
            run.device_hash
        );
        runs.push(run);
    }
    let holds = runs.iter().all(parity::Agreement::holds);
    let results = Parity {
        policies: Policy::ALL.iter().map(|policy| policy.name()).collect(),
        accesses: runs.iter().map(|run| run.accesses).sum(),
        mismatches: runs.iter().map(|run| run.mismatches).sum(),
        runs,
    };
    println!("{} accesses, {} mismatches", results.accesses, results.mismatches);
    save(out, &Taken { device: device.info(), date, results });
    Ok(holds)
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
