//! Runs the checks, the roofline or the parity scenarios on this machine's device and writes them as JSON:
//! `bench check|roofline|probe|parity OUT.json`.

#![allow(clippy::print_stdout)] // A program, not a library.
#![allow(clippy::disallowed_methods)] // Every check draws fresh inputs.

use kvtier_hw::ops::lookup::{Lookup, Policy};
use kvtier_hw::{Device, HwError, check, parity, probe, roofline};
use serde::Serialize;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, out, rest @ ..] = &arguments[..] else {
        println!("usage: bench check|roofline|probe|parity OUT.json [pinned GiB [matrix TFLOP/s [group]]]");
        return ExitCode::from(2);
    };
    match run(what, out, rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(what: &str, out: &str, rest: &[String]) -> Result<bool, HwError> {
    let device = Device::open()?;
    println!("{}", device.info());
    match what {
        "check" => {
            let seed = std::time::SystemTime::now();
            let seed = seed.duration_since(std::time::UNIX_EPOCH).map_or(1, |age| age.as_secs());
            let findings = check::run(&device, seed)?;
            for finding in &findings {
                let verdict = if finding.passes() { "ok   " } else { "WRONG" };
                println!("{verdict} {:<70} {:9.2e} <= {:.0e}", finding.case, finding.error, finding.allowed);
            }
            save(out, &findings);
            Ok(findings.iter().all(check::Finding::passes))
        }
        "roofline" => {
            let gib = rest.first().and_then(|gib| gib.parse().ok()).unwrap_or(32usize);
            let matrix_rate = rest.get(1).and_then(|rate| rate.parse().ok()).unwrap_or(f64::NAN);
            let table = roofline::run(&device, gib << 30, matrix_rate, rest.get(2).map(String::as_str))?;
            println!("{:?}", table.ceilings);
            for row in &table.rows {
                let goal = row.goal.map_or(String::new(), |goal| format!("goal {goal:.2}"));
                println!(
                    "{:<17}{:<75}{:9.2} {:<5}{:6.3} of {:9.2} {} {goal}",
                    row.kernel, row.shape, row.achieved, row.unit, row.ratio, row.reference, row.against
                );
            }
            save(out, &table);
            Ok(true)
        }
        "probe" => {
            let gib = rest.first().and_then(|gib| gib.parse().ok()).unwrap_or(32usize);
            let probe = probe::run(&device, gib << 30)?;
            std::fs::write(format!("{out}.csv"), probe.csv()).expect("the output file can be written");
            println!("probe took {} ms, {} rows", probe.took_ms, probe.rows.len());
            save(out, &probe);
            Ok(true)
        }
        _ => {
            let lookup = Lookup::load(&device)?;
            let mut all = Vec::new();
            let scenarios = parity::scenarios();
            let runs = Policy::ALL
                .iter()
                .flat_map(|&policy| scenarios.iter().map(move |scenario| (policy, scenario)));
            for (policy, scenario) in runs {
                let agreement = parity::run(&device, &lookup, policy, scenario)?;
                let verdict = if agreement.holds() { "ok   " } else { "WRONG" };
                println!(
                    "{verdict} {:<9}{:<40} accesses {:>10} misses {:>9} mismatches {} {} {}",
                    policy.name(),
                    scenario.name,
                    agreement.accesses,
                    agreement.misses,
                    agreement.mismatches,
                    agreement.host_hash,
                    agreement.device_hash
                );
                all.push(agreement);
            }
            save(out, &all);
            Ok(all.iter().all(parity::Agreement::holds))
        }
    }
}

fn save<T: Serialize>(out: &str, value: &T) {
    let text = serde_json::to_string_pretty(value).expect("plain data becomes JSON");
    std::fs::write(out, text).expect("the output file can be written");
}
