//! Curves as a table: one row per policy, layer and size, which plots and allocators read.

use super::sample::{Estimate, SampledCurves};
use crate::error::SimError;
use crate::table::write_file;
use std::path::Path;

/// Writes every size of every curve as CSV, under a temporary name until it is complete; layers only where `by_layer`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_csv(path: &Path, curves: &[SampledCurves], by_layer: bool) -> Result<(), SimError> {
    let broken = |error: csv::Error| SimError::io(path, "write", std::io::Error::other(error.to_string()));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["policy", "layer", "slots", "accesses", "misses", "cold", "miss_ratio", "half_width"];
    writer.write_record(header).map_err(broken)?;
    for curves in curves {
        let layers = curves.layers.iter().enumerate().filter(|_| by_layer);
        let named = layers.map(|(layer, estimate)| (layer.to_string(), estimate));
        for (layer, Estimate { curve, half_width }) in
            std::iter::once(("all".to_owned(), &curves.total)).chain(named)
        {
            for (slots, half_width) in (curve.least..=curve.most()).zip(half_width) {
                let counts = [curve.accesses, curve.misses_at(slots), curve.cold_at(slots)];
                let counts = counts.iter().map(u64::to_string);
                let names = [curves.policy.to_string(), layer.clone(), slots.to_string()];
                let ratios = [format!("{:.6}", curve.ratio_at(slots)), format!("{half_width:.6}")];
                writer.write_record(names.into_iter().chain(counts).chain(ratios)).map_err(broken)?;
            }
        }
    }
    let bytes = writer.into_inner().map_err(|error| SimError::io(path, "write", error.into_error()))?;
    write_file(path, &bytes)
}
