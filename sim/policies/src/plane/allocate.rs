//! The plane's budget: an allocator learns from every selection and speaks before every step.

use super::{DecisionPlane, PlaneConfig, SeatSlots};
use crate::PolicyError;
use crate::allocation::{Allocator, BudgetShape};
use crate::eviction::EVICTION;

/// The configured allocator, none where every stream has its even share for good.
///
/// # Errors
/// If its parameters are wrong, or it changes sizes and the eviction policy cannot be resized.
pub(super) fn allocator(config: &PlaneConfig) -> Result<Option<Box<dyn Allocator>>, PolicyError> {
    let (entry, eviction) = (&config.allocation.entry, &config.eviction);
    if entry.resizes && !eviction.resizes {
        let able: Vec<&str> = EVICTION.iter().filter(|entry| entry.resizes).map(|entry| entry.name).collect();
        let message = format!(
            "`{}` changes sizes during the run, and buffers of `{}` cannot be resized; those of these can: {}",
            entry.name,
            eviction.name,
            able.join(", ")
        );
        return Err(PolicyError::Conflict { field: "hot.allocation", message });
    }
    let shape = BudgetShape { slots: config.slots.clone(), head_groups: config.head_groups, k: config.k };
    entry.build(&config.allocation.params, &shape)
}

impl DecisionPlane {
    /// The slots with which the streams of a request start that takes a seat now.
    pub(super) fn starting_slots(&mut self, seat: u32, blocks: u32) -> Vec<u32> {
        match &mut self.allocator {
            Some(allocator) => allocator.join(seat, blocks),
            None => {
                let heads = self.config.head_groups as usize;
                self.config.slots.iter().flat_map(|&slots| std::iter::repeat_n(slots, heads)).collect()
            }
        }
    }

    /// Changes sizes as the allocator says, before a step, and notes them in the plan.
    pub(super) fn reallocate(&mut self) {
        let heads = u64::from(self.config.head_groups);
        let seated = self.seats.iter().flatten().count() as u64;
        let even = |slots: &u32| u64::from(*slots) * heads * seated;
        let Some(allocator) = &mut self.allocator else {
            let layers = self.plan.layers.iter_mut().zip(&self.config.slots);
            return layers.for_each(|(layer, slots)| layer.slots = even(slots));
        };
        let changes = allocator.resize();
        let changes = changes.iter().map(|(seat, slots)| SeatSlots { seat: *seat, slots });
        self.plan.counts = self.resize(&changes.collect::<Vec<_>>());
        for layer in 0..self.config.slots.len() {
            self.plan.layers[layer].slots = self.layer_slots(layer);
        }
        let held: u64 = self.plan.layers.iter().map(|layer| layer.slots).sum();
        let budget: u64 = self.config.slots.iter().map(even).sum();
        assert!(held <= budget, "all buffers together keep to the budget of {budget} slots, and hold {held}");
    }

    fn layer_slots(&self, layer: usize) -> u64 {
        let heads = self.config.head_groups as usize;
        let streams = self.seats.iter().flatten().flat_map(|seat| &seat.streams[layer * heads..][..heads]);
        streams.map(|stream| stream.buffer.blocks().len() as u64).sum()
    }
}
