//! Random: evicts uniformly among the unpinned, from the stream's own seeded generator.
//! Total order: the order of the draws over the evictable slots in ascending order.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::PolicyError;
use kvtier_units::{RandomStream, Slot};
use rand::RngExt;

/// Uniformly random eviction.
pub struct Random {
    draws: RandomStream,
    pool: Vec<Slot>,
}

impl EvictionPolicy for Random {
    const NAME: &'static str = "random";
    const SUMMARY: &'static str = "evicts uniformly at random (seeded)";
    const STATE: StateClass = StateClass { per_slot: 0, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Random {
            draws: shape.seed.stream("eviction.random"),
            pool: Vec::with_capacity(shape.slots as usize),
        })
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.pool.clear();
        self.pool.extend(view.pins.evictable());
        for _ in 0..need {
            let at = self.draws.random_range(0..self.pool.len());
            out.push(self.pool.swap_remove(at));
        }
    }

    fn touch(&mut self, _: &StepView<'_>) {}

    fn insert(&mut self, _: &StepView<'_>, _: Slot, _: Insertion, _: u32) {}

    fn resize(&mut self, _: &[Slot]) {}
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn the_seed_decides_and_every_block_can_go() {
        let run = |seed: u64| {
            let mut bench = Bench::seeded("random", 4, 200, seed);
            (0..200u32).flat_map(|block| bench.step(&[block]).victims()).collect::<Vec<u32>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let ages: Vec<u32> = run(1).iter().zip(4u32..).map(|(victim, block)| block - victim).collect();
        assert!(ages.contains(&1) && ages.iter().any(|&age| age > 8), "young and old blocks both go");
    }
}
