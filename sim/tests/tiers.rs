//! The tiers below host memory in time: lone reads against their closed form, flows that share, moves in the background;
//! and a whole run whose host pool is too small.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_policies::demotion::Tier;
use kvtier_sim::attribution::{OpKind, OpSpan, Queue, StepSpans};
use kvtier_sim::choice::Transfer;
use kvtier_sim::executor::Executor;
use kvtier_sim::links::{Links, Resource, Route};
use kvtier_sim::machine::Machine;
use kvtier_sim::overlap::{Launch, Overlap, TimeConfig, Variant};
use kvtier_sim::presets;
use kvtier_sim::transfer::{Mechanism, Order, TransferShape};
use kvtier_sim::work::{LayerWork, Movement, StepWork};
use kvtier_units::{Bandwidth, Bytes, Nanos};

const REGION: Bytes = Bytes(64 << 20);
const STREAMS: u32 = 64;
/// Blocks of llama-3.1-8b are pages of 16 tokens.
const BLOCK: u64 = 8_192;

fn machine() -> Machine {
    presets::machine("h100-pcie5").unwrap()
}

fn config(overlap: Overlap) -> TimeConfig {
    TimeConfig {
        variant: Variant::Offload,
        overlap,
        transfer: Transfer::Always(Mechanism::Gather),
        order: Order::Random,
        launch: Launch::Graph,
        request_region: REGION,
        record_ops: true,
    }
}

fn movement(blocks: u32) -> Movement {
    let mut movement = Movement::default();
    movement.add_request(blocks);
    movement
}

/// One request's step, whose first layer misses so many blocks of host, CXL and NVMe.
fn step(at: u32, [host, cxl, nvme]: [u32; 3]) -> StepWork {
    let selected_blocks = u64::from(STREAMS) * 128;
    let quiet = LayerWork {
        streams: STREAMS,
        candidate_blocks: u64::from(STREAMS) * 2_048,
        selected_blocks,
        resident_blocks: selected_blocks,
        ..LayerWork::default()
    };
    let mut layers = vec![quiet; 32];
    layers[0].demand = movement(host);
    layers[0].demand_below = [movement(cxl), movement(nvme)];
    layers[0].resident_blocks -= u64::from(host + cxl + nvme);
    StepWork { step: at, requests: 1, context_entries: 32_768, layers, ..StepWork::default() }
}

fn run(machine: &Machine, overlap: Overlap, work: &StepWork) -> StepSpans {
    let model = presets::model("llama-3.1-8b").unwrap();
    Executor::new(machine, &model, config(overlap)).run_step(work).clone()
}

fn op(spans: &StepSpans, queue: Queue) -> OpSpan {
    *spans.ops.iter().find(|op| op.queue == queue && op.kind == OpKind::Demand).unwrap()
}

/// What a lone gather takes from host memory: before it uses the link, and on it.
fn gather(machine: &Machine, blocks: u32) -> (Nanos, Nanos) {
    let shape = TransferShape {
        mechanism: Mechanism::Gather,
        order: Order::Random,
        blocks: u64::from(blocks),
        block_bytes: Bytes(BLOCK),
        region: REGION,
        requests: 1,
        worst_request: u64::from(blocks),
        queued: false,
    };
    let cost = machine.transfer.cost(&shape);
    (cost.setup, cost.body)
}

fn bytes_over(blocks: u32, rate: Bandwidth) -> Nanos {
    Nanos((u64::from(blocks) * BLOCK * 1_000_000_000).div_ceil(rate.0))
}

#[test]
fn a_lone_read_takes_latency_and_bytes_over_the_slowest_rate() {
    let machine = machine();
    for (tier, of, queue) in [(machine.cxl, 1, Queue::CxlIn), (machine.nvme, 2, Queue::NvmeIn)] {
        let tier = tier.unwrap();
        for blocks in [1, 40, 5_000] {
            let mut missed = [0; 3];
            missed[of] = blocks;
            let op = op(&run(&machine, Overlap::Serial, &step(0, missed)), queue);
            let (setup, body) = gather(&machine, blocks);
            let alone =
                machine.kernels.graph_node + setup + tier.latency + body.max(bytes_over(blocks, tier.read));
            assert_eq!(op.end - op.begin, alone, "{blocks} blocks, {queue:?}");
            assert_eq!(op.bytes, Bytes(u64::from(blocks) * BLOCK));
        }
    }
    // CXL at 31 GB/s is slower than the link: its own rate decides.
    let cxl = machine.cxl.unwrap();
    assert!(bytes_over(5_000, cxl.read) > gather(&machine, 5_000).1);
}

#[test]
fn reads_of_two_tiers_share_the_link_to_the_device() {
    let machine = machine();
    let blocks = 20_000;
    let both = run(&machine, Overlap::Serial, &step(0, [blocks, 0, blocks]));
    let (host, nvme) = (op(&both, Queue::Compute), op(&both, Queue::NvmeIn));
    let end = host.end.max(nvme.end);
    let least = bytes_over(2 * blocks, machine.h2d);
    let setups = Nanos(100_000);
    assert!(end - host.begin >= least, "no more than the link carries");
    // The gather draws on the link for a little longer than its bytes: translation. Two at once fill it.
    assert!(end - host.begin < least + least_share(least) + setups, "{} against {least}", end - host.begin);
    assert_eq!(both.total().h2d, Bytes(2 * u64::from(blocks) * BLOCK));
    assert_eq!(both.tiers.read, [Bytes(0), Bytes(u64::from(blocks) * BLOCK)]);
    let attend = both.ops.iter().find(|op| op.kind == OpKind::Attend).unwrap();
    assert!(attend.begin >= end, "attention waits for both");
    let one = run(&machine, Overlap::Serial, &step(0, [blocks, 0, 0]));
    assert!(op(&one, Queue::Compute).end < host.end, "alone it has the link to itself");
}

#[test]
fn a_miss_shares_its_tier_with_what_moves_down_from_there() {
    let machine = machine();
    let (cxl, nvme) = (machine.cxl.unwrap(), machine.nvme.unwrap());
    let blocks = 100_000;
    let alone = step(0, [0, blocks, 0]);
    let mut beside = alone.clone();
    // More than is over before the misses are.
    (0..blocks).for_each(|_| beside.boundary_moves.add(Tier::Cxl, Tier::Nvme));
    let [alone, beside] = [alone, beside].map(|work| {
        let op = op(&run(&machine, Overlap::Serial, &work), Queue::CxlIn);
        (op.end - op.begin).0 as f64
    });
    assert!(nvme.write > cxl.read, "the move could use all that CXL can read, as the misses could");
    assert!((beside / alone / 2.0 - 1.0).abs() < 0.01, "{alone} ns alone, {beside} beside: half each");
}

/// A tenth: what the mechanisms lose at most against the link's rate.
fn least_share(time: Nanos) -> Nanos {
    Nanos(time.0 / 10)
}

#[test]
fn copies_of_warm_pages_take_a_kernel_that_reads_and_writes_them() {
    let machine = machine();
    let plain = step(0, [0; 3]);
    let mut copying = plain.clone();
    copying.layers[3].warm_copies = 5_000;
    let (with, without) = (run(&machine, Overlap::Serial, &copying), run(&machine, Overlap::Serial, &plain));
    let bytes = 5_000 * BLOCK;
    let body = machine.kernels.ramp.0 as f64 + 2.0 * bytes as f64 / (machine.hbm_read.0 as f64 / 1e9);
    let more = (with.time() - without.time() - machine.kernels.graph_node).0;
    assert!((more as f64 - body).abs() <= 1.0, "{more} ns more, not {body}");
    assert_eq!(with.total().copied, Bytes(bytes));
}

#[test]
fn hit_first_attends_to_hits_while_a_tier_is_read() {
    let machine = machine();
    let spans = run(&machine, Overlap::HitFirst, &step(0, [0, 0, 200]));
    let nvme = op(&spans, Queue::NvmeIn);
    let hits = spans.ops.iter().find(|op| op.kind == OpKind::Attend).unwrap();
    let misses = spans.ops.iter().find(|op| op.kind == OpKind::AttendMisses).unwrap();
    assert!(hits.begin < nvme.end && misses.begin >= nvme.end);
    assert_eq!(spans.total().time(), spans.time());
}

#[test]
fn two_moves_at_once_halve_a_write_link_and_one_takes_its_rate() {
    let machine = machine();
    let nvme = machine.nvme.unwrap();
    let mut links = Links::new(&[machine.host_bandwidth, nvme.write], None);
    let route = Route::over(&[Resource(0), Resource(1)]);
    let bytes = 1_000 * BLOCK;
    (0..2).for_each(|id| links.start(Nanos(0), id, route, nvme.write, Bytes(bytes)));
    assert_eq!(links.rate(0).unwrap().0, nvme.write.0 / 2);
    let (end, first) = links.next_end().unwrap();
    let exact = (2 * u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(nvme.write.0));
    assert!(u128::from(end.0).abs_diff(exact) <= 1, "flow {first} ends at {end}, not {exact} ns");
}

/// Runs whose host pool is too small, decided and timed.
mod whole {
    use super::*;
    use kvtier_sim::grid::ConfigFile;
    use kvtier_sim::record::{Point, Status};
    use kvtier_sim::sweep::{Options, Sweep};

    /// Two requests of the shipped pages with `more` lines of configuration.
    fn point(machine: &str, more: &str) -> Result<Point, String> {
        let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
        let text = format!(
            "trace = '{trace}'\nmodel = 'smollm2-135m'\nmachine = '{machine}'\nbaselines = false\n\
             batch.requests = ['s-d01', 's-d04']\nbatch.steps = 48\nhot.slots = '1.5k'\n{more}"
        );
        let sweep = ConfigFile::parse(&text).and_then(Sweep::plan).map_err(|error| error.to_string())?;
        let options = Options { threads: 1, memory: Bytes(1 << 30), stop: &|| false, finished: &|_| {} };
        let points = sweep.execute(None, &options).map_err(|error| error.to_string())?;
        Ok(points[0].clone())
    }

    const H100: &str = "h100-pcie5";
    const SMALL: &str = "host.pool = '96 MiB'\nnvme.pool = '1 GiB'\ndemotion.low = 80\n";
    /// Pages of 16 tokens of smollm2-135m.
    const PAGE: u64 = 4_096;

    #[test]
    fn a_pool_that_is_too_small_is_infeasible_until_there_is_a_tier_below() {
        let roomy = point(H100, "").unwrap();
        let none = point(H100, "host.pool = '96 MiB'").unwrap();
        assert!(matches!(&none.status, Status::Infeasible(reason) if reason.contains("nvme.pool")));
        for policy in ["age", "utility"] {
            let below = point(H100, &format!("{SMALL}demotion.policy = '{policy}'")).unwrap();
            assert_eq!(below.status, Status::Ok);
            assert_eq!(below.steady.misses, roomy.steady.misses, "where blocks live changes no miss");
            assert_eq!(
                (below.steady.capacity, below.steady.policy),
                (roomy.steady.capacity, roomy.steady.policy)
            );
            assert_ne!(below.decision_hash, roomy.decision_hash);
            assert!(below.steady.misses_nvme > 0 && below.whole.spilled > 0);
            assert!(below.footprint.host <= 96 << 20 && below.footprint.nvme > 0);
            assert!(below.time.total_ns > roomy.time.total_ns, "NVMe is slower than host memory");
            assert_eq!(below.time.nvme_read_bytes, below.steady.misses_nvme * PAGE);
            assert_eq!(
                below.time.h2d_bytes, roomy.time.h2d_bytes,
                "every miss passes the link to the device"
            );
        }
    }

    #[test]
    fn promotion_trades_misses_from_below_for_moves() {
        let stay = point(H100, &format!("{SMALL}demotion.policy = 'age'")).unwrap();
        let rise = point(H100, &format!("{SMALL}demotion.policy = 'age'\ndemotion.promote = true")).unwrap();
        assert_eq!(stay.steady.promoted, 0);
        assert!(rise.steady.promoted > 0 && rise.steady.demoted_nvme > stay.steady.demoted_nvme);
        assert!(rise.steady.misses_nvme < stay.steady.misses_nvme);
        for point in [stay, rise] {
            let written = point.steady.demoted_nvme + point.steady.spilled;
            assert_eq!(
                point.time.nvme_write_bytes,
                written * PAGE,
                "what was moved down or went straight there"
            );
        }
    }

    #[test]
    fn moves_over_a_slow_tier_are_late_and_decide_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let text = presets::machine_text(H100).unwrap();
        let (before, nvme) = text.split_once("[nvme]").unwrap();
        let slow = nvme.replace("33.8 GB/s", "0.05 GB/s");
        assert_ne!(nvme, slow);
        let path = folder.path().join("slow.toml");
        std::fs::write(&path, format!("{before}[nvme]{slow}")).unwrap();
        let more = format!("{SMALL}demotion.policy = 'age'\ndemotion.promote = true");
        let fast = point(H100, &more).unwrap();
        let slow = point(path.to_str().unwrap(), &more).unwrap();
        assert_eq!(fast.decision_hash, slow.decision_hash);
        assert!(slow.time.late_moves > fast.time.late_moves);
        assert_eq!(slow.time.total_ns, fast.time.total_ns, "writes hold up no read, nor host memory");
    }

    #[test]
    fn a_machine_without_the_tier_is_refused_with_a_remedy() {
        for tier in ["cxl", "nvme"] {
            let error =
                point("gh200", &format!("{tier}.pool = '1 GiB'\ndemotion.policy = 'age'")).unwrap_err();
            assert!(error.starts_with(&format!("{tier}.pool: machine `gh200` has no [{tier}]")), "{error}");
            assert!(error.contains("another machine"), "{error}");
        }
        let unused = point(H100, "nvme.pool = '1 GiB'").unwrap_err();
        assert!(unused.starts_with("demotion.policy"), "{unused}");
        let guard = point(H100, "warm.admission = 'sketch'").unwrap_err();
        assert!(guard.starts_with("warm.admission") && guard.contains("warm.size"), "{guard}");
    }
}
