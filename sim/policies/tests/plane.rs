//! The decision plane from outside: warm pages, shared prefixes, starts and the decision hash.

#![allow(clippy::unwrap_used)] // a failing test or bench may panic

use kvtier_policies::allocation::Allocation;
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::{
    Admission, Counts, DecisionPlane, PlaneConfig, Prefix, SeatSlots, Selection, SelectionSource, Source,
    Start, StepPlan, prefetch,
};
use kvtier_units::{BlockId, Seed};

/// Selections by participant and stream, as plain numbers.
struct Script {
    blocks: Vec<Vec<BlockId>>,
    near: Vec<BlockId>,
    newest: bool,
    grown: Option<BlockId>,
    streams: usize,
}

impl SelectionSource for Script {
    fn selection(&self, participant: usize, stream: usize) -> Selection<'_> {
        Selection {
            blocks: &self.blocks[participant * self.streams + stream],
            scores: &[],
            near: &self.near,
            newest: self.newest,
            grown: self.grown,
            foresight: None,
        }
    }
}

fn script(blocks: &[&[u32]]) -> Script {
    let blocks = blocks.iter().map(|blocks| blocks.iter().copied().map(BlockId).collect()).collect();
    Script { blocks, near: Vec::new(), newest: false, grown: None, streams: 1 }
}

fn config(slots: u32, warm_frames: usize) -> PlaneConfig {
    PlaneConfig {
        eviction: *eviction::find(EVICTION, "lru").unwrap(),
        params: toml::Table::new(),
        slots: vec![slots],
        allocation: Allocation::default(),
        head_groups: 1,
        k: 2,
        prefetch: *prefetch::find("none").unwrap(),
        prefetch_params: toml::Table::new(),
        prefetch_budget: 0,
        warm_frames,
        admission: Default::default(),
        home_capacity: u64::MAX,
        tiers: Default::default(),
        block_bytes: 1,
        start: Start::Cold,
        seed: Seed(7),
    }
}

fn admit(plane: &mut DecisionPlane, seat: u32, full_blocks: u32, prefix: Option<Prefix>) -> Counts {
    let first_use = |_: usize, _: BlockId| u32::MAX;
    let admission = Admission { seat, full_blocks, max_blocks: 10, prefix, first_use: &first_use };
    plane.admit(&admission).unwrap()
}

/// A plane with requests of 10 blocks in seats `0..requests`, which share a prefix of `prefix` blocks, if any.
fn plane_of(config: PlaneConfig, requests: u32, prefix: u32) -> DecisionPlane {
    let mut plane = DecisionPlane::new(config).unwrap();
    let prefix = (prefix > 0).then_some(Prefix { group: 0, blocks: prefix });
    for seat in 0..requests {
        admit(&mut plane, seat, 10, prefix);
    }
    plane
}

fn counts(plan: &StepPlan) -> Vec<Counts> {
    plan.layers.iter().flat_map(|layer| &layer.streams).map(|stream| stream.counts).collect()
}

#[test]
fn a_warm_hit_exchanges_frames_and_is_no_miss() {
    let mut plane = plane_of(config(2, 2), 1, 0);
    plane.step(&[0], &script(&[&[0, 1]]));
    plane.step(&[0], &script(&[&[2, 3]]));
    // Blocks 1 and 0 left the buffer in this order and are warm now.
    let plan = plane.step(&[0], &script(&[&[0, 4]]));
    let stream = &plan.layers[0].streams[0];
    assert_eq!(stream.loads[0].source, Source::Warm);
    assert_eq!(stream.loads[1].source, Source::Home);
    assert_eq!((stream.counts.warm_hits, stream.counts.misses, stream.counts.cold), (1, 1, 1));
    assert_eq!(plan.layers[0].warm_evictions, 1, "1, 3 and 2 want two frames");
    let gone = plane.step(&[0], &script(&[&[1, 0]]));
    assert_eq!(counts(gone)[0].misses, 1, "1 was the oldest insertion");
    assert_eq!(counts(gone)[0].hits, 1);
}

#[test]
fn a_prefetch_from_the_warm_pages_is_counted_apart() {
    let mut prefetching = config(3, 2);
    prefetching.prefetch = *prefetch::find("next-ranked").unwrap();
    prefetching.prefetch_budget = 1;
    let mut plane = plane_of(prefetching, 1, 0);
    plane.step(&[0], &script(&[&[0, 1]]));
    plane.step(&[0], &script(&[&[2, 3]]));
    let near = Script { near: vec![BlockId(1)], ..script(&[&[2, 3]]) };
    let plan = plane.step(&[0], &near);
    assert_eq!(plan.layers[0].streams[0].prefetches[0].source, Source::Warm);
    let counts = counts(plan)[0];
    assert_eq!((counts.warm_prefetches, counts.prefetches), (1, 0));
    assert_eq!(plane.release(0).wasted, 1, "never demanded");
}

#[test]
fn streams_of_a_layer_see_the_pages_as_they_stood_at_its_start() {
    let mut plane = plane_of(config(2, 8), 2, 10);
    plane.step(&[0, 1], &script(&[&[0, 1], &[5, 6]]));
    // The first request drops 0 and 1 in this layer; the second, looking up later, must not see them yet.
    let plan = plane.step(&[0, 1], &script(&[&[2, 3], &[0, 1]]));
    assert_eq!(counts(plan)[1].warm_hits, 0);
    // 0, 1, 5 and 6 are warm now. Both take 5 in one layer: both hit the page, which is then gone.
    let plan = plane.step(&[0, 1], &script(&[&[5, 2], &[5, 0]]));
    assert_eq!(counts(plan).iter().map(|counts| counts.warm_hits).collect::<Vec<_>>(), [1, 1]);
    let plan = plane.step(&[0], &script(&[&[6, 5]]));
    assert_eq!(
        (counts(plan)[0].warm_hits, counts(plan)[0].hits),
        (1, 1),
        "6 stayed warm, 5 is in the buffer"
    );
}

#[test]
fn private_blocks_of_two_requests_are_apart_and_prefix_blocks_one() {
    let mut plane = plane_of(config(2, 8), 2, 5);
    plane.step(&[0], &script(&[&[1, 7]]));
    plane.step(&[0], &script(&[&[2, 3]]));
    // The first request's 1 (prefix) and 7 (private) are warm.
    let plan = plane.step(&[1], &script(&[&[1, 7]]));
    let loads = &plan.layers[0].streams[0].loads;
    assert_eq!((loads[0].source, loads[1].source), (Source::Warm, Source::Home));
}

#[test]
fn a_shared_prefix_occupies_one_frame() {
    // Both requests drop block 0: two frames hold it and each one's private block.
    let mut plane = plane_of(config(2, 3), 2, 5);
    plane.step(&[0, 1], &script(&[&[0, 7], &[0, 8]]));
    let plan = plane.step(&[0, 1], &script(&[&[1, 2], &[3, 4]]));
    assert_eq!(plan.layers[0].warm_evictions, 0, "0, 7 and 8 fit three frames");
    plane.release(0);
    let plan = plane.step(&[1], &script(&[&[0, 8]]));
    assert_eq!(counts(plan)[0].warm_hits, 2, "the prefix stays while one request of the group does");
}

#[test]
fn a_context_that_fits_is_loaded_at_admission() {
    let mut plane = DecisionPlane::new(config(4, 0)).unwrap();
    let admitted = admit(&mut plane, 0, 4, None);
    assert_eq!((admitted.admitted, admitted.misses), (4, 0));
    let plan = plane.step(&[0], &script(&[&[3, 0]]));
    assert_eq!((counts(plan)[0].hits, counts(plan)[0].misses), (2, 0));
    assert_eq!(admit(&mut plane, 1, 5, None).admitted, 0, "a longer context starts cold");
}

#[test]
fn a_recent_start_holds_the_last_blocks() {
    let mut plane = DecisionPlane::new(PlaneConfig { start: Start::Recent, ..config(3, 0) }).unwrap();
    assert_eq!(admit(&mut plane, 0, 8, None).admitted, 0, "prefilled here: nothing moves");
    let plan = plane.step(&[0], &script(&[&[7, 1]]));
    let stream = &plan.layers[0].streams[0];
    assert_eq!((stream.counts.hits, stream.counts.misses, stream.counts.cold), (1, 1, 0));
    assert_eq!(stream.loads[0].victim, BlockId(5), "oldest is least recent");
}

/// The hash of a two-step run on one stream.
fn hash_of(config: PlaneConfig, first: &Script, second: &Script) -> u64 {
    let mut plane = plane_of(config, 1, 0);
    plane.step(&[0], first);
    plane.step(&[0], second);
    plane.decision_hash()
}

#[test]
fn equal_runs_have_equal_hashes_and_any_decision_changes_them() {
    let first = || script(&[&[0, 1]]);
    let second = || script(&[&[2, 0]]);
    let base = hash_of(config(3, 0), &first(), &second());
    assert_eq!(base, hash_of(config(3, 0), &first(), &second()));
    let clock = PlaneConfig { eviction: *eviction::find(EVICTION, "clock").unwrap(), ..config(3, 0) };
    assert_eq!(base, hash_of(clock, &first(), &second()), "another policy that decides alike");
    let others = [
        ("rank order", hash_of(config(3, 0), &script(&[&[1, 0]]), &second())),
        ("slots", hash_of(config(2, 0), &first(), &second())),
        ("selection", hash_of(config(3, 0), &first(), &script(&[&[3, 0]]))),
        ("length", hash_of(config(3, 0), &first(), &script(&[&[2]]))),
        ("newest", hash_of(config(3, 0), &first(), &Script { newest: true, ..second() })),
        ("growth", hash_of(config(3, 0), &first(), &Script { grown: Some(BlockId(9)), ..second() })),
        ("warm pages", hash_of(config(2, 2), &first(), &second())),
    ];
    let mut seen = vec![("base", base)];
    for (what, hash) in others {
        let twin = seen.iter().find(|&&(_, other)| other == hash);
        assert_eq!(twin, None, "a different {what} gives a different hash");
        seen.push((what, hash));
    }
}

#[test]
fn a_prefetch_changes_the_hash() {
    let near = || Script { near: vec![BlockId(5)], ..script(&[&[0, 1]]) };
    let prefetching = |budget| PlaneConfig {
        prefetch: *prefetch::find("next-ranked").unwrap(),
        prefetch_budget: budget,
        ..config(3, 0)
    };
    let without = hash_of(config(3, 0), &near(), &near());
    assert_ne!(without, hash_of(prefetching(1), &near(), &near()));
}

#[test]
fn a_request_keeps_its_hash_when_it_leaves_and_order_of_admission_counts() {
    let mut plane = plane_of(config(3, 0), 2, 0);
    plane.step(&[0, 1], &script(&[&[0, 1], &[2, 3]]));
    let before = plane.decision_hash();
    plane.release(0);
    assert_eq!(plane.decision_hash(), before);
    let mut swapped = plane_of(config(3, 0), 2, 0);
    swapped.step(&[0, 1], &script(&[&[2, 3], &[0]]));
    assert_ne!(swapped.decision_hash(), before);
}

#[test]
fn state_is_charged_per_block_slot_and_stream() {
    let bytes = |policy: &str| {
        let eviction = *eviction::find(EVICTION, policy).unwrap();
        let config = PlaneConfig { eviction, slots: vec![4, 6], head_groups: 2, ..config(4, 0) };
        DecisionPlane::new(config).unwrap().metadata_bytes(10)
    };
    // Four streams of ten blocks with 4 bytes of page table, and 2 x (4 + 6) slots with 4 bytes of tag.
    assert_eq!(bytes("lru"), 160 + 20 * (4 + 4));
    assert_eq!(bytes("echo"), 160 + 20 * (4 + 3) + 4 * (192 * 5 + 1), "the ghost and its step counter");
}

#[test]
fn what_a_smaller_buffer_gives_up_is_warm() {
    let mut plane = plane_of(config(4, 2), 1, 0);
    plane.step(&[0], &script(&[&[0, 1]]));
    plane.step(&[0], &script(&[&[2, 3]]));
    let left = plane.resize(&[SeatSlots { seat: 0, slots: &[2] }]);
    assert_eq!(left.evictions, 2);
    let plan = plane.step(&[0], &script(&[&[1, 2]]));
    let stream = &plan.layers[0].streams[0];
    assert_eq!((stream.counts.hits, stream.counts.warm_hits, stream.counts.misses), (1, 1, 0));
    assert_eq!(stream.loads[0].victim, BlockId(3));
}

#[test]
fn a_change_of_size_enters_the_hash_and_none_does_not() {
    let hash = |slots: Option<u32>| {
        let mut plane = plane_of(config(3, 0), 1, 0);
        plane.step(&[0], &script(&[&[0, 1]]));
        if let Some(slots) = slots {
            plane.resize(&[SeatSlots { seat: 0, slots: &[slots] }]);
        }
        plane.step(&[0], &script(&[&[0, 1]]));
        plane.decision_hash()
    };
    assert_eq!(hash(None), hash(Some(3)));
    assert_ne!(hash(None), hash(Some(4)), "though no block moved");
    assert_ne!(hash(Some(2)), hash(Some(4)));
}
