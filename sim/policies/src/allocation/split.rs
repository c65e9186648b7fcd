//! The split of a budget by marginal utility: every further slot goes where it gains most.
//! Partitioning by the gain per unit: H. S. Stone, J. Turek, J. L. Wolf, "Optimal partitioning of cache memory", IEEE
//! Transactions on Computers 41(9), 1992, <https://doi.org/10.1109/12.165388>.

/// Slots for each stream: `gains[s]` lists points (slots, gain so far), ascending in slots, from the fewest it may have.
/// Streams climb the concave hulls of their gains, steepest step first; what the curves have no use for is
/// spread evenly. Equal steps go to the earlier stream. The slots sum to `budget`, which covers every first point.
///
/// # Panics
/// If a stream has no point, or the first points alone exceed the budget.
pub fn split(gains: &[Vec<(u32, u64)>], budget: u64) -> Vec<u32> {
    let mut slots: Vec<u32> =
        gains.iter().map(|points| points.first().expect("a stream has a smallest size").0).collect();
    let floor: u64 = slots.iter().map(|&slots| u64::from(slots)).sum();
    let mut left = budget.checked_sub(floor).expect("the budget covers the smallest size of every stream");
    let mut climbs: Vec<Climb> = Vec::new();
    for (stream, points) in gains.iter().enumerate() {
        let hull = hull(points);
        climbs.extend(hull.windows(2).map(|step| Climb {
            stream,
            slots: step[1].0 - step[0].0,
            gain: step[1].1 - step[0].1,
        }));
    }
    // Stable: within a stream the hull's steps are in order already.
    climbs.sort_by(|a, b| b.over(a).cmp(&a.over(b)));
    for climb in climbs {
        let taken = u64::from(climb.slots).min(left);
        slots[climb.stream] += u32::try_from(taken).expect("no more than the step has");
        left -= taken;
    }
    let streams = slots.len().max(1) as u64;
    for (at, slots) in (0u64..).zip(&mut slots) {
        let share = left / streams + u64::from(at < left % streams);
        *slots += u32::try_from(share).expect("a share counts in 32 bits");
    }
    slots
}

/// One step of a hull.
struct Climb {
    stream: usize,
    slots: u32,
    gain: u64,
}

impl Climb {
    /// Its gain, over the slots of another: steepness compares by products.
    fn over(&self, other: &Climb) -> u128 {
        u128::from(self.gain) * u128::from(other.slots)
    }
}

/// The rising part of the concave hull of a curve, from its first point.
fn hull(points: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let mut hull: Vec<(u32, u64)> = Vec::new();
    for &(slots, gain) in points {
        if hull.last().is_some_and(|&(_, best)| gain <= best) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let rise =
                |from: (u32, u64), to: (u32, u64)| (u128::from(to.1 - from.1), u128::from(to.0 - from.0));
            let ((up, over), (up_on, over_on)) = (rise(before, last), rise(last, (slots, gain)));
            if up * over_on > up_on * over {
                break;
            }
            hull.pop();
        }
        hull.push((slots, gain));
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_go_where_they_gain_most() {
        let cliff = vec![(2, 0), (3, 1), (4, 1), (5, 12)];
        let slope = vec![(2, 0), (3, 3), (4, 5), (5, 6)];
        // Hull of the cliff: 12 gains for three slots; of the slope: 3, 2, 1 for one slot each.
        assert_eq!(split(&[cliff.clone(), slope.clone()], 7), [5, 2]);
        assert_eq!(split(&[cliff.clone(), slope.clone()], 9), [5, 4]);
        assert_eq!(split(&[cliff, slope], 13), [7, 6], "three slots that nobody can use");
    }

    proptest! {
        /// On concave curves no other split gains more.
        #[test]
        fn concave_curves_are_split_best(
            mut steps in prop::collection::vec(prop::collection::vec(0u64..20, 4), 1..4),
            spare in 0u64..12,
        ) {
            let curves: Vec<Vec<(u32, u64)>> = steps
                .iter_mut()
                .map(|steps| {
                    steps.sort_unstable_by(|a, b| b.cmp(a));
                    let sums = steps.iter().scan(0, |sum, step| { *sum += step; Some(*sum) });
                    std::iter::once((1, 0)).chain((2u32..).zip(sums)).collect()
                })
                .collect();
            let found = split(&curves, curves.len() as u64 + spare);
            prop_assert_eq!(found.iter().map(|&slots| u64::from(slots)).sum::<u64>(), curves.len() as u64 + spare);
            let gain = |stream: usize, slots: u32| curves[stream][(slots as usize - 1).min(4)].1;
            let total: u64 = found.iter().enumerate().map(|(stream, &slots)| gain(stream, slots)).sum();
            let mut best = vec![0u64; usize::try_from(spare).unwrap() + 1];
            for stream in 0..curves.len() {
                let before = best.clone();
                for (slots, best) in best.iter_mut().enumerate() {
                    let with = |own: usize| before[slots - own] + gain(stream, u32::try_from(own).unwrap() + 1);
                    *best = (0..=slots).map(with).max().unwrap();
                }
            }
            prop_assert_eq!(total, *best.last().unwrap());
        }
    }
}
