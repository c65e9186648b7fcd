//! Buffers that change their size between steps: equality with the naive model, and laws for every policy that can be
//! resized. Apart from the other laws, which hold a buffer's size fixed.

use crate::model::{Features, NaiveBuffer, Outcome, Script, Scripted, ids, one_step, policies, scripts};
use kvtier_policies::eviction::{BufferShape, EVICTION, Entry};
use kvtier_policies::{Below, HotBuffer, Resized, Selection, StreamPlan};
use kvtier_units::{BlockId, Seed, Slot};
use proptest::prelude::*;

const EVERYTHING: Features = Features { growth: true, prefetch: true, start: true };

/// A script, and the slots at each of its steps.
type Resizing = (Script, Vec<u32>);

/// Scripts whose buffers change their size before some of the steps, down to one selection.
fn resizing() -> impl Strategy<Value = Resizing> {
    (scripts(EVERYTHING, 8, 40), prop::collection::vec(0u32..24, 40)).prop_map(|(script, raw)| {
        let mut slots = script.slots;
        let sizes = script.asks.iter().zip(raw).map(|(_, raw)| {
            if raw < 10 {
                slots = script.k + raw;
            }
            slots
        });
        let sizes = sizes.collect();
        (script, sizes)
    })
}

fn resizable() -> impl Iterator<Item = &'static Entry> {
    EVICTION.iter().filter(|entry| entry.resizes)
}

fn start(entry: &Entry, script: &Script) -> Box<dyn HotBuffer> {
    let mut buffer = entry.build(&toml::Table::new(), script.shape()).unwrap();
    buffer.mark_prefilled(script.prefilled);
    buffer.start(&ids(&script.start), &[]);
    buffer
}

/// Replays; hands the blocks before each change of size, the change and the blocks after it to `changed`.
fn replay(
    entry: &Entry,
    (script, sizes): &Resizing,
    mut changed: impl FnMut(&[BlockId], &Resized, &[BlockId]),
) -> Vec<StreamPlan> {
    let mut buffer = start(entry, script);
    let mut resized = Resized::default();
    let mut plans = Vec::new();
    let mut prefetcher = Scripted::of(script);
    for ((step, ask), &slots) in (0u32..).zip(&script.asks).zip(sizes) {
        if buffer.blocks().len() != slots as usize {
            let before = buffer.blocks().to_vec();
            buffer.resize(slots, &mut resized);
            changed(&before, &resized, buffer.blocks());
        }
        plans.push(one_step(buffer.as_mut(), false, script, step, ask, &mut prefetcher));
    }
    plans
}

/// Who left is gone, who stayed stands where the rule says, and nobody leaves without need.
fn assert_lawful(name: &str, before: &[BlockId], resized: &Resized, after: &[BlockId]) {
    let mut slots = before.to_vec();
    for &victim in &resized.evicted {
        let slot = slots.iter().position(|&block| block == victim);
        slots[slot.expect("a victim was resident")] = BlockId::NONE;
    }
    let size = resized.slots as usize;
    slots.resize(slots.len().max(size), BlockId::NONE);
    for from in size..slots.len() {
        if slots[from] != BlockId::NONE {
            let free = slots.iter().position(|&block| block == BlockId::NONE).expect("there is room");
            assert!(
                resized.moved.contains(&(Slot::at(from), Slot::at(free))),
                "{name}: lowest free slots first"
            );
            slots.swap(from, free);
        }
    }
    slots.truncate(size);
    assert_eq!(slots, after, "{name}: survivors and nothing else");
    let filled = before.iter().filter(|&&block| block != BlockId::NONE).count();
    assert_eq!(resized.evicted.len(), filled.saturating_sub(size), "{name}: no more leave than must");
    assert_eq!(resized.counts.evictions, resized.evicted.len() as u64, "{name}");
}

fn select(buffer: &mut dyn HotBuffer, block: u32) -> Vec<BlockId> {
    let selection = Selection {
        blocks: &[BlockId(block)],
        scores: &[],
        near: &[],
        newest: false,
        grown: None,
        foresight: None,
    };
    let mut plan = StreamPlan::default();
    buffer.step(0, &selection, None, Below::HOST, &mut plan);
    plan.fills().map(|fill| fill.victim).filter(|&victim| victim != BlockId::NONE).collect()
}

#[test]
fn state_moves_with_its_block() {
    for entry in resizable().filter(|entry| entry.name != "random") {
        let shape = BufferShape { slots: 4, blocks: 60, k: 1, seed: Seed(0) };
        let mut buffer = entry.build(&toml::Table::new(), shape).unwrap();
        // Far from each other, and each worth more than the one before, however worth is told.
        for block in [0, 10, 20, 20, 30, 30, 30] {
            select(buffer.as_mut(), block);
        }
        let mut resized = Resized::default();
        buffer.resize(2, &mut resized);
        assert_eq!(resized.evicted, ids(&[0, 10]), "{}", entry.name);
        assert_eq!(resized.moved, [(Slot(2), Slot(0)), (Slot(3), Slot(1))], "{}", entry.name);
        assert_eq!(buffer.blocks(), ids(&[20, 30]), "{}", entry.name);
        assert_eq!(select(buffer.as_mut(), 50), ids(&[20]), "{}", entry.name);
    }
}

#[test]
fn an_unused_prefetch_that_leaves_is_wasted() {
    let entry = resizable().find(|entry| entry.name == "lru").unwrap();
    let ask = |blocks: &[u32], near: &[u32]| crate::model::Ask {
        blocks: blocks.to_vec(),
        near: near.to_vec(),
        wants: near.iter().map(|&block| (block, 0)).collect(),
        ..crate::model::Ask::default()
    };
    let asks = vec![ask(&[0], &[5]), ask(&[1], &[])];
    let script =
        Script { slots: 3, blocks: 9, k: 1, start: vec![], prefilled: 0, budget: 1, ahead: false, asks };
    let mut buffer = start(entry, &script);
    let mut prefetcher = Scripted::of(&script);
    for (step, ask) in (0u32..).zip(&script.asks) {
        one_step(buffer.as_mut(), false, &script, step, ask, &mut prefetcher);
    }
    let mut resized = Resized::default();
    buffer.resize(1, &mut resized);
    assert_eq!(resized.evicted, ids(&[0, 5]));
    assert_eq!((resized.counts.wasted, buffer.unused_prefetches()), (1, 0));
}

#[test]
fn what_can_be_resized_says_so() {
    let names: Vec<&str> = resizable().map(|entry| entry.name).collect();
    for name in [
        "fifo",
        "lru",
        "lru-step",
        "lfu",
        "lfu-aging",
        "rank-recency",
        "aged-score",
        "attention-mass",
        "region-utility",
        "echo",
        "random",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(!names.contains(&"belady"), "the bound holds for buffers of one size");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_resize_is_lawful((script, sizes) in resizing()) {
        for entry in resizable() {
            let run = (script.clone(), sizes.clone());
            let lawful = |before: &[BlockId], resized: &Resized, after: &[BlockId]| {
                assert_lawful(entry.name, before, resized, after);
            };
            let plans = replay(entry, &run, lawful);
            for (plan, ask) in plans.iter().zip(&script.asks) {
                prop_assert_eq!(plan.counts.hits + plan.counts.misses, ask.blocks.len() as u64, "{}", entry.name);
            }
        }
    }

    #[test]
    fn resized_buffers_equal_their_naive_model((script, sizes) in resizing()) {
        for entry in resizable() {
            let Some(policy) = policies::naive(entry.name, &toml::Table::new()) else { continue };
            let mut changes = Vec::new();
            let note = |_: &[BlockId], resized: &Resized, _: &[BlockId]| changes.push(resized.clone());
            let plans = replay(entry, &(script.clone(), sizes.clone()), note);
            let (mut model, mut changes) = (NaiveBuffer::new(&script, policy), changes.into_iter());
            let mut slots = script.slots;
            for (((step, ask), &size), plan) in (0u32..).zip(&script.asks).zip(&sizes).zip(&plans) {
                if std::mem::replace(&mut slots, size) != size {
                    let (left, moved) = model.resize(size as usize);
                    let change = changes.next().unwrap();
                    prop_assert_eq!(&change.evicted, &ids(&left), "{}", entry.name);
                    let found: Vec<(usize, usize)> =
                        change.moved.iter().map(|(from, to)| (from.index(), to.index())).collect();
                    prop_assert_eq!(&found, &moved, "{}", entry.name);
                }
                prop_assert_eq!(Outcome::from(plan), model.step(step, ask), "{} at step {}", entry.name, step);
            }
        }
    }

    /// Slots that come and go unused leave no trace.
    #[test]
    fn growing_and_shrinking_at_once_changes_nothing(script in scripts(EVERYTHING, 8, 40), extra in 1u32..9) {
        for entry in resizable() {
            let mut still = start(entry, &script);
            let mut moving = start(entry, &script);
            let mut resized = Resized::default();
            for (step, ask) in (0u32..).zip(&script.asks) {
                moving.resize(script.slots + extra, &mut resized);
                moving.resize(script.slots, &mut resized);
                prop_assert!(resized.evicted.is_empty() && resized.moved.is_empty(), "{}", entry.name);
                let outcome = |buffer: &mut dyn HotBuffer| {
                    Outcome::from(&one_step(buffer, false, &script, step, ask, &mut Scripted::of(&script)))
                };
                prop_assert_eq!(outcome(still.as_mut()), outcome(moving.as_mut()), "{}", entry.name);
            }
        }
    }
}
