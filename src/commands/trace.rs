//! `kvtier trace`: look at a trace, check it, convert raw recordings into one.

use crate::output;
use anyhow::Context;
use kvtier_traces::import::{RecordingOptions, convert_recordings};
use kvtier_traces::{TraceReader, validate};
use std::path::PathBuf;
use std::process::ExitCode;

/// Look at, check and convert traces
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier trace info traces/samples/smollm2-pages.parquet")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the header and the requests of a trace
    #[command(after_help = "Example: kvtier trace info traces/samples/smollm2-pages.parquet")]
    Info {
        /// Trace file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every row of a trace against the format, and print what it holds
    ///
    /// Damage that still follows the format passes: compare the hash that `kvtier trace info FILE --json` prints.
    #[command(after_help = "Example: kvtier trace validate traces/samples/smollm2-pages.parquet")]
    Validate {
        /// Trace file
        file: PathBuf,
    },
    /// Convert raw recordings (one row per selected block) into a trace
    ///
    /// What such a file holds: traces/FORMAT.md, raw recordings.
    #[command(after_help = "Example: kvtier trace convert raw_topk_0.parquet raw_topk_1.parquet \\\n  \
        --next raw_next_0.parquet --next raw_next_1.parquet --out mine.parquet")]
    Convert(Convert),
}

#[derive(clap::Args)]
struct Convert {
    /// Recorder files with the selected blocks
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Recorder files with the ranks just below the selection
    #[arg(long)]
    next: Vec<PathBuf>,
    /// Trace to write
    #[arg(long)]
    out: PathBuf,
    /// Only this request; may be given several times
    #[arg(long = "request")]
    requests: Vec<String>,
    /// Only the first so many decode steps
    #[arg(long)]
    steps: Option<u32>,
    /// Only this layer, by the model's own number; may be given several times
    #[arg(long = "layer")]
    layers: Vec<u16>,
    /// Only the best so many ranks
    #[arg(long)]
    k: Option<u32>,
    /// Leave the scores out
    #[arg(long)]
    no_scores: bool,
    /// Where the recordings come from, for the header
    #[arg(long)]
    provenance: Option<String>,
    /// Licence of the trace, for the header
    #[arg(long)]
    licence: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Info { file, json } => {
            let reader = TraceReader::open(&file)?;
            if json {
                let hash = format!("{:016x}", reader.file_hash()?);
                let info = serde_json::json!({
                    "file": file, "hash": hash, "rows": reader.rows(),
                    "header": reader.header(), "requests": reader.requests(),
                });
                output::say(serde_json::to_string_pretty(&info)?);
            } else {
                info(&reader)?;
            }
        }
        Command::Validate { file } => output::say(validate(&file)?.to_string().trim_end()),
        Command::Convert(convert) => {
            let defaults = RecordingOptions::default();
            let options = RecordingOptions {
                requests: convert.requests,
                steps: convert.steps.map(|steps| 0..steps),
                layers: convert.layers,
                k: convert.k,
                scores: !convert.no_scores,
                provenance: convert.provenance.unwrap_or(defaults.provenance.clone()),
                licence: convert.licence.unwrap_or(defaults.licence.clone()),
                ..defaults
            };
            let summary = convert_recordings(&convert.files, &convert.next, &convert.out, &options)
                .with_context(|| format!("cannot convert into {}", convert.out.display()))?;
            output::say(summary.to_string().trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn info(reader: &TraceReader) -> anyhow::Result<()> {
    let header = reader.header();
    let scores = header.score.as_deref().unwrap_or("none");
    let lines = [
        (
            "model",
            format!("{}, {} layers x {} head groups", header.model, header.layers.len(), header.head_groups),
        ),
        ("block", format!("{} entries, {}", header.entries_per_block, header.bytes_per_block)),
        ("selection", format!("k {}, {} extra ranks, by {}", header.k, header.extra, header.selector)),
        ("scores", scores.to_owned()),
        (
            "rows",
            format!("{} in {} row groups, {}", reader.rows(), reader.row_groups(), reader.file_bytes()?),
        ),
        ("hash", format!("{:016x}", reader.file_hash()?)),
        ("provenance", header.provenance.clone()),
        ("licence", header.licence.clone()),
    ];
    lines.iter().for_each(|(name, value)| output::say(format!("{name:<11} {value}")));
    let rows: Vec<Vec<String>> = reader
        .requests()
        .iter()
        .map(|request| {
            let prefix = request
                .prefix_group
                .map_or("-".into(), |group| format!("{} of {group}", request.prefix_entries));
            vec![
                request.id.clone(),
                request.kind.clone(),
                request.prompt_entries.to_string(),
                request.output_steps.to_string(),
                prefix,
            ]
        })
        .collect();
    output::say("");
    output::say(output::table(&["request", "kind", "prompt", "steps", "shared prefix"], &rows));
    Ok(())
}
