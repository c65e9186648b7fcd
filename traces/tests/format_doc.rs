//! The Python writer of FORMAT.md writes traces that this crate reads.

#![allow(clippy::print_stdout)] // a skipped test says so

use kvtier_traces::{Recording, Summary, View, validate};
use kvtier_units::Bytes;
use std::path::Path;
use std::process::Command;

#[track_caller]
fn assert_as_documented(summary: &Summary) {
    let header = &summary.header;
    assert_eq!((header.layers.as_slice(), header.head_groups, header.k), (&[0, 4, 9][..], 2, 32));
    assert_eq!((header.extra, header.queries, header.score_max), (0, 1, 1.0));
    assert_eq!((header.bytes_per_block, header.score.is_some()), (Bytes(8_192), true));
    assert_eq!((summary.rows, summary.blocks), (120, 120 * 32));
    assert_eq!((summary.requests.len(), summary.requests[0].context_blocks), (1, 252));
}

#[test]
fn a_trace_written_by_pyarrow_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pyarrow.parquet");
    assert_as_documented(&validate(&path).unwrap());
    let view = View { scores: true, ..View::default() };
    let recording = Recording::decode(&path, &view, Bytes(u64::MAX)).unwrap();
    let mut buf = kvtier_traces::StepBuf::default();
    for row in recording.step(0, 19, &mut buf).unwrap().iter() {
        let scores = row.scores.expect("the view asks for scores");
        assert!(scores.is_sorted_by(|a, b| a >= b), "the documented writer sorts its scores: {scores:?}");
        assert_eq!(row.blocks.len() + usize::from(row.newest_selected), 32);
    }
}

#[test]
fn the_documented_writer_runs() {
    let python = std::env::var("KVTIER_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_pyarrow = Command::new(&python).args(["-c", "import pyarrow.parquet"]).output();
    if !has_pyarrow.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no pyarrow (KVTIER_PYTHON names an interpreter that has)");
        return;
    }
    let text = include_str!("../FORMAT.md");
    let (_, from) = text.split_once("```python\n").expect("FORMAT.md shows a Python writer");
    let (program, _) = from.split_once("```").expect("the Python writer ends");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&python).args(["-c", program]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_as_documented(&validate(folder.path().join("trace.parquet")).unwrap());
}
