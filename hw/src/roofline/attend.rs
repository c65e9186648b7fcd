//! Attention from a cold L2: successive calls read different frames of a pool far larger than the cache.

use super::Bench;
use crate::ops::attend::{AttendGqa, Attended, Gqa, HEAD_DIM, Reading, Scratch};
use crate::ops::dense::BF16_NOISE;
use crate::ops::count32;
use crate::{DeviceBuffer, HwError};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;

const KV_HEADS: usize = 8;
const POOL_BYTES: usize = 4 << 30;

struct Inputs {
    pool: DeviceBuffer<u8>,
    queries: DeviceBuffer<u16>,
    readings: Vec<Reading>,
    scratch: Scratch,
    result: Attended,
}

fn inputs(bench: &Bench, kernels: &AttendGqa, gqa: Gqa, batch: usize, tokens: u32) -> Result<Inputs, HwError> {
    let device = &bench.device;
    let streams = batch * KV_HEADS;
    let pool = DeviceBuffer::<u8>::new(device, POOL_BYTES)?;
    bench.dense.fill_noise(&bench.stream, pool.address(), POOL_BYTES as u64, 7, BF16_NOISE)?;
    let heads = streams * gqa.group as usize;
    let queries = DeviceBuffer::<u16>::new(device, heads * HEAD_DIM)?;
    bench.dense.fill_noise(&bench.stream, queries.address(), (heads * HEAD_DIM * 2) as u64, 8, BF16_NOISE)?;
    let mut numbers: Vec<u32> = (0..count32(POOL_BYTES / gqa.frame_bytes())).collect();
    numbers.shuffle(&mut Pcg64Mcg::seed_from_u64(9));
    let per_stream = tokens.div_ceil(gqa.page) as usize;
    let sets = (numbers.len() / (streams * per_stream)).clamp(1, 24);
    let readings = (0..sets)
        .map(|set| {
            let lists: Vec<(&[u32], u32)> = (0..streams)
                .map(|s| (&numbers[(set * streams + s) * per_stream..][..per_stream], tokens))
                .collect();
            Reading::from_host(device, gqa.page, &lists)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let scratch = kernels.scratch(streams)?;
    let result = Attended::new(device, streams, gqa.group as usize, HEAD_DIM)?;
    Ok(Inputs { pool, queries, readings, scratch, result })
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = AttendGqa::load(&bench.device)?;
    for (page, group) in [(16, 4), (16, 8), (64, 4), (64, 8)] {
        for (batch, goal) in [(1usize, None), (8, Some(0.80)), (64, Some(0.95))] {
            let (gqa, tokens) = (Gqa { page, group }, 2048);
            let i = inputs(bench, &kernels, gqa, batch, tokens)?;
            let least_choices: &[u32] = if batch == 1 { &[4, 8, 16] } else { &[8] };
            for &least in least_choices {
                let time = bench.stream.time_in_graph(i.readings.len(), 20, |at| {
                    let reading = &i.readings[at];
                    kernels.attend(&bench.stream, gqa, &i.queries, i.pool.address(), reading, &i.scratch, &i.result, least)
                })?;
                let bytes = (batch * KV_HEADS) as u64 * u64::from(tokens) * HEAD_DIM as u64 * 4;
                let shape = format!("batch {batch}, 8 KV heads x 128, group {group}, {tokens} tokens in pages of {page}, least {least}");
                bench.bandwidth("attend gqa", shape, bytes, time, ("HBM copy", bench.ceilings.copy), goal);
            }
        }
    }
    Ok(())
}
