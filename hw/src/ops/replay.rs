//! A replayed step around look-up, movement and attention: typed calls of `replay.cu`.

use super::count32;
use super::swap::Lists;
use crate::compile::{Module, REPLAY};
use crate::{Device, HwError, Kernel, Shape, Stream};
use bytemuck::{Pod, Zeroable};
use std::ffi::c_void;

/// Sizes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sizes {
    /// Streams: requests x head groups.
    pub streams: u32,
    /// Blocks per selection, at most.
    pub k: u32,
    /// Near misses per selection, at most.
    pub near: u32,
    /// Fills per stream and step, at most.
    pub fills: u32,
    /// Slots per stream.
    pub slots: u32,
    /// Blocks of a context, at most.
    pub blocks: u32,
}

/// How a block's 16-byte words are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cells {
    /// Words of a block.
    pub words: u32,
    /// Parts: keys and values, or one.
    pub halves: u32,
    /// Entries of a block.
    pub page: u32,
    /// Words of an entry in a part.
    pub row: u32,
    /// Whether a block is a latent row in fp8.
    pub fp8: u32,
}

/// Where the steps of a script are, and the lists within each, in words of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Script {
    /// Address of the first step.
    pub words: u64,
    /// Address of the number of the step to take.
    pub step: u64,
    /// Words of a step.
    pub step_words: u64,
    /// Selected blocks.
    pub blocks: u32,
    /// Near misses.
    pub near: u32,
    /// Slots that the host decided.
    pub slots: u32,
    /// Counts of its fills.
    pub counts: u32,
    /// Its fills.
    pub fills: u32,
    /// 16-byte words to stream, per kernel that streams.
    pub bytes: u32,
    /// Scores, where the policy reads them.
    pub scores: u32,
    /// Frames of the slots that are filled, where the host keeps them; zero where it does not.
    pub frames: u32,
}

/// What is known of a stream's step besides lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// Blocks selected.
    pub count: u32,
    /// Near misses.
    pub near_count: u32,
    /// Whether the newest block is selected.
    pub newest: u32,
    /// The block that this step fills, or `u32::MAX`.
    pub grown: u32,
    /// The newest block.
    pub newest_block: u32,
    /// Its tokens, the one of this step included.
    pub newest_tokens: u32,
    /// Unused.
    pub unused: [u32; 2],
}

// SAFETY: eight integers without padding.
unsafe impl Zeroable for Meta {}
// SAFETY: as above.
unsafe impl Pod for Meta {}

/// Part of a selection that attention reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// All of it.
    All = 0,
    /// What was resident, warm hits and the newest block included.
    Hits = 1,
    /// What had to be brought.
    Misses = 2,
    /// All but the newest block.
    FullBlocks = 3,
}

/// One of the kernels; the addresses that each takes are in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Feed,
    TakePlan,
    ListMoves,
    SortMoves,
    Redirect,
    Prepare,
    ReadEntries,
    StreamListed,
    Append,
    Grow,
    Stamp,
    Advance,
    LogStep,
    Seat,
    CompareBytes,
    ComparePages,
    WriteSelected,
}

const CALLS: [(Call, &str); 17] = [
    (Call::Feed, "feed"),
    (Call::TakePlan, "take_plan"),
    (Call::ListMoves, "list_moves"),
    (Call::SortMoves, "sort_moves"),
    (Call::Redirect, "redirect"),
    (Call::Prepare, "prepare"),
    (Call::ReadEntries, "read_entries"),
    (Call::StreamListed, "stream_listed"),
    (Call::Append, "append"),
    (Call::Grow, "grow"),
    (Call::Stamp, "stamp"),
    (Call::Advance, "advance"),
    (Call::LogStep, "log_step"),
    (Call::Seat, "seat"),
    (Call::CompareBytes, "compare_bytes"),
    (Call::ComparePages, "compare_pages"),
    (Call::WriteSelected, "write_selected"),
];

/// Lists of moves, as kernels see them.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ListsOfMoves {
    moves: u64,
    ends: u64,
    count: u32,
    capacity: u32,
}

impl From<&Lists> for Argument {
    fn from(lists: &Lists) -> Argument {
        Argument::Lists(ListsOfMoves {
            moves: lists.moves.address(),
            ends: lists.ends.address(),
            count: count32(lists.ends.len()),
            capacity: lists.capacity,
        })
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Argument {
    Script(Script),
    Sizes(Sizes),
    Cells(Cells),
    Lists(ListsOfMoves),
    /// An address or a number.
    Word(u64),
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        let pointer: *const c_void = match self {
            Argument::Script(value) => std::ptr::from_ref(value).cast(),
            Argument::Sizes(value) => std::ptr::from_ref(value).cast(),
            Argument::Cells(value) => std::ptr::from_ref(value).cast(),
            Argument::Lists(value) => std::ptr::from_ref(value).cast(),
            Argument::Word(value) => std::ptr::from_ref(value).cast(),
        };
        pointer.cast_mut()
    }
}

/// The kernels of a replay.
pub(crate) struct ReplayKernels {
    kernels: Vec<Kernel>,
    _module: Module,
}

impl ReplayKernels {
    /// Compiles and loads them.
    pub(crate) fn load(device: &Device) -> Result<ReplayKernels, HwError> {
        let module = Module::load(device, REPLAY)?;
        let shared = |call| match call {
            Call::SortMoves | Call::Prepare => device.info().shared_per_block - 4096,
            _ => 0,
        };
        let load = |&(call, name): &(Call, &str)| module.kernel(name, shared(call));
        let kernels = CALLS.iter().map(load).collect::<Result<_, _>>()?;
        Ok(ReplayKernels { kernels, _module: module })
    }

    /// Submits a kernel.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and every address is valid until it is done.
    pub(crate) unsafe fn launch(
        &self,
        stream: &Stream,
        call: Call,
        shape: Shape,
        arguments: &[Argument],
    ) -> Result<(), HwError> {
        let at = CALLS.iter().position(|(known, _)| *known == call);
        let kernel = self.kernels[at.expect("every call has a kernel")];
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        // SAFETY: promised by the caller; the pointers are to `arguments`.
        unsafe { stream.launch_by_pointer(kernel, shape, &mut pointers) }
    }
}
