//! Block accesses per second of the outside policy beside LRU by step, over the recorded pages: `cargo bench`.

use divan::Bencher;
use divan::counter::ItemsCount;
use kvtier_sim::config::RunConfig;
use kvtier_sim::engine::Replay;
use kvtier_sim::setup::{Blueprint, TraceIdentity};
use kvtier_traces::Recording;
use kvtier_units::Bytes;

fn main() {
    divan::main();
}

#[divan::bench(args = ["lru-step", "lrfu"], sample_count = 5, sample_size = 1)]
fn plane(bencher: Bencher<'_, '_>, policy: &str) {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = '{pages}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nhot = {{ policy = '{policy}' }}\n"
    );
    let config: RunConfig = toml::from_str(&text).expect("a valid configuration");
    let trace = TraceIdentity::read(&config.trace, None).expect("the sample is shipped");
    let blueprint =
        Blueprint::among(&outside_policy::table(), &config, &trace).expect("a valid configuration");
    let recording =
        Recording::decode(&config.trace, &blueprint.view, Bytes(4 << 30)).expect("the sample is valid");
    let run = blueprint.lower(&recording).expect("a valid configuration");
    let replay = Replay { run: &run, recording: &recording, future: None, stop: &|| false };
    let accesses = replay.execute(&mut ()).expect("it runs").whole.accesses;
    bencher.counter(ItemsCount::new(accesses)).bench_local(|| replay.execute(&mut ()).expect("it runs").hash);
}
