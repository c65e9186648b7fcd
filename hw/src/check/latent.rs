//! Latent attention: bf16 and fp8 rows against double precision over the very values that the rows hold.

use super::reference::{attend, relative_error, widened};
use super::{Bench, attend::noise, swap::distinct};
use crate::bf16::widen;
use crate::ops::attend::{AttendMla, Attended, Call, LATENT_DIM, LATENT_QUERY_DIM, Mla, Reading, Split};
use crate::{DeviceBuffer, HwError};
use rand::RngExt;

/// Relative error allowed: bf16 results, and weights rounded to 16 bits.
const ALLOWED: f64 = 1e-2;
const SCALE: f32 = 0.072_168_78;

/// Value of an e4m3 byte that is no NaN.
pub(super) fn widen_fp8(bits: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let size = if exponent == 0 {
        mantissa / 8.0 * 2f64.powi(-6)
    } else {
        (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7)
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// Rows as bytes, and the 576 values that each stands for.
fn draw_rows(bench: &mut Bench, mla: Mla, n: usize) -> (Vec<u8>, Vec<Vec<f64>>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let mut row = Vec::new();
        if mla.fp8 {
            let latent: Vec<u8> = (0..LATENT_DIM)
                .map(|_| bench.rng.random_range(0..0x70u8) | bench.rng.random_range(0..2u8) << 7)
                .collect();
            let scales: Vec<f32> = (0..4).map(|_| bench.rng.random_range(0.001f32..0.1)).collect();
            row.extend(
                latent.iter().enumerate().map(|(at, &bits)| widen_fp8(bits) * f64::from(scales[at / 128])),
            );
            bytes.extend_from_slice(&latent);
            scales.iter().for_each(|scale| bytes.extend(scale.to_le_bytes()));
        } else {
            let latent = noise(bench, LATENT_DIM);
            row.extend(widened(&latent));
            latent.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        let rope = noise(bench, LATENT_QUERY_DIM - LATENT_DIM);
        row.extend(widened(&rope));
        rope.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        values.push(row);
    }
    (bytes, values)
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = AttendMla::load(&bench.device)?;
    for (heads, fp8) in [(16, false), (16, true), (128, false), (128, true)] {
        let mla = Mla { heads, fp8 };
        case(bench, &kernels, mla, &[0, 1, 15, 16, 17, 33, 0, 200, 0], 2)?;
        case(bench, &kernels, mla, &[2048, 31], 1)?;
        case(bench, &kernels, mla, &[48; 70], 8)?;
        // As many streams as have clusters of two blocks.
        let growing: Vec<u32> = (0..40).map(|at| at * 7).collect();
        case(bench, &kernels, mla, &growing, 8)?;
        case(bench, &kernels, mla, &[129, 64, 65, 63, 128, 1, 700, 127], 8)?;
    }
    Ok(())
}

fn case(bench: &mut Bench, kernels: &AttendMla, mla: Mla, tokens: &[u32], least: u32) -> Result<(), HwError> {
    let tokens = &bench.streams(tokens)[..];
    let needed: u32 = tokens.iter().sum();
    let (bytes, values) = draw_rows(bench, mla, needed as usize + 3);
    let mut numbers = distinct(bench, needed + 3, needed as usize).into_iter();
    let lists: Vec<Vec<u32>> = tokens.iter().map(|&n| numbers.by_ref().take(n as usize).collect()).collect();
    let heads = mla.heads as usize;
    let queries = noise(bench, tokens.len() * heads * LATENT_QUERY_DIM);
    let device = &bench.device;
    let pool = DeviceBuffer::from_host(device, &bytes)?;
    let device_queries = DeviceBuffer::from_host(device, &queries)?;
    let borrowed: Vec<(&[u32], u32)> = lists.iter().map(Vec::as_slice).zip(tokens.iter().copied()).collect();
    let reading = Reading::from_host(device, 1, &borrowed)?;
    let scratch = kernels.scratch(mla, tokens.len())?;
    // With the device to itself, and on what others leave of it.
    let mut results = Vec::new();
    for spare in [0, 8] {
        let result = Attended::new(device, tokens.len(), heads, LATENT_DIM)?;
        let call = Call {
            queries: &device_queries,
            pool: pool.address(),
            reading: &reading,
            scratch: &scratch,
            result: &result,
        };
        kernels.attend(&bench.stream, mla, &call, SCALE, Split { least, spare })?;
        bench.stream.synchronize()?;
        results.push((result.out.read()?, result.lse.read()?));
    }
    let mut worst = 0f64;
    for (stream, list) in lists.iter().enumerate() {
        let keys: Vec<Vec<f64>> = list.iter().map(|&row| values[row as usize].clone()).collect();
        for head in (0..heads).step_by(if heads > 16 { 5 } else { 1 }) {
            let at = stream * heads + head;
            let query = widened(&queries[at * LATENT_QUERY_DIM..][..LATENT_QUERY_DIM]);
            let (expected, log) = attend(&query, &keys, &keys, LATENT_DIM, f64::from(SCALE));
            for (out, lse) in &results {
                let got: Vec<f64> =
                    out[at * LATENT_DIM..][..LATENT_DIM].iter().map(|&bits| widen(bits)).collect();
                let error = relative_error(&got, &expected);
                let log_error = match list.is_empty() {
                    true => f64::from(u8::from(lse[at] != f32::NEG_INFINITY)),
                    false => (f64::from(lse[at]) - log).abs() / log.abs().max(1.0),
                };
                let both =
                    if error.is_nan() || log_error.is_nan() { f64::INFINITY } else { error.max(log_error) };
                worst = worst.max(both);
            }
        }
    }
    let format = if mla.fp8 { "fp8" } else { "bf16" };
    bench.note(
        format!("attend mla, {heads} heads, {format}, {} streams, {needed} rows", tokens.len()),
        worst,
        ALLOWED,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_its_values() {
        assert!((widen_fp8(0x38) - 1.0).abs() < 1e-12);
        assert!((widen_fp8(0xfe) + 448.0).abs() < 1e-12);
        assert!((widen_fp8(0x01) - 2f64.powi(-9)).abs() < 1e-15);
    }
}
