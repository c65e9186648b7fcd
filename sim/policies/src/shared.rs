//! Tables per stream, and one per stream of a prefix group: where a block is found that requests may share.

use kvtier_units::BlockId;

/// The tables in which one stream's blocks are found: its own, and its prefix group's for the first blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamTables {
    pub(crate) own: u32,
    pub(crate) prefix: Option<u32>,
    pub(crate) prefix_blocks: u32,
}

impl StreamTables {
    /// The stream's own table, and a prefix group's with the blocks of the prefix.
    pub(crate) fn new(own: u32, prefix: Option<(u32, u32)>) -> StreamTables {
        StreamTables {
            own,
            prefix: prefix.map(|(table, _)| table),
            prefix_blocks: prefix.map_or(0, |(_, blocks)| blocks),
        }
    }

    /// The table in which the block is found.
    pub(crate) fn home_of(&self, block: BlockId) -> u32 {
        match self.prefix {
            Some(prefix) if block.0 < self.prefix_blocks => prefix,
            _ => self.own,
        }
    }
}
