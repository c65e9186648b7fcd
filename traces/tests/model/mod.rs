//! Small random traces for tests, and a naive reading of them that a [`Recording`] must equal.

#![allow(dead_code)] // each test file uses its own part

use half::f16;
use kvtier_traces::{
    FORMAT_VERSION, Header, LoopKind, Newest, Place, Request, Row, Summary, TraceError, TraceWriter, View,
};
use kvtier_units::{BlockId, Bytes, Nanos, Seed};
use proptest::prelude::*;
use rand::{Rng, RngExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A row that owns its lists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedRow {
    pub(crate) place: Place,
    pub(crate) blocks: Vec<u32>,
    pub(crate) scores: Option<Vec<f16>>,
    pub(crate) extra: Vec<u32>,
}

impl OwnedRow {
    pub(crate) fn row(&self) -> Row<'_> {
        Row { place: self.place, blocks: &self.blocks, scores: self.scores.as_deref(), extra: &self.extra }
    }

    pub(crate) fn copy(row: &Row<'_>) -> OwnedRow {
        OwnedRow {
            place: row.place,
            blocks: row.blocks.to_vec(),
            scores: row.scores.map(<[f16]>::to_vec),
            extra: row.extra.to_vec(),
        }
    }
}

/// A whole trace in memory.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) header: Header,
    pub(crate) requests: Vec<Request>,
    pub(crate) rows: Vec<OwnedRow>,
}

/// The shape of a random trace.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) layers: u16,
    pub(crate) head_groups: u16,
    pub(crate) queries: u16,
    pub(crate) entries_per_block: u32,
    pub(crate) k: u32,
    pub(crate) extra: u32,
    pub(crate) scores: bool,
    /// Prompt entries and steps of each request.
    pub(crate) requests: Vec<(u32, u32)>,
    pub(crate) seed: u64,
}

pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let requests = prop::collection::vec((0u32..60, 1u32..8), 1..4);
    (1u16..3, 1u16..3, 1u16..4, 1u32..5, 1u32..8, 0u32..5, any::<bool>(), requests, any::<u64>()).prop_map(
        |(layers, head_groups, queries, entries_per_block, k, extra, scores, requests, seed)| Shape {
            layers,
            head_groups,
            queries,
            entries_per_block,
            k,
            extra,
            scores,
            requests,
            seed,
        },
    )
}

/// A header for tests to change.
pub(crate) fn header() -> Header {
    Header {
        format_version: FORMAT_VERSION,
        model: "toy".into(),
        layers: vec![3],
        head_groups: 1,
        entries_per_block: 4,
        bytes_per_block: Bytes(512),
        k: 4,
        extra: 2,
        queries: 1,
        selector: "random".into(),
        score: None,
        score_max: 1.0,
        loop_kind: LoopKind::Open,
        provenance: "test".into(),
        licence: "Apache-2.0".into(),
    }
}

pub(crate) fn request(id: &str, prompt_entries: u32, output_steps: u32) -> Request {
    Request {
        id: id.into(),
        kind: "test".into(),
        arrival: Nanos(7),
        prompt_entries,
        output_steps,
        prefix_group: None,
        prefix_entries: 0,
    }
}

impl Shape {
    pub(crate) fn trace(&self) -> Trace {
        let mut random = Seed(self.seed).stream("traces.tests");
        let header = Header {
            layers: (0..self.layers).map(|l| 2 * l + 1).collect(),
            head_groups: self.head_groups,
            entries_per_block: self.entries_per_block,
            k: self.k,
            extra: self.extra,
            queries: self.queries,
            score: self.scores.then(|| "uniform".into()),
            ..header()
        };
        let mut rows = Vec::new();
        for (request, (prompt, steps)) in (0..).zip(&self.requests) {
            for step in 0..*steps {
                let blocks = (prompt + step) / self.entries_per_block + 1;
                for layer in 0..self.layers {
                    for head_group in 0..self.head_groups {
                        for query in 0..random.random_range(1..=self.queries) {
                            let place = Place { request, step, layer, head_group, query };
                            rows.push(self.row(place, blocks, &mut random));
                        }
                    }
                }
            }
        }
        let requests = (0..)
            .zip(&self.requests)
            .map(|(i, (n0, steps))| request(&format!("r{i}"), *n0, *steps))
            .collect();
        Trace { header, requests, rows }
    }

    fn row(&self, place: Place, context: u32, random: &mut impl Rng) -> OwnedRow {
        let mut ids: Vec<u32> = (0..context).collect();
        for i in (1..ids.len()).rev() {
            ids.swap(i, random.random_range(0..=i));
        }
        let extra = ids.split_off(ids.len().min(random.random_range(0..=self.k as usize)));
        let extra = extra.into_iter().take(random.random_range(0..=self.extra as usize)).collect();
        let scores = ids.iter().map(|_| f16::from_f32(random.random_range(0.0..1.2))).collect();
        OwnedRow { place, blocks: ids, scores: self.scores.then_some(scores), extra }
    }
}

impl Trace {
    /// Writes the trace; the writer checks it against every rule.
    pub(crate) fn write(&self, path: &Path) -> Result<Summary, TraceError> {
        let mut writer = TraceWriter::create(path, self.header.clone())?;
        for row in &self.rows {
            writer.push(&row.row())?;
        }
        writer.finish(&self.requests)
    }

    fn rows_of(&self, request: u32, step: u32, stream: usize) -> Vec<&OwnedRow> {
        let groups = usize::from(self.header.head_groups);
        let stream_of = |p: &Place| usize::from(p.layer) * groups + usize::from(p.head_group);
        self.rows
            .iter()
            .filter(|r| r.place.request == request && r.place.step == step && stream_of(&r.place) == stream)
            .collect()
    }

    /// The naive reading of one stream in one step: lists sorted and searched, nothing shared with the crate.
    pub(crate) fn viewed(&self, view: &View, request: u32, step: u32, stream: usize) -> Viewed {
        let rows = self.rows_of(request, step, stream);
        let k = view.k.unwrap_or(self.header.k) as usize;
        let entries = &self.requests[request as usize];
        let newest = (entries.prompt_entries + step) / (self.header.entries_per_block * view.fold);

        let mut ranked = Vec::new();
        let mut below = Vec::new();
        for (query, row) in rows.iter().enumerate() {
            let cut = k.min(row.blocks.len());
            for (rank, id) in row.blocks[..cut].iter().enumerate() {
                let score = row.scores.as_ref().map_or(0, |s| quantise(s[rank], self.header.score_max));
                ranked.push((rank, query, *id, score));
            }
            for (rank, id) in row.blocks[cut..].iter().chain(&row.extra).enumerate() {
                below.push((rank, query, *id));
            }
        }
        ranked.sort_unstable();
        below.sort_unstable();

        let mut entry_scores = BTreeMap::new();
        for (_, _, id, score) in &ranked {
            let best = entry_scores.entry(*id).or_insert(0u16);
            *best = (*best).max(*score);
        }
        let mut block_scores = BTreeMap::new();
        for (id, score) in &entry_scores {
            let sum = block_scores.entry(id / view.fold).or_insert(0u16);
            *sum = sum.saturating_add(*score);
        }
        let mut all: Vec<u32> = Vec::new();
        for (_, _, id, _) in &ranked {
            if !all.contains(&(id / view.fold)) {
                all.push(id / view.fold);
            }
        }
        let reserved = view.newest == Newest::Reserved;
        let kept = |block: &u32| !(reserved && *block == newest);
        let blocks: Vec<u32> = all.iter().copied().filter(kept).collect();
        let mut near: Vec<u32> = Vec::new();
        for (_, _, id) in &below {
            let block = id / view.fold;
            if kept(&block) && !all.contains(&block) && !near.contains(&block) {
                near.push(block);
            }
        }
        near.truncate(view.near as usize);
        Viewed {
            scores: view.scores.then(|| blocks.iter().map(|block| block_scores[block]).collect()),
            blocks: blocks.into_iter().map(BlockId).collect(),
            near: near.into_iter().map(BlockId).collect(),
            newest_selected: reserved && all.contains(&newest),
            raw_entries: u32::try_from(entry_scores.len()).unwrap(),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped first
fn quantise(score: f16, score_max: f64) -> u16 {
    (score.to_f64() / score_max * 65_535.0).round().min(65_535.0) as u16
}

/// The error says each of these.
#[track_caller]
pub(crate) fn assert_says<T>(result: Result<T, TraceError>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, though it should say {parts:?}") };
    let text = error.to_string();
    assert!(text.contains(".parquet"), "no file in: {text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// A path in a folder of its own, removed in the end.
pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.parquet");
    Fixture { _folder: folder, path }
}

/// Two layers, two steps, one request; two blocks per row, one extra rank.
pub(crate) fn good() -> Trace {
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

/// The same with two scores in every row.
pub(crate) fn with_scores(mut trace: Trace, score: f32) -> Trace {
    trace.header.score = Some("mass".into());
    for row in &mut trace.rows {
        row.scores = Some(vec![f16::from_f32(0.5), f16::from_f32(score)]);
    }
    trace
}

/// What a stream's row should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Viewed {
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) near: Vec<BlockId>,
    pub(crate) scores: Option<Vec<u16>>,
    pub(crate) newest_selected: bool,
    pub(crate) raw_entries: u32,
}

/// Views that suit a trace.
pub(crate) fn views(shape: &Shape) -> impl Strategy<Value = View> + use<> {
    let scores = shape.scores;
    let k = prop::option::of(1..=shape.k);
    let newest = prop_oneof![Just(Newest::Reserved), Just(Newest::Ordinary)];
    (k, 0u32..6, 1u32..4, newest, any::<bool>()).prop_map(move |(k, near, fold, newest, wanted)| View {
        k,
        near,
        fold,
        newest,
        scores: wanted && scores,
    })
}
