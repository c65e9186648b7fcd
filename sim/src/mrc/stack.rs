//! Thresholds under an order that may depend on the size: a block's place in the stack is the smallest buffer that holds it.
//! A step moves the selection to the front and sinks a pool of displaced blocks through the rest, size by size.

use super::curve::{Curve, Tally};
use super::pass::{Part, Shape, StepInput};
use kvtier_units::BlockId;
use std::cmp::{Ordering, Reverse};

/// Which of two blocks a buffer keeps longer.
pub(crate) trait Order: Send {
    /// Notes a selected block; it was resident at sizes from `hit_from` on.
    fn touch(&mut self, block: BlockId, rank: u32, hit_from: u32, next_use: u32);

    /// Notes the block that the step fills, after the selection.
    fn grow(&mut self, block: BlockId, next_use: u32);

    /// Ends the step.
    fn end_step(&mut self);

    /// Coarse order: the larger stays, at every size.
    fn key(&self, block: u32) -> u32;

    /// Whether `a` stays before `b`, of the same key, in buffers of `slots`.
    fn above(&self, a: u32, b: u32, slots: u32) -> bool;
}

const ABSENT: u32 = u32::MAX;

/// One stream's stack for a range of sizes.
pub(crate) struct Stack<O> {
    order: O,
    sizes: (u32, u32),
    /// The smallest size; its buffer is the front of the stack, in no order.
    base: usize,
    /// Behind the front, the block that each further slot adds.
    stack: Vec<u32>,
    /// Each block's place.
    at: Vec<u32>,
    /// The step that last pinned each block.
    pinned_in: Vec<u32>,
    epoch: u32,
    entering: Vec<u32>,
    front: Vec<(u32, u32)>,
    /// Displaced blocks with their keys, the best first, from `head` on.
    pool: Vec<(u32, u32)>,
    head: usize,
    tally: Tally,
}

impl<O: Order> Stack<O> {
    /// A stack for buffers of `sizes` that starts with blocks `0..start`, the last most recent.
    pub(crate) fn new(order: O, shape: &Shape, sizes: (u32, u32), start: u32) -> Stack<O> {
        let mut at = vec![ABSENT; shape.blocks as usize];
        (0..start).for_each(|block| at[block as usize] = start - 1 - block);
        Stack {
            order,
            sizes,
            base: sizes.0 as usize,
            stack: (0..start).rev().collect(),
            at,
            pinned_in: vec![0; shape.blocks as usize],
            epoch: 0,
            entering: Vec::new(),
            front: Vec::new(),
            pool: Vec::new(),
            head: 0,
            tally: Tally::new(shape.most),
        }
    }

    /// Puts the entering blocks into the front; whom they displace goes to the pool.
    fn enter(&mut self) {
        let held = self.stack.len().min(self.base);
        let displaced = self.entering.len().saturating_sub(self.base - held);
        self.pool.clear();
        self.head = 0;
        if displaced > 0 {
            let (order, slots) = (&self.order, self.sizes.0);
            self.front.clear();
            let stays = |block: &&u32| self.pinned_in[**block as usize] != self.epoch;
            self.front
                .extend(self.stack[..held].iter().filter(stays).map(|&block| (order.key(block), block)));
            let least_first = |a: &(u32, u32), b: &(u32, u32)| {
                let above = || if order.above(a.1, b.1, slots) { Ordering::Greater } else { Ordering::Less };
                a.0.cmp(&b.0).then_with(above)
            };
            if displaced < self.front.len() {
                self.front.select_nth_unstable_by(displaced, least_first);
            }
            self.pool.extend_from_slice(&self.front[..displaced]);
            self.pool.sort_unstable_by_key(|&displaced| Reverse(displaced));
        }
        let mut freed = self.pool.iter();
        for &block in &self.entering {
            let place = if self.stack.len() < self.base {
                self.stack.push(block);
                self.stack.len() - 1
            } else {
                let &(_, victim) = freed.next().expect("every entering block has a place");
                self.at[victim as usize] as usize
            };
            self.stack[place] = block;
            self.at[block as usize] = place_of(place);
        }
    }

    /// Puts a block that found every slot of the front pinned right behind it.
    fn enter_behind(&mut self, block: u32) {
        self.pool.clear();
        self.head = 0;
        if let Some(place) = self.stack.get_mut(self.base) {
            let displaced = std::mem::replace(place, block);
            self.pool.push((self.order.key(displaced), displaced));
        } else {
            self.stack.push(block);
        }
        self.at[block as usize] = place_of(self.base);
        self.sink(self.base + 1);
    }

    /// Sinks the pool: each further slot keeps the best of the pool and of the block that was there.
    fn sink(&mut self, mut place: usize) {
        while let Some(&(best_key, _)) = self.pool.get(self.head) {
            if let Some(&block) = self.stack.get(place) {
                if self.pinned_in[block as usize] != self.epoch {
                    let key = self.order.key(block);
                    if key > best_key {
                        place += 1;
                        continue;
                    }
                    self.hold(key, block);
                }
            } else {
                self.stack.push(ABSENT);
            }
            let best = self.take_best(place_of(place + 1));
            self.stack[place] = best;
            self.at[best as usize] = place_of(place);
            place += 1;
        }
    }

    /// Adds to the pool; further down the stack are mostly older blocks, so this is mostly at its end.
    #[inline]
    fn hold(&mut self, key: u32, block: u32) {
        self.pool.push((key, block));
        let mut at = self.pool.len() - 1;
        while at > self.head && self.pool[at - 1].0 < key {
            self.pool[at] = self.pool[at - 1];
            at -= 1;
        }
        self.pool[at] = (key, block);
    }

    /// Takes out what a buffer of `slots` keeps longest.
    #[inline]
    fn take_best(&mut self, slots: u32) -> u32 {
        let (key, mut best) = self.pool[self.head];
        let mut at = self.head;
        for (other, &(same, block)) in self.pool.iter().enumerate().skip(self.head + 1) {
            if same != key {
                break;
            }
            if self.order.above(block, best, slots) {
                (at, best) = (other, block);
            }
        }
        self.pool.copy_within(self.head..at, self.head + 1);
        self.head += 1;
        best
    }
}

fn place_of(index: usize) -> u32 {
    u32::try_from(index).expect("a stream has fewer than 2^32 blocks")
}

impl<O: Order> Part for Stack<O> {
    fn step(&mut self, input: &StepInput<'_>) {
        self.epoch += 1;
        self.entering.clear();
        let measured = u64::from(input.measured);
        for (rank, block) in input.blocks.iter().enumerate() {
            let at = self.at[block.index()];
            let hit_from = match at {
                ABSENT => ABSENT,
                at => (at + 1).max(self.sizes.0),
            };
            match at {
                ABSENT => self.tally.never += measured,
                _ => self.tally.thresholds[hit_from as usize] += measured,
            }
            self.pinned_in[block.index()] = self.epoch;
            let next_use = input.next_use.get(rank).copied().unwrap_or(u32::MAX);
            self.order.touch(*block, place_of(rank), hit_from, next_use);
            if at == ABSENT || at as usize >= self.base {
                self.entering.push(block.0);
            }
        }
        if let Some((grown, next_use)) = input.grown {
            assert_eq!(self.at[grown.index()], ABSENT, "a growing block was never in the buffer");
            self.pinned_in[grown.index()] = self.epoch;
            self.order.grow(grown, next_use);
        }
        self.order.end_step();
        // With every slot of the front pinned, the new block finds no room in it.
        let behind = input.grown.filter(|_| input.blocks.len() == self.base);
        self.entering.extend(input.grown.filter(|_| behind.is_none()).map(|(grown, _)| grown.0));
        if !self.entering.is_empty() {
            self.enter();
            self.sink(self.base);
        }
        if let Some((grown, _)) = behind {
            self.enter_behind(grown.0);
        }
    }

    fn finish(&self, curve: &mut Curve) {
        curve.add_tally(self.sizes, &self.tally);
    }
}
