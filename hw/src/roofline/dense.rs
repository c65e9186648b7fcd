//! The rest of a layer: the product that reads its weights beside the stand-in that streams them.

use super::Bench;
use crate::ops::dense::{BF16_NOISE, Gemm, Product};
use crate::{DeviceBuffer, HwError};

/// Weights of a layer of Llama-3.1-8B, whose rows have 4096 elements.
const WEIGHTS: u64 = 436_224_000;
const FROM: u32 = 4096;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let device = &bench.device;
    let weights = DeviceBuffer::<u8>::new(device, usize::try_from(WEIGHTS).expect("a 64-bit machine"))?;
    bench.dense.fill_noise(&bench.stream, weights.address(), WEIGHTS, 3, BF16_NOISE)?;
    let grid = device.info().sms * 4;
    let streamed = bench.stream.time_in_graph(8, 10, |_| {
        bench.dense.stream_weights(&bench.stream, weights.address(), WEIGHTS, grid)
    })?;
    let read = ("HBM read", bench.ceilings.read);
    bench.bandwidth("rest of a layer", "streamed, 436 MB".into(), WEIGHTS, streamed, read, None);
    let Some(gemm) = Gemm::load(&bench.device)? else { return Ok(()) };
    for batch in [1u32, 8, 64] {
        let product = Product::of_bytes(batch, FROM, WEIGHTS);
        let device = &bench.device;
        let inputs = DeviceBuffer::<u16>::new(device, (batch * FROM) as usize)?;
        bench.dense.fill_noise(&bench.stream, inputs.address(), inputs.len() as u64 * 2, 4, BF16_NOISE)?;
        let outputs = DeviceBuffer::<u16>::new(device, batch as usize * product.to as usize)?;
        let addresses = (inputs.address(), weights.address(), outputs.address());
        // The library allocates in its first call, which a graph cannot record.
        gemm.multiply(&bench.stream, product, addresses)?;
        let time = bench.stream.time_in_graph(8, 10, |_| gemm.multiply(&bench.stream, product, addresses))?;
        let shape = format!("product of cuBLAS, batch {batch}, {FROM} to {}", product.to);
        let beside = ("streamed", streamed.micros());
        bench.duration("rest of a layer", shape, time, beside, None);
    }
    Ok(())
}
