//! Replay by churn over the shipped pages, held to the decision hash of the engine's plain replay.

use kvtier_policies::churn::{self, SelectionDiff};
use kvtier_policies::eviction::BufferShape;
use kvtier_policies::{Fill, Start};
use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::setup::Run;
use kvtier_traces::{Newest, Recording, StepBuf};
use kvtier_units::{BlockId, Bytes, Seed, Slot};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The record of a stream's step as `hash.rs` of kvtier-policies documents it, nothing being prefetched.
fn record(step: u32, newest: bool, slots: &[Slot], loads: &[Fill], growth: Option<Fill>) -> Vec<u8> {
    let count = |n: usize| u32::try_from(n).expect("a step is small");
    let fill = |fill: &Fill| [fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32];
    let mut words = vec![step, u32::from(newest), count(slots.len())];
    words.extend(slots.iter().map(|slot| slot.0));
    words.push(count(loads.len()));
    words.extend(loads.iter().flat_map(fill));
    words.extend([0, u32::from(growth.is_some())]);
    words.extend(growth.iter().flat_map(fill));
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn hash_of_hashes(hashes: impl Iterator<Item = u64>) -> u64 {
    xxh3_64(&hashes.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
}

/// The hash of one stream of a request that runs from its first step to its last, and its misses.
fn replay_stream(
    policy: &str,
    run: &Run,
    recording: &Recording,
    request: usize,
    stream: usize,
) -> (u64, u64) {
    let steps = recording.steps(request);
    let blocks = recording.blocks_at(request, steps - 1);
    let (slots, k) = (run.slots, run.plane.k);
    let shape = BufferShape { slots, blocks, k, seed: Seed(0) };
    let mut buffer = churn::build(policy, shape).expect("a policy that is replayed by churn");
    let mut diff = SelectionDiff::new(blocks, k);
    let full = recording.newest_at(request, 0).0;
    let mut slot_of = vec![Slot::NONE; blocks as usize];
    if run.plane.start == Start::Recent {
        buffer.mark_prefilled(full);
        let first: Vec<BlockId> = (full.saturating_sub(slots)..full).map(BlockId).collect();
        first.iter().zip(0..).for_each(|(block, slot)| slot_of[block.index()] = Slot(slot));
        buffer.start(&first);
    }
    let (mut hash, mut misses, mut buf) = (0, 0, StepBuf::default());
    for step in 0..steps {
        let row = recording.step(request, step, &mut buf).expect("it is in memory").stream(stream);
        let context = recording.requests()[request].prompt_entries + step + 1;
        let grows = context.is_multiple_of(recording.entries_per_block())
            && recording.view().newest == Newest::Reserved;
        let grown = grows.then(|| recording.newest_at(request, step));
        let plan = buffer.step(&diff.step(row.blocks), grown);
        plan.loads.iter().chain(&plan.growth).for_each(|fill| slot_of[fill.block.index()] = fill.slot);
        // The growth of a step comes after its hits were looked up, and is never one of them.
        let found: Vec<Slot> = row.blocks.iter().map(|block| slot_of[block.index()]).collect();
        let bytes = record(step, row.newest_selected, &found, &plan.loads, plan.growth);
        hash = xxh3_64_with_seed(&bytes, hash);
        misses += plan.loads.len() as u64;
    }
    (hash, misses)
}

fn assert_hash_agrees(policy: &str, slots: &str, start: &str) {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = '{pages}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n\
         hot = {{ policy = '{policy}', slots = '{slots}', start = '{start}' }}\n"
    );
    let file = ConfigFile::parse(&text).expect("a valid configuration");
    let single = Single::prepare(&file, Bytes(4 << 30)).expect("the sample is shipped");
    let plain = single.replay(&mut (), &|| false).expect("it runs");
    let Single { run, recording, .. } = single;
    let mut misses = 0;
    let requests: Vec<u64> = (0..recording.requests().len())
        .map(|request| {
            let streams = (0..recording.streams_per_request()).map(|stream| {
                let (hash, missed) = replay_stream(policy, &run, &recording, request, stream);
                misses += missed;
                hash
            });
            hash_of_hashes(streams)
        })
        .collect();
    assert_eq!(misses, plain.whole.misses, "{policy} at {slots}, {start}");
    let warm_pages = 0;
    let hash = hash_of_hashes(requests.into_iter().chain([warm_pages]));
    assert_eq!(hash, plain.hash, "{policy} at {slots}, {start}: decision hash");
}

#[test]
fn fifo_by_churn_has_the_decision_hash_of_the_plain_replay() {
    assert_hash_agrees("fifo", "2k", "cold");
    assert_hash_agrees("fifo", "1k", "recent");
}

#[test]
fn lru_step_by_churn_has_the_decision_hash_of_the_plain_replay() {
    assert_hash_agrees("lru-step", "2k", "cold");
    assert_hash_agrees("lru-step", "1k", "recent");
    assert_hash_agrees("lru-step", "3k", "recent");
}
