//! Writes a trace in row groups of bounded size, under a temporary name until it is complete and valid.

use crate::chunk::Row;
use crate::error::Place;
use crate::header::{self, Header, Request};
use crate::layout::{self, HEADER_KEY, Layout, REQUESTS_KEY};
use crate::summary::{Summary, validate_file};
use crate::{TraceError, hash_file};
use arrow_array::builder::PrimitiveBuilder;
use arrow_array::types::{Float16Type, UInt16Type, UInt32Type};
use arrow_array::{ArrayRef, ArrowPrimitiveType, ListArray, RecordBatch};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{Field, Schema};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::file::metadata::KeyValue;
use std::fs::{File, Permissions};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Writes one trace; nothing appears under its name before [`TraceWriter::finish`] has succeeded.
pub struct TraceWriter {
    path: PathBuf,
    header: Header,
    schema: Arc<Schema>,
    temporary: NamedTempFile,
    parquet: ArrowWriter<BufWriter<File>>,
    rows: RowBuffer,
    ids_per_row_group: usize,
}

impl TraceWriter {
    /// Starts a trace at `path`; an error if the header breaks a rule or the folder cannot be written.
    pub fn create(path: impl Into<PathBuf>, header: Header) -> Result<TraceWriter, TraceError> {
        TraceWriter::create_with(path, header, &Layout::default())
    }

    /// Starts a trace with encodings other than the default.
    pub fn create_with(
        path: impl Into<PathBuf>,
        header: Header,
        layout: &Layout,
    ) -> Result<TraceWriter, TraceError> {
        let path = path.into();
        header.check(&path)?;
        let properties = layout::properties(layout).map_err(|e| TraceError::parquet(&path, e))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".kvtier-trace-")
            .permissions(Permissions::from_mode(0o666)) // less the umask, as any new file
            .tempfile_in(folder)
            .map_err(|e| TraceError::io(&path, "create a file in its folder", e))?;
        let file = temporary.reopen().map_err(|e| TraceError::io(&path, "write", e))?;
        let schema = Arc::new(layout::schema(&header));
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let parquet = ArrowWriter::try_new_with_options(BufWriter::new(file), schema.clone(), options)
            .map_err(|e| TraceError::parquet(&path, e))?;
        let ids_per_row_group = layout.ids_per_row_group.max(1);
        Ok(TraceWriter {
            path,
            header,
            schema,
            temporary,
            parquet,
            rows: RowBuffer::default(),
            ids_per_row_group,
        })
    }

    /// Adds the next row; rows come in the order of their places. Rules are checked by `finish`, all at once.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), TraceError> {
        let has = |wanted: bool| if wanted { "must have" } else { "must not have" };
        if row.scores.is_some() != self.header.score.is_some() {
            let problem = format!(
                "{}: rows {} scores, as the header says",
                row.place,
                has(self.header.score.is_some())
            );
            return Err(TraceError::column(&self.path, "scores", problem));
        }
        if self.header.extra == 0 && !row.extra.is_empty() {
            let problem = format!("{}: rows {} extra ranks, as the header says", row.place, has(false));
            return Err(TraceError::column(&self.path, "extra", problem));
        }
        self.rows.push(row);
        if self.rows.ids() >= self.ids_per_row_group {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the requests table, checks the whole trace against the format's rules and gives it its name.
    pub fn finish(mut self, requests: &[Request]) -> Result<Summary, TraceError> {
        header::check_requests(requests, &self.path)?;
        self.flush()?;
        for (key, value) in [
            (HEADER_KEY, serde_json::to_string(&self.header)),
            (REQUESTS_KEY, serde_json::to_string(requests)),
        ] {
            let value =
                value.map_err(|source| TraceError::Metadata { path: self.path.clone(), key, source })?;
            self.parquet.append_key_value_metadata(KeyValue::new(key.into(), value));
        }
        self.parquet.close().map_err(|e| TraceError::parquet(&self.path, e))?;
        let file = self.temporary.reopen().map_err(|e| TraceError::io(&self.path, "read back", e))?;
        let hash = hash_file(&file, &self.path)?;
        let summary = validate_file(file, &self.path, hash)?;
        self.temporary
            .persist(&self.path)
            .map_err(|e| TraceError::io(&self.path, "rename the finished trace", e.error))?;
        Ok(summary)
    }

    fn flush(&mut self) -> Result<(), TraceError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.rows).batch(&self.schema);
        self.parquet
            .write(&batch)
            .and_then(|()| self.parquet.flush())
            .map_err(|e| TraceError::parquet(&self.path, e))
    }
}

/// Rows of the row group being filled, column by column.
#[derive(Default)]
struct RowBuffer {
    places: Vec<Place>,
    blocks: ListBuffer<UInt32Type>,
    scores: ListBuffer<Float16Type>,
    extra: ListBuffer<UInt32Type>,
}

/// A list column being filled.
struct ListBuffer<T: ArrowPrimitiveType> {
    lengths: Vec<usize>,
    values: Vec<T::Native>,
}

impl<T: ArrowPrimitiveType> Default for ListBuffer<T> {
    fn default() -> Self {
        ListBuffer { lengths: Vec::new(), values: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> ListBuffer<T> {
    fn push(&mut self, values: &[T::Native]) {
        self.lengths.push(values.len());
        self.values.extend_from_slice(values);
    }

    fn array(self) -> ArrayRef {
        let mut values = PrimitiveBuilder::<T>::with_capacity(self.values.len());
        values.append_slice(&self.values);
        let item = Arc::new(Field::new("element", T::DATA_TYPE, false));
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Arc::new(ListArray::new(item, offsets, Arc::new(values.finish()), None))
    }
}

impl RowBuffer {
    fn push(&mut self, row: &Row<'_>) {
        self.places.push(row.place);
        self.blocks.push(row.blocks);
        self.scores.push(row.scores.unwrap_or(&[]));
        self.extra.push(row.extra);
    }

    fn ids(&self) -> usize {
        self.blocks.values.len() + self.extra.values.len()
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn batch(self, schema: &Arc<Schema>) -> RecordBatch {
        let keys32 = |key: fn(&Place) -> u32| keys::<UInt32Type>(self.places.iter().map(key));
        let keys16 = |key: fn(&Place) -> u16| keys::<UInt16Type>(self.places.iter().map(key));
        let mut columns = vec![
            keys32(|p| p.request),
            keys32(|p| p.step),
            keys16(|p| p.layer),
            keys16(|p| p.head_group),
            keys16(|p| p.query),
            self.blocks.array(),
        ];
        if schema.field_with_name("scores").is_ok() {
            columns.push(self.scores.array());
        }
        if schema.field_with_name("extra").is_ok() {
            columns.push(self.extra.array());
        }
        RecordBatch::try_new(schema.clone(), columns).expect("columns follow the schema")
    }
}

fn keys<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> ArrayRef {
    let values: ScalarBuffer<T::Native> = values.collect();
    Arc::new(arrow_array::PrimitiveArray::<T>::new(values, None))
}
