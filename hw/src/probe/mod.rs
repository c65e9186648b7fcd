//! Measures one machine: what its memory, its host link and its launches give, as a machine file and as the rows from
//! which the transfer model is fitted.

mod machine;
mod transfers;

use crate::ops::dense::Dense;
use crate::roofline::{Ceilings, ceilings};
use crate::{Device, HwError, Spread, Stream};
use serde::Serialize;
use std::time::Instant;

pub use machine::machine_file;

/// One measured transfer: `blocks` blocks of `block_bytes` drawn from `region_bytes` of pinned memory.
#[derive(Clone, Debug, Serialize)]
pub struct TransferRow {
    /// Family of rows that belong together.
    pub table: &'static str,
    /// How the blocks are moved.
    pub mechanism: &'static str,
    /// `random` or `sorted` by address.
    pub order: &'static str,
    /// Blocks moved.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Bytes of the region from which they are drawn.
    pub region_bytes: u64,
    /// Time of one transfer.
    pub time: Spread,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Bandwidths of memory and link.
    pub ceilings: Ceilings,
    /// Host to device while the other direction is busy, GB/s.
    pub to_device_duplex: f64,
    /// Device to host while the other direction is busy, GB/s.
    pub to_host_duplex: f64,
    /// Host time of one kernel submission, ns.
    pub submission_ns: u64,
    /// Host time of one copy submission, ns.
    pub copy_call_ns: u64,
    /// Pinning, GB/s.
    pub pinning: f64,
    /// Bytes pinned.
    pub pinned_bytes: usize,
    /// Transfers.
    pub rows: Vec<TransferRow>,
    /// Wall-clock time of the probe, ms.
    pub took_ms: u128,
}

impl Probe {
    /// The transfers as CSV, one row each, in the columns that the transfer model is fitted to; the last column is the
    /// distance of slowest and fastest repeat as a share of the median.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "table,mechanism,order,blocks,block_bytes,region_bytes,requests,worst_request,unit,value,spread\n",
        );
        for row in &self.rows {
            text += &format!(
                "{},{},{},{},{},{},1,{},us,{:.3},{:.3}\n",
                row.table,
                row.mechanism,
                row.order,
                row.blocks,
                row.block_bytes,
                row.region_bytes,
                row.blocks,
                row.time.micros(),
                row.time.relative()
            );
        }
        text
    }
}

/// Probes the device with `pinned_bytes` of pinned host memory.
///
/// # Errors
/// If the device fails, or device or host have too little memory.
pub fn run(device: &Device, pinned_bytes: usize) -> Result<Probe, HwError> {
    let began = Instant::now();
    let stream = Stream::new(device)?;
    let dense = Dense::load(device)?;
    let ceilings = ceilings(device, &stream, &dense)?;
    let submission_ns = submission(&stream, &dense)?;
    let mut bench = transfers::Bench::new(device, stream, pinned_bytes)?;
    let (to_device_duplex, to_host_duplex) = bench.duplex()?;
    let copy_call_ns = bench.copy_call()?;
    bench.copies()?;
    bench.gathers()?;
    Ok(Probe {
        ceilings,
        to_device_duplex,
        to_host_duplex,
        submission_ns,
        copy_call_ns,
        pinning: bench.pinning,
        pinned_bytes,
        rows: bench.rows,
        took_ms: began.elapsed().as_millis(),
    })
}

/// Host time per launch where the device keeps up, by a long run of empty kernels.
fn submission(stream: &Stream, dense: &Dense) -> Result<u64, HwError> {
    let launches = 2000u32;
    dense.nothing(stream)?;
    stream.synchronize()?;
    let began = Instant::now();
    for _ in 0..launches {
        dense.nothing(stream)?;
    }
    stream.synchronize()?;
    Ok(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / u64::from(launches))
}
