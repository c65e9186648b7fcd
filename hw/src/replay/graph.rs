//! One engine step: which kernels, in which stream, and the times that are noted between them. It is recorded as one graph,
//! or submitted kernel by kernel; either way it is this one body. What brings blocks is in `bring.rs`.

use super::bring::{LOADS, PREFETCHES};
use super::ledger::{Brought, Copies};
use super::marks::Marked;
use super::rig::{COPY_SMS, Rig};
use super::weights::WeightsRead;
use crate::ops::replay::{Argument, Call, Part};
use crate::ops::swap::Width;
use crate::{Device, Event, Graph, HwError, Shape};
use kvtier_sim::attribution::{OpKind, Queue};
use kvtier_sim::overlap::Overlap;

/// A step that can be submitted: its first time is at place 0, its last at `last`.
pub(super) struct StepGraph {
    /// None where the host submits kernel by kernel.
    graph: Option<Graph>,
    traced: bool,
    events: Events,
    pub(super) marks: Vec<Marked>,
    pub(super) last: u32,
}

/// How the streams of a step wait for each other.
pub(super) struct Events {
    pub(super) fork: Event,
    /// A layer has looked up.
    pub(super) looked_up: Event,
    /// A layer's misses are there.
    pub(super) demand: Event,
    /// Write-backs were made.
    pub(super) written: Event,
    /// Per layer that selects: what was sent ahead for it is there.
    pub(super) arrived: Vec<Event>,
}

impl Events {
    fn new(device: &Device, layers: u32) -> Result<Events, HwError> {
        let event = || Event::new(device);
        let arrived = (0..layers).map(|_| event()).collect::<Result<_, HwError>>()?;
        Ok(Events { fork: event()?, looked_up: event()?, demand: event()?, written: event()?, arrived })
    }
}

/// Captures a step; `traced` notes the time between operations, where otherwise only the step's ends are.
pub(super) fn capture(rig: &Rig<'_>, traced: bool) -> Result<StepGraph, HwError> {
    let events = Events::new(&rig.device, rig.geometry.layers)?;
    let mut recorder = Recorder::new(rig, traced, &events, &[]);
    let graph = rig.stream.capture(|| recorder.step())?;
    let (marks, last) = (recorder.marks, recorder.since);
    let graph = Some(graph).filter(|_| !rig.geometry.ways.eager);
    Ok(StepGraph { graph, traced, events, marks, last })
}

impl StepGraph {
    /// Submits the step; `copies` is what is brought in it where copy engines may do it. A step that is submitted kernel
    /// by kernel begins once the one before it has ended, as decoding does.
    pub(super) fn submit(&self, rig: &Rig<'_>, copies: &Copies) -> Result<(), HwError> {
        match &self.graph {
            Some(graph) => graph.launch(&rig.stream),
            None => {
                rig.stream.synchronize()?;
                Recorder::new(rig, self.traced, &self.events, copies).step()
            }
        }
    }
}

pub(super) struct Recorder<'a> {
    pub(super) rig: &'a Rig<'a>,
    pub(super) traced: bool,
    pub(super) marks: Vec<Marked>,
    /// Places taken.
    pub(super) next: u32,
    /// Place of the last time noted on the compute stream.
    pub(super) since: u32,
    pub(super) events: &'a Events,
    /// What is brought where copy engines may do it, per layer; nothing while a step is captured.
    pub(super) copies: &'a [[Brought; 2]],
    /// Layers for which something was sent ahead in this step.
    pub(super) sent: Vec<bool>,
    /// Whether the copy-in stream has work of this step.
    pub(super) copied_in: bool,
}

impl<'a> Recorder<'a> {
    fn new(rig: &'a Rig<'a>, traced: bool, events: &'a Events, copies: &'a [[Brought; 2]]) -> Recorder<'a> {
        let sent = vec![false; rig.geometry.layers as usize];
        Recorder { rig, traced, marks: Vec::new(), next: 0, since: 0, events, copies, sent, copied_in: false }
    }

    fn step(&mut self) -> Result<(), HwError> {
        let rig = self.rig;
        self.time(&rig.stream)?;
        let mut streamed = 0;
        let mut write_backs = false;
        for (at, layer) in (0u32..).zip(&rig.geometry.model) {
            match layer.sparse {
                Some(sparse) => {
                    self.sparse(at, sparse)?;
                    write_backs = true;
                }
                None => {
                    self.stream_listed(at)?;
                    self.mark(OpKind::Attend, Some(at), None)?;
                }
            }
            streamed = self.weights(&layer.read, streamed)?;
            self.mark(OpKind::Dense, Some(at), layer.sparse)?;
        }
        self.weights(&rig.geometry.head, streamed)?;
        self.always_mark(OpKind::Head)?;
        // What no attention waited for may outlast the last kernel, but not the step.
        if write_backs {
            rig.stream.wait_for(&rig.copy_out, &self.events.fork)?;
        }
        if self.copied_in {
            rig.stream.wait_for(&rig.copy_in, &self.events.fork)?;
        }
        rig.launch(&rig.stream, Call::Advance, Shape::flat(1, 1), &[Argument::Word(rig.step.address())])
    }

    fn sparse(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let rig = self.rig;
        if rig.geometry.ways.overlap == Overlap::LayerAhead && rig.geometry.budget > 0 {
            self.send_decided(at, sparse)?;
        }
        self.stream_listed(at)?;
        self.feed(sparse)?;
        self.mark(OpKind::Select, Some(at), Some(sparse))?;
        self.look_up(sparse)?;
        if !self.copies.is_empty() && rig.geometry.ways.always.is_none() {
            self.events.looked_up.record(&rig.stream)?;
        }
        self.mark(OpKind::Lookup, Some(at), Some(sparse))?;
        match rig.geometry.ways.overlap {
            Overlap::HitFirst => self.hits_first(at, sparse)?,
            Overlap::Serial | Overlap::LayerAhead => self.in_turn(at, sparse)?,
        }
        self.grow(sparse)?;
        rig.copy_out.wait_for(&rig.stream, &self.events.fork)?;
        let width = Width::shared(COPY_SMS);
        let begin = self.aside(&rig.copy_out)?;
        rig.kernels.swap.write_back(&rig.copy_out, rig.pools(), &rig.written[sparse as usize], width)?;
        self.mark_aside(&rig.copy_out, (OpKind::WriteBack, Queue::CopyOut), at, sparse, begin)
    }

    /// Swap-in, then attention to all; prefetches of this layer after it, or in the next step during the layer before.
    fn in_turn(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let rig = self.rig;
        let serial = rig.geometry.ways.overlap == Overlap::Serial;
        if !serial {
            self.send_early(at, sparse)?;
            self.wait_arrival(at, sparse)?;
        }
        self.list(sparse, LOADS)?;
        self.bring(&rig.stream, sparse, 0)?;
        self.mark(OpKind::Demand, Some(at), Some(sparse))?;
        self.append(sparse)?;
        self.prepare(sparse, Part::All)?;
        rig.attend(sparse as usize, Part::All, rig.spare_beside())?;
        self.mark(OpKind::Attend, Some(at), Some(sparse))?;
        if self.prefetches_after(sparse) {
            self.list(sparse, PREFETCHES)?;
            if serial {
                self.bring(&rig.stream, sparse, 1)?;
                self.mark(OpKind::Prefetch, Some(at), Some(sparse))?;
            }
        }
        if serial { self.bring_early(at, sparse) } else { Ok(()) }
    }

    /// Attention to what is resident, while the misses fly on multiprocessors of their own; then to the misses.
    fn hits_first(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let (rig, layer) = (self.rig, sparse as usize);
        self.list(sparse, LOADS)?;
        self.send(at, (OpKind::Demand, sparse), 0)?;
        self.events.demand.record(&rig.copy_in)?;
        self.send_early(at, sparse)?;
        self.wait_arrival(at, sparse)?;
        self.append(sparse)?;
        self.prepare(sparse, Part::Hits)?;
        self.prepare(sparse, Part::Misses)?;
        // Beside the misses of this layer prefetches may be under way.
        let spare = rig.spare(self.mechanism(sparse, 0)).max(rig.spare_beside());
        rig.attend(layer, Part::Hits, spare)?;
        self.mark(OpKind::Attend, Some(at), Some(sparse))?;
        rig.stream.wait_event(&self.events.demand)?;
        self.mark(OpKind::Demand, Some(at), Some(sparse))?;
        rig.attend(layer, Part::Misses, rig.spare_beside())?;
        self.mark(OpKind::AttendMisses, Some(at), Some(sparse))?;
        if !rig.reads_only() {
            rig.merge(layer)?;
            self.mark(OpKind::Merge, Some(at), Some(sparse))?;
        }
        if self.prefetches_after(sparse) {
            self.list(sparse, PREFETCHES)?;
            self.send(at, (OpKind::Prefetch, sparse), 1)?;
        }
        Ok(())
    }

    /// Whether the layer prefetches after its step: one with a source layer does so before, and there is but one phase.
    fn prefetches_after(&self, sparse: u32) -> bool {
        let geometry = &self.rig.geometry;
        geometry.budget > 0 && geometry.ways.sources[sparse as usize].is_none()
    }

    fn stream_listed(&self, at: u32) -> Result<(), HwError> {
        let rig = self.rig;
        let words = rig.geometry.pool_words;
        let first = u64::from(at) * words / rig.geometry.model.len() as u64;
        let arguments = [
            Argument::Script(rig.script()),
            Argument::Word(at.into()),
            Argument::Word(rig.pool.address()),
            Argument::Word(words),
            Argument::Word(first),
            Argument::Word(rig.checksum()),
        ];
        let shape = Shape::flat(rig.device.info().sms * 2, 512);
        rig.launch(&rig.stream, Call::StreamListed, shape, &arguments)
    }

    fn feed(&self, sparse: u32) -> Result<(), HwError> {
        let (rig, s) = (self.rig, &self.rig.selected);
        let mut arguments = vec![Argument::Script(rig.script()), Argument::Sizes(rig.geometry.sizes)];
        let words = [
            sparse.into(),
            s.blocks.address(),
            s.counts.address(),
            s.near.address(),
            s.near_counts.address(),
            s.grown.address(),
            rig.metas.address(),
        ];
        let scores = s.scores.as_ref().map_or(0, crate::DeviceBuffer::address);
        arguments.extend(words.map(Argument::Word));
        arguments.push((&rig.moves[sparse as usize][0]).into());
        let written = rig.written[sparse as usize].count.address();
        arguments.extend([written, scores].map(Argument::Word));
        self.per_stream(Call::Feed, &arguments)
    }

    fn look_up(&self, sparse: u32) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let per_layer = rig.geometry.sizes.streams as usize;
        if rig.geometry.ways.policy.is_some() {
            let first = sparse as usize * per_layer;
            let streams = first..first + per_layer;
            return rig.kernels.lookup.step_of(&rig.stream, &rig.state, &rig.selected, d, streams);
        }
        self.take_plan(sparse, false)
    }

    /// Takes the host's decisions of a layer, or those `early` ones that precede its look-up.
    pub(super) fn take_plan(&self, sparse: u32, early: bool) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let mut arguments = vec![Argument::Script(rig.script()), Argument::Sizes(rig.geometry.sizes)];
        let words = [
            sparse.into(),
            early.into(),
            d.slots.address(),
            d.fills.address(),
            d.counts.address(),
            rig.state.block_of(),
            rig.frame_of.address(),
        ];
        arguments.extend(words.map(Argument::Word));
        self.per_stream(Call::TakePlan, &arguments)
    }

    fn append(&self, sparse: u32) -> Result<(), HwError> {
        let rig = self.rig;
        let arguments = [
            Argument::Sizes(rig.geometry.sizes),
            Argument::Word(sparse.into()),
            Argument::Cells(rig.geometry.cells),
            Argument::Word(rig.owners.address()),
            Argument::Word(rig.metas.address()),
            Argument::Word(rig.frame_of.address()),
            Argument::Word(rig.frames.address()),
            (&rig.moves[sparse as usize][1]).into(),
        ];
        self.per_stream(Call::Append, &arguments)
    }

    fn prepare(&self, sparse: u32, part: Part) -> Result<(), HwError> {
        self.rig.prepare(sparse, part)
    }

    fn grow(&self, sparse: u32) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let moves = &rig.written[sparse as usize];
        let words = [
            sparse.into(),
            rig.selected.grown.address(),
            d.fills.address(),
            d.counts.address(),
            rig.frame_of.address(),
            moves.list.address(),
            moves.count.address(),
        ];
        let mut arguments = vec![Argument::Script(rig.script()), Argument::Sizes(rig.geometry.sizes)];
        arguments.extend(words.map(Argument::Word));
        let shape = Shape::flat(rig.geometry.sizes.streams.div_ceil(256), 256);
        rig.launch(&rig.stream, Call::Grow, shape, &arguments)
    }

    /// Reads a layer's weights from where the last one ended, or from the start where the pool ends before.
    fn weights(&self, read: &WeightsRead, from: u64) -> Result<u64, HwError> {
        let (rig, words) = (self.rig, read.words);
        if words == 0 {
            return Ok(from);
        }
        let from = if from + words > rig.geometry.pool_words { 0 } else { from };
        let address = rig.pool.address() + from * 16;
        if read.products.is_empty() {
            rig.kernels.dense.stream_weights(&rig.stream, address, words * 16, rig.device.info().sms * 2)?;
        }
        let mut at = address;
        for product in &read.products {
            rig.multiply(*product, at)?;
            at += product.weight_bytes();
        }
        Ok(from + words)
    }

    pub(super) fn per_stream(&self, call: Call, arguments: &[Argument]) -> Result<(), HwError> {
        self.rig.launch(&self.rig.stream, call, Shape::flat(self.rig.geometry.sizes.streams, 128), arguments)
    }
}

impl Rig<'_> {
    /// Makes what attention reads of a part of a layer's selection.
    pub(super) fn prepare(&self, sparse: u32, part: Part) -> Result<(), HwError> {
        let (geometry, d) = (&self.geometry, &self.decided);
        let (entries, rows) = self.readings[usize::from(part == Part::Misses)].addresses();
        let words = [
            sparse.into(),
            part as u64,
            geometry.cells.page.into(),
            geometry.stride.into(),
            self.metas.address(),
            d.slots.address(),
            d.fills.address(),
            d.counts.address(),
            self.missed.address(),
            self.frame_of.address(),
            entries,
            rows,
        ];
        let mut arguments = vec![Argument::Sizes(geometry.sizes)];
        arguments.extend(words.map(Argument::Word));
        let shared = geometry.sizes.slots.div_ceil(32) * 4;
        let shape = Shape { shared, ..Shape::flat(geometry.sizes.streams, 128) };
        self.launch(&self.stream, Call::Prepare, shape, &arguments)
    }

    /// Whether a kernel that only reads stands in for attention.
    pub(super) fn reads_only(&self) -> bool {
        self.geometry.shape == super::geometry::Shape::Read
    }
}
