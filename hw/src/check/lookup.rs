//! Residency: short runs of odd shapes on both planes.

use super::Bench;
use crate::HwError;
use crate::ops::lookup::{Lookup, Policy};
use crate::parity::{self, Scenario};
use rand::RngExt;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let lookup = Lookup::load(&bench.device)?;
    for (k, slots, prefetch, recent, warm_frames) in [
        (1, 1, 0, false, 0),
        (32, 32, 0, true, 0),
        (32, 64, 4, false, 0),
        (33, 77, 40, true, 0),
        (300, 1500, 7, false, 0),
        // More slots than the registers of a block hold.
        (700, 5001, 90, true, 0),
        (32, 64, 4, false, 200),
    ] {
        let scenario = Scenario {
            name: format!(
                "k {k}, {slots} slots, prefetch {prefetch}, recent {recent}, {warm_frames} warm pages"
            ),
            seats: if bench.brief { 2 } else { 3 },
            layers: if bench.brief { 1 } else { 2 },
            head_groups: if bench.brief { 1 } else { 2 },
            slots,
            k,
            entries: 3,
            prompt_blocks: (k.div_ceil(2), 6 * slots + 50),
            steps_per_request: if bench.brief { (1, 6) } else { (1, 40) },
            churn: 60,
            prefetch,
            recent,
            warm_frames,
            steps: if bench.brief { 9 } else { 120 },
            seed: bench.rng.random(),
        };
        for policy in Policy::ALL {
            let agreement = parity::run(&bench.device, &lookup, policy, &scenario)?;
            let wrong = agreement.mismatches.max(u64::from(!agreement.holds()));
            bench.note(format!("{}, {}", policy.name(), scenario.name), wrong as f64, 0.0);
        }
    }
    Ok(())
}
