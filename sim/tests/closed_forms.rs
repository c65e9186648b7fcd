//! The time plane against formulas that need no simulator: lone and shared transfers, a queue with Poisson arrivals,
//! steps that are sums of their parts, attention kernels that were timed.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_sim::attribution::{OpKind, OpSpan, Queue, StepSpans};
use kvtier_sim::choice::Transfer;
use kvtier_sim::events::EventQueue;
use kvtier_sim::executor::Executor;
use kvtier_sim::kernels::KernelCosts;
use kvtier_sim::links::{Duplex, Links, Resource, Route};
use kvtier_sim::overlap::{Launch, Overlap, TimeConfig, Variant};
use kvtier_sim::presets;
use kvtier_sim::transfer::{Mechanism, Order, TransferShape};
use kvtier_sim::work::{LayerWork, Movement, PrefetchUse, StepWork};
use kvtier_units::{Bandwidth, Bytes, Nanos, Seed};
use rand_distr::{Distribution, Exp};

const IN: Resource = Resource(0);
const OUT: Resource = Resource(1);

fn gbps(rate: u64) -> Bandwidth {
    Bandwidth(rate * 1_000_000_000)
}

/// Ends all flows, and says when each ended.
fn drain(links: &mut Links) -> Vec<(Nanos, u64)> {
    let mut ends = Vec::new();
    while let Some((end, id)) = links.next_end() {
        links.end(end, id);
        ends.push((end, id));
    }
    ends
}

#[test]
fn a_lone_flow_ends_at_bytes_over_bandwidth() {
    for bytes in [1, 4_096, 1_000_000, 123_456_789_012] {
        let mut links = Links::new(&[gbps(50)], None);
        links.start(Nanos(7), 1, Route::over(&[IN]), gbps(90), Bytes(bytes));
        assert_eq!(drain(&mut links), [(Nanos(7 + bytes.div_ceil(50)), 1)]);
    }
}

#[test]
fn a_saturated_link_takes_all_bytes_over_bandwidth_however_many_share_it() {
    for n in 1..=20 {
        let mut links = Links::new(&[gbps(50)], None);
        (0..n).for_each(|id| links.start(Nanos(0), id, Route::over(&[IN]), gbps(50), Bytes(1_000_000)));
        let last = drain(&mut links).last().unwrap().0.0;
        let exact = n * 1_000_000 / 50;
        assert!(last.abs_diff(exact) <= 1, "{n} flows: {last} ns, not {exact}");
    }
}

#[test]
fn a_flow_that_joins_halves_the_other_and_leaves_it_whole_again() {
    let mut links = Links::new(&[gbps(50)], None);
    links.start(Nanos(0), 1, Route::over(&[IN]), gbps(50), Bytes(100_000));
    links.start(Nanos(1_000), 2, Route::over(&[IN]), gbps(50), Bytes(25_000));
    // The second needs 1000 ns at half rate; the first then has 25,000 bytes left, at full rate.
    assert_eq!(drain(&mut links), [(Nanos(2_000), 2), (Nanos(2_500), 1)]);
}

#[test]
fn shares_are_max_min_with_caps_and_over_several_resources() {
    let mut links = Links::new(&[gbps(50), gbps(24)], None);
    links.start(Nanos(0), 1, Route::over(&[IN]), gbps(10), Bytes(1 << 30));
    links.start(Nanos(0), 2, Route::over(&[IN, OUT]), gbps(90), Bytes(1 << 30));
    links.start(Nanos(0), 3, Route::over(&[IN]), gbps(90), Bytes(1 << 30));
    links.start(Nanos(0), 4, Route::over(&[OUT]), gbps(90), Bytes(1 << 30));
    // Flow 1 stops at its cap; 2 and 4 halve the narrow resource; 3 takes what is left of the wide one.
    let rates: Vec<u64> = (1..=4).map(|id| links.rate(id).unwrap().0 / 1_000_000_000).collect();
    assert_eq!(rates, [10, 12, 28, 12]);
}

#[test]
fn opposing_directions_slow_each_other_and_only_while_both_run() {
    let duplex = Duplex { pair: [IN, OUT], shared: [gbps(40), gbps(40)] };
    let mut links = Links::new(&[gbps(50), gbps(50)], Some(duplex));
    links.start(Nanos(0), 1, Route::over(&[IN]), gbps(50), Bytes(100_000));
    links.start(Nanos(0), 2, Route::over(&[OUT]), gbps(50), Bytes(40_000));
    // Together for 1000 ns at 40 GB/s, then 60,000 bytes alone at 50.
    assert_eq!(drain(&mut links), [(Nanos(1_000), 2), (Nanos(2_200), 1)]);
    assert_eq!((links.busy(Nanos(2_200), IN), links.busy(Nanos(2_200), OUT)), (Nanos(2_200), Nanos(1_000)));
}

/// Waiting in an M/D/1 queue is rho / (2 (1 - rho)) service times.
#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // times drawn stay far below 2^63 ns
fn a_queue_with_poisson_arrivals_waits_as_pollaczek_and_khinchine_say() {
    const SERVICE: u64 = 1_000_000;
    #[derive(Clone, Copy)]
    enum Event {
        Arrives,
        Leaves,
    }
    for (rho, samples) in [(0.2, 1_000_000_u32), (0.5, 1_000_000), (0.8, 2_000_000)] {
        let gaps = Exp::new(rho / SERVICE as f64).unwrap();
        let mut random = Seed(11).stream("m/d/1");
        let mut events = EventQueue::with_capacity(8);
        let mut queue = std::collections::VecDeque::new();
        let (mut arrived, mut waited) = (0_u32, 0_u64);
        events.schedule(Nanos(gaps.sample(&mut random) as u64), 1, Event::Arrives);
        while let Some((now, event)) = events.pop() {
            match event {
                Event::Arrives => {
                    queue.push_back(now);
                    arrived += 1;
                    if arrived < samples {
                        events.schedule(now + Nanos(gaps.sample(&mut random) as u64), 1, Event::Arrives);
                    }
                    if queue.len() == 1 {
                        events.schedule(now + Nanos(SERVICE), 0, Event::Leaves);
                    }
                }
                Event::Leaves => {
                    waited += (now - queue.pop_front().unwrap()).0 - SERVICE;
                    if !queue.is_empty() {
                        events.schedule(now + Nanos(SERVICE), 0, Event::Leaves);
                    }
                }
            }
        }
        let mean = waited as f64 / f64::from(samples) / SERVICE as f64;
        let exact = rho / (2.0 * (1.0 - rho));
        println!("M/D/1 at rho {rho}: waits {mean:.4} services, exactly {exact:.4}");
        assert!((mean / exact - 1.0).abs() < 0.02, "rho {rho}: {mean} against {exact}");
    }
}

fn config(overlap: Overlap) -> TimeConfig {
    TimeConfig {
        variant: Variant::Offload,
        overlap,
        transfer: Transfer::Always(Mechanism::Gather),
        order: Order::Random,
        launch: Launch::Graph,
        request_region: Bytes(64 << 20),
        record_ops: true,
    }
}

/// A batch of eight over llama-3.1-8b at 32k tokens: 128 pages a head, so many of them missed and prefetched.
fn step(step: u32, missed: u32, prefetched: u32) -> StepWork {
    let (requests, groups, context) = (8_u32, 8_u32, 32_768_u64);
    let movement = |each: u32| {
        let mut movement = Movement::default();
        (0..requests).for_each(|_| movement.add_request(each * groups));
        movement
    };
    let streams = requests * groups;
    let selected = u64::from(streams) * 128;
    let uses = if step > 0 && prefetched > 0 {
        vec![PrefetchUse { issued_step: step - 1, blocks: prefetched * streams }]
    } else {
        Vec::new()
    };
    let layer = LayerWork {
        streams,
        candidate_blocks: u64::from(streams) * context / 16,
        selected_blocks: selected,
        resident_blocks: selected - u64::from(missed * streams),
        demand: movement(missed),
        prefetch: movement(prefetched),
        ahead: Movement::default(),
        ahead_of: None,
        prefetch_uses: uses,
        written_back: if step % 16 == 5 { u64::from(streams) } else { 0 },
        ..LayerWork::default()
    };
    StepWork {
        step,
        requests,
        context_entries: u64::from(requests) * context,
        admission: Movement::default(),
        layers: vec![layer; 32],
        ..StepWork::default()
    }
}

fn run(config: TimeConfig, steps: impl Iterator<Item = StepWork>) -> Vec<StepSpans> {
    let (machine, model) = (presets::machine("h100-pcie5").unwrap(), presets::model("llama-3.1-8b").unwrap());
    let mut executor = Executor::new(&machine, &model, config);
    steps.map(|work| executor.run_step(&work).clone()).collect()
}

#[test]
fn a_lone_transfer_takes_its_cost_to_the_nanosecond() {
    let machine = presets::machine("h100-pcie5").unwrap();
    for (_, mechanism) in Mechanism::ALL {
        let mut one = step(0, 3, 0);
        one.layers.iter_mut().skip(1).for_each(|layer| layer.demand = Movement::default());
        let spans = run(
            TimeConfig { transfer: Transfer::Always(mechanism), ..config(Overlap::Serial) },
            std::iter::once(one.clone()),
        );
        let op = spans[0].ops.iter().find(|op| op.kind == OpKind::Demand).unwrap();
        let shape = TransferShape {
            mechanism,
            order: Order::Random,
            blocks: 8 * 8 * 3,
            block_bytes: Bytes(8_192),
            region: Bytes((8 * 64) << 20),
            requests: 8,
            worst_request: 24,
            queued: true,
        };
        let alone = machine.transfer.cost(&shape).total() + machine.kernels.graph_node;
        assert_eq!(op.end - op.begin, alone, "{}", mechanism.name());
        assert_eq!(op.bytes, shape.payload());
    }
}

#[test]
fn a_serial_step_is_the_sum_of_its_operations() {
    for spans in run(config(Overlap::Serial), (0..8).map(|at| step(at, 5, 2))) {
        let compute: Vec<_> = spans.ops.iter().filter(|op| op.queue == Queue::Compute).collect();
        let sum: Nanos = compute.iter().map(|op| op.end - op.begin).sum();
        let gaps = compute[0].begin - spans.start;
        assert_eq!(sum + gaps, spans.time(), "step {}", spans.step);
        assert_eq!(
            compute.len(),
            32 * 6 + 1,
            "select, look up, swap in, attend, prefetch, dense; and the head"
        );
        assert_eq!(spans.total().time(), spans.time());
        assert_eq!(spans.total().late, 0, "a serial prefetch has ended before its layer comes again");
    }
}

#[test]
fn hit_first_loses_at_most_its_extra_kernels_and_gains_when_misses_are_long() {
    let machine = presets::machine("h100-pcie5").unwrap();
    let model = presets::model("llama-3.1-8b").unwrap();
    for missed in [0, 1, 8, 40, 128] {
        let serial = run(config(Overlap::Serial), std::iter::once(step(0, missed, 0)))[0].time();
        let split = run(config(Overlap::HitFirst), std::iter::once(step(0, missed, 0)))[0].time();
        let merge = KernelCosts::new(&machine, &model).merge(64).body;
        let extra = (machine.kernels.graph_node * 2 + machine.kernels.attention_ramp + merge + Nanos(2)) * 32;
        assert!(split <= serial + extra, "{missed} missed: {split} against {serial}, {extra} more at most");
        if missed == 40 {
            assert!(
                split < serial,
                "forty misses a stream outlast attention to the hits: {split} against {serial}"
            );
        }
    }
}

#[test]
fn layer_ahead_hides_what_fits_under_a_layer_and_calls_the_rest_late() {
    let hidden = run(config(Overlap::LayerAhead), (0..4).map(|at| step(at, 1, 1)));
    let total = hidden[3].total();
    assert_eq!((total.covered, total.late), (64 * 32, 0), "one block a stream flies under a layer");
    let serial = run(config(Overlap::Serial), (0..4).map(|at| step(at, 1, 1)));
    assert!(hidden[3].time() < serial[3].time());

    let crowded = run(config(Overlap::LayerAhead), (0..4).map(|at| step(at, 0, 60)));
    let total = crowded[3].total();
    assert!(total.late > 0, "sixty blocks a stream outlast a layer");
    assert_eq!(total.covered + total.late, 60 * 64 * 32);
    assert!(total.stall > Nanos::ZERO);
}

/// Steps in which every layer brings blocks ahead of the next, which selects them at once.
fn ahead(overlap: Overlap, blocks: u32) -> Vec<StepSpans> {
    let work = |at: u32| {
        let mut work = step(at, 0, 0);
        for (layer, number) in work.layers[1..].iter_mut().zip(0..) {
            (layer.ahead, layer.ahead_of) = (step(at, 0, blocks).layers[0].prefetch, Some(number));
            layer.prefetch_uses = vec![PrefetchUse { issued_step: at, blocks: blocks * layer.streams }];
        }
        work
    };
    run(config(overlap), (0..4).map(work))
}

#[test]
fn what_is_brought_ahead_flies_from_its_sources_look_up_and_is_waited_for() {
    let used = |blocks: u64| 64 * 31 * blocks;
    for overlap in [Overlap::HitFirst, Overlap::LayerAhead] {
        let covered = &ahead(overlap, 1)[3];
        assert_eq!(
            (covered.total().covered, covered.total().late),
            (used(1), 0),
            "one block flies under a layer"
        );
        assert_eq!(covered.total().stall, Nanos::ZERO);
        let late = &ahead(overlap, 60)[3];
        assert_eq!((late.total().covered, late.total().late), (0, used(60)), "sixty blocks outlast a layer");
        assert!(late.total().stall > Nanos::ZERO);
        for sent in late.ops.iter().filter(|op| op.kind == OpKind::Prefetch) {
            let source = |op: &&OpSpan| op.kind == OpKind::Lookup && op.layer == sent.layer;
            assert!(sent.begin >= late.ops.iter().find(source).unwrap().end, "{sent:?}");
        }
    }
    let serial = &ahead(Overlap::Serial, 1)[3];
    assert_eq!((serial.total().covered, serial.total().late), (used(1), 0), "it stood in the queue");
    assert!(serial.total().stall > Nanos::ZERO);
    assert_eq!(serial.total().h2d, Bytes(64 * 31 * 8_192));
}

#[test]
fn layer_ahead_without_a_prefetcher_is_serial_and_says_so() {
    let (machine, model) = (presets::machine("h100-pcie5").unwrap(), presets::model("llama-3.1-8b").unwrap());
    let mut ahead = Executor::new(&machine, &model, config(Overlap::LayerAhead));
    let mut serial = Executor::new(&machine, &model, config(Overlap::Serial));
    for at in 0..20 {
        assert_eq!(ahead.run_step(&step(at, 4, 0)), serial.run_step(&step(at, 4, 0)));
    }
    assert!(ahead.note().unwrap().contains("serial"));
    assert_eq!(serial.note(), None);
}

#[test]
fn write_backs_leave_the_step_and_hold_back_only_their_own_frames() {
    let spans = run(config(Overlap::Serial), (4..8).map(|at| step(at, 4, 0)));
    let with = &spans[1];
    assert_eq!(with.step, 5);
    assert_eq!(with.total().d2h, Bytes(64 * 32 * 8_192));
    let quiet = spans[0].time().0;
    // The reverse traffic slows the link for swap-ins; nothing else may lengthen the step.
    assert!(with.time().0 >= quiet && with.time().0 < quiet + quiet / 50, "{} against {quiet}", with.time());
    let written = spans.iter().flat_map(|s| &s.ops).filter(|op| op.kind == OpKind::WriteBack).count();
    assert_eq!(written, 32);
}

#[test]
fn admission_runs_before_the_step_and_counts_as_waiting() {
    let mut admitted = step(0, 0, 0);
    admitted.admission.add_request(4_096);
    let with = &run(config(Overlap::Serial), std::iter::once(admitted))[0];
    let without = &run(config(Overlap::Serial), std::iter::once(step(0, 0, 0)))[0];
    let (more, wait) = (with.time() - without.time(), with.outside.wait);
    assert!(wait > Nanos::ZERO && more == wait + presets::machine("h100-pcie5").unwrap().kernels.graph_node);
    assert_eq!(with.ops[0].kind, OpKind::Admit);
}

#[test]
fn streams_hide_submission_only_behind_longer_kernels() {
    let graph = &run(config(Overlap::Serial), std::iter::once(step(0, 0, 0)))[0];
    let stream = TimeConfig { launch: Launch::Stream, ..config(Overlap::Serial) };
    let stream = &run(stream, std::iter::once(step(0, 0, 0)))[0];
    assert_eq!(graph.total().compute, stream.total().compute);
    assert!(stream.total().launch >= graph.total().launch);
}

#[test]
fn baselines_move_nothing_and_two_runs_are_equal() {
    for (_, overlap) in Overlap::ALL {
        let again = || run(config(overlap), (0..20).map(|at| step(at, 3, 2)));
        assert_eq!(again(), again());
    }
    let of = |variant| {
        let config = TimeConfig { variant, ..config(Overlap::Serial) };
        run(config, std::iter::once(step(0, 5, 1)))[0].clone()
    };
    let (offload, resident, dense) = (of(Variant::Offload), of(Variant::Resident), of(Variant::Dense));
    for baseline in [&resident, &dense] {
        let total = baseline.total();
        assert_eq!((total.h2d, total.d2h, total.stall, total.wait), (Bytes(0), Bytes(0), Nanos(0), Nanos(0)));
    }
    assert!(resident.time() < offload.time(), "moving costs time");
    assert!(resident.time() < dense.time(), "at 32k tokens a selection is cheaper than the whole context");
}

/// Contiguous decode attention timed with torch: 32 query and 8 KV heads of 128 dims over 2048 tokens in bf16.
#[test]
fn attention_takes_as_long_as_it_was_timed() {
    const TOLERANCE: f64 = 0.12;
    let model = presets::model("llama-3.1-8b").unwrap();
    for (name, timed_us) in [("h100-pcie5", [7.7, 29.0, 180.0]), ("h200-pcie5", [7.6, 23.0, 125.7])] {
        let machine = presets::machine(name).unwrap();
        let costs = KernelCosts::new(&machine, &model);
        for (batch, timed) in [1_u64, 8, 64].into_iter().zip(timed_us) {
            let kernel = costs.attend_context(batch * 2_048);
            let us = (kernel.body + machine.kernels.graph_node).0 as f64 / 1e3;
            println!("{name}, batch {batch}: {us:.1} us, timed {timed}");
            assert!((us / timed - 1.0).abs() < TOLERANCE, "{name}, batch {batch}: {us} us against {timed}");
        }
    }
}

#[test]
fn latent_attention_with_128_heads_is_bound_by_arithmetic() {
    let machine = presets::machine("h100-pcie5").unwrap();
    let model = presets::model("deepseek-v3.2-fp8").unwrap();
    let costs = KernelCosts::new(&machine, &model);
    let ramp = machine.kernels.attention_ramp.0 as f64;
    let entries = 128_u64 * 2_048;
    let ns = costs.attend(entries).body.0 as f64 - ramp;
    let flops = entries as f64 * 128.0 * 2.0 * (576.0 + 512.0);
    assert!((flops / ns / 410e3 - 1.0).abs() < 0.01, "FlashMLA's 410 TFLOP/s");
    assert!(ns > 1.5 * (entries * 656) as f64 / (machine.hbm_read.0 as f64 / 1e9), "424 flop per byte");
}
