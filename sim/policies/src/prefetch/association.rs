//! Association: which blocks follow which. When a block is newly selected, those that were newly selected one step after
//! it in the past are likely next. Learned online, per stream, in a table of fixed size.
//!
//! A table of `entries`, found by a hash of the block, each with `successors` blocks and how often each followed, up to
//! 15. A successor that is not listed takes the place of one that is worn down to nothing, and else wears down the
//! weakest, as in Misra and Gries' frequent items; so does a block whose entry belongs to another, to all of its
//! successors. That is all the ageing there is.

use super::{PrefetchPolicy, PrefetchShape, Prefetcher, Upcoming, Want, within};
use crate::PolicyError;
use crate::eviction::StepView;
use kvtier_units::BlockId;
use serde::Deserialize;

const MOST_COUNTED: u8 = 15;
const BYTES_PER_SUCCESSOR: u64 = 5;
const BYTES_PER_BLOCK: u64 = 4;

/// Parameters of [`Association`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AssociationParams {
    /// Entries of the table, a power of two.
    pub entries: u32,
    /// Successors that an entry lists.
    pub successors: u32,
    /// How often a block must have followed before it is brought.
    pub least: u32,
}

impl Default for AssociationParams {
    fn default() -> AssociationParams {
        AssociationParams { entries: 256, successors: 4, least: 2 }
    }
}

/// A block that followed, and how often.
#[derive(Clone, Copy, Debug)]
struct Successor {
    block: BlockId,
    count: u8,
}

const NOBODY: Successor = Successor { block: BlockId::NONE, count: 0 };

/// Brings what followed the newly selected blocks in the past, most often first.
#[derive(Clone, Debug)]
pub struct Association {
    params: AssociationParams,
    /// Whose each entry is.
    owners: Vec<BlockId>,
    /// `successors` for each entry.
    table: Vec<Successor>,
    /// The last selection, ascending, and what of it was new then.
    selected: Vec<BlockId>,
    fresh: Vec<BlockId>,
    fresh_now: Vec<BlockId>,
    votes: Vec<(u32, BlockId)>,
}

impl Association {
    fn entry(&self, block: BlockId) -> usize {
        let bits = self.params.entries.trailing_zeros();
        let hash = block.0.wrapping_mul(0x9e37_79b9); // Fibonacci hashing: the high bits are spread best
        if bits == 0 { 0 } else { (hash >> (32 - bits)) as usize }
    }

    fn successors(&mut self, entry: usize) -> &mut [Successor] {
        let each = self.params.successors as usize;
        &mut self.table[entry * each..][..each]
    }

    /// Learns that `after` followed `before`.
    fn learn(&mut self, before: BlockId, after: BlockId) {
        let entry = self.entry(before);
        if self.owners[entry] != before {
            let successors = self.successors(entry);
            successors.iter_mut().for_each(|one| one.count = one.count.saturating_sub(1));
            if successors.iter().any(|one| one.count > 0) {
                return;
            }
            self.owners[entry] = before;
            self.successors(entry).fill(NOBODY);
        }
        let successors = self.successors(entry);
        if let Some(known) = successors.iter_mut().find(|one| one.block == after) {
            known.count = (known.count + 1).min(MOST_COUNTED);
            return;
        }
        let weakest = successors.iter_mut().min_by_key(|one| one.count).expect("an entry lists a successor");
        match weakest.count {
            0 => *weakest = Successor { block: after, count: 1 },
            _ => weakest.count -= 1,
        }
    }

    /// Lists what followed the newly selected blocks often enough, most often first, then by position.
    fn predict(&mut self, out: &mut Vec<Want>) {
        self.votes.clear();
        for at in 0..self.fresh_now.len() {
            let block = self.fresh_now[at];
            let entry = self.entry(block);
            if self.owners[entry] != block {
                continue;
            }
            let each = self.params.successors as usize;
            for one in &self.table[entry * each..][..each] {
                if one.count > 0 && u32::from(one.count) >= self.params.least {
                    match self.votes.iter_mut().find(|(_, block)| *block == one.block) {
                        Some((votes, _)) => *votes += u32::from(one.count),
                        None => self.votes.push((one.count.into(), one.block)),
                    }
                }
            }
        }
        self.votes.sort_unstable_by_key(|&(votes, block)| (u32::MAX - votes, block));
        out.extend(self.votes.iter().map(|&(_, block)| Want { block, due: 0 }));
    }
}

impl Prefetcher for Association {
    fn propose(&mut self, view: &StepView<'_>, _: &Upcoming<'_>, out: &mut Vec<Want>) {
        self.fresh_now.clear();
        let selected = &self.selected;
        let is_new = |block: &&BlockId| selected.binary_search(block).is_err();
        self.fresh_now.extend(view.selection.blocks.iter().filter(is_new));
        for before in 0..self.fresh.len() {
            for after in 0..self.fresh_now.len() {
                self.learn(self.fresh[before], self.fresh_now[after]);
            }
        }
        self.predict(out);
        std::mem::swap(&mut self.fresh, &mut self.fresh_now);
        self.selected.clear();
        self.selected.extend_from_slice(view.selection.blocks);
        self.selected.sort_unstable();
    }
}

impl PrefetchPolicy for Association {
    const NAME: &'static str = "association";
    const SUMMARY: &'static str =
        "learns which blocks follow which, and brings what followed the newly selected ones";
    type Params = AssociationParams;

    fn new(params: AssociationParams, shape: PrefetchShape) -> Result<Association, PolicyError> {
        if !params.entries.is_power_of_two() || params.entries > 1 << 20 {
            let message = format!("{} is not a power of two up to 1048576", params.entries);
            return Err(PolicyError::Params { field: "prefetch.params.entries", message });
        }
        within("prefetch.params.successors", params.successors, 1..=64)?;
        within("prefetch.params.least", params.least, 1..=MOST_COUNTED.into())?;
        let k = shape.k as usize;
        Ok(Association {
            params,
            owners: vec![BlockId::NONE; params.entries as usize],
            table: vec![NOBODY; params.entries as usize * params.successors as usize],
            selected: Vec::with_capacity(k),
            fresh: Vec::with_capacity(k),
            fresh_now: Vec::with_capacity(k),
            votes: Vec::new(),
        })
    }

    /// The table, the last selection and what was new in it.
    fn state_bytes(params: &AssociationParams, k: u32) -> u64 {
        let entry = BYTES_PER_BLOCK + BYTES_PER_SUCCESSOR * u64::from(params.successors);
        u64::from(params.entries) * entry + 2 * BYTES_PER_BLOCK * u64::from(k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::testing::Bench;

    #[test]
    fn what_followed_twice_is_brought() {
        let mut bench = Bench::new("lru", 2, 9);
        bench.prefetcher("association", "", 0, 4);
        for step in [[1], [2], [4], [1], [3], [5], [1], [2], [6]] {
            assert_eq!(bench.step(&step).brought(), [0; 0], "nothing has followed {step:?} twice");
        }
        let plan = bench.step(&[1]);
        assert_eq!(plan.brought(), [2], "2 followed 1 twice, 3 once");
        assert_eq!(bench.step(&[2]).counts.prefetched, 1);
    }

    fn learner(entries: u32, successors: u32) -> Association {
        let params = AssociationParams { entries, successors, ..AssociationParams::default() };
        Association::new(params, PrefetchShape { layer: 0, blocks: 100, k: 4 }).unwrap()
    }

    #[test]
    fn rare_successors_and_owners_are_worn_down() {
        let mut table = learner(1, 1);
        let [a, b, c, d] = [10, 11, 12, 13].map(BlockId);
        let state = |table: &Association| (table.owners[0], table.table[0].block, table.table[0].count);
        (0..3).for_each(|_| table.learn(a, b));
        assert_eq!(state(&table), (a, b, 3));
        table.learn(a, c);
        assert_eq!(state(&table), (a, b, 2), "c wears b down");
        table.learn(d, c);
        assert_eq!(state(&table), (a, b, 1), "so does another owner");
        table.learn(d, c);
        assert_eq!(state(&table), (d, c, 1), "and then takes the entry");
        (0..20).for_each(|_| table.learn(d, c));
        assert_eq!(state(&table), (d, c, MOST_COUNTED));
    }

    #[test]
    fn six_kilobytes_a_stream_by_default() {
        assert_eq!(
            Association::state_bytes(&AssociationParams::default(), 32),
            256 * (4 + 4 * 5) + 2 * 4 * 32
        );
    }
}
