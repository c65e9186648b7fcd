//! Plans followed frame by frame, beside a plain account of which block every frame holds.

use super::*;
use crate::replay::testing::single;
use crate::replay::{Managed, Weights};
use kvtier_policies::StepPlan;
use kvtier_sim::SimError;
use kvtier_sim::engine::{ReadStep, TimePlane};
use kvtier_sim::work::StepWork;
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
        let geometry = Geometry::new(&single(model, rest), Managed::Host, Weights::LeftOut).unwrap();
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

    fn run_step(&mut self, plan: &StepPlan, _: &StepWork) -> Result<(), SimError> {
        self.ledger.begin();
        let z = self.geometry.sizes;
        for (layer, plans) in (0u32..).zip(&plan.layers) {
            let mut said = Vec::new();
            let before = self.ledger.frames.clone();
            self.ledger.apply(plan.step, layer, &plans.streams, |at, number, frame| {
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
    assert!(!now[0][1].is_empty() && now.iter().any(|lists| !lists[0].is_empty()));
    let joined = [0, 1].map(|seat| Joined { seat, request: 0, full: 0, tokens: 0 });
    follower.ledger.seat(&follower.geometry, &[], &joined);
    let scrap = follower.geometry.scrap();
    assert!(follower.ledger.pending().iter().all(|moved| moved.frame == scrap), "nobody waits for them");
}
