//! `kvtier check`: the regression gate on miss counts.

use super::sweep::RunArgs;
use crate::output;
use kvtier_reports::gate::{Baseline, Comparison};
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::table;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compare miss counts by kind with committed ones; exit code 1 on any difference
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kvtier check configs/baselines/samples.toml\n  \
    kvtier check configs/baselines/samples.toml --bless")]
pub(crate) struct Args {
    /// Baseline: a configuration with a grid, and the expected counts of its points
    file: PathBuf,
    /// Show what changes, then rewrite the expected counts
    #[arg(long)]
    bless: bool,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let baseline = Baseline::read(&args.file)?;
    let mut file = ConfigFile::parse_as(&args.file, baseline.config())?;
    file.baselines = false;
    let (_, points) = args.run.execute(file, None)?;
    let comparison = Comparison::new(&baseline, &points);
    output::say(comparison.to_string().trim_end());
    if comparison.agrees() {
        return Ok(ExitCode::SUCCESS);
    }
    if args.bless {
        table::write_file(&args.file, baseline.blessed(&points).as_bytes())?;
        output::say(format!("{} rewritten", args.file.display()));
        return Ok(ExitCode::SUCCESS);
    }
    output::say("if the change is meant, run the same command with --bless");
    Ok(ExitCode::FAILURE)
}
