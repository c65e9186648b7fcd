//! What the tests of this module share: a short replay of shipped pages.

use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_units::Bytes;

/// Two requests of the shipped pages for 24 steps on the model of this name; `rest` is more of the configuration.
pub(super) fn single(model: &str, rest: &str) -> Single {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = \"{trace}\"\nmodel = \"{model}\"\nmachine = \"h100-pcie5\"\n[batch]\nconcurrency = 2\nsteps = 24\n{rest}"
    );
    Single::prepare(&ConfigFile::parse(&text).expect("a configuration"), Bytes(1 << 30)).expect("it lowers")
}
