//! Block accesses per second of the decision plane on one core, over the shipped pages held in memory:
//! `cargo bench -p kvtier-sim --bench replay`. `plane` is everything that a run decides, warm bookkeeping and decision
//! hash included; `buffers` is the hot buffers alone.

use divan::Bencher;
use divan::counter::ItemsCount;
use kvtier_policies::eviction::{BufferShape, EVICTION};
use kvtier_policies::{Below, HotBuffer, Selection, StreamPlan};
use kvtier_sim::Single;
use kvtier_sim::engine::Replay;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::setup::Run;
use kvtier_traces::{Future, Recording, StepBuf};
use kvtier_units::{Bytes, Seed};

fn main() {
    divan::main();
}

const POLICIES: [&str; 7] = ["fifo", "clock", "lru", "lru-step", "lfu", "random", "belady"];

/// The samples fit in it.
const MEMORY: Bytes = Bytes(4 << 30);

struct Pages {
    recording: Recording,
    future: Future,
    run: Run,
    needs_future: bool,
}

fn pages(policy: &str) -> Pages {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = '{pages}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nhot = {{ policy = '{policy}', slots = '2k' }}\n"
    );
    let file = ConfigFile::parse(&text).expect("a valid configuration");
    let Single { run, recording, blueprint, .. } =
        Single::prepare(&file, MEMORY).expect("the sample is shipped");
    let future = Future::build(&recording, MEMORY).expect("it fits in memory");
    Pages { recording, future, run, needs_future: blueprint.eviction.needs_future }
}

/// Everything a run decides.
#[divan::bench(args = POLICIES, sample_count = 10)]
fn plane(bencher: Bencher<'_, '_>, policy: &str) {
    let pages = pages(policy);
    let future = pages.needs_future.then_some(&pages.future);
    let replay = Replay { run: &pages.run, recording: &pages.recording, future, stop: &|| false };
    let accesses = replay.execute(&mut ()).expect("it runs").whole.accesses;
    bencher.counter(ItemsCount::new(accesses)).bench_local(|| replay.execute(&mut ()).expect("it runs").hash);
}

/// The hot buffers alone, stream by stream as the engine visits them.
#[divan::bench(args = ["fifo", "clock", "lru", "lru-step"], sample_count = 10)]
fn buffers(bencher: Bencher<'_, '_>, policy: &str) {
    let Pages { recording, run, .. } = pages(policy);
    let entry = EVICTION.iter().find(|entry| entry.name == policy).expect("a registered policy");
    let streams = recording.streams_per_request();
    let mut rows: Vec<Vec<StepBuf>> = Vec::new();
    for request in 0..recording.requests().len() {
        let mut steps: Vec<StepBuf> = Vec::new();
        steps.resize_with(recording.steps(request) as usize, StepBuf::default);
        rows.push(steps);
    }
    let mut accesses = 0;
    let replay = |rows: &mut Vec<Vec<StepBuf>>| {
        let mut plan = StreamPlan::default();
        let (mut misses, mut seen) = (0, 0);
        for (request, steps) in rows.iter_mut().enumerate() {
            let blocks = recording.blocks_at(request, recording.steps(request) - 1);
            let shape = BufferShape { slots: run.slots, blocks, k: run.plane.k, seed: Seed(1) };
            let made = (0..streams).map(|_| entry.build(&toml::Table::new(), shape).expect("no parameters"));
            let mut buffers: Vec<Box<dyn HotBuffer>> = made.collect();
            for (step, buf) in (0u32..).zip(steps) {
                let rows = recording.step(request, step, buf).expect("it is in memory");
                for (row, buffer) in rows.iter().zip(&mut buffers) {
                    let selection = Selection {
                        blocks: row.blocks,
                        scores: &[],
                        near: &[],
                        newest: row.newest_selected,
                        grown: None,
                        foresight: None,
                    };
                    buffer.step(step, &selection, None, Below::HOST, &mut plan);
                    misses += plan.counts.misses;
                    seen += plan.counts.accesses;
                }
            }
        }
        (misses, seen)
    };
    accesses += replay(&mut rows).1;
    bencher.counter(ItemsCount::new(accesses)).bench_local(|| replay(&mut rows).0);
}
