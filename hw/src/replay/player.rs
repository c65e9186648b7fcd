//! The device as a time plane of the engine: collects steps, runs them in chunks, and reads back times and decisions.

use super::geometry::Geometry;
use super::graph::StepGraph;
use super::ledger::Ledger;
use super::rig::Rig;
use super::script::{Chunk, Joined};
use super::spans::Times;
use crate::ops::replay::{Argument, Call, Meta};
use crate::parity::log::{Log, Record};
use crate::{HwError, Shape};
use kvtier_policies::StepPlan;
use kvtier_sim::engine::{ReadStep, TimePlane};
use kvtier_sim::work::StepWork;
use kvtier_sim::{SimError, Single};

/// What is learnt of the device's decisions.
pub(super) struct Audit {
    log: Log,
    record: Record,
    /// Steps of streams that were compared, and that differ.
    pub(super) compared: u64,
    pub(super) mismatches: u64,
}

impl Audit {
    pub(super) fn new(geometry: &Geometry) -> Audit {
        let streams = (geometry.layers * geometry.heads) as usize;
        Audit { log: Log::new(streams), record: Record::default(), compared: 0, mismatches: 0 }
    }

    /// The decision hash of what the device decided, given that of the warm pages.
    pub(super) fn hash(self, warm: u64) -> u64 {
        self.log.finish(warm)
    }
}

/// What a pass leaves behind.
pub(super) struct Pass {
    pub(super) times: Times,
    pub(super) audit: Option<Audit>,
    pub(super) ledger: Option<Ledger>,
}

/// Replays one pass over the schedule.
pub(super) struct Player<'a, 'b> {
    rig: &'a mut Rig<'b>,
    single: &'a Single,
    graph: &'a StepGraph,
    chunk: Chunk,
    step: u32,
    /// Whether the device's decisions are read back.
    pub(super) audit: Option<Audit>,
    pub(super) times: Times,
    /// The frames, where the host keeps them.
    ledger: Option<Ledger>,
    /// Bytes of a selection key, and bytes of KV per entry of a context in one layer.
    keys: u64,
    entry_bytes: f64,
}

impl<'a, 'b> Player<'a, 'b> {
    pub(super) fn new(
        rig: &'a mut Rig<'b>,
        single: &'a Single,
        graph: &'a StepGraph,
        audit: Option<Audit>,
    ) -> Result<Player<'a, 'b>, HwError> {
        rig.begin_pass()?;
        let attention = &single.blueprint.model.attention;
        let block = attention.block_bytes.0 as f64 * f64::from(attention.head_groups);
        Ok(Player {
            ledger: Ledger::new(&rig.geometry),
            rig,
            single,
            graph,
            chunk: Chunk::default(),
            step: 0,
            audit,
            times: Times::default(),
            keys: attention.index_bytes_per_block.0,
            entry_bytes: block / f64::from(attention.entries_per_block),
        })
    }

    /// Runs what was collected and not run yet.
    pub(super) fn finish(mut self) -> Result<Pass, HwError> {
        self.run_chunk()?;
        Ok(Pass { times: self.times, audit: self.audit, ledger: self.ledger })
    }

    fn joined(&self, read: &ReadStep<'_>) -> Vec<Joined> {
        let recording = &self.single.recording;
        let page = self.rig.geometry.cells.page;
        let seated = |join: &kvtier_policies::Join| {
            let request = &recording.requests()[join.request as usize];
            let entries = request.prompt_entries + join.offset;
            Joined { seat: join.seat, request: join.request, full: entries / page, tokens: entries % page }
        };
        read.scheduled.join.iter().map(seated).collect()
    }

    fn run_chunk(&mut self) -> Result<(), HwError> {
        if self.chunk.notes.is_empty() {
            return Ok(());
        }
        self.rig.upload(&self.chunk.words)?;
        let start = self.single.run.plane.start;
        for note in &self.chunk.notes {
            if !note.join.is_empty() {
                self.rig.seat(&note.join, start)?;
            }
            self.graph.submit(self.rig, &note.copies)?;
            if self.audit.is_some() {
                log_step(self.rig)?;
            }
        }
        self.rig.stream.synchronize()?;
        self.read_times()?;
        self.compare()?;
        self.chunk.clear();
        Ok(())
    }

    fn read_times(&mut self) -> Result<(), HwError> {
        let stride = self.rig.stamps_per_step() as usize;
        let steps = self.chunk.notes.len();
        let mut stamps = vec![0; stride * steps];
        self.rig.stamps.read_into(&mut stamps)?;
        let mut admissions = vec![0; 2 * steps];
        self.rig.admission_stamps.read_into(&mut admissions)?;
        let from = self.single.run.measure_from;
        let rows = stamps.chunks_exact(stride).zip(admissions.chunks_exact(2));
        for (note, (row, admission)) in self.chunk.notes.iter().zip(rows) {
            if note.step >= from {
                let admitted =
                    if note.join.is_empty() { 0 } else { admission[1].saturating_sub(admission[0]) };
                self.times.add((&self.graph.marks, self.graph.last), row, admitted);
            }
        }
        Ok(())
    }

    /// Compares the device's decisions with the plans.
    fn compare(&mut self) -> Result<(), HwError> {
        let Some(audit) = &mut self.audit else { return Ok(()) };
        let geometry = &self.rig.geometry;
        let z = &geometry.sizes;
        let words = usize::try_from(geometry.log_words()).expect("a log fits memory");
        let step_words = usize::try_from(geometry.step_words()).expect("a step fits memory");
        let mut log = vec![0u32; words * self.chunk.notes.len()];
        self.rig.log.read_into(&mut log)?;
        let scripts = self.chunk.words.chunks_exact(step_words);
        for ((note, log), script) in self.chunk.notes.iter().zip(log.chunks_exact(words)).zip(scripts) {
            note.leave.iter().for_each(|&seat| audit.log.leave(seat));
            note.join.iter().for_each(|join| audit.log.join(join.seat));
            let metas: &[Meta] = bytemuck::cast_slice(&script[..geometry.all() as usize * 8]);
            for (g, logged) in log.chunks_exact(words / geometry.all() as usize).enumerate() {
                let (counts, rest) = logged.split_at(4);
                let (slots, fills) = rest.split_at(z.k as usize);
                // Of its own prefetches the device decides none ahead; the fourth count is another then.
                let parts =
                    if geometry.ways.policy.is_none() && counts[3] > 0 { counts } else { &counts[..3] };
                let slots = &slots[..metas[g].count as usize];
                let fills: &[[u32; 4]] = bytemuck::cast_slice(fills);
                audit.record.of_device(note.step, metas[g].newest != 0, slots, fills, parts);
                let (layer, within) = (g / z.streams as usize, g % z.streams as usize);
                let heads = geometry.heads as usize;
                audit.log.append(within / heads, layer * heads + within % heads, &audit.record);
                audit.compared += 1;
                audit.mismatches += u64::from(audit.record.hash(0) != note.expected[g]);
            }
        }
        Ok(())
    }
}

fn log_step(rig: &Rig<'_>) -> Result<(), HwError> {
    let d = &rig.decided;
    let words = [
        rig.step.address(),
        rig.selected.counts.address(),
        d.slots.address(),
        d.fills.address(),
        d.counts.address(),
        rig.log.address(),
        rig.geometry.ways.policy.is_none().into(),
    ];
    let mut arguments = vec![Argument::Sizes(rig.geometry.sizes)];
    arguments.extend(words.map(Argument::Word));
    rig.launch(&rig.stream, Call::LogStep, Shape::flat(rig.geometry.all(), 128), &arguments)
}

fn failed(error: HwError) -> SimError {
    SimError::TimePlane(Box::new(error))
}

impl TimePlane for Player<'_, '_> {
    fn read_step(&mut self, read: &ReadStep<'_>) -> Result<(), SimError> {
        if self.chunk.is_full(&self.rig.geometry) {
            self.run_chunk().map_err(failed)?;
        }
        let join = self.joined(read);
        if let Some(ledger) = &mut self.ledger {
            ledger.seat(&self.rig.geometry, &read.scheduled.leave, &join);
        }
        self.chunk.read(&self.rig.geometry, self.step, read, join);
        self.step += 1;
        Ok(())
    }

    fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError> {
        let geometry = &self.rig.geometry;
        self.chunk.decide(geometry, plan, work, self.keys, self.entry_bytes);
        if let Some(ledger) = &mut self.ledger {
            self.chunk.follow(geometry, ledger, plan, work);
        }
        if self.audit.is_some() {
            self.chunk.expect(geometry, plan);
        }
        if work.step >= self.single.run.measure_from {
            self.times.count(plan, work, geometry.block_bytes(), &geometry.ways);
        }
        Ok(())
    }
}
