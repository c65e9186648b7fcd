//! A point replayed by itself, with the simulator as its time plane, is the very point that a sweep records.

use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::overlap::Variant;
use kvtier_sim::sweep::{Options, Sweep};
use kvtier_sim::timer::Timer;
use kvtier_units::Bytes;

#[test]
fn a_single_replay_is_the_point_of_a_sweep() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/gemma3-pages.parquet");
    let text = format!(
        "trace = \"{trace}\"\nmodel = \"llama-3.1-8b\"\nmachine = \"h100-pcie5\"\nbaselines = false\n\
         [batch]\nconcurrency = 2\nsteps = 24\nstagger = 9\n[hot]\nslots = \"1.5k\"\n"
    );
    let file = ConfigFile::parse(&text).unwrap();
    let memory = Bytes(1 << 30);
    let single = Single::prepare(&file, memory).unwrap();
    let mut timer = Timer::new(&single.blueprint, Variant::Offload, &single.run, &single.recording).unwrap();
    let decisions = single.replay(&mut timer, &|| false).unwrap();
    let point = single.point(&decisions, ("", timer.finish()), &|| false).unwrap();
    let options = Options { threads: 1, memory, stop: &|| false, finished: &|_| {} };
    let swept = Sweep::plan(file).unwrap().execute(None, &options).unwrap();
    assert_eq!(swept, [point]);
}

#[test]
fn a_grid_is_refused() {
    let text = "trace = \"t\"\nmodel = \"llama-3.1-8b\"\nmachine = \"h100-pcie5\"\n[grid]\n\"hot.slots\" = [64, 128]\n";
    let error = Single::prepare(&ConfigFile::parse(text).unwrap(), Bytes(1)).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("grid: one configuration"), "{error}");
}
