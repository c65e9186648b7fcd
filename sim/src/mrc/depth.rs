//! Stack depths of lru. The stack is kept as groups, one per step, of the blocks that no later step touched: a depth is the
//! size of the later groups, from a Fenwick tree, plus the place within the group, from a bitmap.

use super::curve::{Curve, Tally};
use super::pass::{Part, Shape, StepInput};

/// The group of blocks that are not in the stack.
const ABSENT: u32 = u32::MAX;
/// The group of the blocks of the start; step i makes group i + 1.
const START: u32 = 0;
/// The place of the block that grew in the group's step.
const GROWN: u32 = 0;

/// One stream's lru stack.
pub(crate) struct Depths {
    shape: Shape,
    /// Group and place of each block's last touch; lower places are more recent.
    last: Vec<(u32, u32)>,
    /// Blocks of the start that were never touched, by place.
    start: Vec<u64>,
    /// Per later group, which of its places still count.
    bits: Vec<u64>,
    words: usize,
    /// Blocks that count, by group.
    live: Fenwick,
    total: u32,
    now: u32,
    /// Groups whose grown block found all k slots of the smallest buffer pinned: only larger ones hold it. Newest last.
    homebound: Vec<u32>,
    tally: Tally,
    /// First touches of blocks of the start: hits from their depth on where they are resident.
    first: Tally,
}

impl Depths {
    pub(crate) fn new(shape: Shape) -> Depths {
        let (blocks, full) = (shape.blocks as usize, shape.full as usize);
        let words = (shape.k as usize + 1).div_ceil(64);
        let mut start = vec![u64::MAX; full.div_ceil(64)];
        if let Some(last) = start.last_mut().filter(|_| full % 64 != 0) {
            *last = (1 << (full % 64)) - 1;
        }
        let mut live = Fenwick::new(shape.steps as usize + 1);
        live.add(START, shape.full);
        // Starting blocks are touched in position order, so the last is the most recent.
        let last = (0..shape.full).rev().map(|place| (START, place)).chain(std::iter::repeat((ABSENT, 0)));
        Depths {
            last: last.take(blocks).collect(),
            start,
            bits: vec![0; words * shape.steps as usize],
            words,
            live,
            total: shape.full,
            now: START,
            homebound: Vec::new(),
            tally: Tally::new(shape.most),
            first: Tally::new(shape.most),
            shape,
        }
    }

    fn group(&mut self, group: u32) -> &mut [u64] {
        match group {
            START => &mut self.start,
            group => &mut self.bits[(group as usize - 1) * self.words..][..self.words],
        }
    }

    /// Blocks at least as recent as the one at this place.
    fn depth(&self, group: u32, place: u32) -> u32 {
        let bits = match group {
            START => &self.start[..],
            group => &self.bits[(group as usize - 1) * self.words..][..self.words],
        };
        let (word, bit) = (place as usize / 64, place % 64);
        let before: u32 = bits[..word].iter().map(|word| word.count_ones()).sum();
        let within = before + (bits[word] & ((1 << bit) - 1)).count_ones();
        self.total - self.live.up_to(group) + within + 1
    }

    /// The smallest buffer that holds the block at this place.
    fn threshold(&self, group: u32, place: u32) -> u32 {
        let (depth, k) = (self.depth(group, place), self.shape.k);
        if self.homebound.is_empty() || (depth <= k && place != GROWN) {
            return depth;
        }
        if place == GROWN && self.homebound.contains(&group) {
            return depth.max(k + 1);
        }
        let above = self.homebound.iter().filter(|&&other| other >= group).count();
        if depth as usize - above <= k as usize { k } else { depth }
    }

    /// Notes a block that all but the smallest buffer take in. One with k blocks of the smallest buffer above it is
    /// forgotten: nothing below it is in that buffer, with or without it.
    fn note_homebound(&mut self, now: u32) {
        let mut homebound = std::mem::take(&mut self.homebound);
        let mut above = homebound.len();
        homebound.retain(|&group| {
            above -= 1;
            (self.depth(group, GROWN) - 1) as usize - above < self.shape.k as usize
        });
        homebound.push(now);
        self.homebound = homebound;
    }

    /// Looks every block up in the stack as it stands.
    #[inline]
    fn count(&mut self, input: &StepInput<'_>) {
        let k = self.shape.k as usize;
        let homebound = self.homebound.last() == Some(&self.now);
        for block in input.blocks {
            let (group, place) = self.last[block.index()];
            if group == self.now && group != START {
                // Nothing came after the last step's selection: resident in every buffer.
                self.tally.thresholds[k + usize::from(homebound && place == GROWN)] += 1;
            } else if group == ABSENT {
                self.tally.never += 1;
            } else {
                let threshold = self.threshold(group, place) as usize;
                let tally = if group == START { &mut self.first } else { &mut self.tally };
                tally.thresholds[threshold] += 1;
            }
        }
    }
}

impl Part for Depths {
    #[inline]
    fn step(&mut self, input: &StepInput<'_>) {
        if input.measured {
            self.count(input);
        }
        let (previous, now) = (self.now, self.now + 1);
        let mut moved = 0; // out of the previous group, the usual case: one update of the tree for all
        for (place, block) in (1u32..).zip(input.blocks) {
            let (group, old) = std::mem::replace(&mut self.last[block.index()], (now, place));
            if group == ABSENT {
                self.total += 1;
                continue;
            }
            self.group(group)[old as usize / 64] &= !(1 << (old % 64));
            if old == GROWN {
                self.homebound.retain(|&other| other != group);
            }
            if group == previous {
                moved += 1;
            } else {
                self.live.take(group, 1);
            }
        }
        self.live.take(previous, moved);
        let mut size = u32::try_from(input.blocks.len()).expect("a selection counts in 32 bits");
        let bits = self.group(now);
        (1..=size as usize).for_each(|place| bits[place / 64] |= 1 << (place % 64));
        if let Some((grown, _)) = input.grown {
            assert_eq!(self.last[grown.index()].0, ABSENT, "a growing block was never in the buffer");
            self.last[grown.index()] = (now, 0);
            self.group(now)[0] |= 1;
            self.total += 1;
            size += 1;
        }
        self.live.add(now, size);
        self.now = now;
        if input.grown.is_some() && input.blocks.len() == self.shape.k as usize {
            self.note_homebound(now);
        }
    }

    fn finish(&self, curve: &mut Curve) {
        let mut warm = self.tally.clone();
        let pairs = warm.thresholds.iter_mut().zip(&self.first.thresholds);
        pairs.for_each(|(sum, first)| *sum += first);
        if let Some(sizes) = self.shape.sizes_without_start() {
            let never = self.tally.never + self.first.thresholds.iter().sum::<u64>();
            curve.add_tally(sizes, &Tally { thresholds: self.tally.thresholds.clone(), never });
        }
        if let Some(sizes) = self.shape.sizes_with_start() {
            curve.add_tally(sizes, &warm);
        }
    }
}

/// Sums over a prefix, and updates, in logarithmic time.
struct Fenwick(Vec<u32>);

impl Fenwick {
    fn new(size: usize) -> Fenwick {
        Fenwick(vec![0; size + 1])
    }

    fn add(&mut self, at: u32, count: u32) {
        let mut node = at as usize + 1;
        while node < self.0.len() {
            self.0[node] += count;
            node += node & node.wrapping_neg();
        }
    }

    fn take(&mut self, at: u32, count: u32) {
        let mut node = at as usize + 1;
        while node < self.0.len() {
            self.0[node] -= count;
            node += node & node.wrapping_neg();
        }
    }

    /// The sum of elements `0..=last`.
    fn up_to(&self, last: u32) -> u32 {
        let mut node = last as usize + 1;
        let mut sum = 0;
        while node > 0 {
            sum += self.0[node];
            node &= node - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_sums_follow_updates() {
        let mut tree = Fenwick::new(5);
        (0..5).for_each(|at| tree.add(at, at + 1));
        tree.take(2, 3);
        let sums: Vec<u32> = (0..5).map(|last| tree.up_to(last)).collect();
        assert_eq!(sums, [1, 3, 3, 7, 12]);
    }
}
