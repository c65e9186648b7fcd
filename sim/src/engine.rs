//! The main flow: every engine step is read from the recording, decided by the decision plane, and executed by a
//! time plane. Start reading here.

use crate::batch::{BatchBuffers, BatchStep, StreamMap, first_uses};
use crate::error::SimError;
use crate::record::LayerTally;
use crate::setup::Run;
use crate::work::{Movement, StepWork};
use kvtier_policies::{Admission, Counts, DecisionPlane, Join, Prefix, StepPlan, StepSchedule};
use kvtier_traces::{Future, Recording};
use kvtier_units::BlockId;

/// A step that is read and not decided yet.
#[derive(Clone, Copy)]
pub struct ReadStep<'a> {
    /// Who leaves, joins and takes part.
    pub scheduled: &'a StepSchedule,
    /// What the participants select.
    pub batch: &'a BatchStep<'a>,
}

/// Executes decided steps: what stands between deciding and timing. `Timer` implements it with modelled hardware, a
/// device with real.
pub trait TimePlane {
    /// Sees a step before it is decided: a device that decides by itself takes its selections from here.
    ///
    /// # Errors
    /// If the hardware fails.
    fn read_step(&mut self, _: &ReadStep<'_>) -> Result<(), SimError> {
        Ok(())
    }

    /// Executes one step: `plan` names the blocks, `work` sums up what there is to do.
    ///
    /// # Errors
    /// If the hardware fails; a simulated plane never does.
    fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError>;
}

/// Decides without timing anything.
impl TimePlane for () {
    fn run_step(&mut self, _: &StepPlan, _: &StepWork) -> Result<(), SimError> {
        Ok(())
    }
}

/// Several time planes execute the same plans: decide once, time anywhere.
impl<T: TimePlane> TimePlane for Vec<T> {
    fn read_step(&mut self, step: &ReadStep<'_>) -> Result<(), SimError> {
        self.iter_mut().try_for_each(|plane| plane.read_step(step))
    }

    fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError> {
        self.iter_mut().try_for_each(|plane| plane.run_step(plan, work))
    }
}

/// What the decision plane did over a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Counts of the whole run.
    pub whole: Counts,
    /// Counts of the measured window.
    pub steady: Counts,
    /// Per layer of the model, over the measured window.
    pub layers: Vec<LayerTally>,
    /// Recorded entries selected over the measured window, before folding.
    pub raw_entries: u64,
    /// Decision log hash.
    pub hash: u64,
    /// Requests started, ended, and still running when the run ended.
    pub requests: [u64; 3],
    /// The most that was ever held at once.
    pub peak: Peak,
}

/// The most that was held at once, over the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Requests seated.
    pub requests: u64,
    /// Blocks that the seated contexts can hold, per stream.
    pub context_blocks: u64,
    /// Bytes in each home tier: host, CXL, NVMe.
    pub home_bytes: [u64; 3],
    /// Bytes of host memory that say where blocks have their homes.
    pub directory_bytes: u64,
    /// Bytes of page tables, slot tags and policy state.
    pub metadata_bytes: u64,
}

/// What never changes during a replay.
#[derive(Clone, Copy)]
pub struct Replay<'a> {
    /// The validated run.
    pub run: &'a Run,
    /// The decoded trace.
    pub recording: &'a Recording,
    /// Belady's knowledge, where the policy needs it.
    pub future: Option<&'a Future>,
    /// Asked once a step; `true` stops the run with `SimError::Interrupted`.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

impl Replay<'_> {
    /// Replays the schedule: decides every step and has `time` execute it.
    ///
    /// # Errors
    /// If a request does not fit the home pool, rows cannot be read back, the run is stopped, or `time` fails.
    pub fn execute<T: TimePlane>(&self, time: &mut T) -> Result<Decisions, SimError> {
        let Replay { run, recording, future, stop } = *self;
        let mut plane = DecisionPlane::new(run.plane.clone())?;
        let mut decisions =
            Decisions { layers: vec![LayerTally::default(); run.map.layers()], ..Decisions::default() };
        let mut seated: Vec<u32> = vec![0; run.schedule.seats() as usize]; // blocks that each seat's context can hold
        let mut buffers = BatchBuffers::looking_ahead(plane.look_ahead());
        let mut work = StepWork::default();
        for (step, scheduled) in (0u32..).zip(&run.schedule.steps) {
            if stop() {
                return Err(SimError::Interrupted);
            }
            let measured = step >= run.measure_from;
            for &seat in &scheduled.leave {
                decisions.count(plane.release(seat), measured);
                decisions.requests[1] += 1;
                seated[seat as usize] = 0;
            }
            let mut admission = Movement::default();
            for join in &scheduled.join {
                let loaded = self.admit(&mut plane, join, &mut seated)?;
                admission.add_request(
                    u32::try_from(loaded.admitted).expect("an admission loads fewer than 2^32 blocks"),
                );
                decisions.count(loaded, measured);
                decisions.requests[0] += 1;
            }
            decisions.peak.note(&plane, &seated);
            let batch = BatchStep::read(recording, future, &run.map, &scheduled.run, &mut buffers)?;
            time.read_step(&ReadStep { scheduled, batch: &batch })?;
            let seats: Vec<u32> = scheduled.run.iter().map(|run| run.seat).collect();
            let plan = plane.step(&seats, &batch);
            decisions.note_plan(plan, measured);
            decisions.raw_entries += if measured { batch.raw_entries() } else { 0 };
            work.read_plan(plan, &batch.participants, admission);
            time.run_step(plan, &work)?;
        }
        decisions.hash = plane.decision_hash();
        for seat in (0u32..).zip(&seated).filter(|&(_, &blocks)| blocks > 0).map(|(seat, _)| seat) {
            decisions.count(plane.release(seat), true);
            decisions.requests[2] += 1;
        }
        decisions.audit();
        Ok(decisions)
    }

    fn admit(&self, plane: &mut DecisionPlane, join: &Join, seated: &mut [u32]) -> Result<Counts, SimError> {
        let (recording, request) = (self.recording, join.request as usize);
        let recorded = &recording.requests()[request];
        let last = recording.steps(request) - 1;
        let max_blocks = recording.blocks_at(request, last);
        let uses = match self.future {
            Some(future) => Some(first_uses(recording, future, request, join.offset)?),
            None => None,
        };
        let map: &StreamMap = &self.run.map;
        let admission = Admission {
            seat: join.seat,
            full_blocks: recording.newest_at(request, join.offset).0,
            max_blocks,
            prefix: recorded.prefix_group.map(|group| Prefix {
                group,
                // A block that holds entries beyond the prefix is private.
                blocks: recorded.prefix_entries / recording.entries_per_block(),
            }),
            first_use: &|stream, block: BlockId| {
                uses.as_ref().map_or(u32::MAX, |uses| uses.of(map.recorded(stream))[block.index()])
            },
        };
        let counts = plane.admit(&admission).map_err(|full| SimError::Capacity {
            pool: "host.pool",
            message: format!(
                "request `{}` needs {} more for its home blocks and {} of {} are free; \
                 raise host.pool (or give cxl.pool or nvme.pool and a demotion.policy) or lower batch.concurrency",
                recorded.id,
                kvtier_units::Bytes(full.needed),
                kvtier_units::Bytes(full.free),
                kvtier_units::Bytes(full.capacity)
            ),
        })?;
        seated[join.seat as usize] = max_blocks;
        Ok(counts)
    }
}

impl Decisions {
    fn count(&mut self, counts: Counts, measured: bool) {
        self.whole += counts;
        if measured {
            self.steady += counts;
        }
    }

    fn note_plan(&mut self, plan: &StepPlan, measured: bool) {
        self.count(plan.counts, measured);
        for (layer, tally) in plan.layers.iter().zip(&mut self.layers) {
            let mut counts = Counts::default();
            layer.streams.iter().for_each(|stream| counts += stream.counts);
            self.whole += counts;
            if measured {
                self.steady += counts;
                tally.accesses += counts.accesses;
                tally.misses += counts.misses;
                tally.slot_steps += layer.slots;
                tally.buffer_steps += layer.streams.len() as u64;
            }
        }
    }

    /// Every run ends with the books balanced.
    fn audit(&self) {
        let [started, ended, running] = self.requests;
        assert_eq!(started, ended + running, "requests started = ended + running");
        let c = &self.whole;
        assert_eq!(c.accesses, c.newest + c.hits + c.warm_hits + c.misses, "every access is a hit or a miss");
        assert_eq!(
            c.prefetches + c.warm_prefetches,
            c.prefetched + c.wasted,
            "every prefetched block is demanded or wasted"
        );
        assert!(c.cold <= c.misses && c.pollution <= c.misses, "miss kinds are part of the misses");
        let below = c.misses_cxl + c.misses_nvme;
        let prefetched_below = c.prefetches_cxl + c.prefetches_nvme;
        assert!(
            below <= c.misses && prefetched_below <= c.prefetches && c.promoted <= below + prefetched_below,
            "what comes from below host is part of all that comes, and only that moves up"
        );
    }
}

impl Peak {
    fn note(&mut self, plane: &DecisionPlane, seated: &[u32]) {
        let live = || seated.iter().filter(|&&blocks| blocks > 0);
        self.requests = self.requests.max(live().count() as u64);
        self.context_blocks = self.context_blocks.max(live().map(|&blocks| u64::from(blocks)).sum());
        let used = plane.home_used();
        self.home_bytes = std::array::from_fn(|tier| self.home_bytes[tier].max(used[tier]));
        self.directory_bytes = self.directory_bytes.max(plane.directory_bytes());
        let pages = plane.warm_metadata_bytes();
        self.metadata_bytes =
            self.metadata_bytes.max(live().map(|&blocks| plane.metadata_bytes(blocks)).sum::<u64>() + pages);
    }
}
