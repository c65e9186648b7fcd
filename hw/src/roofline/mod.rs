//! How close every kernel comes to what the machine can do: each figure beside a reference measured in the same run.

mod attend;
mod dense;
mod index;
mod link;
mod lookup;
mod memory;
mod overlap;
mod select;

use crate::ops::dense::Dense;
use crate::{Device, HwError, Spread, Stream};
use serde::Serialize;

pub(crate) use memory::ceilings;
pub use memory::{CeilingSpread, Ceilings};
pub(crate) use overlap::Beside;
pub use overlap::Overlap;

/// One kernel at one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Kernel.
    pub kernel: String,
    /// Shape.
    pub shape: String,
    /// Figure reached, in `unit`.
    pub achieved: f64,
    /// GB/s, TFLOP/s or us.
    pub unit: &'static str,
    /// What it is held against.
    pub against: &'static str,
    /// The reference's figure in the same unit.
    pub reference: f64,
    /// Achieved over reference; for times, reference over achieved, so that more is better either way.
    pub ratio: f64,
    /// The ratio aimed at, where there is one.
    pub goal: Option<f64>,
    /// The time of one call.
    pub time: Spread,
}

/// All rows of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Bandwidths measured in this run.
    pub ceilings: Ceilings,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Measures one group of kernels.
type Section = fn(&mut Bench) -> Result<(), HwError>;

/// The groups of kernels, by name.
const SECTIONS: &[(&str, Section)] = &[
    ("attend", attend::run),
    ("select", select::run),
    ("index", index::run),
    ("dense", dense::run),
    ("lookup", lookup::run),
    ("link", link::run),
];

/// What a measurement works with.
struct Bench {
    device: Device,
    stream: Stream,
    dense: Dense,
    ceilings: Ceilings,
    rows: Vec<Row>,
    pinned_bytes: usize,
    matrix_rate: f64,
}

impl Bench {
    /// A bandwidth against one of the ceilings.
    fn bandwidth(
        &mut self,
        kernel: &str,
        shape: String,
        bytes: u64,
        time: Spread,
        ceiling: (&'static str, f64),
        goal: Option<f64>,
    ) {
        let achieved = time.gigabytes_per_second(bytes);
        self.rows.push(Row {
            kernel: kernel.into(),
            shape,
            achieved,
            unit: "GB/s",
            against: ceiling.0,
            reference: ceiling.1,
            ratio: achieved / ceiling.1,
            goal,
            time,
        });
    }

    /// A rate of arithmetic against what the vendor's library reaches on matrix products.
    fn rate(&mut self, kernel: &str, shape: String, flops: u64, time: Spread, goal: Option<f64>) {
        let achieved = flops as f64 / time.median_ps.max(1) as f64;
        self.rows.push(Row {
            kernel: kernel.into(),
            shape,
            achieved,
            unit: "TFLOP/s",
            against: "bf16 matrix product",
            reference: self.matrix_rate,
            ratio: achieved / self.matrix_rate,
            goal,
            time,
        });
    }

    /// A time against another time.
    fn duration(
        &mut self,
        kernel: &str,
        shape: String,
        time: Spread,
        reference: (&'static str, f64),
        goal: Option<f64>,
    ) {
        self.rows.push(Row {
            kernel: kernel.into(),
            shape,
            achieved: time.micros(),
            unit: "us",
            against: reference.0,
            reference: reference.1,
            ratio: reference.1 / time.micros(),
            goal,
            time,
        });
    }
}

/// Measures everything, with at most `pinned_bytes` of pinned host memory. `matrix_rate` is what a large bf16 matrix
/// product reaches on this machine, TFLOP/s; this crate has none of its own. `only` names one
/// group: attend, select, index, dense, lookup or link.
///
/// # Errors
/// If the device fails or has too little memory.
pub fn run(
    device: &Device,
    pinned_bytes: usize,
    matrix_rate: f64,
    only: Option<&str>,
) -> Result<Table, HwError> {
    let stream = Stream::new(device)?;
    let dense = Dense::load(device)?;
    // Everything is held against them, and neighbours slow the link for a while: three times, and the middle of each counts.
    let rounds = (0..3).map(|_| ceilings(device, &stream, &dense)).collect::<Result<Vec<_>, _>>()?;
    let ceilings = Ceilings::middle(&rounds);
    let mut bench = Bench {
        device: device.clone(),
        stream,
        dense,
        ceilings,
        rows: Vec::new(),
        pinned_bytes,
        matrix_rate,
    };
    for (name, section) in SECTIONS {
        if only.is_none_or(|only| only == *name) {
            section(&mut bench)?;
        }
    }
    Ok(Table { ceilings: bench.ceilings, rows: bench.rows })
}
