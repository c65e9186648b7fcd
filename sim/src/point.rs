//! Points: a run's decisions, memory and time, put together into its record; and the baselines beside it.

use crate::baseline;
use crate::batch::{BatchBuffers, BatchStep};
use crate::config::{
    DemotionConfig, HotConfig, PrefetchConfig, RunConfig, TierPool, TimeSettings, WarmConfig,
};
use crate::engine::Decisions;
use crate::error::SimError;
use crate::overlap::Variant;
use crate::record::{Footprint, Point, PointConfig, PointKind, Status, Tally, TimeTally};
use crate::setup::{Blueprint, Run};
use crate::timer::Timer;
use crate::work::{LayerWork, Movement, StepWork};
use kvtier_policies::{Counts, Schedule, Start};
use kvtier_traces::{Newest, Recording};
use kvtier_units::Bytes;

/// The name of a kind in ids.
pub(crate) fn kind_name(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Offload => "offload",
        PointKind::Resident => "resident",
        PointKind::Dense => "dense",
    }
}

/// The configuration of a point's baselines: nothing of hot buffers, warm pages, prefetch and overlap matters to them.
pub(crate) fn baseline_config(config: &RunConfig) -> RunConfig {
    RunConfig {
        hot: HotConfig::default(),
        warm: WarmConfig::default(),
        cxl: TierPool::default(),
        nvme: TierPool::default(),
        demotion: DemotionConfig::default(),
        prefetch: PrefetchConfig::default(),
        time: TimeSettings { launch: config.time.launch.clone(), ..TimeSettings::default() },
        ..config.clone()
    }
}

/// An offload point that ran.
pub(crate) fn offload(
    id: &str,
    blueprint: &Blueprint,
    run: &Run,
    recording: &Recording,
    decisions: &Decisions,
    twin: &Decisions,
    (note, time): (&str, TimeTally),
) -> Point {
    let footprint = offload_footprint(blueprint, run, decisions);
    let moved = decisions.steady.misses + decisions.steady.prefetches + decisions.steady.admitted;
    let fold = u64::from(recording.view().fold);
    let mut point = Point {
        steady: tally(&decisions.steady, &twin.steady),
        whole: tally(&decisions.whole, &twin.whole),
        footprint,
        time: TimeTally::default(),
        amplification_milli: moved * fold * 1000 / decisions.raw_entries.max(1),
        decision_hash: format!("{:016x}", decisions.hash),
        layers: decisions.layers.clone(),
        ..blank(id, PointKind::Offload, blueprint, run)
    };
    match over_capacity(&footprint, "lower hot.slots, warm.size or batch.concurrency") {
        Some(reason) => point.status = Status::Infeasible(reason),
        None => {
            point.note = note.into();
            point.time = time;
        }
    }
    point
}

/// A point that cannot run.
pub(crate) fn infeasible(id: &str, kind: PointKind, blueprint: &Blueprint, run: &Run, reason: &str) -> Point {
    Point { status: Status::Infeasible(reason.into()), ..blank(id, kind, blueprint, run) }
}

/// A baseline: the whole cache in HBM, with as many of the batch's requests as fit there.
pub(crate) fn baseline(
    id: &str,
    kind: PointKind,
    blueprint: &Blueprint,
    run: &Run,
    recording: &Recording,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Point, SimError> {
    let (variant, selects) =
        if kind == PointKind::Dense { (Variant::Dense, false) } else { (Variant::Resident, true) };
    let (machine, model) = (&blueprint.machine, &blueprint.model);
    let longest = |&request: &u32| {
        let request = &recording.requests()[request as usize];
        u64::from(request.prompt_entries) + u64::from(request.output_steps)
    };
    let contexts: Vec<u64> = blueprint.requests.iter().map(longest).collect();
    let footprint = |seats: u32| {
        let seated: Vec<u64> = contexts.iter().copied().cycle().take(seats as usize).collect();
        baseline::resident_footprint(machine, model, &seated, selects)
    };
    // The most seats that fit: another one never takes less.
    let (mut seats, mut too_many) = (0, run.concurrency + 1);
    while too_many - seats > 1 {
        let middle = seats.midpoint(too_many);
        let footprint = footprint(middle);
        let fits = footprint.hbm_total <= footprint.hbm_capacity;
        *(if fits { &mut seats } else { &mut too_many }) = middle;
    }
    if seats == 0 {
        let reason = over_capacity(&footprint(1), "take a model or a machine on which one request fits");
        let reason = reason.expect("one request does not fit");
        return Ok(infeasible(id, kind, blueprint, run, &reason));
    }
    let lengths: Vec<(u32, u32)> =
        blueprint.requests.iter().map(|&request| (request, recording.steps(request as usize))).collect();
    let schedule = Schedule::closed(&lengths, seats, run.steps, blueprint.config.batch.stagger)?;
    let run = Run { schedule, concurrency: seats, ..run.clone() };
    let mut timer = Timer::new(blueprint, variant, &run, recording)?;
    let mut buffers = BatchBuffers::default();
    let mut work = StepWork::default();
    let mut accesses = [0, 0];
    for (step, scheduled) in (0u32..).zip(&run.schedule.steps) {
        if stop() {
            return Err(SimError::Interrupted);
        }
        let batch = BatchStep::read(recording, None, &run.map, &scheduled.run, &mut buffers)?;
        work.open(step, run.map.layers(), &batch.participants, Movement::default());
        for (layer, work) in work.layers.iter_mut().enumerate() {
            *work = resident_layer(&batch, &run, layer);
            accesses[usize::from(step >= run.measure_from)] += work.selected_blocks;
        }
        timer.step(&work);
    }
    let hits = |accesses| Tally { accesses, hits: accesses, ..Tally::default() };
    Ok(Point {
        steady: hits(accesses[1]),
        whole: hits(accesses[0] + accesses[1]),
        footprint: footprint(seats),
        time: timer.finish(),
        ..blank(id, kind, blueprint, &run)
    })
}

/// One layer of one step with everything in HBM.
fn resident_layer(batch: &BatchStep<'_>, run: &Run, layer: usize) -> LayerWork {
    let heads = run.map.head_groups();
    let streams = batch.participants.len() * heads;
    let mut work = LayerWork {
        streams: u32::try_from(streams).expect("fewer than 2^32 streams"),
        ..LayerWork::default()
    };
    for (at, participant) in batch.participants.iter().enumerate() {
        work.candidate_blocks += u64::from(participant.context_blocks) * heads as u64;
        work.selected_blocks += (0..heads).map(|head| batch.selected(at, layer * heads + head)).sum::<u64>();
    }
    work.resident_blocks = work.selected_blocks;
    work
}

fn offload_footprint(blueprint: &Blueprint, run: &Run, decisions: &Decisions) -> Footprint {
    let model = &blueprint.model;
    let entries = decisions.peak.context_blocks * u64::from(model.attention.entries_per_block);
    let weights = model.weights_per_rank().0;
    let index = baseline::index_bytes(model, entries).0;
    let dense = baseline::dense_kv_bytes(model, entries);
    let hot = (baseline::hot_bytes(model, run.slots) * decisions.peak.requests + dense).0;
    let warm = run.plane.warm_frames as u64 * run.plane.block_bytes;
    let metadata = decisions.peak.metadata_bytes;
    Footprint {
        weights,
        index,
        hot,
        warm,
        metadata,
        hbm_total: weights + index + hot + warm + metadata,
        hbm_capacity: blueprint.machine.hbm_capacity.0,
        host: decisions.peak.home_bytes[0],
        host_capacity: run.plane.home_capacity,
        cxl: decisions.peak.home_bytes[1],
        cxl_capacity: run.plane.tiers.cxl,
        nvme: decisions.peak.home_bytes[2],
        nvme_capacity: run.plane.tiers.nvme,
        host_metadata: decisions.peak.directory_bytes,
    }
}

fn over_capacity(footprint: &Footprint, remedy: &str) -> Option<String> {
    let remedy = if footprint.weights > footprint.hbm_capacity {
        "the weights alone are too large: take a machine with more HBM, or a model file with more ranks"
    } else {
        remedy
    };
    (footprint.hbm_total > footprint.hbm_capacity).then(|| {
        format!(
            "HBM: {} are needed (weights {}, selection keys {}, KV {}, warm {}, metadata {}) and the machine has {}; {remedy}",
            Bytes(footprint.hbm_total),
            Bytes(footprint.weights),
            Bytes(footprint.index),
            Bytes(footprint.hot),
            Bytes(footprint.warm),
            Bytes(footprint.metadata),
            Bytes(footprint.hbm_capacity)
        )
    })
}

/// Online counts with the offline classes: capacity is what Belady also misses, policy is the rest.
fn tally(counts: &Counts, twin: &Counts) -> Tally {
    let signed = |blocks: u64| i64::try_from(blocks).expect("counts fit 63 bits");
    let capacity = twin.misses - twin.cold;
    Tally {
        accesses: counts.accesses,
        newest: counts.newest,
        hits: counts.hits,
        prefetched: counts.prefetched,
        warm_hits: counts.warm_hits,
        misses: counts.misses,
        cold: counts.cold,
        capacity,
        policy: signed(counts.misses) - signed(counts.cold) - signed(capacity),
        pollution: counts.pollution,
        misses_cxl: counts.misses_cxl,
        misses_nvme: counts.misses_nvme,
        prefetches: counts.prefetches,
        prefetches_cxl: counts.prefetches_cxl,
        prefetches_nvme: counts.prefetches_nvme,
        wasted: counts.wasted,
        dropped: counts.dropped,
        written_back: counts.written_back,
        admitted: counts.admitted,
        evictions: counts.evictions,
        metadata_bytes: counts.metadata_bytes,
        warm_insertions: counts.warm_insertions,
        warm_rejected: counts.warm_rejected,
        warm_copies: counts.warm_copies,
        demoted_cxl: counts.demoted_cxl,
        demoted_nvme: counts.demoted_nvme,
        promoted: counts.promoted,
        spilled: counts.spilled,
    }
}

/// Demotion as points name it.
fn demotion_name(config: &RunConfig) -> String {
    config.demotion.policy.clone() + if config.demotion.promote { ", promoting" } else { "" }
}

/// The home tiers that a point uses, with their sizes.
fn pools(blueprint: &Blueprint) -> String {
    let pools = [
        ("host", blueprint.host_pool()),
        ("cxl", blueprint.config.cxl.pool),
        ("nvme", blueprint.config.nvme.pool),
    ];
    let used = pools.iter().filter(|(_, pool)| *pool > Bytes::ZERO);
    used.map(|(name, pool)| format!("{name} {pool}")).collect::<Vec<_>>().join(" + ")
}

/// A point with its configuration and nothing else.
fn blank(id: &str, kind: PointKind, blueprint: &Blueprint, run: &Run) -> Point {
    let config = &blueprint.config;
    let offload = kind == PointKind::Offload;
    let only = |name: &str| if offload { name.to_owned() } else { String::new() };
    let tiered = offload && config.demotion.policy != "none";
    let prefetches = offload && blueprint.prefetch.prefetches;
    let trace = config.trace.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Point {
        id: id.into(),
        kind,
        status: Status::Ok,
        note: String::new(),
        config: PointConfig {
            trace,
            trace_hash: format!("{:016x}", blueprint.trace_hash),
            model: blueprint.model.name.clone(),
            mapping: run.map.note().into(),
            machine: blueprint.machine.name.clone(),
            k: run.k,
            near: config.selection.near.unwrap_or(blueprint.view.near.min(blueprint.recorded_near)),
            fold: blueprint.view.fold,
            newest: if blueprint.view.newest == Newest::Reserved { "reserved" } else { "ordinary" }.into(),
            policy: only(blueprint.eviction.name),
            slots: if offload { run.slots } else { 0 },
            allocation: only(blueprint.allocation.entry.name),
            start: only(if run.plane.start == Start::Cold { "cold" } else { "recent" }),
            warm_frames: if offload { run.plane.warm_frames as u64 } else { 0 },
            admission: if run.plane.warm_frames > 0 {
                only(blueprint.admission.entry.name)
            } else {
                String::new()
            },
            demotion: if tiered { demotion_name(config) } else { String::new() },
            tiers: if tiered { pools(blueprint) } else { String::new() },
            prefetch: only(blueprint.prefetch.name),
            prefetch_budget: if prefetches { config.prefetch.budget } else { 0 },
            overlap: only(&config.time.overlap),
            transfer: only(&config.time.transfer),
            concurrency: run.concurrency,
            steps: run.steps,
            measure_from: run.measure_from,
            seed: config.seed,
        },
        steady: Tally::default(),
        whole: Tally::default(),
        footprint: Footprint::default(),
        time: TimeTally::default(),
        amplification_milli: 0,
        decision_hash: String::new(),
        layers: Vec::new(),
    }
}
