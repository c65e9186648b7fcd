//! Where the blocks of requests have their home: told to the tiers as requests come and go, and step by step.

use super::{DecisionPlane, Prefix, SelectionSource, Stream};
use crate::demotion::Tier;
use crate::home::tiers::HomeTiers;
use crate::shared::StreamTables;
use crate::{Source, StreamPlan};
use kvtier_units::BlockId;

/// Bytes per block of the directory: a table entry, and the table, number and tier of the block.
const DIRECTORY_BYTES: u64 = 13;

impl DecisionPlane {
    /// Bytes in use in each home tier: host, CXL, NVMe. Without tiers below it, host holds what was reserved there.
    pub fn home_used(&self) -> [u64; 3] {
        match &self.tiers {
            Some(tiers) => tiers.used().map(|blocks| blocks * self.config.block_bytes),
            None => [self.home.used(), 0, 0],
        }
    }

    /// Bytes of host memory that say where each block has its home, and in which order blocks move down.
    pub fn directory_bytes(&self) -> u64 {
        let per_block = DIRECTORY_BYTES + u64::from(self.config.tiers.demotion.entry.bytes_per_block);
        self.tiers.as_ref().map_or(0, |tiers| tiers.used().iter().sum::<u64>() * per_block)
    }

    /// A request joins its prefix group; the first one opens the group's tables.
    pub(super) fn open_group(&mut self, prefix: Option<Prefix>) {
        let Some(prefix) = prefix else { return };
        let group = prefix.group as usize;
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, super::PrefixGroup::default);
        }
        self.groups[group].requests += 1;
        if let Some(pool) = self.warm.as_mut().filter(|_| self.groups[group].requests == 1) {
            let streams = self.config.slots.len() * self.config.head_groups as usize;
            self.groups[group].tables = (0..streams).map(|_| pool.open_table(prefix.blocks)).collect();
        }
        self.open_home_group(prefix);
    }

    fn open_home_group(&mut self, prefix: Prefix) {
        let streams = self.streams_per_request();
        let group = &mut self.groups[prefix.group as usize];
        if let Some(tiers) = self.tiers.as_mut().filter(|_| group.requests == 1) {
            group.home_tables = (0..streams).map(|_| tiers.open_table(prefix.blocks)).collect();
        }
    }

    /// Gives the blocks of a request's prompt their homes, oldest position first, and makes room. Returns how many went
    /// straight below host.
    pub(super) fn lodge(&mut self, streams: &[Stream], full_blocks: u32) -> u64 {
        let Some(tiers) = &mut self.tiers else { return 0 };
        let tables: Vec<StreamTables> = streams.iter().filter_map(|stream| stream.home).collect();
        for block in (0..full_blocks).map(BlockId) {
            tables.iter().for_each(|tables| tiers.settle(tables, block));
        }
        tiers.fit();
        tiers.take_spilled()
    }

    /// Frees the blocks of a request's own tables.
    pub(super) fn leave_home(&mut self, streams: &[Stream]) {
        if let Some(tiers) = &mut self.tiers {
            streams.iter().filter_map(|stream| stream.home).for_each(|tables| tiers.close_table(tables.own));
        }
    }

    /// Moves down what the watermarks ask for.
    pub(super) fn begin_home_step(&mut self) {
        let Some(tiers) = &mut self.tiers else { return };
        tiers.begin_step(self.step);
        let moves = tiers.take_moves();
        self.plan.boundary_moves = moves;
        let into = |to: Tier| {
            Tier::ALL.into_iter().filter(|from| *from < to).map(|from| moves.between(from, to)).sum()
        };
        self.plan.counts.demoted_cxl = into(Tier::Cxl);
        self.plan.counts.demoted_nvme = into(Tier::Nvme);
    }

    /// Tells the tiers what a layer brought and filled, in stream order.
    pub(super) fn settle_home<S: SelectionSource>(&mut self, layer: usize, seats: &[u32], source: &S) {
        let Some(tiers) = &mut self.tiers else { return };
        let heads = self.config.head_groups as usize;
        for (at, plan) in self.plan.layers[layer].streams.iter_mut().enumerate() {
            let number = layer * heads + at % heads;
            let seat = self.seats[seats[at / heads] as usize].as_ref().expect("a participant is seated");
            let tables = seat.streams[number].home.expect("with tiers every stream has tables");
            let brought = plan.ahead.iter().chain(&plan.loads).chain(&plan.prefetches);
            let brought = brought.filter(|fill| fill.source != Source::Warm);
            plan.counts.promoted +=
                brought.map(|fill| u64::from(tiers.fetch(&tables, fill.block))).sum::<u64>();
            if let Some(block) = source.selection(at / heads, number).grown {
                plan.counts.spilled += u64::from(tiers.settle_within(&tables, block));
            }
        }
    }

    /// Closes the tiers' record of the step.
    pub(super) fn end_home_step(&mut self) {
        if let Some(tiers) = &mut self.tiers {
            self.plan.moves = tiers.take_moves();
            tiers.end_step(self.step);
        }
    }
}

impl HomeTiers {
    /// Says of every block that a stream brings from its home which tier that is, as it stood at the layer's start.
    pub(super) fn route(&self, tables: &StreamTables, plan: &mut StreamPlan) {
        let StreamPlan { ahead, loads, prefetches, counts, .. } = plan;
        let homes = self.look_up(tables);
        for fill in loads.iter_mut().filter(|fill| fill.source == Source::Home) {
            fill.source = homes.tier(fill.block).into();
            counts.misses_cxl += u64::from(fill.source == Source::Cxl);
            counts.misses_nvme += u64::from(fill.source == Source::Nvme);
        }
        for fill in ahead.iter_mut().chain(prefetches).filter(|fill| fill.source == Source::Home) {
            fill.source = homes.tier(fill.block).into();
            counts.prefetches_cxl += u64::from(fill.source == Source::Cxl);
            counts.prefetches_nvme += u64::from(fill.source == Source::Nvme);
        }
    }
}
