//! `kvtier sweep`: a grid over any field of a configuration, its tables and its report.

use crate::interrupt::Interrupt;
use crate::output;
use kvtier_sim::grid::ConfigFile;
use kvtier_sim::record::{Point, PointKind, Status};
use kvtier_sim::sweep::{Options, Sweep};
use kvtier_sim::{summarise, table};
use kvtier_units::Bytes;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run a grid of configurations and write tables and a report
///
/// Results go to runs/NAME/: points.parquet, points.csv, summary.json, report.html and PNGs. A stopped sweep resumes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kvtier sweep configs/sweeps/quickstart.toml\n  \
    kvtier sweep configs/sweeps/quickstart.toml --set machine=gh200 --out runs/gh200")]
pub(crate) struct Args {
    /// Sweep file
    file: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    /// Results folder [default: runs/NAME]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What every command that runs points takes.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// Override a field, as field=value; may be given several times
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// Threads [default: all cores]
    #[arg(long, value_parser = at_least_one)]
    threads: Option<NonZeroUsize>,
    /// Memory for each decoded trace; beyond it rows go to a scratch file
    #[arg(long, default_value = "4 GiB")]
    pub(crate) memory: Bytes,
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "a whole number of at least 1".to_owned())
}

impl RunArgs {
    /// Threads to use.
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or(cores).get()
    }

    /// Runs a configuration; finished points are logged in `folder` where there is one.
    pub(crate) fn execute(
        &self,
        mut file: ConfigFile,
        folder: Option<&Path>,
    ) -> anyhow::Result<(Sweep, Vec<Point>)> {
        self.set.iter().try_for_each(|assignment| file.set(assignment))?;
        let sweep = Sweep::plan(file)?;
        let interrupt = Interrupt::listen()?;
        let bar = output::progress(sweep.len(), "points");
        let options = Options {
            threads: self.threads(),
            memory: self.memory,
            stop: &|| interrupt.asked(),
            finished: &|_| bar.inc(1),
        };
        let points = sweep.execute(folder, &options);
        bar.finish_and_clear();
        Ok((sweep, points?))
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = ConfigFile::read(&args.file)?;
    let folder = args.out.unwrap_or_else(|| Path::new("runs").join(&file.name));
    let (sweep, points) = args.run.execute(file, Some(&folder))?;
    let config = sweep.file.to_toml();
    let summary = summarise(&sweep.file.name, &config, &points);
    table::write_parquet(&folder.join("points.parquet"), &points)?;
    table::write_csv(&folder.join("points.csv"), &points)?;
    table::write_file(
        &folder.join("summary.json"),
        (serde_json::to_string_pretty(&summary)? + "\n").as_bytes(),
    )?;
    super::report::write(&folder, &points, &summary)?;
    output::say(digest(&points));
    output::say(format!(
        "{} points, {} that do not fit; report: {}",
        points.len(),
        summary.infeasible,
        folder.join("report.html").display()
    ));
    summary.notes.iter().for_each(|note| output::say(format!("note: {note}")));
    Ok(ExitCode::SUCCESS)
}

/// Miss rate by policy and slots: what one asks first.
fn digest(points: &[Point]) -> String {
    let shown: Vec<&Point> = points
        .iter()
        .filter(|point| point.kind == PointKind::Offload && point.status == Status::Ok)
        .collect();
    let mut slots: Vec<u32> = shown.iter().map(|point| point.config.slots).collect();
    slots.sort_unstable();
    slots.dedup();
    let mut policies: Vec<&str> = Vec::new();
    shown.iter().for_each(|point| {
        if !policies.contains(&point.config.policy.as_str()) {
            policies.push(&point.config.policy);
        }
    });
    let header: Vec<String> = slots.iter().map(|slots| format!("{slots} slots")).collect();
    let header: Vec<&str> = std::iter::once("miss rate").chain(header.iter().map(String::as_str)).collect();
    let row = |policy: &&str| {
        let cells = slots.iter().map(|&slots| {
            let same =
                shown.iter().filter(|point| point.config.policy == *policy && point.config.slots == slots);
            let mut ratios: Vec<f64> = same.map(|point| point.steady.miss_ratio() * 100.0).collect();
            ratios.sort_by(f64::total_cmp);
            match (ratios.first(), ratios.last()) {
                (Some(low), Some(high)) if high - low > 0.005 => format!("{low:.2}-{high:.2}%"),
                (Some(low), _) => format!("{low:.2}%"),
                _ => "-".into(),
            }
        });
        std::iter::once((*policy).to_owned()).chain(cells).collect()
    };
    output::table(&header, &policies.iter().map(row).collect::<Vec<Vec<String>>>())
}
