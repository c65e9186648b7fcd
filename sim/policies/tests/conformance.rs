//! Laws that every registered policy obeys, and step-by-step equality with the naive model where there is one.

#![allow(clippy::unwrap_used)] // a failing test or bench may panic

mod churn;
mod model;
mod resizing;

use kvtier_policies::StreamPlan;
use kvtier_policies::eviction::{EVICTION, Entry, find};
use kvtier_units::BlockId;
use model::{Ask, Features, NaiveBuffer, Outcome, Script, Scripted, one_step, policies, replay, scripts};
use proptest::prelude::*;

const EVERYTHING: Features = Features { growth: true, prefetch: true, start: true };
const DEMAND_ONLY: Features = Features { growth: false, prefetch: false, start: true };
const DEMAND_AND_GROWTH: Features = Features { growth: true, prefetch: false, start: true };

/// The script as the policy can take it: nothing is prefetched for one that knows the future.
fn suited(entry: &Entry, script: &Script) -> Script {
    let budget = if entry.needs_future { 0 } else { script.budget };
    Script { budget, ..script.clone() }
}

fn assert_equals_the_model(entry: &Entry, params: &toml::Table, script: &Script) {
    let Some(policy) = policies::naive(entry.name, params) else { return };
    let mut buffer = NaiveBuffer::new(script, policy);
    for (step, (plan, _)) in (0u32..).zip(replay(entry, params, script)) {
        let expected = buffer.step(step, &script.asks[step as usize]);
        assert_eq!(Outcome::from(&plan), expected, "{} at step {step}", entry.name);
    }
}

/// Replays the plans on a page table of its own and checks each against the rules of a step.
fn assert_lawful(entry: &Entry, script: &Script) {
    let name = entry.name;
    let mut held = vec![BlockId::NONE; script.slots as usize];
    held[..script.start.len()].copy_from_slice(&model::ids(&script.start));
    for (ask, (plan, blocks)) in script.asks.iter().zip(replay(entry, &toml::Table::new(), script)) {
        let selected = model::ids(&ask.blocks);
        for fill in &plan.ahead {
            assert_eq!(held[fill.slot.index()], fill.victim, "{name}: the victim stood in the slot");
            assert!(!held.contains(&fill.block), "{name}: a block stands in one slot");
            held[fill.slot.index()] = fill.block;
        }
        let missing: Vec<BlockId> = selected.iter().copied().filter(|block| !held.contains(block)).collect();
        assert_eq!(
            plan.loads.iter().map(|fill| fill.block).collect::<Vec<_>>(),
            missing,
            "{name}: rank order"
        );
        assert_eq!(plan.counts.hits + plan.counts.misses, selected.len() as u64, "{name}: hits and misses");
        assert_eq!(plan.counts.misses, missing.len() as u64, "{name}: misses");
        for fill in plan.fills().skip(plan.ahead.len()) {
            let slot = fill.slot.index();
            assert!(slot < held.len(), "{name}: never over capacity");
            assert_eq!(held[slot], fill.victim, "{name}: the victim stood in the slot");
            assert!(!selected.contains(&fill.victim), "{name}: a pin is never evicted");
            assert!(!held.contains(&fill.block), "{name}: a block stands in one slot");
            held[slot] = fill.block;
        }
        let prefetched: Vec<BlockId> = plan.prefetches.iter().map(|fill| fill.block).collect();
        assert!(prefetched.iter().all(|block| held.contains(block)), "{name}: prefetches are not evicted");
        assert_eq!(held, blocks, "{name}: slot tags agree with the plan");
        let found: Vec<BlockId> = plan.slots.iter().map(|slot| blocks[slot.index()]).collect();
        assert_eq!(found, selected, "{name}: the page table and the tags are inverse, and S is resident");
        assert_victims_only_for_want_of_room(name, &plan, &held);
    }
}

fn assert_victims_only_for_want_of_room(name: &str, plan: &StreamPlan, held: &[BlockId]) {
    if plan.counts.evictions > 0 {
        assert!(held.iter().all(|&block| block != BlockId::NONE), "{name}: free slots are taken first");
    }
}

fn misses(entry: &Entry, script: &Script) -> u64 {
    replay(entry, &toml::Table::new(), script).iter().map(|(plan, _)| plan.counts.misses).sum()
}

/// The fewest misses that any choice of victims can reach, by trying all of them.
fn fewest_misses(script: &Script) -> u64 {
    let mut best = vec![(bits(&script.start), 0u64)];
    for ask in &script.asks {
        let selected = bits(&ask.blocks);
        let mut after: Vec<(u64, u64)> = Vec::new();
        for &(held, misses) in &best {
            let misses = misses + u64::from((selected & !held).count_ones());
            for held in subsets(held | selected, selected, script.slots) {
                for held in with_growth(held, selected, ask.grown, script.slots) {
                    match after.iter_mut().find(|(other, _)| *other == held) {
                        Some((_, fewest)) => *fewest = misses.min(*fewest),
                        None => after.push((held, misses)),
                    }
                }
            }
        }
        best = after;
    }
    best.iter().map(|&(_, misses)| misses).min().expect("there is always a way")
}

fn bits(blocks: &[u32]) -> u64 {
    blocks.iter().map(|block| 1u64 << block).sum()
}

/// Every way to evict just enough of `held`, but nothing of `pinned`, to fit the slots.
fn subsets(held: u64, pinned: u64, slots: u32) -> Vec<u64> {
    if held.count_ones() <= slots {
        return vec![held];
    }
    let mut out: Vec<u64> = (0..64)
        .filter(|bit| held & !pinned & (1 << bit) != 0)
        .flat_map(|bit| subsets(held & !(1 << bit), pinned, slots))
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn with_growth(held: u64, pinned: u64, grown: Option<u32>, slots: u32) -> Vec<u64> {
    let Some(grown) = grown else { return vec![held] };
    let all_pinned = held & !pinned == 0 && held.count_ones() == slots;
    if all_pinned { vec![held] } else { subsets(held | 1 << grown, pinned | 1 << grown, slots) }
}

/// Parameters that take other paths than the defaults.
const OTHER_PARAMS: &[(&str, &str)] = &[
    ("clock", "bits = 3"),
    ("slru", "shares = [1, 1, 1, 1]\nvariant = 'libcachesim'"),
    ("lru-k", "k = 3"),
    ("lru-k", "variant = 'libcachesim'"),
    ("s3-fifo", "variant = 'libcachesim'"),
];

/// Replays runs of accesses, each by steps or plainly, beside a replay of steps alone.
fn assert_plain_equals_steps(entry: &Entry, params: &toml::Table, slots: u32, runs: &[(bool, Vec<u32>)]) {
    let blocks: Vec<u32> = runs.iter().flat_map(|(_, run)| run).copied().collect();
    let asks = blocks.iter().map(|&block| Ask { blocks: vec![block], ..Ask::default() }).collect();
    let script =
        Script { slots, blocks: 60, k: 1, start: Vec::new(), prefilled: 0, budget: 0, ahead: false, asks };
    let steps = replay(entry, params, &script);
    let mut buffer = entry.build(params, script.shape()).unwrap();
    let mut nobody = Scripted::of(&script);
    let mut now = 0u32;
    for (plainly, run) in runs {
        let (first, end) = (now as usize, now as usize + run.len());
        let misses = if *plainly {
            let next = |(now, &block): (i64, &u32)| script.next_use(now, block);
            let next: Vec<u32> = (i64::from(now)..).zip(run).map(next).collect();
            buffer.access(&model::ids(run), if entry.needs_future { &next } else { &[] })
        } else {
            let step = |(step, ask): (u32, &Ask)| {
                let foresees = entry.needs_future;
                one_step(buffer.as_mut(), foresees, &script, step, ask, &mut nobody).counts.misses
            };
            (now..).zip(&script.asks[first..end]).map(step).sum()
        };
        let expected = steps[first..end].iter().map(|(plan, _)| plan.counts.misses).sum::<u64>();
        assert_eq!(misses, expected, "{}: misses", entry.name);
        assert_eq!(buffer.blocks(), &steps[end - 1].1[..], "{}: blocks by slot", entry.name);
        now = u32::try_from(end).unwrap();
    }
}

#[test]
fn the_model_covers_the_policies_whose_order_is_fixed() {
    for name in ["fifo", "clock", "lru", "lru-step", "lfu", "belady"] {
        find(EVICTION, name).unwrap();
        assert!(policies::naive(name, &toml::Table::new()).is_some(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn policies_equal_their_naive_model(script in scripts(EVERYTHING, 8, 40)) {
        for entry in EVICTION {
            assert_equals_the_model(entry, &toml::Table::new(), &suited(entry, &script));
        }
    }

    #[test]
    fn every_policy_is_lawful(script in scripts(EVERYTHING, 8, 40)) {
        for entry in EVICTION {
            assert_lawful(entry, &suited(entry, &script));
        }
    }

    #[test]
    fn every_policy_is_lawful_with_no_slot_to_spare(script in scripts(EVERYTHING, 5, 60)) {
        for entry in EVICTION {
            assert_lawful(entry, &Script { slots: script.k, start: Vec::new(), ..suited(entry, &script) });
        }
    }

    #[test]
    fn every_policy_is_deterministic(script in scripts(EVERYTHING, 8, 40)) {
        for entry in EVICTION {
            let script = suited(entry, &script);
            let run = || -> Vec<Outcome> {
                replay(entry, &toml::Table::new(), &script).iter().map(|(plan, _)| plan.into()).collect()
            };
            prop_assert_eq!(run(), run(), "{}", entry.name);
        }
    }

    /// Runs of single accesses between steps of one block: after each run every slot holds what it holds in a replay of steps.
    #[test]
    fn plain_replay_decides_as_steps_do(
        slots in 1u32..40,
        runs in prop::collection::vec((any::<bool>(), prop::collection::vec(0u32..60, 1..30)), 0..20),
    ) {
        for entry in EVICTION {
            assert_plain_equals_steps(entry, &toml::Table::new(), slots, &runs);
        }
        for (name, params) in OTHER_PARAMS {
            assert_plain_equals_steps(find(EVICTION, name).unwrap(), &params.parse().unwrap(), slots, &runs);
        }
    }

    #[test]
    fn belady_is_never_beaten(script in scripts(DEMAND_AND_GROWTH, 8, 40)) {
        let bound = misses(find(EVICTION, "belady").unwrap(), &script);
        for entry in EVICTION {
            prop_assert!(misses(entry, &script) >= bound, "{} beats belady", entry.name);
        }
    }

    #[test]
    fn belady_equals_exhaustive_search(script in scripts(DEMAND_ONLY, 5, 12)) {
        prop_assert_eq!(misses(find(EVICTION, "belady").unwrap(), &script), fewest_misses(&script));
    }

    #[test]
    fn belady_equals_exhaustive_search_with_growth(script in scripts(DEMAND_AND_GROWTH, 5, 12)) {
        prop_assert_eq!(misses(find(EVICTION, "belady").unwrap(), &script), fewest_misses(&script));
    }
}
