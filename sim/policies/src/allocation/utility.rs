//! `utility` and `adaptive`: online allocation by marginal utility, from what was selected so far.
//! Denning's working sets told apart by age and worth: P. J. Denning, "The working set model for program behavior", CACM
//! 11(5), 1968, <https://doi.org/10.1145/363095.363141>; slots go where they gain most, as in M. K. Qureshi, Y. N. Patt,
//! "Utility-based cache partitioning", MICRO 2006, <https://doi.org/10.1109/MICRO.2006.49>.
//!
//! Of every stream it knows how many blocks were last selected a, a + 1, ... steps ago, and which share of the blocks of an
//! age is selected again (a rate that fades, and that leans on the rate of all streams until it rests on enough
//! sightings of its own). So the next slot of a stream has a worth, and a budget a best split (`split`). Before every step
//! that split is made anew; sizes follow its running mean, shrunk a sixteenth towards even shares, and only when
//! they are off by enough (`follow`). `utility` makes one split of layers and head groups, the mean of its requests, which
//! all of them have; `adaptive` splits one budget among all streams of all seated requests.

use super::ages::{Ages, BYTES_PER_BLOCK, BYTES_PER_STREAM, Rates};
use super::follow::{SLOT, follow};
use super::{Allocator, BudgetShape, fixed, split};
use crate::eviction::StateClass;
use crate::{PolicyError, Selection};
use serde::Deserialize;

/// The shadow of a stream, the mean and the size.
pub(super) const STATE: StateClass =
    StateClass { per_slot: 0, per_block: BYTES_PER_BLOCK, per_stream: BYTES_PER_STREAM + 12 };

/// What is kept of a difference from even shares, in 16ths.
const KEPT: i64 = 15;

/// Parameters of `utility` and `adaptive`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UtilityParams {
    /// Steps between changes of size.
    pub every: u32,
    /// Steps that the running mean of the split remembers.
    pub memory: u32,
    /// Sightings of an age that weigh as much as what all streams say of it.
    pub doubt: u32,
    /// Slots by which a stream must be off before it moves.
    pub band: u32,
}

impl Default for UtilityParams {
    fn default() -> Self {
        UtilityParams { every: 1, memory: 32, doubt: 300, band: 1 }
    }
}

/// One request, or one split that all requests have.
struct Group {
    /// Slots of each stream now.
    slots: Vec<u32>,
    /// Running mean of the split, in 256ths of a slot.
    mean: Vec<i64>,
    /// Splits that the mean is of.
    splits: u32,
}

struct Seat {
    ages: Vec<Ages>,
    steps: u32,
    group: Group,
}

/// Allocation by marginal utility.
pub(super) struct Utility {
    shape: BudgetShape,
    params: UtilityParams,
    /// Whether requests have splits of their own, under one budget.
    across: bool,
    seats: Vec<Option<Seat>>,
    /// The split of all requests, unless each has its own.
    shared: Group,
    /// Steps since the last change of size.
    since: u32,
    /// Whether a request left since then: others may hold more than the budget that is left.
    left: bool,
}

impl Utility {
    pub(super) fn new(
        params: &toml::Table,
        shape: &BudgetShape,
        across: bool,
    ) -> Result<Utility, PolicyError> {
        let params: UtilityParams = fixed::read(if across { "adaptive" } else { "utility" }, params)?;
        let ranges = [
            ("hot.allocation_params.every", params.every, 1),
            ("hot.allocation_params.memory", params.memory, 1),
            ("hot.allocation_params.doubt", params.doubt, 0),
            ("hot.allocation_params.band", params.band, 0),
        ];
        for (field, given, least) in ranges {
            if !(least..=1 << 20).contains(&given) {
                let message = format!("{given} is not within {least}..{}", 1 << 20);
                return Err(PolicyError::Params { field, message });
            }
        }
        let shared = Group::even(shape);
        Ok(Utility { shape: shape.clone(), params, across, seats: Vec::new(), shared, since: 0, left: false })
    }

    /// Seats that were observed at least once: of others nothing is known yet.
    fn known(&self) -> Vec<usize> {
        let known = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| seat.steps > 0);
        (0..self.seats.len()).filter(|&at| known(&self.seats[at])).collect()
    }

    fn seat(&self, at: usize) -> &Seat {
        self.seats[at].as_ref().expect("a known seat is taken")
    }

    /// Slots that every stream of the seats would have by what is known, seat after seat, each seat with as much as even
    /// shares give it, or all under one budget.
    fn wanted(&self, known: &[usize]) -> Vec<Vec<u32>> {
        let mut pool = Rates::new();
        known.iter().flat_map(|&at| &self.seat(at).ages).for_each(|ages| pool.add(&ages.rates));
        let gains = |ages: &Ages| ages.gains(self.shape.k, &pool, u64::from(self.params.doubt));
        let budget = sum(&self.shape.even());
        if !self.across {
            let of_seat =
                |&at: &usize| split(&self.seat(at).ages.iter().map(gains).collect::<Vec<_>>(), budget);
            return known.iter().map(of_seat).collect();
        }
        let all: Vec<_> = known.iter().flat_map(|&at| self.seat(at).ages.iter().map(gains)).collect();
        let slots = split(&all, budget * known.len() as u64);
        slots.chunks(self.shape.even().len()).map(<[u32]>::to_vec).collect()
    }

    /// Brings the running means up to date.
    fn learn(&mut self, known: &[usize]) {
        let wanted = self.wanted(known);
        let memory = self.params.memory;
        if self.across {
            for (&at, wanted) in known.iter().zip(&wanted) {
                let group = &mut self.seats[at].as_mut().expect("a known seat is taken").group;
                group.average(wanted.iter().map(|&slots| u64::from(slots) * SLOT), memory);
            }
        } else {
            let seats = wanted.len() as u64;
            let of_stream = |stream: usize| wanted.iter().map(|slots| u64::from(slots[stream])).sum::<u64>();
            self.shared
                .average((0..self.shared.slots.len()).map(|stream| of_stream(stream) * SLOT / seats), memory);
        }
    }

    /// Follows the means of some groups under what even shares give them together.
    fn settle(shape: &BudgetShape, band: u32, groups: &mut [&mut Group]) {
        let even = shape.even();
        let budget = sum(&even) * groups.len() as u64;
        let floor = i64::from(shape.k) * SLOT.cast_signed();
        let spare = |mean: i64| i128::from((mean - floor).max(0));
        let wanted: i128 = groups.iter().flat_map(|group| &group.mean).map(|&mean| spare(mean)).sum();
        let streams = (even.len() * groups.len()) as u64;
        let free = i128::from((budget - u64::from(shape.k) * streams) * SLOT);
        // Means of splits under other budgets are brought to this one.
        let target = |(&mean, &even): (&i64, &u32)| {
            let even = i64::from(even) * SLOT.cast_signed();
            let scaled = (spare(mean) * free).checked_div(wanted).unwrap_or(0);
            let scaled = floor + i64::try_from(scaled).expect("a share of the budget counts in 63 bits");
            (even + (scaled - even) * KEPT / 16).unsigned_abs()
        };
        let targets: Vec<u64> =
            groups.iter().flat_map(|group| group.mean.iter().zip(&even)).map(target).collect();
        let now: Vec<u32> = groups.iter().flat_map(|group| &group.slots).copied().collect();
        let sizes = follow(&now, &targets, u64::from(band) * SLOT, shape.k, budget);
        for (group, sizes) in groups.iter_mut().zip(sizes.chunks(even.len().max(1))) {
            group.slots.copy_from_slice(sizes);
        }
    }
}

impl Allocator for Utility {
    fn join(&mut self, seat: u32, blocks: u32) -> Vec<u32> {
        let at = seat as usize;
        if self.seats.len() <= at {
            self.seats.resize_with(at + 1, || None);
        }
        let group = Group::even(&self.shape);
        let slots = if self.across { group.slots.clone() } else { self.shared.slots.clone() };
        let ages = slots.iter().map(|_| Ages::new(blocks)).collect();
        self.seats[at] = Some(Seat { ages, steps: 0, group });
        slots
    }

    fn leave(&mut self, seat: u32) {
        self.seats[seat as usize] = None;
        self.left = true;
    }

    fn observe(&mut self, seat: u32, stream: usize, selection: &Selection<'_>) {
        let seat = self.seats[seat as usize].as_mut().expect("who selects is seated");
        seat.ages[stream].observe(selection);
        seat.steps += u32::from(stream == 0);
    }

    fn resize(&mut self) -> Vec<(u32, Vec<u32>)> {
        let known = self.known();
        if !known.is_empty() {
            self.learn(&known);
            self.since += 1;
        }
        if self.since < self.params.every && !(self.across && self.left) {
            return Vec::new();
        }
        (self.since, self.left) = (0, false);
        let (shape, band) = (&self.shape, self.params.band);
        let seated = self.seats.iter_mut().enumerate();
        let seated = seated.filter_map(|(at, seat)| seat.as_mut().map(|seat| (at, &mut seat.group)));
        let (numbers, mut groups): (Vec<usize>, Vec<&mut Group>) = seated.unzip();
        let before: Vec<Vec<u32>> = groups.iter().map(|group| group.slots.clone()).collect();
        if self.across {
            Utility::settle(shape, band, &mut groups);
        } else {
            Utility::settle(shape, band, &mut [&mut self.shared]);
            groups.iter_mut().for_each(|group| group.slots.clone_from(&self.shared.slots));
        }
        let changed = numbers.into_iter().zip(&groups).zip(before);
        let changed = changed.filter(|((_, group), before)| group.slots != *before);
        let number = |at: usize| u32::try_from(at).expect("fewer than 2^32 seats");
        changed.map(|((at, group), _)| (number(at), group.slots.clone())).collect()
    }
}

impl Group {
    fn even(shape: &BudgetShape) -> Group {
        let slots = shape.even();
        let mean = slots.iter().map(|&slots| i64::from(slots) * SLOT.cast_signed()).collect();
        Group { slots, mean, splits: 0 }
    }

    /// Takes one more split into the mean: of all splits at first, then of about the last `memory`.
    fn average(&mut self, split: impl Iterator<Item = u64>, memory: u32) {
        self.splits = self.splits.saturating_add(1);
        let weight = i64::from(self.splits.min(memory));
        for (mean, wanted) in self.mean.iter_mut().zip(split) {
            *mean += (wanted.cast_signed() - *mean) / weight;
        }
    }
}

fn sum(slots: &[u32]) -> u64 {
    slots.iter().map(|&slots| u64::from(slots)).sum()
}
