//! Reads raw recorder files: one row per selected block, and what the recorder knew as schema metadata.

use crate::TraceError;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt16Type, UInt32Type};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows of a raw file held at once.
const ROWS_PER_BATCH: usize = 64 * 1024;

/// One request, as the recorder describes it; fields that a trace has no use for are left out.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RawRequest {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) mode: String,
    pub(super) closed_loop: Option<bool>,
    pub(super) n0: u32,
}

/// The schema metadata of a raw file.
#[derive(Clone, Debug)]
pub(super) struct RawMetadata {
    pub(super) model: String,
    pub(super) layers: Vec<u16>,
    pub(super) kv_heads: u16,
    pub(super) head_dim: u32,
    pub(super) page_size: u32,
    pub(super) k: u32,
    pub(super) selector: String,
    pub(super) score: String,
    pub(super) closed_loop: bool,
    pub(super) requests: Vec<RawRequest>,
}

impl RawMetadata {
    pub(super) fn read(path: &Path) -> Result<RawMetadata, TraceError> {
        let builder = open(path)?;
        let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let texts: BTreeMap<String, String> =
            pairs.into_iter().filter_map(|pair| Some((pair.key, pair.value?))).collect();
        let text = |key: &str| {
            texts.get(key).map(String::as_str).ok_or_else(|| {
                let problem = format!("no `{key}` in the schema metadata; is this a raw recording, as traces/FORMAT.md describes them?");
                TraceError::import(path, problem)
            })
        };
        Ok(RawMetadata {
            model: text("model")?.into(),
            layers: parse(path, "layers", text("layers")?)?,
            kv_heads: parse(path, "kv_heads", text("kv_heads")?)?,
            head_dim: parse(path, "head_dim", text("head_dim")?)?,
            page_size: parse(path, "page_size", text("page_size")?)?,
            k: parse(path, "k", text("k")?)?,
            selector: text("selector")?.into(),
            score: text("score")?.into(),
            closed_loop: text("feedback")?.starts_with("closed"),
            requests: parse(path, "requests", text("requests")?)?,
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, key: &str, text: &str) -> Result<T, TraceError> {
    serde_json::from_str(text).map_err(|e| TraceError::import(path, format!("schema metadata `{key}`: {e}")))
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TraceError> {
    let file = File::open(path).map_err(|e| TraceError::io(path, "open", e))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|e| TraceError::parquet(path, e))
}

/// The ranks of one (request, step, layer, head), best first.
#[derive(Clone, Debug, Default)]
pub(super) struct RawSelection {
    pub(super) request: String,
    pub(super) step: u16,
    /// The model's own layer number.
    pub(super) layer: u16,
    pub(super) kv_head: u16,
    pub(super) first_rank: u16,
    pub(super) blocks: Vec<u32>,
    /// Empty where the file has no scores.
    pub(super) scores: Vec<f32>,
}

impl RawSelection {
    /// Whether both are of the same stream and step.
    pub(super) fn same_place(&self, other: &RawSelection) -> bool {
        (self.step, self.layer, self.kv_head) == (other.step, other.layer, other.kv_head)
            && self.request == other.request
    }
}

/// The selections of several raw files, one after the other.
pub(super) struct RawSelections {
    files: Vec<PathBuf>,
    next_file: usize,
    batches: Option<ParquetRecordBatchReader>,
    batch: Option<RawBatch>,
    at: usize,
}

struct RawBatch {
    request: StringArray,
    step: ScalarBuffer<u16>,
    layer: ScalarBuffer<u16>,
    kv_head: ScalarBuffer<u16>,
    rank: ScalarBuffer<u16>,
    block: ScalarBuffer<u32>,
    score: Option<ScalarBuffer<f32>>,
}

impl RawSelections {
    pub(super) fn new(files: &[PathBuf]) -> RawSelections {
        RawSelections { files: files.to_vec(), next_file: 0, batches: None, batch: None, at: 0 }
    }

    /// The file being read, for error messages.
    pub(super) fn path(&self) -> &Path {
        &self.files[self.next_file.saturating_sub(1)]
    }

    /// Reads the next selection into `to`; false at the end of the last file.
    pub(super) fn next(&mut self, to: &mut RawSelection) -> Result<bool, TraceError> {
        to.blocks.clear();
        to.scores.clear();
        while self.more()? {
            let batch = self.batch.as_ref().expect("more() leaves a batch");
            if to.blocks.is_empty() {
                batch.start(self.at, to);
            }
            while self.at < batch.step.len() {
                if !batch.belongs(self.at, to) {
                    return Ok(true);
                }
                let expected = usize::from(to.first_rank) + to.blocks.len();
                if usize::from(batch.rank[self.at]) != expected {
                    let problem = format!(
                        "request {}, step {}, layer {}, kv_head {}: rank {} where {expected} should follow",
                        to.request, to.step, to.layer, to.kv_head, batch.rank[self.at]
                    );
                    return Err(TraceError::import(self.path(), problem));
                }
                to.blocks.push(batch.block[self.at]);
                to.scores.extend(batch.score.as_ref().map(|score| score[self.at]));
                self.at += 1;
            }
        }
        Ok(!to.blocks.is_empty())
    }

    /// Makes sure that `at` points at a row; false when there is none left.
    fn more(&mut self) -> Result<bool, TraceError> {
        loop {
            if self.batch.as_ref().is_some_and(|batch| self.at < batch.step.len()) {
                return Ok(true);
            }
            match self.batches.as_mut().and_then(Iterator::next) {
                Some(batch) => {
                    let path = self.path().to_owned();
                    let batch = batch.map_err(|e| TraceError::import(&path, e.to_string()))?;
                    self.batch = Some(RawBatch::take(&batch, &path)?);
                    self.at = 0;
                }
                None => {
                    let Some(path) = self.files.get(self.next_file) else { return Ok(false) };
                    let builder = open(path)?.with_batch_size(ROWS_PER_BATCH);
                    self.batches = Some(builder.build().map_err(|e| TraceError::parquet(path, e))?);
                    self.next_file += 1;
                }
            }
        }
    }
}

impl RawBatch {
    fn take(batch: &RecordBatch, path: &Path) -> Result<RawBatch, TraceError> {
        let column = |name: &str, kind: DataType| {
            let found = batch.column_by_name(name);
            found.filter(|c| *c.data_type() == kind && c.null_count() == 0).ok_or_else(|| {
                TraceError::import(path, format!("column `{name}` must be {kind} without nulls"))
            })
        };
        let key = |name| Ok(column(name, DataType::UInt16)?.as_primitive::<UInt16Type>().values().clone());
        let score = match batch.column_by_name("score") {
            None => None,
            Some(_) => {
                Some(column("score", DataType::Float32)?.as_primitive::<Float32Type>().values().clone())
            }
        };
        Ok(RawBatch {
            request: column("request_id", DataType::Utf8)?.as_string::<i32>().clone(),
            step: key("step")?,
            layer: key("layer")?,
            kv_head: key("kv_head")?,
            rank: key("rank")?,
            block: column("block_id", DataType::UInt32)?.as_primitive::<UInt32Type>().values().clone(),
            score,
        })
    }

    fn start(&self, row: usize, to: &mut RawSelection) {
        to.request.clear();
        to.request.push_str(self.request.value(row));
        (to.step, to.layer) = (self.step[row], self.layer[row]);
        (to.kv_head, to.first_rank) = (self.kv_head[row], self.rank[row]);
    }

    fn belongs(&self, row: usize, to: &RawSelection) -> bool {
        (self.step[row], self.layer[row], self.kv_head[row]) == (to.step, to.layer, to.kv_head)
            && self.request.value(row) == to.request
    }
}
