//! Indexer scores stream their keys; with the selection of the best 2048 it is a time.

use super::Bench;
use crate::ops::dense::BF16_NOISE;
use crate::ops::index::{INDEX_BLOCK, INDEX_DIM, INDEX_HEADS, Index, IndexCall, IndexFormat};
use crate::ops::select::{Scores, Select};
use crate::{DeviceBuffer, HwError};

const TOP: u32 = 2048;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let (index, select) = (Index::load(&bench.device)?, Select::load(&bench.device)?);
    for format in [IndexFormat::Bf16, IndexFormat::Fp8] {
        for batch in [1usize, 8, 64] {
            measure(bench, &index, &select, format, batch)?;
        }
    }
    Ok(())
}

fn measure(
    bench: &mut Bench,
    index: &Index,
    select: &Select,
    format: IndexFormat,
    batch: usize,
) -> Result<(), HwError> {
    let tokens = 131_072u32;
    let bytes = batch * (tokens as usize / INDEX_BLOCK) * format.block_bytes();
    let sets = ((4usize << 30) / bytes).clamp(1, 8);
    let device = &bench.device;
    let keys = DeviceBuffer::<u8>::new(device, bytes * sets)?;
    // Noise of bf16 read as fp8 and scales is no key, but holds no infinity: the time is that of any key.
    bench.dense.fill_noise(&bench.stream, keys.address(), (bytes * sets) as u64, 3, BF16_NOISE)?;
    let queries = DeviceBuffer::<u16>::new(device, batch * INDEX_HEADS * INDEX_DIM)?;
    bench.dense.fill_noise(&bench.stream, queries.address(), queries.len() as u64 * 2, 4, BF16_NOISE)?;
    let scores = Scores {
        scores: DeviceBuffer::filled(device, batch * tokens as usize, 0)?,
        counts: DeviceBuffer::from_host(device, &vec![tokens; batch])?,
        stride: tokens,
    };
    let head_weights = DeviceBuffer::from_host(device, &vec![0.125f32; batch * INDEX_HEADS])?;
    let score = |at: usize| {
        let call = IndexCall {
            queries: queries.address(),
            head_weights: &head_weights,
            keys: keys.address() + (at * bytes) as u64,
            scores: &scores,
        };
        index.score(&bench.stream, format, &call)
    };
    let best = DeviceBuffer::<u32>::filled(device, batch * TOP as usize, 0xff)?;
    let taken = DeviceBuffer::<u32>::filled(device, batch, 0xff)?;
    let alone = bench.stream.time_in_graph(sets, 10, score)?;
    let both = bench.stream.time_in_graph(sets, 10, |at| {
        score(at)?;
        select.top_k(&bench.stream, &scores, TOP, &best, &taken)
    })?;
    let name = if format == IndexFormat::Bf16 { "bf16" } else { "fp8" };
    let shape = format!("batch {batch}, 64 heads x 128, {name}, {tokens} keys");
    let scoring = ("index scores", alone.micros());
    bench.bandwidth(
        "index scores",
        shape.clone(),
        bytes as u64,
        alone,
        ("HBM read", bench.ceilings.read),
        None,
    );
    bench.duration("index and top k", format!("{shape}, best {TOP}"), both, scoring, None);
    Ok(())
}
