//! `kvtier mrc`: miss rate against buffer size, every size from one pass; and the static split that follows from it.

use super::sweep::RunArgs;
use crate::interrupt::Interrupt;
use crate::output;
use anyhow::bail;
use kvtier_sim::config::SlotCount;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::mrc::{self, CurvePolicy, Estimate, SampledCurves, Survey};
use kvtier_sim::setup::{Blueprint, Run, TraceIdentity};
use kvtier_traces::{Future, Recording};
use kvtier_units::Seed;
use std::path::PathBuf;
use std::process::ExitCode;

/// Miss-ratio curves: the miss rate at every buffer size
///
/// Equal to replaying each size, from one pass. Without a file, the shipped pages are read; flags override fields.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kvtier mrc\n  \
    kvtier mrc --policy lru,belady --slots 1k,1.5k,2k,100 --by-layer\n  \
    kvtier mrc --sample 0.1 --out curves.csv\n  \
    kvtier mrc --policy lru-step --split 2k")]
pub(crate) struct Args {
    /// Configuration file
    file: Option<PathBuf>,
    /// Trace (trace)
    #[arg(long)]
    trace: Option<String>,
    /// Model preset or TOML file (model)
    #[arg(long)]
    model: Option<String>,
    /// Policies, separated by commas: lru, lru-step, belady
    #[arg(long, value_delimiter = ',', default_value = "lru,lru-step,belady")]
    policy: Vec<String>,
    /// Sizes to print, separated by commas, say 64 or 2k; files hold every size
    #[arg(long, value_delimiter = ',', default_value = "1k,1.25k,1.5k,2k,3k,4k,6k,8k")]
    slots: Vec<String>,
    /// Print the curves of each layer too
    #[arg(long)]
    by_layer: bool,
    /// Print the best static split of this many slots per stream, for a configuration to use; by layer alone with --by-layer
    #[arg(long, value_name = "SLOTS", conflicts_with_all = ["sample", "json", "out"])]
    split: Option<String>,
    /// Estimate from this fraction of the streams, say 0.1, with 95% intervals
    #[arg(long, value_name = "FRACTION")]
    sample: Option<f64>,
    /// Print every size as JSON
    #[arg(long)]
    json: bool,
    /// Write every size to a CSV file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let policies: Vec<CurvePolicy> =
        args.policy.iter().map(|name| Ok(name.parse()?)).collect::<anyhow::Result<_>>()?;
    let slots: Vec<SlotCount> = args
        .slots
        .iter()
        .map(|text| text.parse().map_err(|wrong: String| anyhow::anyhow!("--slots: {wrong}")))
        .collect::<anyhow::Result<_>>()?;
    let blueprint = blueprint(&args)?;
    let recording = Recording::decode(&blueprint.config.trace, &blueprint.view, args.run.memory)?;
    let run = blueprint.lower(&recording)?;
    let sizes = sizes(&args, &slots, &run)?;
    args.out.as_deref().map_or(Ok(()), output::make_folder_of)?;
    let future = match policies.iter().any(|policy| policy.needs_future()) {
        true => Some(Future::build(&recording, args.run.memory)?),
        false => None,
    };
    let interrupt = Interrupt::listen()?;
    let stop = || interrupt.asked();
    if let Some(slots) = &args.split {
        let [policy] = policies[..] else {
            bail!("--split: a split is by the curves of one policy; give --policy lru-step, lru or belady");
        };
        let survey = Survey {
            run: &run,
            recording: &recording,
            future: future.as_ref(),
            policy,
            threads: args.run.threads(),
            stop: &stop,
        };
        return split(&survey, slots, args.by_layer);
    }
    let curve = |policy: &CurvePolicy| -> anyhow::Result<SampledCurves> {
        let (run, recording, future) = (&run, &recording, future.as_ref());
        let survey =
            Survey { run, recording, future, policy: *policy, threads: args.run.threads(), stop: &stop };
        Ok(match args.sample {
            Some(fraction) => survey.sample(fraction, Seed(blueprint.config.seed))?,
            None => survey.exact()?.into(),
        })
    };
    let curves: Vec<SampledCurves> = policies.iter().map(curve).collect::<anyhow::Result<_>>()?;
    if let Some(path) = &args.out {
        mrc::write_csv(path, &curves, args.by_layer)?;
    }
    if args.json {
        output::say(serde_json::to_string_pretty(&json(&blueprint, &run, &curves, args.by_layer))?);
    } else {
        print(&blueprint, &run, &curves, &sizes, &args);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the split as the part of a configuration that sets it.
fn split(survey: &Survey<'_>, slots: &str, by_layer: bool) -> anyhow::Result<ExitCode> {
    let (run, least) = (survey.run, survey.run.plane.k.max(1));
    let even: SlotCount = slots.parse().map_err(|wrong: String| anyhow::anyhow!("--split: {wrong}"))?;
    anyhow::ensure!(
        even.of(run.k) >= least,
        "--split: a selection has up to {least} blocks; give at least {least}"
    );
    let (curves, slots) = (survey.by_stream()?, even.of(run.k));
    let heads = run.map.head_groups();
    let split = match by_layer {
        true => mrc::split_by_layer(&curves, heads, slots),
        false => mrc::split_by_stream(&curves, slots),
    };
    let uniform: u64 = curves.iter().map(|curve| curve.misses_at(slots)).sum();
    let each = if by_layer { heads } else { 1 };
    let sizes = split.iter().flat_map(|&slots| std::iter::repeat_n(slots, each));
    let found: u64 = curves.iter().zip(sizes).map(|(curve, slots)| curve.misses_at(slots)).sum();
    let unit = if by_layer { "layer" } else { "layer and head group, layer by layer" };
    output::say(format!(
        "# {} over this very run: {found} misses; {uniform} with {slots} slots everywhere",
        survey.policy
    ));
    output::say(format!("[hot]\nslots = {slots}\nallocation = \"static\"\n"));
    output::say(format!("[hot.allocation_params]\n# one figure per {unit}\nslots = ["));
    for row in split.chunks(if by_layer { 16 } else { heads }) {
        output::say(format!("  {},", row.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")));
    }
    output::say("]");
    Ok(ExitCode::SUCCESS)
}

fn blueprint(args: &Args) -> anyhow::Result<Blueprint> {
    let mut file = match &args.file {
        Some(path) => ConfigFile::read(path)?,
        None => ConfigFile::parse(super::replay::DEFAULTS)?,
    };
    for (field, value) in [("trace", &args.trace), ("model", &args.model)] {
        if let Some(value) = value {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            file.set(&format!("{field}=\"{quoted}\""))?;
        }
    }
    args.run.set.iter().try_for_each(|assignment| file.set(assignment))?;
    // All sizes are computed, for policies that read neither near misses nor scores.
    file.set("hot.policy=lru")?;
    file.set("hot.slots=\"2k\"")?;
    file.set("hot.allocation=uniform")?;
    file.set("hot.allocation_params={}")?;
    let runs = file.runs()?;
    let [config] = &runs[..] else {
        bail!(
            "configuration: a grid of {} runs besides policy and slots; curves are of one run, set its fields",
            runs.len()
        );
    };
    let trace = TraceIdentity::read(&config.trace, file.folder())?;
    let blueprint = Blueprint::new(config, &trace)?;
    mrc::check(&blueprint)?;
    Ok(blueprint)
}

/// The sizes to print: ascending, and none that cannot hold a selection.
fn sizes(args: &Args, slots: &[SlotCount], run: &Run) -> anyhow::Result<Vec<(String, u32)>> {
    let mut sizes: Vec<(String, u32)> =
        slots.iter().map(|slots| (slots.to_string(), slots.of(run.k))).collect();
    if let Some((text, slots)) = sizes.iter().find(|(_, slots)| *slots < run.plane.k.max(1)) {
        let least = run.plane.k.max(1);
        bail!(
            "--slots: {text} is {slots} slots, and a selection has up to {least} blocks; give at least {least}"
        );
    }
    sizes.sort_by_key(|&(_, slots)| slots);
    sizes.dedup_by_key(|&mut (_, slots)| slots);
    anyhow::ensure!(!args.slots.is_empty(), "--slots: give at least one size, say 2k");
    Ok(sizes)
}

fn json(blueprint: &Blueprint, run: &Run, curves: &[SampledCurves], by_layer: bool) -> serde_json::Value {
    let one = |policy: CurvePolicy, layer: Option<usize>, Estimate { curve, half_width }: &Estimate| {
        serde_json::json!({
            "policy": policy.name(), "layer": layer, "accesses": curve.accesses,
            "least_slots": curve.least, "misses": curve.misses, "cold": curve.cold, "half_width": half_width,
        })
    };
    let all = curves.iter().flat_map(|curves| {
        let layers = curves.layers.iter().enumerate().filter(|_| by_layer);
        let layers = layers.map(|(layer, estimate)| one(curves.policy, Some(layer), estimate));
        std::iter::once(one(curves.policy, None, &curves.total)).chain(layers).collect::<Vec<_>>()
    });
    serde_json::json!({
        "trace": blueprint.config.trace, "model": blueprint.model.name, "k": run.k, "steps": run.steps,
        "from_step": run.measure_from, "seed": blueprint.config.seed,
        "streams": curves.first().map(|curves| curves.streams),
        "sampled": curves.first().map(|curves| curves.sampled),
        "curves": all.collect::<Vec<_>>(),
    })
}

fn print(blueprint: &Blueprint, run: &Run, curves: &[SampledCurves], sizes: &[(String, u32)], args: &Args) {
    let Some(first) = curves.first() else { return };
    let method = match args.sample {
        Some(_) => {
            format!("estimated from {} of {} streams, ± half of a 95% interval", first.sampled, first.streams)
        }
        None => "exact".into(),
    };
    output::say(format!(
        "{} as {}: k {}, {} requests, {} steps measured from step {}; {method}",
        blueprint.config.trace.display(),
        blueprint.model.name,
        run.k,
        run.concurrency,
        run.steps,
        run.measure_from
    ));
    if !run.map.note().is_empty() {
        output::say(format!("note: {}", run.map.note()));
    }
    let cell = |estimate: &Estimate, slots: u32| {
        let percent = 100.0 * estimate.curve.ratio_at(slots);
        match args.sample {
            Some(_) => format!("{percent:.2}±{:.2}%", 100.0 * estimate.half_width_at(slots)),
            None => format!("{percent:.2}%"),
        }
    };
    let header: Vec<&str> =
        std::iter::once("miss rate").chain(curves.iter().map(|c| c.policy.name())).collect();
    let rows: Vec<Vec<String>> = sizes
        .iter()
        .map(|(text, slots)| {
            let name = if text.ends_with('k') {
                format!("{text} ({slots} slots)")
            } else {
                format!("{slots} slots")
            };
            std::iter::once(name).chain(curves.iter().map(|curves| cell(&curves.total, *slots))).collect()
        })
        .collect();
    output::say(output::table(&header, &rows));
    for curves in curves.iter().filter(|_| args.by_layer) {
        let names: Vec<String> = sizes.iter().map(|(text, _)| text.clone()).collect();
        let title = format!("{}, layer", curves.policy);
        let header: Vec<&str> =
            std::iter::once(title.as_str()).chain(names.iter().map(String::as_str)).collect();
        let row = |(layer, estimate): (usize, &Estimate)| {
            std::iter::once(layer.to_string())
                .chain(sizes.iter().map(|&(_, slots)| cell(estimate, slots)))
                .collect()
        };
        output::say("");
        output::say(output::table(&header, &curves.layers.iter().enumerate().map(row).collect::<Vec<_>>()));
    }
    if let Some(path) = &args.out {
        output::say(format!("every size: {}", path.display()));
    }
}
