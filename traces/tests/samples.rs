//! The shipped samples are valid and hold what was recorded; raw recordings convert to them, where they are at hand.

#![allow(clippy::print_stdout)] // a skipped test says so

use kvtier_traces::import::{RecordingOptions, convert_recordings};
use kvtier_traces::{Recording, StepBuf, Summary, View, validate};
use kvtier_units::Bytes;
use std::path::{Path, PathBuf};

/// Per request: overlap with the step before at k = 32, private streams, steps from 16 on, as the recorder states it.
const OVERLAP: [(&str, f64); 6] = [
    ("s-d01", 0.726),
    ("s-d02", 0.727),
    ("s-d03", 0.725),
    ("s-d04", 0.739),
    ("s-d05", 0.747),
    ("s-d06", 0.767),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// The raw recordings; absent in most checkouts.
fn raw_folder() -> Option<PathBuf> {
    let shared = match std::env::var_os("KVTIER_SHARED_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let traces = shared.join("traces");
    let found = traces.is_dir().then_some(traces);
    if found.is_none() {
        println!("skipped: no raw recordings (KVTIER_SHARED_DATA names their folder)");
    }
    found
}

fn assert_overlap(summary: &Summary) {
    assert_eq!(summary.requests.len(), OVERLAP.len());
    for (request, (id, overlap)) in summary.requests.iter().zip(OVERLAP) {
        assert_eq!(request.request.id, id);
        assert!((request.overlap() - overlap).abs() < 0.002, "{id}: {:.4} for {overlap}", request.overlap());
    }
}

#[test]
fn samples_are_valid_and_fit_their_allowance() {
    let pages = validate(sample("smollm2-pages.parquet")).unwrap();
    assert_overlap(&pages);
    assert_eq!((pages.rows, pages.blocks, pages.extra), (138_240, 4_423_680, 4_423_680));
    assert_eq!((pages.header.entries_per_block, pages.header.bytes_per_block), (16, Bytes(4_096)));

    let tokens = validate(sample("smollm2-tokens.parquet")).unwrap();
    assert_eq!((tokens.header.entries_per_block, tokens.header.bytes_per_block), (1, Bytes(256)));
    assert_eq!((tokens.header.layers.as_slice(), tokens.blocks), (&[0, 10, 20, 29][..], 4 * 3 * 128 * 256));

    let gemma = validate(sample("gemma3-pages.parquet")).unwrap();
    assert_eq!((gemma.header.entries_per_block, gemma.header.bytes_per_block), (16, Bytes(16_384)));
    assert_eq!((gemma.header.layers.as_slice(), gemma.blocks), (&[5, 11, 17][..], 3 * 256 * 128));

    let bytes: u64 = [&pages, &tokens, &gemma].iter().map(|s| s.file_bytes.0).sum();
    assert!(bytes <= 12_000_000, "{bytes} bytes of samples");
}

#[test]
fn token_selections_fold_into_pages() {
    let view = View { fold: 16, scores: true, ..View::default() };
    let folded = Recording::decode(sample("smollm2-tokens.parquet"), &view, Bytes(u64::MAX)).unwrap();
    let (mut buf, mut entries, mut blocks) = (StepBuf::default(), 0u64, 0usize);
    for step in 0..folded.steps(0) {
        for row in folded.step(0, step, &mut buf).unwrap().iter() {
            assert!(row.blocks.iter().all(|block| block.0 < folded.blocks_at(0, step) - 1));
            entries += u64::from(row.raw_entries);
            blocks += row.blocks.len() + usize::from(row.newest_selected);
        }
    }
    assert_eq!(entries, 4 * 3 * 128 * 256);
    // 256 tokens lie in far fewer than 256 pages, and in more than the 16 that would hold them.
    assert!((16 * 1_536..100 * 1_536).contains(&blocks), "{blocks} pages");
}

#[test]
fn raw_recordings_convert_to_the_sample() {
    let Some(raw) = raw_folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("pages.parquet");
    let files = |kind: &str| [0, 1].map(|i| raw.join(format!("smollm2_page_{kind}_{i}.parquet")));
    let options = RecordingOptions { scores: false, ..RecordingOptions::default() };
    let converted = convert_recordings(&files("topk"), &files("next"), &output, &options).unwrap();
    assert_overlap(&converted);
    let shipped = validate(sample("smollm2-pages.parquet")).unwrap();
    assert_eq!(converted.requests, shipped.requests);
    let view = View { near: 32, ..View::default() };
    let [one, other] = [&output, &sample("smollm2-pages.parquet")]
        .map(|path| Recording::decode(path, &view, Bytes(u64::MAX)).unwrap());
    let (mut buf, mut other_buf) = (StepBuf::default(), StepBuf::default());
    for request in 0..one.requests().len() {
        for step in 0..one.steps(request) {
            let rows = one.step(request, step, &mut buf).unwrap();
            let shipped = other.step(request, step, &mut other_buf).unwrap();
            assert!(rows.iter().eq(shipped.iter()), "request {request}, step {step}");
        }
    }
}

#[test]
fn a_part_of_a_recording_converts() {
    let Some(raw) = raw_folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("part.parquet");
    let options = RecordingOptions {
        requests: vec!["s-d06".into()],
        steps: Some(10..14),
        layers: vec![2, 7],
        k: Some(24),
        extra: Some(16),
        ..RecordingOptions::default()
    };
    let files = |kind: &str| [raw.join(format!("smollm2_page_{kind}_1.parquet"))];
    let summary = convert_recordings(&files("topk"), &files("next"), &output, &options).unwrap();
    let request = &summary.requests[0].request;
    assert_eq!((request.id.as_str(), request.prompt_entries, request.output_steps), ("s-d06", 5_564, 4));
    assert_eq!((summary.rows, summary.blocks, summary.extra), (24, 24 * 24, 24 * 16));
    assert_eq!(summary.header.layers, [2, 7]);
    assert!(summary.header.score.is_some());

    let says = |options: RecordingOptions, next: &[PathBuf], part: &str| {
        let error = convert_recordings(&files("topk"), next, &output, &options).unwrap_err().to_string();
        assert!(error.contains(part), "no {part:?} in: {error}");
    };
    let base = options.clone();
    says(RecordingOptions { requests: vec!["s-d99".into()], ..base.clone() }, &[], "no request `s-d99`");
    says(RecordingOptions { layers: vec![30], ..base.clone() }, &[], "no layer 30");
    says(RecordingOptions { k: Some(33), ..base.clone() }, &[], "1..32");
    says(
        RecordingOptions { requests: vec!["s-d01".into()], ..base.clone() },
        &[],
        "within the chosen requests",
    );
    says(base.clone(), &[raw.join("smollm2_page_next_0.parquet")], "do not pair");
    says(base, &files("topk"), "ranks start at 0");
    let trace = sample("smollm2-pages.parquet");
    let error = convert_recordings(&[trace], &[], &output, &options).unwrap_err().to_string();
    assert!(error.contains("is this a raw recording,"), "{error}");
    let error = convert_recordings(&files("next"), &[], &output, &options).unwrap_err().to_string();
    assert!(error.contains("ranks start at 32 and not at 0"), "{error}");
}
