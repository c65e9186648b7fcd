//! Prefetch on the shipped pages: the oracle bounds, selections ahead are those that come, and time tells late from
//! covered.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_sim::grid::ConfigFile;
use kvtier_sim::record::Point;
use kvtier_sim::sweep::{Options, Sweep};
use kvtier_units::Bytes;

fn points(settings: &str) -> Vec<Point> {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!("trace = '{trace}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n{settings}");
    let mut file = ConfigFile::parse(&text).unwrap();
    file.baselines = false;
    let memory = Bytes(1 << 30);
    let options = Options { threads: 2, memory, stop: &|| false, finished: &|_| {} };
    Sweep::plan(file).unwrap().execute(None, &options).unwrap()
}

/// The point of a policy, slots and prefetcher.
fn find<'a>(points: &'a [Point], policy: &str, slots: u32, prefetcher: &str) -> &'a Point {
    let is = |point: &&Point| {
        (&*point.config.policy, point.config.slots, &*point.config.prefetch) == (policy, slots, prefetcher)
    };
    points.iter().find(is).unwrap()
}

#[test]
fn the_oracle_never_misses_more_than_no_prefetch_and_nobody_less_than_the_oracle() {
    let points = points(
        "[batch]\nrequests = ['s-d02', 's-d06']\nsteps = 96\n[measure]\nfrom_step = 1\n[prefetch]\nbudget = 4\n[grid]\n\
         'hot.policy' = ['fifo', 'lru', 'lru-step', 'echo']\n'hot.slots' = [36, 48, 64, 96]\n\
         'prefetch.policy' = ['none', 'next-ranked', 'last-steps', 'association', 'next-layer', 'anchor-layer', 'oracle']\n",
    );
    for point in &points {
        let c = &point.config;
        let [none, oracle] = ["none", "oracle"].map(|one| find(&points, &c.policy, c.slots, one));
        let bound = oracle.steady.misses;
        assert!(bound < none.steady.misses, "{} C={}: the oracle {bound}", c.policy, c.slots);
        assert!(
            bound <= point.steady.misses,
            "{} C={} {}: the oracle {bound}",
            c.policy,
            c.slots,
            c.prefetch
        );
        // What it brings is demanded, unless the run or the request ends before. Demand misses under fifo and echo
        // may evict it first: what was brought is not new enough for the one, nor known enough for the other.
        let keeps = c.policy.starts_with("lru") && c.prefetch == "oracle";
        assert!(!keeps || 10 * point.steady.wasted <= point.steady.prefetches, "{} C={}", c.policy, c.slots);
    }
}

#[test]
fn with_room_and_budget_the_oracle_leaves_no_miss_after_the_first_step() {
    let points = points(
        "[batch]\nrequests = ['s-d01']\nsteps = 64\n[hot]\nslots = 68\n[measure]\nfrom_step = 1\n\
         [prefetch]\npolicy = 'oracle'\nbudget = 32\n[prefetch.params]\nlook_ahead = 1\n\
         [grid]\n'hot.policy' = ['fifo', 'lru', 'lru-step', 'echo']\n'selection.newest' = ['reserved', 'ordinary']\n",
    );
    for point in points {
        let tally = &point.steady;
        // An ordinary newest block exists from the step that first selects it, and cannot be brought before.
        let unforeseen = if point.config.newest == "ordinary" { tally.cold } else { 0 };
        assert_eq!(tally.misses, unforeseen, "{} {}", point.config.policy, point.config.newest);
    }
}

#[test]
fn spilled_rows_are_foreseen_alike() {
    let settings =
        "[batch]\nrequests = ['s-d03']\nsteps = 40\n[hot]\nslots = 48\n[prefetch]\npolicy = 'oracle'\n";
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!("trace = '{trace}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n{settings}");
    let mut file = ConfigFile::parse(&text).unwrap();
    file.baselines = false;
    let options = Options { threads: 1, memory: Bytes(1 << 16), stop: &|| false, finished: &|_| {} };
    let spilled = Sweep::plan(file).unwrap().execute(None, &options).unwrap();
    assert_eq!(spilled[0].decision_hash, points(settings)[0].decision_hash);
}
