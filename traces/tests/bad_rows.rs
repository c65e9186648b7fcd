//! Every rule that rows, writers and views can break gives one error that names the file, the field or row, and the remedy.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod model;

use half::f16;
use kvtier_traces::{Header, Recording, Request, TraceWriter, View, validate};
use kvtier_units::Bytes;
use model::{Trace, assert_says, fixture, good, request, with_scores};
use std::fs;
use std::path::Path;

/// A good trace after a change is refused with these words, and no file appears.
#[track_caller]
fn refused(change: impl FnOnce(&mut Trace), parts: &[&str]) {
    let at = fixture();
    let mut trace = good();
    change(&mut trace);
    assert_says(trace.write(&at.path), parts);
    assert_eq!(fs::read_dir(at.path.parent().unwrap()).unwrap().count(), 0, "a refused trace leaves nothing");
}

#[test]
fn a_good_trace_is_accepted() {
    let at = fixture();
    let summary = good().write(&at.path).unwrap();
    assert_eq!((summary.rows, summary.blocks, summary.extra), (4, 8, 4));
    let written = validate(&at.path).unwrap();
    assert_eq!(written, summary);
    assert!(written.to_string().contains("2 layers x 1 head groups"));
}

#[test]
fn blocks_of_a_row() {
    refused(
        |t| t.rows[2].blocks = vec![1, 1],
        &["row 2 (request 0, step 1, layer 0", "block 1 appears twice"],
    );
    refused(|t| t.rows[3].extra = vec![0], &["row 3", "block 0 appears twice", "blocks and extra"]);
    refused(|t| t.rows[1].blocks = vec![3], &["row 1", "block 3 is beyond the context of 3 blocks"]);
    refused(|t| t.rows[1].extra = vec![u32::MAX], &["row 1", "block 4294967295 is beyond the context"]);
    refused(|t| t.header.k = 1, &["row 0", "2 blocks", "k = 1", "`extra`"]);
    refused(|t| t.rows[0].extra = vec![2, 1, 0], &["row 0", "3 extra ranks", "extra = 2"]);
    // The last step opens block 3: its block may be selected from then on.
    let at = fixture();
    let mut trace = good();
    trace.requests[0].prompt_entries = 11;
    trace.rows[3].blocks = vec![3];
    trace.write(&at.path).unwrap();
}

#[test]
fn order_of_rows() {
    refused(|t| t.rows.swap(0, 1), &["row 0 (request 0, step 0, layer 1", "layer 0", "is missing before it"]);
    refused(
        |t| t.rows.swap(1, 2),
        &["row 1", "request 0, step 0, layer 1, head group 0, query 0 is missing"],
    );
    refused(|t| drop(t.rows.remove(1)), &["row 1", "step 0, layer 1", "is missing before it"]);
    refused(
        |t| t.rows.insert(1, t.rows[0].clone()),
        &["row 1", "out of order after request 0, step 0, layer 0"],
    );
    refused(|t| t.rows[3].place.step = 0, &["row 3", "out of order after request 0, step 1, layer 0"]);
    refused(|t| drop(t.rows.pop()), &["rows end before request 0, step 1, layer 1", "output_steps"]);
    refused(|t| t.rows.clear(), &["rows end before request 0, step 0"]);
    refused(|t| t.rows[3].place.request = 1, &["row 3", "unknown request index", "has 1 entries"]);
    refused(|t| t.rows[1].place.layer = 2, &["row 1", "layer 2 is beyond the header's 2"]);
    refused(|t| t.rows[1].place.head_group = 1, &["row 1", "head_group 1 is beyond the header's 1"]);
    refused(|t| t.requests[0].output_steps = 1, &["row 2", "beyond output_steps = 1"]);
    refused(
        |t| t.requests.push(request("late", 10, 1)),
        &["rows end before request 1, step 0, layer 0, head group 0, query 0"],
    );
}

#[test]
fn query_rows() {
    let second = |t: &mut Trace, query| {
        let mut row = t.rows[0].clone();
        row.place.query = query;
        t.rows.insert(1, row);
    };
    refused(|t| second(t, 1), &["row 1", "query row 1", "queries = 1"]);
    let skipping = |t: &mut Trace| {
        t.header.queries = 3;
        second(t, 2);
    };
    refused(skipping, &["row 1", "query 1 is missing before it"]);
    let first_is_one = |t: &mut Trace| {
        t.header.queries = 3;
        t.rows[1].place.query = 1;
    };
    refused(first_is_one, &["row 1", "layer 1, head group 0, query 0 is missing before it"]);
}

#[test]
fn scores() {
    for bad in [f32::NAN, f32::INFINITY, -0.5] {
        refused(|t| *t = with_scores(t.clone(), bad), &["row 0", "at rank 1", "finite and not negative"]);
    }
    let short = |t: &mut Trace| {
        *t = with_scores(t.clone(), 0.5);
        t.rows[2].scores = Some(vec![f16::ONE]);
    };
    refused(short, &["row 2", "1 scores for 2 blocks"]);
    refused(|t| t.header.score = Some("mass".into()), &["column `scores`", "rows must have scores"]);
    refused(
        |t| t.rows[0].scores = Some(vec![f16::ONE, f16::ONE]),
        &["column `scores`", "rows must not have scores"],
    );
    refused(|t| t.header.extra = 0, &["column `extra`", "rows must not have extra ranks"]);
}

#[test]
fn views_the_trace_cannot_give() {
    let at = fixture();
    good().write(&at.path).unwrap();
    let decode = |view: View| Recording::decode(&at.path, &view, Bytes::ZERO);
    let view = View::default();
    assert_says(decode(View { k: Some(5), ..view }), &["view.k: 5, but only 4 ranks"]);
    assert_says(decode(View { k: Some(0), ..view }), &["view.k: must be at least 1"]);
    assert_says(decode(View { fold: 0, ..view }), &["view.fold: must be at least 1"]);
    assert_says(decode(View { fold: u32::MAX, ..view }), &["view.fold", "too large"]);
    assert_says(decode(View { scores: true, ..view }), &["view.scores", "has none"]);
    let clipped = decode(View { near: 1_000, ..view }).unwrap();
    let mut buf = kvtier_traces::StepBuf::default();
    assert!(
        clipped.step(0, 0, &mut buf).unwrap().stream(0).near.is_empty(),
        "the only extra rank is the newest block"
    );
}

#[test]
fn bad_scores_in_a_file_are_found_when_scores_are_viewed() {
    // The writer refuses such a file, so it is written with a good score and damaged afterwards.
    let at = fixture();
    let mut trace = with_scores(good(), 0.5);
    for row in &mut trace.rows {
        row.scores = Some(vec![f16::from_bits(0x1234); 2]);
    }
    let layout = kvtier_traces::Layout {
        scores: kvtier_traces::Coding::Plain,
        zstd: None,
        ..kvtier_traces::Layout::default()
    };
    let mut writer = TraceWriter::create_with(&at.path, trace.header.clone(), &layout).unwrap();
    trace.rows.iter().for_each(|row| writer.push(&row.row()).unwrap());
    writer.finish(&trace.requests).unwrap();
    let mut bytes = fs::read(&at.path).unwrap();
    let pattern: Vec<u8> = 0x1234u16.to_le_bytes().repeat(8);
    let start = bytes.windows(16).position(|window| window == pattern).expect("plain scores lie in the file");
    bytes[start + 10..start + 12].copy_from_slice(&f16::NAN.to_bits().to_le_bytes());
    fs::write(&at.path, bytes).unwrap();

    let view = View { scores: true, ..View::default() };
    let parts = ["row 2 (request 0, step 1, layer 0", "score NaN at rank 1"];
    assert_says(Recording::decode(&at.path, &view, Bytes::ZERO), &parts);
    assert_says(validate(&at.path), &parts);
    Recording::decode(&at.path, &View::default(), Bytes::ZERO).expect("scores are not read");
}

#[test]
fn writing_where_one_cannot() {
    let missing = Path::new("/no/such/folder/trace.parquet");
    assert_says(good().write(missing), &["cannot create a file in its folder"]);
    let at = fixture();
    let requests: Vec<Request> = Vec::new();
    let writer = TraceWriter::create(&at.path, good().header).unwrap();
    assert_says(writer.finish(&requests), &["kvtier.requests: list the requests"]);
    let broken = Header { k: 0, ..good().header };
    assert_says(TraceWriter::create(&at.path, broken).map(|_| ()), &["kvtier.header: k"]);
}
