//! `kvtier hw probe` without a GPU: a machine file made from the committed figures of one H100 is a machine that runs.

mod program;

use kvtier_sim::presets;
use program::{Folder, Outcome, SMALL};

const FIGURES: &str = "hw/results/probe.json";

#[test]
fn committed_figures_make_a_machine_that_replays() {
    let folder = Folder::new();
    let file = folder.arg("probed.toml");
    let told = Outcome::of(["hw", "probe", "--from", FIGURES, "--out", &file]).ended(0).out;
    assert!(told.contains("carried over from h100-pcie5, not measured: gpu.bf16"), "{told}");

    let text = std::fs::read_to_string(&file).expect("written");
    let constants = presets::constants(&text).expect("TOML");
    let of = |path: &str| constants.iter().find(|one| one.path == path).expect(path);
    for path in ["gpu.hbm_read", "kernels.graph_node", "kernels.submission", "link.h2d", "link.d2h_duplex"] {
        let source = &of(path).source;
        assert_eq!(of(path).kind, "measured", "{path}");
        assert!(
            ["H100", "driver 580", "2026-", "spread"].iter().all(|part| source.contains(part)),
            "{source}"
        );
    }
    assert_eq!(of("transfer.gather.walk").kind, "fitted");
    assert!(of("nvme.read").source.contains("not probed: carried over from h100-pcie5"));

    // Its gathers are near those of the preset that was fitted to another day's measurements.
    let (probed, preset) =
        (presets::machine(&file).expect("a machine"), presets::machine("h100-pcie5").expect("a preset"));
    let ratio = probed.transfer.gather.rate / preset.transfer.gather.rate;
    assert!((0.8..1.25).contains(&ratio), "gather rate {ratio} of the preset's");
    let config = folder.write("config.toml", SMALL.replace("h100-pcie5", &file));
    Outcome::of(["replay", &config]).ended(0);
}

#[test]
fn what_cannot_be_done_is_one_line() {
    Outcome::of(["hw", "probe", "--from", FIGURES, "--out", "mine"]).refused(&["NAME.toml"]);
    Outcome::of(["hw", "probe", "--from", FIGURES, "--out", "x.toml", "--base", "h100"])
        .refused(&["one of: h100-pcie5"]);
    Outcome::of(["hw", "probe", "--from", "README.md", "--out", "x.toml"])
        .refused(&["README.md", "--figures"]);
    if kvtier_hw::info().is_err() {
        Outcome::of(["hw", "probe", "--out", "x.toml"]).refused(&["CUDA"]);
    }
}
