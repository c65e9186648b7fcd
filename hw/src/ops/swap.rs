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
    per_request: Kernel,
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
            per_request: module.kernel("swap_in_per_request", 0)?,
            order: module.kernel("order_moves", device.info().shared_per_block - 4096)?,
            _module: module,
        })
    }

    fn flat(
        &self,
        stream: &Stream,
        kernel: Kernel,
        pools: Pools,
        moves: &Moves,
        width: Width,
    ) -> Result<(), HwError> {
        assert_eq!(pools.block_bytes % 16, 0, "blocks are moved in words of 16 bytes");
        let words = u64::from(pools.block_bytes / 16);
        let arguments = [pools.home, pools.frames, moves.list.address(), moves.count.address(), words];
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
        self.flat(stream, self.swap_in, pools, moves, width)
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
        self.flat(stream, self.write_back, pools, moves, width)
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
        let words = u64::from(pools.block_bytes / 16);
        let arguments = [pools.home, pools.frames, moves.list.address(), first.address(), words];
        // SAFETY: as declared in swap.cu.
        unsafe { stream.launch(self.per_request, Shape::flat(count32(first.len()) - 1, 1024), &arguments) }
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
