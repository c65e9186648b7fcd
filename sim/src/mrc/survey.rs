//! From a run to curves: which streams there are and how often each is seen, and one pass over the rows of each.

use super::curve::{Curve, CurvePolicy, Curves};
use super::pass::{Pass, Shape, StepInput};
use crate::batch::first_uses;
use crate::error::SimError;
use crate::setup::{Blueprint, Run};
use kvtier_policies::Start;
use kvtier_traces::{Future, FutureBuf, Newest, Recording, StepBuf};
use kvtier_units::{BlockId, Bytes};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What curves are computed from.
#[derive(Clone, Copy)]
pub struct Survey<'a> {
    /// The validated run; its buffer size and policy play no part, nor does the size of the home pool.
    pub run: &'a Run,
    /// The decoded trace.
    pub recording: &'a Recording,
    /// Belady's knowledge, where the policy needs it.
    pub future: Option<&'a Future>,
    /// The policy.
    pub policy: CurvePolicy,
    /// Threads; any number gives the same curves.
    pub threads: usize,
    /// Asked once a step; `true` stops with `SimError::Interrupted`.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// A configuration whose streams have curves: no warm pages and no prefetch.
///
/// # Errors
/// If it has either.
pub fn check(blueprint: &Blueprint) -> Result<(), SimError> {
    if blueprint.prefetch.prefetches {
        let message = "curves are of demand misses alone; set prefetch.policy = \"none\"";
        return Err(SimError::field("prefetch.policy", message));
    }
    if blueprint.config.warm.size != Bytes::ZERO {
        let message =
            "warm pages couple the streams, which have no curves of their own then; set warm.size = \"0 B\"";
        return Err(SimError::field("warm.size", message));
    }
    Ok(())
}

/// Steps of one recorded request that a seat replays, and how many seats replay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Visit {
    request: u32,
    offset: u32,
    steps: u32,
    /// Steps before the measured window.
    skip: u32,
}

/// Every distinct visit of a run and how often it is made.
pub(crate) fn visits(run: &Run) -> Vec<(Visit, u64)> {
    let mut seats: BTreeMap<u32, Visit> = BTreeMap::new();
    let mut visits: BTreeMap<Visit, u64> = BTreeMap::new();
    let mut close = |visit: Option<Visit>| {
        if let Some(visit) = visit {
            *visits.entry(Visit { skip: visit.skip.min(visit.steps), ..visit }).or_default() += 1;
        }
    };
    for (step, scheduled) in (0u32..).zip(&run.schedule.steps) {
        scheduled.leave.iter().for_each(|seat| close(seats.remove(seat)));
        for join in &scheduled.join {
            let skip = run.measure_from.saturating_sub(step);
            let visit = Visit { request: join.request, offset: join.offset, steps: 0, skip };
            close(seats.insert(join.seat, visit));
        }
        for run in &scheduled.run {
            seats.get_mut(&run.seat).expect("who runs has joined").steps += 1;
        }
    }
    seats.into_values().for_each(|visit| close(Some(visit)));
    visits.into_iter().collect()
}

impl Survey<'_> {
    /// The exact curves of all streams.
    ///
    /// # Errors
    /// If rows cannot be read back or the user stops.
    pub fn exact(&self) -> Result<Curves, SimError> {
        let visits = visits(self.run);
        let by_stream = self.by_stream()?;
        let heads = self.run.map.head_groups();
        let together = |curves: &[Curve]| {
            let mut sum = Curve::empty(self.least(), self.most(&visits));
            curves.iter().for_each(|curve| sum.add(curve, 1));
            sum
        };
        let layers: Vec<Curve> = by_stream.chunks(heads).map(together).collect();
        let total = together(&layers);
        let streams = visits.len() * by_stream.len();
        Ok(Curves { policy: self.policy, total, layers, streams: streams as u64 })
    }

    /// The exact curves of each layer and head group of the model, `layer * head_groups + head_group`, over all requests.
    ///
    /// # Errors
    /// If rows cannot be read back or the user stops.
    pub fn by_stream(&self) -> Result<Vec<Curve>, SimError> {
        let visits = visits(self.run);
        let streams = self.run.map.layers() * self.run.map.head_groups();
        let empty = || Curve::empty(self.least(), self.most(&visits));
        let sums: Mutex<Vec<Curve>> = Mutex::new((0..streams).map(|_| empty()).collect());
        let seen_by = self.seen_by();
        let all: Vec<usize> = (0..seen_by.len()).filter(|&stream| !seen_by[stream].is_empty()).collect();
        let chosen: Vec<Vec<usize>> = visits.iter().map(|_| all.clone()).collect();
        self.pass(&visits, &chosen, &|visit, stream, curve| {
            let mut sums = sums.lock().expect("no thread panics while it adds");
            seen_by[stream].iter().for_each(|&model| sums[model].add(curve, visits[visit].1));
        })?;
        Ok(sums.into_inner().expect("no thread panicked"))
    }

    /// The smallest size: one selection, and at least a slot.
    pub(crate) fn least(&self) -> u32 {
        self.run.plane.k.max(1)
    }

    /// Largest size with a count of its own: the longest context.
    pub(crate) fn most(&self, visits: &[(Visit, u64)]) -> u32 {
        let blocks = visits.iter().map(|(visit, _)| self.blocks(visit));
        blocks.max().unwrap_or(0).max(self.least())
    }

    fn blocks(&self, visit: &Visit) -> u32 {
        let request = visit.request as usize;
        self.recording.blocks_at(request, self.recording.steps(request) - 1)
    }

    /// For each recorded stream, the streams of the model that replay it.
    pub(crate) fn seen_by(&self) -> Vec<Vec<usize>> {
        let mut seen_by = vec![Vec::new(); self.recording.streams_per_request()];
        let streams = self.run.map.layers() * self.run.map.head_groups();
        (0..streams).for_each(|model| seen_by[self.run.map.recorded(model)].push(model));
        seen_by
    }

    /// Passes over the chosen recorded streams of each visit and hands over (visit, stream, curve), in any order.
    pub(crate) fn pass(
        &self,
        visits: &[(Visit, u64)],
        chosen: &[Vec<usize>],
        take: &(dyn Fn(usize, usize, &Curve) + Sync),
    ) -> Result<(), SimError> {
        // Spilled rows are read back once per visit; rows in memory cost nothing to visit again.
        let spilled = self.recording.spilled() > Bytes::ZERO;
        let heads = usize::from(self.recording.header().head_groups).max(1);
        let most = self.most(visits);
        let mut tasks: Vec<(usize, &[usize])> = Vec::new();
        for (visit, streams) in chosen.iter().enumerate() {
            let size = if spilled { streams.len().max(1) } else { heads };
            tasks.extend(streams.chunks(size).map(|streams| (visit, streams)));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.max(1)).build();
        let pool = pool.map_err(|error| SimError::field("--threads", error.to_string()))?;
        let run = |&(at, streams): &(usize, &[usize])| {
            let curves = self.pass_visit(&visits[at].0, streams, most)?;
            streams.iter().zip(&curves).for_each(|(&stream, curve)| take(at, stream, curve));
            Ok(())
        };
        pool.install(|| tasks.par_iter().with_max_len(1).try_for_each(run))
    }

    fn pass_visit(&self, visit: &Visit, streams: &[usize], most: u32) -> Result<Vec<Curve>, SimError> {
        let (recording, request) = (self.recording, visit.request as usize);
        let future = self.future.filter(|_| self.policy.needs_future());
        assert_eq!(future.is_some(), self.policy.needs_future(), "belady is given the future");
        let uses = future.map(|future| first_uses(recording, future, request, visit.offset)).transpose()?;
        let grown = |step: u32| self.grown(request, visit.offset + step);
        let grows = (0..visit.steps).any(|step| grown(step).is_some());
        let shape = Shape {
            k: self.least(),
            most,
            full: recording.newest_at(request, visit.offset).0,
            blocks: self.blocks(visit),
            steps: visit.steps,
            recent: self.run.plane.start == Start::Recent,
            base: self.least() + u32::from(self.policy == CurvePolicy::LruStep && grows),
        };
        let first = |stream: usize| uses.as_ref().map_or(&[][..], |uses| uses.of(stream));
        let mut passes: Vec<Pass> =
            streams.iter().map(|&stream| Pass::new(self.policy, shape, first(stream))).collect();
        let (mut rows, mut ahead) = (StepBuf::default(), FutureBuf::default());
        for step in 0..visit.steps {
            if (self.stop)() {
                return Err(SimError::Interrupted);
            }
            let rows = recording.step(request, visit.offset + step, &mut rows)?;
            let ahead =
                future.map(|future| future.step(request, visit.offset + step, &mut ahead)).transpose()?;
            let grown = grown(step);
            for (&stream, pass) in streams.iter().zip(&mut passes) {
                let (row, ahead) = (rows.stream(stream), ahead.map(|ahead| ahead.stream(stream)));
                pass.step(&StepInput {
                    blocks: row.blocks,
                    next_use: ahead.map_or(&[], |ahead| ahead.blocks),
                    newest: row.newest_selected,
                    grown: grown.map(|block| (block, ahead.map_or(u32::MAX, |ahead| ahead.newest))),
                    measured: step >= visit.skip,
                });
            }
        }
        Ok(passes.into_iter().map(Pass::finish).collect())
    }

    /// The block that a step fills and that enters the buffers then.
    fn grown(&self, request: usize, step: u32) -> Option<BlockId> {
        let context = self.recording.requests()[request].prompt_entries + step + 1;
        let fills = context.is_multiple_of(self.recording.entries_per_block());
        let reserved = self.recording.view().newest == Newest::Reserved;
        (fills && reserved).then(|| self.recording.newest_at(request, step))
    }
}
