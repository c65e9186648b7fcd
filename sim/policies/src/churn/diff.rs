//! What changed between a stream's consecutive selections, for readers that deliver whole selections.

use super::Change;
use kvtier_units::BlockId;

/// Compares each selection of a stream with the one before it: two passes over as many blocks as are selected.
#[derive(Clone, Debug)]
pub struct SelectionDiff {
    /// The step that last selected each block, zero where none has.
    selected_in: Vec<u32>,
    /// Steps so far, plus one.
    now: u32,
    /// The selection before; `selected` blocks of it.
    before: Vec<BlockId>,
    entered: Vec<BlockId>,
    left: Vec<BlockId>,
    selected: usize,
}

impl SelectionDiff {
    /// For a stream of at most `blocks` blocks and selections of at most `k`; nothing is selected yet.
    pub fn new(blocks: u32, k: u32) -> SelectionDiff {
        let room = vec![BlockId::NONE; k as usize];
        SelectionDiff {
            selected_in: vec![0; blocks as usize],
            now: 1,
            before: room.clone(),
            entered: room.clone(),
            left: room,
            selected: 0,
        }
    }

    /// The next selection, best rank first and without duplicates, against the one before.
    ///
    /// # Panics
    /// If it has more than `k` blocks, or one that the stream cannot hold.
    #[inline]
    pub fn step(&mut self, blocks: &[BlockId]) -> Change<'_> {
        let SelectionDiff { selected_in, now, before, entered, left, selected } = self;
        assert!(blocks.len() <= entered.len(), "a selection has at most k blocks");
        let before_now = *now;
        *now += 1;
        let now = *now;
        // Written where the next one goes, kept only if it counts: no branch depends on what changed.
        let mut entering = 0;
        for &block in blocks {
            let last = std::mem::replace(&mut selected_in[block.index()], now);
            entered[entering] = block;
            entering += usize::from(last < before_now);
        }
        let mut leaving = 0;
        for &block in &before[..*selected] {
            left[leaving] = block;
            leaving += usize::from(selected_in[block.index()] < now);
        }
        before[..blocks.len()].copy_from_slice(blocks);
        *selected = blocks.len();
        Change { entered: &entered[..entering], left: &left[..leaving], selected: blocks.len() }
    }
}
