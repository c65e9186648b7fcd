//! Attention from a cold L2: successive calls read different frames of a pool far larger than the cache.

use super::Bench;
use crate::ops::attend::{
    AttendGqa, AttendMla, Attended, Call, Gqa, HEAD_DIM, LATENT_DIM, LATENT_QUERY_DIM, Mla, Reading, Scratch,
    Split,
};
use crate::ops::clusters::FrameReader;
use crate::ops::count32;
use crate::ops::dense::{BF16_NOISE, FP8_NOISE};
use crate::{DeviceBuffer, HwError};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;

const KV_HEADS: usize = 8;
const POOL_BYTES: usize = 4 << 30;

struct Inputs {
    pool: DeviceBuffer<u16>,
    queries: DeviceBuffer<u16>,
    readings: Vec<Reading>,
    scratch: Scratch,
    result: Attended,
}

impl Inputs {
    fn call(&self, at: usize) -> Call<'_> {
        Call {
            queries: &self.queries,
            pool: self.pool.address(),
            reading: &self.readings[at],
            scratch: &self.scratch,
            result: &self.result,
        }
    }
}

/// Where a stream's entries lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Anywhere in the pool.
    Scattered,
    /// Anywhere in a hot buffer of the stream's own that holds twice as much.
    Buffers,
    /// One after the other.
    InOrder,
}

impl Layout {
    /// As shapes say it.
    fn suffix(self) -> &'static str {
        match self {
            Layout::Scattered => "",
            Layout::Buffers => " in buffers of twice as much",
            Layout::InOrder => " in order",
        }
    }
}

/// Readings of `tokens` tokens per stream, no entry in two, as many sets as the pool gives.
fn readings(
    bench: &Bench,
    entry_bytes: usize,
    page: u32,
    streams: usize,
    tokens: u32,
    layout: Layout,
) -> Result<Vec<Reading>, HwError> {
    let mut rng = Pcg64Mcg::seed_from_u64(9);
    let mut numbers: Vec<u32> = (0..count32(POOL_BYTES / entry_bytes)).collect();
    let per_stream = tokens.div_ceil(page) as usize;
    let apart = if layout == Layout::Buffers { 2 * per_stream } else { per_stream };
    match layout {
        Layout::Scattered => numbers.shuffle(&mut rng),
        Layout::Buffers => numbers.chunks_mut(apart).for_each(|buffer| buffer.shuffle(&mut rng)),
        Layout::InOrder => {}
    }
    let sets = (numbers.len() / (streams * apart)).clamp(1, 24);
    (0..sets)
        .map(|set| {
            let lists: Vec<(&[u32], u32)> = (0..streams)
                .map(|s| (&numbers[(set * streams + s) * apart..][..per_stream], tokens))
                .collect();
            Reading::from_host(&bench.device, page, &lists)
        })
        .collect()
}

fn noise(bench: &Bench, elements: usize, seed: u64, bits: (u64, u64)) -> Result<DeviceBuffer<u16>, HwError> {
    let buffer = DeviceBuffer::<u16>::new(&bench.device, elements)?;
    bench.dense.fill_noise(&bench.stream, buffer.address(), elements as u64 * 2, seed, bits)?;
    Ok(buffer)
}

fn inputs(
    bench: &Bench,
    kernels: &AttendGqa,
    gqa: Gqa,
    batch: usize,
    tokens: u32,
    layout: Layout,
) -> Result<Inputs, HwError> {
    let streams = batch * KV_HEADS;
    let heads = gqa.group as usize;
    Ok(Inputs {
        pool: noise(bench, POOL_BYTES / 2, 7, BF16_NOISE)?,
        queries: noise(bench, streams * heads * HEAD_DIM, 8, BF16_NOISE)?,
        readings: readings(bench, gqa.frame_bytes(), gqa.page, streams, tokens, layout)?,
        scratch: kernels.scratch(streams)?,
        result: Attended::new(&bench.device, streams, heads, HEAD_DIM)?,
    })
}

/// Latent attention over 2048 rows per request.
fn latent(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = AttendMla::load(&bench.device)?;
    for (heads, fp8, layout) in [
        (16u32, false, Layout::Scattered),
        (16, false, Layout::InOrder),
        (16, true, Layout::Scattered),
        (128, false, Layout::Scattered),
        (128, true, Layout::Scattered),
    ] {
        for batch in [1usize, 8, 64] {
            let (mla, tokens) = (Mla { heads, fp8 }, 2048u32);
            let i = Inputs {
                pool: noise(bench, POOL_BYTES / 2, 7, if fp8 { FP8_NOISE } else { BF16_NOISE })?,
                queries: noise(bench, batch * heads as usize * LATENT_QUERY_DIM, 8, BF16_NOISE)?,
                readings: readings(bench, mla.row_bytes(), 1, batch, tokens, layout)?,
                scratch: kernels.scratch(mla, batch)?,
                result: Attended::new(&bench.device, batch, heads as usize, LATENT_DIM)?,
            };
            let time = bench.stream.time_in_graph(i.readings.len(), 10, |at| {
                kernels.attend(&bench.stream, mla, &i.call(at), 0.07, Split::default())
            })?;
            let format = if fp8 { "fp8 656 B" } else { "bf16" };
            let shape = format!("batch {batch}, {heads} heads, {format}, {tokens} rows{}", layout.suffix());
            let rows = batch as u64 * u64::from(tokens);
            if heads == 16 {
                let goal = (batch == 64 && !fp8 && layout == Layout::Scattered).then_some(0.80);
                bench.bandwidth(
                    "attend mla",
                    shape,
                    rows * mla.row_bytes() as u64,
                    time,
                    ("HBM copy", bench.ceilings.copy),
                    goal,
                );
            } else {
                let flops = 2 * rows * u64::from(heads) * (LATENT_DIM + LATENT_QUERY_DIM) as u64;
                bench.rate("attend mla", shape, flops, time, (batch == 64).then_some(0.35));
            }
        }
    }
    Ok(())
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let (kernels, reader) = (AttendGqa::load(&bench.device)?, FrameReader::load(&bench.device)?);
    for (page, group) in [(16, 4), (16, 8), (64, 4), (64, 8)] {
        for (batch, layout, goal) in [
            (1usize, Layout::Scattered, None),
            (8, Layout::Scattered, Some(0.80)),
            (64, Layout::Scattered, Some(0.95)),
            (64, Layout::Buffers, Some(0.95)),
            (64, Layout::InOrder, None),
        ] {
            let (gqa, tokens) = (Gqa { page, group }, 2048);
            let i = inputs(bench, &kernels, gqa, batch, tokens, layout)?;
            let time = bench.stream.time_in_graph(i.readings.len(), 20, |at| {
                kernels.attend(&bench.stream, gqa, &i.call(at), Split::default())
            })?;
            let bytes = (batch * KV_HEADS) as u64 * u64::from(tokens) * HEAD_DIM as u64 * 4;
            let shape = format!(
                "batch {batch}, 8 KV heads x 128, group {group}, {tokens} tokens in pages of {page}{}",
                layout.suffix()
            );
            let copy = ("HBM copy", bench.ceilings.copy);
            bench.bandwidth("attend gqa", shape, bytes, time, copy, goal);
            if batch == 64 && group == 4 {
                let alone = bench.stream.time_in_graph(i.readings.len(), 20, |at| {
                    reader.read(&bench.stream, page, &i.call(at))
                })?;
                let shape = format!("batch 64, {tokens} tokens in pages of {page}{}", layout.suffix());
                bench.bandwidth("read frames", shape, bytes, alone, copy, None);
            }
        }
    }
    latent(bench)
}
