//! What the time plane is told of a decided step: how much there is to select, move and attend, layer by layer.
//! It names no policy and no block; it is all that a hardware what-if needs to time a plan again.

use kvtier_policies::{Counts, LayerPlan, Moves, Source, StepPlan};

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
    /// Demand misses brought from host memory: the attention of this layer waits for them.
    pub demand: Movement,
    /// The same from the tiers below: CXL, NVMe.
    pub demand_below: [Movement; 2],
    /// Blocks prefetched from host memory after this layer's step; demanded in a later step, if ever.
    pub prefetch: Movement,
    /// The same from the tiers below: CXL, NVMe.
    pub prefetch_below: [Movement; 2],
    /// Blocks prefetched from host memory ahead of this layer's look-up.
    pub ahead: Movement,
    /// The same from the tiers below: CXL, NVMe.
    pub ahead_below: [Movement; 2],
    /// The earlier sparse layer whose look-up the prefetches ahead wait for; `None` where there are none.
    pub ahead_of: Option<u32>,
    /// First demands, in this step, of blocks that earlier prefetches brought.
    pub prefetch_uses: Vec<PrefetchUse>,
    /// Newly filled blocks written back to their home tier.
    pub written_back: u64,
    /// Warm pages that a second stream took as well: copies within HBM.
    pub warm_copies: u64,
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
    /// Blocks that change their home tier at the boundary before the step.
    pub boundary_moves: Moves,
    /// Blocks that change it within the step.
    pub moves: Moves,
    /// The sparse layers, in order.
    pub layers: Vec<LayerWork>,
}

/// What is known of one participant before it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Participant {
    /// Entries of its context, the token of this step included.
    pub context_entries: u32,
    /// Blocks of its context.
    pub context_blocks: u32,
}

impl StepWork {
    /// Reads off a plan what the time plane has to do; `self` is overwritten and its memory reused.
    pub fn read_plan(&mut self, plan: &StepPlan, participants: &[Participant], admission: Movement) {
        self.open(plan.step, plan.layers.len(), participants, admission);
        (self.boundary_moves, self.moves) = (plan.boundary_moves, plan.moves);
        for (layer, work) in plan.layers.iter().zip(&mut self.layers) {
            work.read_layer(layer, participants);
        }
    }

    /// Starts a step with `layers` empty layers.
    pub(crate) fn open(
        &mut self,
        step: u32,
        layers: usize,
        participants: &[Participant],
        admission: Movement,
    ) {
        self.step = step;
        self.requests = u32::try_from(participants.len()).expect("fewer than 2^32 requests");
        self.context_entries =
            participants.iter().map(|participant| u64::from(participant.context_entries)).sum();
        self.admission = admission;
        (self.boundary_moves, self.moves) = Default::default();
        self.layers.resize_with(layers, LayerWork::default);
    }
}

impl LayerWork {
    fn read_layer(&mut self, plan: &LayerPlan, participants: &[Participant]) {
        let heads = plan.streams.len() / participants.len().max(1);
        let mut uses = std::mem::take(&mut self.prefetch_uses);
        uses.clear();
        *self = LayerWork { prefetch_uses: uses, ..LayerWork::default() };
        self.ahead_of = plan.source;
        self.streams = u32::try_from(plan.streams.len()).expect("fewer than 2^32 streams");
        for (participant, streams) in participants.iter().zip(plan.streams.chunks(heads.max(1))) {
            let mut sum = Counts::default();
            let mut ahead = [0; 3];
            for stream in streams {
                sum += stream.counts;
                for (at, source) in [Source::Home, Source::Cxl, Source::Nvme].into_iter().enumerate() {
                    ahead[at] += stream.ahead.iter().filter(|fill| fill.source == source).count() as u64;
                }
                self.candidate_blocks += u64::from(participant.context_blocks);
                self.selected_blocks += stream.counts.accesses;
                self.written_back += stream.counts.written_back;
                self.warm_copies += stream.counts.warm_copies;
                stream.prefetch_uses.iter().for_each(|&issued_step| self.note_use(issued_step));
            }
            let small =
                |blocks: u64| u32::try_from(blocks).expect("a request moves fewer than 2^32 blocks a layer");
            let from_host = |all: u64, cxl: u64, nvme: u64| small(all - cxl - nvme);
            self.demand.add_request(from_host(sum.misses, sum.misses_cxl, sum.misses_nvme));
            let prefetched = from_host(sum.prefetches, sum.prefetches_cxl, sum.prefetches_nvme);
            self.prefetch.add_request(prefetched - small(ahead[0]));
            self.ahead.add_request(small(ahead[0]));
            let below = [(sum.misses_cxl, sum.prefetches_cxl), (sum.misses_nvme, sum.prefetches_nvme)];
            for (at, (missed, prefetched)) in below.into_iter().enumerate() {
                self.demand_below[at].add_request(small(missed));
                self.prefetch_below[at].add_request(small(prefetched - ahead[at + 1]));
                self.ahead_below[at].add_request(small(ahead[at + 1]));
            }
        }
        self.resident_blocks = self.selected_blocks - self.missed();
        self.prefetch_uses.sort_unstable_by_key(|a| a.issued_step);
    }

    /// Demand misses, from wherever.
    pub fn missed(&self) -> u64 {
        self.demand.blocks + self.demand_below.iter().map(|movement| movement.blocks).sum::<u64>()
    }

    fn note_use(&mut self, issued_step: u32) {
        match self.prefetch_uses.iter_mut().find(|known| known.issued_step == issued_step) {
            Some(known) => known.blocks += 1,
            None => self.prefetch_uses.push(PrefetchUse { issued_step, blocks: 1 }),
        }
    }
}
