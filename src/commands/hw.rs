//! `kvtier hw`: what of the real hardware is here, and what it can do.

mod replay;
mod report;

use crate::output;
use anyhow::{Context, bail};
use kvtier_hw::Device;
use kvtier_hw::probe::{self, Taken};
use kvtier_sim::presets::{self, MACHINES};
use kvtier_sim::table;
use kvtier_units::Bytes;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// The GPU companion: what device there is, a machine file of it, and replays on it
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier hw info")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the CUDA device found, or say why there is none (exit code 2)
    #[command(after_help = "Example: kvtier hw info")]
    Info,
    Replay(Box<replay::Args>),
    Report(report::Args),
    Probe(ProbeArgs),
}

/// Measure this machine (a minute or two) and write it as a machine file
///
/// What cannot be measured here (arithmetic rates, tiers below host memory) is carried over from the preset most like
/// it, with its source. The file serves at once: `kvtier replay --machine FILE`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kvtier hw probe --out machine.toml --figures machine.json\n  kvtier hw probe --from hw/results/probe.json --out machine.toml"
)]
struct ProbeArgs {
    /// Where to write the machine file, FILE.toml; its name is the machine's
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write every figure measured, as JSON
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// Make the machine file from figures written earlier; needs no GPU
    #[arg(long, value_name = "FILE", conflicts_with_all = ["figures", "pinned"])]
    from: Option<PathBuf>,
    /// Host memory to pin: the largest region that blocks are drawn from
    #[arg(long, value_name = "SIZE", default_value = "32 GiB")]
    pinned: String,
    /// Preset from which to carry over what is not measured; the nearest by the device's name unless given
    #[arg(long, value_name = "PRESET")]
    base: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Info => output::say(kvtier_hw::info()?.to_string()),
        Command::Probe(args) => run_probe(args)?,
        Command::Replay(args) => return replay::run(args),
        Command::Report(args) => report::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let name = match (args.out.extension(), args.out.file_stem()) {
        (Some(kind), Some(stem)) if kind == "toml" => stem.to_string_lossy().into_owned(),
        _ => bail!("--out {}: a machine file is named NAME.toml", args.out.display()),
    };
    let known = |base: &str| MACHINES.iter().any(|(preset, _)| *preset == base);
    if let Some(base) = args.base.as_deref().filter(|base| !known(base)) {
        let names: Vec<&str> = MACHINES.iter().map(|(preset, _)| *preset).collect();
        bail!("--base {base}: no such machine; one of: {}", names.join(", "));
    }
    let taken = match &args.from {
        Some(path) => read(path)?,
        None => measure(args)?,
    };
    output::make_folder_of(&args.out)?;
    let base = args.base.as_deref().unwrap_or_else(|| probe::nearest_preset(&taken.device.name));
    let file = taken.machine_file(&name, base);
    table::write_file(&args.out, file.text.as_bytes())?;
    presets::machine(&args.out.to_string_lossy()).context("the figures measured do not make a machine")?;
    let fitted = &file.fitted;
    output::say(format!("machine   {name}: {} figures measured or fitted here", file.own.len()));
    output::say(format!(
        "transfers {} rows fitted, median error {:.1}%, worst {:.0}%",
        fitted.rows,
        fitted.median_error * 100.0,
        fitted.worst_error * 100.0
    ));
    output::say(format!("carried over from {base}, not measured: {}", file.carried.join(", ")));
    output::say(format!("wrote     {}", args.out.display()));
    Ok(())
}

fn measure(args: &ProbeArgs) -> anyhow::Result<Taken> {
    let pinned: Bytes = args.pinned.parse().context("--pinned")?;
    if pinned < Bytes(1 << 30) {
        bail!("--pinned {}: a probe pins at least 1 GiB", args.pinned);
    }
    let device = Device::open()?;
    for file in args.figures.iter().chain([&args.out]) {
        output::make_folder_of(file)?;
    }
    let probe = probe::run(&device, usize::try_from(pinned.0)?)?;
    let taken = Taken { device: device.info().clone(), date: today(), probe };
    if let Some(path) = &args.figures {
        table::write_file(path, serde_json::to_string_pretty(&taken)?.as_bytes())?;
    }
    Ok(taken)
}

fn read(path: &Path) -> anyhow::Result<Taken> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{}: not the figures of `kvtier hw probe --figures`", path.display()))
}

/// Today by UTC, as YYYY-MM-DD.
#[allow(clippy::disallowed_methods)] // the wall clock lives here: a measurement has a day
fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date of a day counted from 1970-01-01, by the Gregorian calendar: years are counted from a March, so that leap
/// days end them.
fn date(days: u64) -> String {
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let calendar = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}-{calendar:02}-{day:02}", era * 400 + year + u64::from(calendar <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in
            [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_780, "2026-11-23"), (47_540, "2100-02-28")]
        {
            assert_eq!(date(days), expected);
        }
    }
}
