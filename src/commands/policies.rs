//! `kvtier policies`: what can be chosen, from the tables that register it.

use crate::output;
use kvtier_policies::PolicyError;
use kvtier_policies::admission::ADMISSION;
use kvtier_policies::allocation::ALLOCATION;
use kvtier_policies::demotion::DEMOTION;
use kvtier_policies::eviction::EVICTION;
use kvtier_policies::prefetch::{Entry, PREFETCH};
use std::process::ExitCode;

/// List eviction, allocation, admission, demotion and prefetch policies with the state each keeps
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier policies --json")]
pub(crate) struct Args {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.json {
        output::say(serde_json::to_string_pretty(&as_json()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    output::say(
        "Eviction of the hot buffers (hot.policy). State is charged to HBM, beside 4 bytes of tag per slot and of",
    );
    output::say("page table per block.\n");
    let width = EVICTION.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    output::say(format!(
        "{:<width$}  {:>7}  {:>8}  {:>9}  what it does",
        "policy", "B/slot", "B/block", "B/stream"
    ));
    for entry in EVICTION {
        let state = entry.state;
        let (slot, block, stream) = (state.per_slot, state.per_block, state.per_stream);
        output::say(format!("{:<width$}  {slot:>7}  {block:>8}  {stream:>9}  {}", entry.name, entry.summary));
    }
    list_allocators();
    list_beyond_the_buffers();
    output::say(
        "\nPrefetch (prefetch.policy). State per stream, and more per block of k; configs/prefetch has the parameters.\n",
    );
    let width = PREFETCH.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    output::say(format!("{:<width$}  {:>9}  {:>7}  what it does", "policy", "B/stream", "B/block"));
    for entry in PREFETCH {
        let [stream, selected] = prefetch_state(entry)?;
        output::say(format!("{:<width$}  {stream:>9}  {selected:>7}  {}", entry.name, entry.summary));
    }
    Ok(ExitCode::SUCCESS)
}

/// Admission to the warm pages, and demotion between home tiers.
fn list_beyond_the_buffers() {
    output::say(
        "\nAdmission to the warm pages (warm.admission): who of those that leave a hot buffer enters\n",
    );
    let width = ADMISSION.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    output::say(format!("{:<width$}  {:>7}  {:>8}  what enters", "policy", "B/slot", "B/frame"));
    for entry in ADMISSION {
        let (slot, frame) = (entry.state.per_slot, entry.state.per_frame);
        output::say(format!("{:<width$}  {slot:>7}  {frame:>8}  {}", entry.name, entry.summary));
    }
    output::say(
        "\nDemotion between home tiers (demotion.policy): who moves down first; state is kept in host memory\n",
    );
    let width = DEMOTION.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    output::say(format!("{:<width$}  {:>8}  what moves down first", "policy", "B/block"));
    for entry in DEMOTION {
        output::say(format!("{:<width$}  {:>8}  {}", entry.name, entry.bytes_per_block, entry.summary));
    }
}

fn as_json() -> Result<serde_json::Value, PolicyError> {
    let eviction = EVICTION.iter().map(|entry| {
        serde_json::json!({
            "name": entry.name,
            "summary": entry.summary,
            "needs_future": entry.needs_future,
            "reads_near_misses": entry.reads_near,
            "reads_scores": entry.reads_scores,
            "resizes": entry.resizes,
            "bytes_per_slot": entry.state.per_slot,
            "bytes_per_block": entry.state.per_block,
            "bytes_per_stream": entry.state.per_stream,
        })
    });
    let allocation = ALLOCATION.iter().map(|entry| {
        serde_json::json!({
            "name": entry.name,
            "summary": entry.summary,
            "resizes": entry.resizes,
            "bytes_per_block": entry.state.per_block,
            "bytes_per_stream": entry.state.per_stream,
        })
    });
    let admission = ADMISSION.iter().map(|entry| {
        serde_json::json!({
            "name": entry.name,
            "summary": entry.summary,
            "reads_near_misses": entry.reads_near,
            "bytes_per_slot": entry.state.per_slot,
            "bytes_per_frame": entry.state.per_frame,
        })
    });
    let demotion = DEMOTION.iter().map(|entry| {
        let (name, bytes) = (entry.name, entry.bytes_per_block);
        serde_json::json!({ "name": name, "summary": entry.summary, "bytes_per_block": bytes })
    });
    let prefetch = PREFETCH.iter().map(|entry| {
        let [stream, selected] = prefetch_state(entry)?;
        Ok(serde_json::json!({
            "name": entry.name,
            "summary": entry.summary,
            "needs_future": entry.needs_future,
            "reads_near_misses": entry.reads_near,
            "bytes_per_stream": stream,
            "bytes_per_selected": selected,
        }))
    });
    Ok(serde_json::json!({
        "eviction": eviction.collect::<Vec<_>>(),
        "allocation": allocation.collect::<Vec<_>>(),
        "admission": admission.collect::<Vec<_>>(),
        "demotion": demotion.collect::<Vec<_>>(),
        "prefetch": prefetch.collect::<Result<Vec<_>, PolicyError>>()?,
    }))
}

/// Bytes of state with default parameters: per stream, and for each block of a selection.
fn prefetch_state(entry: &Entry) -> Result<[u64; 2], PolicyError> {
    let bytes = |k| entry.state_bytes(&toml::Table::new(), k);
    Ok([bytes(0)?, bytes(1)? - bytes(0)?])
}

/// Allocators, and which eviction policies go with those that change sizes.
fn list_allocators() {
    let able: Vec<&str> = EVICTION.iter().filter(|entry| entry.resizes).map(|entry| entry.name).collect();
    output::say(
        "\nAllocation: how slots are shared (hot.allocation). Those that change sizes during a run need one of",
    );
    output::say(format!("{}.\n", able.join(", ")));
    let width = ALLOCATION.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    output::say(format!(
        "{:<width$}  {:>8}  {:>9}  {:>7}  what it does",
        "allocator", "B/block", "B/stream", "resizes"
    ));
    for entry in ALLOCATION {
        let (block, stream) = (entry.state.per_block, entry.state.per_stream);
        let resizes = if entry.resizes { "yes" } else { "no" };
        output::say(format!(
            "{:<width$}  {block:>8}  {stream:>9}  {resizes:>7}  {}",
            entry.name, entry.summary
        ));
    }
}
