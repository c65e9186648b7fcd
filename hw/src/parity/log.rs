//! The decision log of a device: its decisions as records, hashed as the decision plane documents it.

use kvtier_policies::{Fill, StreamPlan};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The record of one stream's step: step, newest, slots, then loads, prefetches, growth, and prefetches ahead if any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    words: Vec<u32>,
}

impl Record {
    /// The record of a plan.
    pub(crate) fn of_plan(&mut self, step: u32, plan: &StreamPlan) {
        self.begin(step, plan.newest, plan.slots.len());
        self.words.extend(plan.slots.iter().map(|slot| slot.0));
        for fills in [&plan.loads[..], &plan.prefetches[..], plan.growth.as_slice()] {
            self.fills(fills);
        }
        if !plan.ahead.is_empty() {
            self.fills(&plan.ahead);
        }
    }

    fn fills(&mut self, fills: &[Fill]) {
        self.words.push(crate::ops::count32(fills.len()));
        let words = |fill: &Fill| [fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32];
        self.words.extend(fills.iter().flat_map(words));
    }

    /// The record of what a device decided: `parts` counts its loads, prefetches and growth, and, where there are any, its
    /// prefetches ahead of the look-up.
    pub(crate) fn of_device(
        &mut self,
        step: u32,
        newest: bool,
        slots: &[u32],
        fills: &[[u32; 4]],
        parts: &[u32],
    ) {
        self.begin(step, newest, slots.len());
        self.words.extend_from_slice(slots);
        let mut rest = fills;
        for &n in parts {
            // Counts come from the device: a wrong one must show as a difference, not as a panic.
            let (these, others) = rest.split_at((n as usize).min(rest.len()));
            self.words.push(n);
            self.words.extend(these.iter().flatten());
            rest = others;
        }
    }

    fn begin(&mut self, step: u32, newest: bool, slots: usize) {
        self.words.clear();
        self.words.extend([step, u32::from(newest), crate::ops::count32(slots)]);
    }

    /// The stream's hash after this record, given the one before.
    pub(crate) fn hash(&self, before: u64) -> u64 {
        // Little-endian, as the record is defined and as every host of a CUDA device is.
        xxh3_64_with_seed(bytemuck::cast_slice(&self.words), before)
    }
}

/// Hashes of every request, from its streams' records.
pub(crate) struct Log {
    streams: usize,
    /// Per seat: the admission number of its request, and its streams' hashes.
    seats: Vec<(usize, Vec<u64>)>,
    requests: Vec<u64>,
}

impl Log {
    pub(crate) fn new(streams: usize) -> Log {
        Log { streams, seats: Vec::new(), requests: Vec::new() }
    }

    pub(crate) fn join(&mut self, seat: u32) {
        let seat = seat as usize;
        if self.seats.len() <= seat {
            self.seats.resize(seat + 1, (0, Vec::new()));
        }
        self.seats[seat] = (self.requests.len(), vec![0; self.streams]);
        self.requests.push(0);
    }

    pub(crate) fn leave(&mut self, seat: u32) {
        let (ordinal, streams) = &self.seats[seat as usize];
        self.requests[*ordinal] = combine(streams);
    }

    pub(crate) fn append(&mut self, seat: usize, stream: usize, record: &Record) {
        let hash = &mut self.seats[seat].1[stream];
        *hash = record.hash(*hash);
    }

    /// The run's hash, given that of the warm pages, zero without them.
    pub(crate) fn finish(mut self, warm: u64) -> u64 {
        for (ordinal, streams) in &self.seats {
            self.requests[*ordinal] = combine(streams);
        }
        self.requests.push(warm);
        combine(&self.requests)
    }
}

fn combine(hashes: &[u64]) -> u64 {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    xxh3_64(&bytes)
}
