//! Lowering: a configuration, checked once against its trace, machine and model, becomes the parts that run.
//! Nothing downstream reads `RunConfig` again.

use crate::batch::StreamMap;
use crate::config::{PrefetchConfig, RunConfig, StartConfig};
use crate::error::SimError;
use crate::machine::Machine;
use crate::model::Model;
use crate::presets;
use kvtier_policies::admission::{self, ADMISSION};
use kvtier_policies::allocation::{self, Allocation};
use kvtier_policies::demotion::{self, DEMOTION};
use kvtier_policies::eviction::{self, EVICTION};
use kvtier_policies::{DecisionPlane, PlaneConfig, Schedule, ScheduleError, Start, TierConfig, prefetch};
use kvtier_traces::{Header, Recording, Request, TraceReader, View};
use kvtier_units::{Bytes, Seed};
use std::path::{Path, PathBuf};

/// What can be known of a run before its trace is decoded.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The configuration, with the trace's path resolved.
    pub config: RunConfig,
    /// How the trace is read.
    pub view: View,
    /// The machine.
    pub machine: Machine,
    /// The model whose geometry is used.
    pub model: Model,
    /// Eviction policy.
    pub eviction: eviction::Entry,
    /// Prefetch policy.
    pub prefetch: prefetch::Entry,
    /// Admission to the warm pages.
    pub admission: admission::Choice,
    /// Demotion of home blocks.
    pub demotion: demotion::Choice,
    /// How slots are shared.
    pub allocation: Allocation,
    /// Recorded requests that run, in order.
    pub requests: Vec<u32>,
    /// xxh3-64 of the trace file.
    pub trace_hash: u64,
    /// Blocks per selection, at most: as asked, or as recorded.
    pub k: u32,
    /// Near misses that were recorded beyond a selection of this k.
    pub recorded_near: u32,
}

/// Everything the engine needs besides the recording itself.
#[derive(Clone, Debug)]
pub struct Run {
    /// Decision plane.
    pub plane: PlaneConfig,
    /// Which requests take part in which step.
    pub schedule: Schedule,
    /// Which recorded stream each stream of the model replays.
    pub map: StreamMap,
    /// Requests decoding at once.
    pub concurrency: u32,
    /// Engine steps.
    pub steps: u32,
    /// First engine step of the measured window.
    pub measure_from: u32,
    /// Slots per hot buffer.
    pub slots: u32,
    /// Blocks per selection, at most.
    pub k: u32,
}

/// The trace's header and requests, read once for all points that share it.
#[derive(Clone, Debug)]
pub struct TraceIdentity {
    /// Path as resolved.
    pub path: PathBuf,
    /// Header.
    pub header: Header,
    /// Requests.
    pub requests: Vec<Request>,
    /// xxh3-64 of the file.
    pub hash: u64,
}

impl TraceIdentity {
    /// Reads the identity of the trace at `path`, or at `path` under `folder` where there is none.
    ///
    /// # Errors
    /// If the file is missing, truncated or not a trace.
    pub fn read(path: &Path, folder: Option<&Path>) -> Result<TraceIdentity, SimError> {
        let beside =
            folder.map(|folder| folder.join(path)).filter(|beside| !path.exists() && beside.exists());
        let path = beside.unwrap_or_else(|| path.into());
        let reader = TraceReader::open(&path)?;
        let hash = reader.file_hash()?;
        Ok(TraceIdentity {
            header: reader.header().clone(),
            requests: reader.requests().to_vec(),
            hash,
            path,
        })
    }
}

impl Blueprint {
    /// Checks everything that does not need the rows of the trace; the policies are this product's own.
    ///
    /// # Errors
    /// If a name is unknown, or shapes or settings do not go together; the error names the field and the remedy.
    pub fn new(config: &RunConfig, trace: &TraceIdentity) -> Result<Blueprint, SimError> {
        Blueprint::among(EVICTION, config, trace)
    }

    /// The same with the eviction policies of `table`, which may hold some from another crate.
    ///
    /// # Errors
    /// As [`Blueprint::new`].
    pub fn among(
        table: &[eviction::Entry],
        config: &RunConfig,
        trace: &TraceIdentity,
    ) -> Result<Blueprint, SimError> {
        let machine = presets::machine(&config.machine)?;
        let model = presets::model(&config.model)?;
        let eviction = *eviction::find(table, &config.hot.policy)?;
        let prefetch = *prefetch::find(&config.prefetch.policy)?;
        let (admission, demotion) = choose_tiers(config, &machine)?;
        let allocation = Allocation {
            entry: *allocation::find(&config.hot.allocation)?,
            params: config.hot.allocation_params.clone(),
        };
        let k = config.selection.k.unwrap_or(trace.header.k);
        let reads_near = eviction.reads_near || prefetch.reads_near || admission.entry.reads_near;
        let near = config.selection.near.unwrap_or(u32::MAX);
        let view = View {
            k: config.selection.k,
            near: if reads_near { near } else { 0 },
            fold: config.selection.fold.unwrap_or(1),
            newest: config.selection.newest,
            scores: eviction.reads_scores,
        };
        if view.fold == 0 {
            return Err(SimError::field("selection.fold", "must be at least 1; 1 leaves blocks as recorded"));
        }
        if k == 0 || k > trace.header.k {
            let message = format!(
                "{k} is not within 1..{}, the ranks recorded in {}",
                trace.header.k,
                trace.path.display()
            );
            return Err(SimError::field("selection.k", message));
        }
        if eviction.reads_scores && trace.header.score.is_none() {
            let (policy, trace) = (eviction.name, trace.path.display());
            let message = format!(
                "`{policy}` reads scores, and {trace} has none; choose another policy, or a trace with scores"
            );
            return Err(SimError::field("hot.policy", message));
        }
        check_blocks(&view, trace, &model)?;
        let slots = config.hot.slots.of(k);
        if slots == 0 {
            return Err(SimError::field(
                "hot.slots",
                "0 slots hold nothing; give a number, or a multiple such as \"2k\"",
            ));
        }
        let requests = choose_requests(config, trace)?;
        let recorded_near = trace.header.k.saturating_sub(k) + trace.header.extra;
        let config = resolve(config, trace, &prefetch);
        Ok(Blueprint {
            config,
            view,
            machine,
            model,
            eviction,
            prefetch,
            admission,
            demotion,
            allocation,
            requests,
            trace_hash: trace.hash,
            k,
            recorded_near,
        })
    }

    /// The parts that run over `recording`, which was decoded under this blueprint's view.
    ///
    /// # Errors
    /// If the buffers cannot hold a selection, or nothing is left to replay.
    pub fn lower(&self, recording: &Recording) -> Result<Run, SimError> {
        let config = &self.config;
        let k = u32::try_from(recording.max_selected()).expect("selections have fewer than 2^32 blocks");
        let map = self.map(recording.header());
        let lengths: Vec<(u32, u32)> =
            self.requests.iter().map(|&request| (request, recording.steps(request as usize))).collect();
        let steps = self.steps(recording.requests());
        let default_seats = u32::try_from(lengths.len()).expect("fewer than 2^32 requests");
        let concurrency = config.batch.concurrency.unwrap_or(default_seats);
        let schedule = Schedule::closed(&lengths, concurrency, steps, config.batch.stagger)?;
        self.check_window(steps)?;
        Ok(Run {
            plane: self.plane(k, &map),
            schedule,
            map,
            concurrency,
            steps,
            measure_from: config.measure.from_step,
            slots: self.slots(),
            k: self.k,
        })
    }

    /// Checks what can be known of the run before the rows of its trace are read.
    ///
    /// # Errors
    /// If a buffer cannot hold a selection, a policy parameter is wrong, settings exclude each other, or nothing is
    /// left to run or to measure.
    pub fn check(&self, trace: &TraceIdentity) -> Result<(), SimError> {
        self.check_window(self.steps(&trace.requests))?;
        if self.config.batch.concurrency == Some(0) {
            return Err(ScheduleError::NoSeats.into());
        }
        // Folding can only shrink a selection; by how much is known once the rows are read.
        let k = if self.view.fold == 1 { self.k } else { self.k.min(self.slots()) };
        let mut plane = self.plane(k, &self.map(&trace.header));
        if plane.warm_frames == 0 && self.config.warm.admission != "always" {
            let message = format!(
                "`{}` has no warm pages to guard; set warm.size to at least one block of {}",
                self.config.warm.admission, self.model.attention.block_bytes
            );
            return Err(SimError::field("warm.admission", message));
        }
        plane.warm_frames = 0; // nothing to reserve for a check
        DecisionPlane::new(plane)?;
        Ok(())
    }

    fn slots(&self) -> u32 {
        self.config.hot.slots.of(self.k)
    }

    fn map(&self, header: &Header) -> StreamMap {
        let recorded = (header.layers.len(), usize::from(header.head_groups));
        StreamMap::new(recorded, (self.model.sparse_layers(), self.model.attention.head_groups as usize))
    }

    /// Engine steps: as asked, or those of the longest request.
    fn steps(&self, requests: &[Request]) -> u32 {
        let recorded = self.requests.iter().map(|&request| requests[request as usize].output_steps).max();
        self.config.batch.steps.or(recorded).unwrap_or(0)
    }

    fn check_window(&self, steps: u32) -> Result<(), SimError> {
        let from = self.config.measure.from_step;
        if from < steps {
            return Ok(());
        }
        let message =
            format!("{from} leaves nothing to measure of {steps} steps; give less, or raise batch.steps");
        Err(SimError::field("measure.from_step", message))
    }

    /// The decision plane for selections of at most `k` blocks.
    fn plane(&self, k: u32, map: &StreamMap) -> PlaneConfig {
        let (config, attention) = (&self.config, &self.model.attention);
        PlaneConfig {
            eviction: self.eviction,
            params: config.hot.params.clone(),
            slots: vec![self.slots(); map.layers()],
            allocation: self.allocation.clone(),
            head_groups: attention.head_groups,
            k,
            prefetch: self.prefetch,
            prefetch_params: config.prefetch.params.clone(),
            prefetch_budget: config.prefetch.budget,
            warm_frames: usize::try_from(config.warm.size.0 / attention.block_bytes.0)
                .expect("a pool fits the address space"),
            admission: self.admission.clone(),
            home_capacity: self.host_pool().0,
            tiers: TierConfig {
                cxl: config.cxl.pool.0,
                nvme: config.nvme.pool.0,
                demotion: self.demotion.clone(),
                high: config.demotion.high,
                low: config.demotion.low,
                batch: config.demotion.batch,
                promote: config.demotion.promote,
            },
            block_bytes: attention.block_bytes.0,
            start: match config.hot.start {
                StartConfig::Cold => Start::Cold,
                StartConfig::Recent => Start::Recent,
            },
            seed: Seed(config.seed),
        }
    }

    /// Pinned host memory for home copies.
    pub fn host_pool(&self) -> Bytes {
        self.config.host.pool.unwrap_or(self.machine.host_pool)
    }
}

/// Who enters the warm pages and who moves down from host; a tier that is used must be there.
fn choose_tiers(
    config: &RunConfig,
    machine: &Machine,
) -> Result<(admission::Choice, demotion::Choice), SimError> {
    let admission = admission::Choice {
        entry: *admission::find(ADMISSION, &config.warm.admission)?,
        params: config.warm.params.clone(),
    };
    let demotion = demotion::Choice {
        entry: *demotion::find(DEMOTION, &config.demotion.policy)?,
        params: config.demotion.params.clone(),
    };
    let tiers = [("cxl", config.cxl.pool, machine.cxl), ("nvme", config.nvme.pool, machine.nvme)];
    match tiers.iter().find(|(_, pool, tier)| *pool > Bytes::ZERO && tier.is_none()) {
        None => Ok((admission, demotion)),
        Some((name, ..)) => Err(SimError::field(
            &format!("{name}.pool"),
            format!(
                "machine `{}` has no [{name}]; drop the pool, choose another machine (`kvtier presets` lists them), \
                 or give read, write and latency under [{name}] in a machine file",
                machine.name
            ),
        )),
    }
}

/// The configuration with its trace's path, and without a budget for nothing, which would tell equal points apart.
fn resolve(config: &RunConfig, trace: &TraceIdentity, prefetch: &prefetch::Entry) -> RunConfig {
    let mut config = RunConfig { trace: trace.path.clone(), ..config.clone() };
    if !prefetch.prefetches {
        config.prefetch.budget = PrefetchConfig::default().budget;
    }
    config
}

/// The model's block must be the trace's, after folding.
fn check_blocks(view: &View, trace: &TraceIdentity, model: &Model) -> Result<(), SimError> {
    let recorded = trace.header.entries_per_block;
    let (have, want) =
        (u64::from(recorded) * u64::from(view.fold), u64::from(model.attention.entries_per_block));
    if have == want {
        return Ok(());
    }
    let remedy = if want.is_multiple_of(u64::from(recorded)) {
        format!("set selection.fold = {}", want / u64::from(recorded))
    } else {
        "choose another model or trace".into()
    };
    Err(SimError::field(
        "model",
        format!(
            "`{}` moves blocks of {want} entries, and {} gives blocks of {have}; {remedy}",
            model.name,
            trace.path.display()
        ),
    ))
}

fn choose_requests(config: &RunConfig, trace: &TraceIdentity) -> Result<Vec<u32>, SimError> {
    let index = |id: &String| {
        let at = trace.requests.iter().position(|request| request.id == *id);
        at.map(|at| u32::try_from(at).expect("fewer than 2^32 requests")).ok_or_else(|| {
            let known: Vec<&str> = trace.requests.iter().map(|request| request.id.as_str()).collect();
            let hint = kvtier_policies::nearest(id, &known);
            let hint = hint.map(|best| format!("did you mean \"{best}\"? ")).unwrap_or_default();
            let message =
                format!("{} has no request `{id}`; {hint}it has: {}", trace.path.display(), known.join(", "));
            SimError::field("batch.requests", message)
        })
    };
    if config.batch.requests.is_empty() {
        return Ok((0u32..).zip(&trace.requests).map(|(at, _)| at).collect());
    }
    config.batch.requests.iter().map(index).collect()
}
