//! The log of a sweep: one JSON line per finished point, appended as groups finish. It is what a resumed sweep reads.

use crate::error::SimError;
use crate::record::Point;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the log in a results folder.
pub const LOG_NAME: &str = "points.jsonl";

/// An open log.
pub(crate) struct PointLog {
    path: PathBuf,
    file: File,
    points: BTreeMap<String, Point>,
}

impl PointLog {
    /// Opens the log in `folder`, which is made if need be, and reads what it holds. A line torn by a crash is cut off.
    pub(crate) fn open(folder: &Path) -> Result<PointLog, SimError> {
        std::fs::create_dir_all(folder).map_err(|source| SimError::io(folder, "create", source))?;
        let path = folder.join(LOG_NAME);
        let text = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(SimError::io(&path, "read", source)),
        };
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        // A line of another version is of no use, and of no harm: its point runs again.
        let points = lines.filter_map(|line| serde_json::from_slice::<Point>(line).ok());
        let points = points.map(|point| (point.id.clone(), point)).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| SimError::io(&path, "open for writing", source))?;
        file.set_len(whole as u64).map_err(|source| SimError::io(&path, "write", source))?;
        Ok(PointLog { path, file, points })
    }

    /// The points it held when it was opened.
    pub(crate) fn points(&self) -> BTreeMap<String, Point> {
        self.points.clone()
    }

    /// Appends finished points.
    pub(crate) fn append(&mut self, points: &[Point]) -> Result<(), SimError> {
        let mut bytes = Vec::new();
        for point in points {
            serde_json::to_writer(&mut bytes, point).expect("a point is plain data");
            bytes.push(b'\n');
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|source| SimError::io(&self.path, "write", source))
    }
}
