//! Segmented LRU: a block enters the lowest segment, climbs one with each hit, and falls one when its segment overflows.
//! R. Karedla, J. S. Love, B. G. Wherry, "Caching strategies to improve disk system performance", IEEE Computer
//! 27(3), 1994, <https://doi.org/10.1109/2.268884>.
//!
//! The paper has two segments; any number may be given. Upper segments hold their share of the slots rounded
//! down, the lowest all the rest, so that at least one slot is left to it. Victims: the least recent of the lowest
//! segment, then of the next one up. The variant `libcachesim` fills upper segments while they have room.

use super::classic::ClassicPolicy;
use super::{BufferShape, Pins, StateClass};
use crate::PolicyError;
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

/// Room for as many segments as can be numbered, so that no index has to be looked at.
const ROOM: usize = 256;

/// A slot's neighbours in the list, towards its front and towards its back: eight bytes, which straddle no cache line.
#[derive(Clone, Copy, Debug)]
struct Node {
    ahead: u32,
    behind: u32,
}

/// Segments of recency, numbered from one: one list through all of them, from the newest of the highest to the oldest of the
/// lowest. So what falls stands where it should, and only the place where its segment ends has to move.
pub struct Slru {
    /// A node for each slot, then the one that stands before the front and after the back.
    nodes: Vec<Node>,
    /// The segment of each slot, and room for that node.
    segment_of: Vec<u8>,
    /// The oldest slot of each segment; of an empty one that of the next one up, and above the highest the list's end.
    /// No slot is below the lowest.
    last: [u32; ROOM],
    lengths: [u32; ROOM],
    /// Slots that each segment may hold; the lowest takes what is left.
    capacity: [u32; ROOM],
    /// Slots of the lowest segment when all are filled and the others full.
    rest: u32,
    top: u8,
    variant: SlruVariant,
}

/// A segment's place in an array.
#[inline(always)]
fn place(segment: u8) -> usize {
    usize::from(segment)
}

/// Has segments from `segment` down end at `new` that ended at `old`: at most one, unless the next ones are empty.
#[inline(always)]
fn move_end(last: &mut [u32; ROOM], mut segment: u8, old: u32, new: u32) {
    while last[place(segment)] == old {
        last[place(segment)] = new;
        segment -= 1;
    }
}

#[inline(always)]
fn link(nodes: &mut [Node], last: &mut [u32; ROOM], segment: u8, slot: Slot) {
    let ahead = last[place(segment + 1)];
    let behind = std::mem::replace(&mut nodes[ahead as usize].behind, slot.0);
    nodes[behind as usize].ahead = slot.0;
    nodes[slot.index()] = Node { ahead, behind };
    move_end(last, segment, ahead, slot.0);
}

#[inline(always)]
fn unlink(nodes: &mut [Node], last: &mut [u32; ROOM], segment: u8, slot: Slot) {
    let Node { ahead, behind } = nodes[slot.index()];
    nodes[ahead as usize].behind = behind;
    nodes[behind as usize].ahead = ahead;
    move_end(last, segment, slot.0, ahead);
}

impl Slru {
    /// Links a slot that stands nowhere at the front of the segment. Lengths are the caller's.
    #[inline(always)]
    fn link(&mut self, segment: u8, slot: Slot) {
        link(&mut self.nodes, &mut self.last, segment, slot);
        self.segment_of[slot.index()] = segment;
    }

    #[inline(always)]
    fn unlink(&mut self, slot: Slot) {
        unlink(&mut self.nodes, &mut self.last, self.segment_of[slot.index()], slot);
    }

    /// Moves a slot to the front of a segment, through one slice, which the compiler need not look for again after each write.
    #[inline(always)]
    fn relink(&mut self, from: u8, to: u8, slot: Slot) {
        let nodes = &mut self.nodes[..];
        unlink(nodes, &mut self.last, from, slot);
        link(nodes, &mut self.last, to, slot);
        self.segment_of[slot.index()] = to;
    }

    /// Has the least recent of the segment fall, if `falls`. No branch on that: how high a hit stood cannot be foretold.
    #[inline(always)]
    fn cool(&mut self, segment: u8, falls: bool) {
        let last = &mut self.last[place(segment)];
        let (at, ahead) = (*last as usize, self.nodes[*last as usize].ahead);
        *last = std::hint::select_unpredictable(falls, ahead, *last);
        self.segment_of[at] -= u8::from(falls);
    }

    /// The lowest of all slots.
    #[inline(always)]
    fn oldest(&self) -> Slot {
        Slot(self.nodes[self.nodes.len() - 1].ahead)
    }

    /// Slots from the oldest of the lowest segment to the newest of the highest.
    #[inline(always)]
    fn ascending(&self) -> impl Iterator<Item = Slot> + '_ {
        let ends = self.nodes.len() - 1;
        let newer = move |at: usize| Some(Slot(self.nodes[at].ahead)).filter(|next| next.index() != ends);
        std::iter::successors(newer(ends), move |slot| newer(slot.index()))
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
        let segments = params.shares.len();
        if !(2..=16).contains(&segments) || params.shares.contains(&0) {
            return Err(PolicyError::Params {
                field: "hot.params.shares",
                message: "slru takes 2 to 16 segments of at least one share each, such as [1, 1]".into(),
            });
        }
        let mut capacity = [0; ROOM];
        for (capacity, &share) in capacity[1..].iter_mut().zip(&params.shares) {
            *capacity = u32::try_from(u64::from(shape.slots) * u64::from(share) / total)
                .expect("a share is no more than all");
        }
        let mut last = [shape.slots; ROOM];
        last[0] = u32::MAX;
        let nodes = (0..=shape.slots).map(|node| Node { ahead: node, behind: node });
        Ok(Slru {
            nodes: nodes.collect(),
            segment_of: vec![0; shape.slots as usize + 1],
            rest: shape.slots - capacity[2..].iter().sum::<u32>(),
            last,
            lengths: [0; ROOM],
            capacity,
            top: u8::try_from(segments).expect("at most 16 segments"),
            variant: params.variant,
        })
    }

    #[inline(always)]
    fn on_hit(&mut self, slot: Slot) {
        let from = self.segment_of[slot.index()];
        let to = (from + 1).min(self.top);
        self.relink(from, to, slot);
        if self.lengths[place(to)] >= self.capacity[place(to)] {
            // One comes and one goes, in this segment and in the one below.
            self.cool(to, from != to);
        } else {
            self.lengths[place(from)] -= 1;
            self.lengths[place(to)] += 1;
        }
    }

    #[inline(always)]
    fn evict(&mut self, _: BlockId, pins: &Pins<'_>, _: &[BlockId]) -> Slot {
        let victim = self.ascending().find(|&slot| !pins.holds(slot));
        let victim = victim.expect("an evictable slot stands in a segment");
        self.lengths[place(self.segment_of[victim.index()])] -= 1;
        self.unlink(victim);
        victim
    }

    #[inline(always)]
    fn on_insert(&mut self, slot: Slot, _: BlockId) {
        let segment = match self.variant {
            SlruVariant::Paper => 1,
            SlruVariant::Libcachesim => (1..=self.top)
                .find(|&segment| self.lengths[place(segment)] < self.capacity[place(segment)])
                .unwrap_or(1),
        };
        self.lengths[place(segment)] += 1;
        self.link(segment, slot);
    }

    #[inline(always)]
    fn replace(&mut self, block: BlockId, block_of: &[BlockId]) -> Slot {
        if self.lengths[1] != self.rest {
            let slot = self.evict(block, &Pins::NOTHING, block_of);
            self.on_insert(slot, block);
            return slot;
        }
        // All upper segments are full: either variant has the block enter the lowest, which gives the victim.
        let victim = self.oldest();
        self.relink(1, 1, victim);
        victim
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
