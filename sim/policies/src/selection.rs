//! What one stream reads in one step, as the decision plane sees it.

use kvtier_units::BlockId;

/// The selection of one stream in one step. The newest block, if selected, is already taken out and flagged.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Selected blocks in rank order, best first, no duplicates.
    pub blocks: &'a [BlockId],
    /// Score of each selected block, quantised to 16 bits; empty where none were recorded.
    pub scores: &'a [u16],
    /// Near misses: the blocks ranked just below the cut, best first.
    pub near: &'a [BlockId],
    /// Whether the newest block, which lives in its reserved slot, was selected too.
    pub newest: bool,
    /// The block that this step fills, if it fills one: it enters the hot buffer when the step ends.
    pub grown: Option<BlockId>,
    /// What Belady knows; `None` for every online policy.
    pub foresight: Option<Foresight<'a>>,
}

/// The next step that selects a block, `u32::MAX` where none does.
#[derive(Clone, Copy, Debug)]
pub struct Foresight<'a> {
    /// For each selected block, in rank order.
    pub next_use: &'a [u32],
    /// For the block that this step fills.
    pub grown_next_use: u32,
}
