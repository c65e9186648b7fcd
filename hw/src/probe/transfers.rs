//! Transfers over the host link: by copy engine and by gather kernel, over sizes, counts, regions and orders.

use super::TransferRow;
use crate::ops::count32;
use crate::ops::swap::{Move, Moves, Pools, Swap, Width};
use crate::{
    Device, DeviceBuffer, Event, HwError, PinnedBuffer, Spread, Stream, copy_async, copy_batch_async,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::time::Instant;

/// Frames into which gathers write.
const FRAMES_BYTES: usize = 1 << 30;
/// One gather moves no more than this.
const MOST_BYTES: u64 = 512 << 20;
/// Thread blocks of a gather: beyond sixteen nothing is gained.
const GRID: u32 = 66;

pub(super) struct Bench {
    device: Device,
    stream: Stream,
    home: PinnedBuffer<u8>,
    frames: DeviceBuffer<u8>,
    swap: Swap,
    rng: Pcg64Mcg,
    pub(super) pinning: f64,
    pub(super) rows: Vec<TransferRow>,
}

impl Bench {
    pub(super) fn new(device: &Device, stream: Stream, pinned_bytes: usize) -> Result<Bench, HwError> {
        let began = Instant::now();
        let home = PinnedBuffer::new(device, pinned_bytes)?;
        let pinning = pinned_bytes as f64 / began.elapsed().as_secs_f64() / 1e9;
        Ok(Bench {
            device: device.clone(),
            stream,
            home,
            frames: DeviceBuffer::new(device, FRAMES_BYTES)?,
            swap: Swap::load(device)?,
            rng: Pcg64Mcg::seed_from_u64(17),
            pinning,
            rows: Vec::new(),
        })
    }

    fn note(
        &mut self,
        table: &'static str,
        mechanism: &'static str,
        order: &'static str,
        sizes: [u64; 3],
        time: Spread,
    ) {
        let [blocks, block_bytes, region_bytes] = sizes;
        self.rows.push(TransferRow { table, mechanism, order, blocks, block_bytes, region_bytes, time });
    }

    /// Both directions at once: GB/s to the device and to the host.
    pub(super) fn duplex(&mut self) -> Result<(f64, f64), HwError> {
        let (bytes, rounds) = (256usize << 20, 8);
        let other = Stream::new(&self.device)?;
        let (up, down) = (self.home.address(), self.home.address() + bytes as u64);
        let frames = self.frames.address();
        let marks: Vec<Event> = (0..5).map(|_| Event::new(&self.device)).collect::<Result<_, _>>()?;
        other.wait_for(&self.stream, &marks[4])?;
        marks[0].record(&self.stream)?;
        marks[1].record(&other)?;
        for _ in 0..rounds {
            // SAFETY: all four ranges are within the two buffers and apart; they live until the synchronisation.
            unsafe {
                copy_async(&self.stream, frames, up, bytes)?;
                copy_async(&other, down, frames + bytes as u64, bytes)?;
            }
        }
        marks[2].record(&self.stream)?;
        marks[3].record(&other)?;
        self.stream.synchronize()?;
        other.synchronize()?;
        let rate = |from: &Event, to: &Event| -> Result<f64, HwError> {
            Ok((bytes * rounds) as f64 / from.until(to)?.0.max(1) as f64)
        };
        Ok((rate(&marks[0], &marks[2])?, rate(&marks[1], &marks[3])?))
    }

    /// Host time of one copy submission, ns.
    pub(super) fn copy_call(&mut self) -> Result<u64, HwError> {
        let calls = 2000u32;
        let began = Instant::now();
        for at in 0..u64::from(calls) {
            // SAFETY: within both buffers, which live until the synchronisation.
            unsafe {
                copy_async(
                    &self.stream,
                    self.frames.address() + at * 4096,
                    self.home.address() + at * 4096,
                    4096,
                )
            }?;
        }
        let taken = began.elapsed().as_nanos();
        self.stream.synchronize()?;
        Ok(u64::try_from(taken).unwrap_or(u64::MAX) / u64::from(calls))
    }

    /// Single copies by size in both directions, loops and batches of copies.
    pub(super) fn copies(&mut self) -> Result<(), HwError> {
        for shift in [7u32, 12, 14, 16, 18, 20, 22, 24, 26, 28] {
            let bytes = 1usize << shift;
            let (home, frames) = (self.home.address(), self.frames.address());
            // SAFETY: as above.
            let up = self.stream.time(20, || unsafe { copy_async(&self.stream, frames, home, bytes) })?;
            // SAFETY: as above.
            let down = self.stream.time(20, || unsafe { copy_async(&self.stream, home, frames, bytes) })?;
            let table = if shift < 28 { "small-copy" } else { "large-copy" };
            self.note(table, "copy", "random", [1, bytes as u64, bytes as u64], up);
            self.note("copy-to-host", "copy", "random", [1, bytes as u64, bytes as u64], down);
        }
        for block_bytes in [4096u32, 16 << 10, 32 << 10, 64 << 10, 256 << 10] {
            let blocks = 1024usize;
            let region = self.home.len().min(4 << 30);
            let moves = self.draw(block_bytes, region, blocks, false);
            let address = |base: u64, block: u32| base + u64::from(block) * u64::from(block_bytes);
            let from: Vec<u64> = moves.iter().map(|moved| address(self.home.address(), moved.home)).collect();
            let to: Vec<u64> =
                moves.iter().map(|moved| address(self.frames.address(), moved.frame)).collect();
            let bytes = block_bytes as usize;
            let time = self.stream.time(5, || {
                from.iter().zip(&to).try_for_each(|(&from, &to)| {
                    // SAFETY: blocks and frames lie within the buffers.
                    unsafe { copy_async(&self.stream, to, from, bytes) }
                })
            })?;
            let sizes = [blocks as u64, u64::from(block_bytes), region as u64];
            self.note("copy-loop", "copy-loop", "random", sizes, time);
            // SAFETY: as above.
            let time =
                self.stream.time(5, || unsafe { copy_batch_async(&self.stream, &to, &from, bytes) })?;
            self.note("copy-batch", "copy-batch", "random", sizes, time);
        }
        Ok(())
    }

    /// Gathers over block size x count x region x order.
    pub(super) fn gathers(&mut self) -> Result<(), HwError> {
        for region in [64usize << 20, 1 << 30, 8 << 30, 32 << 30] {
            if region > self.home.len() {
                continue;
            }
            for block_bytes in [128u32, 512, 656, 1152, 2048, 8192, 32 << 10, 256 << 10, 1 << 20] {
                for blocks in [1usize, 16, 256, 2048, 16_384] {
                    let bytes = blocks as u64 * u64::from(block_bytes);
                    if bytes > MOST_BYTES || bytes > region as u64 {
                        continue;
                    }
                    for (order, sorted) in [("random", false), ("sorted", true)] {
                        self.gather(block_bytes, blocks, region, order, sorted)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn gather(
        &mut self,
        block_bytes: u32,
        blocks: usize,
        region: usize,
        order: &'static str,
        sorted: bool,
    ) -> Result<(), HwError> {
        // Three draws in turn, so that no transfer finds the translations of the one before.
        let device = self.device.clone();
        let sets: Vec<Moves> = (0..3)
            .map(|_| Moves::from_host(&device, &self.draw(block_bytes, region, blocks, sorted)))
            .collect::<Result<_, _>>()?;
        let pools = Pools { home: self.home.address(), frames: self.frames.address(), block_bytes };
        let time = self.stream.time_in_graph(sets.len(), 5, |at| {
            self.swap.swap_in(&self.stream, pools, &sets[at], Width::shared(GRID))
        })?;
        self.note("gather", "gather", order, [blocks as u64, u64::from(block_bytes), region as u64], time);
        Ok(())
    }

    fn draw(&mut self, block_bytes: u32, region: usize, blocks: usize, sorted: bool) -> Vec<Move> {
        let (homes, frames) =
            (count32(region / block_bytes as usize), count32(FRAMES_BYTES / block_bytes as usize));
        let mut moves: Vec<Move> = (0..blocks)
            .map(|_| Move { home: self.rng.random_range(0..homes), frame: self.rng.random_range(0..frames) })
            .collect();
        if sorted {
            moves.sort_by_key(|moved| moved.home);
        }
        moves
    }
}
