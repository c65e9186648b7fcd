//! The reference's `sparse_decode` trace, made here so that neither Python nor a download is needed.

use rand::Rng;
use rand_pcg::Pcg64;

/// Accesses of one trace: dense block ids below `blocks`.
pub(crate) struct Trace {
    pub(crate) accesses: Vec<u32>,
    pub(crate) blocks: u32,
}

/// Streams of `sparse_decode`, and the blocks of each.
pub(crate) const STREAMS: u32 = 32;
pub(crate) const STREAM_BLOCKS: u32 = 2_048;
/// Blocks per step, ascending, of which `KEPT` were in the stream's step before.
pub(crate) const SELECTED: usize = 64;
const KEPT: usize = 51;

/// Uniform numbers as numpy's `Generator(PCG64(3)).random` draws them.
struct Uniform(Pcg64);

impl Uniform {
    fn new() -> Uniform {
        // numpy.random.SeedSequence(3).generate_state(4, uint64)
        let state = 0xad06_8d6f_5dfd_711b_b2a3_6eea_2433_f5f9;
        let stream = 0xd382_1e0b_013b_b9ad_176c_45c5_e335_5f0f;
        Uniform(Pcg64::new(state, stream))
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // the truncation of 53-bit fractions is what the reference trace was made with
    fn below(&mut self, n: usize) -> usize {
        let fraction = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (fraction * n as f64) as usize
    }
}

/// 32 interleaved streams, 64 distinct blocks a step, 51 of them kept from step to step: `accesses` in all.
pub(crate) fn sparse_decode(accesses: usize) -> Trace {
    let (blocks, streams) = (STREAM_BLOCKS as usize, STREAMS as usize);
    let mut random = Uniform::new();
    let mut orders: Vec<Vec<u32>> = (0..streams)
        .map(|_| {
            let mut order: Vec<u32> = (0..STREAM_BLOCKS).collect();
            for at in 0..SELECTED {
                let other = at + random.below(blocks - at);
                order.swap(at, other);
            }
            order
        })
        .collect();
    let mut out = Vec::with_capacity(accesses);
    for step in 0..accesses / SELECTED {
        let order = &mut orders[step % streams];
        if step >= streams {
            renew(order, &mut random);
        }
        let mut selected: Vec<u32> = order[..SELECTED].to_vec();
        selected.sort_unstable();
        let base = u32::try_from(step % streams).unwrap() * STREAM_BLOCKS;
        out.extend(selected.iter().map(|block| base + block));
    }
    Trace { accesses: out, blocks: STREAMS * STREAM_BLOCKS }
}

/// Replaces random members of the selection by random others.
fn renew(order: &mut [u32], random: &mut Uniform) {
    for at in (KEPT..SELECTED).rev() {
        let other = random.below(at + 1);
        order.swap(at, other);
    }
    for nth in 0..SELECTED - KEPT {
        let other = SELECTED + nth + random.below(order.len() - SELECTED - nth);
        order.swap(SELECTED + nth, other);
        order.swap(KEPT + nth, SELECTED + nth);
    }
}
