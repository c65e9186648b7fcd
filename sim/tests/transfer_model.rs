//! The transfer model against every measured row, each predicted by a fit that has not seen it; and the H200 against
//! parameters carried over from the H100.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a failing test may panic; its figures are read

use kvtier_sim::presets;
use kvtier_sim::transfer::TransferParams;
use kvtier_sim::transfer_fit::{
    self, Family, HeldOut, Observation, fit, leave_one_out, log_error, read_observations,
};

fn h100() -> Vec<Observation> {
    read_observations(include_str!("../data/transfer_h100.csv")).unwrap()
}

/// Fits start from round figures and the large copy of the probe.
fn start() -> TransferParams {
    transfer_fit::start(54.6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_worst(title: &str, held_out: &mut [HeldOut], count: usize) {
    held_out.sort_by(|a, b| b.relative_error().abs().total_cmp(&a.relative_error().abs()));
    println!("\n{title}\n{:>8} {:>12} {:>12}  row", "error", "predicted us", "measured us");
    for one in held_out.iter().take(count) {
        let s = &one.row.shape;
        println!(
            "{:>+7.1}% {:>12.2} {:>12.2}  {}: {} {:?}, {} x {} B of {} MiB, {} requests",
            100.0 * one.relative_error(),
            one.predicted_ns / 1e3,
            one.row.measured_ns / 1e3,
            one.row.table,
            s.mechanism.name(),
            s.order,
            s.blocks,
            s.block_bytes.0,
            s.region.0 >> 20,
            s.requests
        );
    }
}

#[test]
fn every_row_is_predicted_without_having_been_seen() {
    let rows = h100();
    let free: usize = Family::ALL.iter().map(|family| family.free(&mut start()).len()).sum();
    assert!(free * 5 < rows.len(), "{free} parameters for {} rows is a table look-up", rows.len());

    let mut held_out = leave_one_out(&start(), &rows);
    let errors: Vec<f64> = held_out.iter().map(|one| one.relative_error().abs()).collect();
    let (middle, worst) = (median(errors.clone()), errors.iter().copied().fold(0.0, f64::max));
    print_worst("worst rows, each left out of its fit", &mut held_out, 16);
    for table in ["translation", "shape", "small-copy", "large-copy", "copy-loop", "copy-batch"] {
        let of: Vec<f64> =
            held_out.iter().filter(|o| o.row.table == table).map(|o| o.relative_error().abs()).collect();
        let most = of.iter().copied().fold(0.0, f64::max);
        println!(
            "{table}: {} rows, median {:.1}%, worst {:.1}%",
            of.len(),
            100.0 * median(of.clone()),
            100.0 * most
        );
    }
    println!(
        "all: {} rows, {free} parameters, median {:.1}%, worst {:.1}%",
        rows.len(),
        100.0 * middle,
        100.0 * worst
    );
    assert!(middle <= 0.15, "median error {middle}");
    assert!(worst <= 0.35, "worst error {worst}");
}

#[test]
fn the_shipped_parameters_are_the_fitted_ones() {
    let rows = h100();
    let mut fitted: TransferParams = fit(&start(), &rows.iter().collect::<Vec<_>>());
    let mut shipped = presets::machine("h100-pcie5").unwrap().transfer;
    for family in Family::ALL {
        for (slot, (a, b)) in family.free(&mut fitted).iter().zip(family.free(&mut shipped)).enumerate() {
            assert!((**a / *b - 1.0).abs() < 0.01, "{family:?}, parameter {slot}: fitted {a}, shipped {b}");
        }
    }
}

#[test]
fn the_h200_is_predicted_from_the_h100_and_a_probe() {
    let rows = read_observations(include_str!("../data/transfer_h200.csv")).unwrap();
    let params = presets::machine("h200-pcie5").unwrap().transfer;
    let mut carried: Vec<HeldOut> = rows
        .iter()
        .map(|row| HeldOut { row: row.clone(), predicted_ns: params.isolated_ns(&row.shape) })
        .collect();
    let errors: Vec<f64> = carried.iter().map(|one| one.relative_error().abs()).collect();
    print_worst("H200, carried over from the H100 fit and two probes", &mut carried, rows.len());
    println!("median {:.1}%", 100.0 * median(errors.clone()));
    assert!(median(errors.clone()) <= 0.15 && errors.iter().all(|error| *error <= 0.35), "{errors:?}");
}

#[test]
fn the_fit_is_deterministic_and_finds_parameters_it_made_rows_from() {
    let mut truth = presets::machine("h100-pcie5").unwrap().transfer;
    truth.gather.walk_ns *= 1.4;
    truth.gather.rate *= 0.8;
    truth.copy.setup_ns *= 2.0;
    let mut rows = h100();
    rows.iter_mut().for_each(|row| row.measured_ns = truth.isolated_ns(&row.shape));
    let rows: Vec<&Observation> = rows.iter().collect();
    let (one, two) = (fit(&start(), &rows), fit(&start(), &rows));
    assert_eq!(one, two);
    assert!(
        rows.iter().all(|row| log_error(&one, row).abs() < 0.05),
        "rows made by the model are fitted closely"
    );
    assert!((one.gather.walk_ns / truth.gather.walk_ns - 1.0).abs() < 0.05);
}
