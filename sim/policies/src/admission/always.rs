//! Always: every block that leaves a hot buffer enters the warm pages, which are then a plain queue behind the buffers.

use super::{AdmissionPolicy, Gate, GateState, Leaver};
use crate::PolicyError;
use crate::eviction::NoParams;

/// Admits all.
pub struct Always;

impl Gate for Always {
    fn admits(&mut self, _: &Leaver) -> bool {
        true
    }
}

impl AdmissionPolicy for Always {
    const NAME: &'static str = "always";
    const SUMMARY: &'static str = "every block that leaves a hot buffer";
    const STATE: GateState = GateState { per_slot: 0, per_frame: 0 };
    type Params = NoParams;

    fn new(_: NoParams, _: usize) -> Result<Self, PolicyError> {
        Ok(Always)
    }
}
