//! Rewrites a trace with each candidate encoding and prints file size and decoding speed, for traces/FORMAT.md.
//! Run: cargo run --release -p kvtier-traces --example encodings -- TRACE

#![allow(clippy::print_stdout)] // a command-line tool

use kvtier_traces::{Chunk, Coding, Columns, Layout, Recording, TraceReader, TraceWriter, View};
use kvtier_units::Bytes;
use std::hint::black_box;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let trace = std::env::args().nth(1).ok_or("usage: encodings TRACE")?;
    let folder = tempfile::tempdir()?;
    let rewritten = folder.path().join("rewritten.parquet");
    println!(
        "ids               zstd      size MB     write M/s   ids only M/s   all columns M/s   recording M/s"
    );
    for ids in [Coding::Plain, Coding::Dictionary, Coding::Delta, Coding::ByteStreamSplit] {
        for zstd in [None, Some(1), Some(3), Some(9)] {
            let layout = Layout { ids, zstd, ..Layout::default() };
            let write = speed(|| rewrite(Path::new(&trace), &rewritten, &layout))?;
            measure(&rewritten, &layout, write)?;
        }
    }
    Ok(())
}

fn rewrite(from: &Path, to: &Path, layout: &Layout) -> Result<u64, Failure> {
    let mut reader = TraceReader::open(from)?;
    let requests = reader.requests().to_vec();
    let mut writer = TraceWriter::create_with(to, reader.header().clone(), layout)?;
    let mut chunk = Chunk::default();
    while reader.next_chunk(&mut chunk)? {
        for row in chunk.rows() {
            writer.push(&row)?;
        }
    }
    let summary = writer.finish(&requests)?;
    Ok(summary.blocks + summary.extra)
}

#[allow(clippy::cast_precision_loss)] // a table's four digits
fn measure(path: &Path, layout: &Layout, write: f64) -> Result<(), Failure> {
    let megabytes = std::fs::metadata(path)?.len() as f64 / 1e6;
    let bare = read_speed(path, Columns { scores: false, extra: false })?;
    let all = read_speed(path, Columns { scores: true, extra: true })?;
    let recording = speed(|| {
        let recording = Recording::decode(path, &View::default(), Bytes(u64::MAX))?;
        let mut blocks = 0;
        let mut buf = kvtier_traces::StepBuf::default();
        for request in 0..recording.requests().len() {
            for step in 0..recording.steps(request) {
                let rows = recording.step(request, step, &mut buf)?;
                blocks += rows.iter().map(|row| u64::from(row.raw_entries)).sum::<u64>();
            }
        }
        Ok(blocks)
    })?;
    let zstd = layout.zstd.map_or("none".into(), |level| level.to_string());
    let ids = format!("{:?}", layout.ids);
    println!(
        "{ids:<17} {zstd:<6} {megabytes:>10.2} {write:>13.0} {bare:>14.0} {all:>17.0} {recording:>15.0}"
    );
    Ok(())
}

fn read_speed(path: &Path, columns: Columns) -> Result<f64, Failure> {
    speed(|| {
        let mut reader = TraceReader::open(path)?.columns(columns);
        let mut chunk = Chunk::default();
        let mut ids = 0;
        while reader.next_chunk(&mut chunk)? {
            ids += chunk.rows().map(|row| black_box(row.blocks).len() + row.extra.len()).sum::<usize>();
        }
        Ok(ids as u64)
    })
}

/// Million ids per second of CPU time: the best of three half seconds, for the kernel counts it in ticks.
#[allow(clippy::cast_precision_loss)] // a table's four digits
fn speed(run: impl Fn() -> Result<u64, Failure>) -> Result<f64, Failure> {
    let mut best = 0.0f64;
    for _ in 0..3 {
        let (mut ids, mut spent) = (0, 0);
        while spent < 500_000_000 {
            let start = cpu_ns()?;
            ids += run()?;
            spent += cpu_ns()? - start;
        }
        best = best.max(ids as f64 * 1e3 / spent as f64);
    }
    Ok(best)
}

/// Nanoseconds this thread has been running: other work on the machine disturbs it less than the wall clock.
fn cpu_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no CPU time in schedstat")?.parse()?)
}
