//! One engine step as one graph: which kernels, in which stream, and the times that are noted between them.

use super::rig::{COPY_SMS, Rig};
use crate::ops::replay::{Argument, Call, Part};
use crate::ops::swap::Width;
use crate::{Event, Graph, HwError, Shape, Stream};
use kvtier_sim::attribution::{OpKind, Queue};

/// An operation of the step and the times that bound it, as places in the step's row of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) kind: OpKind,
    pub(super) queue: Queue,
    /// Layer of the model.
    pub(super) layer: Option<u32>,
    pub(super) begin: u32,
    pub(super) end: u32,
}

/// A captured step: its first time is at place 0, its last at `last`.
pub(super) struct StepGraph {
    pub(super) graph: Graph,
    pub(super) marks: Vec<Marked>,
    pub(super) last: u32,
}

/// Captures a step; `traced` notes the time between operations, where otherwise only the step's ends are.
pub(super) fn capture(rig: &Rig<'_>, traced: bool) -> Result<StepGraph, HwError> {
    let event = || Event::new(&rig.device);
    let events = [event()?, event()?, event()?, event()?];
    let mut recorder = Recorder { rig, traced, marks: Vec::new(), next: 0, since: 0, events };
    let graph = rig.stream.capture(|| recorder.step())?;
    Ok(StepGraph { graph, marks: recorder.marks, last: recorder.since })
}

struct Recorder<'a> {
    rig: &'a Rig<'a>,
    traced: bool,
    marks: Vec<Marked>,
    next: u32,
    /// Place of the last time noted on the compute stream.
    since: u32,
    events: [Event; 4],
}

impl Recorder<'_> {
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
                    self.mark(OpKind::Attend, Some(at))?;
                }
            }
            streamed = self.weights(layer.weights, streamed)?;
            self.mark(OpKind::Dense, Some(at))?;
        }
        self.weights(rig.geometry.head_words, streamed)?;
        self.always_mark(OpKind::Head)?;
        // What no attention waited for may outlast the last kernel, but not the graph.
        if write_backs {
            rig.stream.wait_for(&rig.copy_out, &self.events[0])?;
        }
        if rig.hit_first() {
            rig.stream.wait_for(&rig.copy_in, &self.events[1])?;
        }
        rig.launch(&rig.stream, Call::Advance, Shape::flat(1, 1), &[Argument::Word(rig.step.address())])
    }

    fn sparse(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let layer = sparse as usize;
        self.stream_listed(at)?;
        self.feed(sparse)?;
        self.mark(OpKind::Select, Some(at))?;
        self.look_up(sparse)?;
        self.mark(OpKind::Lookup, Some(at))?;
        let prefetches = self.rig.geometry.budget > 0;
        let rig = self.rig;
        if rig.hit_first() {
            self.hits_first(at, sparse)?;
        } else {
            self.list(sparse, 0)?;
            let width = Width::shared(rig.device.info().sms);
            rig.kernels.swap.swap_in(&rig.stream, rig.pools(), &rig.moves[layer][0], width)?;
            self.mark(OpKind::Demand, Some(at))?;
            self.append(sparse)?;
            self.prepare(sparse, Part::All)?;
            rig.attend(layer, Part::All, 0)?;
            self.mark(OpKind::Attend, Some(at))?;
            if prefetches {
                self.list(sparse, 1)?;
                rig.kernels.swap.swap_in(&rig.stream, rig.pools(), &rig.moves[layer][1], width)?;
                self.mark(OpKind::Prefetch, Some(at))?;
            }
        }
        self.grow(sparse)?;
        rig.copy_out.wait_for(&rig.stream, &self.events[0])?;
        let width = Width::shared(COPY_SMS);
        let begin = self.aside(&rig.copy_out)?;
        rig.kernels.swap.write_back(&rig.copy_out, rig.pools(), &rig.moves[layer][2], width)?;
        self.mark_aside(&rig.copy_out, OpKind::WriteBack, Queue::CopyOut, at, begin)
    }

    /// Attention to what is resident, while the misses fly on multiprocessors of their own; then to the misses.
    fn hits_first(&mut self, at: u32, sparse: u32) -> Result<(), HwError> {
        let (rig, layer) = (self.rig, sparse as usize);
        self.list(sparse, 0)?;
        rig.copy_in.wait_for(&rig.stream, &self.events[1])?;
        let begin = self.aside(&rig.copy_in)?;
        rig.kernels.swap.swap_in(&rig.copy_in, rig.pools(), &rig.moves[layer][0], Width::alone(COPY_SMS))?;
        self.mark_aside(&rig.copy_in, OpKind::Demand, Queue::CopyIn, at, begin)?;
        self.events[2].record(&rig.copy_in)?;
        self.append(sparse)?;
        self.prepare(sparse, Part::Hits)?;
        self.prepare(sparse, Part::Misses)?;
        rig.attend(layer, Part::Hits, COPY_SMS)?;
        self.mark(OpKind::Attend, Some(at))?;
        rig.stream.wait_event(&self.events[2])?;
        self.mark(OpKind::Demand, Some(at))?;
        rig.attend(layer, Part::Misses, 0)?;
        self.mark(OpKind::AttendMisses, Some(at))?;
        if !rig.reads_only() {
            rig.merge(layer)?;
            self.mark(OpKind::Merge, Some(at))?;
        }
        if rig.geometry.budget > 0 {
            self.list(sparse, 1)?;
            rig.copy_in.wait_for(&rig.stream, &self.events[3])?;
            let begin = self.aside(&rig.copy_in)?;
            rig.kernels.swap.swap_in(
                &rig.copy_in,
                rig.pools(),
                &rig.moves[layer][1],
                Width::alone(COPY_SMS),
            )?;
            self.mark_aside(&rig.copy_in, OpKind::Prefetch, Queue::CopyIn, at, begin)?;
        }
        Ok(())
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
        let counts = rig.moves[sparse as usize].each_ref().map(|moves| moves.count.address());
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
        arguments.extend(words.into_iter().chain(counts).chain([scores]).map(Argument::Word));
        self.per_stream(Call::Feed, &arguments)
    }

    fn look_up(&self, sparse: u32) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let per_layer = rig.geometry.sizes.streams as usize;
        if rig.geometry.policy.is_some() {
            let first = sparse as usize * per_layer;
            let streams = first..first + per_layer;
            return rig.kernels.lookup.step_of(&rig.stream, &rig.state, &rig.selected, d, streams);
        }
        let mut arguments = vec![Argument::Script(rig.script()), Argument::Sizes(rig.geometry.sizes)];
        let words =
            [sparse.into(), d.slots.address(), d.fills.address(), d.counts.address(), rig.state.block_of()];
        arguments.extend(words.map(Argument::Word));
        self.per_stream(Call::TakePlan, &arguments)
    }

    /// Lists the layer's loads (part 0) or prefetches (part 1) as moves.
    fn list(&self, sparse: u32, part: usize) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let moves = &rig.moves[sparse as usize][part];
        let mut arguments = vec![Argument::Sizes(rig.geometry.sizes)];
        let words = [
            sparse.into(),
            part as u64,
            d.fills.address(),
            d.counts.address(),
            rig.frame_of.address(),
            moves.list.address(),
            moves.count.address(),
        ];
        arguments.extend(words.map(Argument::Word));
        if !rig.geometry.sorted {
            return self.per_stream(Call::ListMoves, &arguments);
        }
        let shared = rig.geometry.sizes.blocks.div_ceil(32) * 8;
        let shape = Shape { shared, ..Shape::flat(rig.geometry.sizes.streams, 1024) };
        rig.launch(&rig.stream, Call::SortMoves, shape, &arguments)
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
        ];
        self.per_stream(Call::Append, &arguments)
    }

    fn prepare(&self, sparse: u32, part: Part) -> Result<(), HwError> {
        self.rig.prepare(sparse, part)
    }

    fn grow(&self, sparse: u32) -> Result<(), HwError> {
        let (rig, d) = (self.rig, &self.rig.decided);
        let moves = &rig.moves[sparse as usize][2];
        let words = [
            sparse.into(),
            rig.selected.grown.address(),
            d.fills.address(),
            d.counts.address(),
            rig.frame_of.address(),
            moves.list.address(),
            moves.count.address(),
        ];
        let mut arguments = vec![Argument::Sizes(rig.geometry.sizes)];
        arguments.extend(words.map(Argument::Word));
        let shape = Shape::flat(rig.geometry.sizes.streams.div_ceil(256), 256);
        rig.launch(&rig.stream, Call::Grow, shape, &arguments)
    }

    /// Streams a layer's weights from where the last one ended, or from the start where the pool ends before.
    fn weights(&self, words: u64, from: u64) -> Result<u64, HwError> {
        let rig = self.rig;
        if words == 0 {
            return Ok(from);
        }
        let from = if from + words > rig.geometry.pool_words { 0 } else { from };
        let address = rig.pool.address() + from * 16;
        rig.kernels.dense.stream_weights(&rig.stream, address, words * 16, rig.device.info().sms * 2)?;
        Ok(from + words)
    }

    fn per_stream(&self, call: Call, arguments: &[Argument]) -> Result<(), HwError> {
        self.rig.launch(&self.rig.stream, call, Shape::flat(self.rig.geometry.sizes.streams, 128), arguments)
    }

    /// Notes the time on a stream; returns its place.
    fn time(&mut self, stream: &Stream) -> Result<u32, HwError> {
        let at = self.next;
        self.next += 1;
        self.rig.stamp(stream, &self.rig.stamps, self.rig.stamps_per_step(), at)?;
        Ok(at)
    }

    /// Ends an operation of the compute stream, which began where the last one ended.
    fn mark(&mut self, kind: OpKind, layer: Option<u32>) -> Result<(), HwError> {
        if self.traced {
            let rig = self.rig;
            let end = self.time(&rig.stream)?;
            self.marks.push(Marked { kind, queue: Queue::Compute, layer, begin: self.since, end });
            self.since = end;
        }
        Ok(())
    }

    /// Ends the last operation, whether or not the others are noted.
    fn always_mark(&mut self, kind: OpKind) -> Result<(), HwError> {
        let rig = self.rig;
        let end = self.time(&rig.stream)?;
        if self.traced {
            self.marks.push(Marked { kind, queue: Queue::Compute, layer: None, begin: self.since, end });
        }
        self.since = end;
        Ok(())
    }

    fn aside(&mut self, stream: &Stream) -> Result<u32, HwError> {
        if self.traced { self.time(stream) } else { Ok(0) }
    }

    fn mark_aside(
        &mut self,
        stream: &Stream,
        kind: OpKind,
        queue: Queue,
        layer: u32,
        begin: u32,
    ) -> Result<(), HwError> {
        if self.traced {
            let end = self.time(stream)?;
            self.marks.push(Marked { kind, queue, layer: Some(layer), begin, end });
        }
        Ok(())
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
