//! Parity: the device and the decision plane decide the same steps, and every slot, victim and order is compared.

mod accesses;
pub(crate) mod log;
pub(crate) mod pool;
pub mod recorded;
mod warm;

use crate::ops::lookup::{Buffers, Decided, Lookup, Policy, Residencies, Selected};
use crate::{Device, DeviceBuffer, HwError, Stream};
use accesses::{Accesses, StepAccesses};
use kvtier_policies::allocation::Allocation;
use kvtier_policies::{
    Admission, DecisionPlane, PlaneConfig, Start, StepPlan, StreamPlan, eviction, prefetch,
};
use kvtier_units::{BlockId, Seed};
use log::{Log, Record};
use serde::Serialize;
use warm::{Tables, Warm};

/// What to run on both planes.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Name of the case.
    pub name: String,
    /// Seats, each refilled when its request ends.
    pub seats: u32,
    /// Layers.
    pub layers: u32,
    /// KV-head groups per layer.
    pub head_groups: u32,
    /// Slots per hot buffer.
    pub slots: u32,
    /// Blocks per selection.
    pub k: u32,
    /// Entries per block: a stream grows by a block every so many steps.
    pub entries: u32,
    /// Blocks of a prompt, from and to.
    pub prompt_blocks: (u32, u32),
    /// Steps of a request, from and to.
    pub steps_per_request: (u32, u32),
    /// Share of a selection that is replaced from one step to the next, at most, in percent.
    pub churn: u32,
    /// Blocks that a stream may prefetch in one step; zero for no prefetch.
    pub prefetch: u32,
    /// Whether requests were prefilled on this device.
    pub recent: bool,
    /// Frames of the warm pages, which the host manages and the device looks blocks up in; zero for none.
    pub warm_frames: usize,
    /// Engine steps.
    pub steps: u32,
    /// Seed of the accesses.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// The scenario.
    pub scenario: Scenario,
    /// Eviction policy.
    pub policy: String,
    /// Blocks selected in all.
    pub accesses: u64,
    /// Demand misses.
    pub misses: u64,
    /// Blocks evicted.
    pub evictions: u64,
    /// Blocks prefetched.
    pub prefetches: u64,
    /// Blocks found among the warm pages.
    pub warm_hits: u64,
    /// Blocks that grew into a buffer.
    pub grown: u64,
    /// Requests that ended.
    pub ended: u64,
    /// Stream steps in which anything differs.
    pub mismatches: u64,
    /// Decision hash of the decision plane.
    pub host_hash: String,
    /// Decision hash of the device's decisions.
    pub device_hash: String,
}

impl Agreement {
    /// Whether nothing differs.
    pub fn holds(&self) -> bool {
        self.mismatches == 0 && self.host_hash == self.device_hash
    }
}

impl Scenario {
    fn streams(&self) -> u32 {
        self.layers * self.head_groups
    }

    /// Blocks that a context can ever hold.
    fn max_blocks(&self) -> u32 {
        self.prompt_blocks.1 + self.steps_per_request.1 / self.entries + 2
    }

    fn buffers(&self) -> Buffers {
        Buffers {
            streams: self.seats * self.streams(),
            slots: self.slots,
            blocks: self.max_blocks(),
            k: self.k,
            near: self.k,
            budget: self.prefetch,
        }
    }

    fn plane(&self, policy: &str) -> DecisionPlane {
        let prefetcher = if self.prefetch > 0 { "next-ranked" } else { "none" };
        let config = PlaneConfig {
            eviction: *eviction::find(eviction::EVICTION, policy).expect("a registered policy"),
            params: toml::Table::new(),
            slots: vec![self.slots; self.layers as usize],
            allocation: Allocation::default(),
            head_groups: self.head_groups,
            k: self.k,
            prefetch: *prefetch::find(prefetcher).expect("a registered prefetcher"),
            prefetch_params: toml::Table::new(),
            prefetch_budget: self.prefetch,
            warm_frames: self.warm_frames,
            admission: Default::default(),
            home_capacity: u64::MAX,
            tiers: Default::default(),
            block_bytes: 1,
            start: if self.recent { Start::Recent } else { Start::Cold },
            seed: Seed(self.seed),
        };
        DecisionPlane::new(config).expect("a scenario's buffers hold its selections")
    }

    /// First block and number of blocks with which a stream of `full` blocks starts.
    fn start(&self, full: u32) -> (u32, u32) {
        match self.recent {
            true => (full.saturating_sub(self.slots), full.min(self.slots)),
            false if full <= self.slots => (0, full),
            false => (0, 0),
        }
    }
}

/// Runs one scenario on both planes.
///
/// # Errors
/// If the device fails. Differences are counted.
pub fn run(
    device: &Device,
    lookup: &Lookup,
    policy: Policy,
    scenario: &Scenario,
) -> Result<Agreement, HwError> {
    let mut twins = Twins::new(device, policy, scenario)?;
    let seats: Vec<u32> = (0..scenario.seats).collect();
    for step in 0..scenario.steps {
        twins.seat(lookup, step)?;
        let now = twins.accesses.step();
        submit(&mut twins.selected, now)?;
        let plan = twins.plane.step(&seats, now);
        let decided = match &mut twins.warm {
            None => {
                lookup.step(&twins.stream, &twins.state, &twins.selected, &twins.decided)?;
                Fills::read(&twins.decided)?
            }
            Some(warm) => {
                let tables = Tables { scenario, state: &mut twins.state, warm };
                tables.step(lookup, (&twins.stream, &twins.selected, &twins.decided), step)?
            }
        };
        compare(&mut twins.log, &mut twins.result, scenario, (step, now), plan, &decided);
    }
    let mut result = twins.result;
    result.host_hash = format!("{:016x}", twins.plane.decision_hash());
    let pool = twins.warm.as_ref().map_or(0, |warm| warm.pool.hash());
    result.device_hash = format!("{:016x}", twins.log.finish(pool));
    Ok(result)
}

/// The same run on both planes.
struct Twins<'a> {
    scenario: &'a Scenario,
    stream: Stream,
    state: Residencies,
    selected: Selected,
    decided: Decided,
    plane: DecisionPlane,
    accesses: Accesses,
    log: Log,
    warm: Option<Warm>,
    result: Agreement,
}

impl Twins<'_> {
    fn new<'a>(device: &Device, policy: Policy, scenario: &'a Scenario) -> Result<Twins<'a>, HwError> {
        let shape = scenario.buffers();
        let n = shape.streams as usize;
        let mut state = Residencies::new(device, policy, shape)?;
        let warm = (scenario.warm_frames > 0).then(|| Warm::new(scenario));
        if warm.is_some() {
            state.add_warm(device)?;
        }
        let mut selected = Selected::new(device, shape, n)?;
        if policy.reads_scores() {
            selected.scores = Some(DeviceBuffer::filled(device, n * shape.k as usize, 0)?);
        }
        let result = Agreement {
            scenario: scenario.clone(),
            policy: policy.name().to_owned(),
            accesses: 0,
            misses: 0,
            evictions: 0,
            prefetches: 0,
            warm_hits: 0,
            grown: 0,
            ended: 0,
            mismatches: 0,
            host_hash: String::new(),
            device_hash: String::new(),
        };
        Ok(Twins {
            scenario,
            stream: Stream::new(device)?,
            state,
            selected,
            decided: Decided::new(device, shape, n)?,
            plane: scenario.plane(policy.name()),
            accesses: Accesses::new(scenario),
            log: Log::new(scenario.streams() as usize),
            warm,
            result,
        })
    }

    /// Ends the requests whose seats were refilled before this step and starts the new ones.
    fn seat(&mut self, lookup: &Lookup, step: u32) -> Result<(), HwError> {
        let scenario = self.scenario;
        let mut starts = Vec::new();
        for (seat, full) in self.accesses.change_seats(step) {
            if step > 0 {
                self.plane.release(seat);
                self.log.leave(seat);
                self.result.ended += 1;
            }
            let admission = Admission {
                seat,
                full_blocks: full,
                max_blocks: scenario.max_blocks(),
                prefix: None,
                first_use: &|_, _| u32::MAX,
            };
            self.plane.admit(&admission).expect("the home pool is boundless");
            self.log.join(seat);
            if let Some(warm) = &mut self.warm {
                warm.seat(seat as usize, scenario);
            }
            let (first, count) = scenario.start(full);
            let place = |stream| crate::ops::count32(self.accesses.place(seat as usize, stream as usize));
            starts.extend((0..scenario.streams()).map(|stream| (place(stream), first, count)));
        }
        lookup.open(&self.stream, &mut self.state, &starts)
    }
}

/// What a device decided in one step.
struct Fills {
    slots: Vec<u32>,
    fills: Vec<[u32; 4]>,
    counts: Vec<[u32; 4]>,
}

impl Fills {
    fn read(decided: &Decided) -> Result<Fills, HwError> {
        Ok(Fills {
            slots: decided.slots.read()?,
            fills: decided.fills.read()?,
            counts: decided.counts.read()?,
        })
    }
}

/// Compares the device's decisions with the plan, stream by stream, and logs them.
fn compare(
    log: &mut Log,
    result: &mut Agreement,
    scenario: &Scenario,
    (step, now): (u32, &StepAccesses),
    plan: &StepPlan,
    decided: &Fills,
) {
    let (shape, heads) = (scenario.buffers(), scenario.head_groups as usize);
    let (mut ours, mut theirs) = (Record::default(), Record::default());
    for seat in 0..scenario.seats as usize {
        for stream in 0..scenario.streams() as usize {
            let at = now.place(seat, stream);
            let host = &plan.layers[stream / heads].streams[seat * heads + stream % heads];
            let slots = &decided.slots[at * shape.k as usize..][..now.counts[at] as usize];
            let fills = &decided.fills[at * shape.fills_per_stream() as usize..];
            theirs.of_device(step, now.newest[at], slots, fills, &decided.counts[at][..3]);
            log.append(seat, stream, &theirs);
            ours.of_plan(step, host);
            result.mismatches += u64::from(ours != theirs);
            count(result, host);
        }
    }
}

fn submit(selected: &mut Selected, now: &StepAccesses) -> Result<(), HwError> {
    selected.ids.write(&now.ids)?;
    selected.blocks.write(as_integers(&now.blocks))?;
    selected.counts.write(&now.counts)?;
    if let Some(scores) = &mut selected.scores {
        scores.write(&now.scores.iter().map(|&score| score.into()).collect::<Vec<u32>>())?;
    }
    selected.near.write(as_integers(&now.near))?;
    selected.near_counts.write(&now.near_counts)?;
    selected.grown.write(as_integers(&now.grown))
}

/// Block ids as the integers they are.
fn as_integers(blocks: &[BlockId]) -> &[u32] {
    // SAFETY: a `BlockId` is a transparent u32.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len()) }
}

fn count(result: &mut Agreement, host: &StreamPlan) {
    result.accesses += host.counts.accesses;
    result.misses += host.counts.misses;
    result.evictions += host.counts.evictions;
    result.prefetches += host.counts.prefetches;
    result.warm_hits += host.counts.warm_hits;
    result.grown += u64::from(host.growth.is_some());
}

/// The scenarios of a full parity run: three shapes of access, three buffer sizes each, with and without prefetch, warm
/// pages, streams that grow and requests that end midway; over 20 million accesses per policy.
pub fn scenarios() -> Vec<Scenario> {
    let base = Scenario {
        name: String::new(),
        seats: 16,
        layers: 10,
        head_groups: 3,
        slots: 0,
        k: 32,
        entries: 16,
        prompt_blocks: (60, 480),
        steps_per_request: (10, 90),
        churn: 50,
        prefetch: 0,
        recent: false,
        warm_frames: 0,
        steps: 100,
        seed: 21,
    };
    let pages = base.clone();
    let tokens = Scenario {
        seats: 8,
        layers: 4,
        head_groups: 1,
        k: 2048,
        entries: 1,
        prompt_blocks: (3000, 40_000),
        churn: 60,
        steps: 24,
        ..base.clone()
    };
    let long = Scenario {
        seats: 8,
        layers: 8,
        head_groups: 4,
        k: 128,
        prompt_blocks: (200, 8000),
        churn: 40,
        steps: 50,
        ..base
    };
    let mut all = Vec::new();
    for (kind, shape) in [("pages", &pages), ("tokens", &tokens), ("long", &long)] {
        for (times, slots) in [("1.25", shape.k * 5 / 4), ("2", shape.k * 2), ("4", shape.k * 4)] {
            for (prefetch, recent) in [(0, false), (shape.k / 8, true)] {
                let name = format!("{kind}, {times} k slots, prefetch {prefetch}");
                let seed = all.len() as u64 + 100;
                all.push(Scenario { name, slots, prefetch, recent, seed, ..shape.clone() });
            }
        }
    }
    for (kind, shape) in [("pages", &pages), ("long", &long)] {
        for prefetch in [0, shape.k / 8] {
            let name = format!("{kind}, 2 k slots, warm pages, prefetch {prefetch}");
            let (slots, seed) = (shape.k * 2, all.len() as u64 + 100);
            // Half of what the buffers hold.
            let warm_frames = (shape.seats * shape.layers * shape.head_groups * shape.k) as usize;
            let steps = shape.steps / 2;
            all.push(Scenario { name, slots, prefetch, warm_frames, steps, seed, ..shape.clone() });
        }
    }
    all
}
