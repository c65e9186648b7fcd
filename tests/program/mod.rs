//! The built program as its users run it: from the root of the checkout, by its arguments, judged by what it prints,
//! writes and returns.

#![allow(dead_code)] // each test file uses its own part

use assert_cmd::Command;
use std::path::{Path, PathBuf};

/// The settings of a small run on the shipped pages: one request, 40 steps.
pub(crate) const SMALL: &str = "trace = 'traces/samples/smollm2-pages.parquet'\nmodel = 'smollm2-135m'\n\
    machine = 'h100-pcie5'\n[batch]\nrequests = ['s-d01']\nsteps = 40\n";

/// Root of the checkout, against which configurations name their traces.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program in the root of the checkout.
pub(crate) fn kvtier<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.current_dir(root()).args(arguments);
    command
}

/// What a run left behind.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Runs the program with these arguments to its end.
    pub(crate) fn of<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Outcome {
        Outcome::ran(&mut kvtier(arguments))
    }

    /// Runs a command to its end.
    pub(crate) fn ran(command: &mut Command) -> Outcome {
        let output = command.output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The run ended with this code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "out:\n{}\nerr:\n{}", self.out, self.err);
        self
    }

    /// The run was refused with one line that says each of these.
    #[track_caller]
    pub(crate) fn refused(self, parts: &[&str]) -> Outcome {
        let outcome = self.ended(2);
        let message = &outcome.err;
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "not one line:\n{message}");
        assert!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        outcome
    }
}

/// A folder of its own, removed in the end.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file and returns its path as an argument.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.at(name), content).expect("a temporary file can be written");
        self.arg(name)
    }

    /// The path of a file in it, as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.at(name).to_str().expect("temporary folders have plain names").to_owned()
    }

    /// The names of the files in it, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.path())
    }
}

/// The names of the files in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("readable").file_name();
    let mut names: Vec<String> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}
