//! What moves the blocks of a list, as the executor runs it: by choice never slower than by the best single mechanism, and
//! a batch by the engine.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_sim::attribution::{OpKind, OpSpan};
use kvtier_sim::choice::Transfer;
use kvtier_sim::executor::Executor;
use kvtier_sim::overlap::{Launch, Overlap, TimeConfig, Variant};
use kvtier_sim::presets::{self, MACHINES};
use kvtier_sim::transfer::{Mechanism, Order};
use kvtier_sim::work::{LayerWork, Movement, StepWork};
use kvtier_units::{Bytes, Nanos};

fn config(overlap: Overlap, transfer: Transfer, launch: Launch) -> TimeConfig {
    TimeConfig {
        variant: Variant::Offload,
        overlap,
        transfer,
        order: Order::Random,
        launch,
        request_region: Bytes(1 << 30),
        record_ops: true,
    }
}

/// The only swap-in of a step whose first layer misses `each` blocks of `block_bytes` in each of eight requests.
fn swap_in(machine: &str, config: TimeConfig, each: u32, block_bytes: u64) -> OpSpan {
    swap_in_from(false, machine, config, each, block_bytes)
}

/// The same from host memory, or from CXL memory `below` it.
fn swap_in_from(below: bool, machine: &str, config: TimeConfig, each: u32, block_bytes: u64) -> OpSpan {
    let machine = presets::machine(machine).unwrap();
    let mut model = presets::model("llama-3.1-8b").unwrap();
    model.attention.block_bytes = Bytes(block_bytes);
    let mut demand = Movement::default();
    (0..8).for_each(|_| demand.add_request(each));
    let layer =
        LayerWork { streams: 64, selected_blocks: 8_192, resident_blocks: 8_192, ..Default::default() };
    let mut layers = vec![layer; 32];
    *if below { &mut layers[0].demand_below[0] } else { &mut layers[0].demand } = demand;
    layers[0].resident_blocks -= demand.blocks;
    let work = StepWork { requests: 8, context_entries: 1 << 18, layers, ..StepWork::default() };
    let mut executor = Executor::new(&machine, &model, config);
    *executor.run_step(&work).ops.iter().find(|op| op.kind == OpKind::Demand).unwrap()
}

#[test]
fn a_list_by_choice_takes_no_longer_than_by_the_best_mechanism() {
    let mut copied = [0; 2];
    for (machine, _) in MACHINES {
        for launch in [Launch::Graph, Launch::Stream] {
            for (each, bytes) in [
                (1, 656),
                (1, 1 << 23),
                (3, 8 << 10),
                (200, 8 << 10),
                (40, 64 << 10),
                (60, 1 << 22),
                (9, 1 << 25),
            ] {
                let has_cxl = presets::machine(machine).unwrap().cxl.is_some();
                for below in [false, true].into_iter().filter(|&below| !below || has_cxl) {
                    let took = |transfer| {
                        let config = config(Overlap::Serial, transfer, launch);
                        let op = swap_in_from(below, machine, config, each, bytes);
                        op.end - op.begin
                    };
                    let single = |(_, transfer): &(&str, Transfer)| match transfer {
                        Transfer::Always(mechanism) if launch == Launch::Graph && !mechanism.is_gather() => {
                            None
                        }
                        Transfer::Always(_) => Some(took(*transfer)),
                        Transfer::Auto => None,
                    };
                    let best = Transfer::ALL.iter().filter_map(single).min().unwrap();
                    assert_eq!(
                        took(Transfer::Auto),
                        best,
                        "{machine}, {launch:?}, 8 x {each} x {bytes} B, below host: {below}"
                    );
                    let gathered = took(Transfer::Always(Mechanism::Gather));
                    copied[usize::from(below)] += u32::from(best < gathered);
                }
            }
        }
    }
    assert!(copied[0] > 0, "some lists are large enough for a copy engine");
}

#[test]
fn a_batch_is_made_by_the_engine_wherever_it_stands() {
    let batch = |overlap, bytes| {
        let transfer = Transfer::Always(Mechanism::CopyBatch);
        let op = swap_in("h100-pcie5", config(overlap, transfer, Launch::Stream), 100, bytes);
        (op.end - op.begin).0 as f64 / 800.0
    };
    let params = presets::machine("h100-pcie5").unwrap().transfer;
    for (overlap, bytes) in
        [(Overlap::Serial, 8_192u64), (Overlap::HitFirst, 8_192), (Overlap::Serial, 65_536)]
    {
        let (ns, exact) =
            (batch(overlap, bytes), params.copy_batch.queued_ns + bytes as f64 / params.copy.rate);
        // What it takes to begin is shared by eight hundred blocks.
        assert!((ns - exact).abs() < 20.0, "{ns} ns a block, not {exact}");
    }
}

#[test]
fn an_engine_waits_for_the_look_up_where_the_host_tells_it() {
    let took = |transfer, launch| {
        let op = swap_in("h100-pcie5", config(Overlap::Serial, transfer, launch), 10, 8_192);
        op.end - op.begin
    };
    let more = |mechanism| {
        let transfer = Transfer::Always(mechanism);
        took(transfer, Launch::Stream) - took(transfer, Launch::Graph)
    };
    let submission = presets::machine("h100-pcie5").unwrap().kernels.submission;
    assert_eq!((more(Mechanism::Gather), more(Mechanism::CopyBatch)), (Nanos::ZERO, submission));
}
