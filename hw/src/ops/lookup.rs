//! Residency on the device: the tables of many streams, and one step of all of them in one launch.
//! Long because the table of policies, their state and the arguments of their kernels must agree line by line.

use super::count32;
use crate::compile::{LOOKUP, Module, SCORED};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};
use std::ops::Range;

/// An eviction policy that the device decides by itself, with its default parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Stale, just loaded, hits.
    LruStep,
    /// Least recently selected, ranks within a step included.
    Lru,
    /// Least often selected since its load.
    Lfu,
    /// Fading counts of selections.
    AgedScore,
    /// Fading sums of scores.
    AttentionMass,
    /// Fading counts of a block's and its neighbours' selections.
    RegionUtility,
    /// Recency moved by rank.
    RankRecency,
    /// Selections per step of the stay.
    Hyperbolic,
    /// Counts that are halved from time to time.
    LfuAging,
    /// Our own.
    Echo,
}

/// How a policy is known in configurations, its kernel, and its number among those that score slots.
const POLICIES: [(Policy, &str, &str, Option<u32>); 10] = [
    (Policy::LruStep, "lru-step", "lookup_lru_step", None),
    (Policy::Lru, "lru", "lookup_lru", None),
    (Policy::Lfu, "lfu", "lookup_lfu", None),
    (Policy::AgedScore, "aged-score", "lookup_aged_score", Some(0)),
    (Policy::AttentionMass, "attention-mass", "lookup_attention_mass", Some(1)),
    (Policy::RegionUtility, "region-utility", "lookup_region_utility", Some(2)),
    (Policy::RankRecency, "rank-recency", "lookup_rank_recency", Some(3)),
    (Policy::Hyperbolic, "hyperbolic", "lookup_hyperbolic", Some(4)),
    (Policy::LfuAging, "lfu-aging", "lookup_lfu_aging", Some(5)),
    (Policy::Echo, "echo", "lookup_echo", Some(6)),
];

/// Sets of echo's ghost.
const GHOST_SETS: u32 = 48;
/// Words of its entries, four a set, of their counts, four a word, and of its step counter.
const GHOST_WORDS: u32 = GHOST_SETS * (4 + 1) + 1;
/// Blocks whose tags differ wherever they share a set.
const GHOST_BLOCKS: u32 = GHOST_SETS << 16;
/// Neighbouring blocks of a region.
const REGION: u32 = 8;
/// Words that count digits while the smallest numbers are chosen.
const COUNTERS: u32 = 3 * (1024 + 32);

impl Policy {
    /// Every such policy.
    pub const ALL: [Policy; 10] = {
        let mut all = [Policy::LruStep; 10];
        let mut at = 0;
        while at < all.len() {
            all[at] = POLICIES[at].0;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static (Policy, &'static str, &'static str, Option<u32>) {
        POLICIES.iter().find(|row| row.0 == self).expect("every policy has its row")
    }

    /// Its name in configurations and in the decision plane.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    fn kernel(self) -> &'static str {
        self.row().2
    }

    /// Its number among the policies that keep a number per slot.
    fn kind(self) -> Option<u32> {
        self.row().3
    }

    /// The most blocks of a context that it takes: echo's kernel relies on tags that tell them apart.
    pub fn most_blocks(self) -> u32 {
        if self == Policy::Echo { GHOST_BLOCKS } else { u32::MAX }
    }

    /// Whether it reads scores.
    pub fn reads_scores(self) -> bool {
        self == Policy::AttentionMass
    }

    /// Words of state per stream besides those per slot, in fours.
    fn own_words(self, blocks: u32) -> u32 {
        match self {
            Policy::Echo => GHOST_WORDS.next_multiple_of(4),
            Policy::RegionUtility => blocks.div_ceil(REGION).next_multiple_of(4),
            _ => 4,
        }
    }
}

/// Geometry of a set of hot buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Streams that have state.
    pub streams: u32,
    /// Slots per stream.
    pub slots: u32,
    /// Blocks that a stream's context can ever hold.
    pub blocks: u32,
    /// Blocks per selection, at most.
    pub k: u32,
    /// Near misses per selection, at most.
    pub near: u32,
    /// Prefetches per stream and step, at most.
    pub budget: u32,
}

impl Buffers {
    /// Fills that one stream's step can make: loads, prefetches, growth.
    pub fn fills_per_stream(&self) -> u32 {
        self.k + self.budget + 1
    }

    /// Slots as far apart as two streams' numbers are, which are read four at a time.
    fn slots_in_fours(&self) -> u32 {
        self.slots.next_multiple_of(4)
    }

    /// Threads of the block that decides for a stream: each has four slots, and two ranks, where that is enough.
    fn threads(&self) -> u32 {
        (self.slots.div_ceil(4)).max(self.k.div_ceil(2)).next_power_of_two().clamp(128, 1024)
    }

    /// What the kernels keep of one stream.
    fn shared_bytes(&self, policy: Policy) -> u32 {
        let (slots, wanted) = (self.slots_in_fours(), self.budget + 2);
        // Keys of those that are weighed, and counters of their digits.
        let choice = 8 * self.slots.next_power_of_two().max(64) + COUNTERS * 4;
        match policy {
            Policy::LruStep => (2 * slots + self.k + wanted) * 4 + slots,
            Policy::Lru => (2 * slots + 2 * wanted) * 4 + slots,
            Policy::Lfu => choice + (slots + 2 * wanted) * 4 + slots,
            // Ranks among the selected and among the near misses, and echo's lists.
            _ => choice + wanted * 4 + 2 * (2 * slots + self.k.next_multiple_of(2)),
        }
    }
}

/// The state of a set of hot buffers.
pub struct Residencies {
    shape: Buffers,
    policy: Policy,
    slot_of: DeviceBuffer<u32>,
    block_of: DeviceBuffer<u32>,
    order: DeviceBuffer<u32>,
    filled: DeviceBuffer<u32>,
    /// Uses, or the first number of each slot.
    uses: DeviceBuffer<u32>,
    /// The second number of each slot, words of the stream's own, and its steps, for policies that keep them.
    numbers: [DeviceBuffer<u32>; 3],
    /// A bit per block that is among the warm pages.
    warm: Option<DeviceBuffer<u32>>,
}

impl Residencies {
    /// Room for the state; every stream must be opened before its first step.
    ///
    /// # Errors
    /// If the device has too little memory.
    ///
    /// # Panics
    /// If the policy does not take so many blocks.
    pub fn new(device: &Device, policy: Policy, shape: Buffers) -> Result<Residencies, HwError> {
        let most = policy.most_blocks();
        assert!(shape.blocks <= most, "at most {most} blocks");
        let (streams, slots) = (shape.streams as usize, shape.slots as usize);
        let numbers = streams * shape.slots_in_fours() as usize;
        Ok(Residencies {
            shape,
            policy,
            slot_of: DeviceBuffer::filled(device, streams * shape.blocks as usize, 0xff)?,
            block_of: DeviceBuffer::filled(device, streams * slots, 0xff)?,
            order: DeviceBuffer::filled(device, streams * slots, 0xff)?,
            filled: DeviceBuffer::filled(device, streams, 0)?,
            uses: DeviceBuffer::filled(device, numbers, 0)?,
            numbers: [
                DeviceBuffer::filled(device, if policy.kind().is_some() { numbers } else { 1 }, 0)?,
                DeviceBuffer::filled(device, streams * policy.own_words(shape.blocks) as usize, 0)?,
                DeviceBuffer::filled(device, streams, 0)?,
            ],
            warm: None,
        })
    }

    /// Gives the streams warm pages, none of which holds a block yet.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn add_warm(&mut self, device: &Device) -> Result<(), HwError> {
        let words = self.shape.streams as usize * self.warm_words() as usize;
        self.warm = Some(DeviceBuffer::filled(device, words, 0)?);
        Ok(())
    }

    /// Words of a stream's warm bits.
    pub fn warm_words(&self) -> u32 {
        self.shape.blocks.div_ceil(32)
    }

    /// Says which blocks of the streams from `first` on are among the warm pages, [`Residencies::warm_words`] each.
    ///
    /// # Errors
    /// If the driver fails.
    ///
    /// # Panics
    /// If there are no warm pages.
    pub fn set_warm(&mut self, first: u32, bits: &[u32]) -> Result<(), HwError> {
        let at = first as usize * self.warm_words() as usize;
        self.warm.as_mut().expect("streams with warm pages").write_at(at, bits)
    }

    /// Geometry.
    pub fn shape(&self) -> Buffers {
        self.shape
    }

    /// Address of the block in every slot, streams x slots.
    pub(crate) fn block_of(&self) -> u64 {
        self.block_of.address()
    }
}

/// What one step of `n` streams selects; lists are as far apart as the geometry says.
pub struct Selected {
    /// State of each stream.
    pub ids: DeviceBuffer<u32>,
    /// n x k blocks in rank order.
    pub blocks: DeviceBuffer<u32>,
    /// Blocks per stream.
    pub counts: DeviceBuffer<u32>,
    /// n x near blocks.
    pub near: DeviceBuffer<u32>,
    /// Near misses per stream.
    pub near_counts: DeviceBuffer<u32>,
    /// n x k scores, where the policy reads them.
    pub scores: Option<DeviceBuffer<u32>>,
    /// The block that each stream fills in this step, or `u32::MAX`.
    pub grown: DeviceBuffer<u32>,
}

impl Selected {
    /// Room for a step of `n` streams.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, shape: Buffers, n: usize) -> Result<Selected, HwError> {
        let list = |per: u32| DeviceBuffer::filled(device, n * per as usize, 0xff);
        Ok(Selected {
            ids: list(1)?,
            blocks: list(shape.k)?,
            counts: DeviceBuffer::filled(device, n, 0)?,
            near: list(shape.near)?,
            near_counts: DeviceBuffer::filled(device, n, 0)?,
            scores: None,
            grown: list(1)?,
        })
    }
}

/// What one step of `n` streams decides.
pub struct Decided {
    /// n x k slots in rank order.
    pub slots: DeviceBuffer<u32>,
    /// n x fills: (block, slot, victim, source); loads, then prefetches, then growth.
    pub fills: DeviceBuffer<[u32; 4]>,
    /// n x (loads, prefetches, growth, dropped prefetches).
    pub counts: DeviceBuffer<[u32; 4]>,
}

impl Decided {
    /// Room for the decisions of `n` streams.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, shape: Buffers, n: usize) -> Result<Decided, HwError> {
        Ok(Decided {
            slots: DeviceBuffer::filled(device, n * shape.k as usize, 0xff)?,
            fills: DeviceBuffer::filled(device, n * shape.fills_per_stream() as usize, 0xff)?,
            counts: DeviceBuffer::filled(device, n, 0xff)?,
        })
    }
}

/// The residency kernels.
pub struct Lookup {
    device: Device,
    kernels: Vec<(Policy, Kernel)>,
    open: Kernel,
    open_scores: Kernel,
    _modules: [Module; 2],
}

impl Lookup {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Lookup, HwError> {
        let (module, scored) = (Module::load(device, LOOKUP)?, Module::load(device, SCORED)?);
        let shared = device.info().shared_per_block - 4096;
        let load = |policy: Policy| {
            let module = if policy.kind().is_some() { &scored } else { &module };
            Ok((policy, module.kernel(policy.kernel(), shared)?))
        };
        Ok(Lookup {
            device: device.clone(),
            kernels: Policy::ALL.into_iter().map(load).collect::<Result<_, HwError>>()?,
            open: module.kernel("open_streams", 0)?,
            open_scores: scored.kernel("open_scores", 0)?,
            _modules: [module, scored],
        })
    }

    /// Empties streams and gives each its start: `(stream, first block, blocks)`, oldest first.
    ///
    /// # Errors
    /// If the device has too little memory or the launch is refused.
    pub fn open(
        &self,
        stream: &Stream,
        state: &mut Residencies,
        starts: &[(u32, u32, u32)],
    ) -> Result<(), HwError> {
        if starts.is_empty() {
            return Ok(());
        }
        let column = |pick: fn(&(u32, u32, u32)) -> u32| {
            DeviceBuffer::from_host(&self.device, &starts.iter().map(pick).collect::<Vec<u32>>())
        };
        let (ids, first, count) = (column(|s| s.0)?, column(|s| s.1)?, column(|s| s.2)?);
        let arguments = [
            ids.address(),
            first.address(),
            count.address(),
            state.slot_of.address(),
            u64::from(state.shape.blocks),
            state.block_of.address(),
            state.order.address(),
            state.filled.address(),
            u64::from(state.shape.slots),
            state.uses.address(),
        ];
        // SAFETY: as declared in lookup.cu; the columns live until the stream has been awaited.
        unsafe { stream.launch(self.open, Shape::flat(count32(starts.len()), 1024), &arguments) }?;
        if let Some(kind) = state.policy.kind() {
            let arguments = [
                ids.address(),
                kind.into(),
                state.shape.slots.into(),
                state.uses.address(),
                state.numbers[0].address(),
                state.numbers[1].address(),
                state.policy.own_words(state.shape.blocks).into(),
                state.numbers[2].address(),
            ];
            let shape = Shape::flat(count32(starts.len()), 256);
            // SAFETY: as declared in scored.cu.
            unsafe { stream.launch(self.open_scores, shape, &arguments) }?;
        }
        stream.synchronize()
    }

    /// Decides one step of all `selected` streams.
    ///
    /// # Errors
    /// If the launch is refused, as it is for buffers beyond the device's shared memory.
    pub fn step(
        &self,
        stream: &Stream,
        state: &Residencies,
        selected: &Selected,
        decided: &Decided,
    ) -> Result<(), HwError> {
        self.step_of(stream, state, selected, decided, 0..selected.ids.len())
    }

    /// The same of some of them.
    ///
    /// # Errors
    /// As [`Lookup::step`].
    ///
    /// # Panics
    /// If there are fewer streams.
    pub fn step_of(
        &self,
        stream: &Stream,
        state: &Residencies,
        selected: &Selected,
        decided: &Decided,
        streams: Range<usize>,
    ) -> Result<(), HwError> {
        let shape = state.shape;
        let (first, per) = (streams.start, |list: u32| streams.start * list as usize);
        let warm = [state.warm.as_ref().map_or(0, DeviceBuffer::address), state.warm_words().into()];
        let mut arguments = vec![
            selected.ids.address_of(first),
            selected.blocks.address_of(per(shape.k)),
            selected.counts.address_of(first),
        ];
        if state.policy.kind().is_some() {
            arguments.push(selected.scores.as_ref().map_or(0, |scores| scores.address_of(per(shape.k))));
        }
        arguments.extend([
            u64::from(shape.k),
            selected.near.address_of(per(shape.near)),
            selected.near_counts.address_of(first),
            u64::from(shape.near),
            u64::from(shape.budget),
            selected.grown.address_of(first),
            state.slot_of.address(),
            u64::from(shape.blocks),
            state.block_of.address(),
        ]);
        if state.policy.kind().is_none() {
            arguments.push(state.order.address());
        }
        arguments.extend([
            state.filled.address(),
            u64::from(shape.slots),
            decided.slots.address_of(per(shape.k)),
            decided.fills.address_of(per(shape.fills_per_stream())),
            decided.counts.address_of(first),
            state.uses.address(),
        ]);
        if state.policy.kind().is_some() {
            arguments.extend([
                state.numbers[0].address(),
                state.numbers[1].address(),
                state.policy.own_words(shape.blocks).into(),
                state.numbers[2].address(),
            ]);
        }
        arguments.extend(warm);
        let found = self.kernels.iter().find(|(policy, _)| *policy == state.policy);
        let &(_, kernel) = found.expect("every policy has a kernel");
        let launch = Shape {
            shared: shape.shared_bytes(state.policy),
            ..Shape::flat(count32(streams.len()), shape.threads())
        };
        // SAFETY: as declared in lookup.cu and scored.cu; streams are distinct and ids within the state.
        unsafe { stream.launch(kernel, launch, &arguments) }
    }
}
