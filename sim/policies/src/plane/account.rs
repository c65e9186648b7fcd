//! What the plane keeps in HBM beside the blocks, in bytes.

use super::DecisionPlane;

impl DecisionPlane {
    /// HBM bytes that the admission policy keeps per warm frame.
    pub fn warm_metadata_bytes(&self) -> u64 {
        u64::from(self.config.admission.entry.state.per_frame) * self.config.warm_frames as u64
    }

    /// HBM bytes of page tables, slot tags and policy state of a request whose context can hold `max_blocks`.
    pub fn metadata_bytes(&self, max_blocks: u32) -> u64 {
        let (state, shared) = (self.config.eviction.state, self.config.allocation.entry.state);
        let per_block = 4 + u64::from(state.per_block) + u64::from(shared.per_block);
        let admission = if self.warm.is_some() { self.config.admission.entry.state.per_slot } else { 0 };
        let per_slot = 4 + u64::from(state.per_slot) + u64::from(admission);
        let slots: u64 = self.config.slots.iter().map(|&slots| u64::from(slots)).sum();
        let streams = self.streams_per_request() as u64;
        let kept = u64::from(state.per_stream) + u64::from(shared.per_stream) + self.prefetch_state;
        let per_stream = u64::from(max_blocks) * per_block + kept;
        streams * per_stream + slots * u64::from(self.config.head_groups) * per_slot
    }
}
