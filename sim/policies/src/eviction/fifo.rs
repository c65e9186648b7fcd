//! FIFO: evicts what was filled first. A pinned block keeps its place in the queue.
//!
//! Total order: time of the last fill, oldest first; fills of one step in fill order.

use super::{BufferShape, EvictionPolicy, Insertion, NoParams, StateClass, StepView};
use crate::{PolicyError, RecencyLog};
use kvtier_units::{BlockId, Slot};

/// First in, first out.
pub struct Fifo {
    /// By time of fill: only a fill touches.
    order: RecencyLog,
}

impl EvictionPolicy for Fifo {
    const NAME: &'static str = "fifo";
    const SUMMARY: &'static str = "evicts what was filled first";
    const STATE: StateClass = StateClass { per_slot: 4, per_block: 0, per_stream: 0 };
    const RESIZES: bool = true;
    const PLAIN: bool = true;
    type Params = NoParams;

    fn new(_: NoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        Ok(Fifo { order: RecencyLog::new(shape.slots) })
    }

    #[inline(always)]
    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        self.order.victims(&view.pins, need, out);
    }

    #[inline(always)]
    fn touch(&mut self, view: &StepView<'_>) {
        self.order.touch(view.loaded());
    }

    #[inline(always)]
    fn hit(&mut self, _: Slot, _: u32) {}

    #[inline(always)]
    fn replace(&mut self, _: BlockId, _: u32, _: &[BlockId]) -> Slot {
        self.order.renew_oldest()
    }

    fn insert(&mut self, _: &StepView<'_>, slot: Slot, _: Insertion, _: u32) {
        self.order.touch(std::iter::once(slot));
    }

    fn resize(&mut self, kept: &[Slot]) {
        self.order.resize(kept);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_hit_does_not_save_and_a_pin_keeps_its_place() {
        let mut bench = Bench::new("fifo", 3, 8);
        bench.step(&[0]);
        bench.step(&[1]);
        bench.step(&[2]);
        bench.step(&[0]);
        assert_eq!(bench.step(&[3]).victims(), [0], "0 is oldest though just hit");
        assert_eq!(bench.step(&[1, 4]).victims(), [2], "1 is oldest but pinned");
        assert_eq!(bench.step(&[5]).victims(), [1], "and is still oldest afterwards");
    }
}
