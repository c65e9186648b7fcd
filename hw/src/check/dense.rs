//! Matrix products of the vendor's library against double precision, where it is on this machine.

use super::Bench;
use super::attend::noise;
use super::reference::{dot, relative_error, widened};
use crate::ops::dense::{Gemm, Product};
use crate::{DeviceBuffer, HwError};

/// Outputs are rounded to bf16: half of 2^-8 of each, at most.
const ALLOWED: f64 = 3e-3;

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let Some(gemm) = Gemm::load(&bench.device)? else { return Ok(()) };
    for (batch, from, to) in [(1u32, 256u32, 1000u32), (7, 512, 333), (64, 1024, 96)] {
        let product = Product { batch, from, to };
        let (inputs, weights) = (noise(bench, (batch * from) as usize), noise(bench, (to * from) as usize));
        let device = &bench.device;
        let operands =
            (DeviceBuffer::from_host(device, &inputs)?, DeviceBuffer::from_host(device, &weights)?);
        let outputs = DeviceBuffer::<u16>::filled(device, (batch * to) as usize, 0xff)?;
        let addresses = (operands.0.address(), operands.1.address(), outputs.address());
        gemm.multiply(&bench.stream, product, addresses)?;
        bench.stream.synchronize()?;
        let rows: Vec<Vec<f64>> = weights.chunks(from as usize).map(widened).collect();
        let expected: Vec<f64> = inputs
            .chunks(from as usize)
            .flat_map(|input| {
                let input = widened(input);
                rows.iter().map(move |row| dot(&input, row)).collect::<Vec<_>>()
            })
            .collect();
        let error = relative_error(&widened(&outputs.read()?), &expected);
        bench.note(format!("product, batch {batch}, {from} to {to}"), error, ALLOWED);
    }
    Ok(())
}
