//! Presets by name: the files of configs/machines and configs/models, embedded so that the binary works anywhere.
//! A path to a TOML file of the same form serves as well.

use crate::constant::{self, Provenance};
use crate::machine::{self, Machine};
use crate::model::{self, Model};
use std::path::Path;
use thiserror::Error;

/// Why a preset could not be loaded.
#[derive(Debug, Error)]
pub enum PresetError {
    /// Neither a preset nor a path to a TOML file.
    #[error("unknown {what} `{name}`{} one of: {known}; or give the path of a .toml file", hint(.nearest))]
    Unknown {
        /// `machine` or `model`.
        what: &'static str,
        /// What was given.
        name: String,
        /// The nearest name, if one is near.
        nearest: Option<&'static str>,
        /// All names.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not describe what it should.
    #[error("{path}: {fault}")]
    Invalid {
        /// The file, or the preset's name.
        path: String,
        /// Field and fault.
        fault: String,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or(";".to_owned(), |name| format!("; did you mean `{name}`?"))
}

macro_rules! embedded {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../configs/", $folder, "/", $name, ".toml")))),+]
    };
}

/// Machine presets: name and TOML.
pub const MACHINES: &[(&str, &str)] =
    embedded!("machines": "h100-pcie5", "h200-pcie5", "a100-pcie4", "gh200", "gb200");

/// Model presets: name and TOML.
pub const MODELS: &[(&str, &str)] = embedded!(
    "models": "smollm2-135m", "llama-3.1-8b", "deepseek-v3.2-fp8", "deepseek-v3.2-bf16", "glm-5", "minimax-m3"
);

/// Loads a machine by preset name or by path.
///
/// # Errors
/// If there is no such preset or file, or the file is not a valid machine.
pub fn machine(name_or_path: &str) -> Result<Machine, PresetError> {
    let text = text("machine", MACHINES, name_or_path)?;
    machine::parse(&text).map_err(|fault| PresetError::Invalid { path: name_or_path.to_owned(), fault })
}

/// Loads a model by preset name or by path.
///
/// # Errors
/// If there is no such preset or file, or the file is not a valid model.
pub fn model(name_or_path: &str) -> Result<Model, PresetError> {
    let text = text("model", MODELS, name_or_path)?;
    model::parse(&text).map_err(|fault| PresetError::Invalid { path: name_or_path.to_owned(), fault })
}

/// The TOML of a machine, by preset name or by path.
///
/// # Errors
/// If there is no such preset or file.
pub fn machine_text(name_or_path: &str) -> Result<String, PresetError> {
    text("machine", MACHINES, name_or_path)
}

/// The TOML of a model, by preset name or by path.
///
/// # Errors
/// If there is no such preset or file.
pub fn model_text(name_or_path: &str) -> Result<String, PresetError> {
    text("model", MODELS, name_or_path)
}

/// Lists the constants of a preset's TOML with their sources.
///
/// # Errors
/// If the text is not TOML.
pub fn constants(text: &str) -> Result<Vec<Provenance>, PresetError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| PresetError::Invalid {
        path: "preset".to_owned(),
        fault: constant::fault(text, &error),
    })?;
    Ok(constant::provenance(&table))
}

fn text(
    what: &'static str,
    presets: &'static [(&'static str, &'static str)],
    name: &str,
) -> Result<String, PresetError> {
    if let Some((_, text)) = presets.iter().find(|(preset, _)| *preset == name) {
        return Ok((*text).to_owned());
    }
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        return std::fs::read_to_string(name)
            .map_err(|source| PresetError::Unreadable { path: name.to_owned(), source });
    }
    let names: Vec<&'static str> = presets.iter().map(|(preset, _)| *preset).collect();
    let nearest = kvtier_policies::nearest(name, &names);
    Err(PresetError::Unknown { what, name: name.to_owned(), nearest, known: names.join(", ") })
}
