//! `kvtier presets`: machines and models, and every constant of one with its source.

use crate::output;
use anyhow::bail;
use kvtier_sim::presets::{self, MACHINES, MODELS};
use std::process::ExitCode;

/// List machines and models, or show one preset with the source of every constant
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kvtier presets\n  kvtier presets h100-pcie5\n  kvtier presets h100-pcie5 --toml > machine.toml"
)]
pub(crate) struct Args {
    /// Preset to show
    name: Option<String>,
    /// Print its TOML, to start a preset of your own from
    #[arg(long, requires = "name")]
    toml: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.name else {
        let names = |list: &[(&str, &str)]| {
            list.iter().map(|(name, _)| format!("  {name}")).collect::<Vec<_>>().join("\n")
        };
        output::say(format!("machines\n{}\n\nmodels\n{}", names(MACHINES), names(MODELS)));
        return Ok(ExitCode::SUCCESS);
    };
    let Some((_, text)) = MACHINES.iter().chain(MODELS).find(|(preset, _)| preset == name) else {
        let known: Vec<&str> = MACHINES.iter().chain(MODELS).map(|(name, _)| *name).collect();
        let hint = kvtier_policies::nearest(name, &known)
            .map(|best| format!("did you mean \"{best}\"? "))
            .unwrap_or_default();
        bail!("unknown preset `{name}`; {hint}one of: {}", known.join(", "));
    };
    if args.toml {
        output::say(text.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    for constant in presets::constants(text)? {
        output::say(format!("{} = {} ({})", constant.path, constant.value, constant.kind));
        output::say(format!("    {}", constant.source));
    }
    Ok(ExitCode::SUCCESS)
}
