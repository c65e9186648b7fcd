//! Block accesses per second of one-pass curves on one core, over the shipped pages held in memory, beside replaying
//! sixteen sizes: `cargo bench -p kvtier-sim --bench mrc`. One request; decoding and the future are not part of it.

use divan::Bencher;
use divan::counter::ItemsCount;
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_sim::Single;
use kvtier_sim::engine::Replay;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::mrc::{CurvePolicy, Survey};
use kvtier_sim::setup::Run;
use kvtier_traces::{Future, Recording};
use kvtier_units::Bytes;

fn main() {
    divan::main();
}

const POLICIES: [CurvePolicy; 3] = CurvePolicy::ALL;

/// The samples fit in it.
const MEMORY: Bytes = Bytes(4 << 30);

struct Pages {
    recording: Recording,
    future: Future,
    run: Run,
}

fn pages() -> Pages {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = '{pages}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nbatch.requests = ['s-d01']\nmeasure.from_step = 0\n"
    );
    let file = ConfigFile::parse(&text).expect("a valid configuration");
    let Single { run, recording, .. } = Single::prepare(&file, MEMORY).expect("the sample is shipped");
    let future = Future::build(&recording, MEMORY).expect("it fits in memory");
    Pages { recording, future, run }
}

/// Every size, one pass.
#[divan::bench(args = POLICIES, sample_count = 10)]
fn every_size(bencher: Bencher<'_, '_>, policy: CurvePolicy) {
    let pages = pages();
    let (run, recording) = (&pages.run, &pages.recording);
    let survey = Survey { run, recording, future: Some(&pages.future), policy, threads: 1, stop: &|| false };
    let accesses = survey.exact().expect("it runs").total.accesses;
    bencher
        .counter(ItemsCount::new(accesses))
        .bench_local(|| survey.exact().expect("it runs").total.misses[0]);
}

/// Sixteen sizes from k to 8.5k, one replay each; accesses of one replay.
#[divan::bench(args = POLICIES, sample_count = 3)]
fn sixteen_replays(bencher: Bencher<'_, '_>, policy: CurvePolicy) {
    let pages = pages();
    let mut run = pages.run.clone();
    run.plane.eviction = *eviction::find(EVICTION, policy.name()).expect("a registered policy");
    let future = policy.needs_future().then_some(&pages.future);
    let k = run.plane.k;
    let mut replay = |slots: u32| {
        run.plane.slots.fill(slots);
        let replay = Replay { run: &run, recording: &pages.recording, future, stop: &|| false };
        replay.execute(&mut ()).expect("it runs").whole
    };
    let accesses = replay(k).accesses;
    bencher
        .counter(ItemsCount::new(accesses))
        .bench_local(|| (0..16u32).map(|at| replay(k + at * k / 2).misses).sum::<u64>());
}
