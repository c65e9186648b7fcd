//! A layer's exchanges between the hot buffers of its streams and the warm pages.

use super::{DecisionPlane, SelectionSource};

impl DecisionPlane {
    /// Applies the layer's exchanges with the warm pages: removals, then insertions in (stream, victim) order.
    pub(super) fn settle_warm<S: SelectionSource>(&mut self, layer: usize, seats: &[u32], source: &S) {
        let pool = self.warm.as_mut().expect("only called with warm pages");
        let heads = self.config.head_groups as usize;
        let plans = &mut self.plan.layers[layer];
        let stream = |at: usize| {
            let seat = self.seats[seats[at / heads] as usize].as_ref().expect("a participant is seated");
            let stream = &seat.streams[layer * heads + at % heads];
            (stream, stream.warm.expect("with warm pages every stream has tables"))
        };
        for (at, plan) in plans.streams.iter_mut().enumerate() {
            pool.take(&stream(at).1, plan);
        }
        for (at, plan) in plans.streams.iter_mut().enumerate() {
            let (stream, tables) = stream(at);
            self.near.clear();
            if self.config.admission.entry.reads_near {
                let near = source.selection(at / heads, layer * heads + at % heads).near;
                self.near.extend(near.iter().map(|&block| stream.buffer.slot_of(block)));
            }
            pool.receive(&tables, self.step, &self.near, plan);
        }
        let layer = u32::try_from(layer).expect("fewer than 2^32 layers");
        plans.warm_evictions = pool.settle(self.step, layer);
    }
}
