//! The batch: how recorded requests become the seats and streams of a model, and the selections of each step.

use kvtier_policies::{Foresight, Run, Selection, SelectionSource};
use kvtier_traces::{
    FirstUses, Future, FutureBuf, FutureRows, Newest, Recording, StepBuf, StepRows, TraceError,
};
use kvtier_units::BlockId;

use crate::work::Participant;

/// Which recorded stream each stream of the model replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMap {
    layers: usize,
    head_groups: usize,
    recorded: Vec<usize>,
    note: String,
}

impl StreamMap {
    /// Maps a recording of `recorded` (layers, head groups) to a model of `model` (sparse layers, head groups).
    ///
    /// Model layer l replays recorded layer floor(l x recorded / model), so depth is kept in proportion; head group h
    /// replays recorded head group h modulo the recorded number.
    pub fn new(recorded: (usize, usize), model: (usize, usize)) -> StreamMap {
        let (layers, head_groups) = model;
        let stream = |at: usize| {
            let layer = at / head_groups * recorded.0 / layers;
            layer * recorded.1 + at % head_groups % recorded.1
        };
        let note = if recorded == model {
            String::new()
        } else {
            format!(
                "recorded {} layers x {} head groups replayed as {layers} x {head_groups}: layer l takes recorded layer \
                 floor(l x {}/{layers}), head group h takes recorded h mod {}",
                recorded.0, recorded.1, recorded.0, recorded.1
            )
        };
        StreamMap { layers, head_groups, recorded: (0..layers * head_groups).map(stream).collect(), note }
    }

    /// Layers of the model that select.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// KV-head groups per layer of the model.
    pub fn head_groups(&self) -> usize {
        self.head_groups
    }

    /// The recorded stream behind a model stream.
    #[inline]
    pub fn recorded(&self, stream: usize) -> usize {
        self.recorded[stream]
    }

    /// What was mapped to what, for the report; empty where the shapes are the same.
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// Buffers for the rows of one step of every seat, reused from step to step.
#[derive(Default)]
pub struct BatchBuffers {
    steps: Vec<StepBuf>,
    futures: Vec<FutureBuf>,
    /// Steps read in advance for a prefetcher that looks ahead.
    look_ahead: u32,
    upcoming: Vec<StepBuf>,
}

impl BatchBuffers {
    /// Buffers for steps that are read with the `steps` after each of them.
    pub fn looking_ahead(steps: u32) -> BatchBuffers {
        BatchBuffers { look_ahead: steps, ..BatchBuffers::default() }
    }
}

/// The selections of one engine step.
pub struct BatchStep<'a> {
    map: &'a StreamMap,
    rows: Vec<StepRows<'a>>,
    futures: Vec<FutureRows<'a>>,
    /// `look_ahead` later steps per participant; `None` beyond the end of its recording.
    upcoming: Vec<Option<StepRows<'a>>>,
    look_ahead: u32,
    /// Blocks of each participant's context that can be moved: the newest is not where it lives in a slot of its own.
    complete: Vec<u32>,
    /// The block that each participant's context completes with this step.
    grown: Vec<Option<BlockId>>,
    /// What is known of each participant.
    pub participants: Vec<Participant>,
}

impl<'a> BatchStep<'a> {
    /// Reads the selections of `runs`.
    ///
    /// # Errors
    /// If spilled rows cannot be read back.
    pub fn read(
        recording: &'a Recording,
        future: Option<&'a Future>,
        map: &'a StreamMap,
        runs: &[Run],
        buffers: &'a mut BatchBuffers,
    ) -> Result<BatchStep<'a>, TraceError> {
        buffers.steps.resize_with(runs.len(), StepBuf::default);
        buffers.futures.resize_with(runs.len(), FutureBuf::default);
        let BatchBuffers { steps, futures, look_ahead, upcoming } = buffers;
        upcoming.resize_with(runs.len() * *look_ahead as usize, StepBuf::default);
        let mut step = BatchStep {
            map,
            rows: Vec::with_capacity(runs.len()),
            futures: Vec::with_capacity(if future.is_some() { runs.len() } else { 0 }),
            upcoming: Vec::with_capacity(upcoming.len()),
            look_ahead: *look_ahead,
            complete: Vec::with_capacity(runs.len()),
            grown: Vec::with_capacity(runs.len()),
            participants: Vec::with_capacity(runs.len()),
        };
        for ((run, rows), ahead) in runs.iter().zip(steps).zip(futures) {
            let request = run.request as usize;
            step.rows.push(recording.step(request, run.recorded_step, rows)?);
            if let Some(future) = future {
                step.futures.push(future.step(request, run.recorded_step, ahead)?);
            }
            let context_entries = recording.requests()[request].prompt_entries + run.recorded_step + 1;
            let fills = context_entries.is_multiple_of(recording.entries_per_block());
            let reserved = recording.view().newest == Newest::Reserved;
            let newest = recording.newest_at(request, run.recorded_step);
            step.grown.push((fills && reserved).then_some(newest));
            let context_blocks = recording.blocks_at(request, run.recorded_step);
            step.complete.push(if reserved { newest.0 } else { context_blocks });
            step.participants.push(Participant { context_entries, context_blocks });
        }
        let later = runs.iter().flat_map(|run| (1..=step.look_ahead).map(move |steps| (run, steps)));
        for ((run, steps), rows) in later.zip(upcoming) {
            let (request, at) = (run.request as usize, run.recorded_step + steps);
            let recorded = at < recording.steps(request);
            step.upcoming.push(if recorded { Some(recording.step(request, at, rows)?) } else { None });
        }
        Ok(step)
    }

    /// Recorded entries that the step selects, summed over all streams, before any folding.
    pub fn raw_entries(&self) -> u64 {
        let streams = 0..self.map.recorded.len();
        let of = |rows: &StepRows<'_>| -> u64 {
            streams.clone().map(|at| u64::from(rows.stream(self.map.recorded(at)).raw_entries)).sum()
        };
        self.rows.iter().map(of).sum()
    }

    /// Blocks that a stream of a participant selects, the newest included.
    pub fn selected(&self, participant: usize, stream: usize) -> u64 {
        let row = self.rows[participant].stream(self.map.recorded(stream));
        row.blocks.len() as u64 + u64::from(row.newest_selected)
    }
}

impl SelectionSource for BatchStep<'_> {
    #[inline]
    fn selection(&self, participant: usize, stream: usize) -> Selection<'_> {
        let stream = self.map.recorded(stream);
        let row = self.rows[participant].stream(stream);
        let foresight = self.futures.get(participant).map(|rows| {
            let row = rows.stream(stream);
            Foresight { next_use: row.blocks, grown_next_use: row.newest }
        });
        Selection {
            blocks: row.blocks,
            scores: row.scores.unwrap_or(&[]),
            near: row.near,
            newest: row.newest_selected,
            grown: self.grown[participant],
            foresight,
        }
    }

    fn upcoming(&self, participant: usize, stream: usize, steps: u32) -> Option<&[BlockId]> {
        let (at, each) = (steps.checked_sub(1)? as usize, self.look_ahead as usize);
        let rows = self.upcoming.get(participant * each + at).filter(|_| at < each)?.as_ref()?;
        Some(rows.stream(self.map.recorded(stream)).blocks)
    }

    fn complete_blocks(&self, participant: usize) -> u32 {
        self.complete[participant]
    }
}

/// First uses of a request's blocks from the recorded step at which it starts, for Belady's starting blocks.
pub fn first_uses(
    recording: &Recording,
    future: &Future,
    request: usize,
    offset: u32,
) -> Result<FirstUses, TraceError> {
    match offset {
        0 => Ok(future.first_uses(request).clone()),
        offset => FirstUses::from_step(recording, request, offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shapes_map_to_themselves_and_others_in_proportion() {
        let same = StreamMap::new((3, 2), (3, 2));
        assert_eq!((same.note(), &same.recorded[..]), ("", &[0, 1, 2, 3, 4, 5][..]));
        let wider = StreamMap::new((2, 3), (4, 4));
        assert_eq!(wider.recorded[..4], [0, 1, 2, 0]);
        assert_eq!(wider.recorded[12..], [3, 4, 5, 3]);
        assert!(wider.note().contains("2 layers x 3 head groups replayed as 4 x 4"));
    }
}
