//! Errors of the simulator: each names a file or a field, and the remedy.

use kvtier_policies::{PolicyError, ScheduleError};
use kvtier_traces::TraceError;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a run could not be set up or finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A policy or its settings are wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is nothing to schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A preset is unknown or its file is wrong.
    #[error(transparent)]
    Preset(#[from] crate::presets::PresetError),
    /// A field of the configuration is wrong.
    #[error("{field}: {message}")]
    Field {
        /// The field, dotted.
        field: String,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// A configuration file cannot be understood.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// The run does not fit a pool of the machine.
    #[error("{pool}: {message}")]
    Capacity {
        /// The pool, named after its field.
        pool: &'static str,
        /// What is needed, what there is, and the remedy.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot {verb}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something that several points share could not be made.
    #[error("{0}")]
    Shared(String),
    /// A time plane outside the simulator failed.
    #[error(transparent)]
    TimePlane(Box<dyn std::error::Error + Send + Sync>),
    /// The user stopped it.
    #[error("interrupted; finished points are kept, run the same command again to go on")]
    Interrupted,
}

impl SimError {
    /// A wrong field.
    pub fn field(field: &str, message: impl Into<String>) -> SimError {
        SimError::Field { field: field.into(), message: message.into() }
    }

    /// A wrong setting of the file at `path`, if it stands in one.
    pub(crate) fn in_file(self, path: Option<&Path>) -> SimError {
        use SimError::{Config, Field, Policy, Preset, Schedule};
        match (&self, path) {
            (Field { .. } | Policy(_) | Preset(_) | Schedule(_), Some(path)) => {
                Config { path: path.into(), message: self.to_string() }
            }
            _ => self,
        }
    }

    pub(crate) fn io(path: &Path, verb: &'static str, source: std::io::Error) -> SimError {
        SimError::Io { path: path.into(), verb, source }
    }
}
