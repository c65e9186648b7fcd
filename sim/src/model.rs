//! Models: the shapes that decide how many bytes a decode step reads and moves, read from TOML and checked once.

use crate::constant::{Constant, fault};
use kvtier_units::Bytes;
use serde::{Deserialize, Serialize};

/// A model as one rank of its deployment sees it, ready for use.
#[derive(Clone, Debug)]
pub struct Model {
    /// Preset name.
    pub name: String,
    /// Shape of attention and of what selects for it.
    pub attention: Attention,
    /// Every layer, in order.
    pub layers: Vec<Layer>,
    /// Weights outside the layers that every step streams: the output head.
    pub head_weights: Bytes,
    /// Weights outside the layers that are only looked up: the embedding, where it is not the head's.
    pub embedding_weights: Bytes,
    /// Arithmetic of matrix products.
    pub precision: Precision,
    /// Ranks that share the experts; each has its own requests and a copy of everything else.
    pub ranks: u32,
}

/// Number format of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Two bytes per weight.
    Bf16,
    /// One byte per weight.
    Fp8,
}

impl Precision {
    /// Bytes of one weight.
    pub fn weight_bytes(self) -> u64 {
        match self {
            Precision::Bf16 => 2,
            Precision::Fp8 => 1,
        }
    }
}

/// Shape of attention and selection, the same in all layers.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// KV-head groups that select apart; 1 for MLA.
    pub head_groups: u32,
    /// Query heads that read each group's blocks.
    pub query_heads_per_group: u32,
    /// Width of the query-key product.
    pub key_dims: u32,
    /// Width of the values.
    pub value_dims: u32,
    /// Entries in a block.
    pub entries_per_block: u32,
    /// KV bytes of one block of one group in one layer.
    pub block_bytes: Bytes,
    /// Blocks that one group selects in one layer.
    pub selected_blocks: u32,
    /// Selection keys kept in HBM, per block and group.
    pub index_bytes_per_block: Bytes,
    /// Arithmetic to score one block for one group.
    pub index_flops_per_block: u64,
}

/// One layer's weights on one rank, and whether it selects.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Whether attention reads a selection instead of the whole context.
    pub sparse: bool,
    /// Weights that every step streams: attention, norms, shared experts or the whole MLP.
    pub shared_weights: Bytes,
    /// The products that read the shared weights, where the file lists them; norms and the like are in none.
    pub products: Vec<Product>,
    /// Routed experts, where the layer has them.
    pub experts: Option<Experts>,
}

/// The shape of weights that one matrix product reads. Written as `[4096, 6144]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "[u32; 2]")]
pub struct Product {
    /// Elements that go in, per request.
    pub from: u32,
    /// Elements that come out.
    pub to: u32,
}

impl From<[u32; 2]> for Product {
    fn from([from, to]: [u32; 2]) -> Product {
        Product { from, to }
    }
}

impl Product {
    /// How many weights there are.
    pub fn weights(self) -> u64 {
        u64::from(self.from) * u64::from(self.to)
    }
}

/// Routed experts of one layer, over all ranks.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// How many there are.
    pub count: u32,
    /// How many each token visits.
    pub per_token: u32,
    /// Weights of one.
    pub weights: Bytes,
}

impl Model {
    /// Layers that select, in order.
    pub fn sparse_layers(&self) -> usize {
        self.layers.iter().filter(|layer| layer.sparse).count()
    }

    /// Weights that one rank keeps in HBM.
    pub fn weights_per_rank(&self) -> Bytes {
        let experts = |layer: &Layer| match layer.experts {
            Some(experts) => {
                Bytes((experts.weights * u64::from(experts.count)).0.div_ceil(u64::from(self.ranks)))
            }
            None => Bytes::ZERO,
        };
        let layers: Bytes = self.layers.iter().map(|layer| layer.shared_weights + experts(layer)).sum();
        layers + self.head_weights + self.embedding_weights
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: String,
    precision: Constant<Precision>,
    ranks: Constant<u32>,
    attention: RawAttention,
    layers: Vec<RawLayers>,
    head_weights: Constant<Bytes>,
    embedding_weights: Constant<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAttention {
    head_groups: Constant<u32>,
    query_heads_per_group: Constant<u32>,
    key_dims: Constant<u32>,
    value_dims: Constant<u32>,
    entries_per_block: Constant<u32>,
    block_bytes: Constant<Bytes>,
    selected_blocks: Constant<u32>,
    index_bytes_per_block: Constant<Bytes>,
    index_flops_per_block: Constant<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLayers {
    count: Constant<u32>,
    sparse: Constant<bool>,
    shared_weights: Constant<Bytes>,
    products: Option<Constant<Vec<Product>>>,
    experts: Option<RawExperts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExperts {
    count: Constant<u32>,
    per_token: Constant<u32>,
    weights: Constant<Bytes>,
}

/// Reads a model from TOML; the error is a plain sentence that names the field.
pub(crate) fn parse(text: &str) -> Result<Model, String> {
    let raw: RawModel = toml::from_str(text).map_err(|error| fault(text, &error))?;
    let model = lower(&raw);
    check(&model)?;
    Ok(model)
}

fn lower(raw: &RawModel) -> Model {
    let attention = &raw.attention;
    let layer = |group: &RawLayers| Layer {
        sparse: group.sparse.value,
        shared_weights: group.shared_weights.value,
        products: group.products.as_ref().map_or_else(Vec::new, |products| products.value.clone()),
        experts: group.experts.as_ref().map(|experts| Experts {
            count: experts.count.value,
            per_token: experts.per_token.value,
            weights: experts.weights.value,
        }),
    };
    Model {
        name: raw.name.clone(),
        attention: Attention {
            head_groups: attention.head_groups.value,
            query_heads_per_group: attention.query_heads_per_group.value,
            key_dims: attention.key_dims.value,
            value_dims: attention.value_dims.value,
            entries_per_block: attention.entries_per_block.value,
            block_bytes: attention.block_bytes.value,
            selected_blocks: attention.selected_blocks.value,
            index_bytes_per_block: attention.index_bytes_per_block.value,
            index_flops_per_block: attention.index_flops_per_block.value,
        },
        layers: raw
            .layers
            .iter()
            .flat_map(|group| std::iter::repeat_n(layer(group), group.count.value as usize))
            .collect(),
        head_weights: raw.head_weights.value,
        embedding_weights: raw.embedding_weights.value,
        precision: raw.precision.value,
        ranks: raw.ranks.value,
    }
}

/// Counts must be positive and experts consistent.
fn check(model: &Model) -> Result<(), String> {
    let attention = &model.attention;
    let positive = [
        ("ranks", u64::from(model.ranks)),
        ("attention.head_groups", u64::from(attention.head_groups)),
        ("attention.query_heads_per_group", u64::from(attention.query_heads_per_group)),
        ("attention.key_dims", u64::from(attention.key_dims)),
        ("attention.value_dims", u64::from(attention.value_dims)),
        ("attention.entries_per_block", u64::from(attention.entries_per_block)),
        ("attention.block_bytes", attention.block_bytes.0),
        ("attention.selected_blocks", u64::from(attention.selected_blocks)),
        ("layers", model.layers.len() as u64),
        ("layers.sparse", model.sparse_layers() as u64),
    ];
    if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(format!("{field}: must be above zero"));
    }
    for layer in &model.layers {
        if layer.products.iter().any(|product| product.weights() == 0) {
            return Err("layers.products: a product takes and gives at least one element".to_owned());
        }
        let weights: u128 = layer.products.iter().map(|product| u128::from(product.weights())).sum();
        let (read, shared) = (weights * u128::from(model.precision.weight_bytes()), layer.shared_weights);
        if read > u128::from(shared.0) {
            return Err(format!("layers.products: they read {read} B, of {shared} in shared_weights"));
        }
    }
    for experts in model.layers.iter().filter_map(|layer| layer.experts) {
        if experts.per_token == 0 || experts.per_token > experts.count {
            return Err(format!(
                "layers.experts.per_token: {} is not between 1 and the {} experts there are",
                experts.per_token, experts.count
            ));
        }
    }
    Ok(())
}
