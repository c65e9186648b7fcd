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

/// How much is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent<'a> {
    /// One of [`GROUPS`] instead of all.
    pub only: Option<&'a str>,
    /// Fewer and shorter streams, fewer steps, enough for every path through the kernels: under tools that watch each
    /// access, kernels take hundreds of times as long.
    pub brief: bool,
}

/// Checks one group of kernels.
type Section = fn(&mut Bench) -> Result<(), HwError>;

const SECTIONS: [(&str, Section); 7] = [
    ("swap", swap::run),
    ("dense", dense::run),
    ("attend", attend::run),
    ("latent", latent::run),
    ("select", select::run),
    ("index", index::run),
    ("lookup", lookup::run),
];

/// The names of the groups.
pub const GROUPS: [&str; 7] = {
    let mut names = [""; 7];
    let mut at = 0;
    while at < names.len() {
        names[at] = SECTIONS[at].0;
        at += 1;
    }
    names
};

/// What a check works with.
struct Bench {
    device: Device,
    stream: Stream,
    rng: Pcg64Mcg,
    brief: bool,
    findings: Vec<Finding>,
}

impl Bench {
    fn note(&mut self, case: String, error: f64, allowed: f64) {
        self.findings.push(Finding { case, error, allowed });
    }

    /// Streams of so many tokens, or what stands for them in brief.
    fn streams(&self, tokens: &[u32]) -> Vec<u32> {
        // As many streams as choose the cuts for many, and tokens for several rounds of a ring.
        let (streams, most) = if self.brief { (200, 333) } else { (usize::MAX, u32::MAX) };
        tokens.iter().take(streams).map(|&tokens| tokens.min(most)).collect()
    }
}

/// Runs the checks with inputs drawn from `seed`.
///
/// # Errors
/// If the device fails. Wrong results are findings.
pub fn run(device: &Device, seed: u64, extent: Extent<'_>) -> Result<Vec<Finding>, HwError> {
    let mut bench = Bench {
        device: device.clone(),
        stream: Stream::new(device)?,
        rng: Pcg64Mcg::seed_from_u64(seed),
        brief: extent.brief,
        findings: Vec::new(),
    };
    for (name, section) in SECTIONS {
        if extent.only.is_none_or(|only| only == name) {
            section(&mut bench)?;
        }
    }
    Ok(bench.findings)
}
