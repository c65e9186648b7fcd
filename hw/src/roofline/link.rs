//! Swap-in, write-back, and what they cost attention that runs beside them.

use super::overlap::Beside;
use super::{Bench, Row};
use crate::ops::count32;
use crate::ops::swap::{Fills, Move, Moves, Pools, Swap, Width};
use crate::{DeviceBuffer, HwError, PinnedBuffer, Spread};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const FRAMES_BYTES: usize = 1 << 30;

struct Link {
    swap: Swap,
    home: PinnedBuffer<u8>,
    frames: DeviceBuffer<u8>,
    rng: Pcg64Mcg,
}

impl Link {
    fn pools(&self, block_bytes: u32) -> Pools {
        Pools { home: self.home.address(), frames: self.frames.address(), block_bytes }
    }

    /// Random distinct-enough moves: each of `groups` requests draws `per` blocks from its own slice of the region.
    fn moves(&mut self, block_bytes: u32, region: usize, groups: usize, per: usize) -> Vec<Move> {
        let slice = count32(region.min(self.home.len()) / block_bytes as usize / groups);
        let mut frames: Vec<u32> = (0..count32(FRAMES_BYTES / block_bytes as usize)).collect();
        frames.shuffle(&mut self.rng);
        let mut moves = Vec::with_capacity(groups * per);
        for group in 0..count32(groups) {
            for _ in 0..per {
                let home = group * slice + self.rng.random_range(0..slice);
                moves.push(Move { home, frame: frames[moves.len() % frames.len()] });
            }
        }
        moves
    }
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let device = bench.device.clone();
    let mut link = Link {
        swap: Swap::load(&device)?,
        home: PinnedBuffer::new(&device, bench.pinned_bytes)?,
        frames: DeviceBuffer::new(&device, FRAMES_BYTES)?,
        rng: Pcg64Mcg::seed_from_u64(13),
    };
    for section in [by_size, small_rows, against_one_block_per_request, beside_attention] {
        in_rounds(bench, &mut link, section)?;
    }
    Ok(())
}

/// Rounds of each section. The link and the host's memory are shared with neighbours, who take some of either for tens of
/// milliseconds: all repeats of a row, but not most of its rounds.
const ROUNDS: usize = 7;

/// Measures a section several times over; of each row the round counts whose ratio is in the middle.
fn in_rounds(
    bench: &mut Bench,
    link: &mut Link,
    section: fn(&mut Bench, &mut Link) -> Result<(), HwError>,
) -> Result<(), HwError> {
    let before = bench.rows.len();
    (0..ROUNDS).try_for_each(|_| section(bench, link))?;
    let all = bench.rows.split_off(before);
    bench.rows.extend(in_the_middle(&all, ROUNDS));
    Ok(())
}

/// Of rows measured round after round, each row's round whose ratio is in the middle, with the extremes of all.
fn in_the_middle(all: &[Row], rounds: usize) -> Vec<Row> {
    assert!(all.len().is_multiple_of(rounds), "every round has the same rows");
    let rows = all.len() / rounds;
    let middle = |at: usize| {
        let mut rounds: Vec<&Row> = all.iter().skip(at).step_by(rows).collect();
        assert!(rounds.iter().all(|row| row.kernel == rounds[0].kernel), "every round has the same rows");
        rounds.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let times: Vec<Spread> = rounds.iter().map(|row| row.time).collect();
        let middle = rounds[rounds.len() / 2];
        Row { time: Spread::around(&times, middle.time.median_ps), ..middle.clone() }
    };
    (0..rows).map(middle).collect()
}

/// Blocks of 2 KiB and more from 4 GiB, at several totals and widths of the grid.
fn by_size(bench: &mut Bench, link: &mut Link) -> Result<(), HwError> {
    let goals = [(1usize << 20, Some(0.65)), (16 << 20, Some(0.90)), (128 << 20, Some(0.90))];
    for block_bytes in [2048u32, 8192, 32768] {
        for (total, goal) in goals {
            let per = total / block_bytes as usize;
            let sets: Vec<Moves> = (0..6)
                .map(|_| Moves::from_host(&bench.device, &link.moves(block_bytes, 4 << 30, 1, per)))
                .collect::<Result<_, _>>()?;
            for grid in [16u32, 66, 132] {
                let width = Width::shared(grid);
                let pools = link.pools(block_bytes);
                let time = bench.stream.time_in_graph(sets.len(), 5, |at| {
                    link.swap.swap_in(&bench.stream, pools, &sets[at], width)
                })?;
                let shape = format!("{per} x {block_bytes} B, 4 GiB, grid {grid}");
                bench.bandwidth(
                    "swap-in",
                    shape,
                    total as u64,
                    time,
                    ("large copy", bench.ceilings.to_device),
                    goal,
                );
            }
            let width = Width::shared(66);
            let pools = link.pools(block_bytes);
            let time = bench.stream.time_in_graph(sets.len(), 5, |at| {
                link.swap.write_back(&bench.stream, pools, &sets[at], width)
            })?;
            let shape = format!("{per} x {block_bytes} B, 4 GiB, grid 66");
            bench.bandwidth(
                "write-back",
                shape,
                total as u64,
                time,
                ("large copy", bench.ceilings.to_host),
                None,
            );
        }
    }
    Ok(())
}

/// Misses of many requests, as moves in the order in which they were drawn and as fills to be put in address order.
struct Misses {
    moves: Moves,
    fills: DeviceBuffer<[u32; 4]>,
    count: DeviceBuffer<u32>,
    home_base: DeviceBuffer<u32>,
    frame_base: DeviceBuffer<u32>,
    context: u32,
}

/// Requests and misses of each, in [`small_rows`].
const REQUESTS: usize = 64;
const PER_REQUEST: usize = 2048;

/// Distinct misses of every request, from 128 Ki rows of its slice of the region, as one of 128k tokens draws.
fn draw_misses(bench: &Bench, link: &mut Link, block_bytes: u32) -> Result<Misses, HwError> {
    let (requests, per) = (count32(REQUESTS), count32(PER_REQUEST));
    let slice = count32(bench.pinned_bytes / block_bytes as usize / REQUESTS);
    let context = slice.min(131_072);
    let (mut moves, mut fills) = (Vec::new(), Vec::new());
    for request in 0..requests {
        let mut all: Vec<u32> = (0..context).collect();
        let (chosen, _) = all.partial_shuffle(&mut link.rng, PER_REQUEST);
        for (at, &mut block) in (0u32..).zip(chosen) {
            fills.push([block, at, u32::MAX, 0]);
            moves.push(Move { home: request * slice + block, frame: request * per + at });
        }
    }
    let device = &bench.device;
    let bases = |by: u32| DeviceBuffer::from_host(device, &(0..requests).map(|r| r * by).collect::<Vec<_>>());
    Ok(Misses {
        moves: Moves::from_host(device, &moves)?,
        fills: DeviceBuffer::from_host(device, &fills)?,
        count: DeviceBuffer::from_host(device, &vec![per; REQUESTS])?,
        home_base: bases(slice)?,
        frame_base: bases(per)?,
        context,
    })
}

/// Small rows of 64 requests x 2048 misses over the whole region: as they come, and with the sort in the timing.
fn small_rows(bench: &mut Bench, link: &mut Link) -> Result<(), HwError> {
    let (requests, per) = (REQUESTS, PER_REQUEST);
    for block_bytes in [656u32, 1152] {
        let drawn = draw_misses(bench, link, block_bytes)?;
        let sorted = Moves {
            list: DeviceBuffer::filled(&bench.device, requests * per, 0xff)?,
            count: DeviceBuffer::filled(&bench.device, 1, 0)?,
        };
        let zero = DeviceBuffer::<u32>::filled(&bench.device, 1, 0)?;
        let list = Fills {
            fills: &drawn.fills,
            count: &drawn.count,
            stride: count32(per),
            home_base: &drawn.home_base,
            frame_base: &drawn.frame_base,
            streams: count32(requests),
            blocks: drawn.context,
        };
        let pools = link.pools(block_bytes);
        let bytes = (requests * per) as u64 * u64::from(block_bytes);
        let against = ("large copy", bench.ceilings.to_device);
        for grid in [16u32, 33, 66, 132] {
            let width = Width::shared(grid);
            let shape = format!(
                "{requests} x {per} x {block_bytes} B, {} GiB, grid {grid}",
                bench.pinned_bytes >> 30
            );
            let time = bench
                .stream
                .time_in_graph(2, 5, |_| link.swap.swap_in(&bench.stream, pools, &drawn.moves, width))?;
            bench.bandwidth("swap-in", shape.clone(), bytes, time, against, None);
            let time = bench.stream.time_in_graph(2, 5, |_| {
                // SAFETY: both counters live until the measurement is over.
                unsafe { crate::copy_async(&bench.stream, sorted.count.address(), zero.address(), 4) }?;
                link.swap.order(&bench.stream, &list, &sorted)?;
                link.swap.swap_in(&bench.stream, pools, &sorted, width)
            })?;
            bench.bandwidth(
                "sort and swap-in",
                shape,
                bytes,
                time,
                against,
                (block_bytes == 656).then_some(0.75),
            );
        }
        let time = bench.stream.time_in_graph(4, 5, |_| {
            // SAFETY: as above.
            unsafe { crate::copy_async(&bench.stream, sorted.count.address(), zero.address(), 4) }?;
            link.swap.order(&bench.stream, &list, &sorted)
        })?;
        let shape = format!("{requests} x {per} of {}", drawn.context);
        bench.duration("sort", shape, time, ("one graph node", bench.ceilings.graph_node), None);
    }
    Ok(())
}

/// Batch 1, 2048 misses of small rows: the flat grid against one thread block per request.
fn against_one_block_per_request(bench: &mut Bench, link: &mut Link) -> Result<(), HwError> {
    for (block_bytes, batch, per) in
        [(656u32, 1usize, 2048usize), (1152, 1, 2048), (656, 1, 256), (656, 8, 2048), (8192, 1, 64)]
    {
        let region = batch * (84 << 20);
        let sets: Vec<Moves> = (0..8)
            .map(|_| Moves::from_host(&bench.device, &link.moves(block_bytes, region, batch, per)))
            .collect::<Result<_, _>>()?;
        let first: Vec<u32> = (0..=batch).map(|request| count32(request * per)).collect();
        let first = DeviceBuffer::from_host(&bench.device, &first)?;
        let pools = link.pools(block_bytes);
        let yardstick = bench.stream.time_in_graph(sets.len(), 5, |at| {
            link.swap.swap_in_per_request(&bench.stream, pools, &sets[at], &first)
        })?;
        for grid in [33u32, 132, 264] {
            let width = Width::shared(grid);
            let time = bench.stream.time_in_graph(sets.len(), 5, |at| {
                link.swap.swap_in(&bench.stream, pools, &sets[at], width)
            })?;
            let goal = (batch == 1 && per == 2048).then_some(5.0);
            let shape = format!("batch {batch}, {per} x {block_bytes} B, grid {grid}");
            bench.duration("swap-in", shape, time, ("one block per request", yardstick.micros()), goal);
        }
    }
    Ok(())
}

/// Attention with a swap-in of about the same length beside it, against the longer of the two alone.
fn beside_attention(bench: &mut Bench, link: &mut Link) -> Result<(), HwError> {
    let beside = Beside::new(&bench.device, &bench.stream, &bench.dense)?;
    let moves = Moves::from_host(&bench.device, &link.moves(8192, 4 << 30, 1, 1100))?;
    let pools = link.pools(8192);
    for grid in [4u32, 8, 12, 16] {
        let overlap = beside.measure(&bench.stream, &link.swap, pools, &moves, Width::alone(grid))?;
        let (attention, swap_in) = (overlap.attention.micros(), overlap.swap_in.micros());
        let shape = format!("attend {attention:.1} us with swap-in {swap_in:.1} us on {grid} SMs");
        let longer = ("longer of the two", attention.max(swap_in));
        bench.duration("overlap", shape, overlap.together, longer, Some(1.0 / 1.10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvtier_units::Nanos;

    #[test]
    fn each_row_has_its_own_round_in_the_middle() {
        let row = |kernel: &str, ratio: f64, ns: u64| Row {
            kernel: kernel.into(),
            shape: String::new(),
            achieved: ratio,
            unit: "GB/s",
            against: "large copy",
            reference: 1.0,
            ratio,
            goal: None,
            time: Spread::of(vec![Nanos(ns)]),
        };
        let rounds =
            [("a", 0.9, 10), ("b", 0.3, 31), ("a", 0.5, 20), ("b", 0.8, 30), ("a", 0.8, 12), ("b", 0.7, 33)];
        let rows = in_the_middle(&rounds.map(|(kernel, ratio, ns)| row(kernel, ratio, ns)), 3);
        let found: Vec<_> = rows.iter().map(|row| (row.kernel.as_str(), row.ratio, row.time)).collect();
        let time = |median: u64, min: u64, max: u64| Spread {
            median_ps: median * 1000,
            min_ps: min * 1000,
            max_ps: max * 1000,
            repeats: 3,
        };
        assert_eq!(found, [("a", 0.8, time(12, 10, 20)), ("b", 0.7, time(33, 30, 33))]);
    }
}
