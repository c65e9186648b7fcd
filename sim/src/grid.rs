//! Configuration files: one run, or a grid over any of its fields, with settings overridden from outside.
//! A point's id is a hash of its full configuration, its presets and its trace, so results can be resumed and merged.

use crate::config::RunConfig;
use crate::constant;
use crate::error::SimError;
use crate::presets;
use kvtier_policies::eviction::EVICTION;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use xxhash_rust::xxh3::xxh3_128;

/// A configuration file: a run, and optionally a grid over its fields.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Where it was read from, if from a file.
    pub path: Option<PathBuf>,
    /// Name of the sweep; names its results folder.
    pub name: String,
    /// Whether each group of points is accompanied by its baselines.
    pub baselines: bool,
    base: Table,
    grid: Vec<(String, Vec<Value>)>,
}

/// The field over which a grid may take every policy of this repository, without a list.
const POLICY: &str = "hot.policy";

/// Fields that only a sweep has.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SweepFields {
    name: Option<String>,
    #[serde(default = "yes")]
    baselines: bool,
    #[serde(default)]
    grid: Table,
}

fn yes() -> bool {
    true
}

impl ConfigFile {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it is missing or not TOML; fields are checked when the runs are made.
    pub fn read(path: &Path) -> Result<ConfigFile, SimError> {
        let text = std::fs::read_to_string(path).map_err(|source| SimError::io(path, "read", source))?;
        let mut file = ConfigFile::parse_as(path, &text)?;
        if file.name.is_empty() {
            file.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Ok(file)
    }

    /// Parses text that stands in the file at `path`.
    ///
    /// # Errors
    /// If it is not TOML, or the grid is not a table of lists; the error names the file.
    pub fn parse_as(path: &Path, text: &str) -> Result<ConfigFile, SimError> {
        let mut file = ConfigFile::parse(text).map_err(|error| error.in_file(Some(path)))?;
        file.path = Some(path.into());
        Ok(file)
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// If it is not TOML, or the grid is not a table of lists.
    pub fn parse(text: &str) -> Result<ConfigFile, SimError> {
        let mut base: Table = text.parse().map_err(|error: toml::de::Error| syntax_error(text, &error))?;
        let mut sweep = Table::new();
        for key in ["name", "baselines", "grid"] {
            if let Some(value) = base.remove(key) {
                sweep.insert(key.into(), value);
            }
        }
        let sweep: SweepFields = sweep.try_into().map_err(|error| type_error(&error))?;
        let mut grid = Vec::new();
        for (field, values) in sweep.grid {
            match values {
                Value::Array(values) if !values.is_empty() => grid.push((field, values)),
                Value::String(all) if field == POLICY && all == "all" => {
                    let names = EVICTION.iter().map(|entry| Value::String(entry.name.into()));
                    grid.push((field, names.collect()));
                }
                _ => {
                    return Err(SimError::field(
                        &format!("grid.\"{field}\""),
                        "give a list of values, say \"hot.policy\" = [\"lru\", \"fifo\"], or for hot.policy \"all\"",
                    ));
                }
            }
        }
        Ok(ConfigFile {
            path: None,
            name: sweep.name.unwrap_or_default(),
            baselines: sweep.baselines,
            base,
            grid,
        })
    }

    /// An empty configuration, to be filled by `set`.
    pub fn empty() -> ConfigFile {
        ConfigFile {
            path: None,
            name: "replay".into(),
            baselines: true,
            base: Table::new(),
            grid: Vec::new(),
        }
    }

    /// Sets one field, dotted, to a TOML value; a bare word counts as a string. A grid over that field is dropped.
    ///
    /// # Errors
    /// If the text is not `field=value`, or passes through something that is not a table.
    pub fn set(&mut self, assignment: &str) -> Result<(), SimError> {
        let Some((field, text)) = assignment.split_once('=') else {
            return Err(SimError::field(
                "--set",
                format!("`{assignment}`: write field=value, say hot.policy=lru"),
            ));
        };
        let (field, text) = (field.trim(), text.trim());
        let value =
            format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        self.grid.retain(|(other, _)| other != field);
        put(&mut self.base, field, value.unwrap_or_else(|| Value::String(text.into())))
    }

    /// Every run of the grid in order, the last field varying fastest; one run where there is no grid.
    ///
    /// # Errors
    /// If a field is unknown or a value has the wrong type; the error names both.
    pub fn runs(&self) -> Result<Vec<RunConfig>, SimError> {
        let mut tables = vec![self.base.clone()];
        for (field, values) in &self.grid {
            let mut next = Vec::with_capacity(tables.len() * values.len());
            for table in &tables {
                for value in values {
                    let mut table = table.clone();
                    put(&mut table, field, value.clone())?;
                    next.push(table);
                }
            }
            tables = next;
        }
        tables.into_iter().map(|table| self.run(table)).collect()
    }

    fn run(&self, table: Table) -> Result<RunConfig, SimError> {
        let checked = check_fields("", &table, &known_fields());
        let config = checked.and_then(|()| table.try_into().map_err(|error| type_error(&error)));
        config.map_err(|error| error.in_file(self.path.as_deref()))
    }

    /// Folder of the file, against which its paths may be relative.
    pub fn folder(&self) -> Option<&Path> {
        self.path.as_deref().and_then(Path::parent)
    }

    /// The configuration as TOML, grid and all.
    pub fn to_toml(&self) -> String {
        let mut table = Table::new();
        table.insert("name".into(), Value::String(self.name.clone()));
        table.insert("baselines".into(), Value::Boolean(self.baselines));
        table.extend(self.base.clone());
        if !self.grid.is_empty() {
            let grid = self.grid.iter().map(|(field, values)| (field.clone(), Value::Array(values.clone())));
            table.insert("grid".into(), Value::Table(grid.collect()));
        }
        toml::to_string(&table).expect("a TOML table prints")
    }
}

fn put(table: &mut Table, field: &str, value: Value) -> Result<(), SimError> {
    let (path, last) = field.rsplit_once('.').map_or(("", field), |(path, last)| (path, last));
    let mut at = table;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let inner = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else {
            return Err(SimError::field(field, format!("`{key}` is a value, not a table of settings")));
        };
        at = inner;
    }
    at.insert(last.into(), value);
    Ok(())
}

/// Every field of a configuration: null where it is optional, an empty text where it must be given.
fn known_fields() -> serde_json::Value {
    let least = "trace = ''\nmodel = ''\nmachine = ''";
    let least: RunConfig = toml::from_str(least).expect("every other field has a default");
    serde_json::to_value(least).expect("a configuration is plain data")
}

/// Whether every field of `table` is known, and every required field of the root is there.
fn check_fields(path: &str, table: &Table, known: &serde_json::Value) -> Result<(), SimError> {
    let Some(known) = known.as_object().filter(|known| !known.is_empty()) else {
        return Ok(()); // a value, or parameters that their policy knows
    };
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    for (name, value) in table {
        let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(inner) = known.get(name) else {
            let hint = kvtier_policies::nearest(name, &names);
            let hint = hint.map(|best| format!("did you mean \"{best}\"? ")).unwrap_or_default();
            return Err(SimError::field(
                &field,
                format!("unknown field; {hint}one of: {}", names.join(", ")),
            ));
        };
        match (value, inner.as_object()) {
            (Value::Table(table), _) => check_fields(&field, table, inner)?,
            (_, Some(settings)) => {
                let settings: Vec<&str> = settings.keys().map(String::as_str).collect();
                return Err(SimError::field(
                    &field,
                    format!("is a table of settings: {}", settings.join(", ")),
                ));
            }
            _ => {}
        }
    }
    match known.iter().find(|(name, value)| **value == "" && !table.contains_key(*name)) {
        Some((name, _)) => Err(SimError::field(name, "missing; a run needs a trace, a model and a machine")),
        None => Ok(()),
    }
}

/// TOML that cannot be parsed: where, and why, on one line.
fn syntax_error(text: &str, error: &toml::de::Error) -> SimError {
    SimError::field(&constant::place(text, error), error.message().replace('\n', "; "))
}

/// A value of the wrong type; the display of such an error ends in the field's path.
fn type_error(error: &toml::de::Error) -> SimError {
    let text = error.to_string();
    let (message, field) =
        text.trim_end().rsplit_once("\nin `").unwrap_or((text.trim_end(), "configuration`"));
    SimError::field(field.trim_end_matches('`'), message.replace('\n', "; "))
}

/// The address of a point: hex of xxh3-128 over the configuration with every default, the presets' contents, the
/// trace's hash, the kind of run and the version of this program.
///
/// # Errors
/// If a preset cannot be read.
pub fn point_id(config: &RunConfig, trace_hash: u64, kind: &str) -> Result<String, SimError> {
    let mut config = config.clone();
    let file_name = config.trace.file_name().map(PathBuf::from);
    config.trace = file_name.unwrap_or_default(); // the hash identifies the trace, wherever it lies
    let text = serde_json::to_string(&(
        env!("CARGO_PKG_VERSION"),
        kind,
        trace_hash,
        presets::machine_text(&config.machine)?,
        presets::model_text(&config.model)?,
        &config,
    ));
    Ok(format!("{:032x}", xxh3_128(text.expect("a configuration is plain data").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "trace = 't.parquet'\nmodel = 'smollm2-135m'\nmachine = 'h100-pcie5'\n";

    #[test]
    fn a_grid_spans_any_fields() {
        let text = format!("{BASE}[grid]\n'hot.policy' = ['lru', 'fifo']\n'hot.slots' = [48, '2k', '3k']\n");
        let mut file = ConfigFile::parse(&text).unwrap();
        let runs = file.runs().unwrap();
        let seen: Vec<String> =
            runs.iter().map(|run| format!("{} {}", run.hot.policy, run.hot.slots)).collect();
        assert_eq!(seen, ["lru 48", "lru 2k", "lru 3k", "fifo 48", "fifo 2k", "fifo 3k"]);
        file.set("hot.policy=clock").unwrap();
        assert_eq!(file.runs().unwrap().len(), 3, "an override replaces the grid's field");
        assert_eq!(file.runs().unwrap()[0].hot.policy, "clock");
        let every =
            ConfigFile::parse(&format!("{BASE}[grid]\n'hot.policy' = 'all'\n")).unwrap().runs().unwrap();
        assert!(every.iter().map(|run| run.hot.policy.as_str()).eq(EVICTION.iter().map(|entry| entry.name)));
    }

    #[test]
    fn wrong_fields_are_named() {
        let mut file = ConfigFile::parse(&format!("{BASE}[grid]\n'hot.colour' = [1]\n")).unwrap();
        assert!(file.runs().unwrap_err().to_string().contains("colour"));
        assert!(
            ConfigFile::parse(&format!("{BASE}[grid]\n'hot.policy' = 'lru'\n"))
                .unwrap_err()
                .to_string()
                .contains("list")
        );
        assert!(file.set("hot.policy").unwrap_err().to_string().contains("field=value"));
        assert!(file.set("seed.x=1").is_ok() && file.runs().is_err());
        let says = |text: &str, message: &str| {
            let error = ConfigFile::parse(text).and_then(|file| file.runs()).unwrap_err().to_string();
            assert_eq!(error, message);
        };
        says(
            &format!("{BASE}[hot]\npolcy = 'lru'"),
            "hot.polcy: unknown field; did you mean \"policy\"? one of: policy, slots, params, start, \
             allocation, allocation_params",
        );
        says(
            &format!("{BASE}[hot]\nslots = []"),
            "hot.slots: give a number of slots such as 64, or a multiple of the selection such as \"1.5k\"",
        );
        says(
            &format!("{BASE}[warm]\nsize = 5"),
            "warm.size: invalid type: integer `5`, expected a text with a number and its unit, such as \"8 B\"",
        );
        says(
            &format!("{BASE}hot = 1"),
            "hot: is a table of settings: policy, slots, params, start, allocation, allocation_params",
        );
        says("trace = 't'\nmodel = 'm'", "machine: missing; a run needs a trace, a model and a machine");
        says("grid = 3", "grid: invalid type: integer `3`, expected a map");
        says("seed = 1\ntrace = \"t", "line 2, column 11: invalid basic string, expected `\"`");
        let mut file = ConfigFile::parse(BASE).unwrap();
        assert!(file.set("model.x=1").unwrap_err().to_string().contains("not a table"));
    }

    #[test]
    fn ids_differ_with_every_setting_and_not_with_the_folder() {
        let run = |set: &str| {
            let mut file = ConfigFile::parse(BASE).unwrap();
            file.set(set).unwrap();
            point_id(&file.runs().unwrap()[0], 7, "offload").unwrap()
        };
        let base = run("seed=1");
        assert_eq!(base, run("trace='elsewhere/t.parquet'"));
        for set in ["seed=2", "hot.slots=64", "time.overlap=hit-first", "machine=gh200", "prefetch.budget=9"]
        {
            assert_ne!(base, run(set), "{set}");
        }
    }
}
