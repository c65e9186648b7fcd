//! One stream of a seated request: what its buffer and its prefetcher are told in each step.

use crate::home::tiers::{HomeLookup, HomeTiers};
use crate::prefetch::{Prefetcher, Upcoming};
use crate::residency::{Below, HotBuffer, Prefetch};
use crate::shared::StreamTables;
use crate::warm::{WarmLookup, WarmPool};
use crate::{SelectionSource, StreamPlan};

/// One stream: its buffer, its prefetcher, and what it has decided so far.
pub(super) struct Stream {
    pub(super) buffer: Box<dyn HotBuffer>,
    pub(super) prefetcher: Option<Box<dyn Prefetcher>>,
    pub(super) warm: Option<StreamTables>,
    pub(super) home: Option<StreamTables>,
    pub(super) hash: u64,
}

/// What one stream is asked for in one step, and where that comes from.
pub(super) struct Asked<'a, S> {
    pub(super) source: &'a S,
    pub(super) participant: usize,
    /// The stream's number, its head group, and head groups per layer.
    pub(super) number: usize,
    pub(super) head: usize,
    pub(super) heads: usize,
}

impl Stream {
    /// Decides one step; returns the layer ahead of which prefetches were brought.
    #[inline]
    pub(super) fn decide<S: SelectionSource>(
        &mut self,
        step: u32,
        asked: &Asked<'_, S>,
        budget: u32,
        below: (Option<&WarmPool>, Option<&HomeTiers>),
        plan: &mut StreamPlan,
    ) -> Option<u32> {
        let Asked { source, participant, number, head, heads } = *asked;
        let look = |steps| source.upcoming(participant, number, steps);
        let prefetch = self.prefetcher.as_mut().map(|prefetcher| {
            let layer = prefetcher.source();
            Prefetch {
                budget,
                source: layer.map(|layer| source.selection(participant, layer as usize * heads + head)),
                upcoming: Upcoming::new(&look, source.complete_blocks(participant)),
                prefetcher: prefetcher.as_mut(),
            }
        });
        let layer = prefetch.as_ref().and_then(|prefetch| prefetch.prefetcher.source());
        let below = Below {
            warm: below.0.zip(self.warm).map_or(WarmLookup::NONE, |(pool, tables)| pool.look_up(&tables)),
            home: below.1.zip(self.home).map_or(HomeLookup::HOST, |(tiers, tables)| tiers.look_up(&tables)),
        };
        self.buffer.step(step, &source.selection(participant, number), prefetch, below, plan);
        layer
    }
}
