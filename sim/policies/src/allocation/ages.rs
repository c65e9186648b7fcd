//! One stream as an allocator sees it: how long ago its blocks were selected, and how often blocks of each age were
//! selected again. A shadow over all blocks of the context, whatever is resident.

use crate::Selection;
use kvtier_units::BlockId;

/// Ages that are told apart, in steps; what is older counts as one age.
pub(super) const AGES: usize = 128;
/// Counts are in 256ths, so that they can fade.
const COUNT: u64 = 256;
/// Each step counts keep all but 2^-7 of themselves.
const FADE_BITS: u32 = 7;
/// Rates are in units of 2^-16.
const RATE_BITS: u32 = 16;

/// Bytes per block: the step of its last selection.
pub(super) const BYTES_PER_BLOCK: u32 = 4;
/// Bytes per stream: blocks, sightings and reuses by age; the step.
pub(super) const BYTES_PER_STREAM: u32 = 129 * (4 + 8 + 8) + 4;
const _: () = assert!(AGES + 1 == 129, "the bytes per stream are of as many ages");

/// Sightings and reuses by age; the last is of all that are older than the others.
pub(super) struct Rates {
    seen: Vec<u64>,
    again: Vec<u64>,
}

impl Rates {
    pub(super) fn new() -> Rates {
        Rates { seen: vec![0; AGES + 1], again: vec![0; AGES + 1] }
    }

    pub(super) fn add(&mut self, other: &Rates) {
        self.seen.iter_mut().zip(&other.seen).for_each(|(sum, seen)| *sum += seen);
        self.again.iter_mut().zip(&other.again).for_each(|(sum, again)| *sum += again);
    }

    /// The share of blocks of an age that a step selects, as far as is known: `doubt` sightings at the rate of `pool`
    /// stand beside this stream's own.
    fn rate(&self, age: usize, pool: &Rates, doubt: u64) -> u64 {
        let pooled = (pool.again[age] << RATE_BITS).checked_div(pool.seen[age]).unwrap_or(0);
        let doubt = doubt * COUNT;
        ((self.again[age] << RATE_BITS) + doubt * pooled).checked_div(self.seen[age] + doubt).unwrap_or(0)
    }
}

/// What one stream selected, by age.
pub(super) struct Ages {
    /// Per block the step of its last selection plus one; zero for never.
    last: Vec<u32>,
    /// Steps observed.
    now: u32,
    /// Blocks by the step of their last selection, modulo `AGES`; and those selected longer ago.
    by_step: Vec<u32>,
    older: u32,
    pub(super) rates: Rates,
}

impl Ages {
    pub(super) fn new(blocks: u32) -> Ages {
        let by_step = vec![0; AGES];
        Ages { last: vec![0; blocks as usize], now: 0, by_step, older: 0, rates: Rates::new() }
    }

    /// Takes note of one step.
    pub(super) fn observe(&mut self, selection: &Selection<'_>) {
        let fade = |count: &mut u64| *count -= *count >> FADE_BITS;
        self.rates.seen.iter_mut().for_each(fade);
        self.rates.again.iter_mut().for_each(fade);
        for age in 1..=AGES {
            self.rates.seen[age] += COUNT * u64::from(self.of_age(age));
        }
        for &block in selection.blocks {
            if let Some(age) = self.select(block) {
                self.rates.again[age] += COUNT;
            }
        }
        if let Some(block) = selection.grown {
            self.select(block);
        }
        self.now += 1;
        let oldest = self.now as usize % AGES;
        self.older += std::mem::take(&mut self.by_step[oldest]);
    }

    /// Blocks last selected `age` steps before the next; at `AGES`, that long ago or longer.
    fn of_age(&self, age: usize) -> u32 {
        if age == AGES {
            return self.older;
        }
        let known = age <= self.now as usize;
        if known { self.by_step[(self.now as usize - age) % AGES] } else { 0 }
    }

    /// Makes a block as new as this step. Returns the age it had.
    fn select(&mut self, block: BlockId) -> Option<usize> {
        let last = std::mem::replace(&mut self.last[block.index()], self.now + 1);
        self.by_step[self.now as usize % AGES] += 1;
        let step = last.checked_sub(1)?;
        let age = (self.now - step) as usize;
        if age == 0 {
            self.by_step[self.now as usize % AGES] -= 1;
            return None;
        }
        if age >= AGES {
            self.older -= 1;
        } else {
            self.by_step[step as usize % AGES] -= 1;
        }
        Some(age.min(AGES))
    }

    /// What slots beyond `least` would gain in the next step, in blocks of 2^-16: points (slots, gain) for a buffer that
    /// keeps the youngest blocks.
    pub(super) fn gains(&self, least: u32, pool: &Rates, doubt: u64) -> Vec<(u32, u64)> {
        let mut points = vec![(least, 0)];
        let (mut slots, mut gain) = (0u32, 0u64);
        for age in 1..=AGES {
            let before = slots;
            slots += self.of_age(age);
            let beyond = slots.saturating_sub(before.max(least));
            if beyond > 0 {
                gain += u64::from(beyond) * self.rates.rate(age, pool, doubt);
                points.push((slots, gain));
            }
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(ages: &mut Ages, blocks: &[u32], grown: Option<u32>) {
        let blocks: Vec<BlockId> = blocks.iter().copied().map(BlockId).collect();
        let grown = grown.map(BlockId);
        ages.observe(&Selection {
            blocks: &blocks,
            scores: &[],
            near: &[],
            newest: false,
            grown,
            foresight: None,
        });
    }

    #[test]
    fn gains_follow_ages_and_reuse() {
        let mut ages = Ages::new(9);
        observe(&mut ages, &[0, 1, 2], None);
        observe(&mut ages, &[0, 3], None);
        observe(&mut ages, &[1, 4], Some(5));
        // Ages for the next step: 1, 4 and 5 are 1; 0 and 3 are 2; 2 is 3.
        assert_eq!([1, 2, 3, 4].map(|age| ages.of_age(age)), [3, 2, 1, 0]);
        // Of age 1 were seen three and then two, one of them again; of age 2 two, and one of them.
        assert_eq!(ages.rates.again[1..4], [256 - 2, 256, 0]);
        assert_eq!(ages.rates.seen[1..4], [768 - 6 + 512, 512, 0]);
        let alone = Rates::new();
        let rates = [(254 << 16) / 1274, 1 << 15];
        assert_eq!(
            ages.gains(2, &alone, 0),
            [(2, 0), (3, rates[0]), (5, rates[0] + 2 * rates[1]), (6, rates[0] + 2 * rates[1])]
        );
        let sure = ages.gains(2, &ages.rates, 1 << 20);
        assert!(sure[1].1.abs_diff(rates[0]) <= 1, "pooled with itself a rate stays");
    }

    #[test]
    fn the_oldest_are_one_age() {
        let mut ages = Ages::new(300);
        (0..300).for_each(|block| observe(&mut ages, &[block], None));
        assert_eq!(ages.of_age(AGES), 300 - 127);
        observe(&mut ages, &[0], None);
        assert_eq!(ages.rates.again[AGES], 256);
        assert_eq!(ages.of_age(AGES), 300 - 127);
    }
}
