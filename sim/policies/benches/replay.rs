//! Million block accesses per second on one core, per policy, whole steps through `HotBuffer::step`, on the shipped pages
//! and on the reference's sparse_decode; then replay by churn. Traces are in memory before the clock starts.
//! `cargo bench -p kvtier-policies --bench replay [-- POLICY...]`

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and may panic

mod timing;
mod traces;

#[path = "../tests/trace/mod.rs"]
#[allow(dead_code)] // what only tests and other benches read of a trace
mod trace;

use kvtier_policies::churn::{self, Change, ChurnReplay, SelectionDiff};
use kvtier_policies::eviction::{BufferShape, EVICTION, Entry};
use kvtier_policies::{Below, Selection, StreamPlan};
use kvtier_units::{BlockId, Seed};
use traces::Stream;

/// Rounds of each measurement.
const ROUNDS: usize = 15;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let policies: Vec<&Entry> = EVICTION.iter().filter(|entry| wants(entry.name)).collect();
    println!("{ROUNDS} rounds; million accesses/s undisturbed (median round); HBM state in bytes");
    let pages = traces::pages();
    let accesses = pages.iter().map(Stream::accesses).sum::<u64>();
    println!("\nshipped pages: {} streams, {accesses} accesses, 64 slots", pages.len());
    for entry in &policies {
        let state = entry.state;
        print!("{:16}", entry.name);
        print_line(accesses, time(&pages, |part| replay_whole(entry, &pages[part])));
        println!(
            "  {} per slot, {} per block, {} per stream",
            state.per_slot, state.per_block, state.per_stream
        );
    }
    let decode = decode_streams();
    let accesses = decode.iter().map(Stream::accesses).sum::<u64>();
    println!("\nsparse_decode: {} streams, {accesses} accesses, 64 blocks a step, 204 slots", decode.len());
    for entry in &policies {
        print!("{:16}", entry.name);
        print_line(accesses, time(&decode, |part| replay_whole(entry, &decode[part])));
        println!();
    }
    println!("\nshipped pages by churn (the same misses as above)");
    let accesses = pages.iter().map(Stream::accesses).sum::<u64>();
    let (timing, entered) = time(&pages, |part| compare_all(&pages[part]));
    let [undisturbed, median] = timing.rates(accesses);
    println!("{:32}{undisturbed:8.1} ({median:6.1})  {entered:8} entered", "difference of selections alone");
    let changes: Vec<Changes> = pages.iter().map(Changes::new).collect();
    for entry in policies.iter().filter(|entry| churn::build(entry.name, pages[0].shape).is_some()) {
        print!("{:32}", format!("{} from selections", entry.name));
        print_line(accesses, time(&pages, |part| churn_selections(entry, &pages[part])));
        print!("\n{:32}", format!("{} from differences", entry.name));
        let run = |part: usize| churn_changes(entry, pages[part].shape, &changes[part]);
        print_line(accesses, time(&pages, run));
        println!();
    }
}

/// A part is one stream; its buffer is made within the time.
fn time(streams: &[Stream], mut run: impl FnMut(usize) -> u64) -> (timing::Timing, u64) {
    timing::time(ROUNDS, streams.len(), || (), |(), part| run(part))
}

fn print_line(accesses: u64, (timing, misses): (timing::Timing, u64)) {
    let [undisturbed, median] = timing.rates(accesses);
    print!("{undisturbed:8.1} ({median:6.1})  {misses:8} misses");
}

/// A new buffer and all steps of the stream; returns the misses.
fn replay_whole(entry: &Entry, stream: &Stream) -> u64 {
    let mut buffer = entry.build(&toml::Table::new(), stream.shape).expect("defaults are valid");
    let mut plan = StreamPlan::default();
    let step = |(step, selection): (u32, Selection<'_>)| {
        buffer.step(step, &selection, None, Below::HOST, &mut plan);
        plan.counts.misses
    };
    (0u32..).zip(stream.steps()).map(step).sum()
}

fn compare_all(stream: &Stream) -> u64 {
    let mut diff = SelectionDiff::new(stream.shape.blocks, stream.shape.k);
    stream.steps().map(|selection| diff.step(selection.blocks).entered.len() as u64).sum()
}

fn new_churn(entry: &Entry, shape: BufferShape) -> Box<dyn ChurnReplay> {
    churn::build(entry.name, shape).expect("asked for policies that have one")
}

fn churn_selections(entry: &Entry, stream: &Stream) -> u64 {
    let mut diff = SelectionDiff::new(stream.shape.blocks, stream.shape.k);
    let mut buffer = new_churn(entry, stream.shape);
    let steps = stream.steps();
    steps.map(|step| buffer.step(&diff.step(step.blocks), step.grown).loads.len() as u64).sum()
}

/// The differences of a stream's selections, as a reader would deliver them.
struct Changes {
    blocks: Vec<BlockId>,
    /// Ends of what entered and of what left in `blocks`, blocks selected, and what grew.
    steps: Vec<(usize, usize, usize, Option<BlockId>)>,
}

impl Changes {
    fn new(stream: &Stream) -> Changes {
        let mut diff = SelectionDiff::new(stream.shape.blocks, stream.shape.k);
        let mut changes = Changes { blocks: Vec::new(), steps: Vec::new() };
        for selection in stream.steps() {
            let change = diff.step(selection.blocks);
            changes.blocks.extend_from_slice(change.entered);
            let entered = changes.blocks.len();
            changes.blocks.extend_from_slice(change.left);
            changes.steps.push((entered, changes.blocks.len(), change.selected, selection.grown));
        }
        changes
    }
}

fn churn_changes(entry: &Entry, shape: BufferShape, changes: &Changes) -> u64 {
    let mut buffer = new_churn(entry, shape);
    let (mut misses, mut start) = (0, 0);
    for &(entered, left, selected, grown) in &changes.steps {
        let (entered_blocks, left_blocks) = (&changes.blocks[start..entered], &changes.blocks[entered..left]);
        let change = Change { entered: entered_blocks, left: left_blocks, selected };
        misses += buffer.step(&change, grown).loads.len() as u64;
        start = left;
    }
    misses
}

/// The reference trace as it is meant: 32 streams, 64 blocks a step, a tenth of a stream's blocks resident.
fn decode_streams() -> Vec<Stream> {
    let trace = trace::sparse_decode(2_000_000);
    let slots = trace::STREAM_BLOCKS / 10;
    let k = u32::try_from(trace::SELECTED).expect("a selection is small");
    let shape = BufferShape { slots, blocks: trace::STREAM_BLOCKS, k, seed: Seed(1) };
    let mut streams: Vec<Stream> = (0..trace::STREAMS).map(|_| Stream::new(shape)).collect();
    for (step, accesses) in trace.accesses.chunks_exact(trace::SELECTED).enumerate() {
        let own: Vec<BlockId> = accesses.iter().map(|block| BlockId(block % trace::STREAM_BLOCKS)).collect();
        streams[step % trace::STREAMS as usize].push(&own, &[], false, None);
    }
    streams.iter_mut().for_each(Stream::finish);
    streams
}
