//! `kvtier hw`: what of the real hardware is here.

use crate::output;
use std::process::ExitCode;

/// The GPU companion: what device there is
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier hw info")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the CUDA device found, or say why there is none (exit code 2)
    #[command(after_help = "Example: kvtier hw info")]
    Info,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Info => output::say(kvtier_hw::info()?.to_string()),
    }
    Ok(ExitCode::SUCCESS)
}
