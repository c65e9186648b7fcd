//! How what a prefetcher wants becomes fills. Apart from the demand path, which it must not slow down.

use super::{Below, PREFETCH_EVICTED, Prefetch, Residency};
use crate::eviction::{EvictionPolicy, Insertion};
use crate::prefetch::Want;
use crate::{Selection, StreamPlan};
use kvtier_units::{BlockId, Slot};

/// When in the step a prefetcher runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the look-up, on behalf of an earlier layer.
    Ahead,
    /// After the step has been credited.
    After,
}

/// What a prefetcher wants, and the resident part of it that may not be evicted for something due as soon.
#[derive(Default)]
pub(super) struct Wants {
    wanted: Vec<Want>,
    held: Vec<(u32, Slot)>,
}

impl<E: EvictionPolicy> Residency<E> {
    /// Brings what the prefetcher wants before the look-up. Nothing of this step is selected, so nothing is pinned yet.
    pub(super) fn prefetch_ahead(
        &mut self,
        step: u32,
        prefetch: &mut Prefetch<'_>,
        below: Below<'_>,
        plan: &mut StreamPlan,
    ) {
        let Some(source) = &prefetch.source else { return };
        self.wants.wanted.clear();
        prefetch.prefetcher.ahead(source, &mut self.wants.wanted);
        self.tables.open_step();
        plan.slots.clear();
        self.bring(step, &Selection::NOTHING, prefetch.budget, Phase::Ahead, below, plan);
    }

    /// Brings what the prefetcher wants after the step.
    pub(super) fn prefetch_after(
        &mut self,
        step: u32,
        selection: &Selection<'_>,
        prefetch: Prefetch<'_>,
        below: Below<'_>,
        plan: &mut StreamPlan,
    ) {
        self.wants.wanted.clear();
        let view = self.tables.view(selection, &plan.slots);
        prefetch.prefetcher.propose(&view, &prefetch.upcoming, &mut self.wants.wanted);
        let both = prefetch.source.is_some() && !self.wants.wanted.is_empty();
        assert!(!both, "a prefetcher that runs ahead wants nothing after the step");
        self.bring(step, selection, prefetch.budget, Phase::After, below, plan);
    }

    /// Holds the wanted blocks that are resident and brings the first `budget` that are not.
    fn bring(
        &mut self,
        step: u32,
        selection: &Selection<'_>,
        budget: u32,
        phase: Phase,
        below: Below<'_>,
        plan: &mut StreamPlan,
    ) {
        self.hold();
        let mut left = budget;
        for at in 0..self.wants.wanted.len() {
            let Want { block, due } = self.wants.wanted[at];
            if left == 0 {
                return;
            }
            if self.tables.slot_of[block.index()] != Slot::NONE {
                continue;
            }
            left -= 1;
            let released = self.release_later(due, selection, plan);
            let is_warm = below.warm.holds(block);
            let filled = self.insert(selection, block, Insertion::Prefetch, is_warm, u32::MAX, plan);
            self.hold_again(released);
            let Some(fill) = filled else {
                plan.counts.dropped += 1;
                continue;
            };
            if fill.victim != BlockId::NONE {
                self.history[fill.victim.index()] |= PREFETCH_EVICTED;
            }
            if E::READS_HOMES {
                self.policy.brought_from(fill.slot, below.home.tier(block));
            }
            self.prefetched_in[fill.slot.index()] = step + 1;
            self.unused_prefetches += 1;
            if is_warm {
                plan.counts.warm_prefetches += 1;
            } else {
                plan.counts.prefetches += 1;
            }
            match phase {
                Phase::Ahead => plan.ahead.push(fill),
                Phase::After => plan.prefetches.push(fill),
            }
        }
    }

    /// Pins the wanted blocks that are resident, each as due as its first mention says.
    fn hold(&mut self) {
        self.wants.held.clear();
        for &Want { block, due } in &self.wants.wanted {
            let slot = self.tables.slot_of[block.index()];
            if slot != Slot::NONE && self.tables.pinned_in[slot.index()] != self.tables.epoch {
                self.tables.pinned_in[slot.index()] = self.tables.epoch;
                self.wants.held.push((due, slot));
            }
        }
    }

    /// Where no other slot can be had, unpins the held blocks that are due last, if later than `due`; returns when
    /// they are due.
    fn release_later(&mut self, due: u32, selection: &Selection<'_>, plan: &StreamPlan) -> Option<u32> {
        let last = self.wants.held.iter().map(|&(due, _)| due).max().filter(|&last| last > due)?;
        let view = self.tables.view(selection, &plan.slots);
        if self.free_slots() > 0 || view.pins.evictable().next().is_some() {
            return None;
        }
        for &(_, slot) in self.wants.held.iter().filter(|&&(due, _)| due == last) {
            self.tables.pinned_in[slot.index()] = self.tables.epoch - 1;
        }
        Some(last)
    }

    /// Pins again what was released and still stands; what took its place is pinned and held no more.
    fn hold_again(&mut self, released: Option<u32>) {
        let Some(last) = released else { return };
        let (epoch, stamps) = (self.tables.epoch, &mut self.tables.pinned_in);
        self.wants.held.retain(|&(due, slot)| {
            let stamp = &mut stamps[slot.index()];
            let taken = due == last && *stamp == epoch;
            *stamp = epoch;
            !taken
        });
    }
}
