//! Laws that every registered prefetcher obeys, the bound that the oracle is, and the documentation of each.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_policies::demotion::{self, Choice, DEMOTION};
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::prefetch::{self, Entry, PREFETCH, PrefetchShape};
use kvtier_policies::{
    Admission, DecisionPlane, PlaneConfig, PolicyError, Selection, SelectionSource, Source, Start, StepPlan,
    TierConfig,
};
use kvtier_units::{BlockId, Seed};
use proptest::prelude::*;

const LAYERS: usize = 8;
const BLOCKS: u32 = 14;

/// What each layer selects in each step, with near misses.
#[derive(Clone, Debug)]
struct Script {
    steps: Vec<Vec<(Vec<BlockId>, Vec<BlockId>)>>,
}

/// The script as it stands at one step.
struct At<'a>(&'a Script, usize);

impl SelectionSource for At<'_> {
    fn selection(&self, _: usize, stream: usize) -> Selection<'_> {
        let (blocks, near) = &self.0.steps[self.1][stream];
        Selection { blocks, near, ..Selection::NOTHING }
    }

    fn upcoming(&self, _: usize, stream: usize, steps: u32) -> Option<&[BlockId]> {
        self.0.steps.get(self.1 + steps as usize).map(|layers| &layers[stream].0[..])
    }
}

/// Steps that repeat much of the one before, in layers that resemble each other; at most four blocks of a selection.
fn scripts(steps: usize) -> impl Strategy<Value = Script> {
    let pick = (prop::collection::vec(0u32..BLOCKS, 1..8), any::<bool>(), any::<bool>());
    prop::collection::vec(prop::collection::vec(pick, LAYERS), 1..steps).prop_map(|raw| {
        let mut steps: Vec<Vec<(Vec<BlockId>, Vec<BlockId>)>> = Vec::new();
        for step in raw {
            let mut layers: Vec<(Vec<BlockId>, Vec<BlockId>)> = Vec::new();
            for (layer, (blocks, as_before, as_above)) in step.into_iter().enumerate() {
                let mut ids: Vec<BlockId> = Vec::new();
                let of = |before: Option<&(Vec<BlockId>, Vec<BlockId>)>| before.map(|one| one.0[0]);
                let kept = if as_before { of(steps.last().map(|step| &step[layer])) } else { None };
                let shared = if as_above { of(layers.last()) } else { None };
                for block in kept.into_iter().chain(shared).chain(blocks.into_iter().map(BlockId)) {
                    if !ids.contains(&block) {
                        ids.push(block);
                    }
                }
                let near = ids.split_off(ids.len().min(4));
                layers.push((ids, near));
            }
            steps.push(layers);
        }
        Script { steps }
    })
}

fn config(policy: &str, prefetcher: &str, slots: u32, budget: u32) -> PlaneConfig {
    let prefetch = *prefetch::find(prefetcher).unwrap();
    PlaneConfig {
        eviction: *eviction::find(EVICTION, policy).unwrap(),
        params: toml::Table::new(),
        slots: vec![slots; LAYERS],
        head_groups: 1,
        k: 4,
        prefetch,
        prefetch_params: toml::Table::new(),
        prefetch_budget: budget,
        warm_frames: 0,
        admission: Default::default(),
        home_capacity: u64::MAX,
        tiers: Default::default(),
        block_bytes: 1,
        start: Start::Cold,
        allocation: Default::default(),
        seed: Seed(5),
    }
}

/// Replays the script; calls `each` with every step's plan, and returns the decision hash.
fn replay(config: PlaneConfig, script: &Script, mut each: impl FnMut(&StepPlan)) -> u64 {
    let mut plane = DecisionPlane::new(config).unwrap();
    let first_use = |_: usize, _: BlockId| u32::MAX;
    let admission =
        Admission { seat: 0, full_blocks: BLOCKS, max_blocks: BLOCKS, prefix: None, first_use: &first_use };
    plane.admit(&admission).unwrap();
    (0..script.steps.len()).for_each(|step| each(plane.step(&[0], &At(script, step))));
    plane.decision_hash()
}

fn misses(config: PlaneConfig, script: &Script, from: u32) -> u64 {
    let mut misses = 0;
    replay(config, script, |plan| {
        let streams = plan.layers.iter().flat_map(|layer| &layer.streams);
        misses += if plan.step < from { 0 } else { streams.map(|one| one.counts.misses).sum::<u64>() };
    });
    misses
}

/// Replays every plan on page tables of its own.
fn assert_lawful(entry: &Entry, policy: &str, slots: u32, budget: u32, script: &Script) {
    let name = format!("{} over {policy}", entry.name);
    let mut held = vec![vec![BlockId::NONE; slots as usize]; LAYERS];
    let run = || config(policy, entry.name, slots, budget);
    let hash = replay(run(), script, |plan| {
        for (number, (layer, held)) in plan.layers.iter().zip(&mut held).enumerate() {
            let stream = &layer.streams[0];
            for fill in stream.fills() {
                assert!(!held.contains(&fill.block), "{name}: only absent blocks are brought");
                let before = std::mem::replace(&mut held[fill.slot.index()], fill.block);
                assert_eq!(before, fill.victim, "{name}: the victim stood in the slot");
            }
            let brought = stream.ahead.len() + stream.prefetches.len();
            assert!(brought <= budget as usize, "{name}: the budget holds");
            assert_eq!(brought as u64, stream.counts.prefetches, "{name}: each is counted");
            assert!(stream.ahead.is_empty() || stream.prefetches.is_empty(), "{name}: one phase a step");
            assert!(entry.ahead || layer.source.is_none(), "{name}: says that it runs ahead");
            assert!(stream.ahead.is_empty() || layer.source.is_some_and(|from| (from as usize) < number));
            let selected = &script.steps[plan.step as usize][number].0;
            let after = stream.prefetches.iter();
            assert!(after.clone().all(|fill| !selected.contains(&fill.victim)), "{name}: a pin stays");
            assert!(selected.iter().all(|block| held.contains(block)), "{name}: the selection is resident");
        }
    });
    assert_eq!(hash, replay(run(), script, |_| {}), "{name}: decisions repeat");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_prefetcher_is_lawful(script in scripts(30), slots in 4u32..11, budget in 1u32..6) {
        for entry in PREFETCH {
            for policy in ["lru", "lru-step", "clock", "echo", "sieve"] {
                assert_lawful(entry, policy, slots, if entry.prefetches { budget } else { 0 }, &script);
            }
        }
    }

    #[test]
    fn the_oracle_leaves_the_first_step_alone_to_miss(script in scripts(30), slots in 8u32..12) {
        for policy in ["fifo", "lru", "lru-step", "echo"] {
            prop_assert_eq!(misses(config(policy, "oracle", slots, 4), &script, 1), 0, "{}", policy);
        }
    }
}

#[test]
fn every_prefetcher_brings_something_and_that_changes_the_hash() {
    let near = |step: u32| vec![BlockId((step + 7) % BLOCKS)];
    let block = |step: u32, nth: u32| BlockId((step * 3 + nth * nth) % BLOCKS);
    let layer = |step: u32| ((0..3).map(|nth| block(step, nth)).collect::<Vec<_>>(), near(step));
    let script = Script { steps: (0..90).map(|step| vec![layer(step % 9); LAYERS]).collect() };
    let without = replay(config("lru", "none", 5, 0), &script, |_| {});
    for entry in PREFETCH.iter().filter(|entry| entry.prefetches) {
        // lru holds what is more recent than what it dropped: nothing to bring back.
        let policy = if entry.name == "last-steps" { "random" } else { "lru" };
        let mut brought = 0;
        let hash = replay(config(policy, entry.name, 5, 4), &script, |plan| {
            let streams = plan.layers.iter().flat_map(|layer| &layer.streams);
            brought += streams.map(|one| one.counts.prefetches).sum::<u64>();
        });
        assert!(brought > 0, "{} brings nothing", entry.name);
        assert_ne!(hash, without, "{}", entry.name);
    }
}

fn documented(entry: &Entry) -> toml::Table {
    let path = format!("{}/../../configs/prefetch/{}.toml", env!("CARGO_MANIFEST_DIR"), entry.name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut table: toml::Table = text.parse().unwrap();
    assert_eq!(table.remove("policy").unwrap().as_str(), Some(entry.name), "{path}");
    let params = table.remove("params").map_or_else(toml::Table::new, |one| one.as_table().unwrap().clone());
    assert!(table.is_empty(), "{path} has a policy and its parameters only");
    params
}

#[test]
fn every_prefetcher_is_documented_and_its_file_states_the_defaults() {
    let mut random = 1u32;
    let mut draw = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        BlockId((random >> 20) % BLOCKS)
    };
    let mut select = || {
        let mut blocks: Vec<BlockId> = (0..4).map(|_| draw()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        (blocks, Vec::new())
    };
    let script = Script { steps: (0..200).map(|_| (0..LAYERS).map(|_| select()).collect()).collect() };
    for entry in PREFETCH {
        let budget = u32::from(entry.prefetches) * 3;
        let default = config("fifo", entry.name, 6, budget);
        let written = PlaneConfig { prefetch_params: documented(entry), ..default.clone() };
        assert_eq!(replay(written, &script, |_| {}), replay(default, &script, |_| {}), "{}", entry.name);
    }
}

#[test]
fn an_unknown_parameter_is_refused_with_the_known_ones() {
    let shape = PrefetchShape { layer: 1, blocks: 9, k: 4 };
    for entry in PREFETCH {
        let mut wrong = documented(entry);
        wrong.insert("no_such_parameter".into(), toml::Value::Integer(1));
        let Err(PolicyError::Params { field, message }) = entry.build(&wrong, shape).map(drop) else {
            panic!("{} takes an unknown parameter", entry.name);
        };
        assert_eq!(field, "prefetch.params");
        assert!(message.contains("no_such_parameter") && message.contains(entry.name), "{message}");
        for known in message.split('`').skip(1).step_by(2).filter(|word| *word != entry.name) {
            assert!(wrong.contains_key(known), "{}: {known} is undocumented", entry.name);
        }
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let refused = [
        ("next-layer", "lead = 0"),
        ("anchor-layer", "every = 1"),
        ("last-steps", "window = 1"),
        ("association", "entries = 100"),
        ("association", "successors = 0"),
        ("association", "least = 16"),
        ("oracle", "look_ahead = 0"),
        ("oracle", "look_ahead = 65"),
    ];
    for (name, text) in refused {
        let shape = PrefetchShape { layer: 1, blocks: 9, k: 4 };
        let built = prefetch::find(name).unwrap().build(&text.parse().unwrap(), shape);
        let error = built.map(drop).unwrap_err().to_string();
        assert!(error.starts_with("prefetch.params"), "{name} {text}: {error}");
    }
}

/// What layers 0 and 1 select in each step; the others select nothing.
fn above_and_own(steps: &[(&[u32], &[u32])]) -> Script {
    let ids = |blocks: &[u32]| (blocks.iter().copied().map(BlockId).collect::<Vec<_>>(), Vec::new());
    let layers = |&(above, own): &(&[u32], &[u32])| {
        let mut layers = vec![ids(above), ids(own)];
        layers.resize_with(LAYERS, || ids(&[]));
        layers
    };
    Script { steps: steps.iter().map(layers).collect() }
}

#[test]
fn what_is_brought_ahead_leaves_the_warm_pages() {
    // Layer 1 holds 0..3; 4 takes the place of 3, which is brought back from the one warm frame ahead of the look-up, in
    // the place of 2, which then has that frame.
    let script = above_and_own(&[(&[], &[0, 1, 2, 3]), (&[], &[4]), (&[3], &[3]), (&[], &[2])]);
    let mut seen = Vec::new();
    replay(PlaneConfig { warm_frames: 1, ..config("lru", "next-layer", 4, 1) }, &script, |plan| {
        let counts = plan.layers[1].streams[0].counts;
        let warm = (counts.warm_prefetches, counts.warm_hits);
        seen.push((warm, counts.prefetched, counts.misses, plan.layers[1].warm_evictions));
    });
    assert_eq!(seen[2], ((1, 0), 1, 0, 0), "3 made room for 2");
    assert_eq!(seen[3], ((0, 1), 0, 0, 0), "2 was there, and left for the next");
}

#[test]
fn what_is_brought_ahead_comes_from_its_own_tier() {
    let mut tiered = config("lru", "next-layer", 4, 1);
    let entry = demotion::find(DEMOTION, "age").unwrap();
    tiered.home_capacity = 8;
    let demotion = Choice { entry: *entry, params: toml::Table::new() };
    tiered.tiers =
        TierConfig { cxl: 1 << 20, demotion, high: 100, low: 50, batch: 1, ..TierConfig::default() };
    let script = above_and_own(&[(&[], &[12]), (&[0], &[0])]);
    let mut seen = Vec::new();
    replay(tiered, &script, |plan| {
        let stream = &plan.layers[1].streams[0];
        let sources: Vec<Source> = stream.ahead.iter().map(|fill| fill.source).collect();
        seen.push((sources, stream.counts.prefetches, stream.counts.prefetches_cxl));
    });
    assert_eq!(seen[1], (vec![Source::Cxl], 1, 1), "host holds few blocks, and 0 is not one of them");
}

#[test]
fn a_victim_that_is_demanded_in_the_same_step_does_not_stay_among_the_warm_pages() {
    // Layer 1 holds 0..3; ahead of its look-up 4 takes the place of 3, which it then selects.
    let script = above_and_own(&[(&[0], &[0, 1, 2, 3]), (&[4], &[3]), (&[5], &[6, 7, 8]), (&[], &[3])]);
    let warm = PlaneConfig { warm_frames: 1, ..config("lru", "next-layer", 4, 1) };
    let mut seen = Vec::new();
    replay(warm, &script, |plan| {
        let counts = plan.layers[1].streams[0].counts;
        seen.push((counts.misses, counts.warm_hits, counts.pollution, plan.layers[1].warm_evictions));
    });
    assert_eq!(
        seen[1],
        (1, 0, 1, 0),
        "3 was polluted away and missed from its home; 2 alone wants the frame"
    );
    assert_eq!(seen[3].1, 1, "3 left the buffer last in the step before");
}
