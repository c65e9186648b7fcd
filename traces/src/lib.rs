//! The sparse-access trace: its file format, and how a recorded trace is viewed for replay.
//! A trace is read and checked in bounded chunks; a [`Recording`] decodes it once for all points that share it.

mod check;
mod chunk;
mod decode;
mod error;
mod future;
mod header;
pub mod import;
mod layout;
mod project;
mod reader;
mod recording;
mod spool;
mod summary;
mod view;
mod writer;

pub use chunk::{Chunk, Row};
pub use error::{Place, RowError, RowFault, TraceError};
pub use future::{FirstUses, Future, FutureBuf, FutureRow, FutureRows, NEVER};
pub use header::{FORMAT_VERSION, Header, LoopKind, MAX_CONTEXT_ENTRIES, Request};
pub use layout::{Coding, IDS_PER_CHUNK, Layout};
pub use reader::{Columns, TraceReader};
pub use recording::{Recording, StepBuf, StepRows, StreamRow};
pub use summary::{RequestSummary, Summary, validate};
pub use view::{Newest, View};
pub use writer::TraceWriter;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// xxh3-64 of a file's bytes, read in bounded pieces.
pub(crate) fn hash_file(file: &File, path: &Path) -> Result<u64, TraceError> {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut piece = vec![0u8; 1 << 20];
    let mut offset = 0u64;
    loop {
        let read = file.read_at(&mut piece, offset).map_err(|e| TraceError::io(path, "read", e))?;
        if read == 0 {
            return Ok(hasher.digest());
        }
        hasher.update(&piece[..read]);
        offset += read as u64;
    }
}
