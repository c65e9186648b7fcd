//! Residency look-up: 64 streams of 2048-entry selections, from no miss to many.

use super::Bench;
use crate::HwError;
use crate::ops::lookup::{Buffers, Decided, Lookup, Policy, Residencies, Selected};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let lookup = Lookup::load(&bench.device)?;
    let shapes = [
        (64u32, 4096u32, 2048u32, 0u32),
        (64, 4096, 2048, 64),
        (64, 4096, 2048, 512),
        (1, 4096, 2048, 0),
        (512, 128, 64, 0),
        (512, 128, 64, 8),
    ];
    for (policy, (streams, slots, k, misses)) in
        Policy::ALL.iter().flat_map(|&policy| shapes.map(|shape| (policy, shape)))
    {
        let blocks = 32 * k * 2;
        let shape = Buffers { streams, slots, blocks, k, near: 1, budget: 0 };
        let device = &bench.device;
        let mut state = Residencies::new(device, policy, shape)?;
        let starts: Vec<(u32, u32, u32)> = (0..streams).map(|s| (s, 0, slots)).collect();
        lookup.open(&bench.stream, &mut state, &starts)?;
        // Each of several steps replaces `misses` blocks of a random selection by blocks never seen before.
        let mut rng = Pcg64Mcg::seed_from_u64(11);
        let mut resident: Vec<u32> = (0..slots).collect();
        let mut steps = Vec::new();
        for step in 0..8u32 {
            let mut list = Vec::new();
            for _ in 0..streams {
                resident.shuffle(&mut rng);
                let fresh = slots + step * misses..slots + (step + 1) * misses;
                list.extend(resident[..(k - misses) as usize].iter().copied().chain(fresh));
            }
            let mut selected = Selected::new(device, shape, streams as usize)?;
            selected.ids.write(&(0..streams).collect::<Vec<_>>())?;
            selected.blocks.write(&list)?;
            selected.counts.write(&vec![k; streams as usize])?;
            steps.push(selected);
        }
        let decided = Decided::new(device, shape, streams as usize)?;
        let time = bench.stream.time_in_graph(steps.len(), if misses == 0 { 20 } else { 1 }, |at| {
            lookup.step(&bench.stream, &state, &steps[at], &decided)
        })?;
        let name = format!("{streams} streams, {k} of {slots} slots, {misses} or more misses");
        let goal = (streams == 64 && misses == 0).then_some(1.0);
        bench.duration(&format!("lookup {}", policy.name()), name, time, ("12 us", 12.0), goal);
    }
    Ok(())
}
