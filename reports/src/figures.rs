//! How the report writes numbers: ratios, rates, bytes and times, each in one way on the whole page.
//! Apart, so that a chart, a sentence and a table cell can never disagree on the same number.

use kvtier_sim::record::{Point, TimeTally};
use kvtier_units::{Bytes, Nanos};

/// `part` of `whole`; zero where there is no whole.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A ratio as a percentage with about three digits.
pub(crate) fn percent(ratio: f64) -> String {
    let value = ratio * 100.0;
    match value.abs() {
        0.0 => "0%".to_owned(),
        small if small < 0.005 => format!("{}<0.01%", if value < 0.0 { "-" } else { "" }),
        small if small < 9.995 => format!("{value:.2}%"),
        _ => format!("{value:.1}%"),
    }
}

/// A percentage with no more digits than an axis needs.
pub(crate) fn percent_tick(ratio: f64) -> String {
    format!("{}%", plain(ratio * 100.0))
}

/// A number with up to three decimals, none of them trailing zeros.
pub(crate) fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number with a comma between thousands.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate per second with at least three digits.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rounded, finite and not negative
pub(crate) fn rate(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => grouped(v.round() as u64),
    }
}

/// A factor such as `1.24x`.
pub(crate) fn factor(value: f64) -> String {
    if value < 9.995 { format!("{value:.2}x") } else { format!("{value:.1}x") }
}

/// Bytes in their largest binary unit.
pub(crate) fn bytes(value: u64) -> String {
    Bytes(value).to_string()
}

/// A time in its largest unit.
pub(crate) fn time(ns: u64) -> String {
    Nanos(ns).to_string()
}

/// `1 word` or `n words`.
pub(crate) fn count(number: usize, word: &str) -> String {
    format!("{} {word}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}

/// Engine steps in the measured window of a point, at least one.
pub(crate) fn window_steps(point: &Point) -> u64 {
    u64::from(point.config.steps.saturating_sub(point.config.measure_from)).max(1)
}

/// Mean time of a step over the measured window, ns.
pub(crate) fn mean_step_ns(point: &Point) -> u64 {
    point.time.total_ns / window_steps(point)
}

/// The four parts of a step in the order in which they are drawn and named.
pub(crate) fn step_parts(time: &TimeTally) -> [(&'static str, u64); 4] {
    [
        ("compute", time.compute_ns),
        ("exposed miss stall", time.stall_ns),
        ("launch", time.launch_ns),
        ("other wait", time.wait_ns),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_three_digits() {
        assert_eq!(
            [0.0, 0.000_01, 0.0123, 0.5, 1.0].map(percent),
            ["0%", "<0.01%", "1.23%", "50.0%", "100.0%"]
        );
        assert_eq!(percent(-0.0123), "-1.23%");
        assert_eq!([1.5, 42.0, 99.96, 1_234_567.2].map(rate), ["1.50", "42.0", "100", "1,234,567"]);
        assert_eq!([0.05, 0.1, 0.025].map(percent_tick), ["5%", "10%", "2.5%"]);
        assert_eq!([7, 1_000, 12_345_678].map(grouped), ["7", "1,000", "12,345,678"]);
        assert_eq!(count(1, "point"), "1 point");
        assert_eq!(ratio(1, 0), 0.0);
    }
}
