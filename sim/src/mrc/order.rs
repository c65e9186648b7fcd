//! Which of two blocks a buffer of a given size keeps longer: the orders of lru-step and of Belady.

use super::stack::Order;
use kvtier_units::BlockId;

const NONE: u32 = u32::MAX;

/// Belady's order: the nearer next use. It is the same at every size.
pub(crate) struct ByNextUse(Vec<u32>);

impl ByNextUse {
    /// With the first `start` blocks resident.
    pub(crate) fn new(blocks: u32, first_uses: &[u32], start: u32) -> ByNextUse {
        let mut keys = vec![0; blocks as usize];
        keys[..start as usize].iter_mut().zip(first_uses).for_each(|(key, next)| *key = u32::MAX - next);
        ByNextUse(keys)
    }
}

impl Order for ByNextUse {
    #[inline]
    fn touch(&mut self, block: BlockId, _: u32, _: u32, next_use: u32) {
        self.0[block.index()] = u32::MAX - next_use;
    }

    fn grow(&mut self, block: BlockId, next_use: u32) {
        self.0[block.index()] = u32::MAX - next_use;
    }

    fn end_step(&mut self) {}

    #[inline]
    fn key(&self, block: u32) -> u32 {
        self.0[block as usize]
    }

    /// Ties do not change counts, so any order will do that is the same in every run.
    #[inline]
    fn above(&self, a: u32, b: u32, _: u32) -> bool {
        a < b
    }
}

/// The order of lru-step: the step of the last touch; within a step growth, then hits in their previous order, then loaded
/// blocks, the worst rank first. Whether a touch was a hit depends on the size, so each block has a chain of touches.
pub(crate) struct ByStep {
    /// Step of each block's last touch; the start is step 0.
    step_of: Vec<u32>,
    /// Each block's last touch.
    last: Vec<u32>,
    touches: Vec<Touch>,
    now: u32,
}

#[derive(Clone, Copy)]
struct Touch {
    /// The same block's touch before.
    before: u32,
    step: u32,
    /// It was a hit at sizes from this on; `NONE` for growth and starting blocks.
    hit_from: u32,
    /// Rank; `NONE` for growth, the position for starting blocks.
    rank: u32,
}

impl ByStep {
    /// With the first `start` blocks resident.
    pub(crate) fn new(blocks: u32, start: u32) -> ByStep {
        let mut order = ByStep {
            step_of: vec![0; blocks as usize],
            last: vec![NONE; blocks as usize],
            touches: Vec::new(),
            now: 0,
        };
        (0..start).for_each(|block| order.note(BlockId(block), NONE, block));
        order.now = 1;
        order
    }

    #[inline]
    fn note(&mut self, block: BlockId, hit_from: u32, rank: u32) {
        let at = u32::try_from(self.touches.len()).expect("a stream is touched fewer than 2^32 times");
        let before = std::mem::replace(&mut self.last[block.index()], at);
        self.touches.push(Touch { before, step: self.now, hit_from, rank });
        self.step_of[block.index()] = self.now;
    }
}

impl Order for ByStep {
    #[inline]
    fn touch(&mut self, block: BlockId, rank: u32, hit_from: u32, _: u32) {
        self.note(block, hit_from, rank);
    }

    fn grow(&mut self, block: BlockId, _: u32) {
        self.note(block, NONE, NONE);
    }

    fn end_step(&mut self) {
        self.now += 1;
    }

    #[inline]
    fn key(&self, block: u32) -> u32 {
        self.step_of[block as usize]
    }

    /// Both were last touched in the same step.
    #[inline]
    fn above(&self, a: u32, b: u32, slots: u32) -> bool {
        let touch = |at: u32| self.touches[at as usize];
        let (mut a, mut b) = (touch(self.last[a as usize]), touch(self.last[b as usize]));
        loop {
            if a.step != b.step {
                return a.step > b.step;
            }
            if a.rank == NONE || b.rank == NONE {
                return a.rank == NONE;
            }
            match (a.hit_from <= slots, b.hit_from <= slots) {
                (true, true) => (a, b) = (touch(a.before), touch(b.before)),
                (false, false) => return a.rank > b.rank,
                (hit, _) => return hit,
            }
        }
    }
}
