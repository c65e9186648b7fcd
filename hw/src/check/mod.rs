//! Checks of every kernel against references in double precision, on fresh random inputs and poisoned outputs.

mod attend;
mod dense;
mod index;
mod latent;
mod lookup;
mod reference;
mod select;
mod swap;

use crate::{Device, HwError, Stream};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

/// One comparison of a kernel with its reference.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Kernel and case.
    pub case: String,
    /// Relative error, or the number of mismatches.
    pub error: f64,
    /// The error allowed.
    pub allowed: f64,
}

impl Finding {
    /// Whether the error is within what is allowed; a NaN never is.
    pub fn passes(&self) -> bool {
        self.error <= self.allowed
    }
}

/// What a check works with.
struct Bench {
    device: Device,
    stream: Stream,
    rng: Pcg64Mcg,
    findings: Vec<Finding>,
}

impl Bench {
    fn note(&mut self, case: String, error: f64, allowed: f64) {
        self.findings.push(Finding { case, error, allowed });
    }
}

/// Runs every check with inputs drawn from `seed`.
///
/// # Errors
/// If the device fails. Wrong results are findings.
pub fn run(device: &Device, seed: u64) -> Result<Vec<Finding>, HwError> {
    let stream = Stream::new(device)?;
    let mut bench =
        Bench { device: device.clone(), stream, rng: Pcg64Mcg::seed_from_u64(seed), findings: Vec::new() };
    swap::run(&mut bench)?;
    dense::run(&mut bench)?;
    attend::run(&mut bench)?;
    latent::run(&mut bench)?;
    select::run(&mut bench)?;
    index::run(&mut bench)?;
    lookup::run(&mut bench)?;
    Ok(bench.findings)
}
