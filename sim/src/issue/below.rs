//! Operations over the tiers below host memory: misses and prefetches that come from there, and blocks that change their
//! home in the background.
//!
//! A block from CXL or NVMe passes that tier's link, host memory and the link to the device as one flow, at the rate of
//! the slowest: alone it takes the tier's latency, the set-up of its mechanism, and the larger of bytes over the tier's
//! read rate and what the mechanism takes from host memory. Misses of each tier have a queue of their own, beside the
//! swap-in from host, and the attention waits for all. What moves between tiers has one queue, in order, and is waited
//! for by nothing; a block promoted to host has passed host memory already, and is written there once more.

use super::{H2D, HBM, HOST, Issuer, READ, Sink, WRITE};
use crate::attribution::{OpKind, Queue};
use crate::links::{Resource, Route};
use crate::machine::Tier;
use crate::queues::{OpId, Work};
use crate::transfer::TransferCost;
use crate::work::{LayerWork, Movement};
use kvtier_policies::{Moves, demotion};
use kvtier_units::{Bandwidth, Bytes, Nanos};

/// Queues of the misses of each tier.
const QUEUE: [Queue; 2] = [Queue::CxlIn, Queue::NvmeIn];

impl Issuer {
    /// Brings a layer's misses from the tiers below host.
    pub(super) fn demand_below(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        work: &LayerWork,
        after: [Option<OpId>; 2],
    ) -> [Option<OpId>; 2] {
        [0, 1].map(|at| {
            let movement = &work.demand_below[at];
            let kind = OpKind::Demand;
            (movement.blocks > 0).then(|| {
                self.book_below(out, place, (at, movement));
                self.bring(out, kind, QUEUE[at], place, (at, movement), after)
            })
        })
    }

    /// Counts the bytes of a movement from a tier below host with a layer.
    pub(super) fn book_below(&self, out: &mut Sink<'_>, place: u32, (at, movement): (usize, &Movement)) {
        let bytes = self.bytes(movement);
        out.spans.of(Some(place)).h2d += bytes;
        out.spans.tiers.read[at] += bytes;
    }

    /// Brings prefetched blocks of a layer from the tiers below host, one tier after the other; returns the last. Their
    /// bytes are counted already.
    pub(super) fn prefetch_below(
        &mut self,
        out: &mut Sink<'_>,
        queue: Queue,
        place: u32,
        movements: &[Movement; 2],
        after: [Option<OpId>; 2],
    ) -> Option<OpId> {
        let used = movements.iter().enumerate().filter(|(_, movement)| movement.blocks > 0);
        used.map(|moved| self.bring(out, OpKind::Prefetch, queue, place, moved, after)).last()
    }

    fn bring(
        &mut self,
        out: &mut Sink<'_>,
        kind: OpKind,
        queue: Queue,
        place: u32,
        (at, movement): (usize, &Movement),
        after: [Option<OpId>; 2],
    ) -> OpId {
        let tier = self.tier(at);
        let (shape, cost) = self.chooser.transfer_at(movement, |shape| {
            let host = self.chooser.cost(kind, shape);
            TransferCost {
                setup: host.setup + tier.latency,
                body: host.body.max(alone(shape.payload(), tier.read)),
                rate: host.rate.min(tier.read),
            }
        });
        let bytes = shape.payload();
        let work = Work::Transfer { cost, route: Route::over(&[READ[at], HOST, H2D, HBM]), bytes };
        self.push(out, kind, queue, Some(place), 1, work, after)
    }

    /// Moves blocks between home tiers. The CPU has it done: no launch.
    pub(super) fn move_home(&mut self, out: &mut Sink<'_>, moves: &Moves, after: Option<OpId>) {
        for (from, to, blocks) in moves.all() {
            let bytes = self.model.attention.block_bytes * blocks;
            let (mut rate, mut latency) = (self.host_bandwidth, Nanos::ZERO);
            let mut route: Vec<Resource> = vec![HOST];
            // What comes up has been read by the miss that brought it.
            if let Some(at) = below(from).filter(|_| from < to) {
                rate = rate.min(self.tier(at).read);
                latency += self.tier(at).latency;
                route.push(READ[at]);
                out.spans.tiers.read[at] += bytes;
            }
            if let Some(at) = below(to) {
                rate = rate.min(self.tier(at).write);
                latency += self.tier(at).latency;
                route.push(WRITE[at]);
                out.spans.tiers.written[at] += bytes;
            }
            let cost = TransferCost { setup: latency, body: alone(bytes, rate), rate };
            let work = Work::Transfer { cost, route: Route::over(&route), bytes };
            let kind = if from < to { OpKind::Demote } else { OpKind::Promote };
            let id = self.push(out, kind, Queue::Background, None, 0, work, [after, None]);
            if after.is_none() {
                self.boundary_moves.push((id, blocks));
            }
        }
    }

    fn tier(&self, at: usize) -> Tier {
        self.tiers[at].expect("a configuration uses a tier only where the machine has it")
    }
}

/// Which of the tiers below host it is.
fn below(tier: demotion::Tier) -> Option<usize> {
    (tier as usize).checked_sub(1)
}

/// Bytes over a rate, rounded up to whole nanoseconds; at least one.
fn alone(bytes: Bytes, rate: Bandwidth) -> Nanos {
    let ns = (u128::from(bytes.0) * 1_000_000_000).div_ceil(u128::from(rate.0));
    Nanos(u64::try_from(ns).expect("a transfer ends within 584 years").max(1))
}
