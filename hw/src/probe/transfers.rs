//! Transfers over the host link: by copy engine and by gather kernel, over sizes, counts, regions and orders.

use super::TransferRow;
use crate::ops::count32;
use crate::ops::dense::Dense;
use crate::ops::swap::{Move, Moves, Pools, Swap, Width};
use crate::roofline::{Beside, Ceilings, Overlap, ceilings};
use crate::{
    Device, DeviceBuffer, Event, Figure, HwError, PinnedBuffer, Spread, Stream, copy_async, copy_batch_async,
};
use kvtier_units::Nanos;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::time::Instant;

/// Frames into which gathers write.
const FRAMES_BYTES: usize = 1 << 30;
/// One gather moves no more than this.
const MOST_BYTES: u64 = 512 << 20;
/// Thread blocks of a gather: beyond sixteen nothing is gained.
const GRID: u32 = 66;
/// Host memory of one request, where several share a transfer.
const SLICE_BYTES: usize = 84 << 20;

pub(super) struct Bench {
    device: Device,
    stream: Stream,
    home: PinnedBuffer<u8>,
    frames: DeviceBuffer<u8>,
    swap: Swap,
    rng: Pcg64Mcg,
    pub(super) pinning: Figure,
    rows: Vec<TransferRow>,
}

/// One round of all transfers, and of the ceilings.
pub(super) struct Round {
    pub(super) ceilings: Ceilings,
    /// To the device and to the host at once, GB/s.
    pub(super) duplex: (Figure, Figure),
    pub(super) copy_call: Figure,
    pub(super) batch_call: Figure,
    rows: Vec<TransferRow>,
}

/// Of each row the round in the middle.
pub(super) fn in_the_middle(rounds: &[Round]) -> Vec<TransferRow> {
    assert!(rounds.iter().all(|round| round.rows.len() == rounds[0].rows.len()), "rounds have the same rows");
    let row = |(at, row): (usize, &TransferRow)| {
        let time = Spread::middle(rounds.iter().map(|round| round.rows[at].time));
        TransferRow { time, ..row.clone() }
    };
    rounds[0].rows.iter().enumerate().map(row).collect()
}

impl Bench {
    pub(super) fn new(device: &Device, stream: Stream, pinned_bytes: usize) -> Result<Bench, HwError> {
        // The first two serve to repeat the measurement alone; the last is the home pool.
        let mut samples = Vec::new();
        for _ in 0..2 {
            let began = Instant::now();
            let part = PinnedBuffer::<u8>::new(device, pinned_bytes / 16)?;
            samples.push(Nanos(elapsed(began).0.saturating_mul(16)));
            drop(part);
        }
        let began = Instant::now();
        let home = PinnedBuffer::new(device, pinned_bytes)?;
        samples.push(elapsed(began));
        let pinning = Figure::bandwidth(&Spread::of(samples), pinned_bytes as u64);
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
        self.rows.push(TransferRow {
            table: table.into(),
            mechanism: mechanism.into(),
            order: order.into(),
            blocks,
            block_bytes,
            region_bytes,
            requests: 1,
            worst_request: blocks,
            queued: false,
            time,
        });
    }

    /// Everything but attention beside gathers, once.
    pub(super) fn round(&mut self, dense: &Dense) -> Result<Round, HwError> {
        let ceilings = ceilings(&self.device, &self.stream, dense)?;
        let duplex = self.duplex()?;
        let (copy_call, batch_call) = (self.copy_call()?, self.batch_call()?);
        self.copies()?;
        self.gathers()?;
        self.requests()?;
        Ok(Round { ceilings, duplex, copy_call, batch_call, rows: std::mem::take(&mut self.rows) })
    }

    /// Both directions at once: GB/s to the device and to the host.
    fn duplex(&mut self) -> Result<(Figure, Figure), HwError> {
        let (bytes, rounds) = (256usize << 20, 4);
        let other = Stream::new(&self.device)?;
        let (up, down) = (self.home.address(), self.home.address() + bytes as u64);
        let frames = self.frames.address();
        let marks: Vec<Event> = (0..5).map(|_| Event::new(&self.device)).collect::<Result<_, _>>()?;
        let (mut to_device, mut to_host) = (Vec::new(), Vec::new());
        for _ in 0..3 {
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
            to_device.push(marks[0].until(&marks[2])?);
            to_host.push(marks[1].until(&marks[3])?);
        }
        let moved = (bytes * rounds) as u64;
        let rate = |samples| Figure::bandwidth(&Spread::of(samples), moved);
        Ok((rate(to_device), rate(to_host)))
    }

    /// Host time of one copy submission, ns.
    fn copy_call(&mut self) -> Result<Figure, HwError> {
        let calls = 1000u32;
        let mut samples = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            for at in 0..u64::from(calls) {
                let (to, from) = (self.frames.address() + at * 4096, self.home.address() + at * 4096);
                // SAFETY: within both buffers, which live until the synchronisation.
                unsafe { copy_async(&self.stream, to, from, 4096) }?;
            }
            samples.push(elapsed(began));
            self.stream.synchronize()?;
        }
        Ok(Figure::of_calls(samples, u64::from(calls)))
    }

    /// Host time per block of a batch whose blocks the driver does not stage, ns.
    fn batch_call(&mut self) -> Result<Figure, HwError> {
        let (blocks, bytes) = (1024u64, 64usize << 10);
        let place = |base: u64| (0..blocks).map(|at| base + at * bytes as u64).collect::<Vec<u64>>();
        let (to, from) = (place(self.frames.address()), place(self.home.address()));
        let mut samples = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            // SAFETY: within both buffers, which live until the synchronisation.
            unsafe { copy_batch_async(&self.stream, None, &to, &from, bytes) }?;
            samples.push(elapsed(began));
            self.stream.synchronize()?;
        }
        Ok(Figure::of_calls(samples, blocks))
    }

    /// Attention beside gathers of 8 KiB blocks on a few multiprocessors of their own.
    pub(super) fn overlap(&mut self, beside: &Beside) -> Result<Vec<Overlap>, HwError> {
        let drawn = self.draw(8192, self.home.len().min(4 << 30), 1100, false);
        let moves = Moves::from_host(&self.device, &drawn)?;
        let pools = Pools { home: self.home.address(), frames: self.frames.address(), block_bytes: 8192 };
        [4u32, 8, 16]
            .into_iter()
            .map(|grid| beside.measure(&self.stream, &self.swap, pools, &moves, Width::alone(grid)))
            .collect()
    }

    /// Single copies by size in both directions, loops and batches of copies.
    fn copies(&mut self) -> Result<(), HwError> {
        for shift in [7u32, 12, 14, 16, 18, 20, 22, 24, 26, 28] {
            let bytes = 1usize << shift;
            let (home, frames) = (self.home.address(), self.frames.address());
            // SAFETY: as above.
            let up = self.stream.time(20, || unsafe { copy_async(&self.stream, frames, home, bytes) })?;
            // SAFETY: as above.
            let down = self.stream.time(20, || unsafe { copy_async(&self.stream, home, frames, bytes) })?;
            let table = if shift < 28 { "small-copy" } else { "large-copy" };
            self.note(table, "copy", "random", [1, bytes as u64, bytes as u64], up);
            self.note(super::TO_HOST, "copy", "random", [1, bytes as u64, bytes as u64], down);
        }
        for block_bytes in [656u32, 4096, 8192, 16 << 10, 32 << 10, 64 << 10, 256 << 10] {
            self.loops_and_batches(block_bytes)?;
        }
        Ok(())
    }

    /// Blocks one copy each, and all in a batch: on an idle stream, where the driver has the CPU copy blocks of up to
    /// 16 KiB, and behind an event, as replays do it.
    fn loops_and_batches(&mut self, block_bytes: u32) -> Result<(), HwError> {
        let region = self.home.len().min(4 << 30);
        let (bytes, before) = (block_bytes as usize, Event::new(&self.device)?);
        for blocks in [32usize, 128, 512] {
            let moves = self.draw(block_bytes, region, blocks, false);
            let address = |base: u64, block: u32| base + u64::from(block) * u64::from(block_bytes);
            let from: Vec<u64> = moves.iter().map(|moved| address(self.home.address(), moved.home)).collect();
            let to: Vec<u64> =
                moves.iter().map(|moved| address(self.frames.address(), moved.frame)).collect();
            let time = self.stream.time(5, || {
                from.iter().zip(&to).try_for_each(|(&from, &to)| {
                    // SAFETY: blocks and frames lie within the buffers.
                    unsafe { copy_async(&self.stream, to, from, bytes) }
                })
            })?;
            let sizes = [blocks as u64, u64::from(block_bytes), region as u64];
            self.note("copy-loop", "copy-loop", "random", sizes, time);
            let time = self.stream.time(5, || {
                self.stream.synchronize()?;
                // SAFETY: as above.
                unsafe { copy_batch_async(&self.stream, None, &to, &from, bytes) }
            })?;
            self.note("copy-batch", "copy-batch", "random", sizes, time);
            let time = self.stream.time(5, || {
                self.stream.synchronize()?;
                // SAFETY: as above.
                unsafe { copy_batch_async(&self.stream, Some(&before), &to, &from, bytes) }
            })?;
            self.note("copy-batch-queued", "copy-batch", "random", sizes, time);
            self.rows.last_mut().expect("just noted").queued = true;
        }
        Ok(())
    }

    /// Gathers over block size x count x region x order.
    fn gathers(&mut self) -> Result<(), HwError> {
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

    /// Misses of several requests, each from a slice of its own: one flat grid, and one thread block per request.
    fn requests(&mut self) -> Result<(), HwError> {
        for block_bytes in [656u32, 1152, 4096, 32 << 10] {
            for (requests, per) in
                [1usize, 8, 64].into_iter().flat_map(|b| [32usize, 256, 2048].map(|m| (b, m)))
            {
                let (blocks, region) = (requests * per, requests * SLICE_BYTES);
                if blocks as u64 * u64::from(block_bytes) > MOST_BYTES || region > self.home.len() {
                    continue;
                }
                self.request_rows(block_bytes, requests, per)?;
            }
        }
        Ok(())
    }

    fn request_rows(&mut self, block_bytes: u32, requests: usize, per: usize) -> Result<(), HwError> {
        let slice = count32(SLICE_BYTES / block_bytes as usize);
        let device = self.device.clone();
        let mut sets = Vec::new();
        for _ in 0..3 {
            let mut moves = Vec::with_capacity(requests * per);
            for request in 0..count32(requests) {
                let own = self.draw(block_bytes, SLICE_BYTES, per, false);
                moves.extend(
                    own.iter().map(|one| Move { home: request * slice + one.home, frame: one.frame }),
                );
            }
            sets.push(Moves::from_host(&device, &moves)?);
        }
        let first: Vec<u32> = (0..=requests).map(|request| count32(request * per)).collect();
        let first = DeviceBuffer::from_host(&device, &first)?;
        let pools = Pools { home: self.home.address(), frames: self.frames.address(), block_bytes };
        let flat = self.stream.time_in_graph(sets.len(), 5, |at| {
            self.swap.swap_in(&self.stream, pools, &sets[at], Width::shared(GRID))
        })?;
        let own = self.stream.time_in_graph(sets.len(), 5, |at| {
            self.swap.swap_in_per_request(&self.stream, pools, &sets[at], &first)
        })?;
        for (mechanism, time) in [("gather", flat), ("gather-per-request", own)] {
            self.rows.push(TransferRow {
                table: "shape".into(),
                mechanism: mechanism.into(),
                order: "random".into(),
                blocks: (requests * per) as u64,
                block_bytes: u64::from(block_bytes),
                region_bytes: (requests * SLICE_BYTES) as u64,
                requests: count32(requests),
                worst_request: per as u64,
                queued: false,
                time,
            });
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

fn elapsed(since: Instant) -> Nanos {
    Nanos(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
