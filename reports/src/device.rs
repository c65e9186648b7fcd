//! The page of what was measured on a device: parity with the decision plane, kernels against their yardsticks, whole
//! replays beside the simulator. It reads the JSON that the device's commands write, and needs no device.

mod results;

use crate::theme;
use minijinja::value::Value as Inline;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use std::collections::BTreeMap;

pub use results::{Checks, Device, Parity, ParityRun, Replays, Roofline, Taken};

const TEMPLATE: &str = include_str!("page/device.html");
const STYLE: &str = include_str!("page/page.css");

/// The files of a results folder, as many as there are.
#[derive(Clone, Debug, Default)]
pub struct DeviceInput {
    /// parity.json
    pub parity: Option<Taken<Parity>>,
    /// roofline.json
    pub roofline: Option<Taken<Roofline>>,
    /// check.json
    pub checks: Option<Taken<Checks>>,
    /// replays.json
    pub replays: Option<Taken<Replays>>,
}

impl DeviceInput {
    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.parity.is_none() && self.roofline.is_none() && self.checks.is_none() && self.replays.is_none()
    }
}

/// A table as the template wants it: headings with whether they are numbers, and rows.
#[derive(Debug, Default, Serialize)]
struct Table {
    title: String,
    note: String,
    head: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

/// All that the template shows.
#[derive(Serialize)]
struct Page {
    tables: Vec<Table>,
    style: Inline,
}

/// Sums over the runs of one policy.
#[derive(Default)]
struct Sums {
    managed: String,
    runs: u64,
    equal: u64,
    counts: [u64; 6],
    mismatches: u64,
    bytes: u64,
    wrong_bytes: u64,
}

/// The page as HTML text.
pub fn device_page(input: &DeviceInput) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("device.html", TEMPLATE).expect("the compiled-in template parses");
    let template = environment.get_template("device.html").expect("it was just added");
    let mut tables = Vec::new();
    tables.extend(input.parity.as_ref().map(parity_table));
    tables.extend(input.replays.as_ref().map(replay_table));
    tables.extend(input.roofline.as_ref().map(|taken| goal_table(taken, true)));
    tables.extend(input.roofline.as_ref().map(|taken| goal_table(taken, false)));
    tables.extend(input.checks.as_ref().map(check_table));
    let style = Inline::from_safe_string(format!("{}{STYLE}", theme::css()));
    template
        .render(minijinja::value::Value::from(minijinja::value::Serde(Page { tables, style })))
        .expect("the template asks for nothing that is not there")
}

fn taken<T>(of: &Taken<T>) -> String {
    let driver = of.device.driver.as_deref().unwrap_or("unknown");
    let link = of.device.pcie.as_deref().unwrap_or("link unknown");
    format!("{}, {link}, driver {driver}, {}", of.device.name, of.date)
}

fn head(names: &[&str]) -> Vec<(String, bool)> {
    // Texts carry a trailing blank, numbers do not.
    names.iter().map(|name| (name.trim_end().to_owned(), !name.ends_with(' '))).collect()
}

fn parity_table(of: &Taken<Parity>) -> Table {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for run in of.results.synthetic.iter().chain(&of.results.recorded) {
        let sum = sums.entry(&run.policy).or_default();
        let by = if run.managed == "host" { "host" } else { "device" };
        sum.managed = if sum.runs == 0 || sum.managed == by { by } else { "either" }.into();
        sum.runs += 1;
        sum.equal += u64::from(run.host_hash == run.device_hash);
        let counts = [run.accesses, run.misses, run.prefetches, run.warm_hits, run.grown, run.ended];
        sum.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        sum.mismatches += run.mismatches;
        sum.bytes += run.integrity.as_ref().map_or(0, |found| found.bytes);
        sum.wrong_bytes += run.integrity.as_ref().map_or(0, |found| found.wrong_bytes);
    }
    let rows = sums.iter().map(|(policy, sum)| {
        let equal = format!("{} of {}", sum.equal, sum.runs);
        let mut row = vec![(*policy).to_owned(), sum.managed.clone(), equal, sum.mismatches.to_string()];
        row.push(format!("{} of {}", grouped(sum.wrong_bytes), grouped(sum.bytes)));
        row.extend(sum.counts.iter().map(|count| grouped(*count)));
        row
    });
    Table {
        title: "Parity: the device's decisions against the decision plane's".into(),
        note: format!(
            "{} accesses, {} mismatches. {}",
            grouped(of.results.accesses),
            of.results.mismatches,
            taken(of)
        ),
        head: head(&[
            "policy ",
            "decided by ",
            "hashes equal",
            "mismatches",
            "bytes out of place",
            "accesses",
            "misses",
            "prefetched",
            "warm hits",
            "grown",
            "requests ended",
        ]),
        rows: rows.collect(),
    }
}

fn replay_table(of: &Taken<Replays>) -> Table {
    let micros = |ns: u64| format!("{:.2} ms", ns as f64 / 1e6);
    let rows = of.results.replays.iter().map(|replay| {
        let ratio = replay.modelled.total_ns as f64 / replay.measured.total_ns.max(1) as f64;
        vec![
            replay.model.clone(),
            replay.policy.clone(),
            replay.concurrency.to_string(),
            micros(replay.measured.step_p50_ns),
            micros(replay.modelled.step_p50_ns),
            format!("{ratio:.3}"),
            format!("{:.2}%", replay.spread_percent),
            replay.overlap.clone(),
            replay.transfer.clone(),
            replay.prefetch.clone(),
            replay.weights.clone(),
            replay.managed.clone(),
            replay.mismatches.to_string(),
            replay.wrong_bytes.to_string(),
            replay.command.clone(),
        ]
    });
    Table {
        title: "Whole steps: measured, and as the simulator times the same plans".into(),
        note: taken(of),
        head: head(&[
            "model ",
            "policy ",
            "requests",
            "step p50",
            "modelled",
            "modelled / measured",
            "spread",
            "overlap ",
            "transfer ",
            "prefetch ",
            "weights ",
            "decided by ",
            "mismatches",
            "bytes wrong",
            "command ",
        ]),
        rows: rows.collect(),
    }
}

/// What one looks for stands first: a narrow screen shows the beginning of a row.
fn goal_table(of: &Taken<Roofline>, goals: bool) -> Table {
    let chosen = || of.results.rows.iter().filter(|row| row.goal.is_some() == goals);
    let rows = chosen().map(|row| {
        let mut cells = vec![row.kernel.clone()];
        if let Some(goal) = row.goal {
            cells.push(if row.is_met() { "met" } else { "missed" }.into());
            cells.push(format!("{goal:.2}"));
        }
        cells.extend([
            format!("{:.3}", row.ratio),
            row.shape.clone(),
            format!("{:.1} {}", row.achieved, row.unit),
            format!("{:.1}", row.reference),
            row.against.clone(),
        ]);
        cells
    });
    let verdict = if goals { &["verdict ", "goal"][..] } else { &[] };
    let names = [&["kernel "], verdict, &["ratio", "shape ", "reached", "yardstick", "against "]].concat();
    let (title, note) = if goals {
        let met = chosen().filter(|row| row.is_met()).count();
        let note = format!("{met} of {} goals met. {}", chosen().count(), taken(of));
        ("Roofline: kernels with a goal", note)
    } else {
        ("Roofline: the other rows", taken(of))
    };
    Table { title: title.into(), note, head: head(&names), rows: rows.collect() }
}

fn check_table(of: &Taken<Checks>) -> Table {
    let passed = of.results.findings.iter().filter(|found| found.error <= found.allowed).count();
    let rows = of.results.findings.iter().map(|found| {
        vec![found.case.clone(), format!("{:.1e}", found.error), format!("{:.0e}", found.allowed)]
    });
    Table {
        title: "Checks: kernels against references in double precision".into(),
        note: format!("{passed} of {} within what is allowed. {}", of.results.findings.len(), taken(of)),
        head: head(&["case ", "error", "allowed"]),
        rows: rows.collect(),
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_and_texts_escaped() {
        assert_eq!([7, 1234, 1_234_567].map(grouped), ["7", "1,234", "1,234,567"]);
        let text = r#"{"device":{"name":"<H>","driver":"1","pcie":null},"date":"d","accesses":1000,"mismatches":0,"recorded":[],
            "synthetic":[{"policy":"lru","accesses":1000,"misses":1,"prefetches":0,"grown":0,"ended":0,"mismatches":0,
            "host_hash":"a","device_hash":"a"}]}"#;
        let parity = serde_json::from_str(text).unwrap();
        let page = device_page(&DeviceInput { parity: Some(parity), ..DeviceInput::default() });
        assert!(
            page.contains("&lt;H&gt;") && page.contains("<td>1 of 1</td>") || page.contains(">1 of 1<"),
            "{page}"
        );
        assert!(page.contains("1,000 accesses, 0 mismatches"));
    }

    #[test]
    fn goals_are_counted_and_judged() {
        let row = |kernel: &str, ratio: f64, goal: &str| {
            format!(
                r#"{{"kernel":"{kernel}","shape":"s","achieved":1,"unit":"us","against":"a","reference":1,"ratio":{ratio},"goal":{goal}}}"#
            )
        };
        let rows = [row("near", 0.949, "0.95"), row("at", 0.95, "0.95"), row("free", 0.1, "null")].join(",");
        let text = format!(r#"{{"device":{{"name":"H","driver":null,"pcie":null}},"rows":[{rows}]}}"#);
        let roofline = serde_json::from_str(&text).unwrap();
        let page = device_page(&DeviceInput { roofline: Some(roofline), ..DeviceInput::default() });
        assert!(page.contains("1 of 2 goals met"), "{page}");
        assert!(page.contains("<td>near</td><td>missed</td>") && page.contains("<td>at</td><td>met</td>"));
        assert!(page.contains("<td>free</td><td class=\"num\">0.100</td>"));
    }
}
