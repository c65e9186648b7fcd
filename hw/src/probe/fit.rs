//! The transfer model fitted to a probe's rows: the same fit that the shipped machines were made with.

use super::Probe;
use kvtier_sim::transfer::{Mechanism, Order, TransferParams, TransferShape};
use kvtier_sim::transfer_fit::{self, Observation, log_error};
use kvtier_units::Bytes;

/// Warps of one thread block of the gather per request.
const WARPS_PER_REQUEST: u32 = 32;

/// The fitted model, and how well it reproduces the rows it was fitted to.
#[derive(Clone, Copy, Debug)]
pub struct Fitted {
    /// The model.
    pub params: TransferParams,
    /// Rows fitted to.
    pub rows: usize,
    /// Middle of the relative errors' sizes.
    pub median_error: f64,
    /// Largest of them.
    pub worst_error: f64,
}

/// Fits the model to the transfers to the device.
pub(super) fn fit(probe: &Probe) -> Fitted {
    let rows: Vec<Observation> = probe.rows.iter().filter_map(observation).collect();
    let mut start = transfer_fit::start(probe.ceilings.to_device);
    start.gather.issue_ns = probe.ceilings.graph_node * 1000.0;
    start.gather.warps = f64::from(WARPS_PER_REQUEST);
    start.copy_loop.call_ns = probe.copy_call.value;
    start.copy_batch.call_ns = probe.batch_call.value;
    let alone: Vec<&Observation> = rows.iter().filter(|row| !row.shape.queued).collect();
    let mut params = transfer_fit::fit(&start, &alone);
    // No transfer is faster than the link, whatever a fit finds within the noise.
    let link = (probe.ceilings.to_device * 1e3).floor() / 1e3;
    params.gather.rate = params.gather.rate.min(link);
    params.copy_batch.rate = params.copy_batch.rate.min(link);
    params.copy_batch.queued_ns = queued(&params, &rows).unwrap_or(params.copy_batch.call_ns);
    let mut errors: Vec<f64> = rows.iter().map(|row| log_error(&params, row).exp_m1().abs()).collect();
    errors.sort_by(f64::total_cmp);
    Fitted {
        params,
        rows: rows.len(),
        median_error: errors.get(errors.len() / 2).copied().unwrap_or(0.0),
        worst_error: errors.last().copied().unwrap_or(0.0),
    }
}

/// What a block of a batch that finds other work in its stream takes beyond its bytes over the link: the middle of the
/// rows, ns.
fn queued(params: &TransferParams, rows: &[Observation]) -> Option<f64> {
    let beyond = |row: &Observation| {
        let shape = &row.shape;
        (row.measured_ns - params.copy.setup_ns) / shape.blocks as f64
            - shape.block_bytes.0 as f64 / params.copy.rate
    };
    let mut all: Vec<f64> = rows.iter().filter(|row| row.shape.queued).map(beyond).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).map(|middle| middle.max(0.0))
}

/// A row as the fit takes it; `None` for transfers that the model does not describe.
fn observation(row: &super::TransferRow) -> Option<Observation> {
    let (_, mechanism) = Mechanism::ALL.into_iter().find(|(name, _)| *name == row.mechanism)?;
    let to_device = row.table != super::TO_HOST;
    let order = if row.order == "sorted" { Order::Sorted } else { Order::Random };
    to_device.then(|| Observation {
        table: row.table.clone(),
        shape: TransferShape {
            mechanism,
            order,
            blocks: row.blocks,
            block_bytes: Bytes(row.block_bytes),
            region: Bytes(row.region_bytes),
            requests: row.requests,
            worst_request: row.worst_request,
            queued: row.queued,
        },
        measured_ns: row.time.median_ps as f64 / 1000.0,
    })
}
