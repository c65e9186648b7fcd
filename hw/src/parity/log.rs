//! The decision log of the device: its decisions as records, hashed as the decision plane documents it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Hashes of every request, from its streams' records.
pub(super) struct Log {
    streams: usize,
    /// Per seat: the admission number of its request, and its streams' hashes.
    seats: Vec<(usize, Vec<u64>)>,
    requests: Vec<u64>,
}

impl Log {
    pub(super) fn new(streams: usize) -> Log {
        Log { streams, seats: Vec::new(), requests: Vec::new() }
    }

    pub(super) fn join(&mut self, seat: u32) {
        let seat = seat as usize;
        if self.seats.len() <= seat {
            self.seats.resize(seat + 1, (0, Vec::new()));
        }
        self.seats[seat] = (self.requests.len(), vec![0; self.streams]);
        self.requests.push(0);
    }

    pub(super) fn leave(&mut self, seat: u32) {
        let (ordinal, streams) = &self.seats[seat as usize];
        self.requests[*ordinal] = combine(streams);
    }

    pub(super) fn append(&mut self, seat: usize, stream: usize, record: &[u32]) {
        let hash = &mut self.seats[seat].1[stream];
        let bytes: Vec<u8> = record.iter().flat_map(|word| word.to_le_bytes()).collect();
        *hash = xxh3_64_with_seed(&bytes, *hash);
    }

    /// The run's hash, without warm pages.
    pub(super) fn finish(mut self) -> u64 {
        for (ordinal, streams) in &self.seats {
            self.requests[*ordinal] = combine(streams);
        }
        self.requests.push(0);
        combine(&self.requests)
    }
}

fn combine(hashes: &[u64]) -> u64 {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

/// The record of one stream's step: step, newest, slots, then loads, prefetches and growth.
pub(super) fn stream_record(
    words: &mut Vec<u32>,
    step: u32,
    newest: bool,
    slots: &[u32],
    fills: &[[u32; 4]],
    counts: [u32; 4],
) {
    words.clear();
    words.extend([step, u32::from(newest), crate::ops::count32(slots.len())]);
    words.extend_from_slice(slots);
    let mut rest = fills;
    for &n in &counts[..3] {
        // Counts come from the device: a wrong one must show as a difference, not as a panic.
        let (these, others) = rest.split_at((n as usize).min(rest.len()));
        words.push(n);
        words.extend(these.iter().flatten());
        rest = others;
    }
}
