//! LRFU, as a crate of its own: a policy needs `kvtier-policies` and nothing else of kvtier.
//!
//! D. Lee and others, "LRFU: A spectrum of policies that subsumes the least recently used and least frequently used
//! policies", IEEE Transactions on Computers 50(12), 2001, <https://doi.org/10.1109/TC.2001.970573>. Each use of a block
//! weighs one, halved with every `half_life` steps that have passed since; the smallest sum of weights leaves first.
//! Deviations: time counts in steps, and a weight falls linearly between its halvings, so that integers suffice.
//! Total order: (weight, slot).

use kvtier_policies::PolicyError;
use kvtier_policies::eviction::{
    self, BufferShape, EVICTION, EvictionPolicy, Insertion, StateClass, StepView,
};
use kvtier_units::Slot;
use serde::Deserialize;

/// Every policy of kvtier, and ours.
pub fn table() -> Vec<eviction::Entry> {
    let mut table = EVICTION.to_vec();
    table.push(eviction::entry::<Lrfu>());
    table
}

/// Parameters of [`Lrfu`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LrfuParams {
    /// Steps in which a weight halves: few lead to LRU, many to LFU.
    pub half_life: u32,
}

impl Default for LrfuParams {
    fn default() -> LrfuParams {
        LrfuParams { half_life: 8 }
    }
}

/// The weight of one use, now.
const ONE: u32 = 1 << 16;

/// Sums of fading weights.
pub struct Lrfu {
    half_life: u32,
    now: u32,
    /// Per slot: the weight as of the last use, and the step of it.
    used: Vec<(u32, u32)>,
    order: Vec<(u32, Slot)>,
}

impl Lrfu {
    fn weight(&self, slot: Slot) -> u32 {
        let (weight, last) = self.used[slot.index()];
        let age = self.now - last;
        let whole = weight.checked_shr(age / self.half_life).unwrap_or(0);
        whole - (whole / 2 / self.half_life) * (age % self.half_life)
    }

    fn credit(&mut self, slot: Slot) {
        self.used[slot.index()] = (self.weight(slot).saturating_add(ONE), self.now);
    }
}

impl EvictionPolicy for Lrfu {
    const NAME: &'static str = "lrfu";
    const SUMMARY: &'static str = "smallest sum of uses, each halved with age";
    const STATE: StateClass = StateClass { per_slot: 8, per_block: 0, per_stream: 4 };
    type Params = LrfuParams;

    fn new(params: LrfuParams, shape: BufferShape) -> Result<Lrfu, PolicyError> {
        if params.half_life == 0 {
            let message = "a half-life of 0 steps forgets everything; give at least 1".into();
            return Err(PolicyError::Params { field: "half_life", message });
        }
        let used = vec![(0, 0); shape.slots as usize];
        Ok(Lrfu {
            half_life: params.half_life,
            now: 0,
            used,
            order: Vec::with_capacity(shape.slots as usize),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(view.pins.evictable().map(|slot| (self.weight(slot), slot)));
        if need < order.len() {
            order.select_nth_unstable(need);
            order.truncate(need);
        }
        order.sort_unstable();
        out.extend(order.iter().map(|&(_, slot)| slot));
        self.order = order;
    }

    fn touch(&mut self, view: &StepView<'_>) {
        self.now += 1;
        view.loaded().for_each(|slot| self.used[slot.index()] = (0, self.now));
        view.slots.iter().for_each(|&slot| self.credit(slot));
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.used[slot.index()] = (ONE, self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvtier_policies::{Below, Selection, StreamPlan};
    use kvtier_units::{BlockId, Seed};

    #[test]
    fn the_block_with_the_smallest_faded_weight_leaves() {
        let entry = *eviction::find(&table(), "lrfu").expect("it is in the table");
        let shape = BufferShape { slots: 2, blocks: 4, k: 1, seed: Seed(1) };
        let params = "half_life = 1".parse().expect("valid TOML");
        let mut buffer = entry.build(&params, shape).expect("valid parameters");
        let mut plan = StreamPlan::default();
        let mut victims = Vec::new();
        // After 0 0 0 1 block 0 weighs 7/8 and block 1 weighs 1; after two more uses of 1, block 0 weighs 7/32.
        for (step, block) in (0u32..).zip([0u32, 0, 0, 1, 2, 2, 3]) {
            let blocks = [BlockId(block)];
            let selection = Selection {
                blocks: &blocks,
                scores: &[],
                near: &[],
                newest: false,
                grown: None,
                foresight: None,
            };
            buffer.step(step, &selection, None, Below::HOST, &mut plan);
            victims.extend(
                plan.loads.iter().filter(|fill| fill.victim != BlockId::NONE).map(|fill| fill.victim.0),
            );
        }
        assert_eq!(victims, [0, 1]);
    }
}
