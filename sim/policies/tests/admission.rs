//! Admission to the warm pages against a slow second reading: plain lists, state by block where the crate has it by
//! slot, and the order of a layer as the specification gives it. Laws iterate the table.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_policies::admission::{self, ADMISSION, Choice};
use kvtier_policies::allocation::Allocation;
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::{
    Admission, DecisionPlane, PlaneConfig, PolicyError, Prefix, Selection, SelectionSource, Source, Start,
    StreamPlan, prefetch,
};
use kvtier_units::{BlockId, Seed};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SEATS: u32 = 2;
const BLOCKS: u32 = 12;
const PREFIX: u32 = 5;
const K: usize = 3;

/// What one stream is asked for: selected blocks and near misses.
type Ask = (Vec<u32>, Vec<u32>);

struct Step(Vec<(Vec<BlockId>, Vec<BlockId>)>);

impl SelectionSource for Step {
    fn selection(&self, participant: usize, _: usize) -> Selection<'_> {
        let (blocks, near) = &self.0[participant];
        Selection { blocks, scores: &[], near, newest: false, grown: None, foresight: None }
    }
}

fn asks() -> impl Strategy<Value = Vec<Vec<Ask>>> {
    let ids = |most| prop::collection::vec(0..BLOCKS, 1..=most);
    let ask = (ids(K), ids(3)).prop_map(|(blocks, near)| {
        let distinct = |ids: Vec<u32>, without: &[u32]| {
            let mut out: Vec<u32> = Vec::new();
            for id in ids {
                if !out.contains(&id) && !without.contains(&id) {
                    out.push(id);
                }
            }
            out
        };
        let blocks = distinct(blocks, &[]);
        let near = distinct(near, &blocks);
        (blocks, near)
    });
    prop::collection::vec(prop::collection::vec(ask, SEATS as usize), 1..40)
}

fn plane(choice: &Choice, slots: u32, frames: usize, budget: u32) -> DecisionPlane {
    let prefetcher = if budget > 0 { "next-ranked" } else { "none" };
    let config = PlaneConfig {
        eviction: *eviction::find(EVICTION, "lru").unwrap(),
        params: toml::Table::new(),
        slots: vec![slots],
        allocation: Allocation::default(),
        head_groups: 1,
        k: u32::try_from(K).unwrap(),
        prefetch: *prefetch::find(prefetcher).unwrap(),
        prefetch_budget: budget,
        prefetch_params: toml::Table::new(),
        warm_frames: frames,
        admission: choice.clone(),
        home_capacity: u64::MAX,
        tiers: Default::default(),
        block_bytes: 1,
        start: Start::Cold,
        seed: Seed(7),
    };
    let mut plane = DecisionPlane::new(config).unwrap();
    for seat in 0..SEATS {
        let prefix = Some(Prefix { group: 0, blocks: PREFIX });
        let first_use = |_: usize, _: BlockId| u32::MAX;
        let admission =
            Admission { seat, full_blocks: BLOCKS, max_blocks: BLOCKS, prefix, first_use: &first_use };
        plane.admit(&admission).unwrap();
    }
    plane
}

/// A block as the model knows it: table 0 is the prefix group's, which is opened first; then the seats'.
type Key = (u32, u32);

fn key(seat: usize, block: BlockId) -> Key {
    (if block.0 < PREFIX { 0 } else { u32::try_from(seat).unwrap() + 1 }, block.0)
}

/// The specification's reading of every policy; score with near misses.
struct Model {
    policy: &'static str,
    frames: usize,
    /// Oldest first.
    pages: Vec<Key>,
    /// Per seat and block: demands since it was brought.
    demands: BTreeMap<(usize, u32), u32>,
    /// Per seat and block: score, and when it was credited.
    scores: BTreeMap<(usize, u32), (u32, u32)>,
    /// Per row and index of the sketch.
    sketch: BTreeMap<(usize, u64), u32>,
    additions: u64,
}

/// Copies, insertions, rejected, evictions.
type Outcome = [u64; 4];

impl Model {
    fn new(policy: &'static str, frames: usize) -> Model {
        Model {
            policy,
            frames,
            pages: Vec::new(),
            demands: BTreeMap::new(),
            scores: BTreeMap::new(),
            sketch: BTreeMap::new(),
            additions: 0,
        }
    }

    fn counters(&self, key: Key) -> [(usize, u64); 4] {
        let spread =
            [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xff51_afd7_ed55_8ccd_u64];
        let width = self.frames.max(16).next_power_of_two() as u64;
        let word = (u64::from(key.0) << 32) + u64::from(key.1);
        let mixed = (word ^ (word >> 29)).wrapping_mul(spread[1]) ^ word;
        [0, 1, 2, 3].map(|row| (row, mixed.wrapping_mul(spread[row]) / (u64::MAX / width + 1)))
    }

    fn estimate(&self, key: Key) -> u32 {
        self.counters(key).iter().map(|at| self.sketch.get(at).copied().unwrap_or(0)).min().unwrap()
    }

    fn demand(&mut self, key: Key) {
        for at in self.counters(key) {
            let count = self.sketch.entry(at).or_default();
            *count = (*count + 1).min(15);
        }
        self.additions += 1;
        if self.additions == 10 * self.frames.max(16) as u64 {
            self.additions /= 2;
            self.sketch.values_mut().for_each(|count| *count /= 2);
        }
    }

    fn faded(&self, seat: usize, block: u32, step: u32) -> u32 {
        let (score, since) = self.scores.get(&(seat, block)).copied().unwrap_or_default();
        (0..(step - since) / 8).fold(score, |score, _| score / 2)
    }

    fn admits(&self, seat: usize, block: BlockId, step: u32, doomed: usize) -> bool {
        match self.policy {
            "always" => true,
            "never" => false,
            "second-touch" => self.demands.get(&(seat, block.0)).is_some_and(|&demands| demands >= 2),
            "sketch" => {
                self.pages.len() < self.frames
                    || self.estimate(key(seat, block)) > self.estimate(self.pages[doomed])
            }
            "score" => self.faded(seat, block.0, step) >= 192,
            other => panic!("the model does not know `{other}`"),
        }
    }

    /// One layer, given what the streams did to their buffers.
    fn layer(&mut self, step: u32, plans: &[StreamPlan], asks: &[Ask], resident: &[Vec<u32>]) -> Outcome {
        let mut outcome = [0; 4];
        for (seat, plan) in plans.iter().enumerate() {
            for fill in plan.loads.iter().chain(&plan.prefetches) {
                if fill.source == Source::Warm {
                    let before = self.pages.len();
                    self.pages.retain(|&page| page != key(seat, fill.block));
                    outcome[0] += u64::from(self.pages.len() == before);
                }
            }
            plan.loads.iter().for_each(|fill| self.demand(key(seat, fill.block)));
        }
        for (seat, plan) in plans.iter().enumerate() {
            for fill in plan.fills().filter(|fill| fill.victim != BlockId::NONE) {
                let page = key(seat, fill.victim);
                let doomed = self.pages.len().saturating_sub(self.frames);
                let held = self.pages.contains(&page);
                if held || self.admits(seat, fill.victim, step, doomed) {
                    self.pages.retain(|&other| other != page);
                    self.pages.push(page);
                    outcome[1] += 1;
                } else {
                    outcome[2] += 1;
                }
            }
            self.credit(seat, step, plan, &asks[seat], &resident[seat]);
        }
        let doomed = self.pages.len().saturating_sub(self.frames);
        self.pages.drain(..doomed);
        outcome[3] = doomed as u64;
        outcome
    }

    fn credit(&mut self, seat: usize, step: u32, plan: &StreamPlan, ask: &Ask, resident: &[u32]) {
        for fill in plan.fills() {
            self.demands.insert((seat, fill.block.0), 0);
            self.scores.insert((seat, fill.block.0), (0, step));
        }
        let selected = u32::try_from(ask.0.len()).unwrap();
        let ranked = (0u32..).zip(&ask.0).map(|(rank, &block)| (block, 256 - 128 * rank / selected));
        let near = ask.1.iter().filter(|block| resident.contains(block)).map(|&block| (block, 96));
        for (block, more) in ranked.chain(near) {
            let score = self.faded(seat, block, step) + more;
            self.scores.insert((seat, block), (score.min(65_535), step));
        }
        ask.0.iter().for_each(|&block| *self.demands.entry((seat, block)).or_default() += 1);
    }
}

/// Runs a script and checks every layer against the model; returns the plane's hash.
fn hold(policy: &'static str, slots: u32, frames: usize, budget: u32, script: &[Vec<Ask>]) -> u64 {
    let entry = *admission::find(ADMISSION, policy).unwrap();
    let params =
        if policy == "score" { "near = 96\nthreshold = 192".parse().unwrap() } else { toml::Table::new() };
    let mut plane = plane(&Choice { entry, params }, slots, frames, budget);
    let mut model = Model::new(policy, frames);
    let mut resident: Vec<Vec<u32>> = vec![Vec::new(); SEATS as usize];
    for (step, asks) in (0u32..).zip(script) {
        let ids = |ids: &[u32]| ids.iter().copied().map(BlockId).collect::<Vec<_>>();
        let source = Step(asks.iter().map(|(blocks, near)| (ids(blocks), ids(near))).collect());
        let before = model.pages.clone();
        let plan = plane.step(&[0, 1], &source);
        let layer = &plan.layers[0];
        for (seat, stream) in layer.streams.iter().enumerate() {
            for fill in stream.loads.iter().chain(&stream.prefetches) {
                let warm = before.contains(&key(seat, fill.block));
                assert_eq!(fill.source == Source::Warm, warm, "{policy} step {step}: {fill:?}");
            }
            for fill in stream.fills() {
                resident[seat].retain(|&block| block != fill.victim.0);
                resident[seat].push(fill.block.0);
            }
        }
        let expected = model.layer(step, &layer.streams, asks, &resident);
        let sum = |of: fn(&StreamPlan) -> u64| layer.streams.iter().map(of).sum::<u64>();
        let found = [
            sum(|stream| stream.counts.warm_copies),
            sum(|stream| stream.counts.warm_insertions),
            sum(|stream| stream.counts.warm_rejected),
            layer.warm_evictions,
        ];
        assert_eq!(found, expected, "{policy} step {step}: copies, insertions, rejected, evictions");
    }
    plane.decision_hash()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_decides_as_its_model(
        script in asks(),
        slots in 3u32..7,
        frames in 1usize..9,
        budget in 0u32..2,
    ) {
        for entry in ADMISSION {
            hold(entry.name, slots, frames, budget, &script);
        }
    }
}

#[test]
fn pages_that_nobody_enters_are_as_good_as_none() {
    let script: Vec<Vec<Ask>> =
        (0..20).map(|at| vec![(vec![at % 12, (at * 5 + 1) % 12], vec![]); SEATS as usize]).collect();
    let never = *admission::find(ADMISSION, "never").unwrap();
    let mut plane = plane(&Choice { entry: never, params: toml::Table::new() }, 3, 8, 0);
    for asks in &script {
        let ids = |ids: &[u32]| ids.iter().copied().map(BlockId).collect::<Vec<_>>();
        let source = Step(asks.iter().map(|(blocks, near)| (ids(blocks), ids(near))).collect());
        let plan = plane.step(&[0, 1], &source);
        assert!(plan.layers[0].streams.iter().all(|stream| stream.counts.warm_hits == 0));
    }
}

#[test]
fn names_are_distinct_and_typos_get_a_suggestion() {
    for (at, entry) in ADMISSION.iter().enumerate() {
        assert!(!entry.summary.is_empty() && ADMISSION[..at].iter().all(|other| other.name != entry.name));
    }
    let error = admission::find(ADMISSION, "secnd-touch").unwrap_err().to_string();
    assert!(
        error.starts_with("warm.admission") && error.contains("did you mean \"second-touch\""),
        "{error}"
    );
}

#[test]
fn parameters_unknown_or_out_of_range_are_refused() {
    let refused = [
        ("always", "demands = 2"),
        ("second-touch", "demands = 0"),
        ("sketch", "sample = 0"),
        ("score", "half_life = 0"),
        ("score", "threshold = 0"),
        ("score", "treshold = 3"),
    ];
    for (policy, text) in refused {
        let entry = admission::find(ADMISSION, policy).unwrap();
        let error = entry.build(&text.parse().unwrap(), 16).map(drop).unwrap_err();
        assert!(
            matches!(error, PolicyError::Params { field, .. } if field.starts_with("warm.params")),
            "{policy} {text}: {error}"
        );
    }
}
