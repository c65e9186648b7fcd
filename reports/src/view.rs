//! Views: which points may share a chart. A view is one workload (trace, model, machine, selection, window) under one
//! setting of everything but policy, slots and overlap, which are what its charts compare. Nothing else is ever mixed.

use crate::theme::BOUND;
use kvtier_sim::record::{Point, PointConfig, PointKind, Status};
use std::collections::BTreeSet;

/// Views that get charts; further ones stand in the table alone, and the page says so.
const MOST_CHARTED: usize = 24;

/// Settings that a label leaves out where the other one already tells them.
const IMPLIED: [(&str, &str); 4] = [
    ("trace hash", "trace"),
    ("prefetch budget", "prefetch"),
    ("near misses", "admission"),
    ("near misses", "prefetch"),
];

/// A named value of a configuration.
pub(crate) type Setting = (&'static str, String);

/// Points that one set of charts compares.
pub(crate) struct View<'a> {
    /// From one; the number is part of file names and anchors.
    pub number: usize,
    /// What sets it apart from the other views; empty where it is the only one.
    pub label: String,
    /// Whether it is the first of its workload.
    pub leads: bool,
    /// Points that ran, in input order.
    pub offload: Vec<&'a Point>,
    /// Points of the same workload under other settings, for throughput against memory.
    pub others: Vec<&'a Point>,
    /// Baselines of the workload that ran.
    pub baselines: Vec<&'a Point>,
    /// Baselines of the workload that did not fit.
    pub misfits: Vec<&'a Point>,
}

/// All views of a report.
pub(crate) struct Views<'a> {
    /// With charts.
    pub charted: Vec<View<'a>>,
    /// Labels of those beyond the number that gets charts.
    pub uncharted: Vec<String>,
}

/// Settings that make two points incomparable.
fn workload(config: &PointConfig) -> Vec<Setting> {
    vec![
        ("trace", config.trace.clone()),
        ("trace hash", config.trace_hash.clone()),
        ("model", config.model.clone()),
        ("mapping", config.mapping.clone()),
        ("machine", config.machine.clone()),
        ("k", config.k.to_string()),
        ("fold", config.fold.to_string()),
        ("newest", config.newest.clone()),
        ("steps", config.steps.to_string()),
        ("measured from", config.measure_from.to_string()),
    ]
}

/// Settings that one may choose for a workload, apart from policy, slots and overlap.
fn choices(config: &PointConfig) -> Vec<Setting> {
    vec![
        ("near misses", config.near.to_string()),
        ("start", config.start.clone()),
        ("allocation", config.allocation.clone()),
        ("warm frames", config.warm_frames.to_string()),
        ("admission", config.admission.clone()),
        ("demotion", config.demotion.clone()),
        ("tiers", config.tiers.clone()),
        ("prefetch", config.prefetch.clone()),
        ("prefetch budget", config.prefetch_budget.to_string()),
        ("transfer", config.transfer.clone()),
        ("requests", config.concurrency.to_string()),
        ("seed", config.seed.to_string()),
    ]
}

/// Every setting of a configuration, in the order in which the page lists them.
pub(crate) fn settings(config: &PointConfig) -> Vec<Setting> {
    let compared = [
        ("policy", config.policy.clone()),
        ("slots", config.slots.to_string()),
        ("overlap", config.overlap.clone()),
    ];
    workload(config).into_iter().chain(choices(config)).chain(compared).collect()
}

/// Whether a baseline speaks for a workload: equal in all that the baseline's configuration states.
fn speaks_for(baseline: &PointConfig, workload_of: &[Setting]) -> bool {
    workload(baseline)
        .iter()
        .zip(workload_of)
        .all(|(stated, wanted)| stated.1.is_empty() || stated.1 == "0" || stated.1 == wanted.1)
}

/// Whether a point ran.
pub(crate) fn ran(point: &Point) -> bool {
    point.status == Status::Ok
}

/// Sorts the points into views, in order of first appearance.
pub(crate) fn views(points: &[Point]) -> Views<'_> {
    type Key = (Vec<Setting>, Vec<Setting>);
    let key = |point: &Point| -> Key { (workload(&point.config), choices(&point.config)) };
    let mut keys: Vec<Key> = Vec::new();
    let mut seen = BTreeSet::new();
    for point in points.iter().filter(|point| point.kind == PointKind::Offload && ran(point)) {
        let key = key(point);
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        keys.extend(points.iter().find(|point| ran(point)).map(key));
    }
    let labels = labels(&keys);
    let charted = keys.iter().zip(&labels).take(MOST_CHARTED).enumerate().map(|(at, (key, label))| {
        let (offload, others) = points
            .iter()
            .filter(|point| {
                point.kind == PointKind::Offload && ran(point) && workload(&point.config) == key.0
            })
            .partition(|point| choices(&point.config) == key.1);
        let (baselines, misfits) = points
            .iter()
            .filter(|point| point.kind != PointKind::Offload && speaks_for(&point.config, &key.0))
            .partition(|point| ran(point));
        let leads = keys.iter().position(|other| other.0 == key.0) == Some(at);
        View { number: at + 1, label: label.clone(), leads, offload, others, baselines, misfits }
    });
    Views { charted: charted.collect(), uncharted: labels.iter().skip(MOST_CHARTED).cloned().collect() }
}

/// Names each view by the settings in which the views differ.
fn labels(keys: &[(Vec<Setting>, Vec<Setting>)]) -> Vec<String> {
    let flat: Vec<Vec<&Setting>> = keys.iter().map(|(a, b)| a.iter().chain(b).collect()).collect();
    let value = |key: &[&Setting], name: &str| {
        key.iter().find(|(known, _)| *known == name).map(|pair| pair.1.clone())
    };
    // Whether one setting follows from another, so that it says nothing new.
    let follows = |name: &str, from: &str| {
        let pairs: BTreeSet<_> = flat.iter().map(|key| (value(key, from), value(key, name))).collect();
        let causes: BTreeSet<_> = pairs.iter().map(|pair| &pair.0).collect();
        causes.len() == pairs.len()
    };
    let redundant =
        |name: &str| IMPLIED.iter().any(|(implied, from)| *implied == name && follows(implied, from));
    let differs = |at: usize| flat.iter().any(|key| key[at] != flat[0][at]) && !redundant(flat[0][at].0);
    let label = |key: &Vec<&Setting>| {
        let parts = key.iter().enumerate().filter(|(at, _)| differs(*at));
        parts.map(|(_, (name, value))| format!("{name} {}", shown(value))).collect::<Vec<_>>().join(" · ")
    };
    flat.iter().map(label).collect()
}

/// Overlap modes of some points, the plainest first.
pub(crate) fn overlaps<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<&'a str> {
    let modes: BTreeSet<&str> = points.map(|point| point.config.overlap.as_str()).collect();
    let mut modes: Vec<&str> = modes.into_iter().collect();
    let order = ["serial", "hit-first", "layer-ahead", "two-batch"];
    modes.sort_by_key(|mode| order.iter().position(|known| known == mode).unwrap_or(order.len()));
    modes
}

/// A value as text that can be seen even where it is empty.
pub(crate) fn shown(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

impl<'a> View<'a> {
    /// The settings of a point in which the points of this workload differ, policy, slots and overlap aside.
    pub(crate) fn chosen(&self, point: &Point) -> String {
        let of = |point: &Point| (Vec::new(), choices(&point.config));
        let mut keys = vec![of(point)];
        for other in self.offload.iter().chain(&self.others) {
            let key = of(other);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        labels(&keys).swap_remove(0)
    }

    /// Slots per buffer that occur, ascending.
    pub(crate) fn sizes(&self) -> Vec<u32> {
        self.offload.iter().map(|point| point.config.slots).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Policies that occur, by name.
    pub(crate) fn policies(&self) -> BTreeSet<&'a str> {
        self.offload.iter().map(|point| point.config.policy.as_str()).collect()
    }

    /// Overlap modes that occur, the plainest first.
    pub(crate) fn overlaps(&self) -> Vec<&'a str> {
        overlaps(self.offload.iter().copied())
    }

    /// The points that stand for the decisions of each (policy, slots), by policy name, then slots: the decisions do
    /// not depend on the overlap mode, so the first mode's point stands for all.
    pub(crate) fn decisions(&self) -> Vec<&'a Point> {
        let modes = self.overlaps();
        let mut points = self.offload.clone();
        let mode = |point: &Point| modes.iter().position(|mode| *mode == point.config.overlap);
        points.sort_by(|a, b| {
            let name = |point: &'a Point| (point.config.policy.as_str(), point.config.slots);
            (name(a), mode(a)).cmp(&(name(b), mode(b)))
        });
        points.dedup_by(|next, kept| {
            (&next.config.policy, next.config.slots) == (&kept.config.policy, kept.config.slots)
        });
        points
    }

    /// Whether points that differ in overlap alone differ in misses all the same.
    pub(crate) fn decisions_differ(&self) -> bool {
        let decisions = self.decisions();
        self.offload.iter().any(|point| {
            decisions.iter().any(|first| {
                (&first.config.policy, first.config.slots) == (&point.config.policy, point.config.slots)
                    && first.steady.misses != point.steady.misses
            })
        })
    }

    /// The decisions of one policy at one size.
    pub(crate) fn decision(&self, policy: &str, slots: u32) -> Option<&'a Point> {
        self.decisions()
            .into_iter()
            .find(|point| point.config.policy == policy && point.config.slots == slots)
    }

    /// The baseline of a kind to hold a number of requests against: with as many requests, or else the fastest.
    pub(crate) fn baseline(&self, kind: PointKind, requests: u32) -> Option<&'a Point> {
        let rivals =
            || self.baselines.iter().filter(|point| point.kind == kind && point.time.total_ns > 0).copied();
        let equal = rivals().find(|point| point.config.concurrency == requests);
        equal.or_else(|| rivals().max_by(|a, b| a.time.tokens_per_s().total_cmp(&b.time.tokens_per_s())))
    }

    /// The policies with the fewest misses per access at one size, the bound left aside; several where they tie.
    pub(crate) fn best(&self, slots: u32) -> Vec<&'a Point> {
        let decisions = self.decisions();
        let rivals =
            decisions.iter().filter(|point| point.config.slots == slots && point.config.policy != BOUND);
        let ratio = |point: &Point| point.steady.miss_ratio();
        let least = rivals.clone().map(|point| ratio(point)).min_by(f64::total_cmp);
        rivals.filter(|point| Some(ratio(point)) == least).copied().collect()
    }
}
