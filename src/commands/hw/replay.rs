//! `kvtier hw replay`: one configuration on this machine's device, held to the decisions of the simulator.

use crate::commands::replay::{self, Flags};
use crate::interrupt::Interrupt;
use crate::output;
use kvtier_hw::Device;
use kvtier_hw::replay::{Managed, Options, Report, Weights, run as replay_on};
use kvtier_sim::Single;
use kvtier_sim::overlap::Variant;
use kvtier_sim::record::{Point, Status, TimeTally};
use kvtier_sim::table;
use kvtier_sim::timer::Timer;
use kvtier_units::{Bytes, Nanos};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Replay one configuration on the CUDA device, with real blocks, kernels and times
///
/// Takes the configuration of `kvtier replay`, with every overlap mode, transfer, prefetcher and warm pages; what a
/// device does not do is refused by name. With time.transfer = auto a graph gathers; with time.launch = stream as well,
/// each list of blocks is brought by what the machine file prices lowest, as the simulator chooses. Every decision of the
/// device is compared with the decision plane's, and every byte moved with what it must be; differences exit with 1, a
/// machine without a fitting device with 2.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kvtier hw replay --policy lru-step --slots 2k\n  \
    kvtier hw replay --model llama-3.1-8b --concurrency 8 --overlap hit-first --out runs/h100\n  \
    kvtier hw replay --prefetch next-ranked --overlap layer-ahead --set warm.size=64MiB\n  \
    kvtier hw replay --set time.launch=stream --set time.transfer=copy-batch\n  \
    kvtier hw replay --machine machine.toml --set time.launch=stream --set time.transfer=auto\n  \
    kvtier hw replay --model llama-3.1-8b --weights multiplied")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Who decides: the device where it knows the policy (either), the device, or the host
    #[arg(long, value_parser = ["either", "device", "host"], default_value = "either")]
    managed: String,
    /// How a step reads the model's weights: once from end to end, as the simulator has it, or by the model's matrix
    /// products with cuBLAS
    #[arg(long, value_parser = ["streamed", "multiplied"], default_value = "streamed")]
    weights: String,
    /// Timed passes over the schedule
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Results folder for points.parquet, points.csv and hw.json
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print point and report as JSON
    #[arg(long)]
    json: bool,
    /// Override a field, as field=value; may be given several times
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Memory for the decoded trace; beyond it rows go to a scratch file
    #[arg(long, default_value = "4 GiB")]
    memory: Bytes,
}

/// What hw.json holds.
#[derive(Serialize)]
struct Record<'a> {
    point: &'a Point,
    /// The same window as the simulator times it.
    modelled: TimeTally,
    report: &'a Report,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut file = args.flags.file()?;
    args.set.iter().try_for_each(|assignment| file.set(assignment))?;
    // Before the trace is read: where there is no device, that is what to say.
    let device = Device::open()?;
    let interrupt = Interrupt::listen()?;
    let stop = || interrupt.asked();
    let single = Single::prepare(&file, args.memory)?;
    let managed = match args.managed.as_str() {
        "device" => Managed::Device,
        "host" => Managed::Host,
        _ => Managed::Either,
    };
    let weights = if args.weights == "multiplied" { Weights::Multiplied } else { Weights::Streamed };
    let options = Options { managed, weights, repeats: args.repeats, stop: &stop };
    let (point, report) = replay_on(&device, &single, &options)?;
    let mut timer = Timer::new(&single.blueprint, Variant::Offload, &single.run, &single.recording)?;
    single.replay(&mut timer, &stop)?;
    let record = Record { point: &point, modelled: timer.finish(), report: &report };
    if let Some(folder) = &args.out {
        write(folder, &record)?;
    }
    if let Status::Infeasible(reason) = &point.status {
        output::note(format!("note: by the model's own figures this point does not fit: {reason}"));
    }
    if args.json {
        output::say(serde_json::to_string_pretty(&record)?);
    } else {
        replay::print(&point);
        print(&record);
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(folder: &Path, record: &Record<'_>) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let points = std::slice::from_ref(record.point);
    table::write_parquet(&folder.join("points.parquet"), points)?;
    table::write_csv(&folder.join("points.csv"), points)?;
    let text = serde_json::to_string_pretty(record)? + "\n";
    table::write_file(&folder.join("hw.json"), text.as_bytes())?;
    Ok(())
}

fn print(record: &Record<'_>) {
    let (report, modelled) = (record.report, &record.modelled);
    let verdict =
        if report.host_hash == report.device_hash && report.mismatches == 0 { "equal" } else { "DIFFERENT" };
    let integrity = &report.integrity;
    let bytes = if integrity.holds() { "in place" } else { "NOT IN PLACE" };
    let rows = [
        (
            "device",
            format!(
                "decisions {} ({verdict}), {} of {} steps of streams differ",
                report.device_hash, report.mismatches, report.compared
            ),
        ),
        (
            "bytes",
            format!(
                "{bytes}: {} compared, {} wrong; attention differs by at most {:.1e} from a copy that never moved; a \
                 corrupted page table {}",
                integrity.bytes,
                integrity.wrong_bytes,
                integrity.error,
                if integrity.corruption_caught { "was caught" } else { "WAS NOT CAUGHT" }
            ),
        ),
        (
            "window",
            format!(
                "{} median, {} to {} over {} passes of {} steps",
                Nanos(report.window.median_ps / 1000),
                Nanos(report.window.min_ps / 1000),
                Nanos(report.window.max_ps / 1000),
                report.window.repeats,
                report.steps
            ),
        ),
        (
            "modelled",
            format!(
                "{} for the window, p50 {} a step",
                Nanos(modelled.total_ns),
                Nanos(modelled.step_p50_ns)
            ),
        ),
    ];
    rows.iter().for_each(|(name, value)| output::say(format!("  {name:<11} {value}")));
    let steps = report.steps.max(1) as u64;
    let rows: Vec<Vec<String>> = report
        .by_operation
        .iter()
        .map(|(name, total)| vec![name.clone(), Nanos(total / steps).to_string()])
        .collect();
    output::say(output::table(&["operation", "per step"], &rows));
}
