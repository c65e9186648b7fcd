//! Second touch: a block enters the warm pages only if it was demanded at least twice since it was brought into the hot
//! buffer it leaves, the demand that brought it included. Blocks met once and never again thus cost no frame.
//!
//! The count stands per slot and restarts when the slot is filled (with 1 by a miss, with 0 by a prefetch or a newly
//! filled block), so nothing is remembered of blocks that are not resident: no ghost is kept.

use super::{AdmissionPolicy, Gate, GateState, Leaver, Seen, resize_slots, wrong};
use crate::PolicyError;
use kvtier_units::Slot;
use serde::Deserialize;

/// Parameters of [`SecondTouch`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecondTouchParams {
    /// Demands since the block was brought, at least, from 1 to 255.
    pub demands: u8,
}

impl Default for SecondTouchParams {
    fn default() -> Self {
        SecondTouchParams { demands: 2 }
    }
}

/// Counts demands per slot.
pub struct SecondTouch {
    params: SecondTouchParams,
    /// Per stream and slot, demands since the slot was filled.
    demands: Vec<Vec<u8>>,
}

impl Gate for SecondTouch {
    fn open(&mut self, stream: u32, slots: u32) {
        let stream = stream as usize;
        if self.demands.len() <= stream {
            self.demands.resize_with(stream + 1, Vec::new);
        }
        self.demands[stream].clear();
        self.demands[stream].resize(slots as usize, 0);
    }

    fn admits(&mut self, leaver: &Leaver) -> bool {
        self.demands[leaver.stream as usize][leaver.slot.index()] >= self.params.demands
    }

    fn resize(&mut self, stream: u32, slots: u32, moved: &[(Slot, Slot)]) {
        resize_slots(&mut self.demands[stream as usize], slots, moved);
    }

    fn credit(&mut self, seen: &Seen<'_>) {
        let demands = &mut self.demands[seen.stream as usize];
        seen.plan.fills().for_each(|fill| demands[fill.slot.index()] = 0);
        for slot in &seen.plan.slots {
            let count = &mut demands[slot.index()];
            *count = count.saturating_add(1);
        }
    }
}

impl AdmissionPolicy for SecondTouch {
    const NAME: &'static str = "second-touch";
    const SUMMARY: &'static str = "blocks demanded at least twice since they were brought";
    const STATE: GateState = GateState { per_slot: 1, per_frame: 0 };
    type Params = SecondTouchParams;

    fn new(params: SecondTouchParams, _: usize) -> Result<Self, PolicyError> {
        if params.demands == 0 {
            return Err(wrong(
                "warm.params.demands",
                "0 admits every block; give 1 to 255, or choose `always`",
            ));
        }
        Ok(SecondTouch { params, demands: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use crate::warm::testing::Pages;

    #[test]
    fn a_block_demanded_once_is_turned_away() {
        let mut pages = Pages::new("second-touch", "", 2, 4);
        pages.step(&[0, 1]);
        pages.step(&[0, 2]);
        assert_eq!(pages.warm(), [0u32; 0], "1 left after one demand");
        pages.step(&[3, 2]);
        assert_eq!(pages.warm(), [0], "0 had two");
        pages.step(&[0, 4]);
        assert_eq!(pages.warm(), [2], "0 is hot again; 3 had one demand, 2 had two");
        pages.step(&[5, 6]);
        assert_eq!(pages.warm(), [2], "the count of 0 restarted when it came back");
    }
}
