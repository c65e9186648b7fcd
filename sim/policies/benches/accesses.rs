//! Million accesses per second with selections of one block, through `HotBuffer::access`: what a plain cache simulator does.
//! `cargo bench -p kvtier-policies --bench accesses [-- POLICY...]` replays the reference's sparse_decode at a tenth of its blocks.
//! beside_libcachesim.py compares with libCacheSim, by way of `write` (a trace) and `time` (one line per policy).

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and may panic

mod timing;

#[path = "../tests/trace/mod.rs"]
#[allow(dead_code)] // what only tests and other benches read of a trace
mod trace;

use kvtier_policies::HotBuffer;
use kvtier_policies::eviction::{BufferShape, EVICTION, find};
use kvtier_units::{BlockId, Seed};
use std::error::Error;

/// Accesses that are timed together.
const PART: usize = 50_000;

/// Rounds of each measurement in the table.
const ROUNDS: usize = 25;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["write", file, accesses] => write(file, accesses.parse()?),
        ["time", file, slots, rounds, ref policies @ ..] => {
            time(file, slots.parse()?, rounds.parse()?, policies)
        }
        ref policies => table(policies),
    }
}

/// Accesses, and what Belady has to know.
struct Accesses {
    blocks: Vec<BlockId>,
    next_use: Vec<u32>,
    /// Blocks are numbered below this.
    distinct: u32,
}

impl Accesses {
    fn new(ids: &[u32]) -> Accesses {
        let distinct = ids.iter().max().map_or(0, |most| most + 1);
        let mut last = vec![u32::MAX; distinct as usize];
        let mut next_use = vec![0; ids.len()];
        for at in (0..ids.len()).rev() {
            let now = u32::try_from(at).expect("a trace has fewer than 2^32 accesses");
            next_use[at] = std::mem::replace(&mut last[ids[at] as usize], now);
        }
        Accesses { blocks: ids.iter().copied().map(BlockId).collect(), next_use, distinct }
    }

    /// Times one policy, given as `name` or `name:parameters`.
    fn time(&self, policy: &str, slots: u32, rounds: usize) -> Result<(timing::Timing, u64), Box<dyn Error>> {
        let (name, params) = policy.split_once(':').unwrap_or((policy, ""));
        let (entry, params) = (find(EVICTION, name)?, params.parse()?);
        let shape = BufferShape { slots, blocks: self.distinct, k: 1, seed: Seed(1) };
        entry.build(&params, shape)?;
        let prepare = || entry.build(&params, shape).expect("it was built before");
        let run = |buffer: &mut Box<dyn HotBuffer>, part: usize| {
            let range = part * PART..self.blocks.len().min((part + 1) * PART);
            let next_use = if entry.needs_future { &self.next_use[range.clone()] } else { &[][..] };
            buffer.access(&self.blocks[range], next_use)
        };
        Ok(timing::time(rounds, self.blocks.len().div_ceil(PART), prepare, run))
    }
}

fn table(policies: &[&str]) -> Outcome {
    let trace = trace::sparse_decode(2_000_000);
    let accesses = Accesses::new(&trace.accesses);
    let slots = trace.blocks / 10;
    println!(
        "sparse_decode, one block a step: {} accesses, {slots} slots, {ROUNDS} rounds",
        accesses.blocks.len()
    );
    println!("million accesses/s undisturbed (median round)");
    let all = || EVICTION.iter().map(|entry| entry.name).filter(|name| !BY_STEP.contains(name));
    let chosen: Vec<&str> = if policies.is_empty() { all().collect() } else { policies.to_vec() };
    for policy in chosen {
        let (timing, misses) = accesses.time(policy, slots, ROUNDS)?;
        let [undisturbed, median] = timing.rates(accesses.blocks.len() as u64);
        println!("{policy:12} {undisturbed:8.1} ({median:6.1})  {misses:8} misses");
    }
    Ok(())
}

/// Policies that weigh every slot for each victim, or fade all of them each step: made for steps, not for one block
/// among thousands of slots.
const BY_STEP: &[&str] = &[
    "lfu-aging",
    "hyperbolic",
    "rank-recency",
    "aged-score",
    "attention-mass",
    "region-utility",
    "echo",
    "random",
];

/// Writes the first accesses of sparse_decode, a little-endian u64 each.
fn write(file: &str, accesses: usize) -> Outcome {
    let ids = trace::sparse_decode(accesses).accesses;
    let bytes: Vec<u8> = ids.into_iter().flat_map(|id| u64::from(id).to_le_bytes()).collect();
    Ok(std::fs::write(file, bytes)?)
}

/// Prints `policy;misses;undisturbed ns;median ns` for each policy over the trace in a file.
fn time(file: &str, slots: u32, rounds: usize, policies: &[&str]) -> Outcome {
    let bytes = std::fs::read(file)?;
    let ids = bytes.chunks_exact(8).map(|id| Ok(u32::try_from(u64::from_le_bytes(id.try_into()?))?));
    let accesses = Accesses::new(&ids.collect::<Result<Vec<u32>, Box<dyn Error>>>()?);
    for policy in policies {
        let (timing, misses) = accesses.time(policy, slots, rounds)?;
        let [undisturbed, median] = [timing.undisturbed, timing.median].map(|time| time.as_nanos());
        println!("{};{misses};{undisturbed};{median}", policy.replace('\n', " "));
    }
    Ok(())
}
