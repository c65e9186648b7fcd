//! Home tiers and demotion against a slow second reading: one list of blocks, sorted whenever it is asked which is next.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_policies::allocation::Allocation;
use kvtier_policies::demotion::{self, Choice, DEMOTION, Tier};
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::{
    Admission, DecisionPlane, Moves, PlaneConfig, PolicyError, Prefix, Selection, SelectionSource, Source,
    Start, StepPlan, TierConfig, prefetch,
};
use kvtier_units::{BlockId, Seed};
use proptest::prelude::*;

const SEATS: usize = 2;
const BLOCKS: u32 = 12;
const PROMPT: u32 = 8;
const PREFIX: u32 = 5;
const K: usize = 3;
/// Blocks of both requests: the prefix once.
const ALL_BLOCKS: u64 = 19;

/// One stream's step: what it selects, as numbers to be folded into its context, and whether it fills a block.
type Ask = (Vec<u32>, bool);

/// A step of both requests; the second may first end and start again.
#[derive(Clone, Debug)]
struct Step {
    rejoins: bool,
    asks: Vec<Ask>,
}

struct Asks(Vec<(Vec<BlockId>, Option<BlockId>)>);

impl SelectionSource for Asks {
    fn selection(&self, participant: usize, _: usize) -> Selection<'_> {
        let (blocks, grown) = &self.0[participant];
        Selection { blocks, scores: &[], near: &[], newest: false, grown: *grown, foresight: None }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (prop::collection::vec(0u32..100, 1..=K), (0u32..5).prop_map(|one| one == 0));
    let step = (0u32..12, prop::collection::vec(ask, SEATS));
    let step = step.prop_map(|(rejoins, asks)| Step { rejoins: rejoins == 0, asks });
    prop::collection::vec(step, 1..50)
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    slots: u32,
    host: u64,
    cxl: u64,
    high: u32,
    low: u32,
    batch: u32,
    promote: bool,
}

fn settings() -> impl Strategy<Value = Setting> {
    let marks = prop::sample::select(vec![(100, 100), (90, 50), (60, 60), (100, 0)]);
    (3u32..6, 1u64..9, 0u64..5, marks, 1u32..4, any::<bool>()).prop_map(
        |(slots, host, cxl, (high, low), batch, promote)| Setting {
            slots,
            host,
            cxl,
            high,
            low,
            batch,
            promote,
        },
    )
}

fn tiers(setting: Setting, policy: &str) -> TierConfig {
    let entry = *demotion::find(DEMOTION, policy).unwrap();
    let params = if policy == "utility" { "half_life = 4".parse().unwrap() } else { toml::Table::new() };
    TierConfig {
        cxl: setting.cxl,
        nvme: ALL_BLOCKS,
        demotion: Choice { entry, params },
        high: setting.high,
        low: setting.low,
        batch: setting.batch,
        promote: setting.promote,
    }
}

fn config(setting: Setting, tiers: TierConfig) -> PlaneConfig {
    PlaneConfig {
        eviction: *eviction::find(EVICTION, "lru").unwrap(),
        params: toml::Table::new(),
        slots: vec![setting.slots],
        allocation: Allocation::default(),
        head_groups: 1,
        k: u32::try_from(K).unwrap(),
        prefetch: *prefetch::find("none").unwrap(),
        prefetch_budget: 0,
        prefetch_params: toml::Table::new(),
        warm_frames: 0,
        admission: Default::default(),
        home_capacity: setting.host,
        tiers,
        block_bytes: 1,
        start: Start::Cold,
        seed: Seed(7),
    }
}

fn admit(plane: &mut DecisionPlane, seat: usize) -> u64 {
    let admission = Admission {
        seat: u32::try_from(seat).unwrap(),
        full_blocks: PROMPT,
        max_blocks: BLOCKS,
        prefix: Some(Prefix { group: 0, blocks: PREFIX }),
        first_use: &|_, _| u32::MAX,
    };
    plane.admit(&admission).unwrap().spilled
}

/// A block as the model knows it: seat, or `SEATS` for the prefix; and its number.
type Key = (usize, u32);

fn key(seat: usize, block: u32) -> Key {
    (if block < PREFIX { SEATS } else { seat }, block)
}

#[derive(Clone, Copy, Debug)]
struct Lodging {
    key: Key,
    tier: usize,
    demands: u32,
    /// Counted up whenever a block comes to stand last.
    stamp: u64,
}

/// The specification's reading.
struct Model {
    utility: bool,
    setting: Setting,
    capacity: [u64; 3],
    lodgings: Vec<Lodging>,
    stamps: u64,
    draining: [bool; 2],
    moves: [[u64; 3]; 3],
}

impl Model {
    fn new(policy: &str, setting: Setting) -> Model {
        Model {
            utility: policy == "utility",
            setting,
            capacity: [setting.host, setting.cxl, ALL_BLOCKS],
            lodgings: Vec::new(),
            stamps: 0,
            draining: [false; 2],
            moves: [[0; 3]; 3],
        }
    }

    fn used(&self, tier: usize) -> u64 {
        self.lodgings.iter().filter(|lodging| lodging.tier == tier).count() as u64
    }

    fn room(&self, tier: usize) -> bool {
        self.used(tier) < self.capacity[tier]
    }

    fn find(&mut self, key: Key) -> Option<&mut Lodging> {
        self.lodgings.iter_mut().find(|lodging| lodging.key == key)
    }

    fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    fn create(&mut self, key: Key, tier: usize) {
        let stamp = self.stamp();
        self.lodgings.push(Lodging { key, tier, demands: 0, stamp });
    }

    /// Moves the next block of a tier to the nearest one below with room; which, and where to.
    fn lower(&mut self, tier: usize) -> (Key, usize) {
        let to = (tier + 1..3).find(|&below| self.room(below)).unwrap();
        let rank = |lodging: &&mut Lodging| (if self.utility { lodging.demands } else { 0 }, lodging.stamp);
        let stamp = self.stamps + 1;
        self.stamps = stamp;
        let next = self.lodgings.iter_mut().filter(|lodging| lodging.tier == tier).min_by_key(rank).unwrap();
        (next.tier, next.stamp) = (to, stamp);
        (next.key, to)
    }

    /// A request is admitted; returns what spilled.
    fn admit(&mut self, seat: usize) -> u64 {
        let new: Vec<Key> =
            (0..PROMPT).map(|block| key(seat, block)).filter(|&key| self.find(key).is_none()).collect();
        new.iter().for_each(|&key| self.create(key, 0));
        let mut spilled = 0;
        for tier in 0..2 {
            while self.used(tier) > self.capacity[tier] {
                let (key, to) = self.lower(tier);
                match new.contains(&key) {
                    true => spilled += u64::from(tier == 0),
                    false => self.moves[tier][to] += 1,
                }
            }
        }
        spilled
    }

    fn begin_step(&mut self, step: u32) {
        if self.utility && step > 0 && step.is_multiple_of(4) {
            self.lodgings.sort_by_key(|lodging| (lodging.demands, lodging.stamp));
            for at in 0..self.lodgings.len() {
                let stamp = self.stamp();
                self.lodgings[at].demands /= 2;
                self.lodgings[at].stamp = stamp;
            }
        }
        for tier in [1, 0] {
            let mark = |percent: u32| self.capacity[tier] * u64::from(percent) / 100;
            let (high, low) = (mark(self.setting.high), mark(self.setting.low));
            self.draining[tier] = (self.draining[tier] || self.used(tier) > high) && self.used(tier) > low;
            for _ in 0..self.setting.batch {
                if !self.draining[tier] || !(tier + 1..3).any(|below| self.room(below)) {
                    break;
                }
                let (_, to) = self.lower(tier);
                self.moves[tier][to] += 1;
                self.draining[tier] = self.used(tier) > low;
            }
        }
    }

    fn fetch(&mut self, key: Key) -> bool {
        let (stamp, host_has_room) = (self.stamp(), self.room(0));
        let promote = self.setting.promote;
        let lodging = self.find(key).unwrap();
        lodging.demands = (lodging.demands + 1).min(15);
        lodging.stamp = stamp;
        let from = lodging.tier;
        let rises = promote && from > 0 && host_has_room;
        if rises {
            lodging.tier = 0;
            self.moves[from][0] += 1;
        }
        rises
    }

    fn grow(&mut self, key: Key) -> bool {
        let tier = (0..3).find(|&tier| self.room(tier)).unwrap();
        self.create(key, tier);
        if tier > 0 {
            self.moves[0][tier] += 1;
        }
        tier > 0
    }

    fn take_moves(&mut self) -> [[u64; 3]; 3] {
        std::mem::take(&mut self.moves)
    }
}

fn matrix(moves: &Moves) -> [[u64; 3]; 3] {
    Tier::ALL.map(|from| Tier::ALL.map(|to| moves.between(from, to)))
}

fn tier_of(source: Source) -> usize {
    [Source::Home, Source::Cxl, Source::Nvme].iter().position(|one| *one == source).unwrap()
}

/// Checks one plan against the model.
fn check_step(model: &mut Model, plan: &StepPlan, asks: &[(Vec<BlockId>, Option<BlockId>)]) {
    model.begin_step(plan.step);
    let boundary = model.take_moves();
    assert_eq!(matrix(&plan.boundary_moves), boundary, "step {}: at the boundary", plan.step);
    assert_eq!(plan.counts.demoted_cxl, boundary[0][1]);
    assert_eq!(plan.counts.demoted_nvme, boundary[0][2] + boundary[1][2]);
    let streams = &plan.layers[0].streams;
    for (seat, stream) in streams.iter().enumerate() {
        let found: Vec<usize> = stream.loads.iter().map(|fill| tier_of(fill.source)).collect();
        let expected: Vec<usize> =
            stream.loads.iter().map(|fill| model.find(key(seat, fill.block.0)).unwrap().tier).collect();
        assert_eq!(found, expected, "step {} seat {seat}: where misses come from", plan.step);
        let from = |tier: usize| found.iter().filter(|&&one| one == tier).count() as u64;
        assert_eq!((stream.counts.misses_cxl, stream.counts.misses_nvme), (from(1), from(2)));
    }
    for (seat, stream) in streams.iter().enumerate() {
        let promoted = stream.loads.iter().filter(|fill| model.fetch(key(seat, fill.block.0))).count() as u64;
        let spilled = asks[seat].1.is_some_and(|block| model.grow(key(seat, block.0)));
        assert_eq!((stream.counts.promoted, stream.counts.spilled), (promoted, u64::from(spilled)));
    }
    assert_eq!(matrix(&plan.moves), model.take_moves(), "step {}: within", plan.step);
}

fn hold(policy: &str, setting: Setting, script: &[Step]) -> u64 {
    let mut plane = DecisionPlane::new(config(setting, tiers(setting, policy))).unwrap();
    let mut model = Model::new(policy, setting);
    let mut full = [PROMPT; SEATS];
    for seat in 0..SEATS {
        assert_eq!(admit(&mut plane, seat), model.admit(seat), "spilled at admission");
    }
    for step in script {
        if step.rejoins {
            plane.release(1);
            model.lodgings.retain(|lodging| lodging.key.0 != 1);
            full[1] = PROMPT;
            assert_eq!(admit(&mut plane, 1), model.admit(1), "spilled when it came again");
        }
        let asks: Vec<(Vec<BlockId>, Option<BlockId>)> = (step.asks.iter().zip(&mut full))
            .map(|((raw, grows), full)| {
                let mut blocks: Vec<BlockId> = raw.iter().map(|raw| BlockId(raw % *full)).collect();
                blocks.sort_unstable();
                blocks.dedup();
                let grown = (*grows && *full < BLOCKS).then_some(BlockId(*full));
                *full += u32::from(grown.is_some());
                (blocks, grown)
            })
            .collect();
        let plan = plane.step(&[0, 1], &Asks(asks.clone()));
        check_step(&mut model, plan, &asks);
        let used = [0, 1, 2].map(|tier| model.used(tier));
        assert_eq!(plane.home_used(), used, "blocks in each tier");
        assert!(used[0] <= setting.host && used[1] <= setting.cxl);
    }
    let hash = plane.decision_hash();
    plane.release(0);
    plane.release(1);
    assert_eq!(plane.home_used(), [0; 3], "requests that end free their blocks in every tier");
    hash
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_moves_as_its_model(setting in settings(), script in steps()) {
        for entry in DEMOTION.iter().filter(|entry| entry.name != "none") {
            prop_assert_eq!(hold(entry.name, setting, &script), hold(entry.name, setting, &script));
        }
    }
}

#[test]
fn tiers_that_are_never_reached_change_no_miss() {
    let setting = Setting { slots: 3, host: 64, cxl: 0, high: 100, low: 100, batch: 1, promote: false };
    let run = |tiers: TierConfig| {
        let mut plane = DecisionPlane::new(config(setting, tiers)).unwrap();
        admit(&mut plane, 0);
        let mut misses = Vec::new();
        for at in 0..30 {
            let blocks = vec![BlockId(at % 8), BlockId((at * 3 + 1) % 8)];
            let blocks = if blocks[0] == blocks[1] { vec![blocks[0]] } else { blocks };
            let plan = plane.step(&[0], &Asks(vec![(blocks, None)]));
            misses.push((plan.layers[0].streams[0].loads.clone(), plan.boundary_moves));
        }
        misses
    };
    assert_eq!(run(TierConfig::default()), run(tiers(setting, "age")));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let setting = Setting { slots: 3, host: 4, cxl: 2, high: 90, low: 50, batch: 1, promote: false };
    let refused = |tiers: TierConfig, field: &str, word: &str| {
        let error = DecisionPlane::new(config(setting, tiers)).map(drop).unwrap_err();
        assert!(matches!(error, PolicyError::Conflict { field: found, .. } if found == field), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let age = || tiers(setting, "age");
    refused(TierConfig { demotion: Choice::default(), ..age() }, "demotion.policy", "moves nothing");
    refused(TierConfig { cxl: 0, nvme: 0, ..age() }, "demotion.policy", "no tier below host");
    refused(TierConfig { low: 95, ..age() }, "demotion.low", "watermark");
    refused(TierConfig { high: 101, ..age() }, "demotion.low", "at most 100");
    refused(TierConfig { batch: 0, ..age() }, "demotion.batch", "at least 1");
    let error = demotion::find(DEMOTION, "utilty").unwrap_err().to_string();
    assert!(error.starts_with("demotion.policy") && error.contains("did you mean \"utility\""), "{error}");
    let wrong = Choice { params: "half_life = 0".parse().unwrap(), ..choice("utility") };
    assert!(wrong.build().map(drop).unwrap_err().to_string().starts_with("demotion.params.half_life"));
    let wrong = Choice { params: "half_life = 3".parse().unwrap(), ..choice("age") };
    assert!(wrong.build().map(drop).unwrap_err().to_string().starts_with("demotion.params"));
}

fn choice(policy: &str) -> Choice {
    Choice { entry: *demotion::find(DEMOTION, policy).unwrap(), params: toml::Table::new() }
}
