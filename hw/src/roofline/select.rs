//! Selection: page bounds stream their summaries; top k is a time.

use super::Bench;
use crate::ops::dense::BF16_NOISE;
use crate::ops::select::{SUMMARY_BYTES, Scores, Select};
use crate::{DeviceBuffer, HwError};

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let kernels = Select::load(&bench.device)?;
    for (batch, group) in [(1usize, 4u32), (8, 4), (64, 4), (64, 8)] {
        let (streams, pages) = (batch * 8, 8192u32);
        let bytes = streams as u64 * u64::from(pages) * SUMMARY_BYTES as u64;
        let sets = (1u64 << 30).div_ceil(bytes).clamp(1, 16);
        let device = &bench.device;
        let summaries =
            DeviceBuffer::<u8>::new(device, usize::try_from(bytes * sets).expect("a 64-bit machine"))?;
        bench.dense.fill_noise(&bench.stream, summaries.address(), bytes * sets, 3, BF16_NOISE)?;
        let queries = DeviceBuffer::<u16>::new(device, streams * group as usize * 128)?;
        bench.dense.fill_noise(
            &bench.stream,
            queries.address(),
            (streams * group as usize * 256) as u64,
            4,
            BF16_NOISE,
        )?;
        let scores = Scores {
            scores: DeviceBuffer::filled(device, streams * pages as usize, 0xff)?,
            counts: DeviceBuffer::from_host(device, &vec![pages; streams])?,
            stride: pages,
        };
        let sets = usize::try_from(sets).expect("a few");
        let time = bench.stream.time_in_graph(sets, 20, |at| {
            let rows = summaries.address() + at as u64 * bytes;
            kernels.bound(&bench.stream, group, &queries, rows, &scores)
        })?;
        let goal = (batch >= 8).then_some(0.90);
        let shape = format!("batch {batch}, 8 KV heads, group {group}, {pages} pages");
        bench.bandwidth("quest bound", shape, bytes, time, ("HBM read", bench.ceilings.read), goal);
        for k in [64u32, 256] {
            let best = DeviceBuffer::<u32>::filled(&bench.device, streams * k as usize, 0xff)?;
            let taken = DeviceBuffer::<u32>::filled(&bench.device, streams, 0xff)?;
            let time = bench
                .stream
                .time_in_graph(20, 10, |_| kernels.top_k(&bench.stream, &scores, k, &best, &taken))?;
            bench.duration(
                "top k",
                format!("batch {batch}, 8 KV heads, {k} of {pages}"),
                time,
                ("quest bound", bench.rows[bench.rows.len() - 1].time.micros()),
                None,
            );
        }
    }
    for streams in [1usize, 8, 64] {
        let (n, k) = (131_072u32, 2048u32);
        let device = &bench.device;
        let scores = Scores {
            scores: DeviceBuffer::new(device, streams * n as usize)?,
            counts: DeviceBuffer::from_host(device, &vec![n; streams])?,
            stride: n,
        };
        // Random signs and mantissas, exponents around one: distinct floats.
        let bits = (0x80ff_ffff_80ff_ffff, 0x3f00_0000_3f00_0000);
        bench.dense.fill_noise(
            &bench.stream,
            scores.scores.address(),
            (streams as u64) * u64::from(n) * 4,
            5,
            bits,
        )?;
        let best = DeviceBuffer::<u32>::filled(device, streams * k as usize, 0xff)?;
        let taken = DeviceBuffer::<u32>::filled(device, streams, 0xff)?;
        let time = bench
            .stream
            .time_in_graph(10, 10, |_| kernels.top_k(&bench.stream, &scores, k, &best, &taken))?;
        bench.duration(
            "top k",
            format!("{streams} streams, {k} of {n}"),
            time,
            ("one graph node", bench.ceilings.graph_node),
            None,
        );
    }
    Ok(())
}
