//! The decision plane of one device: every stream of every seated request, the warm pages they share, and their home.
//! One engine step goes in as selections and comes out as a plan.

use crate::admission::Choice;
use crate::allocation::{Allocation, Allocator};
use crate::eviction::{self, BufferShape};
use crate::hash::{self, Recorder};
use crate::home::tiers::HomeTiers;
use crate::prefetch::{self, PrefetchShape};
use crate::shared::StreamTables;
use crate::warm::WarmPool;
use crate::{
    Counts, HomeFull, HomeTier, Lodger, PolicyError, SelectionSource, StepPlan, StreamPlan, TierConfig,
};
use kvtier_units::{BlockId, Seed, Slot};
use stream::{Asked, Stream};

mod account;
mod allocate;
mod exchange;
mod lodging;
mod resize;
mod stream;

pub use resize::SeatSlots;

/// What a request's hot buffers hold when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Nothing: the prompt was prefilled elsewhere and admitted directly to its home.
    #[default]
    Cold,
    /// The last blocks of the prompt, which was prefilled on this device.
    Recent,
}

/// Configuration of a decision plane.
#[derive(Clone, Debug)]
pub struct PlaneConfig {
    /// Eviction policy of the hot buffers.
    pub eviction: eviction::Entry,
    /// Parameters of that policy.
    pub params: toml::Table,
    /// Slots per hot buffer, one figure per layer: an even share of the budget.
    pub slots: Vec<u32>,
    /// How the budget is shared.
    pub allocation: Allocation,
    /// KV-head groups per layer.
    pub head_groups: u32,
    /// Blocks per selection, at most.
    pub k: u32,
    /// Prefetch policy.
    pub prefetch: prefetch::Entry,
    /// Parameters of that policy.
    pub prefetch_params: toml::Table,
    /// Blocks that one stream may prefetch in one step.
    pub prefetch_budget: u32,
    /// Frames of the warm pages; zero for none.
    pub warm_frames: usize,
    /// Who enters the warm pages.
    pub admission: Choice,
    /// Bytes of the home pool in host memory.
    pub home_capacity: u64,
    /// Home tiers below host.
    pub tiers: TierConfig,
    /// Bytes of one block of one stream.
    pub block_bytes: u64,
    /// What buffers hold when a request starts.
    pub start: Start,
    /// Seed of everything random.
    pub seed: Seed,
}

/// A shared prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The group that shares it.
    pub group: u32,
    /// Blocks of it, the first of the context.
    pub blocks: u32,
}

/// A request taking a seat.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    /// The seat.
    pub seat: u32,
    /// Blocks complete at the start; the block being filled is not one of them.
    pub full_blocks: u32,
    /// Blocks that the context can ever hold.
    pub max_blocks: u32,
    /// The shared prefix, if any.
    pub prefix: Option<Prefix>,
    /// First step that selects a block of a stream, for policies that need the future.
    pub first_use: &'a dyn Fn(usize, BlockId) -> u32,
}

struct Seat {
    /// Admissions before this one.
    ordinal: usize,
    streams: Vec<Stream>,
    lodger: Lodger,
}

/// Requests seated in a prefix group, and its tables per stream: of the warm pages, and of the home tiers.
#[derive(Default)]
struct PrefixGroup {
    requests: u32,
    tables: Vec<u32>,
    home_tables: Vec<u32>,
}

/// Decides for a whole device, one engine step at a time.
pub struct DecisionPlane {
    config: PlaneConfig,
    seats: Vec<Option<Seat>>,
    warm: Option<WarmPool>,
    groups: Vec<PrefixGroup>,
    home: HomeTier,
    /// Where each block has its home, where there are tiers below host.
    tiers: Option<HomeTiers>,
    allocator: Option<Box<dyn Allocator>>,
    /// Hash of every request admitted so far, by admission; final once it has left.
    request_hashes: Vec<u64>,
    step: u32,
    look_ahead: u32,
    /// Bytes of state that a stream's prefetcher keeps.
    prefetch_state: u64,
    plan: StepPlan,
    recorder: Recorder,
    /// Slots of one stream's near misses, for an admission policy that reads them.
    near: Vec<Slot>,
}

impl DecisionPlane {
    /// A plane with no request.
    ///
    /// # Errors
    /// If a buffer cannot hold a selection, a policy parameter is wrong, or two settings exclude each other.
    pub fn new(config: PlaneConfig) -> Result<DecisionPlane, PolicyError> {
        if let Some(&slots) = config.slots.iter().find(|&&slots| slots < config.k) {
            return Err(PolicyError::BufferTooSmall { slots, k: config.k });
        }
        let prefetches = config.prefetch.prefetches;
        if config.eviction.needs_future && prefetches {
            return Err(PolicyError::Conflict {
                field: "prefetch.policy",
                message: format!(
                    "`{}` bounds demand-only policies and cannot price a prefetched block; set prefetch.policy = \"none\"",
                    config.eviction.name
                ),
            });
        }
        if prefetches && config.prefetch_budget == 0 {
            return Err(PolicyError::Conflict {
                field: "prefetch.budget",
                message: format!(
                    "`{}` with a budget of 0 prefetches nothing; give at least 1",
                    config.prefetch.name
                ),
            });
        }
        let probe = BufferShape { slots: config.k.max(1), blocks: 1, k: config.k, seed: config.seed };
        config.eviction.build(&config.params, probe)?;
        let gate = config.admission.build(config.warm_frames)?;
        let tiers = config.tiers.build(config.home_capacity, config.block_bytes)?;
        let home_capacity = match &tiers {
            Some(tiers) => tiers.capacity() * config.block_bytes,
            None => config.home_capacity,
        };
        let probe = PrefetchShape { layer: 0, blocks: 1, k: config.k };
        let prefetcher = config.prefetch.build(&config.prefetch_params, probe)?;
        Ok(DecisionPlane {
            allocator: allocate::allocator(&config)?,
            warm: (config.warm_frames > 0).then(|| WarmPool::new(config.warm_frames, gate)),
            home: HomeTier::new(home_capacity),
            tiers,
            seats: Vec::new(),
            groups: Vec::new(),
            request_hashes: Vec::new(),
            step: 0,
            prefetch_state: config.prefetch.state_bytes(&config.prefetch_params, config.k)?,
            look_ahead: prefetcher.map_or(0, |prefetcher| prefetcher.look_ahead()),
            plan: StepPlan::default(),
            recorder: Recorder::default(),
            near: Vec::new(),
            config,
        })
    }

    /// Streams of one request: layers x head groups.
    pub fn streams_per_request(&self) -> usize {
        self.config.slots.len() * self.config.head_groups as usize
    }

    /// Steps of each stream that must be known in advance; zero but for bounds.
    pub fn look_ahead(&self) -> u32 {
        self.look_ahead
    }

    /// Seats a request and gives its buffers their start. Returns what its streams load at admission.
    ///
    /// A context that fits a buffer is resident from the start: prefilled on this device, or else loaded in position
    /// order and counted as admitted.
    ///
    /// # Errors
    /// If its home blocks do not fit the pool; nothing has changed then.
    ///
    /// # Panics
    /// If the seat is taken.
    pub fn admit(&mut self, admission: &Admission<'_>) -> Result<Counts, HomeFull> {
        let streams = self.streams_per_request() as u64;
        let bytes = |blocks: u32| u64::from(blocks) * streams * self.config.block_bytes;
        let prefix_blocks = admission.prefix.map_or(0, |prefix| prefix.blocks.min(admission.max_blocks));
        let lodger = Lodger {
            total: bytes(admission.max_blocks),
            prefix: bytes(prefix_blocks),
            group: admission.prefix.map(|prefix| prefix.group),
        };
        self.home.admit(lodger)?;
        self.open_group(admission.prefix);
        let mut counts = Counts::default();
        let ordinal = self.request_hashes.len();
        self.request_hashes.push(0);
        let slots = self.starting_slots(admission.seat, admission.max_blocks);
        let streams: Vec<Stream> = (0..self.streams_per_request())
            .map(|stream| self.seat_stream(admission, ordinal, stream, slots[stream], &mut counts))
            .collect();
        counts.spilled = self.lodge(&streams, admission.full_blocks);
        let seat = admission.seat as usize;
        if self.seats.len() <= seat {
            self.seats.resize_with(seat + 1, || None);
        }
        assert!(self.seats[seat].is_none(), "seat {seat} is taken");
        self.seats[seat] = Some(Seat { ordinal, streams, lodger });
        Ok(counts)
    }

    fn seat_stream(
        &mut self,
        admission: &Admission<'_>,
        ordinal: usize,
        stream: usize,
        slots: u32,
        counts: &mut Counts,
    ) -> Stream {
        let config = &self.config;
        let number = ordinal as u64 * self.streams_per_request() as u64 + stream as u64;
        let shape = BufferShape {
            slots,
            blocks: admission.max_blocks,
            k: config.k,
            seed: config.seed.child("stream", number),
        };
        let built = config.eviction.build(&config.params, shape);
        let mut buffer = built.expect("the plane's configuration was tried when it was made");
        let fits = admission.full_blocks <= slots;
        let first = match config.start {
            Start::Recent => Some(admission.full_blocks.saturating_sub(slots)),
            Start::Cold => fits.then_some(0),
        };
        if config.start == Start::Recent {
            buffer.mark_prefilled(admission.full_blocks);
        }
        if let Some(first) = first {
            let blocks: Vec<BlockId> = (first..admission.full_blocks).map(BlockId).collect();
            let next_use: Vec<u32> = match config.eviction.needs_future {
                true => blocks.iter().map(|&block| (admission.first_use)(stream, block)).collect(),
                false => Vec::new(),
            };
            buffer.start(&blocks, &next_use);
            counts.admitted += if config.start == Start::Cold { blocks.len() as u64 } else { 0 };
        }
        let prefix =
            admission.prefix.map(|prefix| (&self.groups[prefix.group as usize].tables, prefix.blocks));
        let warm = self.warm.as_mut().map(|pool| {
            let prefix = prefix.map(|(tables, blocks)| (tables[stream], blocks));
            pool.open_stream(admission.max_blocks, slots, prefix)
        });
        let home = self.tiers.as_mut().map(|tiers| {
            let group = admission.prefix.map(|prefix| (&self.groups[prefix.group as usize], prefix.blocks));
            let prefix = group.map(|(group, blocks)| (group.home_tables[stream], blocks));
            StreamTables::new(tiers.open_table(admission.max_blocks), prefix)
        });
        let shape = PrefetchShape {
            layer: u32::try_from(stream / config.head_groups as usize).expect("fewer than 2^32 layers"),
            blocks: admission.max_blocks,
            k: config.k,
        };
        let prefetcher = config.prefetch.build(&config.prefetch_params, shape);
        let prefetcher = prefetcher.expect("the plane's configuration was tried when it was made");
        Stream { buffer, prefetcher, warm, home, hash: 0 }
    }

    /// Ends the request in a seat: its slots, warm pages and home blocks are freed. Returns its last counts.
    ///
    /// # Panics
    /// If the seat is free.
    pub fn release(&mut self, seat: u32) -> Counts {
        if let Some(allocator) = &mut self.allocator {
            allocator.leave(seat);
        }
        let seat = self.seats[seat as usize].take().expect("a seat that is left was taken");
        self.request_hashes[seat.ordinal] = hash_request(&seat);
        self.home.release(seat.lodger);
        if let Some(pool) = &mut self.warm {
            for tables in seat.streams.iter().filter_map(|stream| stream.warm) {
                pool.close_table(tables.own);
            }
        }
        self.leave_home(&seat.streams);
        if let Some(group) = seat.lodger.group {
            let group = &mut self.groups[group as usize];
            group.requests -= 1;
            if let Some(tiers) = self.tiers.as_mut().filter(|_| group.requests == 0) {
                group.home_tables.drain(..).for_each(|table| tiers.close_table(table));
            }
            if let Some(pool) = self.warm.as_mut().filter(|_| group.requests == 0) {
                group.tables.drain(..).for_each(|table| pool.close_table(table));
            }
        }
        let wasted = seat.streams.iter().map(|stream| stream.buffer.unused_prefetches()).sum();
        Counts { wasted, ..Counts::default() }
    }

    /// Decides one engine step for the requests in `seats`, in that order.
    ///
    /// # Panics
    /// If a seat is free.
    pub fn step<S: SelectionSource>(&mut self, seats: &[u32], source: &S) -> &StepPlan {
        let heads = self.config.head_groups as usize;
        let layers = self.config.slots.len();
        self.plan.step = self.step;
        self.plan.participants = seats.len();
        self.plan.layers.resize_with(layers, Default::default);
        self.reallocate();
        self.begin_home_step();
        for layer in 0..layers {
            let layer_plan = &mut self.plan.layers[layer];
            layer_plan.streams.resize_with(seats.len() * heads, StreamPlan::default);
            for (at, plan) in layer_plan.streams.iter_mut().enumerate() {
                let (participant, number) = (at / heads, layer * heads + at % heads);
                let seat = self.seats[seats[participant] as usize].as_mut();
                let stream = &mut seat.expect("a participant is seated").streams[number];
                let asked = Asked { source, participant, number, head: at % heads, heads };
                let budget = self.config.prefetch_budget;
                let below = (self.warm.as_ref(), self.tiers.as_ref());
                layer_plan.source = stream.decide(self.step, &asked, budget, below, plan);
                if let Some((tiers, tables)) = self.tiers.as_ref().zip(stream.home) {
                    tiers.route(&tables, plan);
                }
                stream.hash = self.recorder.stream_step(stream.hash, self.step, plan);
                if let Some(allocator) = &mut self.allocator {
                    let selection = source.selection(participant, number);
                    allocator.observe(seats[participant], number, &selection);
                }
            }
            if self.warm.is_some() {
                self.settle_warm(layer, seats, source);
            }
            self.settle_home(layer, seats, source);
        }
        self.end_home_step();
        self.step += 1;
        &self.plan
    }

    /// The decision log hash of everything decided so far.
    pub fn decision_hash(&self) -> u64 {
        let mut hashes = self.request_hashes.clone();
        for seat in self.seats.iter().flatten() {
            hashes[seat.ordinal] = hash_request(seat);
        }
        let pool = self.warm.as_ref().map_or(0, WarmPool::hash);
        let tiers = self.tiers.as_ref().map(HomeTiers::hash);
        hash::combine(hashes.into_iter().chain([pool]).chain(tiers))
    }
}

fn hash_request(seat: &Seat) -> u64 {
    hash::combine(seat.streams.iter().map(|stream| stream.hash))
}
