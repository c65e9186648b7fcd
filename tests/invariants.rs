//! What must hold between the points of a grid over the shipped pages, whatever the policies do: books balance, bounds
//! bound, and what is decided does not depend on how time passes.

mod program;

use kvtier_sim::presets;
use kvtier_sim::record::{Point, PointKind, Status};
use program::{Folder, Outcome};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const BASE: &str =
    "trace = 'traces/samples/smollm2-pages.parquet'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n";
/// The second seat starts 16 steps before its recording ends, and is then taken by another request.
const BATCH: &str = "[batch]\nrequests = ['s-d01']\nconcurrency = 2\nsteps = 40\nstagger = 240\n";

/// Runs a configuration and returns its points.
fn points(config: &str) -> Vec<Point> {
    let folder = Folder::new();
    let file = folder.write("grid.toml", config);
    let outcome = Outcome::of(["replay", &file, "--json"]).ended(0);
    let points: Vec<Point> = serde_json::from_str(&outcome.out).expect("points as JSON");
    for point in &points {
        assert_eq!(point.status, Status::Ok, "{}", label(point));
    }
    points
}

/// The grid that most tests look at: every mechanism, measured from the first step on.
fn grid() -> &'static [Point] {
    static GRID: OnceLock<Vec<Point>> = OnceLock::new();
    GRID.get_or_init(|| {
        points(&format!(
            "{BASE}{BATCH}[measure]\nfrom_step = 0\n[grid]\n\
             'hot.policy' = ['fifo', 'clock', 'lru', 'lru-step', 'lfu', 'random']\n'hot.slots' = ['1k', '1.5k', '3k']\n\
             'hot.start' = ['cold', 'recent']\n'prefetch.policy' = ['none', 'next-ranked']\n\
             'warm.size' = ['0 B', '2 MiB']\n'time.overlap' = ['serial', 'hit-first', 'layer-ahead']\n"
        ))
    })
}

fn offload() -> impl Iterator<Item = &'static Point> {
    grid().iter().filter(|point| point.kind == PointKind::Offload)
}

fn label(point: &Point) -> String {
    let c = &point.config;
    let (policy, slots, start, overlap) = (&c.policy, c.slots, &c.start, &c.overlap);
    format!("{policy} C={slots} {start} {} warm={} {overlap}", c.prefetch, c.warm_frames)
}

/// The same point but for how time passes.
fn decisions(point: &Point) -> String {
    let mut point = point.clone();
    point.config.overlap = String::new();
    label(&point)
}

fn block_bytes() -> u64 {
    presets::model("smollm2-135m").expect("a preset").attention.block_bytes.0
}

#[test]
fn every_access_and_every_miss_is_of_one_kind() {
    assert_eq!(offload().count(), 6 * 3 * 2 * 2 * 2 * 3);
    for point in offload() {
        for tally in [&point.steady, &point.whole] {
            let signed = |blocks: u64| i64::try_from(blocks).expect("counts are small");
            assert_eq!(tally.accesses, tally.newest + tally.hits + tally.warm_hits + tally.misses);
            assert_eq!(
                signed(tally.misses),
                signed(tally.cold + tally.capacity) + tally.policy,
                "{}",
                label(point)
            );
            assert!(tally.cold + tally.pollution <= 2 * tally.misses && tally.prefetched <= tally.hits);
            if point.config.prefetch == "none" {
                assert_eq!((tally.prefetches, tally.prefetched, tally.wasted, tally.pollution), (0, 0, 0, 0));
            }
        }
        assert_eq!(point.steady, point.whole, "measured from the first step on");
        let layers =
            |of: fn(&kvtier_sim::record::LayerTally) -> u64| point.layers.iter().map(of).sum::<u64>();
        assert_eq!(layers(|layer| layer.accesses), point.steady.accesses);
        assert_eq!(layers(|layer| layer.misses), point.steady.misses);
    }
    let of = |kind: fn(&Point) -> u64| offload().map(kind).sum::<u64>();
    for (kind, blocks) in [
        ("cold", of(|p| p.steady.cold)),
        ("capacity", of(|p| p.steady.capacity)),
        ("warm hits", of(|p| p.steady.warm_hits)),
        ("prefetched", of(|p| p.steady.prefetched)),
        ("wasted", of(|p| p.steady.wasted)),
        ("pollution", of(|p| p.steady.pollution)),
        ("written back", of(|p| p.steady.written_back)),
    ] {
        assert!(blocks > 0, "the grid has no block that is {kind}: it tests too little");
    }
}

#[test]
fn every_nanosecond_is_attributed() {
    for point in grid() {
        let time = &point.time;
        let parts = time.compute_ns + time.stall_ns + time.launch_ns + time.wait_ns;
        assert_eq!(parts, time.total_ns, "{}", label(point));
        assert!(time.step_p50_ns <= time.step_p90_ns && time.step_p90_ns <= time.step_p99_ns);
        assert!(time.h2d_busy_ns <= time.total_ns, "{}", label(point));
        assert_eq!(
            time.tokens,
            u64::from(point.config.concurrency * point.config.steps),
            "one token a request and step"
        );
    }
}

/// The books of two planes that share no code: blocks decided, and bytes moved.
#[test]
fn bytes_moved_are_the_blocks_decided() {
    for point in offload() {
        let (tally, time) = (&point.steady, &point.time);
        let blocks = tally.misses + tally.prefetches + tally.admitted;
        assert_eq!(time.h2d_bytes, blocks * block_bytes(), "{}", label(point));
        assert_eq!(time.d2h_bytes, tally.written_back * block_bytes(), "{}", label(point));
        assert!(time.covered + time.late <= tally.prefetched, "{}", label(point));
    }
}

#[test]
fn how_time_passes_changes_no_decision() {
    let mut hashes = BTreeSet::new();
    for point in offload().filter(|point| point.config.overlap == "serial") {
        let same: Vec<&Point> = offload().filter(|other| decisions(other) == decisions(point)).collect();
        assert_eq!(same.len(), 3, "serial, hit-first and layer-ahead");
        for other in same {
            assert_eq!(other.decision_hash, point.decision_hash, "{}", label(other));
            assert_eq!(other.steady, point.steady, "{}", label(other));
        }
        assert!(hashes.insert(&point.decision_hash), "{} decides as another point does", label(point));
    }
}

#[test]
fn machines_change_times_and_no_decision() {
    let grid = "[grid]\nmachine = ['h100-pcie5', 'a100-pcie4', 'gb200']\n'time.transfer' = ['gather', 'copy-loop']\n";
    let points = points(&format!("{BASE}{BATCH}{grid}"));
    let offload: Vec<&Point> = points.iter().filter(|point| point.kind == PointKind::Offload).collect();
    let different =
        |of: &dyn Fn(&Point) -> String| offload.iter().map(|point| of(point)).collect::<BTreeSet<_>>().len();
    assert_eq!(different(&|point| point.decision_hash.clone()), 1);
    assert_eq!(different(&|point| format!("{:?}", point.steady)), 1);
    assert_eq!(different(&|point| point.time.total_ns.to_string()), 6, "each takes a time of its own");
}

/// Belady's bound, the stack property, and what lies between them, over sizes from one selection to several.
#[test]
fn misses_are_bounded() {
    let policies = ["fifo", "clock", "lru", "lru-step", "lfu", "random", "belady"];
    let slots = [32, 36, 40, 48, 64, 96, 128, 500];
    let points = points(&format!(
        "baselines = false\n{BASE}{BATCH}[measure]\nfrom_step = 0\n[grid]\n'selection.newest' = ['reserved', 'ordinary']\n\
         'hot.policy' = {policies:?}\n'hot.slots' = {slots:?}\n"
    ));
    for newest in ["reserved", "ordinary"] {
        let misses = |policy: &str, slots: u32| {
            let is = |point: &&Point| {
                let config = &point.config;
                (config.newest.as_str(), config.policy.as_str(), config.slots) == (newest, policy, slots)
            };
            points.iter().find(is).map(|point| (point.steady.misses, point.steady.cold)).expect("it ran")
        };
        for size in slots {
            let (least, cold) = misses("belady", size);
            for policy in policies {
                let (demand, first) = misses(policy, size);
                assert!(least <= demand, "{policy} C={size} {newest}: {demand} misses, belady {least}");
                assert!(first <= cold, "{policy} C={size} {newest}: more cold misses than belady");
            }
        }
        for policy in ["lru", "belady"] {
            for pair in slots.windows(2) {
                let (small, large) = (misses(policy, pair[0]).0, misses(policy, pair[1]).0);
                assert!(
                    large <= small,
                    "{policy} {newest}: {small} misses with {}, {large} with {}",
                    pair[0],
                    pair[1]
                );
            }
        }
        let (lru, cold) = misses("lru", 500);
        assert_eq!(lru, cold, "a buffer that holds the whole context misses each block once at most");
    }
}

/// With the whole context in the buffers nothing is missed, and then offload cannot beat having everything in HBM.
#[test]
fn without_misses_offload_is_no_faster_than_everything_resident() {
    let points = points(&format!("{BASE}[batch]\nsteps = 40\n[hot]\nslots = 520\nstart = 'recent'\n"));
    let of = |kind| points.iter().find(|point| point.kind == kind).expect("every kind runs");
    let (offload, resident) = (of(PointKind::Offload), of(PointKind::Resident));
    assert_eq!(offload.steady.misses, 0);
    assert_eq!(offload.time.h2d_bytes, 0);
    assert_eq!(
        (offload.config.concurrency, offload.time.tokens),
        (resident.config.concurrency, resident.time.tokens)
    );
    assert!(resident.time.total_ns <= offload.time.total_ns, "{:?} {:?}", resident.time, offload.time);
    assert_eq!(offload.time.stall_ns, 0, "nothing to wait for");
    let missing = offload.time.total_ns - resident.time.total_ns;
    assert!(missing < offload.time.total_ns / 4, "look-up alone costs a quarter of a step: {missing} ns");
}

#[test]
fn memory_is_accounted_for() {
    for point in grid() {
        let f = &point.footprint;
        assert_eq!(f.hbm_total, f.weights + f.index + f.hot + f.warm + f.metadata, "{}", label(point));
        assert!(f.hbm_total <= f.hbm_capacity && f.host <= f.host_capacity, "{}", label(point));
        if point.kind == PointKind::Offload {
            assert_eq!(f.warm, point.config.warm_frames * block_bytes());
            assert!(f.host > 0 && f.metadata > 0, "{}", label(point));
        } else {
            assert_eq!((f.host, f.warm), (0, 0), "everything is in HBM");
        }
    }
}
