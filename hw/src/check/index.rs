//! Indexer scores: odd counts, empty streams, poisoned outputs, against double precision over what the keys hold; and
//! the selection made of them against a sort of the very scores.

use super::latent::widen_fp8;
use super::reference::{dot, relative_error, top_k, widened};
use super::{Bench, attend::noise};
use crate::ops::index::{INDEX_BLOCK, INDEX_DIM, INDEX_HEADS, Index, IndexCall, IndexFormat};
use crate::ops::select::{Scores, Select};
use crate::{DeviceBuffer, HwError};
use rand::RngExt;

/// Products are exact in f32 and summed in it.
const ALLOWED: f64 = 1e-3;
const TOP: u32 = 2048;

/// Operands as bytes, and the values that they stand for.
struct Drawn {
    bytes: Vec<u8>,
    values: Vec<Vec<f64>>,
}

/// Random e4m3 values up to 7.5 and of any sign.
fn fp8_row(bench: &mut Bench) -> Vec<u8> {
    (0..INDEX_DIM).map(|_| bench.rng.random_range(0..0x50u8) | bench.rng.random_range(0..2u8) << 7).collect()
}

fn rows(bench: &mut Bench, format: IndexFormat, n: usize) -> Drawn {
    let mut drawn = Drawn { bytes: Vec::new(), values: Vec::new() };
    for _ in 0..n {
        match format {
            IndexFormat::Bf16 => {
                let row = noise(bench, INDEX_DIM);
                row.iter().for_each(|value| drawn.bytes.extend(value.to_le_bytes()));
                drawn.values.push(widened(&row));
            }
            IndexFormat::Fp8 => {
                let row = fp8_row(bench);
                drawn.values.push(row.iter().map(|&bits| widen_fp8(bits)).collect());
                drawn.bytes.extend(row);
            }
        }
    }
    drawn
}

/// Whole blocks of keys, with scales after the rows of each where the format has them.
fn keys(bench: &mut Bench, format: IndexFormat, blocks: usize) -> Drawn {
    let mut all = Drawn { bytes: Vec::new(), values: Vec::new() };
    for _ in 0..blocks {
        let mut block = rows(bench, format, INDEX_BLOCK);
        if format == IndexFormat::Fp8 {
            for row in &mut block.values {
                let scale = bench.rng.random_range(0.01f32..2.0);
                row.iter_mut().for_each(|value| *value *= f64::from(scale));
                block.bytes.extend(scale.to_le_bytes());
            }
        }
        all.bytes.extend(block.bytes);
        all.values.extend(block.values);
    }
    all
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let (index, select) = (Index::load(&bench.device)?, Select::load(&bench.device)?);
    for format in [IndexFormat::Bf16, IndexFormat::Fp8] {
        case(bench, (&index, &select), format, &[1, 333, 64, 0, 400, 255], 400)?;
        case(bench, (&index, &select), format, &[5000, 4096, 63], 5000)?;
        case(bench, (&index, &select), format, &[129; 40], 129)?;
    }
    Ok(())
}

fn case(
    bench: &mut Bench,
    (index, select): (&Index, &Select),
    format: IndexFormat,
    counts: &[u32],
    stride: u32,
) -> Result<(), HwError> {
    let (n, stride_len) = (counts.len(), stride as usize);
    let per_stream = stride_len.div_ceil(INDEX_BLOCK);
    let keys = keys(bench, format, n * per_stream);
    let queries = rows(bench, format, n * INDEX_HEADS);
    let weights: Vec<f32> = (0..n * INDEX_HEADS).map(|_| bench.rng.random_range(-1.0f32..1.0)).collect();
    let device = &bench.device;
    let device_keys = DeviceBuffer::from_host(device, &keys.bytes)?;
    let device_queries = DeviceBuffer::from_host(device, &queries.bytes)?;
    let head_weights = DeviceBuffer::from_host(device, &weights)?;
    let scores = Scores {
        scores: DeviceBuffer::filled(device, n * stride_len, 0xff)?,
        counts: DeviceBuffer::from_host(device, counts)?,
        stride,
    };
    let call = IndexCall {
        queries: device_queries.address(),
        head_weights: &head_weights,
        keys: device_keys.address(),
        scores: &scores,
    };
    index.score(&bench.stream, format, &call)?;
    let best = DeviceBuffer::<u32>::filled(device, n * TOP as usize, 0xff)?;
    let taken = DeviceBuffer::<u32>::filled(device, n, 0xff)?;
    select.top_k(&bench.stream, &scores, TOP, &best, &taken)?;
    bench.stream.synchronize()?;
    let (got, best, taken) = (scores.scores.read()?, best.read()?, taken.read()?);
    let (mut a, mut b, mut wrong) = (Vec::new(), Vec::new(), 0u32);
    for (stream, &count) in counts.iter().enumerate() {
        let own = &got[stream * stride_len..][..stride_len];
        for (key, &score) in own.iter().enumerate().take(count as usize) {
            let key_values = &keys.values[stream * per_stream * INDEX_BLOCK + key];
            let head = |head: usize| {
                let at = stream * INDEX_HEADS + head;
                f64::from(weights[at]) * dot(&queries.values[at], key_values).max(0.0)
            };
            b.push((0..INDEX_HEADS).map(head).sum());
            a.push(f64::from(score));
        }
        // Beyond a stream's keys the poison stays.
        wrong += u32::from(own[count as usize..].iter().any(|score| score.to_bits() != u32::MAX));
        let expected = top_k(&own[..count as usize], TOP as usize);
        let chosen = &best[stream * TOP as usize..][..(taken[stream].min(TOP)) as usize];
        wrong += u32::from(*chosen != expected[..]);
    }
    let name = format!("{format:?}, {n} streams of up to {stride} keys").to_lowercase();
    bench.note(format!("index scores, {name}"), relative_error(&a, &b), ALLOWED);
    bench.note(format!("index scores, top {TOP}, {name}"), f64::from(wrong), 0.0);
    Ok(())
}
