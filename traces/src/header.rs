//! What a trace says of itself: the header and the requests table, and the rules their values obey.

use crate::TraceError;
use kvtier_units::{Bytes, Nanos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Entries of the longest context the format takes; it bounds every per-block table.
pub const MAX_CONTEXT_ENTRIES: u32 = 1 << 28;

/// Whether what was selected was fed back into the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopKind {
    /// Attention was dense; the selection was only recorded.
    Open,
    /// Attention read the selection, and the text went on from there.
    Closed,
}

impl fmt::Display for LoopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LoopKind::Open => "open",
            LoopKind::Closed => "closed",
        })
    }
}

/// The shape and origin of a trace; JSON under the metadata key `kvtier.header`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the recorded model.
    pub model: String,
    /// The model's own numbers of the recorded layers; rows hold indices into this list.
    pub layers: Vec<u16>,
    /// KV-head groups per layer, each with a selection of its own.
    pub head_groups: u16,
    /// Entries (tokens, or compressed entries) per block, 1 to 256.
    pub entries_per_block: u32,
    /// K and V of one block of one layer and head group.
    pub bytes_per_block: Bytes,
    /// Largest number of blocks in a row's selection.
    pub k: u32,
    /// Largest number of extra ranks in a row.
    #[serde(default)]
    pub extra: u32,
    /// Largest number of query rows of a stream in one step.
    #[serde(default = "one_query")]
    pub queries: u16,
    /// How blocks were selected.
    pub selector: String,
    /// What a score means; absent where the trace has no scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The score that quantises to `u16::MAX`; larger ones saturate.
    #[serde(default = "unit_score")]
    pub score_max: f64,
    /// Open or closed loop.
    #[serde(rename = "loop")]
    pub loop_kind: LoopKind,
    /// Who recorded it, from what, and how.
    pub provenance: String,
    /// Licence of the recording.
    pub licence: String,
}

fn one_query() -> u16 {
    1
}

fn unit_score() -> f64 {
    1.0
}

/// One request; the requests table is a JSON array of these under the metadata key `kvtier.requests`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Unique name.
    pub id: String,
    /// What sort of work it is, say `code`.
    #[serde(default)]
    pub kind: String,
    /// When it arrives, from the start of the trace.
    #[serde(default)]
    pub arrival: Nanos,
    /// Entries in the cache before step 0: at step s the context is `prompt_entries + s + 1` entries.
    pub prompt_entries: u32,
    /// Recorded decode steps, each appending one entry.
    pub output_steps: u32,
    /// Requests with the same group share the blocks of their first entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_group: Option<u32>,
    /// Entries shared with the prefix group.
    #[serde(default)]
    pub prefix_entries: u32,
}

impl Request {
    /// Blocks of the context at `step`, the newest, partly filled one included.
    pub fn blocks_at(&self, step: u32, entries_per_block: u32) -> u32 {
        self.newest_at(step, entries_per_block) + 1
    }

    /// The newest block at `step`: the one that holds the entry of this step.
    pub fn newest_at(&self, step: u32, entries_per_block: u32) -> u32 {
        (self.prompt_entries + step) / entries_per_block
    }
}

impl Header {
    /// Streams of one request: layers x head groups.
    pub fn streams_per_request(&self) -> usize {
        self.layers.len() * usize::from(self.head_groups)
    }

    /// Checks every value against the format's rules.
    pub(crate) fn check(&self, path: &Path) -> Result<(), TraceError> {
        let fault = |field: &str, problem: String| {
            Err(TraceError::field(path, format!("kvtier.header: {field}"), problem))
        };
        if self.format_version != FORMAT_VERSION {
            return Err(TraceError::Version { path: path.into(), found: self.format_version.to_string() });
        }
        if self.layers.is_empty() || self.layers.len() > usize::from(u16::MAX) {
            return fault("layers", "list the recorded layers, at least one".into());
        }
        if !self.layers.is_sorted_by(|a, b| a < b) {
            return fault("layers", "the model's layer numbers must ascend without repeats".into());
        }
        if self.head_groups == 0 {
            return fault("head_groups", "must be at least 1".into());
        }
        if !(1..=256).contains(&self.entries_per_block) {
            return fault("entries_per_block", format!("{} is not within 1..256", self.entries_per_block));
        }
        if self.bytes_per_block == Bytes::ZERO {
            return fault("bytes_per_block", "must be more than zero, say \"4096 B\"".into());
        }
        if self.k == 0 {
            return fault("k", "must be at least 1".into());
        }
        if self.queries == 0 {
            return fault("queries", "must be at least 1".into());
        }
        if !(self.score_max.is_finite() && self.score_max > 0.0) {
            return fault("score_max", format!("{} is not a positive, finite score", self.score_max));
        }
        Ok(())
    }
}

/// Checks the requests table against the format's rules.
pub(crate) fn check_requests(requests: &[Request], path: &Path) -> Result<(), TraceError> {
    let fault = |i: usize, field: &str, problem: String| {
        Err(TraceError::field(path, format!("kvtier.requests[{i}].{field}"), problem))
    };
    if requests.is_empty() || u32::try_from(requests.len()).is_err() {
        return Err(TraceError::field(path, "kvtier.requests", "list the requests, at least one"));
    }
    let mut ids = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        if !ids.insert(request.id.as_str()) {
            return fault(i, "id", format!("`{}` appears twice; ids are unique", request.id));
        }
        if request.output_steps == 0 {
            return fault(i, "output_steps", "must be at least 1; leave out requests without rows".into());
        }
        let entries = request.prompt_entries.checked_add(request.output_steps);
        if entries.is_none_or(|entries| entries > MAX_CONTEXT_ENTRIES) {
            let problem = format!("with output_steps it exceeds {MAX_CONTEXT_ENTRIES} entries");
            return fault(i, "prompt_entries", problem);
        }
        if request.prefix_entries > request.prompt_entries {
            return fault(i, "prefix_entries", "larger than prompt_entries".into());
        }
        if request.prefix_entries > 0 && request.prefix_group.is_none() {
            return fault(i, "prefix_group", "missing though prefix_entries is not zero".into());
        }
    }
    Ok(())
}
