//! Machines: what a GPU, its link and the tiers behind it can do, read from TOML and checked once.

use crate::constant::{Constant, Permille, Picos, fault};
use crate::transfer::{CopyBatchParams, CopyLoopParams, CopyParams, GatherParams, TransferParams};
use kvtier_units::{Bandwidth, Bytes, FlopRate, Nanos};
use serde::Deserialize;

/// A machine, ready for use.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Preset name.
    pub name: String,
    /// HBM of one GPU.
    pub hbm_capacity: Bytes,
    /// Effective read rate of HBM.
    pub hbm_read: Bandwidth,
    /// Effective arithmetic rates.
    pub flops: FlopRates,
    /// Launch and kernel overheads.
    pub kernels: KernelParams,
    /// Host link, alone.
    pub h2d: Bandwidth,
    /// Host link towards the host, alone.
    pub d2h: Bandwidth,
    /// Each direction while both are in use.
    pub duplex: [Bandwidth; 2],
    /// Effective bandwidth of host memory.
    pub host_bandwidth: Bandwidth,
    /// Host memory given to the KV pool unless a configuration says otherwise.
    pub host_pool: Bytes,
    /// Cost of a lone transfer.
    pub transfer: TransferParams,
    /// CXL memory, where the machine has it.
    pub cxl: Option<Tier>,
    /// NVMe storage, where the machine has it.
    pub nvme: Option<Tier>,
}

/// Effective arithmetic rates.
#[derive(Clone, Copy, Debug)]
pub struct FlopRates {
    /// Dense matrix products in bf16.
    pub bf16: FlopRate,
    /// Dense matrix products in fp8; equal to bf16 where the hardware has none.
    pub fp8: FlopRate,
    /// Attention kernels.
    pub attention: FlopRate,
}

/// Overheads of launches and kernels.
#[derive(Clone, Copy, Debug)]
pub struct KernelParams {
    /// One node of a replayed graph.
    pub graph_node: Nanos,
    /// One submission by the CPU.
    pub submission: Nanos,
    /// What an attention kernel takes beyond its bytes and flops: ramp-up, split, combine.
    pub attention_ramp: Nanos,
    /// The same of any other kernel.
    pub ramp: Nanos,
    /// Kernels in the dense part of a layer.
    pub dense_nodes: u32,
}

/// A tier below host memory, with effective figures.
#[derive(Clone, Copy, Debug)]
pub struct Tier {
    /// Read rate.
    pub read: Bandwidth,
    /// Write rate.
    pub write: Bandwidth,
    /// Latency of one access.
    pub latency: Nanos,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMachine {
    name: String,
    gpu: RawGpu,
    kernels: RawKernels,
    link: RawLink,
    host: RawHost,
    transfer: RawTransfer,
    cxl: Option<RawTier>,
    nvme: Option<RawTier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGpu {
    hbm_capacity: Constant<Bytes>,
    hbm_read: Constant<Bandwidth>,
    bf16: Constant<FlopRate>,
    fp8: Option<Constant<FlopRate>>,
    attention: Constant<FlopRate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKernels {
    graph_node: Constant<Nanos>,
    submission: Constant<Nanos>,
    attention_ramp: Constant<Nanos>,
    ramp: Constant<Nanos>,
    dense_nodes: Constant<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    h2d: Constant<Bandwidth>,
    d2h: Constant<Bandwidth>,
    h2d_duplex: Constant<Bandwidth>,
    d2h_duplex: Constant<Bandwidth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    bandwidth: Constant<Bandwidth>,
    pool: Constant<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    read: Constant<Bandwidth>,
    write: Constant<Bandwidth>,
    latency: Constant<Nanos>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTransfer {
    gather: RawGather,
    copy: RawCopy,
    copy_loop: RawCopyLoop,
    copy_batch: RawCopyBatch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGather {
    rate: Constant<Bandwidth>,
    issue: Constant<Picos>,
    visit: Constant<Picos>,
    page: Constant<Bytes>,
    reach: Constant<Bytes>,
    walk: Constant<Picos>,
    exposed: Constant<Permille>,
    warps: Constant<u32>,
    warp_rate: Constant<Bandwidth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCopy {
    setup: Constant<Picos>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCopyLoop {
    call: Constant<Picos>,
    gap: Constant<Picos>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCopyBatch {
    call: Constant<Picos>,
    gap: Constant<Picos>,
    rate: Constant<Bandwidth>,
    staged_up_to: Constant<Bytes>,
    staging_rate: Constant<Bandwidth>,
    /// Without it a queued block takes what the CPU needs to tell one: files are older than the figure.
    queued: Option<Constant<Picos>>,
}

/// Reads a machine from TOML; the error is a plain sentence that names the field.
pub(crate) fn parse(text: &str) -> Result<Machine, String> {
    let raw: RawMachine = toml::from_str(text).map_err(|error| fault(text, &error))?;
    let machine = lower(&raw);
    check(&machine)?;
    Ok(machine)
}

fn lower(raw: &RawMachine) -> Machine {
    let tier =
        |tier: &RawTier| Tier { read: tier.read.value, write: tier.write.value, latency: tier.latency.value };
    Machine {
        name: raw.name.clone(),
        hbm_capacity: raw.gpu.hbm_capacity.value,
        hbm_read: raw.gpu.hbm_read.value,
        flops: FlopRates {
            bf16: raw.gpu.bf16.value,
            fp8: raw.gpu.fp8.as_ref().unwrap_or(&raw.gpu.bf16).value,
            attention: raw.gpu.attention.value,
        },
        kernels: KernelParams {
            graph_node: raw.kernels.graph_node.value,
            submission: raw.kernels.submission.value,
            attention_ramp: raw.kernels.attention_ramp.value,
            ramp: raw.kernels.ramp.value,
            dense_nodes: raw.kernels.dense_nodes.value,
        },
        h2d: raw.link.h2d.value,
        d2h: raw.link.d2h.value,
        duplex: [raw.link.h2d_duplex.value, raw.link.d2h_duplex.value],
        host_bandwidth: raw.host.bandwidth.value,
        host_pool: raw.host.pool.value,
        transfer: lower_transfer(&raw.transfer, &raw.link),
        cxl: raw.cxl.as_ref().map(tier),
        nvme: raw.nvme.as_ref().map(tier),
    }
}

fn lower_transfer(raw: &RawTransfer, link: &RawLink) -> TransferParams {
    let per_ns = |rate: &Constant<Bandwidth>| rate.value.0 as f64 / 1e9;
    let RawTransfer { gather, copy, copy_loop, copy_batch } = raw;
    TransferParams {
        gather: GatherParams {
            rate: per_ns(&gather.rate),
            issue_ns: gather.issue.value.as_ns(),
            visit_ns: gather.visit.value.as_ns(),
            page: gather.page.value.0 as f64,
            reach: gather.reach.value.0 as f64,
            walk_ns: gather.walk.value.as_ns(),
            exposed: gather.exposed.value.as_fraction(),
            warps: f64::from(gather.warps.value),
            warp_rate: per_ns(&gather.warp_rate),
        },
        copy: CopyParams { rate: per_ns(&link.h2d), setup_ns: copy.setup.value.as_ns() },
        copy_loop: CopyLoopParams {
            call_ns: copy_loop.call.value.as_ns(),
            gap_ns: copy_loop.gap.value.as_ns(),
        },
        copy_batch: CopyBatchParams {
            call_ns: copy_batch.call.value.as_ns(),
            gap_ns: copy_batch.gap.value.as_ns(),
            rate: per_ns(&copy_batch.rate),
            staged_up_to: copy_batch.staged_up_to.value.0 as f64,
            staging_rate: per_ns(&copy_batch.staging_rate),
            queued_ns: copy_batch.queued.as_ref().unwrap_or(&copy_batch.call).value.as_ns(),
        },
    }
}

/// Rates must be positive, and one direction of a link cannot gain from the other's traffic.
fn check(machine: &Machine) -> Result<(), String> {
    let transfer = &machine.transfer;
    let positive = [
        ("gpu.hbm_capacity", machine.hbm_capacity.0 as f64),
        ("gpu.hbm_read", machine.hbm_read.0 as f64),
        ("gpu.bf16", machine.flops.bf16.0 as f64),
        ("gpu.fp8", machine.flops.fp8.0 as f64),
        ("gpu.attention", machine.flops.attention.0 as f64),
        ("host.bandwidth", machine.host_bandwidth.0 as f64),
        ("link.h2d_duplex", machine.duplex[0].0 as f64),
        ("link.d2h_duplex", machine.duplex[1].0 as f64),
        ("transfer.gather.rate", transfer.gather.rate),
        ("transfer.gather.page", transfer.gather.page),
        ("transfer.gather.reach", transfer.gather.reach),
        ("transfer.gather.warps", transfer.gather.warps),
        ("transfer.gather.warp_rate", transfer.gather.warp_rate),
        ("link.h2d", machine.h2d.0 as f64),
        ("link.d2h", machine.d2h.0 as f64),
        ("transfer.copy_batch.rate", transfer.copy_batch.rate),
        ("transfer.copy_batch.staging_rate", transfer.copy_batch.staging_rate),
    ];
    if let Some((field, _)) = positive.iter().find(|(_, value)| *value <= 0.0) {
        return Err(format!("{field}: must be above zero"));
    }
    let directions = [("h2d", machine.h2d, machine.duplex[0]), ("d2h", machine.d2h, machine.duplex[1])];
    for (direction, alone, both) in directions {
        if both > alone {
            return Err(format!("link.{direction}_duplex: {both} is above the {alone} of {direction} alone"));
        }
    }
    // Write-backs are held to `d2h` by the link itself.
    let link = machine.h2d.0 as f64 / 1e9;
    for (field, rate) in [
        ("transfer.gather.rate", transfer.gather.rate),
        ("transfer.copy_batch.rate", transfer.copy_batch.rate),
    ] {
        if rate > link {
            return Err(format!("{field}: {rate} GB/s is above what the link carries"));
        }
    }
    if transfer.gather.exposed > 1.0 {
        return Err("transfer.gather.exposed: a share is at most 1".to_owned());
    }
    Ok(())
}
