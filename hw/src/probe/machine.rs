//! The machine file of a probed machine: measured figures in place of those of a machine file of the same kind.

use super::Probe;
use crate::DeviceInfo;
use toml::{Table, Value};

/// A machine file named `name`: `base`, whose figures are replaced where this probe measured them. What the probe does
/// not measure (arithmetic rates, lower tiers, the fitted transfer model) keeps the base's value and source.
pub fn machine_file(probe: &Probe, device: &DeviceInfo, base: &Table, name: &str, date: &str) -> Table {
    let mut machine = base.clone();
    machine.insert("name".into(), Value::String(name.into()));
    let driver = device.driver.as_deref().unwrap_or("unknown");
    let source = format!("probe of {}, {date}, {}, driver {driver}", name, device.name);
    let ceilings = &probe.ceilings;
    let mut set = |section: &str, field: &str, value: String| {
        let entry = machine.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let constant = [("value", value), ("kind", "measured".into()), ("source", source.clone())];
        let constant =
            constant.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
        if let Some(fields) = entry.as_table_mut() {
            fields.insert(field.into(), Value::Table(constant));
        }
    };
    let rate = |gigabytes: f64| format!("{gigabytes:.1} GB/s");
    set("gpu", "hbm_capacity", format!("{} MiB", device.memory >> 20));
    set("gpu", "hbm_read", rate(ceilings.read));
    set("kernels", "graph_node", format!("{:.0} ns", ceilings.graph_node * 1000.0));
    set("kernels", "submission", format!("{} ns", probe.submission_ns));
    set("link", "h2d", rate(ceilings.to_device));
    set("link", "d2h", rate(ceilings.to_host));
    set("link", "h2d_duplex", rate(probe.to_device_duplex));
    set("link", "d2h_duplex", rate(probe.to_host_duplex));
    machine
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roofline::Ceilings;

    #[test]
    fn measured_figures_replace_the_base_and_the_rest_stays() {
        let device = DeviceInfo {
            name: "a device".into(),
            compute_capability: (9, 0),
            driver: Some("580.1".into()),
            cuda: 13_000,
            memory: 80 << 30,
            sms: 132,
            l2: 50 << 20,
            copy_engines: 3,
            shared_per_block: 232_448,
            pcie: None,
        };
        let ceilings =
            Ceilings { copy: 3000.0, read: 3100.04, to_device: 54.5, to_host: 55.0, graph_node: 0.7944 };
        let probe = Probe {
            ceilings,
            to_device_duplex: 43.0,
            to_host_duplex: 43.5,
            submission_ns: 2100,
            copy_call_ns: 2400,
            pinning: 1.7,
            pinned_bytes: 1 << 30,
            rows: Vec::new(),
            took_ms: 1,
        };
        let base: Table =
            "name = \"x\"\n[gpu]\nbf16 = { value = \"690 TFLOP/s\", kind = \"assumed\", source = \"s\" }\n\
                           hbm_read = { value = \"1 TB/s\", kind = \"specified\", source = \"s\" }"
                .parse()
                .unwrap();
        let machine = machine_file(&probe, &device, &base, "mine", "2026-11-23");
        assert_eq!(machine["gpu"]["hbm_read"]["value"].as_str(), Some("3100.0 GB/s"));
        assert_eq!(machine["gpu"]["hbm_read"]["kind"].as_str(), Some("measured"));
        assert_eq!(machine["gpu"]["bf16"]["value"].as_str(), Some("690 TFLOP/s"));
        assert_eq!(machine["kernels"]["graph_node"]["value"].as_str(), Some("794 ns"));
        assert_eq!(machine["name"].as_str(), Some("mine"));
    }
}
