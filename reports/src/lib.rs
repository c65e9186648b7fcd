//! The report of a sweep: one self-contained HTML page and its plots as PNG files.
//! It stands apart because it only reads run records: it decides nothing, measures nothing and needs no simulator.

mod axis;
mod canvas;
pub mod device;
mod figures;
pub mod gate;
mod headline;
mod page;
mod plots;
mod raster;
mod table;
mod theme;
mod view;

use kvtier_sim::record::Point;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Everything a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// Heading of the page.
    pub title: &'a str,
    /// The points, in the order in which the table lists them.
    pub points: &'a [Point],
    /// Free remarks, one paragraph each.
    pub notes: &'a [String],
    /// Version of the program and the command that ran, one line.
    pub version: &'a str,
    /// The configuration of the sweep as TOML.
    pub config_toml: &'a str,
}

/// Why a report could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// There was nothing to report.
    #[error("there are no points to report; run a sweep that yields at least one point")]
    NoPoints,
    /// The folder could not be made or a file in it not written.
    #[error("{}: cannot write the report: {source}; choose a folder that you may write to, with free space", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `report.html` and the plots as PNG files into `dir`, and returns their paths, the page first.
///
/// Every file is written under a temporary name, and none takes its own name before all of them are complete.
/// The same input gives the same bytes.
///
/// # Errors
/// [`ReportError::NoPoints`] without points, [`ReportError::Write`] where the folder cannot be written.
pub fn write(dir: &Path, input: &ReportInput<'_>) -> Result<Vec<PathBuf>, ReportError> {
    if input.points.is_empty() {
        return Err(ReportError::NoPoints);
    }
    let views = view::views(input.points);
    let charted: Vec<Vec<plots::Plot>> = views.charted.iter().map(plots::draw).collect();
    let mut files = vec![("report.html".to_owned(), page::render(input, &views, &charted).into_bytes())];
    let rasteriser = raster::Rasteriser::new();
    for (view, plots) in views.charted.iter().zip(&charted) {
        for plot in plots {
            let label = if plot.across { "" } else { view.label.as_str() };
            let heading = [input.title, label].map(str::trim);
            let heading =
                heading.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ");
            files.push((plot.file_name(view.number), rasteriser.png(plot, &heading)));
        }
    }
    publish(dir, &files)
}

/// Writes all files under temporary names, then renames them; on failure removes what it wrote.
fn publish(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<PathBuf>, ReportError> {
    let failed = |path: &Path, source| ReportError::Write { path: path.to_owned(), source };
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut staged: Vec<(PathBuf, PathBuf)> = Vec::with_capacity(files.len());
    let mut stage_and_rename = || {
        for (name, bytes) in files {
            let (temporary, path) = (dir.join(format!(".{name}.part")), dir.join(name));
            staged.push((temporary.clone(), path.clone()));
            write_synced(&temporary, bytes).map_err(|error| failed(&path, error))?;
        }
        staged.iter().try_for_each(|(from, to)| fs::rename(from, to).map_err(|error| failed(to, error)))
    };
    let outcome = stage_and_rename();
    if outcome.is_err() {
        for (temporary, _) in &staged {
            // Best effort: the error that matters is already in hand, and a renamed file is no longer there.
            let _ = fs::remove_file(temporary);
        }
    }
    outcome.map(|()| staged.into_iter().map(|(_, path)| path).collect())
}

/// Writes a file and waits until it is on the disk, so that a rename never publishes an empty one.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
