//! Where every block's frame is, kept by the host for replays whose plans it makes: the frames of slots and of warm pages,
//! and what copy engines are told. Where slots keep their frames and kernels move the blocks, the device needs none of it.
//!
//! Slots and warm pages are indirections to frames. A block that leaves a slot and is let in keeps its frame as a warm page;
//! the slot takes that of the page that came back, or one that is free for what is brought from home. As many frames as slots,
//! reserved ones and warm pages always suffice: what the pool gives up covers what the slots ask for.

use super::geometry::Geometry;
use super::script::Joined;
use crate::ops::count32;
use crate::ops::replay::Sizes;
use crate::ops::swap::Move;
use crate::parity::pool::Pool;
use kvtier_policies::{Fill, Source, StreamPlan};
use kvtier_sim::transfer::Mechanism;
use kvtier_units::BlockId;
use std::collections::VecDeque;

/// A frame that holds nothing known, which nobody reads.
const NONE: u32 = u32::MAX;

/// One list of blocks: what brings it, and which they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Brought {
    pub(super) by: Mechanism,
    pub(super) moves: Vec<Move>,
}

impl Default for Brought {
    fn default() -> Brought {
        Brought { by: Mechanism::Gather, moves: Vec::new() }
    }
}

/// What is brought in one step where copy engines may do it: per layer that selects, its misses and its prefetches.
pub(super) type Copies = Vec<[Brought; 2]>;

/// The frame of every slot's block and of every warm page.
pub(super) struct Ledger {
    z: Sizes,
    heads: u32,
    /// Streams x (slots and the reserved one).
    frames: Vec<u32>,
    spare: Vec<u32>,
    pages: Option<Pages>,
    copies: Option<Copying>,
}

/// The warm pages: which there are, and the frame of each.
struct Pages {
    pool: Pool,
    /// Per seat and stream of the request, its table; per table, its stream on the device and the frame of each block.
    tables: Vec<Vec<u32>>,
    homes: Vec<(u32, Vec<u32>)>,
}

/// What copy engines will be told.
struct Copying {
    sorted: bool,
    /// Layers whose prefetches wait for the next step.
    later: Vec<bool>,
    now: Copies,
    next: Copies,
    /// Where moves for a request that has left go.
    scrap: u32,
}

impl Ledger {
    /// The frames as a pass finds them, if the host keeps them at all.
    pub(super) fn new(geometry: &Geometry) -> Option<Ledger> {
        let z = geometry.sizes;
        let told = geometry.ways.copies() || geometry.warm > 0;
        told.then(|| Ledger {
            z,
            heads: geometry.heads,
            frames: (0..geometry.hot_frames()).collect(),
            // Taken from the end: the first is the first to be used.
            spare: (geometry.hot_frames()..geometry.hot_frames() + geometry.warm).rev().collect(),
            pages: (geometry.warm > 0).then(|| Pages {
                pool: Pool::new(geometry.warm as usize),
                tables: vec![Vec::new(); geometry.seats as usize],
                homes: Vec::new(),
            }),
            copies: geometry.ways.copies().then(|| Copying {
                sorted: geometry.ways.sorted,
                later: (0..geometry.layers).map(|layer| geometry.ways.sent_later(layer)).collect(),
                now: vec![Default::default(); geometry.layers as usize],
                next: vec![Default::default(); geometry.layers as usize],
                scrap: geometry.scrap(),
            }),
        })
    }

    /// Frees what the requests that leave have among the warm pages and seats those that join.
    pub(super) fn seat(&mut self, geometry: &Geometry, leave: &[u32], join: &[Joined]) {
        if let Some(pages) = &mut self.pages {
            leave.iter().for_each(|&seat| pages.close(seat, &mut self.spare));
            join.iter().for_each(|joined| pages.open(joined.seat, geometry));
        }
        if let Some(copies) = &mut self.copies {
            let z = self.z;
            let seat = |moved: &Move| moved.home / z.blocks % z.streams / self.heads;
            for moved in copies.next.iter_mut().flat_map(|lists| &mut lists[1].moves) {
                if join.iter().any(|joined| joined.seat == seat(moved)) {
                    moved.frame = copies.scrap;
                }
            }
        }
    }

    /// Begins a step: what waited for it is sent now.
    pub(super) fn begin(&mut self) {
        if let Some(copies) = &mut self.copies {
            let empty = vec![Default::default(); copies.next.len()];
            copies.now = std::mem::replace(&mut copies.next, empty);
        }
    }

    /// Applies the plans of one layer, whose misses and prefetches are brought by what is `told`. `say` hears, of every
    /// fill in the order of the script, the stream within the layer, the number of the fill, and the frame that its slot
    /// has from now on; of a growth, the next reserved one.
    pub(super) fn apply(
        &mut self,
        step: u32,
        layer: u32,
        plans: &[StreamPlan],
        told: [Mechanism; 2],
        mut say: impl FnMut(usize, usize, u32),
    ) {
        let mut taken = self.exchange(step, layer, plans);
        for (at, plan) in plans.iter().enumerate() {
            let g = layer * self.z.streams + count32(at);
            for (number, fill) in scripted(plan).enumerate() {
                let frame = self.fill(g, fill, leaves(plan, fill), &mut taken);
                say(at, number, frame);
            }
        }
        if let Some(copies) = &mut self.copies {
            copies.list(&self.z, layer, plans, &self.frames, told);
        }
    }

    /// Exchanges of a layer with the warm pages; returns the frames of the pages that came back, in the order of fills.
    fn exchange(&mut self, step: u32, layer: u32, plans: &[StreamPlan]) -> VecDeque<u32> {
        let mut taken = VecDeque::new();
        let Some(pages) = &mut self.pages else { return taken };
        let (mut removed, mut inserted) = (Vec::new(), Vec::new());
        let heads = self.heads as usize;
        let table = |at: usize| (at / heads, layer as usize * heads + at % heads);
        for (at, plan) in plans.iter().enumerate() {
            let table = pages.tables[table(at).0][table(at).1];
            for fill in plan.loads.iter().chain(&plan.prefetches).filter(|fill| fill.source == Source::Warm) {
                removed.push((table, fill.block.0));
                taken.push_back(std::mem::replace(
                    &mut pages.homes[table as usize].1[fill.block.index()],
                    NONE,
                ));
                if !leaves(plan, fill) {
                    let g = layer * self.z.streams + count32(at);
                    self.spare.push(self.frames[place(&self.z, g, fill.slot.0)]);
                }
            }
        }
        for (at, plan) in plans.iter().enumerate() {
            let table = pages.tables[table(at).0][table(at).1];
            let g = layer * self.z.streams + count32(at);
            for fill in plan.fills().filter(|fill| leaves(plan, fill)) {
                inserted.push((table, fill.victim.0));
                let frame = self.frames[place(&self.z, g, fill.slot.0)];
                let page = &mut pages.homes[table as usize].1[fill.victim.index()];
                // A block that was evicted and prefetched in one step is a page as well; it leaves its slot a second time.
                self.spare.extend(Some(std::mem::replace(page, frame)).filter(|&before| before != NONE));
            }
        }
        for (table, block) in pages.pool.settle(step, layer, &removed, &inserted) {
            let frame = std::mem::replace(&mut pages.homes[table as usize].1[block as usize], NONE);
            self.spare.push(frame);
        }
        taken
    }

    /// Gives a fill its frame; `leaves` whether the slot's own goes to the warm pages.
    fn fill(&mut self, g: u32, fill: &Fill, leaves: bool, taken: &mut VecDeque<u32>) -> u32 {
        let (slot, reserved) = (place(&self.z, g, fill.slot.0), place(&self.z, g, self.z.slots));
        // Without warm pages, and where nothing entered them, the slot's own frame is as free as any.
        let own = self.pages.is_none() || !leaves;
        let mut free = |own: bool, frame: u32| match own {
            true => frame,
            false => self.spare.pop().expect("the pool gave up as many frames as the slots ask for"),
        };
        match fill.source {
            Source::Grown => {
                let next = free(own, self.frames[slot]);
                self.frames[slot] = std::mem::replace(&mut self.frames[reserved], next);
                next
            }
            Source::Warm => {
                self.frames[slot] = taken.pop_front().expect("every page that came back had a frame");
                self.frames[slot]
            }
            _ => {
                self.frames[slot] = free(own, self.frames[slot]);
                self.frames[slot]
            }
        }
    }

    /// What copy engines bring in the step that was applied last.
    pub(super) fn take_copies(&mut self) -> Copies {
        self.copies.as_mut().map(|copies| std::mem::take(&mut copies.now)).unwrap_or_default()
    }

    /// What they would bring in the next one, whatever happens in it.
    pub(super) fn pending(&self) -> Vec<Move> {
        let copies = self.copies.iter().flat_map(|copies| &copies.next);
        copies.flat_map(|lists| lists[1].moves.iter().copied()).collect()
    }

    /// The warm pages: stream, block, frame.
    pub(super) fn pages(&self) -> Vec<[u32; 4]> {
        let tables = self.pages.iter().flat_map(|pages| &pages.homes);
        let held = |&(g, ref frames): &'_ (u32, Vec<u32>)| {
            let pages = frames.iter().enumerate().filter(|&(_, &frame)| frame != NONE);
            pages.map(|(block, &frame)| [g, count32(block), frame, 0]).collect::<Vec<_>>()
        };
        tables.flat_map(held).collect()
    }

    /// Hash of what went in and out of the warm pages, zero without them.
    pub(super) fn hash(&self) -> u64 {
        self.pages.as_ref().map_or(0, |pages| pages.pool.hash())
    }
}

/// The fills of a stream in the order in which the script has them: those before the look-up stand last.
pub(super) fn scripted(plan: &StreamPlan) -> impl Iterator<Item = &Fill> {
    plan.loads.iter().chain(&plan.prefetches).chain(&plan.growth).chain(&plan.ahead)
}

/// Whether a block leaves by this fill and enters the warm pages.
fn leaves(plan: &StreamPlan, fill: &Fill) -> bool {
    fill.victim != BlockId::NONE && !plan.rejected.contains(&fill.victim)
}

fn place(z: &Sizes, g: u32, slot: u32) -> usize {
    (g * (z.slots + 1) + slot) as usize
}

impl Pages {
    /// Frees the pages of a seat.
    fn close(&mut self, seat: u32, spare: &mut Vec<u32>) {
        for table in self.tables[seat as usize].drain(..) {
            self.pool.close(table);
            let (_, frames) = std::mem::take(&mut self.homes[table as usize]);
            spare.extend(frames.into_iter().filter(|&frame| frame != NONE));
        }
    }

    fn open(&mut self, seat: u32, geometry: &Geometry) {
        assert!(self.tables[seat as usize].is_empty(), "a seat is left before it is taken");
        for (layer, head) in
            (0..geometry.layers).flat_map(|layer| (0..geometry.heads).map(move |h| (layer, h)))
        {
            let table = self.pool.open(geometry.sizes.blocks);
            if self.homes.len() <= table as usize {
                self.homes.resize(table as usize + 1, (0, Vec::new()));
            }
            let frames = vec![NONE; geometry.sizes.blocks as usize];
            self.homes[table as usize] = (geometry.stream(seat, layer, head), frames);
            self.tables[seat as usize].push(table);
        }
    }
}

impl Copying {
    /// Lists what a layer brings from home, for this step or, ahead, for the next.
    fn list(&mut self, z: &Sizes, layer: u32, plans: &[StreamPlan], frames: &[u32], told: [Mechanism; 2]) {
        let at = layer as usize;
        let home = |g: u32, fill: &Fill| Move {
            home: g * z.blocks + fill.block.0,
            frame: frames[place(z, g, fill.slot.0)],
        };
        let brought = |fills: fn(&StreamPlan) -> &Vec<Fill>| {
            let streams = (layer * z.streams..).zip(plans);
            let listed = streams.flat_map(|(g, plan)| fills(plan).iter().map(move |fill| (g, fill)));
            let from_home = listed.filter(|(_, fill)| fill.source == Source::Home);
            let mut moves: Vec<Move> = from_home.map(|(g, fill)| home(g, fill)).collect();
            if self.sorted {
                moves.sort_unstable_by_key(|moved| moved.home);
            }
            moves
        };
        let (loads, ahead) = (brought(|plan| &plan.loads), brought(|plan| &plan.ahead));
        let prefetches = brought(|plan| &plan.prefetches);
        self.now[at][0] = Brought { by: told[0], moves: loads };
        // What the first layer wants is sent during the last one, any other during the layer before it in the next step.
        let to = if self.later[at] { &mut self.next } else { &mut self.now };
        assert!(ahead.is_empty() || prefetches.is_empty(), "a layer prefetches in one phase only");
        to[at][1] = Brought { by: told[1], moves: if ahead.is_empty() { prefetches } else { ahead } };
    }
}

#[cfg(test)]
mod tests;
