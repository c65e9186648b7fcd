//! Twins: for every offload point, Belady with the same buffers over the same schedule and without prefetch or warm
//! pages. What it misses beyond cold is *capacity*; the rest of a policy's misses is *policy*.

use crate::config::{DemotionConfig, PrefetchConfig, TimeSettings, WarmConfig};
use crate::engine::{Decisions, Replay};
use crate::error::SimError;
use crate::setup::Blueprint;
use kvtier_policies::admission::Choice;
use kvtier_policies::allocation::Allocation;
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::prefetch;
use kvtier_traces::{Future, Recording};
use kvtier_units::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A host pool that no run fills.
const ROOMY: Bytes = Bytes(1 << 62);

/// Decided once each, by whichever thread needs them first.
pub(crate) struct Twins(BTreeMap<String, OnceLock<Result<Arc<Decisions>, String>>>);

impl Twins {
    /// Room for the twins of these points.
    pub(crate) fn of<'a>(blueprints: impl Iterator<Item = &'a Blueprint>) -> Twins {
        Twins(blueprints.map(|blueprint| (twin_key(blueprint), OnceLock::new())).collect())
    }

    /// The decisions of a point's twin.
    pub(crate) fn decide(
        &self,
        blueprint: &Blueprint,
        recording: &Recording,
        future: &Future,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Arc<Decisions>, SimError> {
        let cell = &self.0[&twin_key(blueprint)];
        if let Some(made) = cell.get() {
            return made.clone().map_err(SimError::Shared);
        }
        let run = twin(blueprint).lower(recording)?;
        let replay = Replay { run: &run, recording, future: Some(future), stop };
        match replay.execute(&mut ()) {
            Err(SimError::Interrupted) => Err(SimError::Interrupted),
            decided => {
                let made = cell.get_or_init(|| decided.map(Arc::new).map_err(|error| error.to_string()));
                made.clone().map_err(SimError::Shared)
            }
        }
    }
}

/// The point's blueprint with Belady in place of its policy.
fn twin(blueprint: &Blueprint) -> Blueprint {
    let mut twin = blueprint.clone();
    twin.eviction = *eviction::find(EVICTION, "belady").expect("belady is registered");
    twin.prefetch = *prefetch::find("none").expect("none is registered");
    if blueprint.allocation.entry.resizes {
        // Buffers of Belady's keep their size: even shares, which take the same HBM.
        twin.allocation = Allocation::default();
        twin.config.hot.allocation = twin.allocation.entry.name.into();
        twin.config.hot.allocation_params = toml::Table::new();
    }
    twin.config.hot.policy = "belady".into();
    twin.config.hot.params = toml::Table::new();
    twin.config.prefetch = PrefetchConfig::default();
    twin.config.warm = WarmConfig::default();
    twin.admission = Choice::default();
    if twin.config.demotion != DemotionConfig::default() {
        // Where blocks have their homes does not change what is missed: the twin's host holds them all.
        twin.config.demotion = DemotionConfig::default();
        twin.demotion = Default::default();
        (twin.config.cxl, twin.config.nvme) = Default::default();
        twin.config.host.pool = Some(ROOMY);
    }
    twin
}

/// What decides a point's decisions, as text: its configuration without the machine and how time is modelled.
pub(crate) fn own_key(blueprint: &Blueprint) -> String {
    let mut config = blueprint.config.clone();
    config.host.pool = Some(blueprint.host_pool());
    config.machine = String::new();
    config.time = TimeSettings::default();
    serde_json::to_string(&config).expect("a configuration is plain data")
}

/// What decides its twin's decisions.
pub(crate) fn twin_key(blueprint: &Blueprint) -> String {
    own_key(&twin(blueprint))
}
