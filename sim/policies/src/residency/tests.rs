//! Hand-worked traces of everything in a step that is not the policy's: prefetch, growth, starts, miss classes.

use super::testing::Bench;
use crate::prefetch::NextRanked;
use crate::{Source, StreamPlan};
use kvtier_units::{BlockId, Slot};

fn ids(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

/// A bench that prefetches `budget` near misses per step.
fn prefetching(slots: u32, blocks: u32, budget: u32) -> Bench {
    let mut bench = Bench::new("lru", slots, blocks);
    bench.prefetch = Some((Box::new(NextRanked), budget));
    bench
}

fn step_near(bench: &mut Bench, blocks: &[u32], near: &[u32]) -> StreamPlan {
    bench.near = ids(near);
    bench.step(blocks)
}

fn brought(plan: &StreamPlan) -> Vec<u32> {
    plan.prefetches.iter().map(|fill| fill.block.0).collect()
}

#[test]
fn misses_take_free_slots_in_order_then_victims_slots_in_victim_order() {
    let mut bench = Bench::new("lru", 3, 9);
    let first = bench.step(&[5, 7]);
    assert_eq!(first.slots, [Slot(0), Slot(1)]);
    let second = bench.step(&[7, 1, 2]);
    assert_eq!(second.slots, [Slot(1), Slot(2), Slot(0)], "1 takes the free slot, 2 the slot of victim 5");
    assert_eq!(second.loads[0].victim, BlockId::NONE);
    assert_eq!(second.loads[1].victim, BlockId(5));
    assert_eq!(bench.resident(), [2, 7, 1]);
}

#[test]
fn counts_add_up_and_cold_is_the_first_time_in_hbm() {
    let mut bench = Bench::new("lru", 2, 9);
    let cold = bench.step(&[0, 1]).counts;
    assert_eq!((cold.accesses, cold.hits, cold.misses, cold.cold, cold.evictions), (2, 0, 2, 2, 0));
    bench.step(&[2, 3]);
    let again = bench.step(&[0, 4]).counts;
    assert_eq!((again.misses, again.cold, again.evictions), (2, 1, 2), "0 has been there before");
}

#[test]
fn prefilled_blocks_are_never_cold() {
    let mut bench = Bench::new("lru", 2, 9);
    bench.mark_prefilled(3);
    assert_eq!(bench.step(&[2, 3]).counts.cold, 1);
}

#[test]
fn the_newest_block_is_a_hit_outside_the_buffer() {
    let mut bench = Bench::new("lru", 2, 9);
    bench.newest = true;
    let plan = bench.step(&[0]);
    assert!(plan.newest);
    assert_eq!(
        (plan.counts.accesses, plan.counts.newest, plan.counts.hits, plan.counts.misses),
        (2, 1, 0, 1)
    );
    assert_eq!(bench.resident(), [0, BlockId::NONE.0]);
}

#[test]
fn a_start_is_resident_in_order_and_oldest_least_recent() {
    let mut bench = Bench::new("lru", 3, 9);
    bench.mark_prefilled(6);
    bench.start(&[3, 4, 5]);
    assert_eq!(bench.resident(), [3, 4, 5]);
    let plan = bench.step(&[8, 7]);
    assert_eq!(plan.victims(), [3, 4]);
    assert_eq!(bench.step(&[0]).counts.cold, 0, "prefilled, though never in the buffer");
}

#[test]
fn prefetch_respects_budget_order_and_residency() {
    let mut bench = prefetching(4, 9, 2);
    let plan = step_near(&mut bench, &[0], &[0, 5, 4, 3]);
    assert_eq!(brought(&plan), [5, 4], "0 is resident; the budget is two");
    assert_eq!((plan.counts.prefetches, plan.counts.dropped), (2, 0));
    assert_eq!(plan.prefetches[0].source, Source::Home);
    assert_eq!(bench.resident()[..3], [0, 5, 4]);
}

#[test]
fn prefetch_evicts_neither_the_selection_nor_another_prefetch() {
    let mut bench = prefetching(4, 9, 4);
    bench.step(&[0, 1]);
    let plan = step_near(&mut bench, &[2, 3], &[4, 5, 6, 7]);
    assert_eq!(brought(&plan), [4, 5], "only 0 and 1 may go");
    assert_eq!(plan.victims(), [1, 0]);
    assert_eq!(plan.counts.dropped, 2);
}

#[test]
fn the_first_demand_of_a_prefetch_counts_once_and_knows_its_issue() {
    let mut bench = prefetching(4, 9, 1);
    bench.step(&[0]);
    step_near(&mut bench, &[0], &[5]);
    assert_eq!(bench.unused_prefetches(), 1);
    let used = step_near(&mut bench, &[5, 0], &[]);
    assert_eq!((used.counts.hits, used.counts.prefetched, used.counts.misses), (2, 1, 0));
    assert_eq!(used.prefetch_uses, [1], "issued in step 1");
    assert_eq!(bench.unused_prefetches(), 0);
    assert_eq!(bench.step(&[5]).counts.prefetched, 0, "only the first demand counts");
}

#[test]
fn a_prefetched_block_is_not_cold_later() {
    let mut bench = prefetching(2, 9, 1);
    step_near(&mut bench, &[0], &[5]);
    step_near(&mut bench, &[1, 2], &[]);
    assert_eq!(bench.step(&[5]).counts.cold, 0);
}

#[test]
fn a_prefetch_that_leaves_unused_is_wasted() {
    let mut bench = prefetching(2, 9, 1);
    step_near(&mut bench, &[0], &[5]);
    let plan = step_near(&mut bench, &[1, 2], &[]);
    assert_eq!(plan.counts.wasted, 1);
    assert_eq!(bench.unused_prefetches(), 0);
}

#[test]
fn a_miss_on_what_a_prefetch_evicted_is_pollution_once() {
    let mut bench = prefetching(2, 9, 1);
    bench.step(&[0]);
    let plan = step_near(&mut bench, &[1], &[5]);
    assert_eq!(plan.prefetches[0].victim, BlockId(0));
    let miss = step_near(&mut bench, &[0, 1], &[]);
    assert_eq!((miss.counts.misses, miss.counts.pollution, miss.counts.wasted), (1, 1, 1));
    step_near(&mut bench, &[2, 3], &[]);
    assert_eq!(bench.step(&[0]).counts.pollution, 0, "this time a demand had evicted it");
}

#[test]
fn prefetching_back_what_a_prefetch_evicted_is_no_pollution() {
    let mut bench = prefetching(3, 9, 1);
    bench.step(&[0, 1]);
    bench.step(&[2]);
    step_near(&mut bench, &[2], &[5]);
    assert_eq!(bench.resident(), [0, 5, 2], "1 had the worse rank");
    step_near(&mut bench, &[2], &[1]);
    step_near(&mut bench, &[3, 4, 2], &[]);
    assert_eq!(bench.step(&[1]).counts.pollution, 0);
}

#[test]
fn growth_enters_as_most_recent_without_a_transfer() {
    let mut bench = Bench::new("lru", 3, 9);
    bench.step(&[0, 1]);
    bench.grown = Some(BlockId(6));
    let plan = bench.step(&[0]);
    let growth = plan.growth.expect("a slot was free");
    assert_eq!((growth.block, growth.slot, growth.source), (BlockId(6), Slot(2), Source::Grown));
    assert_eq!((plan.counts.written_back, plan.counts.misses, plan.counts.homebound), (1, 0, 0));
    bench.grown = None;
    assert_eq!(bench.step(&[7, 8]).victims(), [1, 0], "6 is most recent");
    assert_eq!(bench.step(&[6]).counts.hits, 1);
}

#[test]
fn growth_evicts_an_unpinned_block_and_else_stays_at_home() {
    let mut bench = Bench::new("lru", 2, 9);
    bench.step(&[0, 1]);
    bench.grown = Some(BlockId(5));
    let plan = bench.step(&[1]);
    assert_eq!(plan.growth.map(|fill| fill.victim), Some(BlockId(0)));
    bench.grown = Some(BlockId(6));
    let full = bench.step(&[0, 1]);
    assert_eq!(full.growth, None);
    assert_eq!((full.counts.homebound, full.counts.written_back), (1, 1));
    bench.grown = None;
    assert_eq!(bench.step(&[6]).counts.cold, 0, "it was filled in HBM");
}

#[test]
fn growth_does_not_evict_a_prefetch_of_the_same_step() {
    let mut bench = prefetching(2, 9, 1);
    bench.grown = Some(BlockId(8));
    let plan = step_near(&mut bench, &[0], &[5]);
    assert_eq!((plan.growth, plan.counts.homebound), (None, 1));
    assert_eq!(bench.resident(), [0, 5]);
}

#[test]
#[should_panic(expected = "a buffer holds at least one selection")]
fn a_buffer_smaller_than_the_selection_is_refused() {
    use crate::Residency;
    use crate::eviction::{BufferShape, EvictionPolicy, Lru, NoParams};
    let shape = BufferShape { slots: 1, blocks: 4, k: 2, seed: kvtier_units::Seed(0) };
    let policy = Lru::new(NoParams {}, shape).expect("lru takes any shape");
    drop(Residency::new(policy, shape));
}
