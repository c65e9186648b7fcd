//! Repeated measurements: the median, and how far the repeats lie apart.

use kvtier_units::Nanos;
use serde::{Deserialize, Serialize};

/// A measured time. Picoseconds, since graph nodes are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Middle of the repeats, ps.
    pub median_ps: u64,
    /// Fastest repeat, ps.
    pub min_ps: u64,
    /// Slowest repeat, ps.
    pub max_ps: u64,
    /// Repeats.
    pub repeats: u32,
}

impl Spread {
    /// The spread of some samples.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(mut samples: Vec<Nanos>) -> Spread {
        assert!(!samples.is_empty(), "a spread needs a sample");
        samples.sort_unstable();
        let ps = |at: usize| samples[at].0 * 1000;
        Spread {
            median_ps: ps(samples.len() / 2),
            min_ps: ps(0),
            max_ps: ps(samples.len() - 1),
            repeats: u32::try_from(samples.len()).expect("fewer than 2^32 repeats"),
        }
    }

    /// Of measurements taken apart the one in the middle, with the extremes of all.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn middle(rounds: impl IntoIterator<Item = Spread>) -> Spread {
        let mut rounds: Vec<Spread> = rounds.into_iter().collect();
        rounds.sort_by_key(|round| round.median_ps);
        Spread::around(&rounds, rounds[rounds.len() / 2].median_ps)
    }

    /// The median given, with the extremes of all rounds.
    pub(crate) fn around(rounds: &[Spread], median_ps: u64) -> Spread {
        Spread {
            median_ps,
            min_ps: rounds.iter().map(|round| round.min_ps).min().expect("there is a round"),
            max_ps: rounds.iter().map(|round| round.max_ps).max().expect("there is a round"),
            repeats: rounds.iter().map(|round| round.repeats).sum(),
        }
    }

    /// The time of one of `calls` equal parts.
    pub fn divided_by(self, calls: u64) -> Spread {
        let per = |ps: u64| ps / calls;
        Spread { median_ps: per(self.median_ps), min_ps: per(self.min_ps), max_ps: per(self.max_ps), ..self }
    }

    /// Median in microseconds, for tables.
    pub fn micros(&self) -> f64 {
        self.median_ps as f64 / 1e6
    }

    /// GB/s at the median.
    pub fn gigabytes_per_second(&self, bytes: u64) -> f64 {
        bytes as f64 * 1000.0 / self.median_ps.max(1) as f64
    }

    /// Distance of slowest and fastest repeat as a share of the median.
    pub fn relative(&self) -> f64 {
        (self.max_ps - self.min_ps) as f64 / self.median_ps.max(1) as f64
    }
}

/// A figure that repeats gave, and how far they lie apart as a share of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The median, in the unit that the figure's name or owner says.
    pub value: f64,
    /// Distance of the extremes as a share of the median.
    pub spread: f64,
}

impl Figure {
    /// The bandwidth of a copy of `bytes`, GB/s.
    pub(crate) fn bandwidth(time: &Spread, bytes: u64) -> Figure {
        Figure { value: time.gigabytes_per_second(bytes), spread: time.relative() }
    }

    /// Of figures taken apart the one in the middle; its spread is that of the rounds, if they lie further apart than it says.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn middle(rounds: impl IntoIterator<Item = Figure>) -> Figure {
        let mut rounds: Vec<Figure> = rounds.into_iter().collect();
        rounds.sort_by(|a, b| a.value.total_cmp(&b.value));
        let Figure { value, spread } = rounds[rounds.len() / 2];
        let apart = (rounds[rounds.len() - 1].value - rounds[0].value) / value;
        Figure { value, spread: spread.max(apart) }
    }

    /// A length of host time per call, ns, out of repeats of `calls` calls each.
    pub(crate) fn of_calls(samples: Vec<Nanos>, calls: u64) -> Figure {
        let time = Spread::of(samples).divided_by(calls);
        Figure { value: time.median_ps as f64 / 1000.0, spread: time.relative() }
    }
}

/// An event's milliseconds as nanoseconds.
pub(crate) fn from_millis(ms: f32) -> Nanos {
    let ns = (f64::from(ms) * 1e6).round().max(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, far below 584 years
    let whole = ns as u64;
    Nanos(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_between_the_extremes() {
        let spread = Spread::of([5, 1, 3].map(Nanos).to_vec());
        assert_eq!((spread.min_ps, spread.median_ps, spread.max_ps, spread.repeats), (1000, 3000, 5000, 3));
        assert_eq!(spread.divided_by(2).median_ps, 1500);
        let other = Spread::of([2, 4, 9].map(Nanos).to_vec());
        let late = Spread::of([8, 8].map(Nanos).to_vec());
        let middle = Spread::middle([late, spread, other]);
        assert_eq!((middle.min_ps, middle.median_ps, middle.max_ps, middle.repeats), (1000, 4000, 9000, 8));
        assert!((spread.gigabytes_per_second(6) - 2.0).abs() < 1e-9, "6 B in 3 ns are 2 GB/s");
    }

    #[test]
    fn milliseconds_round_to_nanoseconds() {
        assert_eq!(from_millis(0.0015), Nanos(1500));
    }
}
