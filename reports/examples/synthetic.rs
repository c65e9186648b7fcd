//! Writes the report of made-up points, to look at the page without running a sweep:
//! `cargo run --release -p kvtier-reports --example synthetic -- FOLDER [grid|many|one]`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use kvtier_reports::ReportInput;
use synthetic::{Choice, PLAIN};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("give a folder")?;
    let points = match arguments.next().as_deref() {
        Some("one") => vec![synthetic::point(&PLAIN)],
        Some("many") => {
            let mut points = Vec::new();
            for (machine, prefetch, requests) in [
                ("h100-pcie5", "none", 6),
                ("h100-pcie5", "next-ranked", 6),
                ("h100-pcie5", "none", 24),
                ("gh200", "none", 6),
            ] {
                for policy in ["lru", "lfu", "sieve", "s3-fifo", "belady"] {
                    for slots in [64, 128, 256] {
                        for overlap in ["serial", "hit-first"] {
                            let choice = Choice { policy, slots, overlap, prefetch, requests, machine };
                            points.push(synthetic::point(&choice));
                        }
                    }
                }
                if prefetch == "none" {
                    points.extend(synthetic::baselines(&Choice { requests, machine, ..PLAIN }));
                }
            }
            points
        }
        _ => synthetic::grid(),
    };
    kvtier_reports::write(
        dir.as_ref(),
        &ReportInput {
            title: "Quickstart: SmolLM2 pages on an H100",
            points: &points,
            notes: &["The trace holds six requests of 4.6 to 7.9 thousand tokens.".to_owned()],
            version: "kvtier 0.1.0 (8d538b4) · kvtier sweep configs/sweeps/quickstart.toml",
            config_toml: "name = \"quickstart\"\ntrace = \"traces/samples/smollm2-pages.parquet\"\n\n[grid]\npolicy = [\"fifo\", \"clock\", \"lru\", \"lru-step\", \"lfu\", \"random\", \"belady\"]\nslots = [32, 48, 64, 96, 128, 256]\noverlap = [\"serial\", \"hit-first\", \"layer-ahead\"]\n",
        },
    )?;
    Ok(())
}
