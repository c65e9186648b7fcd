//! Measures one machine: what its memory, its host link and its launches give, as a machine file and as the rows from
//! which the transfer model is fitted.

mod attention;
mod fit;
mod machine;
mod transfers;

use crate::ops::dense::Dense;
use crate::roofline::{Beside, Ceilings, Overlap};
use crate::{Device, DeviceInfo, Figure, HwError, Spread, Stream};
use kvtier_units::Nanos;
use serde::{Deserialize, Serialize};
use std::time::Instant;

pub use fit::Fitted;
pub use machine::{MachineFile, nearest_preset};

/// Table of the copies that go to the host: the transfer model describes the other direction.
const TO_HOST: &str = "copy-to-host";

/// One measured transfer: `blocks` blocks of `block_bytes` drawn from `region_bytes` of pinned memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransferRow {
    /// Family of rows that belong together.
    pub table: String,
    /// How the blocks are moved.
    pub mechanism: String,
    /// `random` or `sorted` by address.
    pub order: String,
    /// Blocks moved.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Bytes of the region from which they are drawn.
    pub region_bytes: u64,
    /// Requests among which the blocks are shared.
    pub requests: u32,
    /// Blocks of the request that has most.
    pub worst_request: u64,
    /// Whether other work stood before it in its stream when it was submitted.
    #[serde(default)]
    pub queued: bool,
    /// Time of one transfer.
    pub time: Spread,
}

/// Attention of one batch size: 8 KV heads x 128, group 4, 2048 tokens in pages of 64.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AttentionRow {
    /// Requests.
    pub batch: u32,
    /// Bytes of keys and values read.
    pub bytes: u64,
    /// Time of one call from a cold L2.
    pub time: Spread,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Bandwidths of memory and link.
    pub ceilings: Ceilings,
    /// Host to device while the other direction is busy, GB/s.
    pub to_device_duplex: Figure,
    /// Device to host while the other direction is busy, GB/s.
    pub to_host_duplex: Figure,
    /// Host time of one kernel submission, ns.
    pub submission: Figure,
    /// Host time of one copy submission, ns.
    pub copy_call: Figure,
    /// Host time of one block of a batch of copies, ns.
    pub batch_call: Figure,
    /// Pinning, GB/s.
    pub pinning: Figure,
    /// Bytes pinned.
    pub pinned_bytes: usize,
    /// Attention by batch size.
    pub attention: Vec<AttentionRow>,
    /// Attention beside gathers on multiprocessors of their own.
    pub overlap: Vec<Overlap>,
    /// Transfers.
    pub rows: Vec<TransferRow>,
    /// Wall-clock time of the probe, ms.
    pub took_ms: u64,
}

/// A probe, with where and when it was taken: what a machine file is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// The device.
    pub device: DeviceInfo,
    /// The day, as YYYY-MM-DD.
    pub date: String,
    /// What was measured.
    #[serde(flatten)]
    pub probe: Probe,
}

/// Rounds of all transfers. Neighbours take some of the link, or of the processor that asks for copies, for seconds at a
/// time: of each row the round in the middle counts.
const ROUNDS: usize = 3;

/// Probes the device with `pinned_bytes` of pinned host memory, at least 1 GiB.
///
/// # Errors
/// If the device fails, or device or host have too little memory.
///
/// # Panics
/// If `pinned_bytes` is below 1 GiB, of which single copies make use.
pub fn run(device: &Device, pinned_bytes: usize) -> Result<Probe, HwError> {
    assert!(pinned_bytes >= 1 << 30, "a probe pins at least 1 GiB");
    let began = Instant::now();
    let stream = Stream::new(device)?;
    let dense = Dense::load(device)?;
    let submission = submission(&stream, &dense)?;
    let attention = attention::measure(device, &stream, &dense)?;
    let beside = Beside::new(device, &stream, &dense)?;
    let mut bench = transfers::Bench::new(device, stream, pinned_bytes)?;
    let overlap = bench.overlap(&beside)?;
    drop(beside);
    let rounds = (0..ROUNDS).map(|_| bench.round(&dense)).collect::<Result<Vec<_>, _>>()?;
    Ok(Probe {
        ceilings: Ceilings::middle(&rounds.iter().map(|round| round.ceilings).collect::<Vec<_>>()),
        to_device_duplex: Figure::middle(rounds.iter().map(|round| round.duplex.0)),
        to_host_duplex: Figure::middle(rounds.iter().map(|round| round.duplex.1)),
        submission,
        copy_call: Figure::middle(rounds.iter().map(|round| round.copy_call)),
        batch_call: Figure::middle(rounds.iter().map(|round| round.batch_call)),
        pinning: bench.pinning,
        pinned_bytes,
        attention,
        overlap,
        rows: transfers::in_the_middle(&rounds),
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Host time per launch where the device keeps up, by long runs of empty kernels.
fn submission(stream: &Stream, dense: &Dense) -> Result<Figure, HwError> {
    let launches = 2000u32;
    dense.nothing(stream)?;
    stream.synchronize()?;
    let mut samples = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        for _ in 0..launches {
            dense.nothing(stream)?;
        }
        stream.synchronize()?;
        samples.push(Nanos(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)));
    }
    Ok(Figure::of_calls(samples, u64::from(launches)))
}
