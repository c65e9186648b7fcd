//! Plans followed frame by frame, beside a plain account of which block every frame holds.

use super::*;
use crate::replay::testing::single;
use crate::replay::{Managed, Weights};
use kvtier_policies::StepPlan;
use kvtier_sim::engine::{ReadStep, TimePlane};
use kvtier_sim::overlap::Variant;
use kvtier_sim::timer::Timer;
use kvtier_sim::work::StepWork;
use kvtier_sim::{SimError, Single};
use std::collections::BTreeMap;

/// Follows the plans and keeps, apart from the ledger, which block every frame holds.
struct Follower {
    geometry: Geometry,
    ledger: Ledger,
    /// Per frame, its stream and block, as moves and exchanges leave them.
    holds: BTreeMap<u32, (u32, u32)>,
    hits: u64,
    seated: bool,
}

impl Follower {
    fn new(model: &str, rest: &str) -> Follower {
        Follower::of(&single(model, rest))
    }

    fn of(single: &Single) -> Follower {
        let geometry = Geometry::new(single, Managed::Host, Weights::LeftOut).unwrap();
        let ledger = Ledger::new(&geometry).unwrap();
        Follower { geometry, ledger, holds: BTreeMap::new(), hits: 0, seated: false }
    }
}

impl TimePlane for Follower {
    fn read_step(&mut self, read: &ReadStep<'_>) -> Result<(), SimError> {
        let joined = |join: &kvtier_policies::Join| Joined {
            seat: join.seat,
            request: join.request,
            full: 0,
            tokens: 0,
        };
        let join: Vec<Joined> = read.scheduled.join.iter().map(joined).collect();
        self.ledger.seat(&self.geometry, &read.scheduled.leave, &join);
        self.seated |= !read.scheduled.leave.is_empty();
        Ok(())
    }

    fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError> {
        self.ledger.begin();
        let z = self.geometry.sizes;
        for (layer, plans) in (0u32..).zip(&plan.layers) {
            let mut said = Vec::new();
            let before = self.ledger.frames.clone();
            let told = self.geometry.ways.told(layer as usize, &work.layers[layer as usize]);
            self.ledger.apply(plan.step, layer, &plans.streams, told, |at, number, frame| {
                said.push((at, number, frame));
            });
            for (at, number, frame) in said {
                let g = layer * z.streams + count32(at);
                let fill = scripted(&plans.streams[at]).nth(number).unwrap();
                let block = (g, fill.block.0);
                match fill.source {
                    Source::Warm => {
                        // Of what a request started with nothing is known.
                        let held = self.holds.get(&frame);
                        assert!(held.is_none_or(|&held| held == block), "the page's bytes are there");
                        self.hits += 1;
                    }
                    Source::Grown => {
                        let reserved = before[place(&z, g, z.slots)];
                        self.holds.insert(reserved, block);
                    }
                    _ => drop(self.holds.insert(frame, block)),
                }
            }
        }
        // No frame has two owners, and none is lost.
        let pages = self.ledger.pages();
        for &[g, block, frame, _] in &pages {
            // Nothing was brought that a request started with.
            let held = self.holds.get(&frame);
            assert!(held.is_none_or(|&held| held == (g, block)), "{held:?} for {block} of {g}");
        }
        let mut all = self.ledger.frames.clone();
        all.extend(&self.ledger.spare);
        all.extend(pages.iter().map(|page| page[2]));
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..self.geometry.hot_frames() + self.geometry.warm));
        Ok(())
    }
}

#[test]
fn every_frame_has_one_owner_and_a_warm_hit_finds_its_bytes() {
    for (size, rest) in [
        ("64 KiB", ""),
        ("3 MiB", "admission = \"second-touch\"\n[prefetch]\npolicy = \"next-ranked\"\n"),
        ("16 MiB", "admission = \"sketch\"\n"),
        ("3 MiB", "[prefetch]\npolicy = \"next-ranked\"\nbudget = 3\n"),
        ("64 MiB", "[hot]\nslots = \"1.25k\"\nstart = \"recent\"\n[prefetch]\npolicy = \"association\"\n"),
    ] {
        // Fields of the warm pages come first.
        let rest = format!("[warm]\nsize = \"{size}\"\n{rest}");
        let mut follower = Follower::new("llama-3.1-8b", &rest);
        let decisions = single("llama-3.1-8b", &rest).replay(&mut follower, &|| false).expect("it replays");
        let whole = decisions.whole;
        assert_eq!(follower.hits, whole.warm_hits + whole.warm_prefetches);
        assert!(follower.hits > 0 || size == "64 KiB", "{size}: {} warm hits", follower.hits);
    }
}

#[test]
fn copies_ahead_wait_for_the_layer_before() {
    let rest = "[time]\noverlap = \"layer-ahead\"\ntransfer = \"copy-loop\"\nlaunch = \"stream\"\n\
                [prefetch]\npolicy = \"next-ranked\"\n";
    let mut follower = Follower::new("llama-3.1-8b", rest);
    single("llama-3.1-8b", rest).replay(&mut follower, &|| false).expect("it replays");
    let waiting = follower.ledger.pending();
    let now = follower.ledger.take_copies();
    assert!(
        !waiting.is_empty()
            && waiting.iter().all(|moved| {
                let z = follower.geometry.sizes;
                moved.home / z.blocks >= z.streams
            }),
        "only the first layer's prefetches are sent in the step that decides them"
    );
    assert!(!now[0][1].moves.is_empty() && now.iter().any(|lists| !lists[0].moves.is_empty()));
    let joined = [0, 1].map(|seat| Joined { seat, request: 0, full: 0, tokens: 0 });
    follower.ledger.seat(&follower.geometry, &[], &joined);
    let scrap = follower.geometry.scrap();
    assert!(follower.ledger.pending().iter().all(|moved| moved.frame == scrap), "nobody waits for them");
}

/// Holds what is told of every list to the length and the choice of the work, and counts the choices of measured steps.
struct Telling {
    follower: Follower,
    by: [u64; 2],
    from: u32,
    /// Per layer, blocks and mechanism of the prefetches that the step before decided.
    before: Vec<(u64, Mechanism)>,
}

impl Telling {
    fn of(single: &Single) -> Telling {
        let follower = Follower::of(single);
        let before = vec![(0, Mechanism::Gather); follower.geometry.layers as usize];
        Telling { follower, by: [0; 2], from: single.run.measure_from, before }
    }
}

impl TimePlane for Telling {
    fn read_step(&mut self, read: &ReadStep<'_>) -> Result<(), SimError> {
        self.follower.read_step(read)
    }

    fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError> {
        self.follower.run_step(plan, work)?;
        let copies = self.follower.ledger.take_copies();
        let ways = &self.follower.geometry.ways;
        for (at, (layer, lists)) in work.layers.iter().zip(&copies).enumerate() {
            let told = ways.told(at, layer);
            let decided = (layer.prefetch.blocks + layer.ahead.blocks, told[1]);
            let before = std::mem::replace(&mut self.before[at], decided);
            let sent = if ways.sent_later(count32(at)) { before } else { decided };
            let expected = [(layer.demand.blocks, told[0]), sent];
            for (list, (blocks, by)) in lists.iter().zip(expected) {
                assert_eq!(list.moves.len() as u64, blocks, "the choice knew the list's length");
                assert!(blocks == 0 || list.by == by);
            }
            for (blocks, by) in [expected[0], decided] {
                let chosen = work.step >= self.from && blocks > 0;
                self.by[usize::from(by != Mechanism::Gather)] += u64::from(chosen);
            }
        }
        Ok(())
    }
}

#[test]
fn a_device_is_told_what_the_simulator_chose() {
    let ways = [
        ("serial", "next-ranked"),
        ("hit-first", "none"),
        ("hit-first", "next-layer"),
        ("layer-ahead", "next-ranked"),
    ];
    for (overlap, prefetch) in ways {
        let rest = format!(
            "[time]\noverlap = \"{overlap}\"\ntransfer = \"auto\"\nlaunch = \"stream\"\n\
             [prefetch]\npolicy = \"{prefetch}\"\n"
        );
        let mut single = single("llama-3.1-8b", &rest);
        // A machine whose gathers are slow enough that long lists are for its engines.
        single.blueprint.machine.transfer.gather.rate = 2.0;
        let mut telling = Telling::of(&single);
        single.replay(&mut telling, &|| false).expect("it replays");
        let mut timer =
            Timer::new(&single.blueprint, Variant::Offload, &single.run, &single.recording).unwrap();
        single.replay(&mut timer, &|| false).expect("it replays");
        let [gathered, copied] = telling.by;
        assert!(gathered > 0 && copied > 0, "{overlap}: {:?}", telling.by);
        let said = format!("auto: of the lists {gathered} by gather, {copied} by copy-batch");
        assert_eq!(timer.note(), said, "{overlap}, {prefetch}");
    }
}
