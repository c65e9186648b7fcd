//! Every way a trace can be wrong gives one error that names the file, the field or row, and the remedy.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod model;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch, UInt16Array, UInt32Array, UInt64Array};
use half::f16;
use kvtier_traces::{Header, Place, Recording, Request, TraceError, TraceWriter, View, validate};
use kvtier_units::Bytes;
use model::{OwnedRow, Trace, header, request};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The error says each of these.
#[track_caller]
fn assert_says<T>(result: Result<T, TraceError>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, though it should say {parts:?}") };
    let text = error.to_string();
    assert!(text.contains(".parquet"), "no file in: {text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.parquet");
    Fixture { _folder: folder, path }
}

/// Two layers, two steps, one request; two blocks per row, one extra rank.
fn good() -> Trace {
    let mut rows = Vec::new();
    for step in 0..2 {
        for layer in 0..2 {
            let place = Place { step, layer, ..Place::default() };
            rows.push(OwnedRow { place, blocks: vec![1, 0], scores: None, extra: vec![2] });
        }
    }
    let header = Header { layers: vec![3, 5], ..header() };
    Trace { header, requests: vec![request("r", 10, 2)], rows }
}

fn with_scores(mut trace: Trace, score: f32) -> Trace {
    trace.header.score = Some("mass".into());
    for row in &mut trace.rows {
        row.scores = Some(vec![f16::from_f32(0.5), f16::from_f32(score)]);
    }
    trace
}

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
fn missing_truncated_and_foreign_files() {
    let at = fixture();
    assert_says(validate(&at.path), &["trace.parquet: cannot open", "No such file"]);

    fs::write(&at.path, "request,step\n0,0\n").unwrap();
    assert_says(validate(&at.path), &["not a Parquet file", "FORMAT.md"]);
    fs::write(&at.path, "").unwrap();
    assert_says(validate(&at.path), &["not a Parquet file"]);

    good().write(&at.path).unwrap();
    let whole = fs::read(&at.path).unwrap();
    for length in [4, 11, 12, whole.len() / 2, whole.len() - 1] {
        fs::write(&at.path, &whole[..length]).unwrap();
        assert_says(validate(&at.path), &["truncated after", "copy or record it again"]);
    }
    let mut damaged = whole.clone();
    let footer = whole.len() - 40;
    damaged[footer..footer + 30].fill(0xff);
    fs::write(&at.path, &damaged).unwrap();
    assert_says(validate(&at.path), &["damaged or unreadable Parquet"]);
}

/// Writes any columns under any metadata, as a foreign program might.
fn write_foreign(path: &Path, columns: Vec<(&str, ArrayRef)>, metadata: &[(&str, String)]) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    for (key, value) in metadata {
        writer.append_key_value_metadata(KeyValue::new((*key).into(), value.clone()));
    }
    writer.close().unwrap();
}

fn lists(rows: &[&[Option<u32>]]) -> ArrayRef {
    let mut builder = ListBuilder::new(UInt32Builder::new());
    for row in rows {
        builder.append_value(row.iter().copied());
    }
    Arc::new(builder.finish())
}

/// The columns of one step of one stream, without extra ranks.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let zeros32 = || -> ArrayRef { Arc::new(UInt32Array::from(vec![0])) };
    let zeros16 = || -> ArrayRef { Arc::new(UInt16Array::from(vec![0])) };
    vec![
        ("request", zeros32()),
        ("step", zeros32()),
        ("layer", zeros16()),
        ("head_group", zeros16()),
        ("query", zeros16()),
        ("blocks", lists(&[&[Some(1), Some(0)]])),
    ]
}

fn header_json() -> Value {
    serde_json::to_value(Header { extra: 0, ..header() }).unwrap()
}

fn requests_json() -> Value {
    json!([{"id": "r", "prompt_entries": 10, "output_steps": 1}])
}

/// A foreign file with a changed header or requests table.
#[track_caller]
fn foreign(header: Value, requests: Value, columns: Vec<(&str, ArrayRef)>, parts: &[&str]) {
    let at = fixture();
    let metadata = [("kvtier.header", header.to_string()), ("kvtier.requests", requests.to_string())];
    write_foreign(&at.path, columns, &metadata);
    assert_says(validate(&at.path), parts);
    assert_says(Recording::decode(&at.path, &View::default(), Bytes::ZERO), parts);
}

#[test]
fn foreign_metadata() {
    let at = fixture();
    write_foreign(&at.path, columns(), &[]);
    assert_says(validate(&at.path), &["without `kvtier.header`", "kvtier trace convert"]);
    write_foreign(&at.path, columns(), &[("kvtier.header", header_json().to_string())]);
    assert_says(validate(&at.path), &["without `kvtier.requests`"]);

    let metadata =
        [("kvtier.header", header_json().to_string()), ("kvtier.requests", requests_json().to_string())];
    write_foreign(&at.path, columns(), &metadata);
    validate(&at.path).expect("the unchanged foreign file is a trace");
}

#[track_caller]
fn bad_header(field: &str, value: Value, parts: &[&str]) {
    let mut header = header_json();
    header[field] = value;
    foreign(header, requests_json(), columns(), parts);
}

#[test]
fn header_values() {
    bad_header("format_version", json!(2), &["format_version is 2", "reads 1"]);
    bad_header("format_version", json!("1"), &["format_version is \"1\""]);
    bad_header("page_size", json!(16), &["unknown field `page_size`", "entries_per_block"]);
    bad_header("k", json!("four"), &["kvtier.header", "invalid type"]);
    bad_header("k", json!(0), &["kvtier.header: k: must be at least 1"]);
    bad_header("layers", json!([]), &["kvtier.header: layers"]);
    bad_header("layers", json!([5, 3]), &["kvtier.header: layers", "ascend"]);
    bad_header("head_groups", json!(0), &["kvtier.header: head_groups"]);
    bad_header("queries", json!(0), &["kvtier.header: queries"]);
    bad_header("entries_per_block", json!(257), &["257 is not within 1..256"]);
    bad_header("bytes_per_block", json!("0 B"), &["kvtier.header: bytes_per_block"]);
    bad_header("bytes_per_block", json!(512), &["kvtier.header", "expected a string"]);
    bad_header("score_max", json!(-1.0), &["kvtier.header: score_max"]);
    bad_header("loop", json!("ajar"), &["unknown variant `ajar`", "closed"]);
    let mut header = header_json();
    header.as_object_mut().unwrap().remove("model");
    foreign(header, requests_json(), columns(), &["missing field `model`"]);
}

#[track_caller]
fn bad_requests(requests: Value, parts: &[&str]) {
    foreign(header_json(), requests, columns(), parts);
}

#[test]
fn requests_values() {
    bad_requests(json!([]), &["kvtier.requests: list the requests"]);
    let one = |field: &str, value: Value| {
        let mut requests = requests_json();
        requests[0][field] = value;
        requests
    };
    bad_requests(one("n0", json!(10)), &["kvtier.requests", "unknown field `n0`", "prompt_entries"]);
    bad_requests(one("arrival", json!("5")), &["kvtier.requests", "unit missing"]);
    bad_requests(one("output_steps", json!(0)), &["kvtier.requests[0].output_steps"]);
    bad_requests(one("prompt_entries", json!(u32::MAX)), &["kvtier.requests[0].prompt_entries", "268435456"]);
    bad_requests(one("prefix_entries", json!(11)), &["kvtier.requests[0].prefix_entries"]);
    bad_requests(one("prefix_entries", json!(8)), &["kvtier.requests[0].prefix_group", "missing"]);
    let request = requests_json()[0].clone();
    bad_requests(json!([request, request]), &["kvtier.requests[1].id", "`r` appears twice"]);
}

#[test]
fn columns_missing_mistyped_unknown_or_null() {
    let change = |name: &str, with: Option<(&'static str, ArrayRef)>| {
        let mut columns = columns();
        let at = columns.iter().position(|(n, _)| *n == name).unwrap();
        columns.splice(at..=at, with);
        columns
    };
    let wide: ArrayRef = Arc::new(UInt64Array::from(vec![0]));
    let bad = |columns, parts: &[&str]| foreign(header_json(), requests_json(), columns, parts);
    bad(change("step", None), &["column `step`: missing", "UInt32"]);
    bad(change("step", Some(("step", wide.clone()))), &["column `step`: is UInt64, must be UInt32"]);
    bad(
        change("blocks", Some(("blocks", wide.clone()))),
        &["column `blocks`: is UInt64, must be List<UInt32>"],
    );
    bad(change("step", Some(("time", wide))), &["column `time`: unknown; the columns are request"]);
    let null: ArrayRef = Arc::new(UInt32Array::from(vec![None]));
    bad(change("step", Some(("step", null))), &["column `step`: null", "row 0"]);
    bad(change("blocks", Some(("blocks", lists(&[&[Some(1), None]])))), &["column `blocks`: null"]);

    let mut header = header_json();
    header["extra"] = json!(2);
    foreign(header, requests_json(), columns(), &["column `extra`: missing"]);
    let mut header = header_json();
    header["score"] = json!("mass");
    foreign(header, requests_json(), columns(), &["column `scores`: missing"]);
    let mut more = columns();
    more.push(("extra", lists(&[&[]])));
    bad(more, &["column `extra`: present", "extra = 0"]);
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
