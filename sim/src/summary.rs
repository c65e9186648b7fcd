//! The summary of a sweep: what it was, and the figures one would quote, as stable JSON.

use crate::record::{Point, PointKind, Status};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the sweep.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// The configuration, grid and all, as TOML.
    pub config: String,
    /// Traces by file name, with their hashes.
    pub traces: BTreeMap<String, String>,
    /// Points, baselines included.
    pub points: usize,
    /// Points that do not fit the machine.
    pub infeasible: usize,
    /// Things the reader must know: mappings, modes that could not do what their name says.
    pub notes: Vec<String>,
    /// Per trace, model, k and slots: misses of every policy over the measured window.
    pub misses: Vec<MissRow>,
}

/// Misses with one buffer size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MissRow {
    /// Trace file name.
    pub trace: String,
    /// Model preset.
    pub model: String,
    /// Blocks per selection.
    pub k: u32,
    /// Slots per hot buffer.
    pub slots: u32,
    /// Blocks selected.
    pub accesses: u64,
    /// Misses by policy, demand-only points without warm pages.
    pub by_policy: BTreeMap<String, u64>,
}

/// Sums up the points of a sweep.
pub fn summarise(name: &str, config: &str, points: &[Point]) -> Summary {
    let mut notes = BTreeSet::new();
    let mut rows: BTreeMap<(String, String, u32, u32), MissRow> = BTreeMap::new();
    for point in points {
        notes.extend(
            [&point.note, &point.config.mapping].into_iter().filter(|note| !note.is_empty()).cloned(),
        );
        let config = &point.config;
        let plain = config.prefetch == "none" && config.warm_frames == 0 && point.kind == PointKind::Offload;
        if point.status != Status::Ok || !plain {
            continue;
        }
        let key = (config.trace.clone(), config.model.clone(), config.k, config.slots);
        let row = rows.entry(key).or_insert_with(|| MissRow {
            trace: config.trace.clone(),
            model: config.model.clone(),
            k: config.k,
            slots: config.slots,
            accesses: point.steady.accesses,
            by_policy: BTreeMap::new(),
        });
        row.by_policy.insert(config.policy.clone(), point.steady.misses);
    }
    Summary {
        name: name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        config: config.into(),
        traces: points.iter().map(|p| (p.config.trace.clone(), p.config.trace_hash.clone())).collect(),
        points: points.len(),
        infeasible: points.iter().filter(|point| point.status != Status::Ok).count(),
        notes: notes.into_iter().collect(),
        misses: rows.into_values().collect(),
    }
}
