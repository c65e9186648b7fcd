//! How a replay runs on a device: what a configuration asks for, by whom it is decided, and what has no counterpart on a
//! device, which is refused with the field to change.

use super::{Managed, ReplayError};
use crate::ops::lookup::Policy;
use kvtier_policies::allocation::Allocation;
use kvtier_policies::prefetch::PrefetchShape;
use kvtier_sim::attribution::OpKind;
use kvtier_sim::choice::{Chooser, Transfer};
use kvtier_sim::overlap::{Launch, Overlap, Variant};
use kvtier_sim::setup::Blueprint;
use kvtier_sim::timer::{request_region, time_config};
use kvtier_sim::transfer::{Mechanism, Order};
use kvtier_sim::work::LayerWork;
use kvtier_sim::{SimError, Single};
use kvtier_traces::Newest;

/// How the operations of a step are ordered, submitted and decided.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) overlap: Overlap,
    /// What brings misses and prefetches, if always the same; a graph always does the same.
    pub(super) always: Option<Mechanism>,
    /// What says so of each list otherwise: the simulator's.
    pub(super) chooser: Chooser,
    pub(super) sorted: bool,
    /// Whether the host submits kernel by kernel instead of one graph.
    pub(super) eager: bool,
    /// The device's own policy, where it decides.
    pub(super) policy: Option<Policy>,
    /// Per layer that selects, the one during which its prefetches ahead are sent.
    pub(super) sources: Vec<Option<u32>>,
}

pub(super) fn refuse(field: &str, message: impl Into<String>) -> ReplayError {
    ReplayError::Setup(SimError::field(field, message))
}

impl Ways {
    /// What a point asks for, decided by whom `managed` says.
    ///
    /// # Errors
    /// If it asks for something that has no counterpart on a device.
    pub(super) fn new(single: &Single, managed: Managed) -> Result<Ways, ReplayError> {
        let blueprint = &single.blueprint;
        let region = request_region(blueprint, &single.recording);
        let time = time_config(blueprint, Variant::Offload, region)?;
        let eager = time.launch == Launch::Stream;
        let always = match time.transfer {
            Transfer::Always(mechanism) if time.transfer.may_copy(time.launch) && !eager => {
                let message = format!(
                    "`{}` takes its addresses from the host, and a graph has none in it; set time.launch = \"stream\"",
                    mechanism.name()
                );
                return Err(refuse("time.transfer", message));
            }
            Transfer::Always(mechanism) => Some(mechanism),
            // Of the gathers, which a graph can hold, none is cheaper than the flat one.
            Transfer::Auto if !eager => Some(Mechanism::Gather),
            Transfer::Auto => None,
        };
        check(single)?;
        Ok(Ways {
            overlap: time.overlap,
            always,
            chooser: Chooser::new(&blueprint.machine, &blueprint.model, &time),
            sorted: time.order == Order::Sorted,
            eager,
            policy: choose(single, always, managed)?,
            sources: sources(single)?,
        })
    }

    /// Whether copy engines may move blocks, told by the host.
    pub(super) fn copies(&self) -> bool {
        self.always.is_none_or(|mechanism| !mechanism.is_gather())
    }

    /// What brings every list, or where each has its own, the one that asks most of the device: the gather.
    pub(super) fn usual(&self) -> Mechanism {
        self.always.unwrap_or(Mechanism::Gather)
    }

    /// What brings the misses and the prefetches of a layer.
    pub(super) fn told(&self, layer: usize, work: &LayerWork) -> [Mechanism; 2] {
        let prefetched = if self.sources[layer].is_some() { &work.ahead } else { &work.prefetch };
        let told = [(OpKind::Demand, &work.demand), (OpKind::Prefetch, prefetched)]
            .map(|(kind, list)| self.chooser.mechanism(kind, list));
        assert!(
            self.always.is_some() || !told.contains(&Mechanism::GatherPerRequest),
            "where mechanisms are chosen, lists are flat, and no gather is cheaper than a flat one"
        );
        told
    }

    /// Whether the prefetches of a layer were decided in the step before the one that sends them.
    pub(super) fn sent_later(&self, layer: u32) -> bool {
        let first = layer == 0 && self.sources.len() > 1;
        self.overlap == Overlap::LayerAhead && self.sources[layer as usize].is_none() && !first
    }
}

/// What has no counterpart on a device.
fn check(single: &Single) -> Result<(), ReplayError> {
    let (blueprint, run) = (&single.blueprint, &single.run);
    if run.plane.tiers.cxl > 0 || run.plane.tiers.nvme > 0 {
        return Err(refuse(
            "tiers",
            "a device brings blocks from host memory alone; configure no tier below it",
        ));
    }
    if blueprint.allocation.entry.name != Allocation::default().entry.name {
        let message =
            format!("`{}` does not run on a device yet; leave it out", blueprint.allocation.entry.name);
        return Err(refuse("hot.allocation", message));
    }
    if blueprint.view.newest == Newest::Ordinary {
        return Err(refuse("selection.newest", "a device keeps the newest block apart; choose \"reserved\""));
    }
    let seats: Vec<u32> = (0..run.schedule.seats()).collect();
    let whole =
        |step: &kvtier_policies::StepSchedule| step.run.iter().map(|run| run.seat).eq(seats.iter().copied());
    if !run.schedule.steps.iter().all(whole) || run.plane.slots.iter().any(|&slots| slots != run.slots) {
        return Err(refuse("batch", "a device replays full batches with one buffer size for all layers"));
    }
    if run.plane.warm_frames > 0 { check_warm(single) } else { Ok(()) }
}

/// What the host cannot follow of the warm pages.
fn check_warm(single: &Single) -> Result<(), ReplayError> {
    let (blueprint, recording) = (&single.blueprint, &single.recording);
    if blueprint.prefetch.ahead {
        let message = format!(
            "`{}` runs ahead, which a device does not do beside warm pages: a frame could be written before it is free",
            blueprint.prefetch.name
        );
        return Err(refuse("prefetch.policy", message));
    }
    if blueprint.requests.iter().any(|&at| recording.requests()[at as usize].prefix_group.is_some()) {
        let message = "a device gives every request a home of its own, so that requests with a shared prefix \
                       cannot share warm pages; set it to \"0 B\"";
        return Err(refuse("warm.size", message));
    }
    Ok(())
}

/// The policy that decides on the device, if it does.
fn choose(
    single: &Single,
    always: Option<Mechanism>,
    managed: Managed,
) -> Result<Option<Policy>, ReplayError> {
    let blueprint = &single.blueprint;
    let own = on_device(blueprint);
    let plans = if single.run.plane.warm_frames > 0 {
        Some(("warm.size", "warm pages".to_owned()))
    } else {
        match always {
            None => Some(("time.transfer", "the lists that `auto` chooses for".to_owned())),
            Some(mechanism) if mechanism.is_gather() => None,
            Some(mechanism) => Some(("time.transfer", format!("the addresses of `{}`", mechanism.name()))),
        }
    };
    match (managed, own, plans) {
        (Managed::Host, ..) | (Managed::Either, _, Some(_)) => Ok(None),
        (Managed::Either, own, None) | (Managed::Device, own @ Some(_), None) => Ok(own),
        (Managed::Device, Some(_), Some((field, what))) => {
            Err(refuse(field, format!("{what} are kept by the host; let it decide (--managed host)")))
        }
        (Managed::Device, None, _) => {
            let names: Vec<&str> = Policy::ALL.iter().map(|policy| policy.name()).collect();
            let message = format!(
                "`{}` with prefetch `{}` is not decided on the device; policies that are, with their default \
                 parameters and prefetch none or next-ranked: {}",
                blueprint.eviction.name,
                blueprint.prefetch.name,
                names.join(", ")
            );
            Err(refuse("hot.policy", message))
        }
    }
}

/// The device's policy of this name, where it knows the prefetcher and the parameters as well.
fn on_device(blueprint: &Blueprint) -> Option<Policy> {
    let known = Policy::ALL.into_iter().find(|policy| policy.name() == blueprint.eviction.name);
    let prefetch = matches!(blueprint.prefetch.name, "none" | "next-ranked");
    known.filter(|_| prefetch && blueprint.config.hot.params.is_empty())
}

/// Ahead of which layers prefetches are brought, and during which.
fn sources(single: &Single) -> Result<Vec<Option<u32>>, ReplayError> {
    let blueprint = &single.blueprint;
    let source = |layer: usize| {
        let layer = crate::ops::count32(layer);
        let shape = PrefetchShape { layer, blocks: 1, k: blueprint.k };
        let built = blueprint.prefetch.build(&blueprint.config.prefetch.params, shape);
        Ok(built.map_err(SimError::from)?.and_then(|prefetcher| prefetcher.source()))
    };
    (0..single.run.map.layers()).map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::testing::single;

    fn ways(rest: &str, managed: Managed) -> Result<Ways, String> {
        Ways::new(&single("llama-3.1-8b", rest), managed).map_err(|error| error.to_string())
    }

    #[test]
    fn the_device_decides_what_it_knows_and_nothing_else() {
        let policy = |rest, managed| ways(rest, managed).map(|found| found.policy);
        assert_eq!(policy("", Managed::Either), Ok(Some(Policy::Lru)));
        assert_eq!(policy("", Managed::Host), Ok(None));
        for rest in [
            "[hot]\npolicy = \"sieve\"\n",
            "[warm]\nsize = \"1 MiB\"\n",
            "[prefetch]\npolicy = \"next-layer\"\n",
            "[time]\ntransfer = \"copy-loop\"\nlaunch = \"stream\"\n",
        ] {
            assert_eq!(policy(rest, Managed::Either), Ok(None), "{rest}");
        }
        let error = policy("[hot]\npolicy = \"sieve\"\n", Managed::Device).unwrap_err();
        assert!(error.starts_with("hot.policy: `sieve`") && error.contains("lru-step"), "{error}");
        let error = policy("[warm]\nsize = \"1 MiB\"\n", Managed::Device).unwrap_err();
        assert!(error.starts_with("warm.size: warm pages are kept by the host"), "{error}");
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_its_field() {
        for (rest, field) in [
            ("[time]\ntransfer = \"copy-batch\"\n", "time.transfer: `copy-batch`"),
            (
                "[warm]\nsize = \"1 MiB\"\n[prefetch]\npolicy = \"next-layer\"\n",
                "prefetch.policy: `next-layer`",
            ),
            ("[hot]\nallocation = \"utility\"\n", "hot.allocation: `utility`"),
            ("[nvme]\npool = \"1 GiB\"\n[demotion]\npolicy = \"age\"\n", "tiers"),
            ("[selection]\nnewest = \"ordinary\"\n", "selection.newest"),
        ] {
            let error = ways(rest, Managed::Either).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn auto_is_the_flat_gather_in_a_graph_and_a_choice_for_each_list_on_a_stream() {
        let graph = ways("[time]\ntransfer = \"auto\"\n", Managed::Either).unwrap();
        assert_eq!(
            (graph.always, graph.copies(), graph.policy),
            (Some(Mechanism::Gather), false, Some(Policy::Lru))
        );
        let stream = "[time]\ntransfer = \"auto\"\nlaunch = \"stream\"\n";
        let found = ways(stream, Managed::Either).unwrap();
        assert_eq!((found.always, found.copies(), found.policy), (None, true, None));
        let error = ways(stream, Managed::Device).unwrap_err();
        assert!(error.starts_with("time.transfer: the lists that `auto` chooses for"), "{error}");

        let mut single = single("llama-3.1-8b", stream);
        single.blueprint.machine.transfer.gather.rate = 1.0;
        let slow = Ways::new(&single, Managed::Either).unwrap();
        let mut work = LayerWork::default();
        work.demand.add_request(1);
        work.prefetch.add_request(100);
        assert_eq!(found.told(0, &work), [Mechanism::Gather; 2]);
        assert_eq!(slow.told(0, &work), [Mechanism::Gather, Mechanism::CopyBatch]);
        work.demand.add_request(100);
        assert_eq!(slow.told(0, &work), [Mechanism::CopyBatch; 2]);
    }

    #[test]
    fn layers_have_the_sources_of_their_prefetcher() {
        let sources = |rest| ways(rest, Managed::Either).unwrap().sources;
        assert_eq!(sources("[prefetch]\npolicy = \"next-ranked\"\n"), [None; 32]);
        let two = sources("[prefetch]\npolicy = \"next-layer\"\n[prefetch.params]\nlead = 2\n");
        assert_eq!(two[..4], [None, None, Some(0), Some(1)]);
    }
}
