//! Importers: each turns recordings of another shape into a trace.

mod raw;
mod recordings;

pub use recordings::{RecordingOptions, convert_recordings};
