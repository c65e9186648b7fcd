//! `kvtier replay`: one configuration, from flags or TOML, with its baselines.

use super::sweep::RunArgs;
use crate::output;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::record::{Point, PointKind, Status};
use kvtier_units::{Bytes, Nanos};
use std::path::PathBuf;
use std::process::ExitCode;

/// Replay one configuration and print where blocks, bytes and time went
///
/// Without a file, the shipped pages on an H100 are replayed; flags override fields. What brings misses is time.transfer:
/// gather, gather-per-request, copy-loop, copy-batch, or auto, which takes for each list of blocks what costs least.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kvtier replay --policy lru --slots 2k\n  \
    kvtier replay --policy lru-step --slots 1.5k --prefetch next-ranked --overlap hit-first\n  \
    kvtier replay --set time.launch=stream --set time.transfer=auto\n  \
    kvtier replay configs/sweeps/concurrency.toml --set batch.concurrency=24 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print the points as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// One configuration: a file, and flags for the fields that are changed most.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// Configuration file
    file: Option<PathBuf>,
    /// Trace (trace)
    #[arg(long)]
    trace: Option<String>,
    /// Model preset or TOML file (model)
    #[arg(long)]
    model: Option<String>,
    /// Machine preset or TOML file (machine)
    #[arg(long)]
    machine: Option<String>,
    /// Eviction policy (hot.policy)
    #[arg(long)]
    policy: Option<String>,
    /// Slots per hot buffer, say 64 or 2k (hot.slots)
    #[arg(long)]
    slots: Option<String>,
    /// Prefetch policy (prefetch.policy)
    #[arg(long)]
    prefetch: Option<String>,
    /// Overlap mode (time.overlap)
    #[arg(long)]
    overlap: Option<String>,
    /// Requests decoding at once (batch.concurrency)
    #[arg(long, allow_negative_numbers = true)]
    concurrency: Option<u32>,
}

/// What a command without a configuration file reads.
pub(super) const DEFAULTS: &str =
    "trace = \"traces/samples/smollm2-pages.parquet\"\nmodel = \"smollm2-135m\"\nmachine = \"h100-pcie5\"\n";

impl Flags {
    /// The configuration with the flags applied.
    pub(super) fn file(&self) -> anyhow::Result<ConfigFile> {
        let mut file = match &self.file {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::parse(DEFAULTS)?,
        };
        let text = |value: &Option<String>| {
            value.as_ref().map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        };
        let flags = [
            ("trace", text(&self.trace)),
            ("model", text(&self.model)),
            ("machine", text(&self.machine)),
            ("hot.policy", text(&self.policy)),
            ("hot.slots", text(&self.slots)),
            ("prefetch.policy", text(&self.prefetch)),
            ("time.overlap", text(&self.overlap)),
            ("batch.concurrency", self.concurrency.map(|requests| requests.to_string())),
        ];
        for (field, value) in flags {
            if let Some(value) = value {
                file.set(&format!("{field}={value}"))?;
            }
        }
        Ok(file)
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.flags.file()?;
    let (_, points) = args.run.execute(file, None)?;
    if args.json {
        output::say(serde_json::to_string_pretty(&points)?);
        return Ok(ExitCode::SUCCESS);
    }
    // A batch that the host pool turned away decided nothing: there is nothing to show of it.
    points.iter().filter(|point| !point.decision_hash.is_empty()).for_each(print);
    output::say(compare(&points));
    if let Some(Status::Infeasible(reason)) =
        points.iter().map(|p| &p.status).find(|status| **status != Status::Ok)
    {
        let all = points.iter().all(|point| point.status != Status::Ok || point.kind != PointKind::Offload);
        if all {
            anyhow::bail!("{reason}");
        }
        output::say(format!("note: {reason}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn print(point: &Point) {
    let config = &point.config;
    output::say(format!(
        "{} on {}, {}: {} with {} slots (k {}), {} requests, {} steps measured from step {}",
        config.trace,
        config.model,
        config.machine,
        config.policy,
        config.slots,
        config.k,
        config.concurrency,
        config.steps,
        config.measure_from
    ));
    [&config.mapping, &point.note]
        .iter()
        .filter(|note| !note.is_empty())
        .for_each(|note| output::say(format!("note: {note}")));
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * ratio(part, whole) };
    let kinds = counted(point);
    kinds.iter().for_each(|(name, value)| output::say(format!("  {name:<11} {value}")));
    if point.status != Status::Ok {
        return;
    }
    let time = &point.time;
    let parts = [
        ("compute", time.compute_ns),
        ("stall", time.stall_ns),
        ("launch", time.launch_ns),
        ("wait", time.wait_ns),
    ];
    let parts: Vec<String> =
        parts.iter().map(|&(name, ns)| format!("{name} {:.1}%", share(ns, time.total_ns))).collect();
    output::say(format!(
        "  {:<11} p50 {}, p90 {}, p99 {}: {}",
        "step",
        Nanos(time.step_p50_ns),
        Nanos(time.step_p90_ns),
        Nanos(time.step_p99_ns),
        parts.join(", ")
    ));
    output::say(format!("  {:<11} {}", "decisions", point.decision_hash));
}

/// What was missed, found warm, prefetched and moved.
fn counted(point: &Point) -> Vec<(&'static str, String)> {
    let steady = &point.steady;
    let mut kinds = vec![
        ("accesses", steady.accesses.to_string()),
        (
            "misses",
            format!(
                "{} ({:.2}%): {} cold, {} capacity, {} policy{}",
                steady.misses,
                steady.miss_ratio() * 100.0,
                steady.cold,
                steady.capacity,
                steady.policy,
                // Capacity is what Belady misses in the hot buffers alone.
                if steady.policy < 0 { " (fewer than Belady with these slots alone)" } else { "" }
            ),
        ),
        (
            "warm",
            format!(
                "{} hits, {} entered, {} turned away, {} copied within HBM",
                steady.warm_hits, steady.warm_insertions, steady.warm_rejected, steady.warm_copies
            ),
        ),
        (
            "prefetched",
            format!(
                "{} brought, {} demanded, {} wasted, {} misses by pollution",
                steady.prefetches, steady.prefetched, steady.wasted, steady.pollution
            ),
        ),
        ("moved", format!("{:.3} bytes per byte selected", ratio(point.amplification_milli, 1000))),
    ];
    if !point.config.tiers.is_empty() {
        let from_host = steady.misses - steady.misses_cxl - steady.misses_nvme;
        kinds.push((
            "tiers",
            format!(
                "{from_host} misses from host, {} from cxl, {} from nvme; {} demoted, {} promoted, {} spilled",
                steady.misses_cxl,
                steady.misses_nvme,
                steady.demoted_cxl + steady.demoted_nvme,
                steady.promoted,
                steady.spilled
            ),
        ));
    }
    kinds
}

#[allow(clippy::cast_precision_loss)] // for show
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn compare(points: &[Point]) -> String {
    let kind = |point: &Point| match point.kind {
        PointKind::Offload => "offload".to_owned(),
        PointKind::Resident => "all in HBM, sparse".to_owned(),
        PointKind::Dense => "all in HBM, dense".to_owned(),
    };
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| match &point.status {
            Status::Ok => vec![
                kind(point),
                point.config.concurrency.to_string(),
                format!("{:.0}", point.time.tokens_per_s()),
                Bytes(point.footprint.hbm_total).to_string(),
                Bytes(point.footprint.host).to_string(),
            ],
            Status::Infeasible(_) => {
                vec![kind(point), "-".into(), "does not fit".into(), "-".into(), "-".into()]
            }
        })
        .collect();
    output::table(&["", "requests", "tokens/s", "HBM", "host"], &rows)
}
