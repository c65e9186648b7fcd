//! Attention by batch size: from its times comes what an attention kernel takes beyond its bytes.

use super::AttentionRow;
use crate::ops::attend::{AttendGqa, Attended, Call, Gqa, HEAD_DIM, Reading, Split};
use crate::ops::count32;
use crate::ops::dense::{BF16_NOISE, Dense};
use crate::{Device, DeviceBuffer, HwError, Stream};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;

const GQA: Gqa = Gqa { page: 64, group: 4 };
const KV_HEADS: usize = 8;
const TOKENS: u32 = 2048;
const POOL_BYTES: usize = 2 << 30;

/// Times attention over scattered pages; successive calls read different ones.
pub(super) fn measure(device: &Device, stream: &Stream, dense: &Dense) -> Result<Vec<AttentionRow>, HwError> {
    let kernels = AttendGqa::load(device)?;
    let pool = DeviceBuffer::<u8>::new(device, POOL_BYTES)?;
    dense.fill_noise(stream, pool.address(), POOL_BYTES as u64, 7, BF16_NOISE)?;
    let mut frames: Vec<u32> = (0..count32(POOL_BYTES / GQA.frame_bytes())).collect();
    frames.shuffle(&mut Pcg64Mcg::seed_from_u64(9));
    let per_stream = TOKENS.div_ceil(GQA.page) as usize;
    let mut rows = Vec::new();
    for batch in [1usize, 8, 64] {
        let (streams, heads) = (batch * KV_HEADS, GQA.group as usize);
        let queries = DeviceBuffer::<u16>::new(device, streams * heads * HEAD_DIM)?;
        dense.fill_noise(stream, queries.address(), queries.len() as u64 * 2, 8, BF16_NOISE)?;
        let sets = (frames.len() / (streams * per_stream)).min(24);
        let readings: Vec<Reading> = frames
            .chunks_exact(streams * per_stream)
            .take(sets)
            .map(|set| {
                let lists: Vec<(&[u32], u32)> =
                    set.chunks_exact(per_stream).map(|list| (list, TOKENS)).collect();
                Reading::from_host(device, GQA.page, &lists)
            })
            .collect::<Result<_, _>>()?;
        let scratch = kernels.scratch(streams)?;
        let result = Attended::new(device, streams, heads, HEAD_DIM)?;
        let time = stream.time_in_graph(sets, 20, |at| {
            let call = Call {
                queries: &queries,
                pool: pool.address(),
                reading: &readings[at],
                scratch: &scratch,
                result: &result,
            };
            kernels.attend(stream, GQA, &call, Split::default())
        })?;
        let bytes = (streams * TOKENS as usize * HEAD_DIM * 4) as u64;
        rows.push(AttentionRow { batch: count32(batch), bytes, time });
    }
    Ok(rows)
}
