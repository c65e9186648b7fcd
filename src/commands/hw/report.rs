//! `kvtier hw report`: the page of what was measured on a device.

use crate::output;
use anyhow::{Context, bail};
use kvtier_reports::device::{DeviceInput, device_page};
use kvtier_sim::table;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Write a page of parity, whole steps, roofline and checks from the results of a device; needs no device
#[derive(clap::Args)]
#[command(after_help = "Example: kvtier hw report hw/results --out runs/hw.html")]
pub(crate) struct Args {
    /// Folder with any of parity.json, replays.json, roofline.json and check.json
    #[arg(default_value = "hw/results")]
    folder: PathBuf,
    /// Where to write the page
    #[arg(long, default_value = "runs/hw.html")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = &args.folder;
    let input = DeviceInput {
        parity: read(folder, "parity.json")?,
        replays: read(folder, "replays.json")?,
        roofline: read(folder, "roofline.json")?,
        checks: read(folder, "check.json")?,
    };
    if input.is_empty() {
        bail!("{}: holds none of parity.json, replays.json, roofline.json and check.json", folder.display());
    }
    output::make_folder_of(&args.out)?;
    table::write_file(&args.out, device_page(&input).as_bytes())?;
    output::say(format!("page: {}", args.out.display()));
    Ok(())
}

/// A file of the folder; none where it is not there.
fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).with_context(|| format!("{}: not what a device's command writes", path.display()))
}
