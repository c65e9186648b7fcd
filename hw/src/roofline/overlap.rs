//! Attention beside a swap-in that has multiprocessors of its own: what each costs the other. Apart, because roofline
//! and probe both measure it.

use crate::ops::attend::{AttendGqa, Attended, Call, Gqa, HEAD_DIM, Reading, Scratch, Split};
use crate::ops::count32;
use crate::ops::dense::{BF16_NOISE, Dense};
use crate::ops::swap::{Moves, Pools, Swap, Width};
use crate::{Device, DeviceBuffer, Event, HwError, Spread, Stream};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// Times of one pair.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Overlap {
    /// Multiprocessors given to the swap-in.
    pub swap_in_sms: u32,
    /// Attention alone on all multiprocessors.
    pub attention: Spread,
    /// Swap-in alone.
    pub swap_in: Spread,
    /// Both, begun together, until both are done.
    pub together: Spread,
}

/// An attention of 64 requests (8 KV heads, 2048 tokens in pages of 16), ready to run.
pub(crate) struct Beside {
    device: Device,
    kernels: AttendGqa,
    pool: DeviceBuffer<u8>,
    queries: DeviceBuffer<u16>,
    reading: Reading,
    scratch: Scratch,
    result: Attended,
    side: Stream,
}

const GQA: Gqa = Gqa { page: 16, group: 4 };
const CALLS: usize = 4;

impl Beside {
    pub(crate) fn new(device: &Device, stream: &Stream, dense: &Dense) -> Result<Beside, HwError> {
        let kernels = AttendGqa::load(device)?;
        let (streams, tokens) = (512usize, 2048u32);
        let bytes = streams * tokens as usize * HEAD_DIM * 4;
        let pool = DeviceBuffer::<u8>::new(device, bytes)?;
        let queries = DeviceBuffer::<u16>::new(device, streams * 4 * HEAD_DIM)?;
        dense.fill_noise(stream, pool.address(), bytes as u64, 7, BF16_NOISE)?;
        dense.fill_noise(stream, queries.address(), (queries.len() * 2) as u64, 8, BF16_NOISE)?;
        let mut frames: Vec<u32> = (0..count32(bytes / GQA.frame_bytes())).collect();
        frames.shuffle(&mut Pcg64Mcg::seed_from_u64(13));
        let lists: Vec<(&[u32], u32)> = frames.chunks_exact(128).map(|list| (list, tokens)).collect();
        Ok(Beside {
            reading: Reading::from_host(device, GQA.page, &lists)?,
            scratch: kernels.scratch(streams)?,
            result: Attended::new(device, streams, 4, HEAD_DIM)?,
            side: Stream::new(device)?,
            device: device.clone(),
            kernels,
            pool,
            queries,
        })
    }

    /// Measures each alone and both together.
    pub(crate) fn measure(
        &self,
        stream: &Stream,
        swap: &Swap,
        pools: Pools,
        moves: &Moves,
        width: Width,
    ) -> Result<Overlap, HwError> {
        let call = Call {
            queries: &self.queries,
            pool: self.pool.address(),
            reading: &self.reading,
            scratch: &self.scratch,
            result: &self.result,
        };
        let attend = |spare| self.kernels.attend(stream, GQA, &call, Split { least: 8, spare });
        let attention = stream.time_in_graph(CALLS, 10, |_| attend(0))?;
        let swap_in = stream.time_in_graph(CALLS, 10, |_| swap.swap_in(stream, pools, moves, width))?;
        let (begin, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        let together = stream.time_in_graph(CALLS, 10, |_| {
            self.side.wait_for(stream, &begin)?;
            swap.swap_in(&self.side, pools, moves, width)?;
            attend(width.grid)?;
            stream.wait_for(&self.side, &end)
        })?;
        Ok(Overlap { swap_in_sms: width.grid, attention, swap_in, together })
    }
}
