//! How a trace is read for replay: how many ranks count as selected, what follows them, and how entries fold into blocks.

use crate::TraceError;
use crate::header::Header;
use kvtier_units::Bytes;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What becomes of the newest block, the one that is being filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Newest {
    /// It is taken out of selections and near misses and flagged: it lives in a reserved slot.
    #[default]
    Reserved,
    /// It is a block like any other: the convention of published hit ratios.
    Ordinary,
}

/// How a trace is read for replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Ranks that count as selected; none takes all that were recorded.
    pub k: Option<u32>,
    /// Near misses kept per selection: the recorded ranks beyond k, then the extra ranks; clipped to what there is.
    pub near: u32,
    /// Recorded blocks folded into one.
    pub fold: u32,
    /// What becomes of the newest block.
    pub newest: Newest,
    /// Whether scores are read, where the trace has them.
    pub scores: bool,
}

impl Default for View {
    /// Everything recorded as selected, no near misses, no folding, the newest block reserved, no scores.
    fn default() -> View {
        View { k: None, near: 0, fold: 1, newest: Newest::Reserved, scores: false }
    }
}

impl View {
    /// Checks the view against what was recorded.
    pub(crate) fn check(&self, header: &Header, path: &Path) -> Result<(), TraceError> {
        match self.k {
            Some(0) => return Err(TraceError::view(path, "k", "must be at least 1")),
            Some(k) if k > header.k => {
                let problem = format!("{k}, but only {} ranks were recorded; take at most that", header.k);
                return Err(TraceError::view(path, "k", problem));
            }
            _ => {}
        }
        if self.fold == 0 {
            return Err(TraceError::view(path, "fold", "must be at least 1; 1 leaves blocks as recorded"));
        }
        let fits = header.entries_per_block.checked_mul(self.fold).is_some()
            && header.bytes_per_block.0.checked_mul(self.fold.into()).is_some();
        if !fits {
            let problem = format!("{} makes blocks too large to count", self.fold);
            return Err(TraceError::view(path, "fold", problem));
        }
        if self.scores && header.score.is_none() {
            return Err(TraceError::view(
                path,
                "scores",
                "this trace has none; choose a policy that needs no scores, or a trace recorded with them",
            ));
        }
        Ok(())
    }

    /// Entries per block as viewed.
    pub fn entries_per_block(&self, header: &Header) -> u32 {
        header.entries_per_block * self.fold
    }

    /// Bytes per block as viewed.
    pub fn bytes_per_block(&self, header: &Header) -> Bytes {
        header.bytes_per_block * u64::from(self.fold)
    }
}
