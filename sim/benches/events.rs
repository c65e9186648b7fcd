//! Events per second: the queue alone under the hold model, and whole steps through queues and links.

use divan::Bencher;
use divan::counter::ItemsCount;
use kvtier_sim::choice::Transfer;
use kvtier_sim::events::EventQueue;
use kvtier_sim::executor::Executor;
use kvtier_sim::overlap::{Launch, Overlap, TimeConfig, Variant};
use kvtier_sim::presets;
use kvtier_sim::transfer::{Mechanism, Order};
use kvtier_sim::work::{LayerWork, Movement, PrefetchUse, StepWork};
use kvtier_units::{Bytes, Nanos, Seed};
use rand::Rng;

fn main() {
    divan::main();
}

/// Each event taken schedules another, a random time ahead; so many wait at any time.
#[divan::bench(args = [16, 1_000, 100_000])]
fn hold(bencher: Bencher<'_, '_>, waiting: usize) {
    const EVENTS: usize = 1_000_000;
    let mut random = Seed(1).stream("bench.hold");
    let steps: Vec<u64> = (0..4_096).map(|_| 1 + random.next_u64() % 10_000).collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut queue = EventQueue::with_capacity(waiting + 1);
        (0..waiting as u64).for_each(|event| queue.schedule(Nanos(event % 997), 0, event));
        for at in 0..EVENTS {
            let (now, event) = queue.pop().expect("each event is followed by another");
            queue.schedule(now + Nanos(steps[at % steps.len()]), (event & 3) as u8, event);
        }
        queue.now()
    });
}

/// Steps of llama-3.1-8b, batch 8 at 32k tokens, with misses and prefetch in every layer.
#[divan::bench(args = ["serial", "hit-first", "layer-ahead"])]
fn executor(bencher: Bencher<'_, '_>, overlap: &str) {
    const STEPS: u32 = 100;
    let machine = presets::machine("h100-pcie5").expect("a preset");
    let model = presets::model("llama-3.1-8b").expect("a preset");
    let overlap = Overlap::ALL.iter().find(|(name, _)| *name == overlap).expect("a mode").1;
    let config = TimeConfig {
        variant: Variant::Offload,
        overlap,
        transfer: Transfer::Always(Mechanism::Gather),
        order: Order::Random,
        launch: Launch::Graph,
        request_region: Bytes(64 << 20),
        record_ops: false,
    };
    let works: Vec<StepWork> = (0..STEPS).map(step).collect();
    let run = || {
        let mut executor = Executor::new(&machine, &model, config);
        works.iter().for_each(|work| {
            executor.run_step(work);
        });
        executor.events()
    };
    bencher.counter(ItemsCount::new(run())).bench_local(run);
}

fn step(step: u32) -> StepWork {
    let movement = |each: u32| {
        let mut movement = Movement::default();
        (0..8).for_each(|_| movement.add_request(each * 8));
        movement
    };
    let layer = |at: u32| {
        let missed = 3 + (at * 7 + step * 5) % 6;
        LayerWork {
            streams: 64,
            candidate_blocks: 64 * 2_048,
            selected_blocks: 64 * 128,
            resident_blocks: 64 * u64::from(128 - missed),
            demand: movement(missed),
            prefetch: movement(2),
            prefetch_uses: vec![PrefetchUse { issued_step: step.saturating_sub(1), blocks: 96 }],
            written_back: if step.is_multiple_of(16) { 64 } else { 0 },
            ..LayerWork::default()
        }
    };
    StepWork {
        step,
        requests: 8,
        context_entries: 8 * 32_768,
        admission: Movement::default(),
        layers: (0..32).map(layer).collect(),
        ..StepWork::default()
    }
}
