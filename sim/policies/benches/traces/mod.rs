//! What the benches replay: the shipped pages, stream by stream, and the reference's sparse_decode.

use kvtier_policies::eviction::BufferShape;
use kvtier_policies::{Foresight, Selection};
use kvtier_traces::{Recording, StepBuf, View};
use kvtier_units::{BlockId, Bytes, Seed};
use std::path::Path;

/// One stream's steps, held in memory.
pub(crate) struct Stream {
    pub(crate) shape: BufferShape,
    selected: Vec<BlockId>,
    /// Per selected block, for Belady.
    next_use: Vec<u32>,
    near: Vec<BlockId>,
    steps: Vec<Step>,
}

/// Where a step ends in the vectors of its stream, and what else it holds.
#[derive(Clone, Copy, Default)]
struct Step {
    selected: usize,
    near: usize,
    newest: bool,
    grown: Option<BlockId>,
    grown_next_use: u32,
}

impl Stream {
    /// No step yet.
    pub(crate) fn new(shape: BufferShape) -> Stream {
        Stream { shape, selected: Vec::new(), next_use: Vec::new(), near: Vec::new(), steps: Vec::new() }
    }

    pub(crate) fn push(
        &mut self,
        blocks: &[BlockId],
        near: &[BlockId],
        newest: bool,
        grown: Option<BlockId>,
    ) {
        self.selected.extend_from_slice(blocks);
        self.near.extend_from_slice(near);
        let (selected, near) = (self.selected.len(), self.near.len());
        self.steps.push(Step { selected, near, newest, grown, grown_next_use: u32::MAX });
    }

    /// Looks up the next uses, once all steps are there.
    pub(crate) fn finish(&mut self) {
        let mut next = vec![u32::MAX; self.shape.blocks as usize];
        self.next_use = vec![u32::MAX; self.selected.len()];
        for step in (0..self.steps.len()).rev() {
            let at = u32::try_from(step).expect("a stream has fewer than 2^32 steps");
            if let Some(block) = self.steps[step].grown {
                self.steps[step].grown_next_use = next[block.index()];
            }
            let start = if step == 0 { 0 } else { self.steps[step - 1].selected };
            for access in start..self.steps[step].selected {
                let entry = &mut next[self.selected[access].index()];
                self.next_use[access] = std::mem::replace(entry, at);
            }
        }
    }

    /// Blocks selected in all.
    pub(crate) fn accesses(&self) -> u64 {
        self.selected.len() as u64
    }

    /// The steps in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Selection<'_>> {
        let mut before = Step::default();
        self.steps.iter().map(move |&step| {
            let range = before.selected..step.selected;
            let near = before.near..step.near;
            before = step;
            Selection {
                blocks: &self.selected[range.clone()],
                scores: &[],
                near: &self.near[near],
                newest: step.newest,
                grown: step.grown,
                foresight: Some(Foresight {
                    next_use: &self.next_use[range],
                    grown_next_use: step.grown_next_use,
                }),
            }
        })
    }
}

/// The shipped pages with 64 slots, twice the selection: one `Stream` per request, layer and head group.
pub(crate) fn pages() -> Vec<Stream> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces/samples/smollm2-pages.parquet");
    let view = View { near: 32, ..View::default() };
    let recording = Recording::decode(path, &view, Bytes(4 << 30)).expect("the sample is shipped and valid");
    let k = u32::try_from(recording.max_selected()).expect("a selection is small");
    let mut streams = Vec::new();
    let mut buf = StepBuf::default();
    for request in 0..recording.requests().len() {
        let steps = recording.steps(request);
        let blocks = recording.blocks_at(request, steps - 1);
        let shape = BufferShape { slots: 64, blocks, k, seed: Seed(1) };
        let mut own: Vec<Stream> = Vec::new();
        own.resize_with(recording.streams_per_request(), || Stream::new(shape));
        for step in 0..steps {
            let rows = recording.step(request, step, &mut buf).expect("it is in memory");
            let context = recording.requests()[request].prompt_entries + step + 1;
            let grows = context.is_multiple_of(recording.entries_per_block());
            let grown = grows.then(|| recording.newest_at(request, step));
            for (row, stream) in rows.iter().zip(&mut own) {
                stream.push(row.blocks, row.near, row.newest_selected, grown);
            }
        }
        own.iter_mut().for_each(Stream::finish);
        streams.append(&mut own);
    }
    streams
}
