//! Sharing slots among layers, head groups and requests on the recorded pages: what the best static split found offline
//! buys, and how much of that is had online. With `--nocapture` the tests print the tables of sim/policies/ALLOCATION.md.

// A failing test may panic; tables are printed; shares are of small counts.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use kvtier_policies::allocation::split;
use kvtier_policies::eviction::{self, BufferShape, EVICTION};
use kvtier_policies::{Below, HotBuffer, Selection, StreamPlan};
use kvtier_sim::config::RunConfig;
use kvtier_sim::engine::{Decisions, Replay};
use kvtier_sim::mrc::{CurvePolicy, Survey, split_by_layer, split_by_stream};
use kvtier_sim::setup::{Blueprint, TraceIdentity};
use kvtier_traces::{Recording, StepBuf, View};
use kvtier_units::{BlockId, Bytes, Seed};
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

/// First step that counts.
const FROM: u32 = 16;
/// Layers and head groups of the recorded model.
const HEADS: usize = 3;
const LAYERS: usize = 30;

struct Laboratory {
    trace: TraceIdentity,
    recording: Recording,
}

/// Six requests, k = 32.
static LABORATORY: LazyLock<Laboratory> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/samples/smollm2-pages.parquet");
    let trace = TraceIdentity::read(&path, None).unwrap();
    let view = View { k: Some(32), near: u32::MAX, ..View::default() };
    let recording = Recording::decode(&path, &view, Bytes(1 << 30)).unwrap();
    Laboratory { trace, recording }
});

impl Laboratory {
    fn blueprint(
        &self,
        requests: &[usize],
        policy: &str,
        slots: u32,
        allocation: &str,
        params: &str,
    ) -> Blueprint {
        let ids: Vec<&str> = requests.iter().map(|&at| self.trace.requests[at].id.as_str()).collect();
        let text = format!(
            "trace = '{}'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\nbatch.requests = {ids:?}\n\
             measure.from_step = {FROM}\n\
             [hot]\npolicy = '{policy}'\nslots = {slots}\nallocation = '{allocation}'\n[hot.allocation_params]\n{params}\n",
            self.trace.path.display(),
        );
        let config: RunConfig = toml::from_str(&text).unwrap();
        Blueprint::new(&config, &self.trace).unwrap()
    }

    fn decide(
        &self,
        requests: &[usize],
        policy: &str,
        slots: u32,
        allocation: &str,
        params: &str,
    ) -> Decisions {
        let run = self.blueprint(requests, policy, slots, allocation, params).lower(&self.recording).unwrap();
        let replay = Replay { run: &run, recording: &self.recording, future: None, stop: &|| false };
        replay.execute(&mut ()).unwrap()
    }

    fn misses(&self, requests: &[usize], policy: &str, slots: u32, allocation: &str, params: &str) -> u64 {
        self.decide(requests, policy, slots, allocation, params).steady.misses
    }

    /// The best static splits of one request's budget, found on the very steps that count: by layer, and by layer and head
    /// group. From exact curves, or else from replays at every size.
    fn oracles(&self, request: usize, policy: &str, slots: u32) -> [Vec<u32>; 2] {
        if policy == "lru-step" {
            let run =
                self.blueprint(&[request], policy, slots, "uniform", "").lower(&self.recording).unwrap();
            let (policy, recording) = (CurvePolicy::LruStep, &self.recording);
            let survey = Survey { run: &run, recording, future: None, policy, threads: 2, stop: &|| false };
            let curves = survey.by_stream().unwrap();
            return [split_by_layer(&curves, HEADS, slots), split_by_stream(&curves, slots)];
        }
        let sizes: Vec<u32> = (32..=160).collect();
        let saved = |stream: usize| -> Vec<(u32, u64)> {
            let misses: Vec<u64> =
                sizes.iter().map(|&slots| self.stream_misses(request, stream, policy, slots)).collect();
            sizes
                .iter()
                .zip(&misses)
                .map(|(&slots, &count)| (slots, misses[0].saturating_sub(count)))
                .collect()
        };
        let streams: Vec<Vec<(u32, u64)>> = (0..LAYERS * HEADS).into_par_iter().map(saved).collect();
        let sum = |heads: &[Vec<(u32, u64)>]| -> Vec<(u32, u64)> {
            (0..sizes.len()).map(|at| (sizes[at], heads.iter().map(|head| head[at].1).sum())).collect()
        };
        let layers: Vec<Vec<(u32, u64)>> = streams.chunks(HEADS).map(sum).collect();
        let budget = |curves: usize| u64::from(slots) * curves as u64;
        [split(&layers, budget(LAYERS)), split(&streams, budget(LAYERS * HEADS))]
    }

    /// Misses of one stream alone at steps that count.
    fn stream_misses(&self, request: usize, stream: usize, policy: &str, slots: u32) -> u64 {
        let recording = &self.recording;
        let steps = recording.steps(request);
        let blocks = recording.blocks_at(request, steps - 1);
        let shape = BufferShape { slots, blocks, k: 32, seed: Seed(1) };
        let entry = eviction::find(EVICTION, policy).unwrap();
        let mut buffer: Box<dyn HotBuffer> = entry.build(&toml::Table::new(), shape).unwrap();
        let (mut plan, mut rows, mut misses) = (StreamPlan::default(), StepBuf::default(), 0);
        for step in 0..steps {
            let context = recording.requests()[request].prompt_entries + step + 1;
            let fills = context.is_multiple_of(recording.entries_per_block());
            let grown: Option<BlockId> = fills.then(|| recording.newest_at(request, step));
            let row = recording.step(request, step, &mut rows).unwrap().stream(stream);
            let (blocks, near, newest) = (row.blocks, row.near, row.newest_selected);
            let selection = Selection { blocks, scores: &[], near, newest, grown, foresight: None };
            buffer.step(step, &selection, None, Below::HOST, &mut plan);
            misses += if step >= FROM { plan.counts.misses } else { 0 };
        }
        misses
    }
}

fn as_params(slots: &[u32]) -> String {
    format!("slots = {slots:?}")
}

/// Percent fewer misses than uniform, and the share of what the oracle saves.
fn cell(uniform: u64, oracle: u64, misses: u64) -> String {
    let saved = uniform as f64 - misses as f64;
    let share = 100.0 * saved / (uniform as f64 - oracle as f64);
    format!("{misses} (-{:.1}%, {share:.0}% of it)", 100.0 * saved / uniform as f64)
}

/// Misses of each request alone: uniform, oracles by layer and by stream, online.
fn table(policy: &str, slots: u32) -> Vec<[u64; 4]> {
    let lab = &*LABORATORY;
    println!("\n{policy}, {slots} slots on average");
    println!("| request | uniform | oracle, layers | oracle, layers and heads | utility, online |");
    println!("|---|---|---|---|---|");
    let rows: Vec<[u64; 4]> = (0..lab.trace.requests.len())
        .into_par_iter()
        .map(|request| {
            let run =
                |allocation: &str, params: &str| lab.misses(&[request], policy, slots, allocation, params);
            let [layers, streams] =
                lab.oracles(request, policy, slots).map(|split| run("static", &as_params(&split)));
            [run("uniform", ""), layers, streams, run("utility", "")]
        })
        .collect();
    for ([uniform, layers, streams, online], request) in rows.iter().zip(&lab.trace.requests) {
        println!(
            "| {} | {uniform} | {} | {streams} (-{:.1}%) | {} |",
            request.id,
            cell(*uniform, *streams, *layers),
            100.0 * (uniform - streams) as f64 / *uniform as f64,
            cell(*uniform, *streams, *online)
        );
    }
    rows
}

/// Mean share of the oracle's saving that is had online, in thousandths.
fn share(rows: &[[u64; 4]]) -> u64 {
    let shares =
        rows.iter().map(|[uniform, _, oracle, online]| 1000 * (uniform - online) / (uniform - oracle));
    shares.sum::<u64>() / rows.len() as u64
}

#[test]
fn online_allocation_has_most_of_what_the_oracle_saves() {
    for (policy, slots, least) in
        [("lru-step", 48, 780), ("lru-step", 64, 890), ("echo", 48, 820), ("echo", 64, 900)]
    {
        let rows = table(policy, slots);
        let share = share(&rows);
        println!("mean share of the oracle's saving: {}.{}%", share / 10, share % 10);
        assert!(share >= least, "{policy} at {slots}: {share} thousandths of the oracle's saving");
    }
}

#[test]
fn requests_that_share_a_budget_save_more() {
    let lab = &*LABORATORY;
    let all: Vec<usize> = (0..lab.trace.requests.len()).collect();
    println!("\nsix requests at once\n| policy, slots | uniform | utility | adaptive |\n|---|---|---|---|");
    let cases = [("lru-step", 48), ("lru-step", 64), ("echo", 48), ("echo", 64)];
    let rows: Vec<[u64; 3]> = cases
        .par_iter()
        .map(|(policy, slots)| {
            ["uniform", "utility", "adaptive"]
                .map(|allocation| lab.misses(&all, policy, *slots, allocation, ""))
        })
        .collect();
    for ((policy, slots), [uniform, utility, adaptive]) in cases.iter().zip(&rows) {
        let fewer = |misses: u64| 100.0 * (uniform - misses) as f64 / *uniform as f64;
        let mut line = String::new();
        write!(line, "| {policy}, {slots} | {uniform} | {utility} (-{:.1}%) ", fewer(*utility)).unwrap();
        println!("{line}| {adaptive} (-{:.1}%) |", fewer(*adaptive));
        assert!(adaptive < utility && utility < uniform, "{policy} at {slots}");
    }
}

#[test]
fn no_allocator_holds_more_than_its_budget() {
    for allocation in ["utility", "adaptive"] {
        let decisions = LABORATORY.decide(&[0, 3], "lru", 48, allocation, "");
        let sums = decisions
            .layers
            .iter()
            .fold((0, 0), |sum, layer| (sum.0 + layer.slot_steps, sum.1 + layer.buffer_steps));
        assert_eq!(sums.0, 48 * sums.1, "{allocation}: all of the budget and no more");
        assert!(
            decisions.layers.iter().any(|layer| layer.slot_steps != 48 * layer.buffer_steps),
            "{allocation}"
        );
    }
}
