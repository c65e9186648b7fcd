//! The simulated time plane of one point: an executor, and what it spends over the measured window.

use crate::engine::TimePlane;
use crate::error::SimError;
use crate::executor::Executor;
use crate::overlap::{Launch, Overlap, TimeConfig, Variant};
use crate::record::TimeTally;
use crate::setup::{Blueprint, Run};
use crate::transfer::{Mechanism, Order};
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
}

/// Mechanisms that can swap in: one large copy cannot, for the misses of a step do not lie together.
const SWAP_IN: [(&str, Mechanism); 4] = [
    ("gather", Mechanism::Gather),
    ("gather-per-request", Mechanism::GatherPerRequest),
    ("copy-loop", Mechanism::CopyLoop),
    ("copy-batch", Mechanism::CopyBatch),
];

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
        mechanism: choose("time.transfer", "transfer mechanism", &time.transfer, &SWAP_IN)?,
        order: if time.sorted { Order::Sorted } else { Order::Random },
        launch: choose("time.launch", "launch mode", &time.launch, &Launch::ALL)?,
        request_region,
        record_ops: false,
    })
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
        let attention = &blueprint.model.attention;
        let last = |&request: &u32| {
            let request = request as usize;
            recording.blocks_at(request, recording.steps(request).saturating_sub(1))
        };
        let blocks = blueprint.requests.iter().map(last).max().unwrap_or(0);
        let region = attention.block_bytes * (u64::from(blocks) * u64::from(attention.head_groups));
        let config = time_config(blueprint, variant, region)?;
        Ok(Timer {
            executor: Executor::new(&blueprint.machine, &blueprint.model, config),
            measure_from: run.measure_from,
            tally: TimeTally::default(),
            step_times: Vec::with_capacity(run.steps as usize),
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
    }

    /// What the reader must know about the overlap mode, if anything.
    pub fn note(&self) -> Option<&'static str> {
        self.executor.note()
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
