//! Residency on the device: the tables of many streams, and one step of all of them in one launch.

use super::count32;
use crate::compile::{LOOKUP, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// An eviction policy that the device decides by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Stale, just loaded, hits.
    LruStep,
    /// Least recently selected, ranks within a step included.
    Lru,
    /// Least often selected since its load.
    Lfu,
}

impl Policy {
    /// Every such policy.
    pub const ALL: [Policy; 3] = [Policy::LruStep, Policy::Lru, Policy::Lfu];

    /// Its name in configurations and in the decision plane.
    pub fn name(self) -> &'static str {
        match self {
            Policy::LruStep => "lru-step",
            Policy::Lru => "lru",
            Policy::Lfu => "lfu",
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

    /// The larger of what the kernels keep of one stream.
    fn shared_bytes(&self, policy: Policy) -> u32 {
        let flags = self.slots.next_multiple_of(4);
        match policy {
            Policy::LruStep => (2 * self.slots + self.k + self.budget + 1) * 4 + flags,
            Policy::Lru => (2 * self.slots + 2 * (self.budget + 1)) * 4 + flags,
            Policy::Lfu => {
                (2 * self.slots + 2 * (self.budget + 1)) * 4
                    + flags
                    + 8 * self.slots.next_power_of_two().max(2)
            }
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
    uses: DeviceBuffer<u32>,
}

impl Residencies {
    /// Room for the state; every stream must be opened before its first step.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(device: &Device, policy: Policy, shape: Buffers) -> Result<Residencies, HwError> {
        let (streams, slots) = (shape.streams as usize, shape.slots as usize);
        Ok(Residencies {
            shape,
            policy,
            slot_of: DeviceBuffer::filled(device, streams * shape.blocks as usize, 0xff)?,
            block_of: DeviceBuffer::filled(device, streams * slots, 0xff)?,
            order: DeviceBuffer::filled(device, streams * slots, 0xff)?,
            filled: DeviceBuffer::filled(device, streams, 0)?,
            uses: DeviceBuffer::filled(device, streams * slots, 0)?,
        })
    }

    /// Geometry.
    pub fn shape(&self) -> Buffers {
        self.shape
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
    kernels: [(Policy, Kernel); 3],
    open: Kernel,
    _module: Module,
}

impl Lookup {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Lookup, HwError> {
        let module = Module::load(device, LOOKUP)?;
        let kernel = |name| module.kernel(name, device.info().shared_per_block - 4096);
        Ok(Lookup {
            device: device.clone(),
            kernels: [
                (Policy::LruStep, kernel("lookup_lru_step")?),
                (Policy::Lru, kernel("lookup_lru")?),
                (Policy::Lfu, kernel("lookup_lfu")?),
            ],
            open: module.kernel("open_streams", 0)?,
            _module: module,
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
        let shape = state.shape;
        let arguments = [
            selected.ids.address(),
            selected.blocks.address(),
            selected.counts.address(),
            u64::from(shape.k),
            selected.near.address(),
            selected.near_counts.address(),
            u64::from(shape.near),
            u64::from(shape.budget),
            selected.grown.address(),
            state.slot_of.address(),
            u64::from(shape.blocks),
            state.block_of.address(),
            state.order.address(),
            state.filled.address(),
            u64::from(shape.slots),
            decided.slots.address(),
            decided.fills.address(),
            decided.counts.address(),
            state.uses.address(),
        ];
        let found = self.kernels.iter().find(|(policy, _)| *policy == state.policy);
        let &(_, kernel) = found.expect("every policy has a kernel");
        // lru-step declares one argument less, which the driver then does not read.
        let launch = Shape {
            shared: shape.shared_bytes(state.policy),
            ..Shape::flat(count32(selected.ids.len()), 1024)
        };
        // SAFETY: as declared in lookup.cu; streams are distinct and ids within the state.
        unsafe { stream.launch(kernel, launch, &arguments) }
    }
}
