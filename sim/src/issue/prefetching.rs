//! Operations of prefetches: which transfers there are, when each is issued, and what an attention waits for.

use super::{H2D, Issuer, Sink, Use};
use crate::attribution::{OpKind, Queue};
use crate::overlap::Overlap;
use crate::queues::OpId;
use crate::work::{LayerWork, Movement, StepWork};

/// What is prefetched for one layer, and the step that decided it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    step: u32,
    host: Movement,
    below: [Movement; 2],
}

impl Decided {
    fn blocks(&self) -> u64 {
        self.host.blocks + self.below.iter().map(|below| below.blocks).sum::<u64>()
    }
}

impl Issuer {
    /// Lists the prefetched blocks that a layer uses first in this step. The last of their transfers to end is
    /// returned as well: the copy queue runs in order, so waiting for it is waiting for all.
    pub(super) fn note_uses(
        &mut self,
        out: &Sink<'_>,
        sparse: usize,
        work: &LayerWork,
    ) -> ((u32, u32), Option<OpId>) {
        let list = &mut self.under_way[sparse];
        list.retain(|(_, transfer)| !out.queues.has_ended(*transfer));
        let first = self.uses.len();
        for one in &work.prefetch_uses {
            let transfer =
                list.iter().find(|(step, _)| *step == one.issued_step).map(|(_, transfer)| *transfer);
            self.uses.push(Use { transfer, blocks: one.blocks });
        }
        let arrival = self.uses[first..].iter().filter_map(|one| one.transfer).max();
        let index = |at: usize| u32::try_from(at).expect("fewer than 2^32 uses in a step");
        ((index(first), index(self.uses.len())), arrival)
    }

    /// What this layer's selection lets be prefetched: for itself in later steps, and for later layers of this step.
    pub(super) fn issue_prefetches(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        sparse: usize,
        step: &StepWork,
        lookup: OpId,
    ) {
        let queue = self.config.overlap.prefetch_queue();
        let work = &step.layers[sparse];
        let own = Decided { step: step.step, host: work.prefetch, below: work.prefetch_below };
        if own.blocks() > 0 {
            self.decide(out, place, &own);
            match self.config.overlap {
                Overlap::LayerAhead => self.decided[sparse] = Some(own),
                Overlap::Serial | Overlap::HitFirst => {
                    self.prefetch(out, queue, place, sparse, &own, Some(lookup));
                }
            }
        }
        let here = u32::try_from(sparse).expect("fewer than 2^32 layers");
        for (target, work) in step.layers.iter().enumerate().skip(sparse + 1) {
            let ahead = Decided { step: step.step, host: work.ahead, below: work.ahead_below };
            if work.ahead_of == Some(here) && ahead.blocks() > 0 {
                self.decide(out, place, &ahead);
                self.prefetch(out, queue, place, target, &ahead, Some(lookup));
            }
        }
    }

    /// Counts the bytes of a prefetch in the step and layer that decide it, whenever it is sent.
    fn decide(&mut self, out: &mut Sink<'_>, place: u32, decided: &Decided) {
        self.prefetched = true;
        self.book(out, Some(place), H2D, &decided.host);
        for (at, movement) in decided.below.iter().enumerate() {
            self.book_below(out, place, (at, movement));
        }
    }

    /// During this layer, issues what was decided for the next one; during the last, for the first one.
    pub(super) fn issue_ahead(
        &mut self,
        out: &mut Sink<'_>,
        place: u32,
        sparse: usize,
        before: Option<OpId>,
    ) {
        let next = (sparse + 1) % self.under_way.len();
        if let Some(decided) = self.decided[next].take() {
            self.prefetch(out, Queue::CopyIn, place, next, &decided, before);
        }
    }

    /// Issues a prefetch for the sparse layer `target`, during the layer at `place`; its bytes are counted already.
    fn prefetch(
        &mut self,
        out: &mut Sink<'_>,
        queue: Queue,
        place: u32,
        target: usize,
        decided: &Decided,
        after: Option<OpId>,
    ) {
        let after = [after, self.write_backs[target]];
        let host = (decided.host.blocks > 0)
            .then(|| self.move_blocks(out, OpKind::Prefetch, queue, Some(place), &decided.host, after));
        let last = self.prefetch_below(out, queue, place, &decided.below, after).or(host);
        self.under_way[target].extend(last.map(|last| (decided.step, last)));
    }
}
