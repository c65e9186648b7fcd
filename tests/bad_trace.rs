//! Damaged, foreign and rule-breaking traces are refused by every command that reads them, with one line that names
//! the file, the row or field, and the remedy. They are written column by column, as a foreign program would.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod program;

use arrow_array::builder::{Float16Builder, ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch, UInt16Array, UInt32Array};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use program::{Folder, Outcome};
use std::sync::Arc;

/// One layer and head group of pages of 16 entries: a request of 40 prompt entries, hence three blocks, and two steps.
struct Trace {
    version: u32,
    steps: Vec<u32>,
    blocks: Vec<Vec<u32>>,
    scores: Vec<Vec<f32>>,
}

impl Trace {
    fn good() -> Trace {
        Trace {
            version: 1,
            steps: vec![0, 1],
            blocks: vec![vec![2, 0], vec![1, 2]],
            scores: vec![vec![0.75, 0.25], vec![0.5, 0.5]],
        }
    }

    fn columns(&self) -> Vec<(&'static str, ArrayRef)> {
        let rows = self.steps.len();
        let zeros = || -> ArrayRef { Arc::new(UInt16Array::from(vec![0; rows])) };
        let mut blocks = ListBuilder::new(UInt32Builder::new());
        self.blocks.iter().for_each(|row| blocks.append_value(row.iter().map(|&id| Some(id))));
        let mut scores = ListBuilder::new(Float16Builder::new());
        self.scores.iter().for_each(|row| scores.append_value(row.iter().map(|&s| Some(f16::from_f32(s)))));
        vec![
            ("request", Arc::new(UInt32Array::from(vec![0; rows]))),
            ("step", Arc::new(UInt32Array::from(self.steps.clone()))),
            ("layer", zeros()),
            ("head_group", zeros()),
            ("query", zeros()),
            ("blocks", Arc::new(blocks.finish())),
            ("scores", Arc::new(scores.finish())),
        ]
    }

    fn write(&self, folder: &Folder) -> String {
        let header = serde_json::json!({
            "format_version": self.version, "model": "toy", "layers": [0], "head_groups": 1,
            "entries_per_block": 16, "bytes_per_block": "4 KiB", "k": 2, "selector": "by hand",
            "score": "by hand", "loop": "open", "provenance": "test", "licence": "Apache-2.0",
        });
        let requests = serde_json::json!([{ "id": "r", "prompt_entries": 40, "output_steps": 2 }]);
        let path = folder.write("broken.parquet", "");
        let file = std::fs::File::create(&path).unwrap();
        let batch = RecordBatch::try_from_iter(self.columns()).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        for (key, value) in [("kvtier.header", header), ("kvtier.requests", requests)] {
            writer.append_key_value_metadata(KeyValue::new(key.into(), value.to_string()));
        }
        writer.close().unwrap();
        path
    }
}

/// The command lines that read a trace's rows, whatever its path.
fn replay(trace: &str) -> Outcome {
    let settings = ["--policy", "attention-mass", "--slots", "2k", "--set", "measure.from_step=0"];
    Outcome::of([["replay", "--trace", trace].as_slice(), &settings].concat())
}

/// Everything that reads the trace at `path` says the same of it, and a sweep over it leaves no results.
#[track_caller]
fn refused_at(folder: &Folder, path: &str, parts: &[&str]) {
    Outcome::of(["trace", "validate", path]).refused(parts);
    replay(path).refused(parts);
    let settings = format!("trace = '{path}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n");
    let policy = "measure.from_step = 0\n[grid]\n'hot.policy' = ['attention-mass', 'lru']\n";
    let sweep = folder.write("sweep.toml", settings + policy);
    let out = folder.arg("out");
    Outcome::of(["sweep", &sweep, "--out", &out]).refused(parts);
    if folder.at("out").exists() {
        assert_eq!(program::names(&folder.at("out")), ["points.jsonl"], "only the log may be there");
        assert_eq!(std::fs::read(folder.at("out/points.jsonl")).unwrap(), b"", "and nothing in it");
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Trace), parts: &[&str]) {
    let folder = Folder::new();
    let mut trace = Trace::good();
    change(&mut trace);
    let path = trace.write(&folder);
    refused_at(&folder, &path, &[&["broken.parquet"], parts].concat());
}

#[test]
fn the_unbroken_trace_is_read() {
    let folder = Folder::new();
    let path = Trace::good().write(&folder);
    Outcome::of(["trace", "validate", &path]).ended(0);
    replay(&path).ended(0);
}

#[test]
fn a_missing_file() {
    let folder = Folder::new();
    refused_at(&folder, &folder.arg("none.parquet"), &["none.parquet", "No such file"]);
}

#[test]
fn a_truncated_file() {
    let folder = Folder::new();
    let path = Trace::good().write(&folder);
    let whole = std::fs::read(&path).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 12] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused_at(&folder, &path, &["broken.parquet", "truncated", "copy or record it again"]);
    }
}

#[test]
fn a_file_that_is_no_parquet_and_a_parquet_file_that_is_no_trace() {
    let folder = Folder::new();
    let text = folder.write("notes.parquet", "request,step,block\n0,0,0\n");
    refused_at(&folder, &text, &["notes.parquet", "not a Parquet file", "FORMAT.md"]);

    let path = folder.write("columns.parquet", "");
    let batch = RecordBatch::try_from_iter(Trace::good().columns()).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    refused_at(&folder, &path, &["columns.parquet", "`kvtier.header`", "kvtier trace convert"]);
}

#[test]
fn another_version() {
    refused(|trace| trace.version = 2, &["format_version is 2", "reads 1", "convert"]);
}

#[test]
fn a_block_that_is_selected_twice() {
    refused(
        |trace| trace.blocks[1] = vec![1, 1],
        &["row 1 (request 0, step 1, layer 0", "block 1 appears twice", "one rank"],
    );
}

#[test]
fn a_block_beyond_the_context() {
    refused(|trace| trace.blocks[0] = vec![2, 3], &["row 0", "block 3 is beyond the context of 3 blocks"]);
}

#[test]
fn steps_out_of_order() {
    refused(|trace| trace.steps = vec![1, 0], &["row 0 (request 0, step 1", "step 0", "missing"]);
}

#[test]
fn a_recording_that_stops_early() {
    let cut = |trace: &mut Trace| {
        trace.steps.truncate(1);
        trace.blocks.truncate(1);
        trace.scores.truncate(1);
    };
    refused(cut, &["rows end before request 0, step 1", "output_steps"]);
}

#[test]
fn scores_that_are_no_numbers() {
    refused(|trace| trace.scores[1][1] = f32::NAN, &["row 1", "score NaN at rank 1", "finite"]);
    refused(|trace| trace.scores[0][0] = -1.0, &["row 0", "score -1 at rank 0"]);
}
