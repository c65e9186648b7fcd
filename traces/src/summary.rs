//! Reads a whole trace against every rule and says what is in it.

use crate::chunk::Chunk;
use crate::error::{RowError, RowFault, TraceError};
use crate::header::{Header, Request};
use crate::project::ScoreTable;
use crate::reader::TraceReader;
use kvtier_units::Bytes;
use std::fmt;
use std::fs::File;
use std::path::Path;

/// First step of the window over which overlap and churn are taken: cold starts stay out of it.
const STEADY_FROM: u32 = 16;

/// What a trace holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The header.
    pub header: Header,
    /// xxh3-64 of the file's bytes.
    pub file_hash: u64,
    /// Size of the file.
    pub file_bytes: Bytes,
    /// Rows.
    pub rows: u64,
    /// Row groups.
    pub row_groups: usize,
    /// Blocks selected, over all rows.
    pub blocks: u64,
    /// Extra ranks, over all rows.
    pub extra: u64,
    /// Request by request.
    pub requests: Vec<RequestSummary>,
}

/// What one request holds; the newest block counts as a block like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSummary {
    /// The request.
    pub request: Request,
    /// Blocks of the context at the last step.
    pub context_blocks: u32,
    /// Blocks selected, query rows united, over all streams and steps.
    pub selected: u64,
    /// Distinct blocks selected, summed over streams.
    pub distinct: u64,
    /// Blocks selected from step 16 on.
    pub steady_selected: u64,
    /// Of those, blocks that the step before had selected too.
    pub steady_repeated: u64,
    /// Streams x steps from step 16 on.
    pub steady_rows: u64,
}

#[allow(clippy::cast_precision_loss)] // a report's seven digits
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl RequestSummary {
    /// Share of a selection that the step before had selected too, from step 16 on.
    pub fn overlap(&self) -> f64 {
        ratio(self.steady_repeated, self.steady_selected)
    }

    /// Blocks that enter a stream's selection per step, from step 16 on.
    pub fn churn(&self) -> f64 {
        ratio(self.steady_selected - self.steady_repeated, self.steady_rows)
    }
}

/// Reads a whole trace and checks every rule of the format.
pub fn validate(path: impl AsRef<Path>) -> Result<Summary, TraceError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|e| TraceError::io(path, "open", e))?;
    let hash = crate::hash_file(&file, path)?;
    validate_file(file, path, hash)
}

/// As [`validate`], for an open file that errors call `path`.
pub(crate) fn validate_file(file: File, path: &Path, file_hash: u64) -> Result<Summary, TraceError> {
    let mut reader = TraceReader::from_file(file, path)?;
    let header = reader.header().clone();
    let scores = header.score.is_some().then(|| ScoreTable::new(header.score_max));
    let mut summary = Summary {
        file_hash,
        file_bytes: reader.file_bytes()?,
        rows: reader.rows(),
        row_groups: reader.row_groups(),
        blocks: 0,
        extra: 0,
        requests: reader.requests().iter().map(|r| RequestSummary::empty(r, &header)).collect(),
        header,
    };
    let mut repeats = Repeats::default();
    let mut chunk = Chunk::default();
    while reader.next_chunk(&mut chunk)? {
        for (number, row) in (chunk.first_row()..).zip(chunk.rows()) {
            if let (Some(table), Some(scores)) = (&scores, row.scores)
                && let Some(rank) = scores.iter().position(|score| table.quantise(*score).is_none())
            {
                let fault = RowFault::BadScore { rank, score: scores[rank].to_f32() };
                let row = Box::new(RowError { number, place: row.place, fault });
                return Err(TraceError::Row { path: path.into(), row });
            }
            summary.blocks += row.blocks.len() as u64;
            summary.extra += row.extra.len() as u64;
            let stream = usize::from(row.place.layer) * usize::from(summary.header.head_groups)
                + usize::from(row.place.head_group);
            let streams = summary.header.streams_per_request();
            let request = &mut summary.requests[row.place.request as usize];
            repeats.enter(row.place.request, streams, request.context_blocks as usize);
            repeats.row(request, stream, row.place.step, row.place.query == 0, row.blocks);
        }
    }
    Ok(summary)
}

impl RequestSummary {
    fn empty(request: &Request, header: &Header) -> RequestSummary {
        RequestSummary {
            context_blocks: request.blocks_at(request.output_steps - 1, header.entries_per_block),
            request: request.clone(),
            selected: 0,
            distinct: 0,
            steady_selected: 0,
            steady_repeated: 0,
            steady_rows: 0,
        }
    }
}

/// Per block of each stream, the last step that selected it, plus one; zero for never.
#[derive(Default)]
struct Repeats {
    request: Option<u32>,
    blocks: usize,
    last: Vec<u32>,
}

impl Repeats {
    fn enter(&mut self, request: u32, streams: usize, blocks: usize) {
        if self.request != Some(request) {
            self.request = Some(request);
            self.blocks = blocks;
            self.last.clear();
            self.last.resize(streams * blocks, 0);
        }
    }

    fn row(&mut self, to: &mut RequestSummary, stream: usize, step: u32, first: bool, blocks: &[u32]) {
        let last = &mut self.last[stream * self.blocks..][..self.blocks];
        let (mut selected, mut repeated, mut distinct) = (0u64, 0u64, 0u64);
        for block in blocks {
            let last = &mut last[*block as usize];
            selected += u64::from(*last != step + 1);
            repeated += u64::from(*last == step && step > 0);
            distinct += u64::from(*last == 0);
            *last = step + 1;
        }
        to.selected += selected;
        to.distinct += distinct;
        if step >= STEADY_FROM {
            to.steady_selected += selected;
            to.steady_repeated += repeated;
            to.steady_rows += u64::from(first);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        writeln!(f, "model        {}", header.model)?;
        writeln!(f, "selector     {}", header.selector)?;
        writeln!(
            f,
            "streams      {} layers x {} head groups = {} per request",
            header.layers.len(),
            header.head_groups,
            header.streams_per_request()
        )?;
        let (entries, bytes) = (header.entries_per_block, header.bytes_per_block);
        writeln!(f, "block        {entries} entries, {bytes}")?;
        writeln!(f, "ranks        k = {}, extra = {}", header.k, header.extra)?;
        writeln!(f, "scores       {}", header.score.as_deref().unwrap_or("none"))?;
        writeln!(f, "loop         {}", header.loop_kind)?;
        writeln!(f, "provenance   {}", header.provenance)?;
        writeln!(f, "licence      {}", header.licence)?;
        writeln!(
            f,
            "file         {}, {} rows in {} row groups, {} blocks selected, {} extra ranks, xxh3 {:016x}",
            self.file_bytes, self.rows, self.row_groups, self.blocks, self.extra, self.file_hash
        )?;
        let id = self.requests.iter().map(|r| r.request.id.len()).max().unwrap_or(0).max(7);
        let kind = self.requests.iter().map(|r| r.request.kind.len()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "\n{:<id$}  {:<kind$}  {:>8}  {:>6}  {:>7}  {:>16}  {:>7}  {:>10}",
            "request", "kind", "prompt", "steps", "blocks", "distinct/stream", "overlap", "churn/step"
        )?;
        let streams = u64::try_from(header.streams_per_request()).unwrap_or(u64::MAX);
        for summary in &self.requests {
            let request = &summary.request;
            writeln!(
                f,
                "{:<id$}  {:<kind$}  {:>8}  {:>6}  {:>7}  {:>16.1}  {:>7.3}  {:>10.2}",
                request.id,
                request.kind,
                request.prompt_entries,
                request.output_steps,
                summary.context_blocks,
                ratio(summary.distinct, streams),
                summary.overlap(),
                summary.churn()
            )?;
        }
        write!(f, "overlap and churn: against the step before, from step {STEADY_FROM} on")
    }
}
