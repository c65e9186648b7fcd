//! A sweep: independent points over one trace or several, grouped so that a trace is decoded once and plans are decided
//! once for all points that share them. Finished points go to a log, so that a stopped sweep resumes.

use crate::config::RunConfig;
use crate::engine::{Decisions, Replay};
use crate::error::SimError;
use crate::grid::{ConfigFile, point_id};
use crate::overlap::Variant;
use crate::point;
use crate::pointlog::PointLog;
use crate::record::{Point, PointKind};
use crate::setup::{Blueprint, TraceIdentity};
use crate::timer::{Timer, time_config};
use crate::twin::{Twins, twin_key};
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_traces::{Future, Recording, View};
use kvtier_units::Bytes;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// A sweep that has been checked and is ready to run.
pub struct Sweep {
    /// The configuration it came from.
    pub file: ConfigFile,
    specs: Vec<Spec>,
    groups: Vec<Vec<usize>>,
    decoded: BTreeMap<DecodeKey, Shared<Recording>>,
    futures: BTreeMap<DecodeKey, Shared<Future>>,
    twins: Twins,
}

/// One point to be.
struct Spec {
    id: String,
    kind: PointKind,
    blueprint: Blueprint,
    /// Which decoded recording it replays.
    source: DecodeKey,
}

/// Trace, k, fold, newest as ordinary, near misses, scores: what decoding depends on.
type DecodeKey = (PathBuf, Option<u32>, u32, bool, u32, bool);

/// Something made once, by whichever thread needs it first.
type Shared<T> = OnceLock<Result<Arc<T>, String>>;

/// How a sweep is run.
pub struct Options<'a> {
    /// Threads.
    pub threads: usize,
    /// Memory for each decoded trace; beyond it rows go to a scratch file.
    pub memory: Bytes,
    /// Asked often; `true` stops the sweep with `SimError::Interrupted`.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told of every finished point.
    pub finished: &'a (dyn Fn(&Point) + Sync),
}

impl Sweep {
    /// Checks every point of a configuration before anything runs; the policies are this product's own.
    ///
    /// # Errors
    /// If any field of any point is wrong.
    pub fn plan(file: ConfigFile) -> Result<Sweep, SimError> {
        Sweep::plan_among(EVICTION, file)
    }

    /// The same with the eviction policies of `table`, which may hold some from another crate.
    ///
    /// # Errors
    /// As [`Sweep::plan`].
    pub fn plan_among(table: &[eviction::Entry], file: ConfigFile) -> Result<Sweep, SimError> {
        let mut traces: BTreeMap<PathBuf, TraceIdentity> = BTreeMap::new();
        let mut specs: Vec<Spec> = Vec::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for config in file.runs()? {
            if !traces.contains_key(&config.trace) {
                traces.insert(config.trace.clone(), TraceIdentity::read(&config.trace, file.folder())?);
            }
            let trace = &traces[&config.trace];
            let mut kinds = vec![(PointKind::Offload, config.clone())];
            if file.baselines {
                let baseline = point::baseline_config(&config);
                kinds.push((PointKind::Resident, baseline.clone()));
                kinds.push((PointKind::Dense, baseline));
            }
            for (kind, config) in kinds {
                let blueprint =
                    check(table, &config, trace).map_err(|error| error.in_file(file.path.as_deref()))?;
                let id = point_id(&blueprint.config, blueprint.trace_hash, point::kind_name(kind))?;
                if known.insert(id.clone()) {
                    let source = decode_key(&blueprint.config.trace, &blueprint.view);
                    specs.push(Spec { id, kind, blueprint, source });
                }
            }
        }
        share_decoding(&mut specs);
        let groups = group(&specs);
        let keys = || specs.iter().map(|spec| spec.source.clone());
        let decoded = keys().map(|key| (key, OnceLock::new())).collect();
        let futures = keys().map(|key| (key, OnceLock::new())).collect();
        let twins = Twins::of(
            specs.iter().filter(|spec| spec.kind == PointKind::Offload).map(|spec| &spec.blueprint),
        );
        Ok(Sweep { file, specs, groups, decoded, futures, twins })
    }

    /// Points of the sweep, baselines included.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is no point at all.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Runs what the log in `folder` does not hold yet, and returns all points in the order of the grid.
    ///
    /// # Errors
    /// If a point fails, the log cannot be written, or the user stops the sweep; finished points are in the log.
    pub fn execute(&self, folder: Option<&Path>, options: &Options<'_>) -> Result<Vec<Point>, SimError> {
        let log = folder.map(PointLog::open).transpose()?;
        let mut done: BTreeMap<String, Point> = log.as_ref().map(PointLog::points).unwrap_or_default();
        let wanted: BTreeSet<&String> = self.specs.iter().map(|spec| &spec.id).collect();
        done.retain(|id, _| wanted.contains(id));
        done.values().for_each(|point| (options.finished)(point));
        let fresh: Mutex<Vec<Point>> = Mutex::new(Vec::new());
        let log = Mutex::new(log);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads.max(1)).build();
        let pool = pool.map_err(|error| SimError::field("--threads", error.to_string()))?;
        let run = |members: &Vec<usize>| -> Result<(), SimError> {
            let open: Vec<&Spec> = members
                .iter()
                .map(|&at| &self.specs[at])
                .filter(|spec| !done.contains_key(&spec.id))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            let points = self.run_group(&open, options)?;
            if let Some(log) = log.lock().expect("no thread panics while it holds the log").as_mut() {
                log.append(&points)?;
            }
            points.iter().for_each(|point| (options.finished)(point));
            fresh.lock().expect("no thread panics while it holds the results").extend(points);
            Ok(())
        };
        pool.install(|| self.groups.par_iter().with_max_len(1).try_for_each(run))?;
        for point in fresh.into_inner().expect("no thread panicked") {
            done.insert(point.id.clone(), point);
        }
        let in_order = self.specs.iter().map(|spec| done.remove(&spec.id).expect("every point has run"));
        Ok(in_order.collect())
    }

    fn run_group(&self, members: &[&Spec], options: &Options<'_>) -> Result<Vec<Point>, SimError> {
        let first = members[0];
        let recording = self.recording(&first.source, options)?;
        let run = first.blueprint.lower(&recording)?;
        if first.kind != PointKind::Offload {
            return members
                .iter()
                .map(|spec| {
                    point::baseline(&spec.id, spec.kind, &spec.blueprint, &run, &recording, options.stop)
                })
                .collect();
        }
        let future = match first.blueprint.eviction.needs_future {
            true => Some(self.future(&first.source, &recording, options)?),
            false => None,
        };
        let mut timers: Vec<Timer> = members
            .iter()
            .map(|spec| Timer::new(&spec.blueprint, Variant::Offload, &run, &recording))
            .collect::<Result<_, SimError>>()?;
        let replay =
            Replay { run: &run, recording: &recording, future: future.as_deref(), stop: options.stop };
        let decisions = match replay.execute(&mut timers) {
            Err(SimError::Capacity { pool, message }) => {
                let reason = format!("{pool}: {message}");
                let infeasible =
                    |spec: &&Spec| point::infeasible(&spec.id, spec.kind, &spec.blueprint, &run, &reason);
                return Ok(members.iter().map(infeasible).collect());
            }
            other => other?,
        };
        let twin = self.twin(first, &recording, &decisions, options)?;
        let points = members.iter().zip(timers).map(|(spec, timer)| {
            let note = timer.note();
            let timed = (note.as_str(), timer.finish());
            point::offload(&spec.id, &spec.blueprint, &run, &recording, &decisions, &twin, timed)
        });
        Ok(points.collect())
    }

    /// Belady's decisions with the same buffers, which split misses into capacity and policy.
    fn twin(
        &self,
        spec: &Spec,
        recording: &Recording,
        decisions: &Decisions,
        options: &Options<'_>,
    ) -> Result<Arc<Decisions>, SimError> {
        if spec.blueprint.eviction.needs_future
            && twin_key(&spec.blueprint) == crate::twin::own_key(&spec.blueprint)
        {
            return Ok(Arc::new(decisions.clone()));
        }
        let future = self.future(&spec.source, recording, options)?;
        self.twins.decide(&spec.blueprint, recording, &future, options.stop)
    }

    fn recording(&self, key: &DecodeKey, options: &Options<'_>) -> Result<Arc<Recording>, SimError> {
        let (path, k, fold, ordinary, near, scores) = key;
        let newest =
            if *ordinary { kvtier_traces::Newest::Ordinary } else { kvtier_traces::Newest::Reserved };
        let view = View { k: *k, near: *near, fold: *fold, newest, scores: *scores };
        make_once(&self.decoded[key], || Ok(Recording::decode(path, &view, options.memory)?))
    }

    fn future(
        &self,
        key: &DecodeKey,
        recording: &Recording,
        options: &Options<'_>,
    ) -> Result<Arc<Future>, SimError> {
        make_once(&self.futures[key], || Ok(Future::build(recording, options.memory)?))
    }
}

/// A blueprint that can run as far as can be known without reading the trace.
pub(crate) fn check(
    table: &[eviction::Entry],
    config: &RunConfig,
    trace: &TraceIdentity,
) -> Result<Blueprint, SimError> {
    let blueprint = Blueprint::among(table, config, trace)?;
    blueprint.check(trace)?;
    time_config(&blueprint, Variant::Offload, Bytes::ZERO)?;
    Ok(blueprint)
}

fn make_once<T>(cell: &Shared<T>, make: impl FnOnce() -> Result<T, SimError>) -> Result<Arc<T>, SimError> {
    let made = cell.get_or_init(|| make().map(Arc::new).map_err(|error| error.to_string()));
    made.clone().map_err(SimError::Shared)
}

fn decode_key(path: &Path, view: &View) -> DecodeKey {
    let ordinary = view.newest == kvtier_traces::Newest::Ordinary;
    (path.into(), view.k, view.fold, ordinary, view.near, view.scores)
}

/// Points that read no near misses or no scores replay the recording of those that do, so that it is decoded once.
fn share_decoding(specs: &mut [Spec]) {
    let keys: BTreeSet<DecodeKey> = specs.iter().map(|spec| spec.source.clone()).collect();
    let serves = |rich: &DecodeKey, poor: &DecodeKey| {
        (&rich.0, rich.1, rich.2, rich.3) == (&poor.0, poor.1, poor.2, poor.3)
            && (rich.4 == poor.4 || poor.4 == 0)
            && (rich.5 || !poor.5)
    };
    for spec in specs {
        let richest = keys.iter().rev().find(|rich| serves(rich, &spec.source));
        spec.source = richest.expect("a key serves itself").clone();
    }
}

/// Points that decide alike, in order of first appearance: they differ in how time is modelled, not in what is decided.
fn group(specs: &[Spec]) -> Vec<Vec<usize>> {
    let mut keys: BTreeMap<(PointKind, String), usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        let key = (spec.kind, crate::twin::own_key(&spec.blueprint));
        let group = *keys.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(at);
    }
    groups
}
