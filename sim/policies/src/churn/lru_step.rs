//! lru-step by churn: one number per block, whose order among resident blocks is the policy's order.
//!
//! # Why a number will do
//! Take two resident blocks a and b. A step in which both are hits, or neither is selected, leaves their order as it is; one
//! that selects only a puts a behind b; one that loads a and hits b puts b behind a; one that loads both puts them
//! in the order of loading. So the last step that is none of the first kind decides. Give each block the steps that
//! selected it, since it was loaded, as bits of a number, the latest step highest, and below them its place among
//! the blocks that were loaded with it. Then the larger number is the later block: the highest bit in which a and b differ is the last
//! step that selected one of them alone, or that loaded one of them (it has no lower bits; the other, being resident before, has).
//!
//! A block that stays selected gathers a run of ones, which is the difference of two powers of two: subtract one when it enters and
//! add the other when it leaves. In between the number is negative and nobody needs it, since selected blocks are pinned.
//! When the bits run out, every resident block gets its place in the order as its number (`renumber`).
//! A block that grows enters behind all others: with every step's bit, and a larger lowest part than any other.
//!
//! Victims are the smallest numbers. Blocks that left in the same step make a *group*; numbers of earlier groups are smaller, so
//! only the group that gives victims is put in order, and only what is left of it by then.

use super::frames::Frames;
use super::{Change, ChurnPlan, ChurnReplay};
use crate::Source;
use crate::eviction::BufferShape;
use kvtier_units::{BlockId, Slot};

/// The number of a block that is not resident.
const ABSENT: u64 = u64::MAX;
/// Numbers from here on are negative: the block is selected, or absent.
const NEGATIVE: u64 = 1 << 63;

/// Least recently used, exact by step.
pub struct LruStepChurn {
    frames: Frames,
    /// Per block, from the top: a sign, a bit per step, its place, its slot.
    numbers: Vec<u64>,
    slot_bits: u32,
    /// Position of the first step's bit.
    first_bit: u32,
    /// Places: below this of blocks loaded together, then of blocks that were renumbered, then of blocks that grew.
    k: u64,
    /// Steps since blocks were last renumbered, plus one.
    step: u32,
    grown: u64,
    /// Blocks that left, group after group.
    left: Vec<BlockId>,
    /// Where the group of each step ends in `left`.
    ends: Vec<usize>,
    /// The next group to be put in order, and where it starts.
    group: usize,
    group_start: usize,
    /// Numbers of the group that gives victims, ascending from `next` to `last`; those that changed since do not count.
    victims: Vec<u64>,
    next: usize,
    last: usize,
    missing: Vec<BlockId>,
}

fn bits_for(values: u64) -> u32 {
    u64::BITS - values.leading_zeros()
}

impl LruStepChurn {
    /// Steps after which blocks are renumbered, at most.
    const STEPS: u32 = 64;

    /// An empty buffer.
    ///
    /// # Panics
    /// If the buffer cannot hold one selection, or has 2^20 slots or more.
    pub fn new(shape: BufferShape) -> LruStepChurn {
        assert!(shape.slots < 1 << 20, "a buffer of at least 2^20 slots leaves too few bits for steps");
        let slot_bits = bits_for(u64::from(shape.slots));
        let place_bits = bits_for(u64::from(shape.k) + u64::from(shape.slots) + u64::from(Self::STEPS));
        // What a step may add: a selection that left, and a block that grew.
        let left = (shape.k as usize + 1) * Self::STEPS as usize + shape.slots as usize;
        let mut ends = Vec::with_capacity(Self::STEPS as usize + 1);
        ends.push(0);
        LruStepChurn {
            frames: Frames::new(shape),
            numbers: vec![ABSENT; shape.blocks as usize],
            slot_bits,
            first_bit: slot_bits + place_bits,
            k: u64::from(shape.k),
            step: 1,
            grown: 0,
            left: Vec::with_capacity(left),
            ends,
            group: 1,
            group_start: 0,
            victims: vec![0; shape.slots as usize + 1],
            next: 0,
            last: 0,
            missing: vec![BlockId::NONE; shape.k as usize + 1],
        }
    }

    /// The bit of a step; 0 stands for what was before the last renumbering.
    #[inline(always)]
    fn bit(&self, step: u32) -> u64 {
        1 << (self.first_bit + step)
    }

    #[inline(always)]
    fn number(&self, place: u64, slot: Slot) -> u64 {
        place << self.slot_bits | u64::from(slot.0)
    }

    #[inline(always)]
    fn slot_in(&self, number: u64) -> Slot {
        let slot = number & ((1 << self.slot_bits) - 1);
        Slot(u32::try_from(slot).expect("slots are numbered in 20 bits"))
    }

    /// Takes out the least recent block that is not selected, and returns its slot.
    #[inline(always)]
    fn take_victim(&mut self) -> Slot {
        loop {
            while self.next == self.last {
                self.order_next_group();
            }
            let number = self.victims[self.next];
            self.next += 1;
            let slot = self.slot_in(number);
            let victim = self.frames.block_of[slot.index()].index();
            if self.numbers[victim] == number {
                self.numbers[victim] = ABSENT;
                return slot;
            }
        }
    }

    /// Puts in order what is left of the next group.
    #[inline(always)]
    fn order_next_group(&mut self) {
        let bound = 1u64 << (self.first_bit as usize + self.group);
        let end = self.ends[self.group];
        let (numbers, victims) = (&self.numbers[..], &mut self.victims[..]);
        let mut last = 0;
        for block in &self.left[self.group_start..end] {
            let number = numbers[block.index()];
            victims[last] = number;
            last += usize::from(number < bound);
        }
        // Most groups have few left: by then a sort is a call and a mispredicted branch for each.
        if last > 8 {
            victims[..last].sort_unstable();
        } else {
            for at in 1..last {
                for lower in (0..at).rev() {
                    let (low, high) = (victims[lower], victims[lower + 1]);
                    victims[lower] = low.min(high);
                    victims[lower + 1] = low.max(high);
                }
            }
        }
        (self.next, self.last) = (0, last);
        self.group_start = end;
        self.group += 1;
    }

    #[inline(always)]
    fn take_slot(&mut self) -> Slot {
        self.frames.take_free().unwrap_or_else(|| self.take_victim())
    }

    /// Gives every resident block its place in the order as its number. Those that are not selected make one group.
    #[cold]
    fn renumber(&mut self) {
        let now = self.bit(self.step);
        let filled = self.frames.filled;
        let numbers = self.frames.block_of[..filled].iter().map(|block| self.numbers[block.index()]);
        for (out, number) in self.victims.iter_mut().zip(numbers) {
            *out = if number >= NEGATIVE { number.wrapping_add(now) } else { number };
        }
        self.victims[..filled].sort_unstable();
        self.left.clear();
        self.ends.truncate(1);
        (self.step, self.grown) = (1, 0);
        let first = self.bit(1);
        for (place, at) in (self.k..).zip(0..filled) {
            let slot = self.slot_in(self.victims[at]);
            let block = self.frames.block_of[slot.index()];
            let number = self.number(place, slot);
            let selected = self.numbers[block.index()] >= NEGATIVE;
            self.numbers[block.index()] = if selected { number.wrapping_sub(first) } else { number };
            if !selected {
                self.left.push(block);
            }
        }
        (self.group, self.group_start, self.next, self.last) = (1, 0, 0, 0);
    }

    fn grow(&mut self, block: BlockId) {
        let slot = self.take_slot();
        self.frames.plan.growth = Some(self.frames.fill(block, slot, Source::Grown).0);
        let place = self.k + self.frames.block_of.len() as u64 + self.grown;
        self.grown += 1;
        self.numbers[block.index()] = (self.bit(self.step + 1) - self.bit(0)) | self.number(place, slot);
        // It leaves with those of the next step.
        self.left.push(block);
    }
}

impl ChurnReplay for LruStepChurn {
    fn start(&mut self, blocks: &[BlockId]) {
        for (place, &block) in (self.k..).zip(blocks) {
            let slot = self.frames.take_free().expect("a request starts within an empty buffer");
            self.frames.fill(block, slot, Source::Home);
            self.numbers[block.index()] = self.number(place, slot);
            self.left.push(block);
        }
    }

    fn mark_prefilled(&mut self, blocks: u32) {
        self.frames.mark_prefilled(blocks);
    }

    #[inline]
    fn step(&mut self, change: &Change<'_>, grown: Option<BlockId>) -> &ChurnPlan {
        let now = self.bit(self.step);
        let (numbers, missing) = (&mut self.numbers[..], &mut self.missing[..]);
        self.left.extend(change.left.iter().map(|&block| {
            let number = &mut numbers[block.index()];
            *number = number.wrapping_add(now);
            block
        }));
        self.ends.push(self.left.len());
        let mut missed = 0;
        for &block in change.entered {
            let number = &mut numbers[block.index()];
            missing[missed] = block;
            missed += usize::from(*number == ABSENT);
            *number = number.wrapping_sub(now);
        }
        self.frames.begin();
        for at in 0..missed {
            let block = self.missing[at];
            let slot = self.take_slot();
            self.frames.load(block, slot);
            self.numbers[block.index()] = self.number(at as u64, slot).wrapping_sub(now);
        }
        if let Some(block) = grown.filter(|&block| self.frames.grows(block, change.selected)) {
            self.grow(block);
        }
        self.step += 1;
        if self.first_bit + self.step == u64::BITS - 2 || self.step == Self::STEPS {
            self.renumber();
        }
        &self.frames.plan
    }
}
