//! Curves from a random sample of streams. Streams are independent, so a seeded sample within each stratum estimates the
//! whole; how much the sampled streams differ says how far off it may be. Head groups of a layer differ much more than
//! requests do, so a stratum is a layer and head group where that leaves two requests to draw, else a layer.

use super::curve::{Curve, CurvePolicy, Curves};
use super::survey::{Survey, visits};
use crate::error::SimError;
use kvtier_units::Seed;
use std::sync::Mutex;

/// An estimated curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Counts scaled up to all streams, rounded.
    pub curve: Curve,
    /// Half width of the 95% confidence interval of the miss ratio, per size.
    pub half_width: Vec<f64>,
}

impl Estimate {
    /// The half width for buffers of `slots`.
    ///
    /// # Panics
    /// If `slots` is less than one selection.
    pub fn half_width_at(&self, slots: u32) -> f64 {
        assert!(slots >= self.curve.least, "a buffer holds at least one selection");
        self.half_width[((slots - self.curve.least) as usize).min(self.half_width.len() - 1)]
    }
}

/// The estimated curves of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledCurves {
    /// The policy.
    pub policy: CurvePolicy,
    /// All streams together.
    pub total: Estimate,
    /// Per layer of the model.
    pub layers: Vec<Estimate>,
    /// Streams that were passed over.
    pub sampled: u64,
    /// Streams that there are.
    pub streams: u64,
}

/// Exact curves, as an estimate without error.
impl From<Curves> for SampledCurves {
    fn from(curves: Curves) -> SampledCurves {
        let exact = |curve: Curve| Estimate { half_width: vec![0.0; curve.misses.len()], curve };
        SampledCurves {
            policy: curves.policy,
            total: exact(curves.total),
            layers: curves.layers.into_iter().map(exact).collect(),
            sampled: curves.streams,
            streams: curves.streams,
        }
    }
}

/// Sums over the sampled streams of one stratum.
struct Moments {
    /// Sampled streams.
    n: u64,
    /// Streams that there are.
    of: u64,
    sum: Curve,
    accesses_squared: u128,
    /// Per size: the sum of squared misses, and of misses times accesses.
    products: Vec<(u128, u128)>,
}

impl Moments {
    fn new(least: u32, most: u32) -> Moments {
        let sum = Curve::empty(least, most);
        Moments { n: 0, of: 0, accesses_squared: 0, products: vec![(0, 0); sum.misses.len()], sum }
    }

    /// Adds a stream that stands for `times` equal ones.
    fn add(&mut self, curve: &Curve, times: u64) {
        self.n += 1;
        self.sum.add(curve, times);
        let accesses = u128::from(curve.accesses * times);
        self.accesses_squared += accesses * accesses;
        for (products, &misses) in self.products.iter_mut().zip(&curve.misses) {
            let misses = u128::from(misses * times);
            products.0 += misses * misses;
            products.1 += misses * accesses;
        }
    }
}

impl Survey<'_> {
    /// Estimates the curves from `fraction` of the streams of each stratum, at least two, drawn by `seed`.
    ///
    /// A stream of a visit that several seats make is drawn once and stands for all of them.
    ///
    /// # Errors
    /// If the fraction is not above 0 and at most 1, rows cannot be read back, or the user stops.
    pub fn sample(&self, fraction: f64, seed: Seed) -> Result<SampledCurves, SimError> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            let message = format!("{fraction} of the streams; give more than 0 and at most 1, say 0.1");
            return Err(SimError::field("--sample", message));
        }
        let visits = visits(self.run);
        let (layers, heads) = (self.run.map.layers(), self.run.map.head_groups());
        let (least, most) = (self.least(), self.most(&visits));
        let size = stratum(fraction, visits.len(), heads);
        let drawn = draw(fraction, seed, visits.len(), layers * heads, size);
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); visits.len()];
        for &(visit, model) in &drawn {
            chosen[visit].push(self.run.map.recorded(model));
        }
        chosen.iter_mut().for_each(|streams| {
            streams.sort_unstable();
            streams.dedup();
        });
        let seen_by = self.seen_by();
        let moments: Vec<Moments> = (0..layers * heads / size).map(|_| Moments::new(least, most)).collect();
        let moments = Mutex::new(moments);
        self.pass(&visits, &chosen, &|visit, stream, curve| {
            let mut moments = moments.lock().expect("no thread panics while it adds");
            for &model in
                seen_by[stream].iter().filter(|&&model| drawn.binary_search(&(visit, model)).is_ok())
            {
                moments[model / size].add(curve, visits[visit].1);
            }
        })?;
        let mut moments = moments.into_inner().expect("no thread panicked");
        moments.iter_mut().for_each(|stratum| stratum.of = (visits.len() * size) as u64);
        Ok(SampledCurves {
            policy: self.policy,
            total: estimate(&moments),
            layers: moments.chunks(heads / size).map(estimate).collect(),
            sampled: moments.iter().map(|layer| layer.n).sum(),
            streams: moments.iter().map(|layer| layer.of).sum(),
        })
    }
}

/// Streams of the model in one stratum.
#[allow(clippy::cast_precision_loss)] // a choice of how to sample, the same for the same inputs
fn stratum(fraction: f64, visits: usize, heads: usize) -> usize {
    if fraction * visits as f64 >= 2.0 { 1 } else { heads }
}

/// Draws streams within each stratum of `size` streams of the model, as ascending (visit, model stream): those with the
/// least hashes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // a fraction of a count
fn draw(fraction: f64, seed: Seed, visits: usize, streams: usize, size: usize) -> Vec<(usize, usize)> {
    let wanted = ((fraction * (visits * size) as f64).ceil() as usize).max(2);
    let mut drawn = Vec::new();
    for first in (0..streams).step_by(size) {
        let mut stratum: Vec<(u64, usize, usize)> = (0..visits)
            .flat_map(|visit| (first..first + size).map(move |model| (visit, model)))
            .map(|(visit, model)| {
                (seed.child("mrc.sample", (visit * streams + model) as u64).0, visit, model)
            })
            .collect();
        stratum.sort_unstable();
        drawn.extend(stratum.into_iter().take(wanted).map(|(_, visit, model)| (visit, model)));
    }
    drawn.sort_unstable();
    drawn
}

/// The stratified ratio estimate over some strata. Counts are exact; floats enter here and reach no decision.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts, rounded
fn estimate(strata: &[Moments]) -> Estimate {
    let scale = |stratum: &Moments| stratum.of as f64 / stratum.n as f64;
    let scaled = |count: &dyn Fn(&Moments) -> u64| -> f64 {
        strata.iter().map(|stratum| scale(stratum) * count(stratum) as f64).sum()
    };
    let first = &strata[0].sum;
    let accesses = scaled(&|stratum| stratum.sum.accesses);
    let mut curve = Curve::empty(first.least, first.most());
    curve.accesses = accesses.round() as u64;
    let mut half_width = Vec::with_capacity(curve.misses.len());
    for at in 0..curve.misses.len() {
        let misses = scaled(&|stratum| stratum.sum.misses[at]);
        curve.misses[at] = misses.round() as u64;
        curve.cold[at] = scaled(&|stratum| stratum.sum.cold[at]).round() as u64;
        half_width.push(half_width_of(strata, at, misses, accesses));
    }
    Estimate { curve, half_width }
}

/// Half the width of the 95% interval of a ratio, by linearisation: residuals are misses less the ratio times accesses.
#[allow(clippy::cast_precision_loss)] // statistics
fn half_width_of(strata: &[Moments], at: usize, misses: f64, accesses: f64) -> f64 {
    if accesses == 0.0 {
        return 0.0;
    }
    let ratio = misses / accesses;
    let (mut variance, mut spread) = (0.0, 0.0);
    for stratum in strata.iter().filter(|stratum| stratum.n < stratum.of) {
        assert!(stratum.n >= 2, "at least two streams are drawn where there are more");
        let (n, of) = (stratum.n as f64, stratum.of as f64);
        let (squares, cross) = (stratum.products[at].0 as f64, stratum.products[at].1 as f64);
        let residuals = stratum.sum.misses[at] as f64 - ratio * stratum.sum.accesses as f64;
        let squared = squares - 2.0 * ratio * cross + ratio * ratio * stratum.accesses_squared as f64;
        let per_stream = ((squared - residuals * residuals / n) / (n - 1.0)).max(0.0);
        let of_stratum = of * of * (1.0 - n / of) * per_stream / n;
        variance += of_stratum;
        spread += of_stratum * of_stratum / (n - 1.0);
    }
    // Satterthwaite's degrees of freedom: few streams each, but many strata.
    let freedom = if spread > 0.0 { variance * variance / spread } else { f64::INFINITY };
    student(freedom) * variance.sqrt() / accesses
}

/// The 97.5% quantile of Student's t, rounded up to the next tabulated degrees of freedom below.
fn student(freedom: f64) -> f64 {
    const TABLE: [(f64, f64); 16] = [
        (120.0, 1.980),
        (60.0, 2.000),
        (40.0, 2.021),
        (30.0, 2.042),
        (25.0, 2.060),
        (20.0, 2.086),
        (15.0, 2.131),
        (12.0, 2.179),
        (10.0, 2.228),
        (8.0, 2.306),
        (6.0, 2.447),
        (5.0, 2.571),
        (4.0, 2.776),
        (3.0, 3.182),
        (2.0, 4.303),
        (1.0, 12.706),
    ];
    // Rounding can leave a hair less than one degree.
    TABLE.iter().find(|(least, _)| freedom >= *least - 1e-6).map_or(12.706, |&(_, quantile)| quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(misses: u64) -> Curve {
        Curve { least: 1, misses: vec![misses], cold: vec![0], accesses: 100 }
    }

    #[test]
    fn the_interval_of_a_hand_worked_sample() {
        // Two of four streams: 10 and 30 misses of 100. Ratio 0.2; residuals -10 and 10, variance 200;
        // 4 * 4 * (1 - 1/2) * 200 / 2 = 800; t(1) = 12.706; 12.706 * sqrt(800) / 400.
        let mut layer = Moments::new(1, 1);
        layer.add(&stream(10), 1);
        layer.add(&stream(30), 1);
        layer.of = 4;
        let estimate = estimate(&[layer]);
        assert_eq!((estimate.curve.misses[0], estimate.curve.accesses), (80, 400));
        let half_width = estimate.half_width[0];
        assert!((half_width - 12.706 * 800f64.sqrt() / 400.0).abs() < 1e-12, "{half_width}");
    }

    #[test]
    fn a_census_has_no_error() {
        let mut layer = Moments::new(1, 1);
        layer.add(&stream(10), 2);
        layer.add(&stream(30), 2);
        layer.of = 2;
        let estimate = estimate(&[layer]);
        assert_eq!((estimate.curve.misses[0], estimate.half_width[0]), (80, 0.0));
    }

    #[test]
    fn draws_are_repeatable_and_even() {
        let drawn = draw(0.5, Seed(3), 6, 12, 3);
        assert_eq!(drawn, draw(0.5, Seed(3), 6, 12, 3));
        assert_ne!(drawn, draw(0.5, Seed(4), 6, 12, 3));
        for layer in 0..4 {
            assert_eq!(
                drawn.iter().filter(|&&(_, model)| model / 3 == layer).count(),
                9,
                "half of each stratum"
            );
        }
    }
}
