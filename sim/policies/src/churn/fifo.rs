//! FIFO by churn: a queue of fills. A block that is pinned when its turn comes steps aside, and rejoins at its place when
//! it leaves the selection, so that old blocks which stay selected are passed over once and not in every step.

use super::frames::Frames;
use super::{Change, ChurnPlan, ChurnReplay};
use crate::Source;
use crate::eviction::BufferShape;
use kvtier_units::{BlockId, Slot};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The block is selected.
const SELECTED: u8 = 1;
/// It is resident.
const RESIDENT: u8 = 2;
/// Its turn came while it was selected: it stands in no queue.
const ASIDE: u8 = 4;

/// The fill of a block: its number, its slot.
type Turn = (u32, Slot);

/// First in, first out.
pub struct FifoChurn {
    frames: Frames,
    state: Vec<u8>,
    /// The fill of each resident block.
    turn_of: Vec<Turn>,
    queue: VecDeque<Turn>,
    /// Turns that came while their blocks were selected, and are due now that they are not.
    due: BinaryHeap<Reverse<Turn>>,
    fills: u32,
    missing: Vec<BlockId>,
}

impl FifoChurn {
    /// An empty buffer.
    ///
    /// # Panics
    /// If the buffer cannot hold one selection.
    pub fn new(shape: BufferShape) -> FifoChurn {
        let (slots, blocks) = (shape.slots as usize, shape.blocks as usize);
        FifoChurn {
            frames: Frames::new(shape),
            state: vec![0; blocks],
            turn_of: vec![(0, Slot::NONE); blocks],
            queue: VecDeque::with_capacity(slots + 1),
            due: BinaryHeap::new(),
            fills: 0,
            missing: vec![BlockId::NONE; shape.k as usize + 1],
        }
    }

    /// The slot of the resident block filled first of those not selected; its block leaves.
    fn take_victim(&mut self) -> Slot {
        loop {
            let due = self.due.peek().map(|&Reverse(turn)| turn);
            let turn = match (self.queue.front().copied(), due) {
                (Some(front), Some(due)) if due < front => self.due.pop().map(|Reverse(turn)| turn),
                (None, _) => self.due.pop().map(|Reverse(turn)| turn),
                _ => self.queue.pop_front(),
            };
            let (_, slot) = turn.expect("a block that is not selected has a turn");
            let state = &mut self.state[self.frames.block_of[slot.index()].index()];
            if *state & SELECTED == 0 {
                *state = 0;
                return slot;
            }
            *state |= ASIDE;
        }
    }

    #[inline(always)]
    fn take_slot(&mut self) -> Slot {
        self.frames.take_free().unwrap_or_else(|| self.take_victim())
    }

    #[inline(always)]
    fn note_fill(&mut self, block: BlockId, slot: Slot, state: u8) {
        self.fills += 1;
        assert!(self.fills != u32::MAX, "a stream is filled fewer than 2^32 times");
        self.state[block.index()] = state;
        self.turn_of[block.index()] = (self.fills, slot);
        self.queue.push_back((self.fills, slot));
    }
}

impl ChurnReplay for FifoChurn {
    fn start(&mut self, blocks: &[BlockId]) {
        for &block in blocks {
            let slot = self.frames.take_free().expect("a request starts within an empty buffer");
            self.frames.fill(block, slot, Source::Home);
            self.note_fill(block, slot, RESIDENT);
        }
    }

    fn mark_prefilled(&mut self, blocks: u32) {
        self.frames.mark_prefilled(blocks);
    }

    #[inline]
    fn step(&mut self, change: &Change<'_>, grown: Option<BlockId>) -> &ChurnPlan {
        let (states, missing) = (&mut self.state[..], &mut self.missing[..]);
        for &block in change.left {
            let state = &mut states[block.index()];
            if *state & ASIDE != 0 {
                self.due.push(Reverse(self.turn_of[block.index()]));
            }
            *state = RESIDENT;
        }
        let mut missed = 0;
        for &block in change.entered {
            let state = &mut states[block.index()];
            missing[missed] = block;
            missed += usize::from(*state & RESIDENT == 0);
            *state |= SELECTED;
        }
        self.frames.begin();
        for at in 0..missed {
            let block = self.missing[at];
            let slot = self.take_slot();
            self.frames.load(block, slot);
            self.note_fill(block, slot, RESIDENT | SELECTED);
        }
        if let Some(block) = grown.filter(|&block| self.frames.grows(block, change.selected)) {
            let slot = self.take_slot();
            self.frames.plan.growth = Some(self.frames.fill(block, slot, Source::Grown).0);
            self.note_fill(block, slot, RESIDENT);
        }
        &self.frames.plan
    }
}
