//! The schedule: which requests take part in each engine step. Everything that flows from time back to decisions
//! writes the schedule at step boundaries, and only there; a plan may be reused under the same schedule alone.

use thiserror::Error;

/// A request taking a seat of the batch at the start of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Seat of the batch, from zero.
    pub seat: u32,
    /// Index of the recorded request.
    pub request: u32,
    /// Recorded step at which it begins.
    pub offset: u32,
}

/// A seated request taking part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Seat of the batch.
    pub seat: u32,
    /// Index of the recorded request.
    pub request: u32,
    /// Recorded step that it replays now.
    pub recorded_step: u32,
}

/// One engine step: first seats are left, then taken, then every seated request decodes a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSchedule {
    /// Seats whose request ended with the previous step.
    pub leave: Vec<u32>,
    /// Requests that start.
    pub join: Vec<Join>,
    /// Requests that take part, in seat order.
    pub run: Vec<Run>,
}

/// All engine steps of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The steps, in order.
    pub steps: Vec<StepSchedule>,
}

/// Why a closed batch cannot be scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// There is nothing to replay.
    #[error("batch.requests: no recorded request with at least one step is selected")]
    Empty,
    /// A seat count of zero.
    #[error("batch.concurrency: 0 requests at once; give at least 1")]
    NoSeats,
}

impl Schedule {
    /// A closed batch: `seats` requests at once, every ended one replaced by the next in turn, for `steps` steps.
    ///
    /// `requests` lists (recorded request, its steps). Seat i starts with request i modulo their number; each
    /// further round through them starts `stagger` recorded steps later than the one before (modulo the
    /// request's length), so that copies of one recording do not run in lockstep. Replacements start at step 0.
    ///
    /// # Errors
    /// If there is no seat or no request with a step.
    pub fn closed(
        requests: &[(u32, u32)],
        seats: u32,
        steps: u32,
        stagger: u32,
    ) -> Result<Schedule, ScheduleError> {
        let requests: Vec<(u32, u32)> = requests.iter().copied().filter(|&(_, length)| length > 0).collect();
        let rounds_of = u32::try_from(requests.len()).expect("fewer than 2^32 requests");
        if requests.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if seats == 0 {
            return Err(ScheduleError::NoSeats);
        }
        let mut next = 0u32;
        let mut take = |seat: u32, first: bool| {
            let (request, length) = requests[(next % rounds_of) as usize];
            let round = u64::from(next / rounds_of);
            next += 1;
            let offset = if first { round * u64::from(stagger) % u64::from(length) } else { 0 };
            let offset = u32::try_from(offset).expect("an offset lies within its request");
            (Join { seat, request, offset }, length)
        };
        let mut seated: Vec<(Join, u32, u32)> = Vec::new(); // join, length, recorded step to run next
        let mut schedule = Vec::with_capacity(steps as usize);
        for _ in 0..steps {
            let mut step = StepSchedule::default();
            if seated.is_empty() {
                for seat in 0..seats {
                    let (join, length) = take(seat, true);
                    step.join.push(join);
                    seated.push((join, length, join.offset));
                }
            } else {
                for place in seated.iter_mut().filter(|(_, length, at)| at == length) {
                    step.leave.push(place.0.seat);
                    let (join, length) = take(place.0.seat, false);
                    step.join.push(join);
                    *place = (join, length, join.offset);
                }
            }
            for (join, _, at) in &mut seated {
                step.run.push(Run { seat: join.seat, request: join.request, recorded_step: *at });
                *at += 1;
            }
            schedule.push(step);
        }
        Ok(Schedule { steps: schedule })
    }

    /// Seats that the schedule uses.
    pub fn seats(&self) -> u32 {
        self.steps.iter().flat_map(|step| &step.join).map(|join| join.seat + 1).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_refilled_and_copies_staggered() {
        let schedule = Schedule::closed(&[(0, 3), (1, 2)], 3, 4, 1).unwrap();
        let run = |step: usize| -> Vec<(u32, u32)> {
            schedule.steps[step].run.iter().map(|run| (run.request, run.recorded_step)).collect()
        };
        assert_eq!(run(0), [(0, 0), (1, 0), (0, 1)], "the copy of request 0 starts one step later");
        assert_eq!(run(1), [(0, 1), (1, 1), (0, 2)]);
        assert_eq!(run(2), [(0, 2), (1, 0), (0, 0)], "seats 1 and 2 were refilled in turn, from step 0");
        assert_eq!(schedule.steps[2].leave, [1, 2]);
        assert_eq!(run(3), [(1, 0), (1, 1), (0, 1)]);
        assert_eq!(schedule.seats(), 3);
    }

    #[test]
    fn nothing_to_replay_is_an_error() {
        assert_eq!(Schedule::closed(&[(0, 0)], 1, 1, 0), Err(ScheduleError::Empty));
        assert_eq!(Schedule::closed(&[(0, 1)], 0, 1, 0), Err(ScheduleError::NoSeats));
    }
}
