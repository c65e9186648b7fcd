//! Made-up but plausible points for tests and for the example: the shape of a sweep of SmolLM2 over an H100's link.

use kvtier_sim::record::{Footprint, LayerTally, Point, PointConfig, PointKind, Status, Tally, TimeTally};

const LAYERS: u64 = 30;
const STEPS: u64 = 240;
const K: u64 = 32;
const STREAMS: u64 = 3;
const BLOCK_BYTES: u64 = 16 * 64 * 2 * 2;

/// What a point is made from.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Eviction policy.
    pub(crate) policy: &'a str,
    /// Slots.
    pub(crate) slots: u32,
    /// Overlap mode.
    pub(crate) overlap: &'a str,
    /// Prefetch policy.
    pub(crate) prefetch: &'a str,
    /// Requests.
    pub(crate) requests: u32,
    /// Machine.
    pub(crate) machine: &'a str,
}

/// lru with 64 slots, serial, alone.
pub(crate) const PLAIN: Choice<'static> = Choice {
    policy: "lru",
    slots: 64,
    overlap: "serial",
    prefetch: "none",
    requests: 6,
    machine: "h100-pcie5",
};

/// Seven policies, six sizes, three overlap modes, both baselines and one point that does not fit.
pub(crate) fn grid() -> Vec<Point> {
    let mut points = Vec::new();
    for policy in ["fifo", "clock", "lru", "lru-step", "lfu", "random", "belady"] {
        for slots in [32, 48, 64, 96, 128, 256] {
            for overlap in ["serial", "hit-first", "layer-ahead"] {
                points.push(point(&Choice { policy, slots, overlap, ..PLAIN }));
            }
        }
    }
    points.extend(baselines(&PLAIN));
    let mut misfit = point(&Choice { slots: 4096, ..PLAIN });
    misfit.status = Status::Infeasible(
        "hot buffers need 96 GiB of HBM and 41 GiB are left; use fewer slots or fewer requests".to_owned(),
    );
    misfit.steady = Tally::default();
    misfit.time = TimeTally::default();
    points.push(misfit);
    points
}

/// All in HBM, and dense.
pub(crate) fn baselines(choice: &Choice<'_>) -> Vec<Point> {
    [PointKind::Resident, PointKind::Dense].map(|kind| baseline(kind, choice)).into()
}

/// Misses per selected block, in millionths, of a policy at a size in one layer.
fn miss_ppm(choice: &Choice<'_>, layer: u64) -> u64 {
    let belady = 400_000_000_000 / (u64::from(choice.slots) * u64::from(choice.slots) + 2_000) / 1_200;
    let percent = match choice.policy {
        "belady" => 100,
        "lfu" => 128,
        "lru-step" => 146,
        "lru" => 151,
        "clock" => 158,
        "fifo" => 178,
        _ => 210,
    };
    let wave = match layer {
        0 | 1 => 260,
        l if l % 7 == 3 => 150,
        l => 70 + l,
    };
    let prefetched = if choice.prefetch == "none" { 100 } else { 62 };
    (belady * percent / 100 * wave / 100 * prefetched / 100).min(900_000)
}

/// One point that ran.
pub(crate) fn point(choice: &Choice<'_>) -> Point {
    let per_layer = STEPS * K * STREAMS * u64::from(choice.requests);
    let missed = |choice: &Choice<'_>, layer| per_layer * miss_ppm(choice, layer) / 1_000_000;
    let layers: Vec<LayerTally> = (0..LAYERS)
        .map(|layer| LayerTally {
            accesses: per_layer,
            misses: missed(choice, layer),
            ..LayerTally::default()
        })
        .collect();
    let misses = layers.iter().map(|layer| layer.misses).sum::<u64>();
    let plain = Choice { policy: "belady", prefetch: "none", ..*choice };
    let bound = (0..LAYERS).map(|layer| missed(&plain, layer)).sum::<u64>();
    let accesses = per_layer * LAYERS;
    let cold = bound / 9;
    let steady = Tally {
        accesses,
        newest: accesses / K,
        hits: accesses - accesses / K - misses,
        misses,
        cold,
        capacity: bound - cold,
        policy: misses.cast_signed() - bound.cast_signed(),
        prefetches: if choice.prefetch == "none" { 0 } else { misses },
        evictions: misses,
        ..Tally::default()
    };
    let hot = u64::from(choice.requests) * LAYERS * STREAMS * u64::from(choice.slots) * BLOCK_BYTES;
    let weights = 269_000_000;
    let footprint = footprint([weights, 40_000_000, hot, u64::from(choice.slots) * 9_000]);
    Point {
        id: format!(
            "{}-{}-{}-{}-{}-{}",
            choice.policy, choice.slots, choice.overlap, choice.prefetch, choice.requests, choice.machine
        ),
        kind: PointKind::Offload,
        status: Status::Ok,
        note: match (choice.overlap, choice.prefetch) {
            ("layer-ahead", "none") => "layer-ahead has nothing to issue early without a prefetcher".into(),
            _ => String::new(),
        },
        config: config(choice),
        steady,
        whole: steady,
        footprint,
        time: time(choice, misses),
        amplification_milli: misses * 1000 / accesses,
        decision_hash: format!("{:016x}", misses.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        layers,
    }
}

fn config(choice: &Choice<'_>) -> PointConfig {
    PointConfig {
        trace: "smollm2-pages.parquet".into(),
        trace_hash: "8d4fe1a2b3c4d5e6".into(),
        model: "smollm2-135m".into(),
        machine: choice.machine.into(),
        k: 32,
        near: 32,
        fold: 1,
        newest: "reserved".into(),
        policy: choice.policy.into(),
        slots: choice.slots,
        start: "recent".into(),
        allocation: "uniform".into(),
        prefetch: choice.prefetch.into(),
        prefetch_budget: if choice.prefetch == "none" { 0 } else { 8 },
        overlap: choice.overlap.into(),
        transfer: "sm-gather".into(),
        concurrency: choice.requests,
        steps: 256,
        measure_from: 16,
        seed: 1,
        ..PointConfig::default()
    }
}

fn footprint([weights, index, hot, metadata]: [u64; 4]) -> Footprint {
    Footprint {
        weights,
        index,
        hot,
        metadata,
        hbm_total: weights + index + hot + metadata,
        hbm_capacity: 80 << 30,
        host: 3 << 30,
        host_capacity: 512 << 30,
        ..Footprint::default()
    }
}

fn time(choice: &Choice<'_>, misses: u64) -> TimeTally {
    let compute_ns = STEPS * 410_000;
    let launch_ns = STEPS * LAYERS * 5 * 830;
    let bytes = misses * BLOCK_BYTES;
    let transfer = bytes * 10 / 504 + STEPS * LAYERS * 6_000 * u64::from(misses > 0);
    let stall_ns = match choice.overlap {
        "serial" => transfer,
        "hit-first" => transfer.saturating_sub(compute_ns / 3).max(transfer / 3),
        _ => transfer * 92 / 100,
    };
    let wait_ns = STEPS * 12_000;
    let total_ns = compute_ns + stall_ns + launch_ns + wait_ns;
    TimeTally {
        compute_ns,
        stall_ns,
        launch_ns,
        wait_ns,
        total_ns,
        step_p50_ns: total_ns / STEPS,
        step_p90_ns: total_ns / STEPS * 12 / 10,
        step_p99_ns: total_ns / STEPS * 15 / 10,
        tokens: STEPS * u64::from(choice.requests),
        h2d_bytes: bytes,
        d2h_bytes: bytes / 40,
        h2d_busy_ns: transfer,
        ..TimeTally::default()
    }
}

/// A baseline, with the settings that a baseline does not have left open.
fn baseline(kind: PointKind, choice: &Choice<'_>) -> Point {
    let mut point = point(choice);
    let resident = kind == PointKind::Resident;
    let compute_ns = STEPS * if resident { 395_000 } else { 1_350_000 };
    let launch_ns = STEPS * LAYERS * 4 * 830;
    point.id = format!("{kind:?}-{}-{}", choice.requests, choice.machine).to_lowercase();
    point.kind = kind;
    point.config.policy = String::new();
    point.config.slots = 0;
    point.config.overlap = String::new();
    point.config.prefetch = String::new();
    point.steady = Tally::default();
    point.whole = Tally::default();
    point.layers = Vec::new();
    point.decision_hash = String::new();
    point.footprint = footprint([269_000_000, 40_000_000, u64::from(choice.requests) * 180_000_000, 0]);
    point.time = TimeTally {
        compute_ns,
        launch_ns,
        total_ns: compute_ns + launch_ns,
        step_p50_ns: (compute_ns + launch_ns) / STEPS,
        tokens: STEPS * u64::from(choice.requests),
        ..TimeTally::default()
    };
    point
}
