//! Everything that can be wrong with a trace, each with the file, the field or row, and what to do about it.

use kvtier_units::Bytes;
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a trace could not be read, written, viewed or converted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not start as Parquet does.
    #[error("{}: not a Parquet file; a trace is one Parquet file (traces/FORMAT.md)", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
    },
    /// The file starts as Parquet but its end is missing.
    #[error("{}: truncated after {length}: the Parquet footer is missing; copy or record it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is there of it.
        length: Bytes,
    },
    /// Parquet, but damaged somewhere, or written with a feature this build cannot read.
    #[error("{}: damaged or unreadable Parquet: {source}; copy it again, or write it with zstd or no compression", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the Parquet library says.
        source: Box<parquet::errors::ParquetError>,
    },
    /// Parquet without one of our metadata keys.
    #[error("{}: Parquet without `{key}` metadata, so not a kvtier trace; a raw recording is turned into one by `kvtier trace convert`", path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// The key that is missing.
        key: &'static str,
    },
    /// The metadata is not the JSON that the format asks for.
    #[error("{}: {key}: {source}; traces/FORMAT.md lists the fields", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: &'static str,
        /// Unknown, missing or mistyped field.
        source: serde_json::Error,
    },
    /// A format version that this build does not read.
    #[error("{}: kvtier.header: format_version is {found}, this build reads {expected}; convert the trace or use a matching kvtier", path.display(), expected = crate::FORMAT_VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: String,
    },
    /// A metadata field holds a value the format does not allow.
    #[error("{}: {field}: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with its metadata key.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A column is missing, of the wrong type, or not expected.
    #[error("{}: column `{column}`: {problem}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A row breaks a rule of the format.
    #[error("{}: {row}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which row, and the rule.
        row: Box<RowError>,
    },
    /// The rows end before the last step of the last request.
    #[error("{}: rows end before {expected}; the recording was cut short, or output_steps in kvtier.requests is too large", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The first row that is missing.
        expected: Place,
    },
    /// A view that this trace cannot give.
    #[error("{}: view.{field}: {problem}", path.display())]
    View {
        /// The file.
        path: PathBuf,
        /// The field of the view.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Raw recordings that do not fit together, or options that do not fit them.
    #[error("{}: {problem}", path.display())]
    Import {
        /// The raw file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl TraceError {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> TraceError {
        TraceError::Io { path: path.into(), action, source }
    }

    pub(crate) fn parquet(path: &Path, source: parquet::errors::ParquetError) -> TraceError {
        TraceError::Parquet { path: path.into(), source: Box::new(source) }
    }

    pub(crate) fn field(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> TraceError {
        TraceError::Field { path: path.into(), field: field.into(), problem: problem.into() }
    }

    pub(crate) fn column(path: &Path, column: impl Into<String>, problem: impl Into<String>) -> TraceError {
        TraceError::Column { path: path.into(), column: column.into(), problem: problem.into() }
    }

    pub(crate) fn view(path: &Path, field: &'static str, problem: impl Into<String>) -> TraceError {
        TraceError::View { path: path.into(), field, problem: problem.into() }
    }

    pub(crate) fn import(path: &Path, problem: impl Into<String>) -> TraceError {
        TraceError::Import { path: path.into(), problem: problem.into() }
    }
}

/// The keys of a row, by which rows are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index into the requests table.
    pub request: u32,
    /// Decode step of the request, from zero.
    pub step: u32,
    /// Index into the header's layers.
    pub layer: u16,
    /// Head group, from zero.
    pub head_group: u16,
    /// Query row of the step, from zero.
    pub query: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { request, step, layer, head_group, query } = self;
        write!(f, "request {request}, step {step}, layer {layer}, head group {head_group}, query {query}")
    }
}

/// A row that breaks a rule.
#[derive(Debug, Error)]
#[error("row {number} ({place}): {fault}")]
pub struct RowError {
    /// Row of the file, from zero.
    pub number: u64,
    /// The row's keys.
    pub place: Place,
    /// The rule it breaks.
    pub fault: RowFault,
}

/// The rules a row can break.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RowFault {
    /// The request index is not in the requests table.
    #[error(
        "unknown request index: kvtier.requests has {requests} entries; the index is the position in that array"
    )]
    UnknownRequest {
        /// Length of the table.
        requests: usize,
    },
    /// A key beyond the shape that the header declares.
    #[error("{column} {value} is beyond the header's {limit}; {column} counts from zero")]
    OutOfShape {
        /// The key column.
        column: &'static str,
        /// What the row says.
        value: u32,
        /// How many there are.
        limit: u32,
    },
    /// More query rows than the header declares.
    #[error(
        "query row {query}, but kvtier.header declares queries = {queries}; raise it to the largest number of query rows of a step"
    )]
    TooManyQueries {
        /// What the row says.
        query: u16,
        /// The header's number.
        queries: u16,
    },
    /// A step at or past the request's last.
    #[error(
        "step is beyond output_steps = {output_steps} of this request; correct kvtier.requests or drop the row"
    )]
    StepBeyondEnd {
        /// The request's number of steps.
        output_steps: u32,
    },
    /// The row does not come after its predecessor.
    #[error(
        "out of order after {previous}; rows are sorted by request, step, layer, head_group, query, without repeats"
    )]
    OutOfOrder {
        /// The row before.
        previous: Place,
    },
    /// Rows are missing before this one.
    #[error(
        "{expected} is missing before it; every step of a request has rows for every layer and head group"
    )]
    Missing {
        /// The first row that should have come.
        expected: Place,
    },
    /// A block appears twice, in the selection, in the extra ranks, or in both.
    #[error("block {block} appears twice; a block has one rank among blocks and extra together")]
    Duplicate {
        /// The block.
        block: u32,
    },
    /// A block that does not exist yet at this step.
    #[error(
        "block {block} is beyond the context of {blocks} blocks; block = position / entries_per_block, and the context at step s is prompt_entries + s + 1 entries"
    )]
    BeyondContext {
        /// The block.
        block: u32,
        /// Blocks of the context at this step.
        blocks: u32,
    },
    /// More blocks than the header's k.
    #[error("{found} blocks, but kvtier.header declares k = {k}; ranks beyond k belong in `extra`")]
    TooManyBlocks {
        /// Blocks in the row.
        found: usize,
        /// The header's k.
        k: u32,
    },
    /// More extra ranks than the header declares.
    #[error("{found} extra ranks, but kvtier.header declares extra = {extra}")]
    TooManyExtra {
        /// Extra ranks in the row.
        found: usize,
        /// The header's number.
        extra: u32,
    },
    /// Scores do not pair with blocks.
    #[error("{scores} scores for {blocks} blocks; each block has one score, in the same order")]
    ScoreLength {
        /// Scores in the row.
        scores: usize,
        /// Blocks in the row.
        blocks: usize,
    },
    /// A score that is NaN, infinite or negative.
    #[error("score {score} at rank {rank}; scores are finite and not negative")]
    BadScore {
        /// Rank of the score.
        rank: usize,
        /// The score.
        score: f32,
    },
}
