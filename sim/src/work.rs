//! What the time plane is told of a decided step: how much there is to select, move and attend, layer by layer.
//! It names no policy and no block; it is all that a hardware what-if needs to time a plan again.

/// Blocks to move for one layer of one step, summed over the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// Blocks moved.
    pub blocks: u64,
    /// Requests that move at least one block.
    pub requests: u32,
    /// The largest number of blocks that one request moves.
    pub worst_request: u32,
}

impl Movement {
    /// Adds what one request moves.
    pub fn add_request(&mut self, blocks: u32) {
        if blocks > 0 {
            self.blocks += u64::from(blocks);
            self.requests += 1;
            self.worst_request = self.worst_request.max(blocks);
        }
    }
}

/// First demands of blocks that a prefetch brought: how many, and the engine step that issued them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchUse {
    /// Engine step in which the prefetch was issued.
    pub issued_step: u32,
    /// Blocks of it that are demanded now for the first time.
    pub blocks: u32,
}

/// One layer of one engine step, summed over the batch and its head groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerWork {
    /// Streams taking part: requests x head groups.
    pub streams: u32,
    /// Blocks that selection has to score: the sum over streams of the blocks of their contexts.
    pub candidate_blocks: u64,
    /// Blocks selected, the newest included: the sum over streams.
    pub selected_blocks: u64,
    /// Selected blocks that are in HBM when the layer starts (hits, newest and warm hits).
    pub resident_blocks: u64,
    /// Demand misses brought from the home tier: the attention of this layer waits for them.
    pub demand: Movement,
    /// Blocks prefetched by this layer's streams in this step; demanded in a later step, if ever.
    pub prefetch: Movement,
    /// First demands, in this step, of blocks that earlier prefetches brought.
    pub prefetch_uses: Vec<PrefetchUse>,
    /// Newly filled blocks written back to their home tier.
    pub written_back: u64,
}

/// One engine step of the whole batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepWork {
    /// Number of the engine step, from zero.
    pub step: u32,
    /// Requests that decode one token in this step.
    pub requests: u32,
    /// Sum over those requests of the entries of their contexts, the token of this step included.
    pub context_entries: u64,
    /// Blocks loaded before the step because a short context was admitted whole.
    pub admission: Movement,
    /// The sparse layers, in order.
    pub layers: Vec<LayerWork>,
}
