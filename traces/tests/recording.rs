//! A recording, in memory or spilled, equals a naive reading of the rows; a future equals a search of what follows.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod model;

use kvtier_traces::{
    Chunk, Columns, FirstUses, Future, FutureBuf, NEVER, Recording, StepBuf, TraceReader, View, validate,
};
use kvtier_units::Bytes;
use model::{OwnedRow, Shape, Trace, Viewed, shapes, views};
use proptest::prelude::*;
use std::path::Path;

const UNBOUNDED: Bytes = Bytes(u64::MAX);

fn read_rows(mut reader: TraceReader) -> Vec<OwnedRow> {
    let mut rows = Vec::new();
    let mut chunk = Chunk::default();
    while reader.next_chunk(&mut chunk).unwrap() {
        assert!(!chunk.is_empty());
        rows.extend(chunk.rows().map(|row| OwnedRow::copy(&row)));
    }
    rows
}

fn written(shape: &Shape, folder: &Path) -> (Trace, std::path::PathBuf) {
    let trace = shape.trace();
    let path = folder.join("trace.parquet");
    trace.write(&path).unwrap();
    (trace, path)
}

/// Every stream of every step, as the recording shows it.
fn decoded(recording: &Recording) -> Vec<Viewed> {
    let mut all = Vec::new();
    let mut buf = StepBuf::default();
    for request in 0..recording.requests().len() {
        for step in 0..recording.steps(request) {
            let rows = recording.step(request, step, &mut buf).unwrap();
            assert_eq!(rows.streams(), recording.streams_per_request());
            all.extend(rows.iter().map(|row| Viewed {
                blocks: row.blocks.to_vec(),
                near: row.near.to_vec(),
                scores: row.scores.map(<[u16]>::to_vec),
                newest_selected: row.newest_selected,
                raw_entries: row.raw_entries,
            }));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_read_back(shape in shapes()) {
        let folder = tempfile::tempdir().unwrap();
        let (trace, path) = written(&shape, folder.path());
        let reader = TraceReader::open(&path).unwrap();
        prop_assert_eq!(reader.header(), &trace.header);
        prop_assert_eq!(reader.requests(), &trace.requests[..]);
        prop_assert_eq!(read_rows(reader), trace.rows.clone());

        let summary = validate(&path).unwrap();
        prop_assert_eq!(summary.rows, trace.rows.len() as u64);
        prop_assert_eq!(summary.blocks, trace.rows.iter().map(|r| r.blocks.len() as u64).sum::<u64>());

        for request in 0..trace.requests.len() {
            let request = u32::try_from(request).unwrap();
            let bare = TraceReader::open(&path).unwrap().columns(Columns { scores: false, extra: false });
            let rows = read_rows(bare.only_request(request));
            let expected: Vec<OwnedRow> = trace.rows.iter()
                .filter(|r| r.place.request == request)
                .map(|r| OwnedRow { scores: None, extra: Vec::new(), ..r.clone() })
                .collect();
            prop_assert_eq!(rows, expected);
        }
    }

    #[test]
    fn a_recording_equals_the_naive_view(
        (shape, view) in shapes().prop_flat_map(|shape| (Just(shape.clone()), views(&shape))),
        budget in 0u64..4_000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (trace, path) = written(&shape, folder.path());
        let recording = Recording::decode(&path, &view, UNBOUNDED).unwrap();
        let mut expected = Vec::new();
        for (request, r) in (0..).zip(&trace.requests) {
            for step in 0..r.output_steps {
                for stream in 0..recording.streams_per_request() {
                    expected.push(trace.viewed(&view, request, step, stream));
                }
            }
        }
        prop_assert_eq!(recording.spilled(), Bytes::ZERO);
        prop_assert_eq!(decoded(&recording), expected);
        prop_assert_eq!(
            recording.max_selected(),
            decoded(&recording).iter().map(|row| row.blocks.len()).max().unwrap()
        );

        let spilled = Recording::decode(&path, &view, Bytes(budget)).unwrap();
        prop_assert_eq!(decoded(&spilled), decoded(&recording));
        let bare = Recording::decode(&path, &view, Bytes::ZERO).unwrap();
        prop_assert!(bare.spilled() > Bytes::ZERO);
        prop_assert_eq!(decoded(&bare), decoded(&recording));
    }

    #[test]
    fn a_future_equals_a_search_of_what_follows(
        (shape, view) in shapes().prop_flat_map(|shape| (Just(shape.clone()), views(&shape))),
        start in 0u32..8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (_, path) = written(&shape, folder.path());
        let recording = Recording::decode(&path, &view, UNBOUNDED).unwrap();
        let future = Future::build(&recording, UNBOUNDED).unwrap();
        let spilled = Future::build(&recording, Bytes::ZERO).unwrap();
        prop_assert!(spilled.spilled() > Bytes::ZERO);
        let (mut buf, mut other) = (FutureBuf::default(), FutureBuf::default());
        let mut now = StepBuf::default();
        for request in 0..recording.requests().len() {
            for step in 0..recording.steps(request) {
                let rows = recording.step(request, step, &mut now).unwrap();
                let ahead = future.step(request, step, &mut buf).unwrap();
                let ahead_spilled = spilled.step(request, step, &mut other).unwrap();
                for stream in 0..rows.streams() {
                    let next = |b: &kvtier_units::BlockId| next_use(&recording, request, stream, b.0, step + 1);
                    let (row, found) = (rows.stream(stream), ahead.stream(stream));
                    prop_assert_eq!(found.blocks, row.blocks.iter().map(next).collect::<Vec<u32>>());
                    prop_assert_eq!(found.near, row.near.iter().map(next).collect::<Vec<u32>>());
                    prop_assert_eq!(found.newest, next(&recording.newest_at(request, step)));
                    prop_assert_eq!(ahead_spilled.stream(stream), found);
                }
            }
            check_first_uses(&recording, request, 0, future.first_uses(request))?;
            let uses = FirstUses::from_step(&recording, request, start).unwrap();
            check_first_uses(&recording, request, start, &uses)?;
        }
    }
}

fn check_first_uses(
    recording: &Recording,
    request: usize,
    start: u32,
    uses: &FirstUses,
) -> Result<(), TestCaseError> {
    for stream in 0..recording.streams_per_request() {
        for (block, found) in (0..).zip(uses.of(stream)) {
            prop_assert_eq!(*found, next_use(recording, request, stream, block, start));
        }
    }
    Ok(())
}

/// The first step at or after `from` that selects the block.
fn next_use(recording: &Recording, request: usize, stream: usize, block: u32, from: u32) -> u32 {
    let mut buf = StepBuf::default();
    for step in from..recording.steps(request) {
        let rows = recording.step(request, step, &mut buf).unwrap();
        if rows.stream(stream).blocks.iter().any(|b| b.0 == block) {
            return step;
        }
    }
    NEVER
}

#[test]
fn recordings_and_futures_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Recording>();
    shared::<Future>();
}

#[test]
fn a_hand_worked_view_folds_unites_and_reserves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.parquet");
    let score = |values: &[f32]| Some(values.iter().map(|s| half::f16::from_f32(*s)).collect());
    let place = kvtier_traces::Place::default();
    let trace = Trace {
        header: kvtier_traces::Header {
            entries_per_block: 1,
            queries: 2,
            k: 3,
            extra: 4,
            score: Some("mass".into()),
            ..model::header()
        },
        requests: vec![model::request("r", 9, 1)],
        rows: vec![
            OwnedRow {
                place,
                blocks: vec![9, 4, 2],
                scores: score(&[0.5, 0.25, 0.125]),
                extra: vec![3, 0, 6, 8],
            },
            OwnedRow {
                place: kvtier_traces::Place { query: 1, ..place },
                blocks: vec![5, 4, 7],
                scores: score(&[0.75, 0.5, 0.125]),
                extra: vec![1],
            },
        ],
    };
    trace.write(&path).unwrap();

    // Ranks 0: 9, 5; 1: 4, 4; 2: 2, 7. Below: 3, 1, 0, 6, 8. The newest entry is 9.
    let view = View { near: 9, scores: true, ..View::default() };
    let rows = decoded(&Recording::decode(&path, &view, UNBOUNDED).unwrap());
    assert_eq!(rows[0].blocks.iter().map(|b| b.0).collect::<Vec<_>>(), [5, 4, 2, 7]);
    assert_eq!(rows[0].scores.as_deref(), Some(&[49_151, 32_768, 8_192, 8_192][..]));
    assert_eq!(rows[0].near.iter().map(|b| b.0).collect::<Vec<_>>(), [3, 1, 0, 6, 8]);
    assert!(rows[0].newest_selected);
    assert_eq!(rows[0].raw_entries, 5);

    // Two ranks of each, in blocks of two: 9, 5, 4 make blocks 4 (newest) and 2 (5 and 4 together).
    let view = View { k: Some(2), near: 3, fold: 2, scores: true, ..View::default() };
    let recording = Recording::decode(&path, &view, UNBOUNDED).unwrap();
    let rows = decoded(&recording);
    assert_eq!(rows[0].blocks.iter().map(|b| b.0).collect::<Vec<_>>(), [2]);
    assert_eq!(rows[0].scores.as_deref(), Some(&[65_535][..]));
    // Below: 2, 7, then 3, 1, then 0, 6: blocks 1, 3, and 0.
    assert_eq!(rows[0].near.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 3, 0]);
    assert_eq!((rows[0].newest_selected, rows[0].raw_entries), (true, 3));
    assert_eq!((recording.entries_per_block(), recording.bytes_per_block()), (2, Bytes(1_024)));
    assert_eq!((recording.blocks_at(0, 0), recording.max_selected()), (5, 1));
}
