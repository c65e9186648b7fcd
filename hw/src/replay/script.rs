//! Steps as the device reads them: selections, and plans where the host decides, in the layout of `replay.cu`.

use super::geometry::Geometry;
use super::ledger::{Copies, Ledger, scripted};
use crate::ops::count32;
use crate::ops::replay::{Meta, Script};
use crate::parity::log::Record;
use kvtier_policies::{SelectionSource, StepPlan};
use kvtier_sim::batch::BatchStep;
use kvtier_sim::engine::ReadStep;
use kvtier_sim::work::StepWork;
use kvtier_units::BlockId;

/// A request that takes a seat before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) seat: u32,
    /// Recorded request.
    pub(super) request: u32,
    /// Full blocks of its context.
    pub(super) full: u32,
    /// Entries of the begun block.
    pub(super) tokens: u32,
}

/// What the host keeps of a step besides its words.
#[derive(Clone, Debug, Default)]
pub(super) struct Note {
    pub(super) step: u32,
    pub(super) leave: Vec<u32>,
    pub(super) join: Vec<Joined>,
    /// Hash of the plan of each stream, in the device's order of streams.
    pub(super) expected: Vec<u64>,
    /// What is brought, where copy engines may do it.
    pub(super) copies: Copies,
}

/// Steps that run without the host in between.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) words: Vec<u32>,
    pub(super) notes: Vec<Note>,
}

/// Offsets of the lists of a step, in words.
pub(super) fn layout(geometry: &Geometry, words: u64, step: u64) -> Script {
    let (all, z) = (geometry.all(), &geometry.sizes);
    let blocks = all * 8;
    let near = blocks + all * z.k;
    let hosted = u32::from(geometry.ways.policy.is_none());
    // Fills are read in units of four words.
    let fills = (near + all * z.near).next_multiple_of(4);
    let slots = fills + hosted * all * z.fills * 4;
    let counts = slots + hosted * all * z.k;
    let bytes = counts + hosted * all * 4;
    let scores = bytes + count32(geometry.model.len());
    let step_words = geometry.step_words();
    // Only the device reads scores, and only the host says frames.
    let frames = if geometry.warm > 0 { scores } else { 0 };
    Script { words, step, step_words, blocks, near, slots, counts, fills, bytes, scores, frames }
}

impl Chunk {
    pub(super) fn is_full(&self, geometry: &Geometry) -> bool {
        self.notes.len() >= geometry.chunk as usize
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.notes.clear();
    }

    fn step(&mut self, geometry: &Geometry) -> &mut [u32] {
        let step = usize::try_from(geometry.step_words()).expect("a step fits memory");
        let at = self.words.len() - step;
        &mut self.words[at..]
    }

    /// Begins a step with what it selects.
    pub(super) fn read(&mut self, geometry: &Geometry, step: u32, read: &ReadStep<'_>, join: Vec<Joined>) {
        let words = usize::try_from(geometry.step_words()).expect("a step fits memory");
        self.words.resize(self.words.len() + words, 0);
        self.notes.push(Note { step, leave: read.scheduled.leave.clone(), join, ..Note::default() });
        let at = layout(geometry, 0, 0);
        let out = self.step(geometry);
        for seat in 0..geometry.seats {
            for layer in 0..geometry.layers {
                for head in 0..geometry.heads {
                    let g = geometry.stream(seat, layer, head) as usize;
                    write_selection(geometry, &at, out, g, (seat, layer * geometry.heads + head), read.batch);
                }
            }
        }
    }

    /// Completes the step with what was decided of it.
    pub(super) fn decide(
        &mut self,
        geometry: &Geometry,
        plan: &StepPlan,
        work: &StepWork,
        keys: u64,
        block: f64,
    ) {
        let at = layout(geometry, 0, 0);
        let out = self.step(geometry);
        for (layer, bytes) in geometry.model.iter().enumerate() {
            let words = match bytes.sparse {
                Some(sparse) => work.layers[sparse as usize].candidate_blocks * keys / 16,
                None => dense_words(work.context_entries, block),
            };
            out[at.bytes as usize + layer] = u32::try_from(words).unwrap_or(u32::MAX);
        }
        if geometry.ways.policy.is_none() {
            each_stream(geometry, plan, |g, stream| write_plan(geometry, &at, out, g, stream));
        }
    }

    /// Has the host's ledger follow the step, which says what frames its slots take and what copy engines bring.
    pub(super) fn follow(
        &mut self,
        geometry: &Geometry,
        ledger: &mut Ledger,
        plan: &StepPlan,
        work: &StepWork,
    ) {
        let (z, at) = (geometry.sizes, layout(geometry, 0, 0));
        let out = self.step(geometry);
        ledger.begin();
        for (layer, plans) in (0u32..).zip(&plan.layers) {
            let first = (layer * z.streams) as usize;
            let told = geometry.ways.told(layer as usize, &work.layers[layer as usize]);
            ledger.apply(plan.step, layer, &plans.streams, told, |stream, fill, frame| {
                if at.frames > 0 {
                    out[at.frames as usize + (first + stream) * z.fills as usize + fill] = frame;
                }
            });
        }
        self.notes.last_mut().expect("a step was read").copies = ledger.take_copies();
    }

    /// Notes the hash of every stream's plan, for comparison with what the device decides.
    pub(super) fn expect(&mut self, geometry: &Geometry, plan: &StepPlan) {
        let note = self.notes.last_mut().expect("a step was read");
        note.expected = vec![0; geometry.all() as usize];
        let mut record = Record::default();
        each_stream(geometry, plan, |g, stream| {
            record.of_plan(plan.step, stream);
            note.expected[g] = record.hash(0);
        });
    }
}

/// 16-byte words of a whole context in one layer.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // far below 2^53
fn dense_words(entries: u64, bytes_per_entry: f64) -> u64 {
    (entries as f64 * bytes_per_entry / 16.0) as u64
}

fn each_stream(
    geometry: &Geometry,
    plan: &StepPlan,
    mut take: impl FnMut(usize, &kvtier_policies::StreamPlan),
) {
    let per_layer = geometry.sizes.streams as usize;
    for (layer, plans) in plan.layers.iter().enumerate() {
        for (at, stream) in plans.streams.iter().enumerate() {
            take(layer * per_layer + at, stream);
        }
    }
}

fn write_selection(
    geometry: &Geometry,
    at: &Script,
    out: &mut [u32],
    g: usize,
    (seat, stream): (u32, u32),
    batch: &BatchStep<'_>,
) {
    let z = &geometry.sizes;
    let selection = batch.selection(seat as usize, stream as usize);
    let entries = batch.participants[seat as usize].context_entries;
    // Where the host decides, the device needs none.
    let near = if geometry.reads_near { selection.near } else { &[] };
    let near = &near[..near.len().min(z.near as usize)];
    let meta = Meta {
        count: count32(selection.blocks.len()),
        near_count: count32(near.len()),
        newest: u32::from(selection.newest),
        grown: selection.grown.unwrap_or(BlockId::NONE).0,
        newest_block: (entries - 1) / geometry.cells.page,
        newest_tokens: (entries - 1) % geometry.cells.page + 1,
        unused: [0; 2],
    };
    out[g * 8..][..8].copy_from_slice(bytemuck::cast_slice(&[meta]));
    let mut list = |offset: u32, stride: u32, blocks: &[BlockId]| {
        let to = &mut out[offset as usize + g * stride as usize..][..blocks.len()];
        to.iter_mut().zip(blocks).for_each(|(to, block)| *to = block.0);
    };
    list(at.blocks, z.k, selection.blocks);
    list(at.near, z.near, near);
    if geometry.reads_scores() {
        let to = &mut out[at.scores as usize + g * z.k as usize..][..selection.scores.len()];
        to.iter_mut().zip(selection.scores).for_each(|(to, &score)| *to = score.into());
    }
}

fn write_plan(
    geometry: &Geometry,
    at: &Script,
    out: &mut [u32],
    g: usize,
    plan: &kvtier_policies::StreamPlan,
) {
    let z = &geometry.sizes;
    let slots = &mut out[at.slots as usize + g * z.k as usize..][..plan.slots.len()];
    slots.iter_mut().zip(&plan.slots).for_each(|(to, slot)| *to = slot.0);
    let growth = usize::from(plan.growth.is_some());
    let counts = [plan.loads.len(), plan.prefetches.len(), growth, plan.ahead.len()].map(count32);
    out[at.counts as usize + g * 4..][..4].copy_from_slice(&counts);
    let fills = &mut out[at.fills as usize + g * z.fills as usize * 4..];
    for (to, fill) in fills.chunks_exact_mut(4).zip(scripted(plan)) {
        to.copy_from_slice(&[fill.block.0, fill.slot.0, fill.victim.0, fill.source as u32]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::testing::single;
    use crate::replay::{Managed, Weights};
    use kvtier_sim::engine::TimePlane;
    use kvtier_sim::{SimError, Single};

    /// Collects steps and checks each against its plan.
    struct Collector {
        geometry: Geometry,
        chunk: Chunk,
        checked: usize,
    }

    impl TimePlane for Collector {
        fn read_step(&mut self, read: &ReadStep<'_>) -> Result<(), SimError> {
            self.chunk.clear();
            self.chunk.read(&self.geometry, 7, read, Vec::new());
            Ok(())
        }

        fn run_step(&mut self, plan: &StepPlan, work: &StepWork) -> Result<(), SimError> {
            let (geometry, at) = (&self.geometry, layout(&self.geometry, 0, 0));
            self.chunk.decide(geometry, plan, work, 512, 4.0);
            let words = &self.chunk.words;
            assert_eq!(words.len() as u64, geometry.step_words());
            each_stream(geometry, plan, |g, stream| {
                let meta: Meta = bytemuck::cast_slice(&words[g * 8..][..8])[0];
                assert_eq!(meta.count as usize, stream.slots.len());
                assert_eq!(meta.newest == 1, stream.newest);
                let counts = &words[at.counts as usize + g * 4..][..3];
                assert_eq!(counts[0] as usize, stream.loads.len());
                let z = &geometry.sizes;
                let fills = &words[at.fills as usize + g * z.fills as usize * 4..];
                let selected = &words[at.blocks as usize + g * z.k as usize..][..stream.slots.len()];
                assert_eq!(words[at.counts as usize + g * 4 + 3] as usize, stream.ahead.len());
                for (fill, words) in scripted(stream).zip(fills.chunks_exact(4)) {
                    assert_eq!(words[..2], [fill.block.0, fill.slot.0]);
                }
                assert!(stream.loads.iter().all(|fill| selected.contains(&fill.block.0)));
                self.checked += 1;
            });
            assert_eq!(u64::from(words[at.bytes as usize]), work.layers[0].candidate_blocks * 512 / 16);
            Ok(())
        }
    }

    #[test]
    fn a_step_holds_what_was_selected_and_decided() {
        for prefetch in ["next-ranked", "next-layer"] {
            let single: Single = single("llama-3.1-8b", &format!("[prefetch]\npolicy = \"{prefetch}\"\n"));
            let geometry = Geometry::new(&single, Managed::Host, Weights::LeftOut).unwrap();
            let mut collector = Collector { geometry, chunk: Chunk::default(), checked: 0 };
            single.replay(&mut collector, &|| false).unwrap();
            assert_eq!(collector.checked, 24 * 2 * 32 * 8);
        }
    }
}
