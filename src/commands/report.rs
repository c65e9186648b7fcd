//! `kvtier report`: the report of a finished sweep, again.

use crate::output;
use kvtier_reports::ReportInput;
use kvtier_sim::record::Point;
use kvtier_sim::{SimError, Summary, table};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write the report of a finished sweep again
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier report runs/quickstart")]
pub(crate) struct Args {
    /// Results folder of a sweep
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let points = table::read_parquet(&args.dir.join("points.parquet"))?;
    let path = args.dir.join("summary.json");
    let text = std::fs::read_to_string(&path).map_err(|source| SimError::Io {
        path: path.clone(),
        verb: "read",
        source,
    })?;
    let summary: Summary = serde_json::from_str(&text).map_err(|error| SimError::Config {
        path,
        message: format!("not a summary ({error}); run the sweep again"),
    })?;
    write(&args.dir, &points, &summary)?;
    output::say(format!("report: {}", args.dir.join("report.html").display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the report of these points into `folder`.
pub(crate) fn write(folder: &Path, points: &[Point], summary: &Summary) -> anyhow::Result<()> {
    let version = format!("kvtier {} sweep {}", summary.version, summary.name);
    let input = ReportInput {
        title: &summary.name,
        points,
        notes: &summary.notes,
        version: &version,
        config_toml: &summary.config,
    };
    kvtier_reports::write(folder, &input)?;
    Ok(())
}
