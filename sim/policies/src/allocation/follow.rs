//! Sizes that follow their targets: a move costs misses, so a stream moves only when it is off by enough.

/// Targets are in 256ths of a slot.
pub(super) const SLOT: u64 = 256;

/// New sizes: a stream within `band` of its target stays, another goes to it, rounded; then whoever is furthest on the
/// wrong side gives or takes a slot until the sizes sum to `budget`. None has fewer than `least`. Equals: the earlier.
///
/// # Panics
/// If the budget is less than `least` for every stream.
pub(super) fn follow(now: &[u32], targets: &[u64], band: u64, least: u32, budget: u64) -> Vec<u32> {
    assert!(
        budget >= u64::from(least) * now.len() as u64,
        "the budget covers one selection for every stream"
    );
    let settled = |(&now, &target): (&u32, &u64)| {
        let off = (u64::from(now) * SLOT).abs_diff(target);
        let wanted = u32::try_from((target + SLOT / 2) / SLOT).expect("a target counts in 32 bits");
        if off >= band.max(1) { wanted.max(least) } else { now.max(least) }
    };
    let mut sizes: Vec<u32> = now.iter().zip(targets).map(settled).collect();
    loop {
        let sum: u64 = sizes.iter().map(|&size| u64::from(size)).sum();
        if sum == budget {
            return sizes;
        }
        let signed = |count: u64| i64::try_from(count).expect("slots count in 63 bits");
        let over = |at: usize| signed(u64::from(sizes[at]) * SLOT) - signed(targets[at]);
        let mut order: Vec<usize> =
            (0..sizes.len()).filter(|&at| sum < budget || sizes[at] > least).collect();
        order.sort_by_key(|&at| if sum > budget { -over(at) } else { over(at) });
        let moves = usize::try_from(sum.abs_diff(budget)).expect("slots fit the address space");
        for at in order.into_iter().take(moves) {
            if sum > budget { sizes[at] -= 1 } else { sizes[at] += 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_differences_move_nobody() {
        assert_eq!(follow(&[4, 6], &[4 * 256 + 200, 6 * 256 - 200], 256, 2, 10), [4, 6]);
        assert_eq!(follow(&[4, 6], &[5 * 256, 5 * 256], 256, 2, 10), [5, 5]);
        assert_eq!(follow(&[4, 6], &[4 * 256, 6 * 256], 256, 2, 9), [3, 6], "equally far: the earlier gives");
        assert_eq!(follow(&[2, 6], &[2 * 256, 6 * 256], 256, 2, 7), [2, 5]);
    }

    proptest! {
        #[test]
        fn the_budget_is_kept(streams in prop::collection::vec((2u32..40, 0u64..12_000), 1..20), spare in 0u64..300) {
            let (now, targets): (Vec<u32>, Vec<u64>) = streams.into_iter().unzip();
            let budget = 2 * now.len() as u64 + spare;
            let sizes = follow(&now, &targets, 256, 2, budget);
            prop_assert_eq!(sizes.iter().map(|&size| u64::from(size)).sum::<u64>(), budget);
            prop_assert!(sizes.iter().all(|&size| size >= 2));
        }
    }
}
