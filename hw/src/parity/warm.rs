//! Warm pages beside a device that decides: the host manages the pool from what the device evicts, and the device looks
//! up, layer by layer, which blocks are in it.

use super::pool::Pool;
use super::{Fills, Scenario};
use crate::ops::count32;
use crate::ops::lookup::{Decided, Lookup, Residencies, Selected};
use crate::{HwError, Stream};

/// The pool, and every stream's table in it by seat and stream.
pub(super) struct Warm {
    pub(super) pool: Pool,
    tables: Vec<Vec<u32>>,
}

impl Warm {
    pub(super) fn new(scenario: &Scenario) -> Warm {
        Warm { pool: Pool::new(scenario.warm_frames), tables: vec![Vec::new(); scenario.seats as usize] }
    }

    /// Frees the pages of a seat and opens tables for its next request.
    pub(super) fn seat(&mut self, seat: usize, scenario: &Scenario) {
        self.tables[seat].drain(..).for_each(|table| self.pool.close(table));
        self.tables[seat] = (0..scenario.streams()).map(|_| self.pool.open(scenario.max_blocks())).collect();
    }

    /// Ends a layer, given the fills of its streams in order: those that enter before growth, and all.
    fn settle(&mut self, step: u32, layer: u32, heads: usize, streams: &[(usize, Vec<[u32; 4]>)]) {
        let table = |at: usize| self.tables[at / heads][layer as usize * heads + at % heads];
        let (mut removed, mut inserted) = (Vec::new(), Vec::new());
        for (at, (entering, fills)) in streams.iter().enumerate() {
            let warm = fills[..*entering].iter().filter(|fill| fill[3] == 1);
            removed.extend(warm.map(|fill| (table(at), fill[0])));
        }
        for (at, (_, fills)) in streams.iter().enumerate() {
            let left = fills.iter().filter(|fill| fill[2] != u32::MAX);
            inserted.extend(left.map(|fill| (table(at), fill[2])));
        }
        self.pool.settle(step, layer, &removed, &inserted);
    }
}

/// A step of the device with warm pages.
pub(super) struct Tables<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) state: &'a mut Residencies,
    pub(super) warm: &'a mut Warm,
}

impl Tables<'_> {
    /// Decides layer by layer: each looks up the pages as they stood at its start, then the host settles the pool.
    pub(super) fn step(
        self,
        lookup: &Lookup,
        (stream, selected, decided): (&Stream, &Selected, &Decided),
        step: u32,
    ) -> Result<Fills, HwError> {
        let (scenario, heads) = (self.scenario, self.scenario.head_groups as usize);
        let per_layer = (scenario.seats * scenario.head_groups) as usize;
        let stride = scenario.buffers().fills_per_stream() as usize;
        for layer in 0..scenario.layers {
            let first = layer as usize * per_layer;
            let tables = &self.warm.tables;
            let table = |at: usize| tables[at / heads][layer as usize * heads + at % heads];
            let bits: Vec<u32> =
                (0..per_layer).flat_map(|at| held(&self.warm.pool, table(at), scenario)).collect();
            self.state.set_warm(count32(first), &bits)?;
            lookup.step_of(stream, self.state, selected, decided, first..first + per_layer)?;
            stream.synchronize()?;
            let now = Fills::read(decided)?;
            let fills = |at: usize| {
                let counts = now.counts[first + at].map(|n| n as usize);
                let (entering, all) = (counts[0] + counts[1], counts[0] + counts[1] + counts[2]);
                let of = &now.fills[(first + at) * stride..][..all.min(stride)];
                (entering.min(of.len()), of.to_vec())
            };
            let streams: Vec<(usize, Vec<[u32; 4]>)> = (0..per_layer).map(fills).collect();
            self.warm.settle(step, layer, heads, &streams);
        }
        Fills::read(decided)
    }
}

/// A bit per block of a stream that is among the warm pages.
fn held(pool: &Pool, table: u32, scenario: &Scenario) -> Vec<u32> {
    let blocks = scenario.max_blocks();
    let word = |first: u32| {
        let last = blocks.min(first + 32);
        (first..last)
            .filter(|&block| pool.holds(table, block))
            .fold(0, |word, block| word | 1 << (block - first))
    };
    (0..blocks.div_ceil(32)).map(|at| word(at * 32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::accesses::Accesses;
    use crate::parity::log::{Log, Record};
    use kvtier_policies::Admission;

    #[test]
    fn the_pool_written_again_agrees_with_the_decision_plane() {
        let scenario = Scenario {
            name: "warm".into(),
            seats: 3,
            layers: 2,
            head_groups: 2,
            slots: 40,
            k: 32,
            entries: 3,
            prompt_blocks: (50, 200),
            steps_per_request: (3, 20),
            churn: 60,
            prefetch: 4,
            recent: false,
            warm_frames: 150,
            steps: 40,
            seed: 5,
        };
        let (mut plane, mut accesses) = (scenario.plane("lru"), Accesses::new(&scenario));
        let (mut warm, mut log) = (Warm::new(&scenario), Log::new(scenario.streams() as usize));
        let (mut record, mut warm_hits) = (Record::default(), 0);
        let seats: Vec<u32> = (0..scenario.seats).collect();
        for step in 0..scenario.steps {
            for (seat, full) in accesses.change_seats(step) {
                if step > 0 {
                    plane.release(seat);
                    log.leave(seat);
                }
                let max_blocks = scenario.max_blocks();
                let first_use = &|_, _| u32::MAX;
                plane
                    .admit(&Admission { seat, full_blocks: full, max_blocks, prefix: None, first_use })
                    .expect("the home pool is boundless");
                log.join(seat);
                warm.seat(seat as usize, &scenario);
            }
            let plan = plane.step(&seats, accesses.step());
            for (layer, plans) in plan.layers.iter().enumerate() {
                let words = |fill: &kvtier_policies::Fill| {
                    [fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32]
                };
                let fills = plans.streams.iter().map(|stream| {
                    (stream.loads.len() + stream.prefetches.len(), stream.fills().map(words).collect())
                });
                warm.settle(step, count32(layer), 2, &fills.collect::<Vec<_>>());
                for (at, stream) in plans.streams.iter().enumerate() {
                    record.of_plan(step, stream);
                    log.append(at / 2, layer * 2 + at % 2, &record);
                    warm_hits += stream.counts.warm_hits;
                }
            }
        }
        assert!(warm_hits > 100, "{warm_hits} warm hits");
        assert_eq!(log.finish(warm.pool.hash()), plane.decision_hash());
    }
}
