//! TinyLFU: a sketch of frequencies estimates how often each block was demanded from below the hot buffers; a block that
//! would push another out of the warm pages must have been demanded more often than that one.
//! G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM Transactions on
//! Storage 13(4), 2017, <https://doi.org/10.1145/3149371>.
//!
//! Counted are the demands that the hot buffers do not serve (misses and warm hits): what a second-level cache sees.
//! Four rows of 4-bit counters, at least one counter per frame and row, a power of two, 16 in a word; all are halved
//! every `sample` demands per frame. No doorkeeper. While a frame is free everything enters. Ties go to the block that is
//! warm already. Blocks of requests that ended keep their counts until those have aged away.

use super::{AdmissionPolicy, Gate, GateState, Leaver, Page, wrong};
use crate::PolicyError;
use serde::Deserialize;

/// Parameters of [`Sketch`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SketchParams {
    /// Demands per frame between halvings.
    pub sample: u32,
}

impl Default for SketchParams {
    fn default() -> Self {
        SketchParams { sample: 10 }
    }
}

const ROWS: usize = 4;
/// 16 counters of 4 bits in a word.
const COUNTER_BITS: u32 = 4;
const MOST: u64 = 15;
const LOW_BITS: u64 = 0x7777_7777_7777_7777;
/// Odd multipliers, one per row: the upper bits of the product choose the counter.
const SPREAD: [u64; ROWS] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xff51_afd7_ed55_8ccd];

/// Estimates how often each block was demanded lately.
pub struct Sketch {
    words: Vec<u64>,
    /// Bits of a row's index.
    bits: u32,
    additions: u64,
    /// Additions between halvings.
    sample: u64,
}

impl Sketch {
    /// The counter of a block in each row.
    fn places(&self, page: Page) -> [usize; ROWS] {
        let key = (u64::from(page.table) << 32) | u64::from(page.block.0);
        let key = (key ^ (key >> 29)).wrapping_mul(SPREAD[1]) ^ key;
        std::array::from_fn(|row| {
            let at = key.wrapping_mul(SPREAD[row]) >> (64 - self.bits);
            (row << self.bits) + usize::try_from(at).expect("a row fits memory")
        })
    }

    fn counter(&self, place: usize) -> u64 {
        (self.words[place / 16] >> (place % 16 * COUNTER_BITS as usize)) & MOST
    }

    fn estimate(&self, page: Page) -> u64 {
        self.places(page).map(|place| self.counter(place)).into_iter().min().expect("there are four rows")
    }
}

impl Gate for Sketch {
    fn demand(&mut self, page: Page) {
        for place in self.places(page) {
            if self.counter(place) < MOST {
                self.words[place / 16] += 1 << (place % 16 * COUNTER_BITS as usize);
            }
        }
        self.additions += 1;
        if self.additions == self.sample {
            self.additions /= 2;
            self.words.iter_mut().for_each(|word| *word = (*word >> 1) & LOW_BITS);
        }
    }

    fn admits(&mut self, leaver: &Leaver) -> bool {
        leaver.rival.is_none_or(|rival| self.estimate(leaver.page) > self.estimate(rival))
    }
}

impl AdmissionPolicy for Sketch {
    const NAME: &'static str = "sketch";
    const SUMMARY: &'static str = "TinyLFU: blocks demanded more often than the one they would push out";
    /// Four counters of half a byte, for up to twice as many as there are frames.
    const STATE: GateState = GateState { per_slot: 0, per_frame: 4 };
    type Params = SketchParams;

    fn new(params: SketchParams, frames: usize) -> Result<Self, PolicyError> {
        if params.sample == 0 {
            return Err(wrong("warm.params.sample", "0 demands between halvings; give at least 1"));
        }
        let frames = frames.max(16);
        let bits = frames.next_power_of_two().trailing_zeros();
        Ok(Sketch {
            words: vec![0; (ROWS << bits) / 16],
            bits,
            additions: 0,
            sample: u64::from(params.sample) * frames as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm::testing::Pages;
    use kvtier_units::BlockId;

    #[test]
    fn a_full_pool_opens_only_to_blocks_demanded_more_often() {
        let mut pages = Pages::new("sketch", "", 2, 2);
        pages.step(&[0, 1]);
        pages.step(&[2, 3]);
        assert_eq!(pages.warm(), [0, 1], "two frames were free");
        pages.step(&[4, 5]);
        assert_eq!(pages.warm(), [0, 1], "2 and 3 were demanded once, as 0 and 1 were");
        pages.step(&[2, 3]);
        pages.step(&[6, 7]);
        assert_eq!(pages.warm(), [2, 3], "twice against once; 4 and 5 were turned away");
    }

    #[test]
    fn counters_saturate_and_halve() {
        let mut sketch = Sketch::new(SketchParams { sample: 2 }, 16).unwrap();
        let page = Page { table: 3, block: BlockId(9) };
        (0..20).for_each(|_| sketch.demand(page));
        assert_eq!(sketch.estimate(page), MOST);
        (0..12).for_each(|_| sketch.demand(page));
        assert_eq!(sketch.estimate(page), MOST / 2, "the 32nd demand halves all");
        assert_eq!(sketch.estimate(Page { table: 4, block: BlockId(9) }), 0, "another stream's block");
    }
}
