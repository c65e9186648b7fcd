//! When each block is selected next: what Belady's policy knows and no other may.
//! Computed by one backward pass over a [`Recording`], with the same memory rule.

use crate::TraceError;
use crate::recording::{Recording, StepBuf};
use crate::spool::{Record, Scratch, Spool};
use kvtier_units::Bytes;

/// The next use of a block that is not selected again.
pub const NEVER: u32 = u32::MAX;

/// Next uses, aligned with the rows of the recording it was built from; steps are steps of the request.
pub struct Future {
    steps: Spool<FutureRecord>,
    first: Vec<FirstUses>,
}

impl Future {
    /// Builds the future of a recording; an error if spilled rows cannot be written or read back.
    pub fn build(recording: &Recording, memory_budget: Bytes) -> Result<Future, TraceError> {
        let requests = recording.requests().len();
        let mut steps = Spool::new(recording.path(), requests, memory_budget);
        let mut first = Vec::with_capacity(requests);
        let mut buf = StepBuf::default();
        for request in 0..requests {
            let mut uses = FirstUses::never(recording, request, 0);
            for step in (0..recording.steps(request)).rev() {
                steps.push(request, uses.step_back(recording, step, &mut buf)?)?;
            }
            steps.reverse(request);
            assert_eq!(steps.steps(request), recording.steps(request) as usize, "one record per step");
            first.push(uses);
        }
        Ok(Future { steps, first })
    }

    /// The future as seen from one step of a request.
    ///
    /// # Panics
    /// If there is no such request or step.
    pub fn step<'a>(
        &'a self,
        request: usize,
        step: u32,
        buf: &'a mut FutureBuf,
    ) -> Result<FutureRows<'a>, TraceError> {
        self.steps.get(request, step, &mut buf.0).map(|record| FutureRows { record })
    }

    /// The first step that selects each block, from the request's first step.
    pub fn first_uses(&self, request: usize) -> &FirstUses {
        &self.first[request]
    }

    /// Bytes that did not fit the memory budget and lie in a temporary file.
    pub fn spilled(&self) -> Bytes {
        self.steps.spilled()
    }
}

/// For each block of each stream of a request, the first step at or after a start that selects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstUses {
    request: usize,
    blocks: usize,
    next: Vec<u32>,
}

impl FirstUses {
    /// First uses at or after `start`, by a pass over the steps from there on; share it between instances.
    pub fn from_step(recording: &Recording, request: usize, start: u32) -> Result<FirstUses, TraceError> {
        let mut uses = FirstUses::never(recording, request, start);
        let mut buf = StepBuf::default();
        for step in (start..recording.steps(request)).rev() {
            let rows = recording.step(request, step, &mut buf)?;
            for stream in 0..rows.streams() {
                let next = uses.of_mut(stream);
                for block in rows.stream(stream).blocks {
                    next[block.index()] = step;
                }
            }
        }
        Ok(uses)
    }

    fn never(recording: &Recording, request: usize, start: u32) -> FirstUses {
        let last = recording.steps(request).saturating_sub(1).max(start);
        let blocks = recording.blocks_at(request, last) as usize;
        FirstUses { request, blocks, next: vec![NEVER; blocks * recording.streams_per_request()] }
    }

    /// Per block of one stream, its first use, or [`NEVER`].
    pub fn of(&self, stream: usize) -> &[u32] {
        &self.next[stream * self.blocks..][..self.blocks]
    }

    fn of_mut(&mut self, stream: usize) -> &mut [u32] {
        &mut self.next[stream * self.blocks..][..self.blocks]
    }

    /// Records what is known after `step`, then takes `step` itself into account.
    fn step_back(
        &mut self,
        recording: &Recording,
        step: u32,
        buf: &mut StepBuf,
    ) -> Result<FutureRecord, TraceError> {
        let request = self.request;
        let newest = recording.newest_at(request, step);
        let rows = recording.step(request, step, buf)?;
        let mut record = FutureRecord::default();
        for stream in 0..rows.streams() {
            let row = rows.stream(stream);
            let next = self.of_mut(stream);
            let newest_next = next[newest.index()];
            record.near.extend(row.near.iter().map(|block| next[block.index()]));
            for block in row.blocks {
                record.selected.push(std::mem::replace(&mut next[block.index()], step));
            }
            record.end_stream(newest_next);
        }
        record.shrink();
        Ok(record)
    }
}

/// Room for one step that is read back from a temporary file.
#[derive(Default)]
pub struct FutureBuf(Scratch<FutureRecord>);

/// Next uses of the streams of one request after one step.
#[derive(Clone, Copy)]
pub struct FutureRows<'a> {
    record: &'a FutureRecord,
}

impl<'a> FutureRows<'a> {
    /// One stream.
    ///
    /// # Panics
    /// If there is no such stream.
    #[inline]
    pub fn stream(&self, index: usize) -> FutureRow<'a> {
        let record = self.record;
        let [selected, near, newest] = record.ends[index];
        let [selected_start, near_start, _] = if index == 0 { [0; 3] } else { record.ends[index - 1] };
        FutureRow {
            blocks: &record.selected[selected_start as usize..selected as usize],
            near: &record.near[near_start as usize..near as usize],
            newest,
        }
    }
}

/// Next uses of one stream after one step: a step of the request, or [`NEVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureRow<'a> {
    /// Of each selected block, in rank order.
    pub blocks: &'a [u32],
    /// Of each near miss, in rank order.
    pub near: &'a [u32],
    /// Of the block that is newest in this step; where the view reserves it, as an ordinary block, once it is full.
    pub newest: u32,
}

/// Next uses of one step, stream after stream.
#[derive(Default)]
struct FutureRecord {
    /// Per stream: end in `selected`, end in `near`, next use of the newest block.
    ends: Vec<[u32; 3]>,
    selected: Vec<u32>,
    near: Vec<u32>,
}

impl FutureRecord {
    fn end_stream(&mut self, newest: u32) {
        let count = |n: usize| u32::try_from(n).expect("a step selects fewer than 2^32 blocks");
        self.ends.push([count(self.selected.len()), count(self.near.len()), newest]);
    }

    fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.selected.shrink_to_fit();
        self.near.shrink_to_fit();
    }
}

impl Record for FutureRecord {
    fn size(&self) -> usize {
        size_of_val(&*self.ends)
            + size_of_val(&*self.selected)
            + size_of_val(&*self.near)
            + size_of::<FutureRecord>()
    }

    fn store(&self, words: &mut Vec<u32>) {
        let count = |n: usize| u32::try_from(n).expect("a step selects fewer than 2^32 blocks");
        words.extend([count(self.ends.len()), count(self.selected.len())]);
        words.extend(self.ends.as_flattened());
        words.extend(&self.selected);
        words.extend(&self.near);
    }

    fn load(&mut self, words: &[u32]) {
        let (head, words) = words.split_at(2);
        let (ends, words) = words.split_at(3 * head[0] as usize);
        let (selected, near) = words.split_at(head[1] as usize);
        self.ends.clear();
        self.ends.extend_from_slice(ends.as_chunks().0);
        self.selected.clear();
        self.selected.extend_from_slice(selected);
        self.near.clear();
        self.near.extend_from_slice(near);
    }
}
