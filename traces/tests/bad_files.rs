//! Every damaged or foreign file, and every wrong header, table or column, gives one error that names the file, the field or row, and the remedy.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod model;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch, UInt16Array, UInt32Array, UInt64Array};
use kvtier_traces::{Header, Place, Recording, View, validate};
use kvtier_units::Bytes;
use model::{OwnedRow, assert_says, fixture, good, header, with_scores};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

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
    bad_header(
        "bytes_per_block",
        json!(512),
        &["kvtier.header", "expected a text with a number and its unit"],
    );
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
fn damage_anywhere_is_an_error_or_harmless_but_never_a_panic() {
    let at = fixture();
    let mut trace = with_scores(good(), 0.25);
    trace.requests[0].output_steps = 60;
    let first = trace.rows.clone();
    trace.rows.clear();
    for step in 0..60 {
        for row in &first[..2] {
            trace.rows.push(OwnedRow { place: Place { step, ..row.place }, ..row.clone() });
        }
    }
    trace.write(&at.path).unwrap();
    let whole = fs::read(&at.path).unwrap();
    let mut refused = 0;
    for offset in (0..whole.len()).step_by(2) {
        let mut damaged = whole.clone();
        damaged[offset] ^= [0x01, 0x80, 0xff][offset / 2 % 3];
        fs::write(&at.path, damaged).unwrap();
        refused += usize::from(validate(&at.path).is_err());
    }
    assert!(refused > whole.len() / 4, "{refused} of {} damaged files were refused", whole.len() / 2);
}
