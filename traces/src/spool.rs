//! Step records kept in memory up to a budget and beyond it in an anonymous file.
//! Apart from what a record holds: recordings and futures share it, and give the same answers either way.

use crate::TraceError;
use kvtier_units::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What one step leaves behind.
pub(crate) trait Record {
    /// Bytes it takes in memory.
    fn size(&self) -> usize;
    /// Appends it as words.
    fn store(&self, words: &mut Vec<u32>);
    /// Becomes what [`Record::store`] wrote.
    fn load(&mut self, words: &[u32]);
}

enum Slot<R> {
    Memory(R),
    File { offset: u64, words: usize },
}

/// Records by request and step.
pub(crate) struct Spool<R> {
    /// The trace, for error messages.
    path: PathBuf,
    slots: Vec<Vec<Slot<R>>>,
    memory_left: usize,
    file: Option<File>,
    file_end: u64,
    words: Vec<u32>,
    bytes: Vec<u8>,
}

/// Room for one record that is read back from the file.
#[derive(Default)]
pub(crate) struct Scratch<R> {
    record: R,
    words: Vec<u32>,
    bytes: Vec<u8>,
}

impl<R: Record> Spool<R> {
    pub(crate) fn new(path: &Path, requests: usize, memory_budget: Bytes) -> Spool<R> {
        Spool {
            path: path.into(),
            slots: (0..requests).map(|_| Vec::new()).collect(),
            memory_left: usize::try_from(memory_budget.0).unwrap_or(usize::MAX),
            file: None,
            file_end: 0,
            words: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds the record of the next step of a request.
    pub(crate) fn push(&mut self, request: usize, record: R) -> Result<(), TraceError> {
        let size = record.size();
        let slot = if size <= self.memory_left {
            self.memory_left -= size;
            Slot::Memory(record)
        } else {
            self.memory_left = 0; // what follows is spilled too, so that early steps are the fast ones
            self.spill(&record)?
        };
        self.slots[request].push(slot);
        Ok(())
    }

    fn spill(&mut self, record: &R) -> Result<Slot<R>, TraceError> {
        if self.file.is_none() {
            let file = tempfile::tempfile()
                .map_err(|e| TraceError::io(&self.path, "create a temporary file to spill its rows to", e))?;
            self.file = Some(file);
        }
        let file = self.file.as_ref().expect("created above");
        self.words.clear();
        record.store(&mut self.words);
        self.bytes.clear();
        self.bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        file.write_all_at(&self.bytes, self.file_end)
            .map_err(|e| TraceError::io(&self.path, "spill its rows to a temporary file", e))?;
        let slot = Slot::File { offset: self.file_end, words: self.words.len() };
        self.file_end += self.bytes.len() as u64;
        Ok(slot)
    }

    /// Turns the steps of a request around, for those who add the last one first.
    pub(crate) fn reverse(&mut self, request: usize) {
        self.slots[request].reverse();
    }

    /// The record of a step: in memory, or read back into `scratch`.
    pub(crate) fn get<'a>(
        &'a self,
        request: usize,
        step: u32,
        scratch: &'a mut Scratch<R>,
    ) -> Result<&'a R, TraceError> {
        match &self.slots[request][step as usize] {
            Slot::Memory(record) => Ok(record),
            Slot::File { offset, words } => {
                let file = self.file.as_ref().expect("a spilled record has its file");
                scratch.bytes.resize(words * 4, 0);
                file.read_exact_at(&mut scratch.bytes, *offset)
                    .map_err(|e| TraceError::io(&self.path, "read back spilled rows", e))?;
                let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("chunks are four bytes"));
                scratch.words.clear();
                scratch.words.extend(scratch.bytes.chunks_exact(4).map(word));
                scratch.record.load(&scratch.words);
                Ok(&scratch.record)
            }
        }
    }

    /// Steps held for a request.
    pub(crate) fn steps(&self, request: usize) -> usize {
        self.slots[request].len()
    }

    /// Bytes in the temporary file.
    pub(crate) fn spilled(&self) -> Bytes {
        Bytes(self.file_end)
    }
}
