//! Segmented LRU: a block enters the lowest segment, climbs one with each hit, and falls one when its segment overflows.
//! R. Karedla, J. S. Love, B. G. Wherry, "Caching strategies to improve disk system performance", IEEE Computer
//! 27(3), 1994, <https://doi.org/10.1109/2.268884>.
//!
//! The paper has two segments; any number may be given. Upper segments hold their share of the slots rounded
//! down, the lowest all the rest, so that at least one slot is left to it. Victims: the least recent of the lowest
//! segment, then of the next one up. The variant `libcachesim` fills upper segments while they have room.

use super::classic::ClassicPolicy;
use super::{BufferShape, Pins, StateClass};
use crate::{PolicyError, SlotQueues};
use kvtier_units::{BlockId, Slot};
use serde::Deserialize;

/// Parameters of [`Slru`].
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlruParams {
    /// Relative sizes of the segments, lowest first.
    pub shares: Vec<u32>,
    /// Where new blocks enter.
    pub variant: SlruVariant,
}

impl Default for SlruParams {
    fn default() -> Self {
        SlruParams { shares: vec![1, 1], variant: SlruVariant::Paper }
    }
}

/// Where new blocks enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlruVariant {
    /// The lowest segment.
    Paper,
    /// The lowest segment that has room, so that the upper ones fill first of all.
    Libcachesim,
}

/// Segments of recency.
pub struct Slru {
    segments: SlotQueues,
    /// Slots that each segment may hold; the lowest takes what is left.
    capacity: Vec<u32>,
    variant: SlruVariant,
}

impl Slru {
    /// Moves the least recent of an overfull segment down, and so on below.
    fn cool(&mut self, segment: u8) {
        for segment in (1..=segment).rev() {
            if self.segments.len(segment) <= self.capacity[usize::from(segment)] {
                return;
            }
            let oldest = self.segments.back(segment).expect("an overfull segment has a slot");
            self.segments.push_front(segment - 1, oldest);
        }
    }
}

impl ClassicPolicy for Slru {
    const NAME: &'static str = "slru";
    const SUMMARY: &'static str = "recency in segments: a hit climbs one, overflow falls one";
    /// Two links and the segment.
    const STATE: StateClass = StateClass { per_slot: 9, per_block: 0, per_stream: 0 };
    type Params = SlruParams;

    fn new(params: SlruParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let total: u64 = params.shares.iter().map(|&share| u64::from(share)).sum();
        let segments = u8::try_from(params.shares.len()).unwrap_or(u8::MAX);
        if !(2..=16).contains(&segments) || params.shares.contains(&0) {
            return Err(PolicyError::Params {
                field: "hot.params.shares",
                message: "slru takes 2 to 16 segments of at least one share each, such as [1, 1]".into(),
            });
        }
        let part = |&share: &u32| {
            u32::try_from(u64::from(shape.slots) * u64::from(share) / total)
                .expect("a share is no more than all")
        };
        Ok(Slru {
            segments: SlotQueues::new(shape.slots, segments),
            capacity: params.shares.iter().map(part).collect(),
            variant: params.variant,
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let top = u8::try_from(self.capacity.len() - 1).expect("at most 16 segments");
        let segment = self.segments.queue_of(slot);
        if segment == top {
            return self.segments.renew(top, slot);
        }
        self.segments.push_front(segment + 1, slot);
        self.cool(segment + 1);
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let mut segments = (0u8..).take(self.capacity.len());
        let victim = segments.find_map(|segment| self.segments.oldest_evictable(segment, pins));
        let victim = victim.expect("an evictable slot stands in a segment");
        self.segments.remove(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        let segment = match self.variant {
            SlruVariant::Paper => 0,
            SlruVariant::Libcachesim => (0u8..)
                .zip(&self.capacity)
                .find(|&(segment, &capacity)| self.segments.len(segment) < capacity)
                .map_or(0, |(segment, _)| segment),
        };
        self.segments.push_front(segment, slot);
    }
}

#[cfg(test)]
mod tests {
    use crate::residency::testing::Bench;

    #[test]
    fn a_hit_climbs_and_overflow_falls() {
        let mut bench = Bench::new("slru", 4, 9);
        [0, 1, 2, 3, 0, 1].into_iter().for_each(|block| drop(bench.step(&[block])));
        // Upper 0, 1 (two slots); lower 2, 3.
        bench.step(&[2]);
        // 2 climbs, 0 falls behind 3: lower 3, 0.
        assert_eq!(bench.step(&[4]).victims(), [3]);
        assert_eq!(bench.step(&[0, 5]).victims(), [4], "0, oldest of the lower, is pinned");
        // 0 has climbed and pushed 1 down; 5 entered first, for worse ranks are credited first.
        assert_eq!(bench.step(&[6, 7]).victims(), [5, 1]);
    }

    #[test]
    fn two_segments_are_needed() {
        use crate::eviction::{BufferShape, EVICTION, find};
        let shape = BufferShape { slots: 4, blocks: 9, k: 1, seed: kvtier_units::Seed(0) };
        let params = "shares = [1]".parse().unwrap();
        let error = find(EVICTION, "slru").unwrap().build(&params, shape).err().unwrap();
        assert!(error.to_string().contains("hot.params.shares"));
    }
}
