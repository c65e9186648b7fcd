//! Axes: ranges and round ticks for ratios, sizes and rates, linear or logarithmic.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// An axis: its range, its ticks with their labels, and its title.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Values at both ends.
    pub range: Range<f64>,
    /// Values that are marked, with their labels.
    pub ticks: Vec<(f64, String)>,
    /// What it shows, with its unit.
    pub title: String,
    /// Whether it is logarithmic.
    pub log: bool,
}

impl Axis {
    /// How far along the axis a value stands: zero at its start, one at its end.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let place = |value: f64| if self.log { value.log2() } else { value };
        (place(value) - place(self.range.start)) / (place(self.range.end) - place(self.range.start))
    }

    /// Linear, from zero to a little beyond `max`, with about `count` round ticks.
    pub(crate) fn from_zero(max: f64, count: f64, title: &str, label: impl Fn(f64) -> String) -> Axis {
        let max = if max > 0.0 { max * 1.06 } else { 1.0 };
        Self::linear(0.0, max, count, title, label)
    }

    /// Linear between two values, with about `count` round ticks.
    pub(crate) fn linear(
        low: f64,
        high: f64,
        count: f64,
        title: &str,
        label: impl Fn(f64) -> String,
    ) -> Axis {
        let step = round_step((high - low) / count);
        let first = (low / step).ceil();
        let ticks = (0..64).map(|n| (first + f64::from(n)) * step).take_while(|tick| *tick <= high);
        let ticks = ticks.map(|tick| (tick, label(tick))).collect();
        Axis { range: low..high, ticks, title: title.to_owned(), log: false }
    }

    /// Logarithmic between two positive values, with ticks at 1, 2 and 5 times the powers of ten, or more on a short one.
    pub(crate) fn log(low: f64, high: f64, title: &str, label: impl Fn(f64) -> String) -> Axis {
        let decades = (-12..=15).map(|power| 10f64.powi(power));
        let digits: &[f64] =
            if high > 8.0 * low { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0] };
        let ticks = decades.flat_map(|decade| digits.iter().map(move |digit| digit * decade));
        let ticks =
            ticks.filter(|tick| (low..=high).contains(tick)).map(|tick| (tick, label(tick))).collect();
        Axis { range: low..high, ticks, title: title.to_owned(), log: true }
    }

    /// Logarithmic over sizes that doubled or nearly so, with a tick at each that finds `room` (a share of the axis).
    pub(crate) fn sizes(sizes: &[u32], room: f64, title: &str) -> Axis {
        let (first, last) = (f64::from(sizes[0]), f64::from(sizes[sizes.len() - 1]));
        let margin = if first < last { (last / first).powf(0.03) } else { 1.5 };
        let range = first / margin..last * margin;
        let width = (range.end / range.start).log2();
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for size in sizes.iter().map(|size| f64::from(*size)) {
            if ticks.last().is_none_or(|(before, _)| (size / before).log2() / width >= room) {
                ticks.push((size, size.to_string()));
            }
        }
        Axis { range, ticks, title: title.to_owned(), log: true }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[allow(clippy::cast_possible_truncation)] // a drawing is a few thousand units wide
    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (self.share(*value) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Every tick is a bold one.
        let bold = !hint.weight().allow_light_points();
        self.ticks.iter().map(|tick| tick.0).filter(|_| bold).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|tick| tick.0 == *value).map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least `rough`.
fn round_step(rough: f64) -> f64 {
    let rough = if rough > 0.0 { rough } else { 1.0 };
    let decade = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0].into_iter().map(|digit| digit * decade).find(|step| *step >= rough * 0.999);
    step.unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::from_zero(0.08, 4.0, "", |tick| format!("{tick:.3}"));
        assert_eq!(labels(&axis), ["0.000", "0.025", "0.050", "0.075"]);
        let axis = Axis::log(0.002, 0.3, "", |tick| format!("{tick:.3}"));
        assert_eq!(labels(&axis), ["0.002", "0.005", "0.010", "0.020", "0.050", "0.100", "0.200"]);
        assert_eq!(
            labels(&Axis::from_zero(0.0, 4.0, "", |tick| tick.to_string())),
            ["0", "0.25", "0.5", "0.75", "1"]
        );
    }

    #[test]
    fn sizes_that_crowd_lose_their_tick_and_one_size_is_enough() {
        assert_eq!(labels(&Axis::sizes(&[32, 33, 64, 128], 0.1, "")), ["32", "64", "128"]);
        assert_eq!(labels(&Axis::sizes(&[64], 0.1, "")), ["64"]);
    }
}
