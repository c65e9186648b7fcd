//! Million block accesses per second on one core, per policy: `cargo bench -p kvtier-policies --bench replay`.
//! The traces are made before the clock starts; a step goes through the same virtual call as in a run.

#![allow(clippy::unwrap_used)] // a failing test or bench may panic

#[path = "../tests/trace/mod.rs"]
mod trace;

use divan::counter::ItemsCount;
use kvtier_policies::eviction::{BufferShape, EVICTION, Entry};
use kvtier_policies::{Foresight, HotBuffer, Selection, StreamPlan, WarmLookup};
use kvtier_units::{BlockId, Seed};
use std::hint::black_box;
use std::sync::LazyLock;

fn main() {
    divan::main();
}

/// Steps of equal width over interleaved streams.
struct Steps {
    blocks: Vec<BlockId>,
    /// The next step of the stream that selects the block, for Belady.
    next_use: Vec<u32>,
    width: usize,
    streams: usize,
    stream_blocks: u32,
    slots: u32,
}

impl Steps {
    fn new(blocks: Vec<BlockId>, width: usize, streams: usize, stream_blocks: u32, slots: u32) -> Steps {
        let mut last = vec![u32::MAX; streams * stream_blocks as usize];
        let mut next_use = vec![0; blocks.len()];
        for (at, block) in blocks.iter().enumerate().rev() {
            let step = at / width;
            let entry = &mut last[step % streams * stream_blocks as usize + block.index()];
            next_use[at] = std::mem::replace(entry, u32::try_from(step).unwrap());
        }
        Steps { blocks, next_use, width, streams, stream_blocks, slots }
    }

    fn buffers(&self, entry: &Entry) -> Vec<Box<dyn HotBuffer>> {
        let k = u32::try_from(self.width).unwrap();
        let shape = BufferShape { slots: self.slots, blocks: self.stream_blocks, k, seed: Seed(1) };
        (0..self.streams).map(|_| entry.build(&toml::Table::new(), shape).unwrap()).collect()
    }

    /// Replays everything; returns the misses.
    fn replay(&self, buffers: &mut [Box<dyn HotBuffer>]) -> u64 {
        let mut plan = StreamPlan::default();
        let mut misses = 0;
        let steps = self.blocks.chunks_exact(self.width).zip(self.next_use.chunks_exact(self.width));
        for (step, (blocks, next_use)) in (0u32..).zip(steps) {
            let foresight = Some(Foresight { next_use, grown_next_use: u32::MAX });
            let selection =
                Selection { blocks, scores: &[], near: &[], newest: false, grown: None, foresight };
            let stream = step as usize % self.streams;
            buffers[stream].step(step, &selection, None, WarmLookup::NONE, &mut plan);
            misses += plan.counts.misses;
        }
        misses
    }
}

/// The reference trace as it is meant: 32 streams, 64 blocks a step, a tenth of a stream's blocks resident.
fn decode_steps() -> Steps {
    let trace = trace::sparse_decode(2_000_000);
    let own = trace.accesses.iter().map(|block| BlockId(block % trace::STREAM_BLOCKS));
    let streams = trace::STREAMS as usize;
    Steps::new(own.collect(), trace::SELECTED, streams, trace::STREAM_BLOCKS, trace::STREAM_BLOCKS / 10)
}

/// The same trace as a cache simulator reads it: one stream, one block a step, a tenth of all blocks resident.
fn single_blocks() -> Steps {
    let trace = trace::sparse_decode(2_000_000);
    let blocks = trace.accesses.iter().copied().map(BlockId);
    Steps::new(blocks.collect(), 1, 1, trace.blocks, trace.blocks / 10)
}

/// Page selections: 32 of 256 pages, in rank order, three quarters kept from step to step; 64 slots.
fn page_steps() -> Steps {
    let trace = trace::sparse_decode(2_000_000);
    let (streams, pages) = (trace::STREAMS as usize, 256);
    // Every other block of a step, folded to 256 pages; where two fall together, the next free page.
    let mut blocks = Vec::new();
    for step in trace.accesses.chunks_exact(trace::SELECTED) {
        let mut taken = [false; 256];
        for block in step.iter().step_by(2) {
            let page = (0..pages).map(|by| (block + by) % pages).find(|&page| !taken[page as usize]).unwrap();
            taken[page as usize] = true;
            blocks.push(BlockId(page));
        }
    }
    Steps::new(blocks, trace::SELECTED / 2, streams, pages, 64)
}

fn measure(bencher: divan::Bencher<'_, '_>, steps: &Steps, entry: &Entry) {
    bencher
        .counter(ItemsCount::new(steps.blocks.len()))
        .with_inputs(|| steps.buffers(entry))
        .bench_local_refs(|buffers| black_box(steps.replay(buffers)));
}

/// Policies that weigh every slot for each victim, or fade all of them each step: made for steps, not for one block
/// among thousands of slots.
const BY_STEP: &[&str] = &[
    "lfu-aging",
    "hyperbolic",
    "rank-recency",
    "aged-score",
    "attention-mass",
    "region-utility",
    "echo",
    "random",
];

fn queues() -> impl Iterator<Item = &'static str> {
    names().filter(|name| !BY_STEP.contains(name))
}

fn names() -> impl Iterator<Item = &'static str> {
    EVICTION.iter().map(|entry| entry.name)
}

fn entry(name: &str) -> &'static Entry {
    kvtier_policies::eviction::find(EVICTION, name).unwrap()
}

#[divan::bench(args = names(), sample_count = 9, sample_size = 1, max_time = 1)]
fn steps_of_64_blocks(bencher: divan::Bencher<'_, '_>, name: &str) {
    static STEPS: LazyLock<Steps> = LazyLock::new(decode_steps);
    measure(bencher, &STEPS, entry(name));
}

static SINGLES: LazyLock<Steps> = LazyLock::new(single_blocks);

#[divan::bench(args = queues(), sample_count = 9, sample_size = 1, max_time = 1)]
fn single_block_steps(bencher: divan::Bencher<'_, '_>, name: &str) {
    measure(bencher, &SINGLES, entry(name));
}

/// The same without plans, as a plain cache simulator runs.
#[divan::bench(args = queues(), sample_count = 9, sample_size = 1, max_time = 1)]
fn single_blocks_plain(bencher: divan::Bencher<'_, '_>, name: &str) {
    let entry = entry(name);
    let next_use: &[u32] = if entry.needs_future { &SINGLES.next_use } else { &[] };
    bencher
        .counter(ItemsCount::new(SINGLES.blocks.len()))
        .with_inputs(|| SINGLES.buffers(entry))
        .bench_local_refs(|buffers| black_box(buffers[0].access(&SINGLES.blocks, next_use)));
}

#[divan::bench(args = names(), sample_count = 9, sample_size = 1, max_time = 1)]
fn page_steps_of_32(bencher: divan::Bencher<'_, '_>, name: &str) {
    static STEPS: LazyLock<Steps> = LazyLock::new(page_steps);
    measure(bencher, &STEPS, entry(name));
}
