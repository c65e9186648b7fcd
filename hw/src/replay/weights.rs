//! What a step reads of the model's weights: how many bytes, and by which products.

use super::ways::refuse;
use super::{ReplayError, Weights};
use crate::ops::dense::Product;
use kvtier_sim::Single;
use kvtier_sim::kernels::KernelCosts;
use kvtier_sim::model::{self, Layer, Model, Precision};
use kvtier_units::Bytes;

/// One layer of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerBytes {
    /// Its number among the layers that select.
    pub(super) sparse: Option<u32>,
    /// What it reads of weights.
    pub(super) read: WeightsRead,
}

/// A run of weights that a step reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WeightsRead {
    /// In words of 16 bytes.
    pub(super) words: u64,
    /// The products that read them; none where they are streamed.
    pub(super) products: Vec<Product>,
}

/// What each layer and the head read of weights.
pub(super) fn read_weights(
    single: &Single,
    seats: u32,
    weights: Weights,
) -> Result<(Vec<LayerBytes>, WeightsRead), ReplayError> {
    let (machine, model) = (&single.blueprint.machine, &single.blueprint.model);
    let costs = KernelCosts::new(machine, model);
    let multiplied = |product: &model::Product| Product { batch: seats, from: product.from, to: product.to };
    let read = |bytes: Bytes, products: Vec<Product>| WeightsRead {
        words: if weights == Weights::LeftOut { 0 } else { bytes.0 / 16 },
        products: if weights == Weights::Multiplied { products } else { Vec::new() },
    };
    let listed = |layer: &Layer| !layer.products.is_empty() && layer.experts.is_none();
    if weights == Weights::Multiplied
        && !(model.precision == Precision::Bf16 && model.layers.iter().all(listed))
    {
        let message = format!(
            "`{}` lists no products in bf16 for all of its layers; let weights be streamed (--weights streamed)",
            model.name
        );
        return Err(refuse("model", message));
    }
    let mut sparse = 0..;
    let layers = model.layers.iter().map(|layer| LayerBytes {
        sparse: if layer.sparse { sparse.next() } else { None },
        read: read(costs.dense_bytes(layer, seats), layer.products.iter().map(multiplied).collect()),
    });
    Ok((layers.collect(), read(model.head_weights, head_product(model, seats, weights)?)))
}

/// The head's product, where weights are multiplied: it takes what the first product does, a row of the hidden state.
fn head_product(model: &Model, seats: u32, weights: Weights) -> Result<Vec<Product>, ReplayError> {
    let first = model.layers.iter().find_map(|layer| layer.products.first());
    let (Weights::Multiplied, Some(first)) = (weights, first) else { return Ok(Vec::new()) };
    let rows = model.head_weights.0 / (u64::from(first.from) * model.precision.weight_bytes());
    match u32::try_from(rows) {
        Ok(to) if to > 0 => Ok(vec![Product { batch: seats, from: first.from, to }]),
        _ => Err(refuse(
            "head_weights",
            format!("`{}`: no product of {} elements reads them", model.name, first.from),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Managed;
    use crate::replay::geometry::Geometry;
    use crate::replay::testing::single;

    #[test]
    fn products_read_what_would_be_streamed() {
        let mut single = single("llama-3.1-8b", "");
        let llama = Geometry::new(&single, Managed::Either, Weights::Multiplied).unwrap();
        let read: u64 = llama.products().map(Product::weight_bytes).sum();
        let streamed: u64 =
            llama.model.iter().map(|layer| layer.read.words * 16).sum::<u64>() + llama.head.words * 16;
        assert_eq!(streamed - read, 32 * 2 * 4096 * 2, "two norms a layer are multiplied by no matrix");
        assert_eq!(llama.operands(), (2 * 14_336, 2 * 128_256));
        single.blueprint.model.head_weights = Bytes(8191);
        let error = Geometry::new(&single, Managed::Either, Weights::Multiplied).unwrap_err().to_string();
        assert!(error.starts_with("head_weights: `llama-3.1-8b`: no product of 4096 elements"), "{error}");
        single.blueprint.model.layers[7].products.clear();
        let error = Geometry::new(&single, Managed::Either, Weights::Multiplied).unwrap_err().to_string();
        assert!(error.starts_with("model: `llama-3.1-8b` lists no products"), "{error}");
    }
}
