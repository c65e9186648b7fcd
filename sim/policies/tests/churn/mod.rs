//! Replay by churn against the plain replay: the same loads, victims, slots and counts, step by step.

use crate::model::{self, Ask, Features, Script, replay, scripts};
use kvtier_policies::churn::{self, SelectionDiff};
use kvtier_policies::eviction::{EVICTION, find};
use kvtier_units::{BlockId, Slot};
use proptest::prelude::*;

const POLICIES: [&str; 2] = ["fifo", "lru-step"];
const FEATURES: Features = Features { growth: true, prefetch: false, start: true };

fn assert_equal(policy: &str, script: &Script) {
    let entry = find(EVICTION, policy).unwrap();
    let mut buffer = churn::build(policy, script.shape()).unwrap();
    let mut diff = SelectionDiff::new(script.blocks, script.k);
    buffer.mark_prefilled(script.prefilled);
    buffer.start(&model::ids(&script.start));
    let mut slot_of = vec![Slot::NONE; script.blocks as usize];
    script.start.iter().zip(0..).for_each(|(&block, slot)| slot_of[block as usize] = Slot(slot));
    let plain = replay(entry, &toml::Table::new(), script);
    for (step, (ask, (expected, _))) in script.asks.iter().zip(plain).enumerate() {
        let blocks = model::ids(&ask.blocks);
        let plan = buffer.step(&diff.step(&blocks), ask.grown.map(BlockId));
        assert_eq!(plan.loads, expected.loads, "{policy}: loads of step {step}");
        assert_eq!(plan.growth, expected.growth, "{policy}: growth of step {step}");
        assert_eq!(plan.cold, expected.counts.cold, "{policy}: cold misses of step {step}");
        assert_eq!(plan.loads.len() as u64, expected.counts.misses, "{policy}: misses of step {step}");
        // Every hit stands where its last fill put it.
        plan.loads.iter().chain(&plan.growth).for_each(|fill| slot_of[fill.block.index()] = fill.slot);
        let slots: Vec<Slot> = blocks.iter().map(|block| slot_of[block.index()]).collect();
        assert_eq!(slots, expected.slots, "{policy}: slots of step {step}");
    }
}

/// Long runs in which each step keeps most of the selection before, as decoding does.
fn sticky() -> impl Strategy<Value = Script> {
    let changes = prop::collection::vec((0usize..16, 0u32..60), 0..5);
    let sizes = (1u32..=16, 0u32..20, 0u32..3);
    (sizes, prop::collection::vec((changes, 0u32..9), 50..260)).prop_map(|((k, spare, start), raw)| {
        let mut full = 60;
        let mut selected: Vec<u32> = (0..k).collect();
        let asks = raw.into_iter().map(|(changes, grows)| {
            for (at, block) in changes {
                if !selected.contains(&block) {
                    selected[at % k as usize] = block;
                    // Ranks move even where blocks do not.
                    selected.rotate_left(at % 3 % k as usize);
                }
            }
            let grown = (grows == 0).then_some(full);
            full += u32::from(grown.is_some());
            Ask { blocks: selected.clone(), grown, ..Ask::default() }
        });
        let asks: Vec<Ask> = asks.collect();
        let slots = k + spare;
        let first = if start == 1 { 60 - slots.min(60) } else { 60 };
        let prefilled = if start == 1 { 60 } else { 0 };
        Script {
            slots,
            blocks: full,
            k,
            start: (first..60).collect(),
            prefilled,
            budget: 0,
            ahead: false,
            asks,
        }
    })
}

#[test]
fn the_policies_that_can_are_those_that_say_so() {
    let shape = Script {
        slots: 4,
        blocks: 9,
        k: 2,
        start: vec![],
        prefilled: 0,
        budget: 0,
        ahead: false,
        asks: vec![],
    }
    .shape();
    let found = EVICTION.iter().map(|entry| entry.name).filter(|name| churn::build(name, shape).is_some());
    assert_eq!(found.collect::<Vec<_>>(), POLICIES);
}

#[test]
fn the_difference_is_what_entered_by_rank_and_what_left() {
    let mut diff = SelectionDiff::new(9, 3);
    let ids = |blocks: &[u32]| model::ids(blocks);
    assert_eq!(diff.step(&ids(&[4, 0, 2])).entered, ids(&[4, 0, 2]));
    let change = diff.step(&ids(&[7, 2, 1]));
    assert_eq!((change.entered, change.left), (&ids(&[7, 1])[..], &ids(&[4, 0])[..]));
    assert_eq!(diff.step(&[]).left, ids(&[7, 2, 1]));
    assert_eq!(diff.step(&ids(&[2])).entered, ids(&[2]), "what was selected longer ago enters again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn churn_decides_as_steps_do(script in scripts(FEATURES, 8, 150)) {
        POLICIES.iter().for_each(|policy| assert_equal(policy, &script));
    }

    #[test]
    fn churn_decides_as_steps_do_with_no_slot_to_spare(script in scripts(FEATURES, 5, 150)) {
        let script = Script { slots: script.k, start: Vec::new(), ..script };
        POLICIES.iter().for_each(|policy| assert_equal(policy, &script));
    }

    #[test]
    fn churn_decides_as_steps_do_where_most_stays(script in sticky()) {
        POLICIES.iter().for_each(|policy| assert_equal(policy, &script));
    }
}
