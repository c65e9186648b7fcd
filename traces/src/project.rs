//! Turns the rows of one stream in one step into its selection and near misses, as a [`View`] asks.

use crate::header::Header;
use crate::recording::StepRecord;
use crate::view::{Newest, View};
use half::f16;
use kvtier_units::BlockId;

/// One query row, cut to what the view reads.
#[derive(Clone, Copy)]
pub(crate) struct Ranks<'a> {
    pub(crate) blocks: &'a [u32],
    pub(crate) scores: Option<&'a [f16]>,
    pub(crate) extra: &'a [u32],
}

/// Applies a view, stream by stream.
pub(crate) struct Projector {
    k: usize,
    near: usize,
    fold: u32,
    reserved: bool,
    scores: Option<ScoreTable>,
    entries: Indexed,
    folded: Indexed,
}

/// Blocks in order of their best rank, each found again by its id.
#[derive(Default)]
struct Indexed {
    ids: Vec<u32>,
    scores: Vec<u16>,
    /// Per id: the generation that named it last, and its index then.
    places: Vec<(u32, u32)>,
    generation: u32,
}

impl Indexed {
    fn clear(&mut self) {
        self.ids.clear();
        self.scores.clear();
        self.generation = self.generation.checked_add(1).unwrap_or_else(|| {
            self.places.fill((0, 0));
            1
        });
    }

    /// The index of `id`, and whether it is new.
    fn insert(&mut self, id: u32) -> (usize, bool) {
        let at = id as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, (0, 0));
        }
        if self.places[at].0 == self.generation {
            return (self.places[at].1 as usize, false);
        }
        let index = self.ids.len();
        self.places[at] =
            (self.generation, u32::try_from(index).expect("a selection has fewer than 2^32 blocks"));
        self.ids.push(id);
        (index, true)
    }

    /// Adds a scored id, merging the scores of repeats.
    fn merge(&mut self, id: u32, score: Option<u16>, merge: fn(u16, u16) -> u16) {
        let (index, new) = self.insert(id);
        match score {
            Some(score) if new => self.scores.push(score),
            Some(score) => self.scores[index] = merge(self.scores[index], score),
            None => {}
        }
    }
}

impl Projector {
    pub(crate) fn new(view: &View, header: &Header) -> Projector {
        Projector {
            k: view.k.unwrap_or(header.k) as usize,
            near: view.near as usize,
            fold: view.fold,
            reserved: view.newest == Newest::Reserved,
            scores: (view.scores).then(|| ScoreTable::new(header.score_max)),
            entries: Indexed::default(),
            folded: Indexed::default(),
        }
    }

    /// Appends one stream to a step. `rows` are its query rows, `newest` the newest block as viewed.
    /// Fails with (query row, rank) of a score that is not finite, or negative.
    pub(crate) fn stream(
        &mut self,
        rows: &[Ranks<'_>],
        newest: u32,
        step: &mut StepRecord,
    ) -> Result<(), (usize, usize)> {
        match rows {
            [row] if self.fold == 1 => self.copy(row, newest, step).map_err(|rank| (0, rank)),
            _ => self.merge(rows, newest, step),
        }
    }

    /// One query row, nothing to fold: ranks are taken as they are.
    fn copy(&mut self, row: &Ranks<'_>, newest: u32, step: &mut StepRecord) -> Result<(), usize> {
        let (selected, beyond) = row.blocks.split_at(self.k.min(row.blocks.len()));
        let newest_at = selected.iter().position(|block| *block == newest).filter(|_| self.reserved);
        let without = |rank: usize| Some(rank) != newest_at;
        match newest_at {
            None => step.selected.extend(selected.iter().copied().map(BlockId)),
            Some(rank) => {
                step.selected.extend(selected[..rank].iter().copied().map(BlockId));
                step.selected.extend(selected[rank + 1..].iter().copied().map(BlockId));
            }
        }
        if let (Some(table), Some(scores)) = (&self.scores, row.scores) {
            for (rank, score) in scores[..selected.len()].iter().enumerate() {
                let quantised = table.quantise(*score).ok_or(rank)?;
                if without(rank) {
                    step.scores.push(quantised);
                }
            }
        }
        if self.near > 0 {
            let near = beyond.iter().chain(row.extra).copied();
            let near = near.filter(|block| !self.reserved || *block != newest);
            step.near.extend(near.take(self.near).map(BlockId));
        }
        step.end_stream(selected.len(), newest_at.is_some());
        Ok(())
    }

    /// Several query rows, or folding: the union of the rows by best rank, then entries into blocks.
    fn merge(
        &mut self,
        rows: &[Ranks<'_>],
        newest: u32,
        step: &mut StepRecord,
    ) -> Result<(), (usize, usize)> {
        self.entries.clear();
        self.folded.clear();
        let longest = rows.iter().map(|row| row.blocks.len()).max().unwrap_or(0).min(self.k);
        for rank in 0..longest {
            for (query, row) in rows.iter().enumerate() {
                let Some(&block) = row.blocks.get(rank) else { continue };
                let score = match (&self.scores, row.scores) {
                    (Some(table), Some(scores)) => Some(table.quantise(scores[rank]).ok_or((query, rank))?),
                    _ => None,
                };
                self.entries.merge(block, score, u16::max);
            }
        }
        for (index, id) in self.entries.ids.iter().enumerate() {
            let score = self.entries.scores.get(index).copied();
            self.folded.merge(id / self.fold, score, u16::saturating_add);
        }
        let mut newest_selected = false;
        for (index, &block) in self.folded.ids.iter().enumerate() {
            if self.reserved && block == newest {
                newest_selected = true;
                continue;
            }
            step.selected.push(BlockId(block));
            step.scores.extend(self.folded.scores.get(index));
        }
        self.near_of(rows, newest, step);
        step.end_stream(self.entries.ids.len(), newest_selected);
        Ok(())
    }

    /// The ranks beyond the selection, by rank and then query row, folded, less the selection.
    fn near_of(&mut self, rows: &[Ranks<'_>], newest: u32, step: &mut StepRecord) {
        if self.near == 0 {
            return;
        }
        let beyond = |row: &Ranks<'_>| row.blocks.len().saturating_sub(self.k) + row.extra.len();
        let longest = rows.iter().map(beyond).max().unwrap_or(0);
        let mut left = self.near;
        for place in 0..longest {
            for row in rows {
                let recorded = &row.blocks[self.k.min(row.blocks.len())..];
                let next = recorded.get(place).or_else(|| row.extra.get(place.wrapping_sub(recorded.len())));
                let Some(block) = next.map(|id| id / self.fold) else { continue };
                if !self.folded.insert(block).1 || (self.reserved && block == newest) {
                    continue;
                }
                step.near.push(BlockId(block));
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }
}

/// Every half-precision score, quantised once; decoding is then a look-up without arithmetic.
pub(crate) struct ScoreTable {
    by_bits: Vec<u16>,
}

impl ScoreTable {
    /// `score_max` quantises to `u16::MAX`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to 0..=65535 first
    pub(crate) fn new(score_max: f64) -> ScoreTable {
        let scale = |bits: u16| {
            let score = f64::from(f16::from_bits(bits));
            (score / score_max * f64::from(u16::MAX)).round().clamp(0.0, f64::from(u16::MAX)) as u16
        };
        ScoreTable { by_bits: (0..f16::INFINITY.to_bits()).map(scale).collect() }
    }

    /// `round(score / score_max * 65535)`, saturating; none for NaN, infinite and negative scores.
    #[inline]
    pub(crate) fn quantise(&self, score: f16) -> Option<u16> {
        let bits = if score == f16::NEG_ZERO { 0 } else { score.to_bits() };
        self.by_bits.get(usize::from(bits)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_quantise_by_rounding_and_saturate() {
        let table = ScoreTable::new(0.5);
        let quantise = |score: f32| table.quantise(f16::from_f32(score));
        assert_eq!(quantise(0.0), Some(0));
        assert_eq!(quantise(-0.0), Some(0));
        assert_eq!(quantise(0.25), Some(32_768));
        assert_eq!(quantise(0.5), Some(65_535));
        assert_eq!(quantise(3.0), Some(65_535));
        assert_eq!(quantise(-0.1), None);
        assert_eq!(quantise(f32::NAN), None);
        assert_eq!(quantise(f32::INFINITY), None);
    }
}
