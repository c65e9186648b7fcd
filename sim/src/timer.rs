//! The simulated time plane of one point: an executor, and what it spends over the measured window.

use crate::choice::{Chosen, Transfer};
use crate::engine::TimePlane;
use crate::error::SimError;
use crate::executor::Executor;
use crate::overlap::{Launch, Overlap, TimeConfig, Variant};
use crate::record::TimeTally;
use crate::setup::{Blueprint, Run};
use crate::transfer::Order;
use crate::work::StepWork;
use kvtier_policies::{PolicyError, StepPlan};
use kvtier_traces::Recording;
use kvtier_units::Bytes;

/// Times the steps of one point.
pub struct Timer {
    executor: Executor,
    measure_from: u32,
    tally: TimeTally,
    step_times: Vec<u64>,
    chosen: Chosen,
}

/// How time is modelled, from a configuration's names.
///
/// # Errors
/// If a name is unknown; the error suggests the nearest.
pub fn time_config(
    blueprint: &Blueprint,
    variant: Variant,
    request_region: Bytes,
) -> Result<TimeConfig, SimError> {
    let time = &blueprint.config.time;
    Ok(TimeConfig {
        variant,
        overlap: choose("time.overlap", "overlap mode", &time.overlap, &Overlap::ALL)?,
        transfer: choose("time.transfer", "transfer mechanism", &time.transfer, &Transfer::ALL)?,
        order: if time.sorted { Order::Sorted } else { Order::Random },
        launch: choose("time.launch", "launch mode", &time.launch, &Launch::ALL)?,
        request_region,
        record_ops: false,
    })
}

/// Host memory over which the blocks of one request are spread that one layer may ask for: its longest context.
pub fn request_region(blueprint: &Blueprint, recording: &Recording) -> Bytes {
    let attention = &blueprint.model.attention;
    let last = |&request: &u32| {
        let request = request as usize;
        recording.blocks_at(request, recording.steps(request).saturating_sub(1))
    };
    let blocks = blueprint.requests.iter().map(last).max().unwrap_or(0);
    attention.block_bytes * (u64::from(blocks) * u64::from(attention.head_groups))
}

fn choose<T: Copy>(
    field: &'static str,
    what: &'static str,
    name: &str,
    all: &[(&'static str, T)],
) -> Result<T, PolicyError> {
    all.iter().find(|(known, _)| *known == name).map(|&(_, value)| value).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        PolicyError::unknown(field, what, name, &known)
    })
}

impl Timer {
    /// A timer for a run of this blueprint.
    ///
    /// # Errors
    /// If a time setting is unknown.
    pub fn new(
        blueprint: &Blueprint,
        variant: Variant,
        run: &Run,
        recording: &Recording,
    ) -> Result<Timer, SimError> {
        let config = time_config(blueprint, variant, request_region(blueprint, recording))?;
        Ok(Timer {
            executor: Executor::new(&blueprint.machine, &blueprint.model, config),
            measure_from: run.measure_from,
            tally: TimeTally::default(),
            step_times: Vec::with_capacity(run.steps as usize),
            chosen: Chosen::default(),
        })
    }

    /// Executes one step.
    pub fn step(&mut self, work: &StepWork) {
        let spans = self.executor.run_step(work);
        if work.step < self.measure_from {
            return;
        }
        let total = spans.total();
        let tally = &mut self.tally;
        tally.compute_ns += total.compute.0;
        tally.stall_ns += total.stall.0;
        tally.launch_ns += total.launch.0;
        tally.wait_ns += total.wait.0;
        tally.total_ns += spans.time().0;
        tally.tokens += u64::from(work.requests);
        tally.h2d_bytes += total.h2d.0;
        tally.d2h_bytes += total.d2h.0;
        tally.hbm_copy_bytes += total.copied.0;
        tally.h2d_busy_ns += spans.h2d_busy.0;
        let tiers = &spans.tiers;
        tally.cxl_read_bytes += tiers.read[0].0;
        tally.cxl_write_bytes += tiers.written[0].0;
        tally.nvme_read_bytes += tiers.read[1].0;
        tally.nvme_write_bytes += tiers.written[1].0;
        tally.late_moves += tiers.late;
        tally.covered += total.covered;
        tally.late += total.late;
        self.step_times.push(spans.time().0);
        self.executor.chooser().count(work, &mut self.chosen);
    }

    /// What the reader must know: of the overlap mode, and of what moved blocks; empty where there is nothing.
    pub fn note(&self) -> String {
        let notes: Vec<String> =
            self.executor.note().map(str::to_owned).into_iter().chain(self.chosen.note()).collect();
        notes.join("; ")
    }

    /// The measured window.
    pub fn finish(mut self) -> TimeTally {
        self.step_times.sort_unstable();
        let percentile = |hundredths: usize| match self.step_times.len() {
            0 => 0,
            steps => self.step_times[(steps * hundredths).div_ceil(100).max(1) - 1],
        };
        let (p50, p90, p99) = (percentile(50), percentile(90), percentile(99));
        TimeTally { step_p50_ns: p50, step_p90_ns: p90, step_p99_ns: p99, ..self.tally }
    }
}

impl TimePlane for Timer {
    fn run_step(&mut self, _: &StepPlan, work: &StepWork) -> Result<(), SimError> {
        self.step(work);
        Ok(())
    }
}
