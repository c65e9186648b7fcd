//! Fits the transfer model to measured rows, and says how well it predicts rows it has not seen.
//! It stands apart because only calibration needs it: no simulated time comes from here.

use crate::transfer::{
    CopyBatchParams, CopyLoopParams, CopyParams, GatherParams, Mechanism, Order, TransferParams,
    TransferShape,
};
use kvtier_units::Bytes;
use serde::Deserialize;
use thiserror::Error;

/// Why a table of measurements could not be used.
#[derive(Debug, Error)]
pub enum FitError {
    /// A row does not parse.
    #[error("transfer table, row {row}: {source}")]
    Row {
        /// Row number, the header being row 1.
        row: usize,
        /// What the CSV reader says.
        source: csv::Error,
    },
    /// A row parses but means nothing.
    #[error("transfer table, row {row}: `{field}` {fault}")]
    Value {
        /// Row number, the header being row 1.
        row: usize,
        /// Column.
        field: &'static str,
        /// What it should be.
        fault: &'static str,
    },
}

/// One measured transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Table it was read from.
    pub table: String,
    /// What was moved, and how.
    pub shape: TransferShape,
    /// Measured time from event to event, ns.
    pub measured_ns: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    table: String,
    mechanism: Mechanism,
    order: Order,
    blocks: u64,
    block_bytes: u64,
    region_bytes: u64,
    requests: u32,
    worst_request: u64,
    unit: String,
    value: f64,
}

/// Reads a table of measurements in CSV.
///
/// # Errors
/// If a row lacks a column, or holds a count of zero, an unknown unit or a value that is not positive.
pub fn read_observations(text: &str) -> Result<Vec<Observation>, FitError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut observations = Vec::new();
    for (index, row) in reader.deserialize().enumerate() {
        let number = index + 2;
        let row: Row = row.map_err(|source| FitError::Row { row: number, source })?;
        let fault = |field, fault| FitError::Value { row: number, field, fault };
        if row.blocks == 0 || row.block_bytes == 0 || row.requests == 0 {
            return Err(fault("blocks", "and block_bytes and requests must be at least 1"));
        }
        if !(row.value.is_finite() && row.value > 0.0) {
            return Err(fault("value", "must be positive"));
        }
        let measured_ns = match row.unit.as_str() {
            "us" => row.value * 1e3,
            "GB/s" => (row.blocks * row.block_bytes) as f64 / row.value,
            _ => return Err(fault("unit", "must be `us` or `GB/s`")),
        };
        observations.push(Observation {
            table: row.table,
            shape: TransferShape {
                mechanism: row.mechanism,
                order: row.order,
                blocks: row.blocks,
                block_bytes: Bytes(row.block_bytes),
                region: Bytes(row.region_bytes),
                requests: row.requests,
                worst_request: row.worst_request,
                // Timed alone, on a stream that was idle.
                queued: false,
            },
            measured_ns,
        });
    }
    Ok(observations)
}

/// Mechanisms that share fitted parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Both SM gathers: seven parameters.
    Gather,
    /// Single copies: one; their rate is the link's.
    Copy,
    /// Copies in a loop: one, after `Copy`.
    CopyLoop,
    /// Copies in a batch: three, after `Copy`.
    CopyBatch,
}

impl Family {
    /// In the order in which they are fitted: later families build on earlier ones.
    pub const ALL: [Family; 4] = [Family::Gather, Family::Copy, Family::CopyLoop, Family::CopyBatch];

    /// The family that a mechanism's rows inform.
    pub fn of(mechanism: Mechanism) -> Family {
        match mechanism {
            Mechanism::Gather | Mechanism::GatherPerRequest => Family::Gather,
            Mechanism::Copy => Family::Copy,
            Mechanism::CopyLoop => Family::CopyLoop,
            Mechanism::CopyBatch => Family::CopyBatch,
        }
    }

    /// The parameters that fitting this family moves; all are positive.
    pub fn free(self, params: &mut TransferParams) -> Vec<&mut f64> {
        let TransferParams { gather: g, copy, copy_loop, copy_batch } = params;
        match self {
            Family::Gather => vec![
                &mut g.rate,
                &mut g.issue_ns,
                &mut g.visit_ns,
                &mut g.reach,
                &mut g.walk_ns,
                &mut g.exposed,
                &mut g.warp_rate,
            ],
            Family::Copy => vec![&mut copy.setup_ns],
            Family::CopyLoop => vec![&mut copy_loop.gap_ns],
            Family::CopyBatch => {
                vec![&mut copy_batch.gap_ns, &mut copy_batch.rate, &mut copy_batch.staging_rate]
            }
        }
    }
}

/// Where fits start: round figures of a PCIe 5.0 GPU, and the constants that no fit moves, among them the rate of a
/// large copy in bytes/ns, which a probe gives directly.
pub fn start(link_rate: f64) -> TransferParams {
    TransferParams {
        gather: GatherParams {
            rate: 50.0,
            issue_ns: 2_000.0,
            visit_ns: 2_000.0,
            page: 65_536.0,
            reach: 1e9,
            walk_ns: 30.0,
            exposed: 0.1,
            warps: 16.0,
            warp_rate: 1.0,
        },
        copy: CopyParams { rate: link_rate, setup_ns: 5_000.0 },
        copy_loop: CopyLoopParams { call_ns: 2_400.0, gap_ns: 2_000.0 },
        copy_batch: CopyBatchParams {
            call_ns: 1_200.0,
            gap_ns: 500.0,
            rate: 50.0,
            staged_up_to: 24_576.0,
            staging_rate: 5.0,
            queued_ns: 550.0,
        },
    }
}

/// Fits all families to `rows`, starting from `start`; parameters without rows keep their start values.
pub fn fit(start: &TransferParams, rows: &[&Observation]) -> TransferParams {
    Family::ALL.iter().fold(*start, |params, &family| fit_family(&params, family, rows))
}

/// Fits the parameters of one family to its own rows among `rows`; the others stay as they are.
pub fn fit_family(start: &TransferParams, family: Family, rows: &[&Observation]) -> TransferParams {
    let rows: Vec<&Observation> =
        rows.iter().copied().filter(|row| Family::of(row.shape.mechanism) == family).collect();
    if rows.is_empty() {
        return *start;
    }
    let origin: Vec<f64> = family.free(&mut start.clone()).iter().map(|value| value.ln()).collect();
    let at = |point: &[f64]| {
        let mut params = *start;
        for (slot, value) in family.free(&mut params).into_iter().zip(point) {
            *slot = value.exp();
        }
        params
    };
    let best = minimise(&origin, |point| {
        let params = at(point);
        // A faint pull to the start settles directions that the rows leave open.
        let pull: f64 = point.iter().zip(&origin).map(|(x, o)| (x - o) * (x - o)).sum();
        rows.iter().map(|row| log_error(&params, row).powi(2)).sum::<f64>() + 1e-4 * pull
    });
    at(&best)
}

/// ln(predicted / measured).
pub fn log_error(params: &TransferParams, row: &Observation) -> f64 {
    (params.isolated_ns(&row.shape) / row.measured_ns).ln()
}

/// A row, and what a model fitted without it predicts.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// The row.
    pub row: Observation,
    /// Predicted time, ns.
    pub predicted_ns: f64,
}

impl HeldOut {
    /// (predicted - measured) / measured.
    pub fn relative_error(&self) -> f64 {
        self.predicted_ns / self.row.measured_ns - 1.0
    }
}

/// Predicts each row by a model fitted to all the others.
pub fn leave_one_out(start: &TransferParams, rows: &[Observation]) -> Vec<HeldOut> {
    let all: Vec<&Observation> = rows.iter().collect();
    let whole = fit(start, &all);
    let without = |left_out: usize| {
        let family = Family::of(rows[left_out].shape.mechanism);
        let others: Vec<&Observation> =
            rows.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, row)| row).collect();
        // Only the row's own family can depend on it, and those fitted after it, which do not predict it.
        let mut params = whole;
        for slot in family.free(&mut params).into_iter().zip(family.free(&mut start.clone())) {
            *slot.0 = *slot.1;
        }
        fit_family(&params, family, &others)
    };
    rows.iter()
        .enumerate()
        .map(|(index, row)| HeldOut {
            row: row.clone(),
            predicted_ns: without(index).isolated_ns(&row.shape),
        })
        .collect()
}

/// Nelder-Mead from `origin`, restarted with a fresh simplex until a restart gains nothing; deterministic.
fn minimise(origin: &[f64], cost: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const RESTARTS: usize = 12;
    let mut best = (cost(origin), origin.to_vec());
    for restart in 0..RESTARTS {
        // Alternating signs look to both sides of the best point so far.
        let step = if restart % 2 == 0 { 0.35 } else { -0.2 };
        let found = nelder_mead(&best.1, step, &cost);
        let gain = best.0 - found.0;
        if found.0 < best.0 {
            best = found;
        }
        if restart > 2 && gain < 1e-7 {
            break;
        }
    }
    best.1
}

type Vertex = (f64, Vec<f64>);

fn nelder_mead(origin: &[f64], step: f64, cost: &impl Fn(&[f64]) -> f64) -> Vertex {
    let n = origin.len();
    let vertex = |point: Vec<f64>| (cost(&point), point);
    let mut simplex: Vec<Vertex> = vec![vertex(origin.to_vec())];
    for axis in 0..n {
        let mut point = origin.to_vec();
        point[axis] += step;
        simplex.push(vertex(point));
    }
    for _ in 0..400 * n {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = simplex[n].clone();
        if worst.0 - simplex[0].0 < 1e-10 {
            break;
        }
        let centre: Vec<f64> =
            (0..n).map(|axis| simplex[..n].iter().map(|v| v.1[axis]).sum::<f64>() / n as f64).collect();
        let towards = |t: f64| vertex(centre.iter().zip(&worst.1).map(|(c, w)| c + t * (c - w)).collect());
        let reflected = towards(1.0);
        simplex[n] = if reflected.0 < simplex[0].0 {
            let expanded = towards(2.0);
            if expanded.0 < reflected.0 { expanded } else { reflected }
        } else if reflected.0 < simplex[n - 1].0 {
            reflected
        } else {
            let contracted = towards(if reflected.0 < worst.0 { 0.5 } else { -0.5 });
            if contracted.0 < worst.0.min(reflected.0) {
                contracted
            } else {
                let best = simplex[0].1.clone();
                for v in &mut simplex[1..] {
                    *v = vertex(best.iter().zip(&v.1).map(|(b, x)| b + 0.5 * (x - b)).collect());
                }
                continue;
            }
        };
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex.swap_remove(0)
}
