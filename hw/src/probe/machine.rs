//! The machine file of a probed machine: measured and fitted figures in place of those of the nearest preset.

use super::{Taken, fit};
use crate::Figure;
use kvtier_sim::presets::MACHINES;
use kvtier_sim::transfer::TransferParams;
use toml::{Table, Value};

/// A machine file, and where its figures come from.
pub struct MachineFile {
    /// The file's text.
    pub text: String,
    /// Fields that were measured or fitted here.
    pub own: Vec<String>,
    /// Fields that were carried over from the base.
    pub carried: Vec<String>,
    /// The transfer model.
    pub fitted: fit::Fitted,
}

/// The preset whose device is most like this one, by name.
pub fn nearest_preset(device: &str) -> &'static str {
    let name = device.to_lowercase();
    let known = [("gb200", "gb200"), ("gh200", "gh200"), ("h200", "h200-pcie5"), ("a100", "a100-pcie4")];
    known.iter().find(|(word, _)| name.contains(word)).map_or("h100-pcie5", |(_, preset)| preset)
}

impl Taken {
    /// A machine file named `name`: what was measured here, and for the rest the figures of `base`, a preset.
    ///
    /// # Panics
    /// If there is no such preset.
    pub fn machine_file(&self, name: &str, base: &str) -> MachineFile {
        let (_, text) = MACHINES.iter().find(|(preset, _)| *preset == base).expect("the base is a preset");
        let mut machine: Table = text.parse().expect("presets are TOML");
        machine.insert("name".into(), Value::String(name.into()));
        let fitted = fit::fit(&self.probe);
        let driver = self.device.driver.as_deref().unwrap_or("unknown");
        let origin = format!("kvtier hw probe, {}, driver {driver}, {}", self.device.name, self.date);
        let mut own = Vec::new();
        for (path, value, kind, note) in self.constants(&fitted) {
            set(&mut machine, path, value, kind, format!("{origin}; {note}"));
            own.push(path.to_owned());
        }
        let mut carried = Vec::new();
        mark_carried(&mut machine, "", base, &own, &mut carried);
        let head = format!(
            "# {}, probed on {} with driver {driver}.\n# Measured or fitted here: {}.\n# Carried over from {base}, each with its own source: {}.\n\nname = {:?}\n",
            self.device.name,
            self.date,
            own.join(", "),
            carried.join(", "),
            name
        );
        let mut text = head;
        write_sections(&machine, "", &mut text);
        MachineFile { text, own, carried, fitted }
    }

    /// Every figure of this probe: path, value with its unit, kind, and what it is.
    fn constants(&self, fitted: &fit::Fitted) -> Vec<(&'static str, String, &'static str, String)> {
        let (probe, ceilings) = (&self.probe, &self.probe.ceilings);
        let measured = |what: &str, spread: f64| format!("{what}, spread {:.1}%", spread * 100.0);
        let rate = |path, value: f64, spread, what: &str| {
            (path, gigabytes(value), "measured", measured(what, spread))
        };
        let time = |path, figure: Figure, what: &str| {
            (path, format!("{:.0} ns", figure.value), "measured", measured(what, figure.spread))
        };
        let precise = |path, figure: Figure, what: &str| {
            (path, nanos(figure.value), "measured", measured(what, figure.spread))
        };
        let spread = &ceilings.spread;
        let node = Figure { value: ceilings.graph_node * 1000.0, spread: spread.graph_node };
        // Traffic one way cannot gain from traffic the other way: more is noise.
        let (up, down) = (probe.to_device_duplex, probe.to_host_duplex);
        let duplex = [up.value.min(ceilings.to_device), down.value.min(ceilings.to_host)];
        let mut all = vec![
            (
                "gpu.hbm_capacity",
                format!("{} MiB", self.device.memory >> 20),
                "measured",
                "as the driver reports".into(),
            ),
            rate("gpu.hbm_read", ceilings.read, spread.read, "read-only kernel"),
            time("kernels.graph_node", node, "empty kernels in a graph"),
            time("kernels.submission", probe.submission, "empty kernels, one submission each"),
            rate("link.h2d", ceilings.to_device, spread.to_device, "512 MiB pinned"),
            rate("link.d2h", ceilings.to_host, spread.to_host, "512 MiB pinned"),
            rate("link.h2d_duplex", duplex[0], up.spread, "both directions at once"),
            rate("link.d2h_duplex", duplex[1], down.spread, "both directions at once"),
            precise("transfer.copy_loop.call", probe.copy_call, "host time per copy"),
            precise("transfer.copy_batch.call", probe.batch_call, "host time per block of 64 KiB"),
        ];
        if let Some(ramp) = self.attention_ramp() {
            let note =
                "attention at batch 1, 8 and 64 beyond its bytes at hbm_read, the middle one".to_owned();
            all.push(("kernels.attention_ramp", format!("{ramp:.0} ns"), "fitted", note));
        }
        all.extend(transfer_constants(fitted));
        all
    }

    /// What attention takes beyond reading its bytes, ns: the middle over the batch sizes.
    fn attention_ramp(&self) -> Option<f64> {
        let beyond = |row: &super::AttentionRow| {
            row.time.median_ps as f64 / 1000.0 - row.bytes as f64 / self.probe.ceilings.read
        };
        let mut ramps: Vec<f64> = self.probe.attention.iter().map(beyond).collect();
        ramps.sort_by(f64::total_cmp);
        ramps.get(ramps.len() / 2).copied().filter(|ramp| *ramp > 0.0)
    }
}

/// The fitted parameters, with what the fit is worth.
fn transfer_constants(fitted: &fit::Fitted) -> Vec<(&'static str, String, &'static str, String)> {
    let TransferParams { gather, copy, copy_loop, copy_batch } = &fitted.params;
    let note = format!(
        "fitted to {} transfers: median error {:.1}%, worst {:.0}%",
        fitted.rows,
        fitted.median_error * 100.0,
        fitted.worst_error * 100.0
    );
    let mut all = vec![
        ("transfer.gather.rate", bytes_per_second(gather.rate)),
        ("transfer.gather.issue", nanos(gather.issue_ns)),
        ("transfer.gather.visit", nanos(gather.visit_ns)),
        ("transfer.gather.reach", format!("{:.0} B", gather.reach)),
        ("transfer.gather.walk", nanos(gather.walk_ns)),
        ("transfer.gather.exposed", format!("{:.3}", gather.exposed.min(1.0))),
        ("transfer.gather.warp_rate", bytes_per_second(gather.warp_rate)),
        ("transfer.copy.setup", nanos(copy.setup_ns)),
        ("transfer.copy_loop.gap", nanos(copy_loop.gap_ns)),
        ("transfer.copy_batch.gap", nanos(copy_batch.gap_ns)),
        ("transfer.copy_batch.rate", bytes_per_second(copy_batch.rate)),
        ("transfer.copy_batch.staging_rate", bytes_per_second(copy_batch.staging_rate)),
        ("transfer.copy_batch.queued", nanos(copy_batch.queued_ns)),
    ]
    .into_iter()
    .map(|(path, value)| (path, value, "fitted", note.clone()))
    .collect::<Vec<_>>();
    let warps = "launch shape of the probe's gather with one thread block per request".to_owned();
    all.push(("transfer.gather.warps", format!("{:.0}", gather.warps), "specified", warps));
    all
}

/// Rounded down, so that a rate bounded by another is so as written.
fn gigabytes(rate: f64) -> String {
    format!("{:.3} GB/s", (rate * 1e3).floor() / 1e3)
}

/// A rate in bytes/ns, which is GB/s, to the byte.
fn bytes_per_second(rate: f64) -> String {
    format!("{:.0} B/s", rate * 1e9)
}

fn nanos(ns: f64) -> String {
    format!("{ns:.3} ns")
}

/// Replaces the constant at a dotted path; a count stays a number.
fn set(machine: &mut Table, path: &str, value: String, kind: &str, source: String) {
    let mut at = machine;
    let mut words = path.split('.').peekable();
    while let Some(word) = words.next() {
        if words.peek().is_some() {
            let inner = at.entry(word).or_insert_with(|| Value::Table(Table::new()));
            at = inner.as_table_mut().expect("sections of a machine file are tables");
            continue;
        }
        let value = value.parse().map_or(Value::String(value.clone()), Value::Integer);
        let fields = [
            ("value", value),
            ("kind", Value::String(kind.into())),
            ("source", Value::String(source.clone())),
        ];
        let constant: Table = fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
        at.insert(word.into(), Value::Table(constant));
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_constant(table: &Table) -> bool {
    table.contains_key("kind") && table.contains_key("source")
}

/// Notes in every constant that is not among `own` where it was taken from, and lists them.
fn mark_carried(table: &mut Table, path: &str, base: &str, own: &[String], carried: &mut Vec<String>) {
    for (name, value) in table.iter_mut() {
        let here = below(path, name);
        let Some(inner) = value.as_table_mut() else { continue };
        if !is_constant(inner) {
            mark_carried(inner, &here, base, own, carried);
        } else if !own.contains(&here) {
            if let Some(Value::String(source)) = inner.get_mut("source") {
                *source = format!("{source} (not probed: carried over from {base})");
            }
            carried.push(here);
        }
    }
}

/// Writes sections with one line per constant, as the presets are written.
fn write_sections(table: &Table, path: &str, text: &mut String) {
    let constants: Vec<_> = table
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_table().filter(|t| is_constant(t))?)))
        .collect();
    if !constants.is_empty() {
        text.push_str(&format!("\n[{path}]\n"));
        for (name, constant) in constants {
            let field = |key: &str| constant.get(key).map(Value::to_string).unwrap_or_default();
            let (value, kind, source) = (field("value"), field("kind"), field("source"));
            text.push_str(&format!("{name} = {{ value = {value}, kind = {kind}, source = {source} }}\n"));
        }
    }
    for (name, value) in table {
        if let Some(inner) = value.as_table().filter(|inner| !is_constant(inner)) {
            write_sections(inner, &below(path, name), text);
        }
    }
}
