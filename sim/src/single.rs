//! One offload point for a time plane outside the simulator: set up, replayed and recorded as a sweep does it.

use crate::engine::{Decisions, Replay, TimePlane};
use crate::error::SimError;
use crate::grid::{ConfigFile, point_id};
use crate::point;
use crate::record::{Point, PointKind, TimeTally};
use crate::setup::{Blueprint, Run, TraceIdentity};
use crate::sweep;
use crate::twin::Twins;
use kvtier_policies::eviction::EVICTION;
use kvtier_traces::{Future, Recording};
use kvtier_units::Bytes;

/// A point that is ready to be replayed, as often as one likes.
pub struct Single {
    /// The point's address.
    pub id: String,
    /// What was asked for.
    pub blueprint: Blueprint,
    /// The parts that run.
    pub run: Run,
    /// The decoded trace.
    pub recording: Recording,
    memory: Bytes,
}

impl Single {
    /// Checks a configuration and decodes its trace; rows beyond `memory` go to a scratch file.
    ///
    /// # Errors
    /// If a field is wrong, the trace cannot be read, or there is a grid over some field.
    pub fn prepare(file: &ConfigFile, memory: Bytes) -> Result<Single, SimError> {
        let mut configs = file.runs()?;
        let config = configs.pop().filter(|_| configs.is_empty());
        let Some(config) = config else {
            return Err(SimError::field("grid", "one configuration is replayed at a time; set its fields"));
        };
        let trace = TraceIdentity::read(&config.trace, file.folder())?;
        let checked = sweep::check(EVICTION, &config, &trace);
        let blueprint = checked.map_err(|error| error.in_file(file.path.as_deref()))?;
        let id = point_id(&blueprint.config, blueprint.trace_hash, point::kind_name(PointKind::Offload))?;
        let recording = Recording::decode(&blueprint.config.trace, &blueprint.view, memory)?;
        let run = blueprint.lower(&recording)?;
        Ok(Single { id, blueprint, run, recording, memory })
    }

    /// Decides every step and has `time` execute it.
    ///
    /// # Errors
    /// Those of [`Replay::execute`].
    pub fn replay<T: TimePlane>(
        &self,
        time: &mut T,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Decisions, SimError> {
        let future = match self.blueprint.eviction.needs_future {
            true => Some(Future::build(&self.recording, self.memory)?),
            false => None,
        };
        let replay = Replay { run: &self.run, recording: &self.recording, future: future.as_ref(), stop };
        replay.execute(time)
    }

    /// The record of a replay that took `time`; `note` is what its reader must know.
    ///
    /// # Errors
    /// If Belady's decisions, which class the misses, cannot be made.
    pub fn point(
        &self,
        decisions: &Decisions,
        (note, time): (&str, TimeTally),
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Point, SimError> {
        let future = Future::build(&self.recording, self.memory)?;
        let twins = Twins::of(std::iter::once(&self.blueprint));
        let twin = twins.decide(&self.blueprint, &self.recording, &future, stop)?;
        let (blueprint, run, recording) = (&self.blueprint, &self.run, &self.recording);
        Ok(point::offload(&self.id, blueprint, run, recording, decisions, &twin, (note, time)))
    }
}
