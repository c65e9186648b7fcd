//! Sweeps with the policy of this crate beside kvtier's own: `cargo run --release -- sweep.toml`.

use kvtier_sim::grid::ConfigFile;
use kvtier_sim::record::PointKind;
use kvtier_sim::sweep::{Options, Sweep};
use kvtier_units::Bytes;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("give a sweep file, such as sweep.toml")?;
    let sweep = Sweep::plan_among(&outside_policy::table(), ConfigFile::read(Path::new(&file))?)?;
    let options = Options { threads: 2, memory: Bytes(4 << 30), stop: &|| false, finished: &|_| {} };
    for point in sweep.execute(None, &options)?.iter().filter(|point| point.kind == PointKind::Offload) {
        let config = &point.config;
        println!(
            "{:10} {:4} slots {:8} misses {}",
            config.policy, config.slots, point.steady.misses, point.decision_hash
        );
    }
    Ok(())
}
