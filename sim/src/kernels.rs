//! What kernels cost: launches, a ramp, and the larger of bytes over bandwidth and flops over rate.
//! They stand apart from transfers because they never leave the device.

use crate::machine::Machine;
use crate::model::{Layer, Model, Precision};
use crate::transfer::{distinct, max, nanos};
use kvtier_units::{Bytes, FlopRate, Nanos};

/// Bytes that look-up reads and writes per selected block: its id, tag, slot and table entry.
const LOOKUP_BYTES: f64 = 16.0;
/// Bytes per candidate that top-k moves: a score written by the scoring kernel and read back.
const SCORE_BYTES: f64 = 8.0;
/// Bytes per value when partial results are merged: two partial sums in, one out, in f32.
const MERGE_BYTES: f64 = 12.0;

/// One kernel, or a run of them that nothing else comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// How many are launched.
    pub nodes: u32,
    /// Their time without launches.
    pub body: Nanos,
}

/// Costs of the kernels of one model on one machine.
#[derive(Clone, Debug)]
pub struct KernelCosts {
    /// HBM bytes per ns.
    hbm: f64,
    attention_flops_per_ns: f64,
    product_flops_per_ns: f64,
    attention_ramp_ns: f64,
    ramp_ns: f64,
    dense_nodes: u32,
    block_bytes: f64,
    block_flops: f64,
    index_bytes: f64,
    index_flops: f64,
    entries_per_block: f64,
    head_groups: f64,
    merge_bytes_per_stream: f64,
    weight_bytes: f64,
    ranks: f64,
    head_bytes: f64,
}

impl KernelCosts {
    /// Reads off what the formulas need.
    pub fn new(machine: &Machine, model: &Model) -> KernelCosts {
        let attention = &model.attention;
        let per_ns = |rate: FlopRate| rate.0 as f64 / 1e9;
        let heads = f64::from(attention.query_heads_per_group);
        let entries = f64::from(attention.entries_per_block);
        let products = match model.precision {
            Precision::Bf16 => machine.flops.bf16,
            Precision::Fp8 => machine.flops.fp8,
        };
        KernelCosts {
            hbm: machine.hbm_read.0 as f64 / 1e9,
            attention_flops_per_ns: per_ns(machine.flops.attention),
            product_flops_per_ns: per_ns(products),
            attention_ramp_ns: machine.kernels.attention_ramp.0 as f64,
            ramp_ns: machine.kernels.ramp.0 as f64,
            dense_nodes: machine.kernels.dense_nodes,
            block_bytes: attention.block_bytes.0 as f64,
            block_flops: entries * heads * 2.0 * f64::from(attention.key_dims + attention.value_dims),
            index_bytes: attention.index_bytes_per_block.0 as f64,
            index_flops: attention.index_flops_per_block as f64,
            entries_per_block: entries,
            head_groups: f64::from(attention.head_groups),
            merge_bytes_per_stream: heads * f64::from(attention.value_dims) * MERGE_BYTES,
            weight_bytes: model.precision.weight_bytes() as f64,
            ranks: f64::from(model.ranks),
            head_bytes: model.head_weights.0 as f64,
        }
    }

    /// Scoring all candidates' index keys, then top-k.
    pub fn select(&self, candidate_blocks: u64) -> Kernel {
        let blocks = candidate_blocks as f64;
        let score_ns =
            max(blocks * self.index_bytes / self.hbm, blocks * self.index_flops / self.product_flops_per_ns);
        let top_ns = blocks * SCORE_BYTES / self.hbm;
        Kernel { nodes: 2, body: nanos(2.0 * self.ramp_ns + score_ns + top_ns) }
    }

    /// Looking up the selected blocks among the residents.
    pub fn lookup(&self, selected_blocks: u64) -> Kernel {
        self.simple(selected_blocks as f64 * LOOKUP_BYTES)
    }

    /// Attention over so many blocks.
    pub fn attend(&self, blocks: u64) -> Kernel {
        self.attention(blocks as f64)
    }

    /// Attention over whole contexts of so many entries in all.
    pub fn attend_context(&self, entries: u64) -> Kernel {
        self.attention(entries as f64 * self.head_groups / self.entries_per_block)
    }

    /// Copying so many blocks within HBM, each read and written.
    pub fn copy(&self, blocks: u64) -> Kernel {
        self.simple(2.0 * blocks as f64 * self.block_bytes)
    }

    /// Merging two partial results of so many streams.
    pub fn merge(&self, streams: u32) -> Kernel {
        self.simple(f64::from(streams) * self.merge_bytes_per_stream)
    }

    /// Bytes of weights that one layer streams for a batch: all of them, and of routed experts those that it visits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // weights are far below 2^63 bytes
    pub fn dense_bytes(&self, layer: &Layer, requests: u32) -> Bytes {
        let experts = layer.experts.map_or(0.0, |experts| {
            self.touched(f64::from(experts.per_token), f64::from(experts.count), requests)
                * experts.weights.0 as f64
        });
        layer.shared_weights + Bytes((experts + 0.5) as u64)
    }

    /// Experts of one rank that a batch visits: each rank holds its part of them, and serves the tokens of all ranks.
    fn touched(&self, visits: f64, experts: f64, requests: u32) -> f64 {
        distinct(f64::from(requests) * self.ranks * visits, experts) / self.ranks
    }

    /// Projections and MLP of one layer for a batch.
    pub fn dense(&self, layer: &Layer, requests: u32) -> Kernel {
        let tokens = f64::from(requests);
        let shared = layer.shared_weights.0 as f64;
        let (bytes, weights) = match layer.experts {
            None => (shared, shared / self.weight_bytes),
            Some(experts) => {
                let (one, visits) = (experts.weights.0 as f64, f64::from(experts.per_token));
                let touched = self.touched(visits, f64::from(experts.count), requests);
                (shared + touched * one, (shared + visits * one) / self.weight_bytes)
            }
        };
        let work_ns = max(bytes / self.hbm, 2.0 * weights * tokens / self.product_flops_per_ns);
        Kernel { nodes: self.dense_nodes, body: nanos(f64::from(self.dense_nodes) * self.ramp_ns + work_ns) }
    }

    /// The output head for a batch; its weights are bf16 in every model.
    pub fn head(&self, requests: u32) -> Kernel {
        let flops = self.head_bytes * f64::from(requests);
        let work_ns = max(self.head_bytes / self.hbm, flops / self.product_flops_per_ns);
        Kernel { nodes: 1, body: nanos(self.ramp_ns + work_ns) }
    }

    fn attention(&self, blocks: f64) -> Kernel {
        let work_ns = max(
            blocks * self.block_bytes / self.hbm,
            blocks * self.block_flops / self.attention_flops_per_ns,
        );
        Kernel { nodes: 1, body: nanos(self.attention_ramp_ns + work_ns) }
    }

    fn simple(&self, bytes: f64) -> Kernel {
        Kernel { nodes: 1, body: nanos(self.ramp_ns + bytes / self.hbm) }
    }
}
