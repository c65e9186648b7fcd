//! Reads a trace in chunks of bounded size; every row is checked before it is handed out.

use crate::check::RowChecker;
use crate::chunk::Chunk;
use crate::error::{RowError, TraceError};
use crate::hash_file;
use crate::header::{self, FORMAT_VERSION, Header, Request};
use crate::layout::{self, HEADER_KEY, IDS_PER_CHUNK, REQUESTS_KEY};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use kvtier_units::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which optional columns to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Read scores, where there are any.
    pub scores: bool,
    /// Read extra ranks, where there are any.
    pub extra: bool,
}

/// An open trace; memory is bounded by one chunk and one word per block of the longest context.
pub struct TraceReader {
    path: PathBuf,
    file: File,
    parquet: ArrowReaderMetadata,
    header: Arc<Header>,
    requests: Arc<[Request]>,
    columns: Columns,
    only: Option<u32>,
    started: Option<Cursor>,
}

struct Cursor {
    batches: ParquetRecordBatchReader,
    checker: RowChecker,
    next_row: u64,
}

impl TraceReader {
    /// Opens a trace and checks its metadata and columns.
    pub fn open(path: impl AsRef<Path>) -> Result<TraceReader, TraceError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| TraceError::io(path, "open", e))?;
        TraceReader::from_file(file, path)
    }

    /// Reads an open file; `path` is what errors call it.
    pub(crate) fn from_file(file: File, path: &Path) -> Result<TraceReader, TraceError> {
        check_magic(&file, path)?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let parquet = surviving_damage(|| ArrowReaderMetadata::load(&file, options))
            .map_err(|e| TraceError::parquet(path, e))?;
        let header = read_header(&parquet, path)?;
        header.check(path)?;
        let requests: Vec<Request> = read_metadata(&parquet, REQUESTS_KEY, path)?;
        header::check_requests(&requests, path)?;
        layout::check_schema(parquet.schema(), &header, path)?;
        Ok(TraceReader {
            path: path.into(),
            file,
            parquet,
            header: Arc::new(header),
            requests: requests.into(),
            columns: Columns { scores: true, extra: true },
            only: None,
            started: None,
        })
    }

    /// Leaves out optional columns; what is not read is not checked either.
    pub fn columns(mut self, columns: Columns) -> TraceReader {
        assert!(self.started.is_none(), "columns are chosen before the first chunk");
        self.columns = columns;
        self
    }

    /// Reads the rows of one request alone, skipping row groups without any.
    ///
    /// # Panics
    /// If there is no such request, or chunks have been read already.
    pub fn only_request(mut self, request: u32) -> TraceReader {
        assert!(self.started.is_none(), "a request is chosen before the first chunk");
        assert!((request as usize) < self.requests.len(), "no request {request} in {}", self.path.display());
        self.only = Some(request);
        self
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The requests table.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.parquet.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Row groups of the file.
    pub fn row_groups(&self) -> usize {
        self.parquet.metadata().num_row_groups()
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> Result<Bytes, TraceError> {
        self.file.metadata().map(|m| Bytes(m.len())).map_err(|e| TraceError::io(&self.path, "read", e))
    }

    /// xxh3-64 of the file's bytes: the trace's identity. Reads the whole file.
    pub fn file_hash(&self) -> Result<u64, TraceError> {
        hash_file(&self.file, &self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn shared(&self) -> (Arc<Header>, Arc<[Request]>) {
        (self.header.clone(), self.requests.clone())
    }

    /// Fills `chunk` with the next rows, all checked; false at the end of a complete trace.
    pub fn next_chunk(&mut self, chunk: &mut Chunk) -> Result<bool, TraceError> {
        if self.started.is_none() {
            self.started = Some(self.start()?);
        }
        let cursor = self.started.as_mut().expect("started above");
        loop {
            let batch = surviving_damage(|| cursor.batches.next().transpose().map_err(ParquetError::from));
            let batch = match batch.map_err(|e| TraceError::parquet(&self.path, e))? {
                Some(batch) => batch,
                None => match cursor.checker.missing() {
                    Some(expected) => {
                        return Err(TraceError::Incomplete { path: self.path.clone(), expected });
                    }
                    None => return Ok(false),
                },
            };
            let first_row = cursor.next_row;
            cursor.next_row += batch.num_rows() as u64;
            check_nulls(&batch, first_row, &self.path)?;
            chunk.fill(first_row, &batch);
            if let Some(only) = self.only {
                let requests = chunk.requests();
                let (from, to) =
                    (requests.partition_point(|r| *r < only), requests.partition_point(|r| *r <= only));
                if from == to {
                    continue;
                }
                chunk.fill(first_row + from as u64, &batch.slice(from, to - from));
            }
            for (number, row) in (chunk.first_row..).zip(chunk.rows()) {
                cursor.checker.check(&row).map_err(|fault| TraceError::Row {
                    path: self.path.clone(),
                    row: Box::new(RowError { number, place: row.place, fault }),
                })?;
            }
            return Ok(true);
        }
    }

    fn start(&self) -> Result<Cursor, TraceError> {
        let last = u32::try_from(self.requests.len()).expect("the requests check bounds their number");
        let range = self.only.map_or(0..last, |only| only..only + 1);
        let (groups, next_row) = self.groups_of(self.only);
        let ids_per_row = self.header.k as usize + self.header.extra as usize;
        let file = self.file.try_clone().map_err(|e| TraceError::io(&self.path, "read", e))?;
        let mut names = vec!["request", "step", "layer", "head_group", "query", "blocks"];
        names.extend(self.columns.scores.then_some("scores"));
        names.extend(self.columns.extra.then_some("extra"));
        let mask = ProjectionMask::columns(self.parquet.parquet_schema(), names);
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.parquet.clone())
            .with_batch_size((IDS_PER_CHUNK / ids_per_row).max(1))
            .with_projection(mask)
            .with_row_groups(groups)
            .build()
            .map_err(|e| TraceError::parquet(&self.path, e))?;
        let checker = RowChecker::new(self.header.clone(), self.requests.clone(), range);
        Ok(Cursor { batches, checker, next_row })
    }

    /// The contiguous row groups that may hold rows of a request, and the first row of the first of them.
    fn groups_of(&self, only: Option<u32>) -> (Vec<usize>, u64) {
        let groups = self.parquet.metadata().row_groups();
        let may_hold = |group: &RowGroupMetaData| match (only, request_range(group)) {
            (Some(only), Some((min, max))) => min <= only && only <= max,
            _ => true,
        };
        let first = groups.iter().position(may_hold).unwrap_or(groups.len());
        let end = groups.iter().rposition(may_hold).map_or(first, |last| last + 1);
        let skipped = groups[..first].iter().map(|g| u64::try_from(g.num_rows()).unwrap_or(0)).sum();
        ((first..end).collect(), skipped)
    }
}

/// Smallest and largest request of a row group, if its statistics say.
#[allow(clippy::cast_sign_loss)] // Parquet keeps the bits of a u32 in an i32
fn request_range(group: &RowGroupMetaData) -> Option<(u32, u32)> {
    let column = group.columns().iter().find(|c| c.column_path().string() == "request")?;
    match column.statistics()? {
        Statistics::Int32(values) => Some((*values.min_opt()? as u32, *values.max_opt()? as u32)),
        _ => None,
    }
}

/// Tells a foreign file and a truncated one from a Parquet file.
fn check_magic(file: &File, path: &Path) -> Result<(), TraceError> {
    let length = file.metadata().map_err(|e| TraceError::io(path, "read", e))?.len();
    let mut magic = [0u8; 4];
    let mut starts_at = |offset: u64| -> Result<bool, TraceError> {
        file.read_exact_at(&mut magic, offset).map_err(|e| TraceError::io(path, "read", e))?;
        Ok(&magic == b"PAR1")
    };
    if length < 4 || !starts_at(0)? {
        return Err(TraceError::NotParquet { path: path.into() });
    }
    if length < 12 || !starts_at(length - 4)? {
        return Err(TraceError::Truncated { path: path.into(), length: Bytes(length) });
    }
    Ok(())
}

/// The JSON text under a metadata key.
fn metadata_text<'a>(
    parquet: &'a ArrowReaderMetadata,
    key: &'static str,
    path: &Path,
) -> Result<&'a str, TraceError> {
    let pairs = parquet.metadata().file_metadata().key_value_metadata();
    pairs
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == key))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| TraceError::NotATrace { path: path.into(), key })
}

fn read_metadata<T: DeserializeOwned>(
    parquet: &ArrowReaderMetadata,
    key: &'static str,
    path: &Path,
) -> Result<T, TraceError> {
    serde_json::from_str(metadata_text(parquet, key, path)?).map_err(|source| TraceError::Metadata {
        path: path.into(),
        key,
        source,
    })
}

/// The header; its version is looked at before its other fields, which another version may name differently.
fn read_header(parquet: &ArrowReaderMetadata, path: &Path) -> Result<Header, TraceError> {
    let raw: serde_json::Value = read_metadata(parquet, HEADER_KEY, path)?;
    match raw.get("format_version") {
        Some(version) if version.as_u64() != Some(u64::from(FORMAT_VERSION)) => {
            Err(TraceError::Version { path: path.into(), found: version.to_string() })
        }
        _ => read_metadata(parquet, HEADER_KEY, path),
    }
}

fn check_nulls(batch: &RecordBatch, first_row: u64, path: &Path) -> Result<(), TraceError> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let inner = column.as_list_opt::<i32>().map_or(0, |lists| lists.values().null_count());
        if column.null_count() + inner > 0 {
            let problem = format!(
                "null within {} rows from row {first_row}; write an empty list instead",
                batch.num_rows()
            );
            return Err(TraceError::column(path, field.name(), problem));
        }
    }
    Ok(())
}

/// Runs a call of the Parquet library, which meets some kinds of damage with a panic: it becomes an error here.
fn surviving_damage<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    // Unwind safe: on an error the reader gives up, and nothing that the call touched is used again.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(ParquetError::General(format!("the Parquet library gave up on it: {text}")))
    })
}
