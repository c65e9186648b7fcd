//! Selection: bounds against double precision; top k against a sort of the very scores, ties included.

use super::Bench;
use super::attend::noise;
use super::reference::{quest_bound, relative_error, top_k, widened};
use crate::bf16::widen;
use crate::ops::select::{SUMMARY_BYTES, Scores, Select};
use crate::{DeviceBuffer, HwError};
use rand::RngExt;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = Select::load(&bench.device)?;
    for group in [4u32, 8] {
        bounds(bench, &kernels, group)?;
    }
    // Streams of one block and of two, four and eight; with and without scores beyond what registers hold.
    for (stride, k) in [
        (37u32, 64u32),
        (512, 32),
        (8192, 256),
        (8192, 64),
        (20_000, 1000),
        (40_000, 300),
        (131_072, 2048),
        (140_000, 4096),
        (3000, 1),
        (5000, 2048),
    ] {
        best(bench, &kernels, stride, k, false)?;
        best(bench, &kernels, stride, k, true)?;
    }
    Ok(())
}

fn bounds(bench: &mut Bench, kernels: &Select, group: u32) -> Result<(), HwError> {
    let counts = [1u32, 333, 16, 0, 400, 255];
    let stride = 400u32;
    let mut rows = noise(bench, counts.len() * stride as usize * SUMMARY_BYTES / 2);
    for row in rows.chunks_exact_mut(256) {
        let (top, bottom) = row.split_at_mut(128);
        for (high, low) in top.iter_mut().zip(bottom).filter(|(high, low)| widen(**high) < widen(**low)) {
            std::mem::swap(high, low);
        }
    }
    let queries = noise(bench, counts.len() * group as usize * 128);
    let device = &bench.device;
    let summaries = DeviceBuffer::from_host(device, &rows)?;
    let scores = Scores {
        scores: DeviceBuffer::filled(device, counts.len() * stride as usize, 0xff)?,
        counts: DeviceBuffer::from_host(device, &counts)?,
        stride,
    };
    let device_queries = DeviceBuffer::from_host(device, &queries)?;
    kernels.bound(&bench.stream, group, &device_queries, summaries.address(), &scores)?;
    bench.stream.synchronize()?;
    let got = scores.scores.read()?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (stream, &count) in counts.iter().enumerate() {
        for page in 0..count as usize {
            let at = stream * stride as usize + page;
            let row = widened(&rows[at * 256..][..256]);
            let head = |head: usize| {
                let query = widened(&queries[(stream * group as usize + head) * 128..][..128]);
                quest_bound(&query, &row[..128], &row[128..])
            };
            b.push((0..group as usize).map(head).fold(f64::NEG_INFINITY, f64::max));
            a.push(f64::from(got[at]));
        }
    }
    bench.note(format!("quest bound, group {group}"), relative_error(&a, &b), 1e-5);
    Ok(())
}

fn best(bench: &mut Bench, kernels: &Select, stride: u32, k: u32, ties: bool) -> Result<(), HwError> {
    let counts = [stride, stride / 2 + 1, 0, 1, k.min(stride)];
    let draw = |bench: &mut Bench| match ties {
        true => (bench.rng.random_range(0..7u8) as f32) - 3.0,
        false => bench.rng.random_range(-8.0f32..8.0),
    };
    let values: Vec<f32> = (0..counts.len() * stride as usize).map(|_| draw(bench)).collect();
    let device = &bench.device;
    let scores = Scores {
        scores: DeviceBuffer::from_host(device, &values)?,
        counts: DeviceBuffer::from_host(device, &counts)?,
        stride,
    };
    let winners = DeviceBuffer::<u32>::filled(device, counts.len() * k as usize, 0xff)?;
    let taken = DeviceBuffer::<u32>::filled(device, counts.len(), 0xff)?;
    kernels.top_k(&bench.stream, &scores, k, &winners, &taken)?;
    bench.stream.synchronize()?;
    let (winners, taken) = (winners.read()?, taken.read()?);
    let mut wrong = 0;
    for (stream, &count) in counts.iter().enumerate() {
        let expected = top_k(&values[stream * stride as usize..][..count as usize], k as usize);
        let n = (taken[stream] as usize).min(k as usize);
        wrong += usize::from(winners[stream * k as usize..][..n] != expected[..]);
    }
    let kind = if ties { "many ties" } else { "random" };
    bench.note(
        format!("top {k} of {stride}, {kind}"),
        f64::from(u32::try_from(wrong).unwrap_or(u32::MAX)),
        0.0,
    );
    Ok(())
}
