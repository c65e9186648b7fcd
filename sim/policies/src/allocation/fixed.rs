//! `static`: slots as an operator lists them, for good. And how allocators read their parameters.

use super::{Allocator, BudgetShape};
use crate::{PolicyError, Selection};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Parameters of `uniform`: none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UniformParams {}

/// Parameters of `static`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticParams {
    /// Slots per layer, or per layer and head group (layer by layer). Their sum is at most that of even shares.
    pub slots: Vec<u32>,
}

/// Reads an allocator's parameters.
pub(super) fn read<T: DeserializeOwned>(name: &str, params: &toml::Table) -> Result<T, PolicyError> {
    params.clone().try_into().map_err(|error| PolicyError::Params {
        field: "hot.allocation_params",
        message: format!("allocator `{name}`: {}", error.message()),
    })
}

/// Slots by stream that never change.
pub(super) struct Fixed(Vec<u32>);

impl Fixed {
    pub(super) fn new(params: &toml::Table, shape: &BudgetShape) -> Result<Fixed, PolicyError> {
        let StaticParams { slots } = read("static", params)?;
        let refuse = |message| Err(PolicyError::Params { field: "hot.allocation_params.slots", message });
        let (layers, heads) = (shape.slots.len(), shape.head_groups as usize);
        let by_stream: Vec<u32> = match slots.len() {
            given if given == layers * heads => slots,
            given if given == layers => {
                slots.into_iter().flat_map(|slots| std::iter::repeat_n(slots, heads)).collect()
            }
            given => {
                let message = format!(
                    "{given} figures; give one for each of {layers} layers, or for each of {} layers and head groups",
                    layers * heads
                );
                return refuse(message);
            }
        };
        if let Some(least) = by_stream.iter().find(|&&slots| slots < shape.k) {
            let message =
                format!("{least} slots cannot hold a selection of {} blocks; give at least that", shape.k);
            return refuse(message);
        }
        let sum = |slots: &[u32]| slots.iter().map(|&slots| u64::from(slots)).sum::<u64>();
        let (given, budget) = (sum(&by_stream), sum(&shape.even()));
        if given > budget {
            let message = format!(
                "{given} slots per request in all, and hot.slots allows {budget}; raise hot.slots, or give less"
            );
            return refuse(message);
        }
        Ok(Fixed(by_stream))
    }
}

impl Allocator for Fixed {
    fn join(&mut self, _: u32, _: u32) -> Vec<u32> {
        self.0.clone()
    }

    fn leave(&mut self, _: u32) {}

    fn observe(&mut self, _: u32, _: usize, _: &Selection<'_>) {}

    fn resize(&mut self) -> Vec<(u32, Vec<u32>)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(list: &str) -> Result<Vec<u32>, String> {
        let shape = BudgetShape { slots: vec![4, 6], head_groups: 2, k: 3 };
        let fixed = Fixed::new(&format!("slots = {list}").parse().unwrap(), &shape);
        fixed.map(|mut fixed| fixed.join(0, 9)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_by_layer_or_by_stream_and_keeps_the_budget() {
        assert_eq!(slots("[3, 7]"), Ok(vec![3, 3, 7, 7]));
        assert_eq!(slots("[3, 4, 5, 8]"), Ok(vec![3, 4, 5, 8]));
        let refused = [("[3, 4, 5]", "2 layers"), ("[2, 7]", "at least"), ("[5, 6]", "allows 20")];
        for (list, part) in refused {
            let message = slots(list).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
