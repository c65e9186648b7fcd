//! Gathers checked rows into streams and steps while a recording is decoded.

use crate::chunk::{Chunk, Row};
use crate::error::{Place, RowError, RowFault, TraceError};
use crate::header::{Header, Request};
use crate::project::{Projector, Ranks};
use crate::reader::TraceReader;
use crate::recording::StepRecord;
use crate::spool::Spool;
use crate::view::View;
use half::f16;
use kvtier_units::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Gathers rows into streams, and streams into steps.
pub(crate) struct Decoder {
    path: PathBuf,
    requests: Arc<[Request]>,
    entries_per_block: u32,
    streams: usize,
    several_queries: bool,
    projector: Projector,
    step: StepRecord,
    request: u32,
    newest: u32,
    pending: PendingStream,
    max_selected: usize,
    steps: Spool<StepRecord>,
}

/// The query rows of the stream being read, which may lie in two chunks.
#[derive(Default)]
struct PendingStream {
    place: Place,
    first_row: u64,
    rows: Vec<PendingRow>,
}

struct PendingRow {
    blocks: Vec<u32>,
    scores: Option<Vec<f16>>,
    extra: Vec<u32>,
}

impl Decoder {
    pub(crate) fn new(view: &View, header: &Header, reader: &TraceReader, memory_budget: Bytes) -> Decoder {
        let (_, requests) = reader.shared();
        Decoder {
            path: reader.path().into(),
            entries_per_block: view.entries_per_block(header),
            streams: header.streams_per_request(),
            several_queries: header.queries > 1,
            projector: Projector::new(view, header),
            step: StepRecord::new(view.scores),
            request: 0,
            newest: 0,
            pending: PendingStream::default(),
            max_selected: 0,
            steps: Spool::new(reader.path(), requests.len(), memory_budget),
            requests,
        }
    }

    /// Takes the next rows of the trace.
    pub(crate) fn chunk(&mut self, chunk: &Chunk) -> Result<(), TraceError> {
        for (number, row) in (chunk.first_row()..).zip(chunk.rows()) {
            if !self.several_queries {
                let ranks = Ranks { blocks: row.blocks, scores: row.scores, extra: row.extra };
                self.stream(number, row.place, &[ranks])?;
                continue;
            }
            if row.place.query == 0 {
                self.flush_pending()?;
                self.pending.place = row.place;
                self.pending.first_row = number;
            }
            self.pending.rows.push(PendingRow::copy(&row));
        }
        Ok(())
    }

    fn flush_pending(&mut self) -> Result<(), TraceError> {
        let pending = std::mem::take(&mut self.pending);
        let rows: Vec<Ranks<'_>> = pending.rows.iter().map(PendingRow::ranks).collect();
        if rows.is_empty() { Ok(()) } else { self.stream(pending.first_row, pending.place, &rows) }
    }

    /// Takes the query rows of one stream; the first of them is row `number` of the file.
    #[inline]
    fn stream(&mut self, number: u64, place: Place, rows: &[Ranks<'_>]) -> Result<(), TraceError> {
        if self.step.streams() == 0 {
            self.request = place.request;
            self.newest = self.requests[place.request as usize].newest_at(place.step, self.entries_per_block);
        }
        let before = self.step.selected.len();
        if let Err((query, rank)) = self.projector.stream(rows, self.newest, &mut self.step) {
            return Err(bad_score(&self.path, number, place, rows, query, rank));
        }
        self.max_selected = self.max_selected.max(self.step.selected.len() - before);
        if self.step.streams() == self.streams {
            self.steps.push(self.request as usize, self.step.fitted())?;
            self.step.clear();
        }
        Ok(())
    }

    /// The steps, and the size of the largest selection.
    pub(crate) fn finish(mut self) -> Result<(Spool<StepRecord>, usize), TraceError> {
        self.flush_pending()?;
        assert!(self.step.streams() == 0, "the reader ends with a complete step");
        Ok((self.steps, self.max_selected))
    }
}

#[cold]
fn bad_score(
    path: &Path,
    number: u64,
    place: Place,
    rows: &[Ranks<'_>],
    query: usize,
    rank: usize,
) -> TraceError {
    let query = u16::try_from(query).expect("the header bounds query rows");
    let score = rows[usize::from(query)].scores.map_or(f32::NAN, |scores| scores[rank].to_f32());
    let fault = RowFault::BadScore { rank, score };
    let row = RowError { number: number + u64::from(query), place: Place { query, ..place }, fault };
    TraceError::Row { path: path.into(), row: Box::new(row) }
}

impl PendingRow {
    fn copy(row: &Row<'_>) -> PendingRow {
        PendingRow {
            blocks: row.blocks.to_vec(),
            scores: row.scores.map(<[f16]>::to_vec),
            extra: row.extra.to_vec(),
        }
    }

    fn ranks(&self) -> Ranks<'_> {
        Ranks { blocks: &self.blocks, scores: self.scores.as_deref(), extra: &self.extra }
    }
}
