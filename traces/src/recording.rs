//! A trace decoded once under a [`View`], for random access by request and step.
//! Apart from the reader so that all points of a sweep share one decoding, in memory or spilled.

use crate::chunk::Chunk;
use crate::decode::Decoder;
use crate::error::TraceError;
use crate::header::{Header, Request};
use crate::reader::{Columns, TraceReader};
use crate::spool::{Record, Scratch, Spool};
use crate::view::View;
use kvtier_units::{BlockId, Bytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A trace as one view shows it; shared freely between threads.
pub struct Recording {
    path: PathBuf,
    header: Arc<Header>,
    requests: Arc<[Request]>,
    view: View,
    file_hash: u64,
    max_selected: usize,
    steps: Spool<StepRecord>,
}

impl Recording {
    /// Decodes a trace. Rows stay in memory up to the budget; the rest goes to an anonymous temporary file.
    pub fn decode(
        path: impl AsRef<Path>,
        view: &View,
        memory_budget: Bytes,
    ) -> Result<Recording, TraceError> {
        let reader = TraceReader::open(path)?;
        view.check(reader.header(), reader.path())?;
        let file_hash = reader.file_hash()?;
        let header = reader.header();
        let columns = Columns { scores: view.scores, extra: view.near > 0 };
        let mut decoder = Decoder::new(view, header, &reader, memory_budget);
        let mut reader = reader.columns(columns);
        let mut chunk = Chunk::default();
        while reader.next_chunk(&mut chunk)? {
            decoder.chunk(&chunk)?;
        }
        let (header, requests) = reader.shared();
        let (steps, max_selected) = decoder.finish()?;
        Ok(Recording {
            path: reader.path().into(),
            header,
            requests,
            view: *view,
            file_hash,
            max_selected,
            steps,
        })
    }

    /// The file it was decoded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header as recorded; see [`Recording::entries_per_block`] for blocks as viewed.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// xxh3-64 of the trace file's bytes.
    pub fn file_hash(&self) -> u64 {
        self.file_hash
    }

    /// Entries per block as viewed.
    pub fn entries_per_block(&self) -> u32 {
        self.view.entries_per_block(&self.header)
    }

    /// Bytes per block as viewed.
    pub fn bytes_per_block(&self) -> Bytes {
        self.view.bytes_per_block(&self.header)
    }

    /// The requests table.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Streams of one request; a stream's index is `layer * head_groups + head_group`.
    pub fn streams_per_request(&self) -> usize {
        self.header.streams_per_request()
    }

    /// Steps of a request.
    pub fn steps(&self, request: usize) -> u32 {
        self.requests[request].output_steps
    }

    /// Blocks of a request's context at a step, the newest included.
    pub fn blocks_at(&self, request: usize, step: u32) -> u32 {
        self.requests[request].blocks_at(step, self.entries_per_block())
    }

    /// The block that holds the entry appended in a step.
    pub fn newest_at(&self, request: usize, step: u32) -> BlockId {
        BlockId(self.requests[request].newest_at(step, self.entries_per_block()))
    }

    /// Blocks of the largest selection of any stream and step: what a hot buffer must hold.
    pub fn max_selected(&self) -> usize {
        self.max_selected
    }

    /// Bytes that did not fit the memory budget and lie in a temporary file.
    pub fn spilled(&self) -> Bytes {
        self.steps.spilled()
    }

    /// All streams of a request in one step; an error if spilled rows cannot be read back.
    ///
    /// # Panics
    /// If there is no such request or step.
    pub fn step<'a>(
        &'a self,
        request: usize,
        step: u32,
        buf: &'a mut StepBuf,
    ) -> Result<StepRows<'a>, TraceError> {
        self.steps.get(request, step, &mut buf.0).map(|record| StepRows { record })
    }
}

/// Room for one step that is read back from a temporary file.
#[derive(Default)]
pub struct StepBuf(Scratch<StepRecord>);

/// The streams of one request in one step.
#[derive(Clone, Copy)]
pub struct StepRows<'a> {
    record: &'a StepRecord,
}

impl<'a> StepRows<'a> {
    /// Number of streams.
    pub fn streams(&self) -> usize {
        self.record.ends.len()
    }

    /// One stream.
    ///
    /// # Panics
    /// If the index is not below [`StepRows::streams`].
    #[inline]
    pub fn stream(&self, index: usize) -> StreamRow<'a> {
        let record = self.record;
        let end = record.ends[index];
        let start = if index == 0 { StreamEnd::default() } else { record.ends[index - 1] };
        let selected = start.selected as usize..end.selected as usize;
        StreamRow {
            blocks: &record.selected[selected.clone()],
            near: &record.near[start.near as usize..end.near as usize],
            scores: record.has_scores.then(|| &record.scores[selected]),
            newest_selected: end.newest_selected,
            raw_entries: end.raw_entries,
        }
    }

    /// All streams, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = StreamRow<'a>> + use<'a> {
        let rows = *self;
        (0..rows.streams()).map(move |index| rows.stream(index))
    }
}

/// What one stream reads in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRow<'a> {
    /// Selected blocks, best first; without the newest block where the view reserves it.
    pub blocks: &'a [BlockId],
    /// The blocks that rank just below, best first.
    pub near: &'a [BlockId],
    /// Quantised scores of `blocks`; none unless the view asks for them.
    pub scores: Option<&'a [u16]>,
    /// Whether the newest block was selected and taken out of `blocks`.
    pub newest_selected: bool,
    /// Recorded blocks selected before folding, the newest's included.
    pub raw_entries: u32,
}

/// One step of a request, stream after stream.
#[derive(Clone, Default)]
pub(crate) struct StepRecord {
    ends: Vec<StreamEnd>,
    pub(crate) selected: Vec<BlockId>,
    pub(crate) near: Vec<BlockId>,
    pub(crate) scores: Vec<u16>,
    has_scores: bool,
}

/// Where a stream ends in the vectors of its step.
#[derive(Clone, Copy, Default)]
struct StreamEnd {
    selected: u32,
    near: u32,
    raw_entries: u32,
    newest_selected: bool,
}

impl StepRecord {
    /// An empty step.
    pub(crate) fn new(has_scores: bool) -> StepRecord {
        StepRecord { has_scores, ..StepRecord::default() }
    }

    /// Streams closed so far.
    pub(crate) fn streams(&self) -> usize {
        self.ends.len()
    }

    /// Closes the stream whose blocks were appended.
    pub(crate) fn end_stream(&mut self, raw_entries: usize, newest_selected: bool) {
        let count = |n: usize| u32::try_from(n).expect("a step selects fewer than 2^32 blocks");
        self.ends.push(StreamEnd {
            selected: count(self.selected.len()),
            near: count(self.near.len()),
            raw_entries: count(raw_entries),
            newest_selected,
        });
    }

    /// A copy without spare capacity.
    pub(crate) fn fitted(&self) -> StepRecord {
        self.clone()
    }

    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        self.selected.clear();
        self.near.clear();
        self.scores.clear();
    }
}

impl Record for StepRecord {
    fn size(&self) -> usize {
        size_of_val(&*self.ends)
            + size_of_val(&*self.selected)
            + size_of_val(&*self.near)
            + size_of_val(&*self.scores)
            + size_of::<StepRecord>()
    }

    fn store(&self, words: &mut Vec<u32>) {
        let count = |n: usize| u32::try_from(n).expect("a step selects fewer than 2^32 blocks");
        words.extend([count(self.ends.len()), count(self.selected.len()), count(self.near.len())]);
        words.push(self.has_scores.into());
        for end in &self.ends {
            words.extend([end.selected, end.near, end.raw_entries, end.newest_selected.into()]);
        }
        words.extend(self.selected.iter().chain(&self.near).map(|block| block.0));
        words.extend(
            self.scores
                .chunks(2)
                .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 16),
        );
    }

    fn load(&mut self, words: &[u32]) {
        self.clear();
        let (head, words) = words.split_at(4);
        let [streams, selected, near] = [head[0] as usize, head[1] as usize, head[2] as usize];
        self.has_scores = head[3] != 0;
        let (ends, words) = words.split_at(4 * streams);
        self.ends.extend(ends.chunks_exact(4).map(|end| StreamEnd {
            selected: end[0],
            near: end[1],
            raw_entries: end[2],
            newest_selected: end[3] != 0,
        }));
        self.selected.extend(words[..selected].iter().copied().map(BlockId));
        self.near.extend(words[selected..selected + near].iter().copied().map(BlockId));
        if self.has_scores {
            let halves = |word: &u32| {
                let [a, b, c, d] = word.to_le_bytes();
                [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
            };
            self.scores.extend(words[selected + near..].iter().flat_map(halves).take(selected));
        }
    }
}
