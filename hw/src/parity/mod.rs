//! Parity: the device and the decision plane decide the same steps, and every slot, victim and order is compared.

mod accesses;
mod log;

use crate::ops::lookup::{Buffers, Decided, Lookup, Policy, Residencies, Selected};
use crate::{Device, HwError, Stream};
use accesses::{Accesses, StepAccesses};
use kvtier_policies::allocation::Allocation;
use kvtier_policies::{Admission, DecisionPlane, PlaneConfig, Start, StreamPlan, eviction, prefetch};
use kvtier_units::{BlockId, Seed};
use log::{Log, stream_record};
use serde::Serialize;

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
            near: if self.prefetch > 0 { self.k } else { 1 },
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
            prefetch_budget: self.prefetch,
            warm_frames: 0,
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
    let stream = Stream::new(device)?;
    let shape = scenario.buffers();
    let n = shape.streams as usize;
    let mut state = Residencies::new(device, policy, shape)?;
    let mut selected = Selected::new(device, shape, n)?;
    let decided = Decided::new(device, shape, n)?;
    let mut plane = scenario.plane(policy.name());
    let mut accesses = Accesses::new(scenario);
    let mut log = Log::new(scenario.streams() as usize);
    let seats: Vec<u32> = (0..scenario.seats).collect();
    let mut result = Agreement {
        scenario: scenario.clone(),
        policy: policy.name().to_owned(),
        accesses: 0,
        misses: 0,
        evictions: 0,
        prefetches: 0,
        grown: 0,
        ended: 0,
        mismatches: 0,
        host_hash: String::new(),
        device_hash: String::new(),
    };
    let mut words = Vec::new();
    for step in 0..scenario.steps {
        let moved = accesses.change_seats(step);
        let mut starts = Vec::new();
        for &(seat, full) in &moved {
            if step > 0 {
                plane.release(seat);
                log.leave(seat);
                result.ended += 1;
            }
            let admission = Admission {
                seat,
                full_blocks: full,
                max_blocks: scenario.max_blocks(),
                prefix: None,
                first_use: &|_, _| u32::MAX,
            };
            plane.admit(&admission).expect("the home pool is boundless");
            log.join(seat);
            let (first, count) = scenario.start(full);
            starts.extend((0..scenario.streams()).map(|s| (seat * scenario.streams() + s, first, count)));
        }
        lookup.open(&stream, &mut state, &starts)?;
        let now = accesses.step();
        submit(&mut selected, now)?;
        lookup.step(&stream, &state, &selected, &decided)?;
        let plan = plane.step(&seats, now);
        stream.synchronize()?;
        let (slots, fills, counts) = (decided.slots.read()?, decided.fills.read()?, decided.counts.read()?);
        for at in 0..n {
            let (seat, s) = (at / scenario.streams() as usize, at % scenario.streams() as usize);
            let (layer, head) = (s / scenario.head_groups as usize, s % scenario.head_groups as usize);
            let host = &plan.layers[layer].streams[seat * scenario.head_groups as usize + head];
            let slots = &slots[at * shape.k as usize..][..now.counts[at] as usize];
            let fills = &fills[at * shape.fills_per_stream() as usize..];
            stream_record(&mut words, step, now.newest[at], slots, fills, counts[at]);
            log.append(seat, s, &words);
            result.mismatches += u64::from(!agrees(host, &words, step));
            count(&mut result, host);
        }
    }
    result.host_hash = format!("{:016x}", plane.decision_hash());
    result.device_hash = format!("{:016x}", log.finish());
    Ok(result)
}

fn submit(selected: &mut Selected, now: &StepAccesses) -> Result<(), HwError> {
    selected.ids.write(&now.ids)?;
    selected.blocks.write(as_integers(&now.blocks))?;
    selected.counts.write(&now.counts)?;
    selected.near.write(as_integers(&now.near))?;
    selected.near_counts.write(&now.near_counts)?;
    selected.grown.write(as_integers(&now.grown))
}

/// Block ids as the integers they are.
fn as_integers(blocks: &[BlockId]) -> &[u32] {
    // SAFETY: a `BlockId` is a transparent u32.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len()) }
}

/// Whether the plan of the decision plane gives the very record that the device's decisions gave.
fn agrees(host: &StreamPlan, device: &[u32], step: u32) -> bool {
    let mut words = Vec::with_capacity(device.len());
    let fills = |words: &mut Vec<u32>, fills: &[kvtier_policies::Fill]| {
        words.push(crate::ops::count32(fills.len()));
        for fill in fills {
            words.extend([fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32]);
        }
    };
    words.extend([step, u32::from(host.newest), crate::ops::count32(host.slots.len())]);
    words.extend(host.slots.iter().map(|slot| slot.0));
    fills(&mut words, &host.loads);
    fills(&mut words, &host.prefetches);
    fills(&mut words, host.growth.as_slice());
    words == device
}

fn count(result: &mut Agreement, host: &StreamPlan) {
    result.accesses += host.counts.accesses;
    result.misses += host.counts.misses;
    result.evictions += host.counts.evictions;
    result.prefetches += host.counts.prefetches;
    result.grown += u64::from(host.growth.is_some());
}

/// The scenarios of a full parity run: over 50 million accesses, three shapes of access, three buffer sizes each, with
/// and without prefetch, streams that grow and requests that end midway.
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
        steps_per_request: (20, 256),
        churn: 50,
        prefetch: 0,
        recent: false,
        steps: 200,
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
        steps: 60,
        ..base.clone()
    };
    let long = Scenario {
        seats: 8,
        layers: 8,
        head_groups: 4,
        k: 128,
        prompt_blocks: (200, 8000),
        churn: 40,
        steps: 150,
        ..base
    };
    let mut all = Vec::new();
    for (kind, shape) in [("pages", pages), ("tokens", tokens), ("long", long)] {
        for (times, slots) in [("1.25", shape.k * 5 / 4), ("2", shape.k * 2), ("4", shape.k * 4)] {
            for (prefetch, recent) in [(0, false), (shape.k / 8, true)] {
                let name = format!("{kind}, {times} k slots, prefetch {prefetch}");
                let seed = all.len() as u64 + 100;
                all.push(Scenario { name, slots, prefetch, recent, seed, ..shape.clone() });
            }
        }
    }
    all
}
