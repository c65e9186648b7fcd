//! Accesses with the locality of sparse decode, drawn once and given to both planes.

use super::Scenario;
use kvtier_policies::{Selection, SelectionSource};
use kvtier_units::BlockId;
use rand::RngExt;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// One engine step of all streams, laid out as the device takes it.
pub(super) struct StepAccesses {
    /// Streams of one layer, and head groups: a layer's streams lie together, those of a seat within them.
    per_layer: usize,
    heads: usize,
    k: usize,
    near_stride: usize,
    pub(super) ids: Vec<u32>,
    pub(super) blocks: Vec<BlockId>,
    pub(super) counts: Vec<u32>,
    pub(super) scores: Vec<u16>,
    pub(super) near: Vec<BlockId>,
    pub(super) near_counts: Vec<u32>,
    pub(super) grown: Vec<BlockId>,
    pub(super) newest: Vec<bool>,
}

impl StepAccesses {
    /// Place of a seat's stream.
    pub(super) fn place(&self, seat: usize, stream: usize) -> usize {
        stream / self.heads * self.per_layer + seat * self.heads + stream % self.heads
    }
}

impl SelectionSource for StepAccesses {
    fn selection(&self, participant: usize, stream: usize) -> Selection<'_> {
        let at = self.place(participant, stream);
        Selection {
            blocks: &self.blocks[at * self.k..][..self.counts[at] as usize],
            scores: &self.scores[at * self.k..][..self.counts[at] as usize],
            near: &self.near[at * self.near_stride..][..self.near_counts[at] as usize],
            newest: self.newest[at],
            grown: Some(self.grown[at]).filter(|&block| block != BlockId::NONE),
            foresight: None,
        }
    }
}

/// A request in its seat.
struct Seated {
    full: u32,
    entries: u32,
    ends: u32,
    /// Per stream: the last selection, and the step in which each block was chosen last.
    selections: Vec<Vec<BlockId>>,
    chosen: Vec<Vec<u32>>,
}

/// Draws requests and their selections.
pub(super) struct Accesses {
    scenario: Scenario,
    rng: Pcg64Mcg,
    seats: Vec<Seated>,
    stamp: u32,
    now: StepAccesses,
}

impl Accesses {
    pub(super) fn new(scenario: &Scenario) -> Accesses {
        let shape = scenario.buffers();
        let n = shape.streams as usize;
        let now = StepAccesses {
            per_layer: (scenario.seats * scenario.head_groups) as usize,
            heads: scenario.head_groups as usize,
            k: shape.k as usize,
            near_stride: shape.near as usize,
            ids: (0..shape.streams).collect(),
            blocks: vec![BlockId::NONE; n * shape.k as usize],
            counts: vec![0; n],
            scores: vec![0; n * shape.k as usize],
            near: vec![BlockId::NONE; n * shape.near as usize],
            near_counts: vec![0; n],
            grown: vec![BlockId::NONE; n],
            newest: vec![false; n],
        };
        let rng = Pcg64Mcg::seed_from_u64(scenario.seed);
        Accesses { scenario: scenario.clone(), rng, seats: Vec::new(), stamp: 0, now }
    }

    /// Refills the seats whose request has ended: (seat, full blocks of the new one).
    pub(super) fn change_seats(&mut self, step: u32) -> Vec<(u32, u32)> {
        let mut moved = Vec::new();
        for seat in 0..self.scenario.seats {
            if self.seats.get(seat as usize).is_some_and(|seated| seated.ends > step) {
                continue;
            }
            let (low, high) = self.scenario.prompt_blocks;
            let full = self.rng.random_range(low..=high);
            let (short, long) = self.scenario.steps_per_request;
            let streams = self.scenario.streams() as usize;
            let seated = Seated {
                full,
                entries: self.rng.random_range(0..self.scenario.entries),
                ends: step + self.rng.random_range(short..=long),
                selections: vec![Vec::new(); streams],
                chosen: vec![vec![0; self.scenario.max_blocks() as usize]; streams],
            };
            match self.seats.get_mut(seat as usize) {
                Some(place) => *place = seated,
                None => self.seats.push(seated),
            }
            moved.push((seat, full));
        }
        moved
    }

    /// Place of a seat's stream.
    pub(super) fn place(&self, seat: usize, stream: usize) -> usize {
        self.now.place(seat, stream)
    }

    /// The next step of every seat.
    pub(super) fn step(&mut self) -> &StepAccesses {
        self.stamp += 1;
        let streams = self.scenario.streams() as usize;
        for seat in 0..self.seats.len() {
            let seated = &mut self.seats[seat];
            seated.entries += 1;
            let grown = seated.entries == self.scenario.entries;
            for stream in 0..streams {
                let at = self.now.place(seat, stream);
                let newest = BlockId(seated.full);
                self.now.grown[at] = if grown { newest } else { BlockId::NONE };
                self.now.newest[at] = self.rng.random_bool(0.8);
                select(&mut self.rng, &self.scenario, self.stamp, seated, stream);
                let chosen = &seated.selections[stream];
                self.now.counts[at] = crate::ops::count32(chosen.len());
                self.now.blocks[at * self.now.k..][..chosen.len()].copy_from_slice(chosen);
                for score in &mut self.now.scores[at * self.now.k..][..chosen.len()] {
                    *score = self.rng.random();
                }
                let list = &mut self.now.near[at * self.now.near_stride..][..self.now.near_stride];
                self.now.near_counts[at] =
                    near_misses(&mut self.rng, self.stamp, &mut seated.chosen[stream], seated.full, list);
            }
            if grown {
                seated.entries = 0;
                seated.full += 1;
            }
        }
        &self.now
    }
}

/// Replaces part of a stream's selection, mostly by blocks near others, and shuffles some ranks.
fn select(rng: &mut Pcg64Mcg, scenario: &Scenario, stamp: u32, seated: &mut Seated, stream: usize) {
    let (full, k) = (seated.full, (scenario.k as usize).min(seated.full as usize));
    let (selection, chosen) = (&mut seated.selections[stream], &mut seated.chosen[stream]);
    let replace = rng.random_range(0..=k * scenario.churn as usize / 100);
    for _ in 0..replace.min(selection.len()) {
        let at = rng.random_range(0..selection.len());
        selection.swap_remove(at);
    }
    selection.iter().for_each(|block| chosen[block.index()] = stamp);
    while selection.len() < k {
        // Three in four lie within the most recent eighth of the context.
        let low = if rng.random_bool(0.75) { full - full.div_ceil(8) } else { 0 };
        let mut block = rng.random_range(low..full);
        while chosen[block as usize] == stamp {
            block = (block + 1) % full;
        }
        chosen[block as usize] = stamp;
        selection.push(BlockId(block));
    }
    for _ in 0..k / 4 {
        let (a, b) = (rng.random_range(0..k), rng.random_range(0..k));
        selection.swap(a, b);
    }
}

/// Distinct blocks outside the selection, as many as the list holds or as there are.
fn near_misses(rng: &mut Pcg64Mcg, stamp: u32, chosen: &mut [u32], full: u32, list: &mut [BlockId]) -> u32 {
    let mut n = 0;
    for _ in 0..list.len() {
        let block = rng.random_range(0..full);
        if chosen[block as usize] != stamp {
            // The mark lasts for this step alone: the next one has another stamp.
            chosen[block as usize] = stamp;
            list[n] = BlockId(block);
            n += 1;
        }
    }
    crate::ops::count32(n)
}
