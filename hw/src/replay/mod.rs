//! Replays of whole engine steps on a device: the engine's second time plane. The engine reads and decides as ever; the
//! device makes the same decisions, or is told them, moves real blocks and attends to them. Start at [`run`].

mod bring;
mod geometry;
mod graph;
mod integrity;
mod ledger;
mod marks;
mod player;
mod rig;
mod script;
mod spans;
#[cfg(test)]
mod testing;
mod ways;
mod weights;

use crate::ops::dense::Gemm;
use crate::{Device, DeviceInfo, HwError, PinnedBuffer, Spread, Stream};
use geometry::Geometry;
use graph::capture;
use kvtier_sim::engine::Decisions;
use kvtier_sim::overlap::{NOTHING_AHEAD, Overlap};
use kvtier_sim::record::Point;
use kvtier_sim::{SimError, Single};
use kvtier_units::Nanos;
use ledger::Ledger;
use player::{Audit, Pass, Player};
use rig::Rig;
use serde::Serialize;
use thiserror::Error;

pub use integrity::Integrity;
pub use rig::{Home, Kernels};
pub use spans::OpTime;

/// Why a replay on a device did not run.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The configuration is wrong, or asks for what a device does not do.
    #[error(transparent)]
    Setup(SimError),
    /// The device failed, or is too small.
    #[error(transparent)]
    Device(#[from] HwError),
}

impl From<SimError> for ReplayError {
    fn from(error: SimError) -> ReplayError {
        match error {
            SimError::TimePlane(inner) => match inner.downcast::<HwError>() {
                Ok(error) => ReplayError::Device(*error),
                Err(inner) => ReplayError::Setup(SimError::TimePlane(inner)),
            },
            error => ReplayError::Setup(error),
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Managed {
    /// The device where its kernels know the policy, or else the host.
    #[default]
    Either,
    /// The device: the host only says who takes part.
    Device,
    /// The host, whose plans the device executes.
    Host,
}

/// How a step reads the weights of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Once, from end to end, as the simulator has it.
    #[default]
    Streamed,
    /// By the model's products, with the vendor's library.
    Multiplied,
    /// Not at all: only decisions and bytes are of interest.
    LeftOut,
}

/// How a replay runs.
pub struct Options<'a> {
    /// Who decides.
    pub managed: Managed,
    /// How weights are read.
    pub weights: Weights,
    /// Timed passes over the schedule; with none, the traced pass is the only one.
    pub repeats: u32,
    /// Asked once a step; `true` stops the replay.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// What a replay shows besides its point.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The device.
    pub device: DeviceInfo,
    /// Who decided: `device` or `host`.
    pub managed: Managed,
    /// How weights were read.
    pub weights: Weights,
    /// The kernel that attended.
    pub attention: String,
    /// Decision hash of the decision plane.
    pub host_hash: String,
    /// Decision hash of what the device's step left behind.
    pub device_hash: String,
    /// Steps of streams that were compared.
    pub compared: u64,
    /// Of these, steps in which anything differs.
    pub mismatches: u64,
    /// The bytes that were moved.
    pub integrity: Integrity,
    /// Measured window of every timed pass.
    pub window: Spread,
    /// Steps in the window.
    pub steps: usize,
    /// What noting a time adds to each span below, ns; it has been taken off.
    pub stamp_ns: u64,
    /// Sums over the window of the traced pass, ns, by operation; queues beside the kernels' are named.
    pub by_operation: Vec<(String, u64)>,
    /// Every operation of every layer in the traced pass.
    pub operations: Vec<OpTime>,
}

impl Report {
    /// Whether device and host agree and no byte is out of place.
    pub fn holds(&self) -> bool {
        self.mismatches == 0 && self.host_hash == self.device_hash && self.integrity.holds()
    }
}

/// Replays a point: a traced pass whose decisions are read back and compared, then timed passes, then the bytes.
///
/// # Errors
/// If the point asks for what a device does not do, does not fit it, or the device fails. Differences are reported.
pub fn run(device: &Device, single: &Single, options: &Options<'_>) -> Result<(Point, Report), ReplayError> {
    let geometry = Geometry::new(single, options.managed, options.weights)?;
    let (free, total) = device.memory()?;
    geometry.check_device(free, total)?;
    let multiplied = options.weights == Weights::Multiplied;
    let gemm = multiplied.then(|| Gemm::load(device)?.ok_or(HwError::NoProducts)).transpose()?;
    // Before anything slow: what cannot be pinned is found at once.
    let mut home = Some(PinnedBuffer::new(device, geometry.home_bytes_on_host())?);
    let mut kernels = Kernels::load(device)?;
    kernels.gemm = gemm;
    let mut rig = Rig::new(&kernels, geometry, &mut home)?;
    let overhead = stamp_overhead(&rig)?;
    let (traced, plain) = (capture(&rig, true)?, capture(&rig, false)?);
    let audit = Audit::new(&rig.geometry);
    let mut player = Player::new(&mut rig, single, &traced, Some(audit))?;
    let decisions = single.replay(&mut player, options.stop)?;
    let Pass { times, audit, mut ledger } = player.finish()?;
    let audit = audit.expect("an audited pass keeps its audit");
    let warm = ledger.as_ref().map_or(0, Ledger::hash);
    let operations = times.operations(&traced, overhead);
    let (late, chosen) = (times.late(), times.chosen);
    let mut passes = if options.repeats == 0 { vec![times] } else { Vec::new() };
    for _ in 0..options.repeats {
        let mut player = Player::new(&mut rig, single, &plain, None)?;
        single.replay(&mut player, options.stop)?;
        let pass = player.finish()?;
        ledger = pass.ledger;
        passes.push(pass.times);
    }
    let integrity = integrity::check(&mut rig, ledger.as_ref())?;
    passes.sort_by_key(spans::Times::total);
    let window = Spread::of(passes.iter().map(|pass| Nanos(pass.total())).collect());
    let median = &passes[passes.len() / 2];
    let by_device = rig.geometry.ways.policy.is_some();
    let report = Report {
        device: device.info().clone(),
        managed: if by_device { Managed::Device } else { Managed::Host },
        weights: options.weights,
        attention: attention(&rig.geometry),
        host_hash: format!("{:016x}", decisions.hash),
        compared: audit.compared,
        mismatches: audit.mismatches,
        device_hash: format!("{:016x}", audit.hash(warm)),
        integrity,
        window,
        steps: median.steps.len(),
        stamp_ns: overhead,
        by_operation: spans::by_kind(&operations),
        operations,
    };
    let note = note(&report, &rig.geometry, chosen.note());
    let point = single.point(&decisions, (&note, median.tally(&report.operations, late)), options.stop)?;
    Ok((point, report))
}

/// Whether a device can replay a point at all, decided by whom `managed` says; needs no device.
///
/// # Errors
/// If the point asks for what a device does not do; the error names the field.
pub fn accepts(single: &Single, managed: Managed) -> Result<(), ReplayError> {
    Geometry::new(single, managed, Weights::LeftOut).map(drop)
}

/// What a replay shows when only decisions and bytes are of interest.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Who decided.
    pub managed: Managed,
    /// Counts of the whole run.
    pub decisions: Decisions,
    /// Decision hash of what the device's step left behind.
    pub device_hash: u64,
    /// Steps of streams that were compared.
    pub compared: u64,
    /// Of these, steps in which anything differs.
    pub mismatches: u64,
    /// The bytes that were moved.
    pub integrity: Integrity,
}

/// Replays a point once without its weights, and compares decisions and bytes. `home` is taken and left for the next.
///
/// # Errors
/// As [`run`].
pub fn audit(
    kernels: &Kernels,
    single: &Single,
    managed: Managed,
    home: &mut Home,
) -> Result<Audited, ReplayError> {
    let geometry = Geometry::new(single, managed, Weights::LeftOut)?;
    let mut rig = Rig::new(kernels, geometry, home)?;
    let graph = capture(&rig, false)?;
    let audit = Audit::new(&rig.geometry);
    let mut player = Player::new(&mut rig, single, &graph, Some(audit))?;
    let decisions = single.replay(&mut player, &|| false)?;
    let Pass { audit, ledger, .. } = player.finish()?;
    let audit = audit.expect("an audited pass keeps its audit");
    let integrity = integrity::check(&mut rig, ledger.as_ref())?;
    let by_device = rig.geometry.ways.policy.is_some();
    *home = Some(rig.into_home());
    Ok(Audited {
        managed: if by_device { Managed::Device } else { Managed::Host },
        decisions,
        compared: audit.compared,
        mismatches: audit.mismatches,
        device_hash: audit.hash(ledger.as_ref().map_or(0, Ledger::hash)),
        integrity,
    })
}

/// What the reader of the point must know.
fn note(report: &Report, geometry: &Geometry, chosen: Option<String>) -> String {
    let managed = if report.managed == Managed::Device { "device" } else { "host" };
    let idle = geometry.ways.overlap == Overlap::LayerAhead && geometry.budget == 0;
    let weights = if report.weights == Weights::Multiplied { "weights multiplied, " } else { "" };
    let more = idle.then(|| NOTHING_AHEAD.to_owned()).into_iter().chain(chosen);
    let more: String = more.map(|note| format!("; {note}")).collect();
    format!(
        "measured on {}, decided by the {managed}, {}, {weights}median of {} passes; launches are within compute{more}",
        report.device.name, report.attention, report.window.repeats
    )
}

fn attention(geometry: &Geometry) -> String {
    match geometry.shape {
        geometry::Shape::Gqa(gqa) => {
            format!("grouped-query attention over pages of {}, {} heads a group", gqa.page, gqa.group)
        }
        geometry::Shape::Mla(mla) => {
            let kind = if mla.fp8 { "fp8" } else { "bf16" };
            format!("latent attention with {} heads over {kind} rows", mla.heads)
        }
        geometry::Shape::Read => {
            "no attention kernel has the model's shape: one that reads the same bytes stands in".into()
        }
    }
}

/// Least time between two times noted in a row, ns.
fn stamp_overhead(rig: &Rig<'_>) -> Result<u64, HwError> {
    const TIMES: u32 = 16;
    let stamps = |stream: &Stream| {
        (0..TIMES).try_for_each(|at| rig.stamp(stream, &rig.stamps, rig.stamps_per_step(), at))
    };
    let graph = rig.stream.capture(|| stamps(&rig.stream))?;
    let mut least = u64::MAX;
    for _ in 0..5 {
        graph.launch(&rig.stream)?;
        rig.stream.synchronize()?;
        let mut row = vec![0u64; TIMES as usize];
        rig.stamps.read_into(&mut row)?;
        let whole = row[TIMES as usize - 1].saturating_sub(row[0]);
        least = least.min(whole / u64::from(TIMES - 1));
    }
    Ok(least)
}
