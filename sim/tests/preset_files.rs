//! Every preset file: it loads, it is the one that is embedded, and every constant says where it comes from.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_sim::presets::{self, MACHINES, MODELS, PresetError};
use std::path::PathBuf;

fn files(folder: &str) -> Vec<(String, PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (stem(path), path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_is_embedded_and_every_embedded_preset_is_a_file() {
    for (folder, presets) in [("machines", MACHINES), ("models", MODELS)] {
        let files = files(folder);
        assert_eq!(files.len(), presets.len(), "{folder}: a file and a line in presets.rs for each");
        for (name, path, text) in files {
            let embedded = presets.iter().find(|(preset, _)| *preset == name);
            assert_eq!(embedded.map(|(_, text)| *text), Some(text.as_str()), "{}", path.display());
        }
    }
}

#[test]
fn every_file_loads_by_name_and_by_path_under_its_own_name() {
    for (name, path, _) in files("machines") {
        assert_eq!(presets::machine(&name).unwrap().name, name);
        assert_eq!(presets::machine(path.to_str().unwrap()).unwrap().name, name);
    }
    for (name, path, _) in files("models") {
        assert_eq!(presets::model(&name).unwrap().name, name);
        assert_eq!(presets::model(path.to_str().unwrap()).unwrap().name, name);
    }
}

#[test]
fn every_constant_has_a_kind_and_a_source() {
    for (name, text) in MACHINES.iter().chain(MODELS) {
        let constants = presets::constants(text).unwrap();
        assert!(constants.len() > 10, "{name} has constants");
        for constant in constants {
            let kinds = ["measured", "specified", "assumed", "fitted"];
            assert!(kinds.contains(&constant.kind.as_str()), "{name}: {}", constant.path);
            assert!(constant.source.trim().len() > 3, "{name}: {} has no source", constant.path);
            assert!(!constant.value.is_empty(), "{name}: {} has no value", constant.path);
        }
    }
}

#[test]
fn an_unknown_name_is_met_with_the_nearest_and_the_list() {
    let error = presets::machine("h100-pcie4").unwrap_err();
    assert!(matches!(&error, PresetError::Unknown { nearest: Some("h100-pcie5"), .. }), "{error}");
    assert!(error.to_string().contains("a100-pcie4") && error.to_string().contains(".toml"), "{error}");
    let error = presets::model("zzz").unwrap_err();
    assert!(matches!(&error, PresetError::Unknown { nearest: None, .. }), "{error}");
    assert!(matches!(presets::model("missing.toml"), Err(PresetError::Unreadable { .. })));
}

#[test]
fn a_faulty_file_names_the_field() {
    let good = MACHINES.iter().find(|(name, _)| *name == "h100-pcie5").unwrap().1;
    let folder = std::env::temp_dir().join(format!("kvtier-preset-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("faulty.toml");
    let fault = |text: String| {
        std::fs::write(&path, text).unwrap();
        presets::machine(path.to_str().unwrap()).unwrap_err().to_string()
    };
    assert!(fault(good.replace("54.6 GB/s", "54.6")).contains("GB/s"), "units are mandatory");
    assert!(
        fault(good.replace("[link]", "[link]\ncolour = 1")).contains("colour"),
        "unknown fields are errors"
    );
    assert!(
        fault(good.replace("h2d_duplex = { value = \"43", "h2d_duplex = { value = \"430"))
            .contains("link.h2d_duplex")
    );
    assert!(
        fault(good.replace("hbm_read = { value = \"3.07", "hbm_read = { value = \"0"))
            .contains("gpu.hbm_read")
    );
    assert!(
        fault(good.replace("queued = { value = \"0.55 us\"", "queued = { value = \"0.55\"")).contains("0.55")
    );
    let good = MODELS.iter().find(|(name, _)| *name == "llama-3.1-8b").unwrap().1;
    for products in ["[4096, 61440]", "[0, 6144]", "[4294967295, 4294967295]"] {
        std::fs::write(&path, good.replace("[4096, 6144]", products)).unwrap();
        let error = presets::model(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("layers.products"), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_machine_file_older_than_the_price_of_queued_copies_still_loads() {
    let good = MACHINES.iter().find(|(name, _)| *name == "h100-pcie5").unwrap().1;
    let older: Vec<&str> = good.lines().filter(|line| !line.starts_with("queued = ")).collect();
    let path = std::env::temp_dir().join(format!("kvtier-older-machine-{}.toml", std::process::id()));
    std::fs::write(&path, older.join("\n")).unwrap();
    let batch = presets::machine(path.to_str().unwrap()).unwrap().transfer.copy_batch;
    std::fs::remove_file(&path).unwrap();
    assert!((batch.queued_ns - batch.call_ns).abs() < 1e-9, "it takes what the CPU needs to tell a block");
}
