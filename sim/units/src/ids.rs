//! Dense ids. A block is numbered in position order within its stream, a slot within its hot buffer.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A KV block of one stream, numbered densely in position order from the start of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct BlockId(pub u32);

impl BlockId {
    /// Marks the absence of a block in dense tables.
    pub const NONE: BlockId = BlockId(u32::MAX);

    /// The id as an index into a dense per-block table.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A slot of one stream's hot buffer, numbered from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// Marks the absence of a slot in dense tables.
    pub const NONE: Slot = Slot(u32::MAX);

    /// The slot as an index into a dense per-slot table.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot at a dense index.
    ///
    /// # Panics
    /// If the index does not fit 32 bits; hot buffers are far smaller.
    #[inline(always)]
    pub fn at(index: usize) -> Slot {
        Slot(u32::try_from(index).expect("a hot buffer has fewer than 2^32 slots"))
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
