//! Buffers of seated requests change their sizes at a step's boundary. Apart from the plane's step, which sees the sizes
//! as given.

use super::DecisionPlane;
use crate::{Counts, Resized};

/// The slots that a seated request has from the next step on.
#[derive(Clone, Copy, Debug)]
pub struct SeatSlots<'a> {
    /// The seat.
    pub seat: u32,
    /// Slots of each of its streams, `layer * head_groups + head_group`.
    pub slots: &'a [u32],
}

impl DecisionPlane {
    /// Changes the sizes of hot buffers before the next step. Buffers that keep their size are not touched. Victims are
    /// offered to the warm pages, layer by layer, within a layer in (seat as given, head group, victim) order; then the layer's
    /// evictions follow. Returns what the changes evicted.
    ///
    /// # Panics
    /// If a seat is free, its policy cannot be resized, or a buffer could not hold one selection.
    pub fn resize(&mut self, seats: &[SeatSlots<'_>]) -> Counts {
        let heads = self.config.head_groups as usize;
        let mut counts = Counts::default();
        let mut resized = Resized::default();
        for layer in 0..self.config.slots.len() {
            let mut changed = false;
            for given in seats {
                let seat = self.seats[given.seat as usize].as_mut().expect("a resized seat is taken");
                assert_eq!(given.slots.len(), seat.streams.len(), "one size for each stream");
                for number in layer * heads..(layer + 1) * heads {
                    let stream = &mut seat.streams[number];
                    if stream.buffer.blocks().len() == given.slots[number] as usize {
                        continue;
                    }
                    stream.buffer.resize(given.slots[number], &mut resized);
                    stream.hash = self.recorder.stream_resize(stream.hash, self.step, &resized);
                    counts += resized.counts;
                    changed = true;
                    if let (Some(pool), Some(tables)) = (&mut self.warm, &stream.warm) {
                        counts += pool.receive_resized(tables, self.step, &resized);
                    }
                }
            }
            if let Some(pool) = self.warm.as_mut().filter(|_| changed) {
                pool.settle(self.step, u32::try_from(layer).expect("fewer than 2^32 layers"));
            }
        }
        counts
    }
}
