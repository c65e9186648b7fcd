//! Miss counts with selections of one block against libCacheSim 0.3.5 on unit-size objects: `data/reference.csv`
//! holds its figures (trace, policy, parameters as given to it, seed, cache objects, requests, misses).

#![allow(clippy::unwrap_used)] // a failing test or bench may panic

mod trace;

use kvtier_policies::eviction::{BufferShape, EVICTION, find};
use kvtier_units::{BlockId, Seed};
use std::collections::BTreeSet;
use trace::Trace;

/// Policies whose definitions agree: the reference's name and parameters, ours, and a number that the slots must be
/// divisible by for that. (Where the segments of SLRU do not divide the slots evenly, libCacheSim evicts the last
/// of an overfull lowest segment as soon as a block falls into it, even on a hit.)
const EQUAL: &[(&str, &str, &str, &str, u32)] = &[
    ("fifo", "", "fifo", "", 1),
    ("lru", "", "lru", "", 1),
    ("clock", "", "clock", "", 1),
    ("clock", "n-bit-counter=2", "clock", "bits = 2", 1),
    ("clock", "n-bit-counter=3", "clock", "bits = 3", 1),
    ("lfu", "", "lfu", "", 1),
    ("belady", "", "belady", "", 1),
    ("sieve", "", "sieve", "", 1),
    ("slru", "", "slru", "shares = [1, 1, 1, 1]\nvariant = 'libcachesim'", 4),
    ("slru", "n-seg=2", "slru", "variant = 'libcachesim'", 2),
    ("slru", "seg-size=1:4", "slru", "shares = [1, 4]\nvariant = 'libcachesim'", 5),
    ("twoq", "", "2q", "", 1),
    ("arc", "", "arc", "", 1),
    ("lru-k", "", "lru-k", "variant = 'libcachesim'", 1),
    ("lru-k", "k=3", "lru-k", "k = 3\nvariant = 'libcachesim'", 1),
    ("s3fifov0", "", "s3-fifo", "", 1),
    ("s3fifo", "", "s3-fifo", "variant = 'libcachesim'", 1),
    ("s3fifo", "move-to-main-threshold=1", "s3-fifo", "promote_after = 1\nvariant = 'libcachesim'", 1),
];

/// 200 k accesses drawn from a Zipf distribution (exponent 1) over 10 k blocks.
fn zipf_small() -> Trace {
    let bytes = include_bytes!("data/zipf_small.u16");
    let ids = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]])));
    Trace { accesses: ids.collect(), blocks: 10_000 }
}

/// 100 k blocks in turn, 50 times.
fn cycle() -> Trace {
    Trace { accesses: (0..50).flat_map(|_| 0..100_000).collect(), blocks: 100_000 }
}

/// Policies compared, not matched, for the reasons in REFERENCE.md: the reference's name and parameters, ours, and by
/// how many thousandths of the accesses the misses may differ at most.
const COMPARED: &[(&str, &str, &str, &str, u64)] = &[
    ("gdsf", "", "gdsf", "", 4),
    ("slru", "", "slru", "shares = [1, 1, 1, 1]\nvariant = 'libcachesim'", 1),
    ("slru", "n-seg=2", "slru", "variant = 'libcachesim'", 1),
    ("slru", "seg-size=1:4", "slru", "shares = [1, 4]\nvariant = 'libcachesim'", 1),
    ("lru-k", "", "lru-k", "", 31),
    ("lirs", "", "lirs", "", 1),
    ("wtinylfu", "", "w-tinylfu", "", 8),
    ("hyperbolic", "", "hyperbolic", "", 3),
];

/// The next access to the same block after each, `u32::MAX` where there is none.
fn next_uses(trace: &Trace) -> Vec<u32> {
    let mut last = vec![u32::MAX; trace.blocks as usize];
    let mut next = vec![0; trace.accesses.len()];
    for (at, &block) in trace.accesses.iter().enumerate().rev() {
        next[at] = last[block as usize];
        last[block as usize] = u32::try_from(at).unwrap();
    }
    next
}

/// Misses of one of our policies, one block a step.
fn misses(trace: &Trace, next: &[u32], policy: &str, params: &str, slots: u32) -> u64 {
    let entry = find(EVICTION, policy).unwrap();
    let shape = BufferShape { slots, blocks: trace.blocks, k: 1, seed: Seed(1) };
    let mut buffer = entry.build(&params.parse().unwrap(), shape).unwrap();
    let blocks: Vec<BlockId> = trace.accesses.iter().copied().map(BlockId).collect();
    buffer.access(&blocks, next)
}

/// One line of the reference: (policy, parameters, cache objects, misses).
fn reference(trace: &str) -> Vec<(&'static str, &'static str, u32, u64)> {
    let rows = include_str!("data/reference.csv").lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, policy, params, _, objects, _, misses] = fields[..] else {
            panic!("seven fields: {line}")
        };
        (name == trace).then(|| (policy, params, objects.parse().unwrap(), misses.parse().unwrap()))
    });
    rows.collect()
}

fn assert_equals_the_reference(name: &str, trace: &Trace, sizes: usize) {
    let rows = reference(name);
    let next = next_uses(trace);
    let mut wrong = Vec::new();
    for &(policy, params, ours, our_params, divisor) in EQUAL {
        let listed: Vec<_> = rows.iter().filter(|row| (row.0, row.1) == (policy, params)).collect();
        assert!(listed.len() >= sizes, "{name} lists {} sizes of {policy} {params}", listed.len());
        for &&(_, _, slots, expected) in listed.iter().filter(|row| row.2 % divisor == 0) {
            let found = misses(trace, &next, ours, our_params, slots);
            if found != expected {
                wrong.push(format!("{ours} {our_params} with {slots} slots: {found}, reference {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn zipf_small_equals_the_reference() {
    assert_equals_the_reference("zipf_small", &zipf_small(), 5);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "slow without optimisation: run with --release")]
fn sparse_decode_equals_the_reference() {
    assert_equals_the_reference("sparse_decode", &trace::sparse_decode(10_000_000), 6);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "slow without optimisation: run with --release")]
fn loop_equals_the_reference() {
    assert_equals_the_reference("loop", &cycle(), 11);
}

#[test]
fn compared_policies_stay_near_the_reference() {
    let trace = zipf_small();
    let next = next_uses(&trace);
    let rows = reference("zipf_small");
    for &(policy, params, ours, our_params, thousandths) in COMPARED {
        // Below 100 objects the reference's W-TinyLFU has an empty window and inserts nothing.
        let sensible = |slots: u32| policy != "wtinylfu" || slots >= 100;
        let listed = rows.iter().filter(|row| (row.0, row.1) == (policy, params) && sensible(row.2));
        for &(_, _, slots, theirs) in listed {
            let found = misses(&trace, &next, ours, our_params, slots);
            println!(
                "{policy} {params} | {slots} | {theirs} | {found} | {:+}",
                found.cast_signed() - theirs.cast_signed()
            );
            let bound = trace.accesses.len() as u64 * thousandths / 1000;
            assert!(
                found.abs_diff(theirs) <= bound,
                "{ours} {our_params} with {slots} slots: {found}, {theirs}"
            );
        }
    }
}

/// GDSF as libCacheSim runs it: the newcomer enters first and may be the one that leaves.
fn gdsf_insert_first(trace: &Trace, slots: usize) -> u64 {
    let mut order = BTreeSet::new();
    let mut held: Vec<Option<(u64, u64, u64)>> = vec![None; trace.blocks as usize];
    let (mut inflation, mut misses) = (0, 0);
    for (now, &block) in (0u64..).zip(&trace.accesses) {
        let count = match held[block as usize] {
            Some((value, then, count)) => {
                order.remove(&(value, then, block));
                count + 1
            }
            None => {
                misses += 1;
                1
            }
        };
        held[block as usize] = Some((inflation + count, now, count));
        order.insert((inflation + count, now, block));
        if order.len() > slots {
            let (value, _, victim) = order.pop_first().unwrap();
            held[victim as usize] = None;
            inflation = value;
        }
    }
    misses
}

#[test]
fn gdsf_differs_from_the_reference_only_in_when_the_newcomer_enters() {
    let trace = zipf_small();
    for (_, _, slots, misses) in reference("zipf_small").into_iter().filter(|row| row.0 == "gdsf") {
        assert_eq!(gdsf_insert_first(&trace, slots as usize), misses, "{slots} slots");
    }
}
