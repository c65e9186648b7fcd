//! Printing: plain tables to standard output, complaints and progress to standard error.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Prints a line to standard output; a closed pipe is not an error.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n"));
}

/// Prints a note to standard error.
pub(crate) fn note(line: impl AsRef<str>) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(line.as_ref().as_bytes()).and_then(|()| err.write_all(b"\n"));
}

/// Prints an error to standard error, with those of its causes that it does not tell itself.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut told = String::from("error");
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {}", cause.trim_end());
        }
    }
    note(told);
}

/// Makes the folder of a file to be written, before the work whose result it is to hold.
pub(crate) fn make_folder_of(file: &Path) -> anyhow::Result<()> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: its folder cannot be made", file.display())),
        None => Ok(()),
    }
}

/// A progress bar on a terminal, nothing elsewhere.
pub(crate) fn progress(length: usize, what: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed} (about {eta} left)");
    bar.set_style(style.expect("the template is well formed").progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// A table of text with aligned columns: the first column to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded = cells.zip(&widths).enumerate().map(|(at, (cell, &width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<String>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["lru".into(), "7".into()], vec!["belady".into(), "12".into()]];
        assert_eq!(table(&["policy", "n"], &rows), "policy   n\nlru      7\nbelady  12");
    }
}
