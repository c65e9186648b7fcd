//! Attention: random frames, odd lengths, empty selections, outputs poisoned; and parts merged as in hit-first.

use super::reference::{attend, relative_error, widened};
use super::{Bench, swap::distinct};
use crate::bf16::{round, widen};
use crate::ops::attend::{AttendGqa, Attended, Call, Gqa, HEAD_DIM, Reading, Split};
use crate::{DeviceBuffer, HwError};
use rand::RngExt;

/// Relative error allowed to bf16 attention.
const ALLOWED: f64 = 1e-2;

pub(super) fn noise(bench: &mut Bench, n: usize) -> Vec<u16> {
    (0..n).map(|_| round(bench.rng.random_range(-2.0f32..2.0))).collect()
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = AttendGqa::load(&bench.device)?;
    for (page, group) in [(16, 4), (16, 8), (64, 4), (64, 8)] {
        let gqa = Gqa { page, group };
        // Odd lengths, empty streams at either end and between, and one long stream that many blocks share.
        let odd = [0, 1, 15, 16, 17, 63, 64, 65, 0, 100, 333, 1000, 0];
        gqa_case(bench, &kernels, gqa, &odd, 8)?;
        gqa_case(bench, &kernels, gqa, &[2048; 8], 4)?;
        gqa_case(bench, &kernels, gqa, &[7001], 1)?;
        gqa_case(bench, &kernels, gqa, &[0, 0], 1)?;
        // All as long as is usual but the last, which is longer.
        gqa_case(bench, &kernels, gqa, &[640, 641], 1)?;
        gqa_case(bench, &kernels, gqa, &[96; 600], 8)?;
        // And as many streams as are cut in yet other ways.
        gqa_case(bench, &kernels, gqa, &[131; 30], 8)?;
        gqa_case(bench, &kernels, gqa, &[77; 60], 8)?;
        gqa_case(bench, &kernels, gqa, &[50; 510], 8)?;
        // Some of the streams whole and the last ones cut, all of odd lengths, some of none.
        let odd: Vec<u32> = (0..90).map(|i| if [70, 89].contains(&i) { 0 } else { i * 37 % 300 }).collect();
        gqa_case(bench, &kernels, gqa, &odd, 8)?;
    }
    parts(bench, &kernels)?;
    corrupted(bench, &kernels)
}

/// One reading of frames by several streams.
struct Case {
    gqa: Gqa,
    pool: Vec<u16>,
    queries: Vec<u16>,
    frames: Vec<Vec<u32>>,
    tokens: Vec<u32>,
}

fn draw(bench: &mut Bench, gqa: Gqa, tokens: &[u32]) -> Case {
    let needed: u32 = tokens.iter().map(|tokens| tokens.div_ceil(gqa.page)).sum();
    let total = needed + 5;
    let mut numbers = distinct(bench, total, needed as usize).into_iter();
    let frames =
        tokens.iter().map(|t| numbers.by_ref().take(t.div_ceil(gqa.page) as usize).collect()).collect();
    Case {
        gqa,
        pool: noise(bench, total as usize * gqa.frame_bytes() / 2),
        queries: noise(bench, tokens.len() * gqa.group as usize * HEAD_DIM),
        frames,
        tokens: tokens.to_vec(),
    }
}

/// Largest error over streams, of outputs and of the logarithms.
fn compare(case: &Case, out: &[u16], lse: &[f32]) -> f64 {
    let (page, group) = (case.gqa.page as usize, case.gqa.group as usize);
    let scale = 1.0 / (HEAD_DIM as f64).sqrt();
    let mut worst = 0f64;
    for (stream, (frames, &tokens)) in case.frames.iter().zip(&case.tokens).enumerate() {
        let row = |token: usize, half: usize| {
            let frame = frames[token / page] as usize * 2 * page;
            widened(&case.pool[(frame + half * page + token % page) * HEAD_DIM..][..HEAD_DIM])
        };
        let keys: Vec<Vec<f64>> = (0..tokens as usize).map(|token| row(token, 0)).collect();
        let values: Vec<Vec<f64>> = (0..tokens as usize).map(|token| row(token, 1)).collect();
        for head in 0..group {
            let at = stream * group + head;
            let query = widened(&case.queries[at * HEAD_DIM..][..HEAD_DIM]);
            let (expected, log) = attend(&query, &keys, &values, HEAD_DIM, scale);
            let got: Vec<f64> = out[at * HEAD_DIM..][..HEAD_DIM].iter().map(|&bits| widen(bits)).collect();
            let error = relative_error(&got, &expected);
            let log_error = if tokens == 0 {
                f64::from(u8::from(lse[at] != f32::NEG_INFINITY))
            } else {
                (f64::from(lse[at]) - log).abs() / log.abs().max(1.0)
            };
            worst =
                if error.is_nan() || log_error.is_nan() { f64::NAN } else { worst.max(error).max(log_error) };
            if worst.is_nan() {
                return worst;
            }
        }
    }
    worst
}

fn gqa_case(
    bench: &mut Bench,
    kernels: &AttendGqa,
    gqa: Gqa,
    tokens: &[u32],
    least: u32,
) -> Result<(), HwError> {
    let tokens = &bench.streams(tokens)[..];
    let case = draw(bench, gqa, tokens);
    let device = &bench.device;
    let pool = DeviceBuffer::from_host(device, &case.pool)?;
    let queries = DeviceBuffer::from_host(device, &case.queries)?;
    let lists: Vec<(&[u32], u32)> =
        case.frames.iter().map(Vec::as_slice).zip(case.tokens.iter().copied()).collect();
    // Cut as streams of their length are, and as long ones.
    let short = Reading::from_host(device, gqa.page, &lists)?;
    let long = Reading::from_host(device, gqa.page, &lists)?.expecting(2048);
    let scratch = kernels.scratch(tokens.len())?;
    let mut worst = 0f64;
    // With the device to itself, and twice on what others leave of it: the second finds the counters as the first left
    // them.
    for (reading, spare) in [(&short, 0), (&long, 0), (&short, 8), (&short, 8)] {
        let result = Attended::new(device, tokens.len(), gqa.group as usize, HEAD_DIM)?;
        let call =
            Call { queries: &queries, pool: pool.address(), reading, scratch: &scratch, result: &result };
        kernels.attend(&bench.stream, gqa, &call, Split { least, spare })?;
        bench.stream.synchronize()?;
        let error = compare(&case, &result.out.read()?, &result.lse.read()?);
        worst = if error.is_nan() { f64::NAN } else { worst.max(error) };
    }
    let streams = tokens.len();
    let name = format!(
        "attend gqa, page {}, group {}, {streams} streams, {} tokens",
        gqa.page,
        gqa.group,
        tokens.iter().sum::<u32>()
    );
    bench.note(name, worst, ALLOWED);
    Ok(())
}

/// Attention over the first frames merged with that over the rest, either part possibly empty.
fn parts(bench: &mut Bench, kernels: &AttendGqa) -> Result<(), HwError> {
    let gqa = Gqa { page: 16, group: 4 };
    let case = draw(bench, gqa, &[512, 300, 16, 0, 40]);
    let cuts = [7usize, 0, 1, 0, 1];
    let device = &bench.device;
    let pool = DeviceBuffer::from_host(device, &case.pool)?;
    let queries = DeviceBuffer::from_host(device, &case.queries)?;
    let scratch = kernels.scratch(cuts.len())?;
    let mut results = Vec::new();
    // Hits beside a swap-in, misses after it.
    for (first, spare) in [(true, 8), (false, 0)] {
        let lists: Vec<(&[u32], u32)> = (0..cuts.len())
            .map(|at| {
                let early = u32::try_from(cuts[at]).expect("a small count") * gqa.page;
                match first {
                    true => (&case.frames[at][..cuts[at]], early),
                    false => (&case.frames[at][cuts[at]..], case.tokens[at] - early),
                }
            })
            .collect();
        let reading = Reading::from_host(device, gqa.page, &lists)?;
        let result = Attended::new(device, cuts.len(), gqa.group as usize, HEAD_DIM)?;
        let call = Call {
            queries: &queries,
            pool: pool.address(),
            reading: &reading,
            scratch: &scratch,
            result: &result,
        };
        kernels.attend(&bench.stream, gqa, &call, Split { least: 2, spare })?;
        bench.stream.synchronize()?;
        results.push(result);
    }
    kernels.merge(&bench.stream, &results[0], &results[1], HEAD_DIM)?;
    bench.stream.synchronize()?;
    let error = compare(&case, &results[0].out.read()?, &results[0].lse.read()?);
    bench.note("attend gqa, hits first, merged".into(), error, ALLOWED);
    Ok(())
}

/// One wrong frame number among thousands must show: the error leaves what is allowed.
fn corrupted(bench: &mut Bench, kernels: &AttendGqa) -> Result<(), HwError> {
    let gqa = Gqa { page: 16, group: 4 };
    let case = draw(bench, gqa, &[512; 8]);
    let device = &bench.device;
    let pool = DeviceBuffer::from_host(device, &case.pool)?;
    let queries = DeviceBuffer::from_host(device, &case.queries)?;
    let scratch = kernels.scratch(8)?;
    let lists: Vec<(&[u32], u32)> =
        case.frames.iter().map(Vec::as_slice).zip(case.tokens.iter().copied()).collect();
    let mut reading = Reading::from_host(device, gqa.page, &lists)?;
    let mut entries = reading.entries_mut().read()?;
    entries.swap(5, 100);
    reading.entries_mut().write(&entries)?;
    let result = Attended::new(device, 8, gqa.group as usize, HEAD_DIM)?;
    let call = Call {
        queries: &queries,
        pool: pool.address(),
        reading: &reading,
        scratch: &scratch,
        result: &result,
    };
    kernels.attend(&bench.stream, gqa, &call, Split::default())?;
    bench.stream.synchronize()?;
    let error = compare(&case, &result.out.read()?, &result.lse.read()?);
    let missed = f64::from(u8::from(error <= ALLOWED));
    bench.note(format!("a corrupted page table is caught (error {error:.3})"), missed, 0.0);
    Ok(())
}
