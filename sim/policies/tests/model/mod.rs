//! A second, slow reading of what one step means: vectors and linear search, written from the specification alone.
//! It shares nothing with the crate but the types of its input and output.

pub(crate) mod policies;
mod run;

use kvtier_policies::eviction::BufferShape;
use kvtier_policies::{Source, StreamPlan};
use kvtier_units::{BlockId, Seed, Slot};
use policies::NaivePolicy;
use proptest::prelude::*;
#[allow(unused_imports)] // each test program uses its part of the model
pub(crate) use run::{Scripted, one_step, replay};

pub(crate) const NEVER: u32 = u32::MAX;

/// What one stream is asked for in one step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) blocks: Vec<u32>,
    pub(crate) scores: Vec<u16>,
    pub(crate) near: Vec<u32>,
    pub(crate) newest: bool,
    pub(crate) grown: Option<u32>,
    /// What the prefetcher wants in this step: (block, due).
    pub(crate) wants: Vec<(u32, u32)>,
}

/// One stream's whole run.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) slots: u32,
    pub(crate) blocks: u32,
    pub(crate) k: u32,
    pub(crate) start: Vec<u32>,
    pub(crate) prefilled: u32,
    pub(crate) budget: u32,
    /// Whether the prefetcher runs before the look-up.
    pub(crate) ahead: bool,
    pub(crate) asks: Vec<Ask>,
}

impl Script {
    /// The next step after `now` that selects the block; `now` is -1 before the first.
    pub(crate) fn next_use(&self, now: i64, block: u32) -> u32 {
        let later = self.asks.iter().zip(0i64..).find(|(ask, at)| *at > now && ask.blocks.contains(&block));
        later.map_or(NEVER, |(_, at)| u32::try_from(at).unwrap())
    }

    pub(crate) fn shape(&self) -> BufferShape {
        BufferShape { slots: self.slots, blocks: self.blocks, k: self.k, seed: Seed(1) }
    }
}

/// Which parts of a step a generated script exercises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    pub(crate) growth: bool,
    pub prefetch: bool,
    pub(crate) start: bool,
}

/// Random scripts: small buffers and contexts, so that everything collides.
pub(crate) fn scripts(features: Features, max_slots: u32, steps: usize) -> impl Strategy<Value = Script> {
    let ask = (
        prop::collection::vec(0u32..1000, 0..6),
        prop::collection::vec(0u32..1000, 0..4),
        any::<bool>(),
        0u32..4,
        prop::collection::vec((0u32..1000, 0u32..3), 0..7),
    );
    let sizes = (1u32..=max_slots, 1u32..=max_slots, 1u32..14, 0u32..3, 0u32..4, any::<bool>());
    (sizes, prop::collection::vec(ask, 0..steps)).prop_map(move |(sizes, raw)| {
        let (k, spare, context, start, budget, ahead) = sizes;
        let k = k.min(5);
        let slots = k + (spare - 1).min(max_slots - k.min(max_slots));
        let mut full = context;
        let asks = raw.into_iter().map(|(blocks, near, newest, grows, wants)| {
            let wants = wants.into_iter().map(|(block, due)| (block % full, due)).collect();
            let blocks = distinct(&blocks, full, k as usize, &[]);
            let near = distinct(&near, full, 3, &blocks);
            let grown = (features.growth && grows == 0).then_some(full);
            full += u32::from(grown.is_some());
            let scores = (0..blocks.len()).map(|rank| 900 - 100 * u16::try_from(rank).unwrap()).collect();
            Ask { blocks, scores, near, newest, grown, wants }
        });
        let asks = asks.collect();
        let fits = context <= slots;
        let (start, prefilled) = match start {
            1 if features.start => ((context.saturating_sub(slots)..context).collect(), context),
            2 if features.start && fits => ((0..context).collect(), 0),
            _ => (Vec::new(), 0),
        };
        let budget = if features.prefetch { budget } else { 0 };
        Script { slots, blocks: full.max(1), k, start, prefilled, budget, ahead, asks }
    })
}

fn distinct(raw: &[u32], below: u32, most: usize, without: &[u32]) -> Vec<u32> {
    let mut out: Vec<u32> = Vec::new();
    for block in raw.iter().map(|&raw| raw % below) {
        if !out.contains(&block) && !without.contains(&block) && out.len() < most {
            out.push(block);
        }
    }
    out
}

pub(crate) fn ids(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

/// (block, slot, victim).
type NaiveFill = (u32, usize, Option<u32>);

/// A step's outcome, for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) slots: Vec<usize>,
    pub(crate) loads: Vec<NaiveFill>,
    pub(crate) ahead: Vec<NaiveFill>,
    pub(crate) prefetches: Vec<NaiveFill>,
    pub(crate) growth: Option<NaiveFill>,
    pub(crate) uses: Vec<u32>,
    /// accesses, newest, hits, prefetched, misses, cold, pollution, prefetches, wasted, dropped, written back,
    /// homebound, evictions.
    pub(crate) counts: [u64; 13],
}

impl From<&StreamPlan> for Outcome {
    fn from(plan: &StreamPlan) -> Outcome {
        let fill = |fill: &kvtier_policies::Fill| {
            let victim = (fill.victim != BlockId::NONE).then_some(fill.victim.0);
            (fill.block.0, fill.slot.index(), victim)
        };
        let brought = plan.ahead.iter().chain(&plan.loads).chain(&plan.prefetches);
        assert!(brought.into_iter().all(|fill| fill.source == Source::Home));
        let c = plan.counts;
        Outcome {
            slots: plan.slots.iter().map(|slot: &Slot| slot.index()).collect(),
            loads: plan.loads.iter().map(fill).collect(),
            ahead: plan.ahead.iter().map(fill).collect(),
            prefetches: plan.prefetches.iter().map(fill).collect(),
            growth: plan.growth.as_ref().map(fill),
            uses: plan.prefetch_uses.clone(),
            counts: [
                c.accesses,
                c.newest,
                c.hits,
                c.prefetched,
                c.misses,
                c.cold,
                c.pollution,
                c.prefetches,
                c.wasted,
                c.dropped,
                c.written_back,
                c.homebound,
                c.evictions,
            ],
        }
    }
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug)]
struct Held {
    block: u32,
    /// The step that prefetched it, until its first demand.
    prefetched_in: Option<u32>,
}

/// One buffer.
pub(crate) struct NaiveBuffer<'a> {
    script: &'a Script,
    policy: Box<dyn NaivePolicy>,
    slots: Vec<Option<Held>>,
    /// Blocks that have been in HBM, and those that a prefetch evicted last.
    been: Vec<u32>,
    polluted: Vec<u32>,
    pinned: Vec<usize>,
}

impl<'a> NaiveBuffer<'a> {
    pub(crate) fn new(script: &'a Script, policy: Box<dyn NaivePolicy>) -> NaiveBuffer<'a> {
        let mut buffer = NaiveBuffer {
            script,
            policy,
            slots: vec![None; script.slots as usize],
            been: (0..script.prefilled).collect(),
            polluted: Vec::new(),
            pinned: Vec::new(),
        };
        for &block in &script.start {
            let slot = buffer.slots.iter().position(Option::is_none).unwrap();
            buffer.slots[slot] = Some(Held { block, prefetched_in: None });
            buffer.been.push(block);
            buffer.policy.enter(slot, script.next_use(-1, block));
        }
        buffer
    }

    fn find(&self, block: u32) -> Option<usize> {
        self.slots.iter().position(|held| held.is_some_and(|held| held.block == block))
    }

    fn evictable(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|slot| self.slots[*slot].is_some() && !self.pinned.contains(slot))
            .collect()
    }

    /// Slots for `n` fills: free ones ascending, then victims'. Fewer where nothing may be evicted.
    fn room(&mut self, n: usize) -> Vec<usize> {
        let mut room: Vec<usize> = (0..self.slots.len()).filter(|&slot| self.slots[slot].is_none()).collect();
        room.truncate(n);
        let evictable = self.evictable();
        let need = (n - room.len()).min(evictable.len());
        if need > 0 {
            let victims = self.policy.victims(&evictable, self.slots.len(), need);
            assert_eq!(victims.len(), need);
            room.extend(victims);
        }
        room
    }

    /// Fills a slot, returning the victim; counts it.
    fn fill(
        &mut self,
        block: u32,
        slot: usize,
        prefetched_in: Option<u32>,
        counts: &mut [u64; 13],
    ) -> NaiveFill {
        let victim = self.slots[slot].replace(Held { block, prefetched_in });
        self.pinned.push(slot);
        if let Some(victim) = victim {
            counts[12] += 1;
            counts[8] += u64::from(victim.prefetched_in.is_some());
        }
        (block, slot, victim.map(|victim| victim.block))
    }

    /// Changes the number of slots between steps; returns who left, and who moved where.
    pub(crate) fn resize(&mut self, slots: usize) -> (Vec<u32>, Vec<(usize, usize)>) {
        self.pinned.clear();
        let filled = self.evictable();
        let too_many = filled.len().saturating_sub(slots);
        let victims = match too_many {
            0 => Vec::new(),
            _ => self.policy.victims(&filled, self.slots.len(), too_many),
        };
        let left = victims.iter().map(|&slot| self.slots[slot].take().unwrap().block).collect();
        let mut moved = Vec::new();
        for from in slots..self.slots.len() {
            if self.slots[from].is_some() {
                let to = self.slots.iter().position(Option::is_none).unwrap();
                self.slots[to] = self.slots[from].take();
                self.policy.relocate(from, to);
                moved.push((from, to));
            }
        }
        self.slots.resize(slots, None);
        (left, moved)
    }

    fn forget_pollution(&mut self, block: u32) -> bool {
        let before = self.polluted.len();
        self.polluted.retain(|&other| other != block);
        self.polluted.len() < before
    }

    pub(crate) fn step(&mut self, step: u32, ask: &Ask) -> Outcome {
        let mut out = Outcome::default();
        if self.script.ahead {
            self.pinned.clear();
            out.ahead = self.prefetch(step, ask, &mut out.counts);
        }
        self.pinned = ask.blocks.iter().filter_map(|&block| self.find(block)).collect();
        let hit: Vec<bool> = ask.blocks.iter().map(|&block| self.find(block).is_some()).collect();
        let missing: Vec<u32> = ask.blocks.iter().copied().filter(|&b| self.find(b).is_none()).collect();
        out.counts[0] = ask.blocks.len() as u64 + u64::from(ask.newest);
        out.counts[1] = u64::from(ask.newest);
        out.counts[2] = (ask.blocks.len() - missing.len()) as u64;
        out.counts[4] = missing.len() as u64;
        let room = self.room(missing.len());
        for (&block, &slot) in missing.iter().zip(&room) {
            let fill = self.fill(block, slot, None, &mut out.counts);
            out.loads.push(fill);
            out.counts[5] += u64::from(!self.been.contains(&block));
            out.counts[6] += u64::from(self.forget_pollution(block));
            self.been.push(block);
        }
        out.slots =
            ask.blocks.iter().map(|&block| self.find(block).expect("the selection is resident")).collect();
        for &slot in &out.slots {
            let held = self.slots[slot].as_mut().unwrap();
            out.uses.extend(held.prefetched_in.take());
        }
        out.counts[3] = out.uses.len() as u64;
        let next: Vec<u32> =
            ask.blocks.iter().map(|&block| self.script.next_use(i64::from(step), block)).collect();
        self.policy.credit(&out.slots, &hit, &next);
        if !self.script.ahead {
            out.prefetches = self.prefetch(step, ask, &mut out.counts);
        }
        self.grow(step, ask, &mut out);
        out
    }

    /// Wanted residents are held; the absent take free slots, then those of neither pinned nor held blocks, then that
    /// of a held block which is due later than they are, and later than any other that is held.
    fn prefetch(&mut self, step: u32, ask: &Ask, counts: &mut [u64; 13]) -> Vec<NaiveFill> {
        let mut held: Vec<(u32, usize)> = Vec::new();
        let wants = if self.script.budget > 0 { &ask.wants[..] } else { &[] };
        for &(block, due) in wants {
            match self.find(block) {
                Some(slot) if !self.pinned.contains(&slot) => {
                    self.pinned.push(slot);
                    held.push((due, slot));
                }
                _ => {}
            }
        }
        let (mut brought, mut left) = (Vec::new(), self.script.budget);
        for &(block, due) in wants {
            if self.find(block).is_some() || left == 0 {
                continue;
            }
            left -= 1;
            let mut room = self.room(1);
            let latest = held.iter().map(|one| one.0).max().unwrap_or(0);
            if room.is_empty() && latest > due {
                self.pinned.retain(|slot| !held.contains(&(latest, *slot)));
                room = self.room(1);
                held.retain(|one| one.1 != room[0]);
                self.pinned.extend(held.iter().filter(|one| one.0 == latest).map(|one| one.1));
            }
            let Some(&slot) = room.first() else {
                counts[9] += 1;
                continue;
            };
            let fill = self.fill(block, slot, Some(step), counts);
            self.policy.enter(slot, NEVER);
            self.been.push(block);
            self.forget_pollution(block);
            self.polluted.extend(fill.2);
            brought.push(fill);
            counts[7] += 1;
        }
        brought
    }

    fn grow(&mut self, step: u32, ask: &Ask, out: &mut Outcome) {
        let Some(block) = ask.grown else { return };
        out.counts[10] += 1;
        self.been.push(block);
        match self.room(1).first() {
            Some(&slot) => {
                out.growth = Some(self.fill(block, slot, None, &mut out.counts));
                self.policy.enter(slot, self.script.next_use(i64::from(step), block));
            }
            None => out.counts[11] += 1,
        }
    }
}
