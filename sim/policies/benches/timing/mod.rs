//! The time of work that is the same in every round, on a machine that others use too: the work is cut into parts, and
//! the quickest round of each part counts. A part is far shorter than a turn of the scheduler, so that some round has it undisturbed.

use std::time::{Duration, Instant};

/// What rounds took.
pub(crate) struct Timing {
    /// The quickest round of each part, summed.
    pub(crate) undisturbed: Duration,
    /// The median round.
    pub(crate) median: Duration,
}

impl Timing {
    /// Million items per second, undisturbed and in the median round.
    #[expect(clippy::cast_precision_loss)] // a rate to be printed
    pub(crate) fn rates(&self, items: u64) -> [f64; 2] {
        [self.undisturbed, self.median].map(|time| items as f64 / time.as_secs_f64() / 1e6)
    }
}

/// Times `rounds` rounds of parts `0..parts`, each round on what `prepare` makes outside the time; returns what the last
/// round counted.
#[expect(clippy::disallowed_methods)] // a bench is where the wall clock is read
pub(crate) fn time<S>(
    rounds: usize,
    parts: usize,
    prepare: impl Fn() -> S,
    mut run: impl FnMut(&mut S, usize) -> u64,
) -> (Timing, u64) {
    let mut quickest = vec![Duration::MAX; parts];
    let mut whole = Vec::new();
    let mut counted = 0;
    for _ in 0..rounds {
        let mut state = prepare();
        counted = 0;
        let mut round = Duration::ZERO;
        for (part, quickest) in quickest.iter_mut().enumerate() {
            let start = Instant::now();
            counted += run(&mut state, part);
            let took = start.elapsed();
            *quickest = took.min(*quickest);
            round += took;
        }
        whole.push(round);
    }
    whole.sort_unstable();
    (Timing { undisturbed: quickest.iter().sum(), median: whole[rounds / 2] }, counted)
}
