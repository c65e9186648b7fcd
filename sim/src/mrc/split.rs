//! From curves to the best static split of a budget: what an operator sets, and the oracle against which online
//! allocation is measured, when it is made from the very run on which it is used.

use super::curve::Curve;
use kvtier_policies::allocation::split;

/// Slots for each stream of the model such that further slots gain nowhere more than they lose elsewhere; on average
/// `slots` each. `curves` are per layer and head group ([`super::Survey::by_stream`]).
///
/// # Panics
/// If `slots` cannot hold one selection.
pub fn split_by_stream(curves: &[Curve], slots: u32) -> Vec<u32> {
    split(&curves.iter().map(gains).collect::<Vec<_>>(), u64::from(slots) * curves.len() as u64)
}

/// The same with equal slots for the `heads` head groups of a layer: one figure per layer.
///
/// # Panics
/// If `slots` cannot hold one selection.
pub fn split_by_layer(curves: &[Curve], heads: usize, slots: u32) -> Vec<u32> {
    let layer = |streams: &[Curve]| {
        let mut sum = Curve::empty(streams[0].least, streams[0].most());
        streams.iter().for_each(|curve| sum.add(curve, 1));
        sum
    };
    split_by_stream(&curves.chunks(heads).map(layer).collect::<Vec<_>>(), slots)
}

/// Misses saved by size. Curves of lru and belady fall throughout; where contexts are loaded at admission from some size on,
/// one may still rise, and sizes that save less than a smaller one are not taken.
fn gains(curve: &Curve) -> Vec<(u32, u64)> {
    let most = curve.misses_at(curve.least);
    let saved = |slots: u32| (slots, most.saturating_sub(curve.misses_at(slots)));
    (curve.least..=curve.most()).map(saved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(misses: &[u64]) -> Curve {
        Curve { least: 2, misses: misses.to_vec(), cold: vec![0; misses.len()], accesses: 100 }
    }

    #[test]
    fn slots_go_to_the_steeper_curve() {
        let curves = [curve(&[9, 8, 7, 6]), curve(&[9, 4, 3, 3]), curve(&[9, 9, 9, 0]), curve(&[1, 1, 1, 1])];
        assert_eq!(split_by_stream(&curves, 3), [2, 3, 5, 2]);
        assert_eq!(split_by_layer(&curves, 2, 3), [3, 3], "summed, the flat one and the cliff gain 3 a slot");
    }
}
