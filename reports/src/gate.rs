//! The regression gate: expected counts by kind of miss, committed beside the configuration that yields them.
//!
//! A baseline file is a configuration (with a grid) followed by one `[[expect]]` table per point. Everything up to the
//! first of them belongs to whoever wrote it and is kept to the letter when the expectations are rewritten.

use kvtier_sim::record::{Point, Status, Tally};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a baseline could not be read.
#[derive(Debug, Error)]
pub enum GateError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The expectations are not what they should be.
    #[error("{}: expect: {message}; `kvtier check FILE --bless` writes them anew", path.display())]
    Expect {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Expected counts of one point over the measured window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    point: String,
    accesses: u64,
    newest: u64,
    hits: u64,
    warm_hits: u64,
    cold: u64,
    capacity: u64,
    policy: i64,
    prefetches: u64,
    prefetched: u64,
    wasted: u64,
    pollution: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    warm_rejected: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    misses_cxl: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    misses_nvme: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    demoted: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    promoted: u64,
    decision_hash: String,
}

/// Counts of what most points do not use are left out where they are zero.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A baseline file.
#[derive(Clone, Debug)]
pub struct Baseline {
    config: String,
    expected: Vec<Expectation>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    #[serde(default)]
    expect: Vec<Expectation>,
}

const MARK: &str = "[[expect]]";

impl Baseline {
    /// Reads a baseline file.
    ///
    /// # Errors
    /// If it is missing, or its expectations have unknown or missing fields.
    pub fn read(path: &Path) -> Result<Baseline, GateError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| GateError::Read { path: path.into(), source })?;
        Baseline::parse(&text).map_err(|message| GateError::Expect { path: path.into(), message })
    }

    fn parse(text: &str) -> Result<Baseline, String> {
        let starts = |line: &&str| line.trim_start().starts_with(MARK);
        let config: Vec<&str> = text.lines().take_while(|line| !starts(line)).collect();
        let expected: Vec<&str> = text.lines().skip(config.len()).collect();
        let expected: Expectations =
            toml::from_str(&expected.join("\n")).map_err(|error| error.message().to_owned())?;
        Ok(Baseline { config: config.join("\n"), expected: expected.expect })
    }

    /// The configuration, as written.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The file with the counts of `points` as its expectations.
    pub fn blessed(&self, points: &[Point]) -> String {
        let expect = Expectations { expect: points.iter().map(Expectation::of).collect() };
        let expect = toml::to_string(&expect).expect("expectations are plain data");
        format!("{}\n\n{expect}", self.config.trim_end())
    }
}

impl Expectation {
    fn of(point: &Point) -> Expectation {
        let Tally { accesses, newest, hits, warm_hits, cold, capacity, policy, .. } = point.steady;
        let Tally { prefetches, prefetched, wasted, pollution, warm_rejected, .. } = point.steady;
        let Tally { misses_cxl, misses_nvme, demoted_cxl, demoted_nvme, promoted, .. } = point.steady;
        Expectation {
            point: label(point),
            accesses,
            newest,
            hits,
            warm_hits,
            cold,
            capacity,
            policy,
            prefetches,
            prefetched,
            wasted,
            pollution,
            warm_rejected,
            misses_cxl,
            misses_nvme,
            demoted: demoted_cxl + demoted_nvme,
            promoted,
            decision_hash: point.decision_hash.clone(),
        }
    }

    fn fields(&self) -> [(&'static str, String); 17] {
        [
            ("accesses", self.accesses.to_string()),
            ("newest", self.newest.to_string()),
            ("hits", self.hits.to_string()),
            ("warm_hits", self.warm_hits.to_string()),
            ("cold", self.cold.to_string()),
            ("capacity", self.capacity.to_string()),
            ("policy", self.policy.to_string()),
            ("prefetches", self.prefetches.to_string()),
            ("prefetched", self.prefetched.to_string()),
            ("wasted", self.wasted.to_string()),
            ("pollution", self.pollution.to_string()),
            ("warm_rejected", self.warm_rejected.to_string()),
            ("misses_cxl", self.misses_cxl.to_string()),
            ("misses_nvme", self.misses_nvme.to_string()),
            ("demoted", self.demoted.to_string()),
            ("promoted", self.promoted.to_string()),
            ("decision_hash", self.decision_hash.clone()),
        ]
    }
}

/// What tells the points of a baseline apart.
fn label(point: &Point) -> String {
    let config = &point.config;
    let mut label = format!(
        "{} {} C={} k={} requests={} {} {}",
        config.trace, config.policy, config.slots, config.k, config.concurrency, config.start, config.newest
    );
    if config.fold > 1 {
        label += &format!(" fold={}", config.fold);
    }
    if !config.mapping.is_empty() {
        label += &format!(" as {}", config.model);
    }
    if config.prefetch_budget > 0 {
        label += &format!(" {} x{}", config.prefetch, config.prefetch_budget);
    }
    if config.allocation != "uniform" {
        label += &format!(" {}", config.allocation);
    }
    if config.warm_frames > 0 {
        label += &format!(" warm={}", config.warm_frames);
    }
    if !config.demotion.is_empty() {
        label += &format!(" {} over {}", config.demotion, config.tiers);
    }
    if !["", "always"].contains(&config.admission.as_str()) {
        label += &format!(" {}", config.admission);
    }
    if let Status::Infeasible(reason) = &point.status {
        label += &format!(" (does not fit: {reason})");
    }
    label
}

/// One count that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    point: String,
    field: &'static str,
    expected: String,
    found: String,
}

/// Expected counts against found ones.
#[derive(Clone, Debug)]
pub struct Comparison {
    points: usize,
    differences: Vec<Difference>,
}

impl Comparison {
    /// Compares every count of every point; a point on one side only is a difference.
    pub fn new(baseline: &Baseline, points: &[Point]) -> Comparison {
        let found: Vec<Expectation> = points.iter().map(Expectation::of).collect();
        let mut differences = Vec::new();
        let mut note = |point: &str, field, expected: &str, found: &str| {
            let [point, expected, found] = [point, expected, found].map(str::to_owned);
            differences.push(Difference { point, field, expected, found });
        };
        for expected in &baseline.expected {
            match found.iter().find(|found| found.point == expected.point) {
                None => note(&expected.point, "point", "present", "absent"),
                Some(found) => {
                    for ((field, expected_value), (_, value)) in expected.fields().iter().zip(found.fields())
                    {
                        if *expected_value != value {
                            note(&expected.point, field, expected_value, &value);
                        }
                    }
                }
            }
        }
        for found in &found {
            if !baseline.expected.iter().any(|expected| expected.point == found.point) {
                note(&found.point, "point", "absent", "present");
            }
        }
        Comparison { points: found.len(), differences }
    }

    /// Whether every count is as expected.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Comparison {
    /// A verdict, and a table of the differences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.agrees() {
            return writeln!(f, "{} points, every count as expected", self.points);
        }
        let signed = |difference: &Difference| {
            let [expected, found] =
                [&difference.expected, &difference.found].map(|text| text.parse::<i128>());
            expected
                .and_then(|expected| found.map(|found| format!("{:+}", found - expected)))
                .unwrap_or_default()
        };
        let mut rows = vec![["point", "count", "expected", "found", "change"].map(str::to_owned)];
        rows.extend(
            self.differences.iter().map(|d| {
                [d.point.clone(), d.field.to_owned(), d.expected.clone(), d.found.clone(), signed(d)]
            }),
        );
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for row in &rows {
            let [point, field, numbers @ ..] = row;
            write!(f, "{point:<0$}  {field:<1$}", widths[0], widths[1])?;
            numbers.iter().zip(&widths[2..]).try_for_each(|(cell, &width)| write!(f, "  {cell:>width$}"))?;
            writeln!(f)?;
        }
        writeln!(f, "{} points, {} counts differ", self.points, self.differences.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvtier_sim::record::{Footprint, PointConfig, PointKind, TimeTally};

    fn point(policy: &str, cold: u64) -> Point {
        Point {
            id: policy.into(),
            kind: PointKind::Offload,
            status: Status::Ok,
            note: String::new(),
            config: PointConfig { policy: policy.into(), slots: 64, ..PointConfig::default() },
            steady: Tally { accesses: 100, hits: 100 - cold, misses: cold, cold, ..Tally::default() },
            whole: Tally::default(),
            footprint: Footprint::default(),
            time: TimeTally::default(),
            amplification_milli: 0,
            decision_hash: "ab".into(),
            layers: Vec::new(),
        }
    }

    const CONFIG: &str = "# mine\ntrace = 't'\n\n[grid]\n'hot.policy' = ['lru']";

    #[test]
    fn blessing_keeps_the_configuration_and_then_everything_agrees() {
        let baseline = Baseline::parse(CONFIG).unwrap();
        let points = [point("lru", 3), point("fifo", 5)];
        assert!(!Comparison::new(&baseline, &points).agrees(), "points without expectations are differences");
        let text = baseline.blessed(&points);
        assert!(text.starts_with(CONFIG));
        let again = Baseline::parse(&text).unwrap();
        assert!(Comparison::new(&again, &points).agrees());
        assert_eq!(again.blessed(&points), text, "blessing twice changes nothing");
    }

    #[test]
    fn one_edited_count_is_shown_with_its_change() {
        let text = Baseline::parse(CONFIG).unwrap().blessed(&[point("lru", 3)]);
        let edited = Baseline::parse(&text.replace("cold = 3", "cold = 4")).unwrap();
        let comparison = Comparison::new(&edited, &[point("lru", 3)]);
        assert!(!comparison.agrees());
        let table = comparison.to_string();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[row.len() - 4..], ["cold", "4", "3", "-1"], "{table}");
        assert!(table.ends_with("1 points, 1 counts differ\n"));
    }

    #[test]
    fn unknown_expectations_are_an_error() {
        assert!(Baseline::parse("a = 1\n[[expect]]\npoint = 'x'\n").unwrap_err().contains("accesses"));
    }
}
