//! Never: the warm pages stay empty. What they would cost buys nothing; the other end of the scale to judge by.

use super::{AdmissionPolicy, Gate, GateState, Leaver};
use crate::PolicyError;
use crate::eviction::NoParams;

/// Admits none.
pub struct Never;

impl Gate for Never {
    fn admits(&mut self, _: &Leaver) -> bool {
        false
    }
}

impl AdmissionPolicy for Never {
    const NAME: &'static str = "never";
    const SUMMARY: &'static str = "no block: the pages stay empty";
    const STATE: GateState = GateState { per_slot: 0, per_frame: 0 };
    type Params = NoParams;

    fn new(_: NoParams, _: usize) -> Result<Self, PolicyError> {
        Ok(Never)
    }
}
