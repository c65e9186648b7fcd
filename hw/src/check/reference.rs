//! References in double precision: plain loops over what the kernels read.

use crate::bf16::widen;

/// Attention of one query over rows: values weighted by softmax of `scale * query . key`, and the logarithm of the
/// sum of exponentials. Without rows: zeros and minus infinity.
pub(super) fn attend(
    query: &[f64],
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    dim: usize,
    scale: f64,
) -> (Vec<f64>, f64) {
    let scores: Vec<f64> = keys.iter().map(|key| scale * dot(query, key)).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut out = vec![0.0; dim];
    if keys.is_empty() {
        return (out, top);
    }
    let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    for (weight, value) in weights.iter().zip(values) {
        out.iter_mut().zip(value).for_each(|(o, v)| *o += weight / sum * v);
    }
    (out, top + sum.ln())
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The Quest bound of a page for one head.
pub(super) fn quest_bound(query: &[f64], top: &[f64], bottom: &[f64]) -> f64 {
    query.iter().zip(top.iter().zip(bottom)).map(|(q, (t, b))| (q * t).max(q * b)).sum()
}

/// Indices of the k largest, best first, ties to the lower index.
pub(super) fn top_k(scores: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0u32..).take(scores.len()).collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
    order.truncate(k);
    order
}

pub(super) fn widened(bits: &[u16]) -> Vec<f64> {
    bits.iter().map(|&bits| widen(bits)).collect()
}

/// |a - b| / |b| over whole vectors; the absolute error where b is zero.
pub(super) fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(x, y)| x - y));
    let size = norm(&mut b.iter().copied());
    if size > 0.0 { difference / size } else { difference }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_of_equal_scores_is_the_mean() {
        let keys = vec![vec![0.0, 1.0]; 2];
        let (out, lse) = attend(&[1.0, 0.0], &keys, &[vec![1.0, 3.0], vec![3.0, 5.0]], 2, 1.0);
        assert!(relative_error(&out, &[2.0, 4.0]) < 1e-12);
        assert!((lse - 2f64.ln()).abs() < 1e-12);
        assert_eq!(attend(&[1.0], &[], &[], 1, 1.0), (vec![0.0], f64::NEG_INFINITY));
    }

    #[test]
    fn a_bound_is_the_best_corner_and_ties_go_low() {
        assert!((quest_bound(&[1.0, -2.0], &[3.0, 1.0], &[-1.0, -4.0]) - 11.0).abs() < 1e-12);
        assert_eq!(top_k(&[1.0, 2.0, 2.0, -1.0], 3), [1, 2, 0]);
    }
}
