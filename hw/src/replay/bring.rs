//! What brings blocks in a step: lists of moves, the mechanism that makes them, and what is sent before it is needed.
//!
//! Under layer-ahead, what a step decides to prefetch for a layer is sent in the next step during the layer before it; for
//! the first layer, in the same step during the last. A prefetcher with a source layer is asked when that has looked up, and
//! what it wants is sent at once. Either way the target waits for it before its own misses are brought, not only before it
//! attends as in the simulator: a look-up may evict what is still under way, and give its frame to a miss.

use super::graph::Recorder;
use super::ledger::Brought;
use super::rig::Rig;
use crate::ops::replay::{Argument, Call};
use crate::ops::swap::{Move, Width};
use crate::{HwError, Shape, Stream, copy_async, copy_batch_async};
use kvtier_sim::attribution::{OpKind, Queue};
use kvtier_sim::overlap::Overlap;
use kvtier_sim::transfer::Mechanism;

/// Parts of a stream's fills: loads, prefetches after the step, those before the look-up.
pub(super) const LOADS: u32 = 0;
pub(super) const PREFETCHES: u32 = 1;
const EARLY: u32 = 3;

impl Recorder<'_> {
    /// Lists a part of a layer's fills as moves.
    pub(super) fn list(&self, sparse: u32, part: u32) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let (z, lists) = (rig.geometry.sizes, &rig.moves[sparse as usize][usize::from(part != LOADS)]);
        let mut arguments = vec![Argument::Sizes(z)];
        let words =
            [sparse.into(), part.into(), d.fills.address(), d.counts.address(), rig.frame_of.address()];
        arguments.extend(words.map(Argument::Word));
        arguments.push(lists.into());
        let per_list = z.streams / rig.geometry.lists();
        arguments.extend([per_list.into(), rig.missed.address()].map(Argument::Word));
        if !rig.geometry.ways.sorted {
            return self.per_stream(Call::ListMoves, &arguments);
        }
        let shape = Shape { shared: z.blocks.div_ceil(32) * 8, ..Shape::flat(z.streams, 1024) };
        rig.launch(&rig.stream, Call::SortMoves, shape, &arguments)
    }

    /// Brings a layer's misses (0) or prefetches (1) on the compute stream, with all of the device.
    pub(super) fn bring(&self, stream: &Stream, sparse: u32, which: usize) -> Result<(), HwError> {
        self.see_look_up(sparse, which)?;
        let width = Width::shared(self.rig.device.info().sms);
        self.rig.bring(stream, (sparse, which), self.list_of(sparse, which), width)
    }

    /// A list as the host has it, where copy engines may bring it.
    fn list_of(&self, sparse: u32, which: usize) -> Option<&Brought> {
        self.copies.get(sparse as usize).map(|lists| &lists[which])
    }

    /// What brings a list.
    pub(super) fn mechanism(&self, sparse: u32, which: usize) -> Mechanism {
        self.list_of(sparse, which).map_or(self.rig.geometry.ways.usual(), |list| list.by)
    }

    /// Waits, where copy engines are to bring a list, until the look-up is done: the schedule knows what it finds long
    /// before, but an engine must see it. Prefetches follow misses that were waited for, or were decided in an earlier
    /// step; but where each list has its own mechanism, a gather may have brought those misses, which waits for nobody.
    fn see_look_up(&self, sparse: u32, which: usize) -> Result<(), HwError> {
        let ways = &self.rig.geometry.ways;
        if self.copies.is_empty() || self.mechanism(sparse, which).is_gather() {
            return Ok(());
        }
        match which {
            0 => self.rig.stream.synchronize(),
            // Only that: the attention goes on.
            _ if ways.always.is_none() && !ways.sent_later(sparse) => self.events.looked_up.synchronize(),
            _ => Ok(()),
        }
    }

    /// Sends them on the copy-in stream, beside what computes, once everything so far is computed.
    pub(super) fn send(
        &mut self,
        at: u32,
        (kind, sparse): (OpKind, u32),
        which: usize,
    ) -> Result<(), HwError> {
        let rig = self.rig;
        self.see_look_up(sparse, which)?;
        rig.copy_in.wait_for(&rig.stream, &self.events.fork)?;
        self.copied_in = true;
        let begin = self.aside(&rig.copy_in)?;
        let width = Width::alone(rig.spare(self.mechanism(sparse, which)));
        rig.bring(&rig.copy_in, (sparse, which), self.list_of(sparse, which), width)?;
        self.mark_aside(&rig.copy_in, (kind, Queue::CopyIn), at, sparse, begin)
    }

    /// During this layer, sends what was decided for the next one; during the last, for the first one.
    pub(super) fn send_decided(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let rig = self.rig;
        let next = (sparse + 1) % rig.geometry.layers;
        if rig.geometry.ways.sources[next as usize].is_some() {
            return Ok(());
        }
        if next == 0 && sparse > 0 {
            // Its write-backs are of this step; those of any other layer ended with the last.
            rig.copy_in.wait_for(&rig.copy_out, &self.events.written)?;
        }
        self.send(at, (OpKind::Prefetch, next), 1)?;
        self.note_sent(next)
    }

    /// Sends what this layer's selection lets be brought ahead of later ones.
    pub(super) fn send_early(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        for target in self.targets(sparse) {
            self.take_plan(target, true)?;
            self.list(target, EARLY)?;
            self.send(at, (OpKind::Prefetch, target), 1)?;
            self.note_sent(target)?;
        }
        Ok(())
    }

    /// The same in turn: the compute stream brings it.
    pub(super) fn bring_early(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let rig = self.rig;
        for target in self.targets(sparse) {
            self.take_plan(target, true)?;
            self.list(target, EARLY)?;
            self.bring(&rig.stream, target, 1)?;
            self.mark(OpKind::Prefetch, Some(at), Some(target))?;
        }
        Ok(())
    }

    /// Waits for what was sent ahead for a layer in this step.
    pub(super) fn wait_arrival(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        if std::mem::take(&mut self.sent[sparse as usize]) {
            self.rig.stream.wait_event(&self.events.arrived[sparse as usize])?;
            self.mark(OpKind::Prefetch, Some(at), Some(sparse))?;
        }
        Ok(())
    }

    fn note_sent(&mut self, target: u32) -> Result<(), HwError> {
        self.sent[target as usize] = true;
        self.events.arrived[target as usize].record(&self.rig.copy_in)
    }

    fn targets(&self, sparse: u32) -> Vec<u32> {
        let sources = (0u32..).zip(&self.rig.geometry.ways.sources);
        sources.filter(|(_, source)| **source == Some(sparse)).map(|(target, _)| target).collect()
    }
}

impl Rig<'_> {
    /// Moves one list of a layer: misses (0) or prefetches (1). `told` is the same as the host has it.
    fn bring(
        &self,
        stream: &Stream,
        (sparse, which): (u32, usize),
        told: Option<&Brought>,
        width: Width,
    ) -> Result<(), HwError> {
        let lists = &self.moves[sparse as usize][which];
        let moves = told.map_or(&[][..], |list| &list.moves);
        if told.is_some() && moves.is_empty() {
            return Ok(());
        }
        match told.map_or(self.geometry.ways.usual(), |list| list.by) {
            Mechanism::GatherPerRequest => self.kernels.swap.swap_in_lists(stream, self.pools(), lists),
            by @ (Mechanism::CopyLoop | Mechanism::CopyBatch) => self.copy(stream, by, moves),
            Mechanism::Gather | Mechanism::Copy => {
                self.kernels.swap.swap_in_list(stream, self.pools(), lists, width)
            }
        }
    }

    /// Has the copy engines make moves, one by one or in a batch.
    fn copy(&self, stream: &Stream, by: Mechanism, moves: &[Move]) -> Result<(), HwError> {
        let pools = self.pools();
        let bytes = u64::from(pools.block_bytes);
        let ends = |moved: &Move| {
            (pools.frames + u64::from(moved.frame) * bytes, pools.home + u64::from(moved.home) * bytes)
        };
        let bytes = pools.block_bytes as usize;
        if by == Mechanism::CopyLoop {
            // SAFETY: the ledger names blocks and frames within the pools, which outlive the stream's work.
            return moves
                .iter()
                .map(ends)
                .try_for_each(|(to, from)| unsafe { copy_async(stream, to, from, bytes) });
        }
        let (to, from): (Vec<u64>, Vec<u64>) = moves.iter().map(ends).unzip();
        // SAFETY: as above.
        if moves.is_empty() {
            Ok(())
        } else {
            unsafe { copy_batch_async(stream, Some(&self.before_batch), &to, &from, bytes) }
        }
    }

    /// Multiprocessors that what flies beside attention keeps to itself; copy engines need none.
    pub(super) fn spare(&self, by: Mechanism) -> u32 {
        match by {
            Mechanism::Gather => super::rig::COPY_SMS,
            Mechanism::GatherPerRequest => self.geometry.seats.min(self.device.info().sms / 2),
            _ => 0,
        }
    }

    /// Multiprocessors that attention to all leaves to what may be under way beside it.
    pub(super) fn spare_beside(&self) -> u32 {
        if self.geometry.flies() { self.spare(self.geometry.ways.usual()) } else { 0 }
    }

    /// Brings what the last step has decided and no step has sent; copy engines are told by `pending`.
    pub(super) fn settle(&self, pending: &[Move]) -> Result<(), HwError> {
        let ways = &self.geometry.ways;
        let width = Width::shared(self.device.info().sms);
        if ways.copies() {
            self.copy(&self.stream, ways.always.unwrap_or(Mechanism::CopyBatch), pending)?;
        } else if ways.overlap == Overlap::LayerAhead && self.geometry.budget > 0 {
            let bring = |layer| self.bring(&self.stream, (layer, 1), None, width);
            (0..self.geometry.layers).try_for_each(bring)?;
        }
        self.stream.synchronize()
    }

    /// Has what waits to be sent to a request that has left go where nobody reads it.
    pub(super) fn redirect(&self, seat: u32) -> Result<(), HwError> {
        let z = self.geometry.sizes;
        let waiting = self.geometry.ways.overlap == Overlap::LayerAhead;
        for lists in self.moves.iter().filter(|_| waiting) {
            let mut arguments = vec![Argument::Sizes(z)];
            arguments.extend([self.geometry.heads.into(), seat.into()].map(Argument::Word));
            arguments.push((&lists[1]).into());
            arguments.push(Argument::Word(self.geometry.scrap().into()));
            let shape = Shape { grid: (4, self.geometry.lists()), block: 128, shared: 0 };
            self.launch(&self.stream, Call::Redirect, shape, &arguments)?;
        }
        Ok(())
    }
}
