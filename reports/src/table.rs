//! The table of all points: one row each, columns for what differs between them, and what is the same in all.

use crate::figures::{bytes, mean_step_ns, percent, rate, ratio, time};
use crate::view::{Setting, ran, settings, shown};
use kvtier_sim::record::{Point, PointKind, Status};
use serde::Serialize;
use std::collections::BTreeSet;

/// Columns with more values than this are searched by text, not chosen from a list.
const MOST_CHOICES: usize = 24;
/// Settings that have a column even where all points agree.
const ALWAYS: [&str; 3] = ["policy", "slots", "overlap"];
/// Settings compared as numbers.
const NUMERIC: [&str; 10] = [
    "slots",
    "k",
    "near misses",
    "fold",
    "warm frames",
    "prefetch budget",
    "requests",
    "steps",
    "measured from",
    "seed",
];

/// A column head.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Column {
    /// Name, with its unit where the cells have none.
    pub name: String,
    /// What it means.
    pub help: &'static str,
    /// Whether it sorts by number.
    pub numeric: bool,
    /// Values to choose from; empty where there is nothing to choose.
    pub choices: Vec<String>,
}

/// A cell: what it shows and what it sorts by.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    /// Shown text.
    pub text: String,
    /// Sort key: a number in a numeric column, else the text.
    pub key: String,
}

/// The whole table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// Column heads.
    pub columns: Vec<Column>,
    /// Rows in input order, one cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// Settings on which all points agree.
    pub constant: Vec<Setting>,
}

type Measure = (&'static str, &'static str, fn(&Point) -> Option<(String, f64)>);

/// Measured columns, in order: name, meaning, value.
const MEASURES: [Measure; 19] = [
    ("miss", "misses per selected block", |p| missed(p, p.steady.miss_ratio())),
    ("cold", "misses on blocks never yet in HBM", |p| missed(p, ratio(p.steady.cold, p.steady.accesses))),
    ("capacity", "misses that Belady also takes", |p| missed(p, ratio(p.steady.capacity, p.steady.accesses))),
    ("avoidable", "misses that Belady avoids; negative where it was beaten", |p| {
        let size = ratio(p.steady.policy.unsigned_abs(), p.steady.accesses);
        missed(p, if p.steady.policy < 0 { -size } else { size })
    }),
    ("warm hits", "found among the warm pages", |p| missed(p, ratio(p.steady.warm_hits, p.steady.accesses))),
    ("turned away", "of the blocks that left a hot buffer, those that did not enter the warm pages", |p| {
        let left = p.steady.warm_insertions + p.steady.warm_rejected;
        missed(p, ratio(p.steady.warm_rejected, left.max(1)))
    }),
    ("from below", "misses brought from CXL or NVMe", |p| {
        missed(p, ratio(p.steady.misses_cxl + p.steady.misses_nvme, p.steady.accesses))
    }),
    ("step", "mean time of a decode step", |p| timed(p, time(mean_step_ns(p)), mean_step_ns(p) as f64)),
    ("p99 step", "99th percentile of the step times", |p| {
        timed(p, time(p.time.step_p99_ns), p.time.step_p99_ns as f64)
    }),
    ("stall", "share of the time in which attention waits for misses", |p| {
        let share = ratio(p.time.stall_ns, p.time.total_ns);
        timed(p, percent(share), share)
    }),
    ("tokens/s", "decoded tokens per simulated second", |p| {
        timed(p, rate(p.time.tokens_per_s()), p.time.tokens_per_s())
    }),
    ("HBM", "HBM in use", |p| sized(p.footprint.hbm_total)),
    ("host", "host memory in use", |p| sized(p.footprint.host)),
    ("moved in", "bytes from host to device in the window", |p| {
        timed(p, bytes(p.time.h2d_bytes), p.time.h2d_bytes as f64)
    }),
    ("read below", "bytes read from CXL and NVMe in the window", |p| {
        let read = p.time.cxl_read_bytes + p.time.nvme_read_bytes;
        timed(p, bytes(read), read as f64)
    }),
    ("written below", "bytes written to CXL and NVMe in the window", |p| {
        let written = p.time.cxl_write_bytes + p.time.nvme_write_bytes;
        timed(p, bytes(written), written as f64)
    }),
    ("late moves", "blocks whose move to a lower tier outlasted the step that began it", |p| {
        timed(p, p.time.late_moves.to_string(), p.time.late_moves as f64)
    }),
    ("link busy", "share of the time in which the host-to-device link carried anything", |p| {
        let share = ratio(p.time.h2d_busy_ns, p.time.total_ns);
        timed(p, percent(share), share)
    }),
    ("amplification", "bytes moved / bytes selected", |p| {
        let value = p.amplification_milli as f64 / 1000.0;
        missed(p, value).map(|_| (format!("{value:.3}"), value))
    }),
];

/// A ratio of a point that has decisions.
fn missed(point: &Point, value: f64) -> Option<(String, f64)> {
    (ran(point) && point.steady.accesses > 0).then(|| (percent(value), value))
}

/// A value of a point that took time.
fn timed(point: &Point, text: String, value: f64) -> Option<(String, f64)> {
    (ran(point) && point.time.total_ns > 0).then_some((text, value))
}

fn sized(value: u64) -> Option<(String, f64)> {
    (value > 0).then(|| (bytes(value), value as f64))
}

/// A point's kind in a word.
fn kind(point: &Point) -> &'static str {
    match point.kind {
        PointKind::Offload => "offload",
        PointKind::Resident => "all in HBM",
        PointKind::Dense => "dense",
    }
}

/// Builds the table of some points, at least one.
pub(crate) fn table(points: &[Point]) -> Table {
    let all: Vec<Vec<Setting>> = points.iter().map(|point| settings(&point.config)).collect();
    let offload =
        || points.iter().zip(&all).filter(|(point, _)| point.kind == PointKind::Offload).map(|row| row.1);
    // Baselines leave settings open; they do not make a setting differ.
    let judged: Vec<&Vec<Setting>> =
        if offload().next().is_some() { offload().collect() } else { all.iter().collect() };
    let varies = |at: usize| judged.iter().any(|row| row[at].1 != judged[0][at].1);
    let names: Vec<&str> = all[0].iter().map(|setting| setting.0).collect();
    let (mut columns, mut rows) = (vec![text_column("kind", "offload, or a baseline")], Vec::new());
    // Policy, slots and overlap come first.
    let mut order: Vec<usize> =
        (0..names.len()).filter(|at| varies(*at) || ALWAYS.contains(&names[*at])).collect();
    order.sort_by_key(|at| (ALWAYS.iter().position(|name| *name == names[*at]).unwrap_or(ALWAYS.len()), *at));
    columns.extend(order.iter().map(|at| Column {
        name: names[*at].to_owned(),
        help: "setting",
        numeric: NUMERIC.contains(&names[*at]),
        choices: Vec::new(),
    }));
    // A measure that is nothing or zero everywhere says nothing, except the first: no misses is news.
    let tells = |value: fn(&Point) -> Option<(String, f64)>| {
        points.iter().any(|point| value(point).is_some_and(|(_, number)| number != 0.0))
    };
    let measures: Vec<&Measure> = MEASURES
        .iter()
        .enumerate()
        .filter(|(at, measure)| *at == 0 || tells(measure.2))
        .map(|pair| pair.1)
        .collect();
    columns.extend(measures.iter().map(|(name, help, _)| Column {
        name: (*name).to_owned(),
        help,
        numeric: true,
        choices: Vec::new(),
    }));
    let last = [
        ("status", "whether it ran"),
        ("decision hash", "hash of the decision log: equal where the decisions are"),
        ("point", "address: hash of the full configuration and the trace"),
    ];
    columns.extend(last.map(|(name, help)| text_column(name, help)));
    for (point, values) in points.iter().zip(&all) {
        let mut row = vec![text_cell(kind(point))];
        row.extend(order.iter().map(|at| text_cell(&values[*at].1)));
        row.extend(measures.iter().map(|(_, _, value)| match value(point) {
            Some((text, key)) => Cell { text, key: key.to_string() },
            None => Cell { text: "-".to_owned(), key: String::new() },
        }));
        let status = if point.status == Status::Ok { "ok" } else { "infeasible" };
        row.extend([status, &point.decision_hash, &point.id].map(text_cell));
        rows.push(row);
    }
    offer_choices(&mut columns, &rows, 1 + order.len());
    let constant = (0..names.len()).filter(|at| !order.contains(at)).map(|at| {
        let (name, value) = &judged[0][at];
        (*name, shown(value).to_owned())
    });
    Table { columns, rows, constant: constant.collect() }
}

fn text_column(name: &str, help: &'static str) -> Column {
    Column { name: name.to_owned(), help, numeric: false, choices: Vec::new() }
}

fn text_cell(text: &str) -> Cell {
    Cell { text: if text.is_empty() { "-".to_owned() } else { text.to_owned() }, key: text.to_owned() }
}

/// Lists the values of the first columns, and of the status, where there are a few to choose from.
fn offer_choices(columns: &mut [Column], rows: &[Vec<Cell>], settings: usize) {
    for (at, column) in columns.iter_mut().enumerate() {
        if at >= settings && column.name != "status" {
            continue;
        }
        let mut values: Vec<&Cell> = rows.iter().map(|row| &row[at]).collect();
        let number = |cell: &Cell| cell.key.parse::<u64>().unwrap_or(u64::MAX);
        values.sort_by(|a, b| number(a).cmp(&number(b)).then(a.text.cmp(&b.text)));
        let mut seen = BTreeSet::new();
        let texts: Vec<String> =
            values.into_iter().filter(|cell| seen.insert(&cell.text)).map(|cell| cell.text.clone()).collect();
        if (2..=MOST_CHOICES).contains(&texts.len()) {
            column.choices = texts;
        }
    }
}
