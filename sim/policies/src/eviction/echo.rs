//! Echo, our own policy: what a selection says about later ones, including what ranked just below the cut.
//!
//! Selections of one stream repeat: a block that ranked well comes back, one that ranked just below the cut (a near
//! miss, which the selection kernel knows anyway) comes nearly as often, and what was said of a block before it was
//! evicted still holds when it returns. Echo adds these up in integers. One selection is worth 512.
//! - Credit: a rank r of k, scaled to 32nds, earns `selected_worst` + `selected_gain` x (31 - r) / 32; a near miss of rank
//!   r after the cut earns `near_worst` + `near_gain` x (31 - r) / 32 if r < 32.
//! - Decay: each step every worth loses A x T / 8192 of itself, A = 5120 k / (`decay_base` k + `decay_slack` (slots - k)),
//!   so that larger buffers remember longer. T is how many 32nds of the last selection this one repeats, at least 3:
//!   where attention leaps, everything is forgotten more slowly (`warp`; T is 24 without).
//! - Ghost: a table of fixed size counts selections by block, resident or not. Each count, three per selection,
//!   is worth `ghost_weight` x slots / k. Beside the count stands the block's worth, which ages and earns as those of
//!   slots do (`ghost_worth`); a block that is loaded starts with it, or with nothing if it is not in the table.
//! - Steps since the last selection cost `recency` each, up to 16.
//! - This step's near misses count at once, `near_now` quarters of their credit, when victims are chosen
//!   (`near = "before-victims"`); otherwise they count from the next step on.
//!
//! Divisions round down. Blocks filled in place start at `grown`; those that start resident at one selection, prefetched
//! ones at the credit of their rank in this step. Choices for growth and prefetch come after credit and add nothing for
//! near misses. Total order: (worth, slot). Any capacity will do. Per step it is one pass over slots, one over the ghost's
//! sets, a count and a choice of the n smallest, so it also runs as a kernel.
//!
//! Share of the misses between LRU and Belady that is avoided, mean of six recorded requests, buffers of 1.5, 2 and
//! 3 selections (sim/policies/ECHO.md has every request, and what did not work):
//!
//! | | 1.5k | 2k | 3k |
//! |---|---|---|---|
//! | echo | 35.9 | 34.8 | 33.3 |
//! | near misses count from the next step on | 30.4 | 30.0 | 31.2 |
//! | no near misses | 25.3 | 21.5 | 19.1 |
//! | no ghost | 32.8 | 32.1 | 31.0 |
//! | ghost keeps no worth | 34.2 | 33.5 | 32.9 |
//! | no warp | 35.5 | 34.4 | 32.5 |

mod params;

pub use params::{EchoParams, GhostWorth, NearTiming};

use super::scores::Smallest;
use super::tagged_ghost::TaggedGhost;
use super::{BufferShape, EvictionPolicy, Insertion, StateClass, StepView};
use crate::PolicyError;
use crate::residency::relocate;
use kvtier_units::Slot;
use params::{MOST_GHOSTS, RANKS, credits};

/// Steps after which it no longer matters for how long a block was not selected.
const RECENT_STEPS: u8 = 16;
/// One selection.
const ONE: u16 = 512;
/// Decay in units of 2^-13 a step: 256ths, times 32nds of a selection.
const DECAY_BITS: u32 = 13;
/// What `decay_base` divides, in 256ths: a memory of 20 steps forgets everything at once.
const DECAY_UNIT: u64 = 256 * 20;
/// Worth by slot, and what was selected lately by block, with its worth.
pub struct Echo {
    params: EchoParams,
    worth: Vec<u16>,
    /// Steps since the block in the slot was selected, saturating.
    since: Vec<u8>,
    ghost: TaggedGhost,
    /// `ghost_weight` times the selections that the buffer holds.
    ghost_weight: u64,
    /// What each selected rank earns.
    selected: Vec<u16>,
    /// What of that the ghost keeps.
    kept: Vec<u16>,
    /// What each near miss earns, for as many as a selection has ranks.
    near: Vec<u16>,
    /// A of the decay.
    decay: u32,
    /// Whether this step has aged the slots: it does so before it chooses victims or gives credit, whichever is first.
    aged: bool,
    /// Worth by slot that this step's near misses add while victims are chosen.
    now: Vec<u64>,
    smallest: Smallest,
}

/// The slots of this step's resident near misses, and what each earns.
fn near_misses<'a>(view: &'a StepView<'_>, credits: &'a [u16]) -> impl Iterator<Item = (Slot, u16)> + 'a {
    let near = view.selection.near.iter().map(|block| view.slot_of[block.index()]);
    near.zip(credits.iter().copied()).filter(|(slot, _)| *slot != Slot::NONE)
}

impl Echo {
    /// What the size of the buffer decides: how long worth lasts and what the ghost's counts weigh.
    fn set_size(&mut self, slots: u64) {
        let (params, k) = (&self.params, self.selected.len() as u64);
        let memory =
            u64::from(params.decay_base) * k + u64::from(params.decay_slack) * slots.saturating_sub(k);
        self.decay = u32::try_from(DECAY_UNIT * k / memory).expect("at most 256, as the base is at least 20");
        self.ghost_weight = u64::from(params.ghost_weight) * slots / k;
    }

    /// Ages every worth, once a step, by how much of the last selection this one repeats.
    fn age(&mut self, repeated: usize) {
        let repeated = u32::try_from(RANKS as usize * repeated / self.selected.len()).expect("at most 32");
        let pace = if self.params.warp { repeated.max(3) } else { 24 };
        let keep = (1 << DECAY_BITS) - self.decay * pace;
        let aged = |worth: u16| {
            let kept = (u32::from(worth) * keep) >> DECAY_BITS;
            u16::try_from(kept).expect("ageing only lessens")
        };
        self.worth.iter_mut().for_each(|worth| *worth = aged(*worth));
        self.ghost.age(aged);
        self.aged = true;
    }

    /// How many of the slots hold blocks of the last selection, or one filled in place then.
    fn selected_last(&self, slots: impl Iterator<Item = Slot>) -> usize {
        slots.filter(|slot| self.since[slot.index()] == 0).count()
    }

    /// What a slot is worth apart from this step's near misses.
    #[inline(always)]
    fn priority(&self, view: &StepView<'_>, slot: Slot) -> u64 {
        let recent = RECENT_STEPS.saturating_sub(self.since[slot.index()]);
        let count = self.ghost.count(view.block_of[slot.index()]);
        u64::from(self.worth[slot.index()])
            + u64::from(self.params.recency) * u64::from(recent)
            + self.ghost_weight * u64::from(count)
    }
}

impl EvictionPolicy for Echo {
    const NAME: &'static str = "echo";
    const SUMMARY: &'static str =
        "evicts what fading credit by rank, near misses and a ghost of past selections value least";
    const READS_NEAR: bool = true;
    /// Worth and steps since selection; the ghost and its step counter.
    const STATE: StateClass =
        StateClass { per_slot: 3, per_block: 0, per_stream: MOST_GHOSTS * TaggedGhost::BYTES_PER_ENTRY + 1 };
    const RESIZES: bool = true;
    type Params = EchoParams;

    fn new(params: EchoParams, shape: BufferShape) -> Result<Self, PolicyError> {
        let params = params.checked()?;
        let selected = credits(params.selected_worst, params.selected_gain, shape.k.max(1));
        let keeps = params.ghost_worth != GhostWorth::Nothing;
        let mut echo = Echo {
            params,
            worth: vec![0; shape.slots as usize],
            since: vec![0; shape.slots as usize],
            ghost: TaggedGhost::new(params.ghost),
            ghost_weight: 0,
            kept: if keeps { selected.clone() } else { vec![0; selected.len()] },
            selected,
            near: credits(params.near_worst, params.near_gain, shape.k.max(1)),
            decay: 0,
            aged: false,
            now: vec![0; shape.slots as usize],
            smallest: Smallest::default(),
        };
        echo.set_size(u64::from(shape.slots));
        Ok(echo)
    }

    fn victims(&mut self, view: &StepView<'_>, need: usize, out: &mut Vec<Slot>) {
        let demand = view.entering.is_none();
        if demand {
            self.age(self.selected_last(view.slots.iter().copied().filter(|&slot| slot != Slot::NONE)));
        }
        let mut now = std::mem::take(&mut self.now);
        now.fill(0);
        if demand && self.params.near == NearTiming::BeforeVictims {
            for (slot, credit) in near_misses(view, &self.near) {
                now[slot.index()] = (u64::from(credit) * u64::from(self.params.near_now)) >> 2;
            }
        }
        let mut smallest = std::mem::take(&mut self.smallest);
        smallest.choose(&view.pins, need, out, |slot| self.priority(view, slot) + now[slot.index()]);
        (self.now, self.smallest) = (now, smallest);
    }

    fn touch(&mut self, view: &StepView<'_>) {
        if !self.aged {
            // Loads went to free slots, whose contents mean nothing.
            let selected = self.selected_last(view.slots.iter().copied());
            self.age(selected - self.selected_last(view.loaded()));
        }
        self.aged = false;
        for slot in view.loaded() {
            self.worth[slot.index()] = self.ghost.worth(view.block_of[slot.index()]);
        }
        self.since.iter_mut().for_each(|since| *since = since.saturating_add(1));
        for (slot, credit) in near_misses(view, &self.near) {
            let worth = &mut self.worth[slot.index()];
            *worth = worth.saturating_add(credit);
        }
        for (slot, &credit) in view.slots.iter().zip(&self.selected) {
            let worth = &mut self.worth[slot.index()];
            *worth = worth.saturating_add(credit);
            self.since[slot.index()] = 0;
        }
        if self.params.ghost_worth == GhostWorth::All {
            for (&block, &credit) in view.selection.near.iter().zip(&self.near) {
                self.ghost.earn(block, credit);
            }
        }
        self.ghost.select(view.selection.blocks, &self.kept);
    }

    fn insert(&mut self, view: &StepView<'_>, slot: Slot, why: Insertion, _: u32) {
        let (worth, since) = match why {
            Insertion::Growth => (self.params.grown, 0),
            Insertion::Start => (ONE, 1),
            Insertion::Prefetch => {
                let rank = view.selection.near.iter().position(|&near| Some(near) == view.entering);
                (rank.and_then(|rank| self.near.get(rank)).copied().unwrap_or(0), 1)
            }
        };
        self.worth[slot.index()] = worth;
        self.since[slot.index()] = since;
    }

    fn resize(&mut self, kept: &[Slot]) {
        relocate(&mut self.worth, kept, 0);
        relocate(&mut self.since, kept, 0);
        self.now = vec![0; kept.len()];
        self.set_size(kept.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::testing::Bench;
    use kvtier_units::{BlockId, Seed};

    fn bench(params: &str, slots: u32) -> Bench {
        Bench::with_params("echo", &params.parse().unwrap(), slots, 9)
    }

    /// With four slots and k = 4 ranks earn 1054, 910, 766 and 622, near misses 540 and 444; A is 142, so a step that
    /// repeats nothing keeps 7766 of 8192.
    fn after_two_steps(params: &str) -> Bench {
        let mut bench = bench(params, 4);
        bench.step(&[0, 1]);
        bench.step(&[2, 3]);
        bench
    }

    #[test]
    fn the_worst_in_rank_recency_and_nearness_goes() {
        // Worth, steps since (20 each of 16) and ghost (5 x 3): 0 has 947 + 300 + 15, 1 has 817 + 300 + 15,
        // 2 has 999 + 320 + 15, 3 has 862 + 320 + 15.
        assert_eq!(after_two_steps("").step(&[4]).victims(), [1]);
        assert_eq!(after_two_steps("").step(&[4, 5, 6]).victims(), [1, 3, 0]);
        let mut near = after_two_steps("");
        near.near = vec![BlockId(1)];
        assert_eq!(near.step(&[4]).victims(), [3], "1 has 540 x 7 / 4 more at once");
    }

    #[test]
    fn near_misses_may_count_from_the_next_step_on() {
        let mut near = after_two_steps("near = 'after'");
        near.near = vec![BlockId(1), BlockId(3)];
        assert_eq!(near.step(&[4]).victims(), [1]);
        near.near.clear();
        // A quarter repeats, so 7056 of 8192 stay: 0 has 815 + 280 + 15, 2 has 860 + 300 + 15,
        // 3 has (862 + 444) x 7056 / 8192 = 1124 + 300 + 15.
        assert_eq!(near.step(&[4, 5]).victims(), [0]);
    }

    /// What goes for block 4 with two slots and k = 2, where ranks earn 1054 and 766, after these steps and one that
    /// selects 3 and then 0; of each step's near misses, 0 is the only one or there are none.
    fn victim_after(params: &str, steps: &[(&[u32], bool)]) -> Vec<u32> {
        let mut bench = bench(params, 2);
        for &(selected, is_near) in steps {
            bench.near = if is_near { vec![BlockId(0)] } else { vec![] };
            bench.step(selected);
        }
        bench.near.clear();
        bench.step(&[3, 0]);
        bench.step(&[4]).victims()
    }

    #[test]
    fn the_ghost_speaks_for_a_block_that_comes_back() {
        let mut often = vec![(&[0u32][..], false); 64];
        often.push((&[1, 2], false));
        // 3 has 999 + 320 + 5 x 3; 0 has 726 + 320 and a count of 98 + 3: 36, 63, 83, 98 after each 16 steps.
        assert_eq!(victim_after("ghost_worth = 'nothing'", &often), [3]);
        assert_eq!(victim_after("ghost = 0", &often), [0]);
        // Two selections make 1054 x 5920 / 8192 + 1054 = 1815, of which 1630 are there when 0 returns.
        let twice = &often[62..];
        assert_eq!(victim_after("", twice), [3], "0 has (1630 + 766) x 7766 / 8192 = 2271 + 320 + 5 x 9");
        assert_eq!(victim_after("ghost_worth = 'nothing'", twice), [0], "0 has 726 + 320 + 5 x 9");
    }

    #[test]
    fn an_absent_block_earns_as_a_near_miss() {
        // Of 1054 there are 999, 444 and 197 after each step that selects 1 and 2, which 0 misses nearly at last.
        let away: [(&[u32], bool); 4] = [(&[0], false), (&[1, 2], false), (&[1, 2], false), (&[1, 2], true)];
        // 3 has 999 + 320 + 5 x 3; 0 has (737 x 7766 / 8192 + 766) x 7766 / 8192 = 1387 + 320 + 5 x 6.
        assert_eq!(victim_after("", &away), [3]);
        assert_eq!(victim_after("ghost_worth = 'selected'", &away), [0], "0 has 902 + 320 + 5 x 6");
        assert_eq!(victim_after("near_worst = 0\nnear_gain = 0", &away), [0]);
    }

    #[test]
    fn a_block_filled_in_place_outlasts_one_selected_before() {
        let mut bench = bench("", 3);
        bench.grown = Some(BlockId(5));
        bench.step(&[0, 1]);
        bench.grown = None;
        assert_eq!(bench.step(&[2]).victims(), [1]);
        // 0 has 947 + 300 + 15, 2 has 999 + 320 + 15, 5 has 1264 + 300.
        assert_eq!(bench.step(&[3]).victims(), [0]);
    }

    #[test]
    fn larger_buffers_and_leaps_of_attention_forget_more_slowly() {
        let aged = |params: EchoParams, slots: u32, repeated: usize| {
            let shape = BufferShape { slots, blocks: 1, k: 32, seed: Seed(0) };
            let mut echo = Echo::new(params, shape).unwrap();
            echo.worth[0] = 1000;
            echo.age(repeated);
            echo.worth[0]
        };
        let echo = EchoParams::default();
        assert_eq!([48, 64, 96].map(|slots| aged(echo, slots, 32)), [632, 722, 816], "A is 94, 71, 47");
        assert_eq!([0, 3, 16].map(|repeated| aged(echo, 64, repeated)), [973, 973, 861]);
        assert_eq!(aged(EchoParams { warp: false, ..echo }, 64, 0), 791);
        assert_eq!(aged(EchoParams { decay_base: 20, ..echo }, 32, 32), 0, "the fastest there is");
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let shape = BufferShape { slots: 4, blocks: 9, k: 2, seed: Seed(0) };
        let refused = [
            (EchoParams { ghost: 6, ..EchoParams::default() }, "hot.params.ghost"),
            (EchoParams { ghost: 196, ..EchoParams::default() }, "hot.params.ghost"),
            (EchoParams { decay_base: 19, ..EchoParams::default() }, "hot.params.decay_base"),
        ];
        for (params, field) in refused {
            let error = Echo::new(params, shape).map(drop).unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
