//! Swap-in and write-back: scattered blocks between pinned host memory and frames.

use super::count32;
use crate::compile::{Module, SWAP};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};
use bytemuck::{Pod, Zeroable};

/// One block to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Move {
    /// Block of the home pool.
    pub home: u32,
    /// Frame of the device pool.
    pub frame: u32,
}

// SAFETY: two integers without padding.
unsafe impl Zeroable for Move {}
// SAFETY: as above.
unsafe impl Pod for Move {}

/// A list of moves whose length the device knows.
pub struct Moves {
    /// The moves; as many as `count` says count.
    pub list: DeviceBuffer<Move>,
    /// Number of moves.
    pub count: DeviceBuffer<u32>,
}

impl Moves {
    /// Moves known to the host.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn from_host(device: &Device, moves: &[Move]) -> Result<Moves, HwError> {
        Ok(Moves {
            list: DeviceBuffer::from_host(device, moves)?,
            count: DeviceBuffer::from_host(device, &[count32(moves.len())])?,
        })
    }
}

/// Moves that kernels list, all together or one list per request: list i begins at i x capacity, and the device knows where
/// it ends.
pub(crate) struct Lists {
    pub(crate) moves: DeviceBuffer<Move>,
    /// Where each list begins.
    pub(crate) firsts: DeviceBuffer<u32>,
    /// Where each ends.
    pub(crate) ends: DeviceBuffer<u32>,
    pub(crate) capacity: u32,
}

impl Lists {
    /// Empty lists of `capacity` moves each.
    pub(crate) fn new(device: &Device, lists: u32, capacity: u32) -> Result<Lists, HwError> {
        let firsts: Vec<u32> = (0..lists).map(|list| list * capacity).collect();
        Ok(Lists {
            moves: DeviceBuffer::filled(device, (lists * capacity).max(1) as usize, 0)?,
            ends: DeviceBuffer::from_host(device, &firsts)?,
            firsts: DeviceBuffer::from_host(device, &firsts)?,
            capacity,
        })
    }

    /// Empties them.
    pub(crate) fn clear(&mut self) -> Result<(), HwError> {
        let firsts = self.firsts.read()?;
        self.ends.write(&firsts)
    }
}

/// The two pools between which blocks move.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Address at which kernels reach the home pool.
    pub home: u64,
    /// Address of the frames.
    pub frames: u64,
    /// Bytes of one block, a multiple of 16.
    pub block_bytes: u32,
}

/// How much of the device a move takes.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// Blocks of the grid.
    pub grid: u32,
    /// Threads per block, at most 512.
    pub block: u32,
    /// Whether each block keeps a multiprocessor to itself: reads over the host link hold up those of other kernels
    /// on the same multiprocessor.
    pub alone: bool,
}

impl Width {
    /// `grid` blocks of 512 threads that share multiprocessors with whatever runs.
    pub fn shared(grid: u32) -> Width {
        Width { grid, block: 512, alone: false }
    }

    /// The same on multiprocessors of their own.
    pub fn alone(grid: u32) -> Width {
        Width { grid, block: 512, alone: true }
    }
}

/// Fills as a look-up leaves them, one list per stream, and where each stream's blocks and frames begin.
pub struct Fills<'a> {
    /// (block, slot, victim, source) per fill.
    pub fills: &'a DeviceBuffer<[u32; 4]>,
    /// Fills of each stream.
    pub count: &'a DeviceBuffer<u32>,
    /// Elements between two streams' lists.
    pub stride: u32,
    /// First home block of each stream.
    pub home_base: &'a DeviceBuffer<u32>,
    /// First frame of each stream.
    pub frame_base: &'a DeviceBuffer<u32>,
    /// Streams.
    pub streams: u32,
    /// Blocks of one stream's context, at most.
    pub blocks: u32,
}

/// The kernels that move blocks.
pub struct Swap {
    swap_in: Kernel,
    write_back: Kernel,
    each_request: Kernel,
    order: Kernel,
    /// Shared memory that leaves none to another block.
    whole: u32,
    _module: Module,
}

impl Swap {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Swap, HwError> {
        let module = Module::load(device, SWAP)?;
        Ok(Swap {
            swap_in: module.kernel("swap_in", device.info().shared_per_block)?,
            write_back: module.kernel("write_back", device.info().shared_per_block)?,
            whole: device.info().shared_per_block,
            each_request: module.kernel("swap_in_per_request", 0)?,
            order: module.kernel("order_moves", device.info().shared_per_block - 4096)?,
            _module: module,
        })
    }

    fn flat(
        &self,
        stream: &Stream,
        kernel: Kernel,
        pools: Pools,
        [moves, count]: [u64; 2],
        width: Width,
    ) -> Result<(), HwError> {
        assert_eq!(pools.block_bytes % 16, 0, "blocks are moved in words of 16 bytes");
        let words = u64::from(pools.block_bytes / 16);
        let arguments = [pools.home, pools.frames, moves, count, words];
        let shape = Shape {
            shared: if width.alone { self.whole } else { 0 },
            ..Shape::flat(width.grid, width.block)
        };
        // SAFETY: as declared in swap.cu; the moves name blocks and frames within the pools.
        unsafe { stream.launch(kernel, shape, &arguments) }
    }

    /// Brings blocks from home into frames.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn swap_in(&self, stream: &Stream, pools: Pools, moves: &Moves, width: Width) -> Result<(), HwError> {
        self.flat(stream, self.swap_in, pools, [moves.list.address(), moves.count.address()], width)
    }

    /// The same of lists of which there is one.
    ///
    /// # Errors
    /// If the launch is refused.
    pub(crate) fn swap_in_list(
        &self,
        stream: &Stream,
        pools: Pools,
        lists: &Lists,
        width: Width,
    ) -> Result<(), HwError> {
        assert_eq!(lists.ends.len(), 1, "one list is moved by one grid");
        self.flat(stream, self.swap_in, pools, [lists.moves.address(), lists.ends.address()], width)
    }

    /// Writes frames to their home.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn write_back(
        &self,
        stream: &Stream,
        pools: Pools,
        moves: &Moves,
        width: Width,
    ) -> Result<(), HwError> {
        self.flat(stream, self.write_back, pools, [moves.list.address(), moves.count.address()], width)
    }

    /// Brings blocks with one thread block per request; `first` holds where each request's moves begin, and the end.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn swap_in_per_request(
        &self,
        stream: &Stream,
        pools: Pools,
        moves: &Moves,
        first: &DeviceBuffer<u32>,
    ) -> Result<(), HwError> {
        self.per_request(
            stream,
            pools,
            moves.list.address(),
            [first.address(), first.address_of(1)],
            first.len() - 1,
        )
    }

    /// The same where each request has a list of its own, which the device knows the end of.
    ///
    /// # Errors
    /// If the launch is refused.
    pub(crate) fn swap_in_lists(&self, stream: &Stream, pools: Pools, lists: &Lists) -> Result<(), HwError> {
        let bounds = [lists.firsts.address(), lists.ends.address()];
        self.per_request(stream, pools, lists.moves.address(), bounds, lists.ends.len())
    }

    fn per_request(
        &self,
        stream: &Stream,
        pools: Pools,
        moves: u64,
        [firsts, ends]: [u64; 2],
        requests: usize,
    ) -> Result<(), HwError> {
        let words = u64::from(pools.block_bytes / 16);
        let arguments = [pools.home, pools.frames, moves, firsts, ends, words];
        // SAFETY: as declared in swap.cu.
        unsafe { stream.launch(self.each_request, Shape::flat(count32(requests), 1024), &arguments) }
    }

    /// Appends the fills that come from home to `moves`, in address order within each stream. The count of `moves`
    /// was set to where they go, zero for a fresh list.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn order(&self, stream: &Stream, fills: &Fills<'_>, moves: &Moves) -> Result<(), HwError> {
        let arguments = [
            fills.fills.address(),
            fills.count.address(),
            u64::from(fills.stride),
            fills.home_base.address(),
            fills.frame_base.address(),
            u64::from(fills.blocks),
            moves.list.address(),
            moves.count.address(),
        ];
        let shape = Shape { shared: fills.blocks.div_ceil(32) * 8, ..Shape::flat(fills.streams, 1024) };
        // SAFETY: as declared in swap.cu.
        unsafe { stream.launch(self.order, shape, &arguments) }
    }
}
