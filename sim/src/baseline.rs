//! What a KV cache takes of HBM and host memory, and how many requests fit when nothing is offloaded.
//! The baselines' time comes from the executor itself (`Variant`); only their memory is counted here.

use crate::machine::Machine;
use crate::model::Model;
use crate::record::Footprint;
use kvtier_units::Bytes;

/// Blocks of a context of so many entries.
pub fn blocks(model: &Model, entries: u64) -> u64 {
    entries.div_ceil(u64::from(model.attention.entries_per_block))
}

/// Selection keys of one request, all sparse layers; they stay in HBM.
pub fn index_bytes(model: &Model, entries: u64) -> Bytes {
    let streams = u64::from(model.attention.head_groups) * model.sparse_layers() as u64;
    model.attention.index_bytes_per_block * (blocks(model, entries) * streams)
}

/// KV of one request in the layers that do not select; it stays in HBM.
pub fn dense_kv_bytes(model: &Model, entries: u64) -> Bytes {
    layer_kv_bytes(model, entries) * (model.layers.len() - model.sparse_layers()) as u64
}

/// KV of one request in the layers that select: what the host tier holds of it, or HBM without offload.
pub fn sparse_kv_bytes(model: &Model, entries: u64) -> Bytes {
    layer_kv_bytes(model, entries) * model.sparse_layers() as u64
}

/// Hot buffers of one request: `slots` blocks and the reserved one, per stream.
pub fn hot_bytes(model: &Model, slots: u32) -> Bytes {
    let streams = u64::from(model.attention.head_groups) * model.sparse_layers() as u64;
    model.attention.block_bytes * ((u64::from(slots) + 1) * streams)
}

/// Memory of a batch with the whole cache in HBM; dense attention keeps no selection keys.
pub fn resident_footprint(machine: &Machine, model: &Model, contexts: &[u64], selects: bool) -> Footprint {
    let sum = |of: &dyn Fn(u64) -> Bytes| contexts.iter().map(|&entries| of(entries)).sum::<Bytes>().0;
    let index = if selects { sum(&|entries| index_bytes(model, entries)) } else { 0 };
    let hot = sum(&|entries| dense_kv_bytes(model, entries) + sparse_kv_bytes(model, entries));
    let weights = model.weights_per_rank().0;
    Footprint {
        weights,
        index,
        hot,
        hbm_total: weights + index + hot,
        hbm_capacity: machine.hbm_capacity.0,
        host_capacity: machine.host_pool.0,
        ..Footprint::default()
    }
}

/// Requests of so many entries that fit in HBM with the whole cache there; zero if not even the weights do.
pub fn resident_concurrency(machine: &Machine, model: &Model, entries: u64, selects: bool) -> u64 {
    let one = resident_footprint(machine, model, &[entries], selects);
    let left = machine.hbm_capacity.saturating_sub(Bytes(one.weights));
    left.0 / (one.index + one.hot).max(1)
}

fn layer_kv_bytes(model: &Model, entries: u64) -> Bytes {
    model.attention.block_bytes * (blocks(model, entries) * u64::from(model.attention.head_groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn llama_weighs_what_its_checkpoint_does_and_fits_by_hand_count() {
        let (machine, model) =
            (presets::machine("h100-pcie5").unwrap(), presets::model("llama-3.1-8b").unwrap());
        let weights = model.weights_per_rank().0;
        assert!(
            (16_050_000_000..16_070_000_000).contains(&weights),
            "8.03e9 weights of 2 bytes, not {weights} bytes"
        );
        // 32 layers x 8 heads x 128 dims x 2 x 2 B = 128 KiB per token.
        assert_eq!(sparse_kv_bytes(&model, 32_768), Bytes(32_768 * 131_072));
        assert_eq!(index_bytes(&model, 32_768), Bytes(32_768 / 16 * 512 * 8 * 32));
        let left = machine.hbm_capacity.0 - weights;
        assert_eq!(resident_concurrency(&machine, &model, 32_768, false), left / (32_768 * 131_072));
    }

    #[test]
    fn deepseek_shares_its_experts() {
        let model = presets::model("deepseek-v3.2-fp8").unwrap();
        let whole: u64 = {
            let mut alone = model.clone();
            alone.ranks = 1;
            alone.weights_per_rank().0
        };
        assert!((665..685).contains(&(whole / 1_000_000_000)), "about 671 GB, not {whole}");
        assert!((95..105).contains(&(model.weights_per_rank().0 / 1_000_000_000)));
    }
}
