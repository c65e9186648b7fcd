//! The curves themselves: counts by buffer size, exact integers that add up over streams.

use crate::error::SimError;
use kvtier_policies::nearest;
use std::fmt;
use std::str::FromStr;

/// Counts of the measured window for every buffer size from `least` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// The smallest size: one selection.
    pub least: u32,
    /// Misses at sizes `least`, `least + 1`, ...; the last holds for all larger sizes.
    pub misses: Vec<u64>,
    /// Of the misses, blocks never yet in HBM; they depend on the size because a context that fits is loaded at once.
    pub cold: Vec<u64>,
    /// Blocks selected, the newest included.
    pub accesses: u64,
}

impl Curve {
    /// A curve without accesses over `least..=most` slots.
    pub(crate) fn empty(least: u32, most: u32) -> Curve {
        let sizes = (most.max(least) - least + 1) as usize;
        Curve { least, misses: vec![0; sizes], cold: vec![0; sizes], accesses: 0 }
    }

    /// The largest size with a count of its own.
    pub fn most(&self) -> u32 {
        self.least + u32::try_from(self.misses.len() - 1).expect("sizes count in 32 bits")
    }

    /// Misses of buffers of `slots`.
    ///
    /// # Panics
    /// If `slots` is less than `least`: such a buffer cannot hold a selection.
    pub fn misses_at(&self, slots: u32) -> u64 {
        self.misses[self.index(slots)]
    }

    /// Cold misses of buffers of `slots`.
    ///
    /// # Panics
    /// If `slots` is less than `least`.
    pub fn cold_at(&self, slots: u32) -> u64 {
        self.cold[self.index(slots)]
    }

    /// Misses per access with buffers of `slots`; zero without accesses.
    ///
    /// # Panics
    /// If `slots` is less than `least`.
    #[allow(clippy::cast_precision_loss)] // for show
    pub fn ratio_at(&self, slots: u32) -> f64 {
        if self.accesses == 0 { 0.0 } else { self.misses_at(slots) as f64 / self.accesses as f64 }
    }

    fn index(&self, slots: u32) -> usize {
        assert!(slots >= self.least, "a buffer holds at least one selection, here {} blocks", self.least);
        ((slots - self.least) as usize).min(self.misses.len() - 1)
    }

    /// Adds `times` another curve over the same sizes.
    pub(crate) fn add(&mut self, other: &Curve, times: u64) {
        assert_eq!(
            (self.least, self.misses.len()),
            (other.least, other.misses.len()),
            "curves over one range"
        );
        let pairs = self.misses.iter_mut().zip(&other.misses).chain(self.cold.iter_mut().zip(&other.cold));
        pairs.for_each(|(sum, count)| *sum += times * count);
        self.accesses += times * other.accesses;
    }

    /// Adds a tally that holds for sizes `sizes`, both ends included.
    pub(crate) fn add_tally(&mut self, sizes: (u32, u32), tally: &Tally) {
        let mut misses = tally.never;
        for slots in (sizes.0..=sizes.1).rev() {
            let at = (slots - self.least) as usize;
            if slots == sizes.1 {
                misses += tally.thresholds[slots as usize + 1..].iter().sum::<u64>();
            } else {
                misses += tally.thresholds[slots as usize + 1];
            }
            self.misses[at] += misses;
            self.cold[at] += tally.never;
        }
    }
}

/// Accesses by threshold: the smallest size at which they hit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Accesses whose threshold is the index; one more than the sizes, so that every size has a next.
    pub(crate) thresholds: Vec<u64>,
    /// Accesses to blocks never yet in HBM.
    pub(crate) never: u64,
}

impl Tally {
    /// An empty tally for sizes up to `most`.
    pub(crate) fn new(most: u32) -> Tally {
        Tally { thresholds: vec![0; most as usize + 2], never: 0 }
    }
}

/// The curves of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curves {
    /// The policy.
    pub policy: CurvePolicy,
    /// All streams together.
    pub total: Curve,
    /// Per layer of the model.
    pub layers: Vec<Curve>,
    /// Streams that were passed over; equal visits of several seats count once.
    pub streams: u64,
}

/// The policies whose curves take one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurvePolicy {
    /// `lru`.
    Lru,
    /// `lru-step`.
    LruStep,
    /// `belady`.
    Belady,
}

impl CurvePolicy {
    /// All of them, in the order in which they are listed to users.
    pub const ALL: [CurvePolicy; 3] = [CurvePolicy::Lru, CurvePolicy::LruStep, CurvePolicy::Belady];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            CurvePolicy::Lru => "lru",
            CurvePolicy::LruStep => "lru-step",
            CurvePolicy::Belady => "belady",
        }
    }

    /// Whether it needs to know the future.
    pub fn needs_future(self) -> bool {
        self == CurvePolicy::Belady
    }
}

impl fmt::Display for CurvePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CurvePolicy {
    type Err = SimError;

    fn from_str(text: &str) -> Result<CurvePolicy, SimError> {
        let known = CurvePolicy::ALL.map(CurvePolicy::name);
        CurvePolicy::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
            let hint = nearest(text, &known).map(|best| format!("did you mean \"{best}\"? "));
            let message = format!(
                "`{text}` has no one-pass curve; {}one of: {}; for others sweep hot.slots",
                hint.unwrap_or_default(),
                known.join(", ")
            );
            SimError::field("--policy", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_misses_below_its_threshold() {
        let mut tally = Tally::new(5);
        tally.thresholds[3] = 10; // a hit from 3 slots on
        tally.thresholds[5] = 1;
        tally.never = 2;
        let mut curve = Curve::empty(2, 5);
        curve.add_tally((2, 4), &tally);
        assert_eq!(curve.misses, [13, 3, 3, 0], "and size 5 was left out");
        assert_eq!(curve.cold, [2, 2, 2, 0]);
    }

    #[test]
    fn unknown_policies_are_named_with_a_remedy() {
        let error = "lur".parse::<CurvePolicy>().unwrap_err().to_string();
        assert!(error.contains("did you mean \"lru\"") && error.contains("belady"), "{error}");
    }
}
