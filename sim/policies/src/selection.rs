//! What one stream reads in one step, as the decision plane sees it, and where that comes from.

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

impl Selection<'_> {
    /// The selection of no block.
    pub const NOTHING: Selection<'static> =
        Selection { blocks: &[], scores: &[], near: &[], newest: false, grown: None, foresight: None };
}

/// The next step that selects a block, `u32::MAX` where none does.
#[derive(Clone, Copy, Debug)]
pub struct Foresight<'a> {
    /// For each selected block, in rank order.
    pub next_use: &'a [u32],
    /// For the block that this step fills.
    pub grown_next_use: u32,
}

/// Where the selections of a step come from.
pub trait SelectionSource {
    /// The selection of a participant's stream; streams are numbered `layer * head_groups + head_group`.
    fn selection(&self, participant: usize, stream: usize) -> Selection<'_>;

    /// The blocks that the stream selects `steps` steps later, from one; `None` where the source does not know.
    /// Only asked for [`crate::DecisionPlane::look_ahead`] steps.
    fn upcoming(&self, participant: usize, stream: usize, steps: u32) -> Option<&[BlockId]> {
        let _ = (participant, stream, steps);
        None
    }

    /// Blocks of the participant's context that exist by now, for what is upcoming: later ones cannot be prefetched.
    fn complete_blocks(&self, participant: usize) -> u32 {
        let _ = participant;
        u32::MAX
    }
}
