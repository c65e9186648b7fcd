//! The command line: parses, calls the libraries, prints. It decides nothing.

mod commands;
mod interrupt;
mod output;

use clap::{Parser, Subcommand};
use kvtier_sim::SimError;
use std::process::ExitCode;

/// Is the right KV already where the kernel needs it, and what policy keeps it there?
///
/// kvtier replays recorded sparse-attention accesses against residency policies over modelled memory tiers.
#[derive(Parser)]
#[command(version, propagate_version = true)]
#[command(after_help = "Example to start with: kvtier sweep configs/sweeps/quickstart.toml")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(commands::replay::Args),
    Sweep(commands::sweep::Args),
    Mrc(commands::mrc::Args),
    Report(commands::report::Args),
    Check(commands::check::Args),
    Policies(commands::policies::Args),
    Presets(commands::presets::Args),
    Trace(commands::trace::Args),
    Hw(commands::hw::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Replay(args) => commands::replay::run(args),
        Command::Sweep(args) => commands::sweep::run(args),
        Command::Mrc(args) => commands::mrc::run(args),
        Command::Report(args) => commands::report::run(&args),
        Command::Check(args) => commands::check::run(args),
        Command::Policies(args) => commands::policies::run(&args),
        Command::Presets(args) => commands::presets::run(&args),
        Command::Trace(args) => commands::trace::run(args),
        Command::Hw(args) => commands::hw::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            let interrupted = matches!(error.downcast_ref::<SimError>(), Some(SimError::Interrupted));
            ExitCode::from(if interrupted { 130 } else { 2 })
        }
    }
}
