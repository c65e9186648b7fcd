//! Host logic against a driver that fails on demand: every failure is one clear line, and nothing is leaked.

// The stand-in driver is chosen by environment variables, and its count of live allocations is read from it.
#![allow(unsafe_code)]

use kvtier_hw::ops::lookup::{Buffers, Decided, Policy, Residencies, Selected};
use kvtier_hw::replay::{Managed, Options, Weights, run};
use kvtier_hw::{Device, DeviceBuffer, HwError, PinnedBuffer, info};
use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_units::Bytes;
use std::path::Path;
use std::process::Command;

/// Builds the stand-in; `None` where there is no C compiler.
fn build(folder: &Path) -> Option<std::path::PathBuf> {
    let library = folder.join("libcuda.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_libcuda.c");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o"])
        .args([library.as_os_str(), source.as_os_str()])
        .status();
    made.is_ok_and(|status| status.success()).then_some(library)
}

fn mode(name: &str) {
    // SAFETY: this file holds one test, so no other thread reads the environment.
    unsafe { std::env::set_var("FAKE_CUDA", name) };
}

/// Why a small replay does not run on the stand-in.
fn replay(device: &Device) -> String {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/gemma3-pages.parquet");
    let text = format!(
        "trace = \"{trace}\"\nmodel = \"llama-3.1-8b\"\nmachine = \"h100-pcie5\"\n[batch]\nsteps = 24\n"
    );
    let single = Single::prepare(&ConfigFile::parse(&text).expect("a configuration"), Bytes(1 << 30))
        .expect("it lowers");
    let options =
        Options { managed: Managed::Either, weights: Weights::Streamed, repeats: 1, stop: &|| false };
    run(device, &single, &options).map(drop).expect_err("it cannot run here").to_string()
}

#[test]
fn every_failure_is_one_clear_line_and_nothing_leaks() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = build(folder.path()) else {
        println!("skipped: no C compiler to build the stand-in driver with");
        return;
    };
    // SAFETY: as in `mode`.
    unsafe { std::env::set_var("KVTIER_LIBCUDA", &library) };
    // SAFETY: the library was just built and has no initialisers.
    let fake = unsafe { libloading::Library::new(&library) }.unwrap();
    // SAFETY: declared so in fake_libcuda.c.
    let live = || unsafe { fake.get::<unsafe extern "C" fn() -> i32>(b"fake_live").unwrap()() };

    mode("none");
    let error = info().unwrap_err().to_string();
    assert!(error.starts_with("no CUDA device") && error.contains("CUDA_ERROR_NO_DEVICE"), "{error}");
    mode("old");
    let error = info().unwrap_err().to_string();
    assert!(error.contains("supports CUDA 12.4, and 13.0 is needed"), "{error}");

    mode("well");
    let found = info().unwrap();
    assert_eq!((found.name.as_str(), found.compute_capability, found.sms), ("Fake H100", (9, 0), 132));
    assert!(found.to_string().contains("132 SMs"));
    let device = Device::open().unwrap();
    {
        let buffer = DeviceBuffer::from_host(&device, &[1u32, 2, 3]).unwrap();
        let pinned = PinnedBuffer::<u64>::new(&device, 5).unwrap();
        assert_eq!((buffer.read().unwrap(), pinned.len(), live()), (vec![1, 2, 3], 5, 2));
    }
    assert_eq!(live(), 0, "buffers free what they hold");

    let error = replay(&device);
    assert!(error.starts_with("out of device memory") && error.contains("1048576 B of"), "{error}");
    assert_eq!(live(), 0, "a replay that does not fit allocates nothing");
    mode("full");
    let error = DeviceBuffer::<u64>::new(&device, 1000).err().unwrap();
    assert!(matches!(error, HwError::OutOfDeviceMemory { asked: 8000, free: 1_048_576, .. }));
    mode("unpinnable");
    let error = PinnedBuffer::<u64>::new(&device, 1000).err().unwrap();
    assert!(matches!(error, HwError::TooLittlePinnable { asked: 8000, .. }));
    assert!(replay(&device).starts_with("too little pinnable host memory"), "the home pool is pinned first");
    for line in
        [error.to_string(), replay(&device), HwError::NoCompiler.to_string(), HwError::NoDriver.to_string()]
    {
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    assert_eq!(live(), 0, "failures leave nothing behind");
    what_runs_short_halfway_frees_the_rest(&device, &live);
}

/// State of many buffers of which one finds no room, whichever it is: one clear line, and the others are freed.
fn what_runs_short_halfway_frees_the_rest(device: &Device, live: &dyn Fn() -> i32) {
    let shape = Buffers { streams: 6, slots: 8, blocks: 40, k: 4, near: 4, budget: 2 };
    let mut failures = 0;
    loop {
        mode(&format!("short:{failures}"));
        let made = Residencies::new(device, Policy::Echo, shape)
            .and_then(|state| Ok((state, Selected::new(device, shape, 6)?, Decided::new(device, shape, 6)?)))
            .and_then(|state| Ok((state, PinnedBuffer::<u64>::new(device, 9)?)));
        let Err(error) = made else { break };
        let line = error.to_string();
        let known = ["out of device memory: ", "too little pinnable host memory: "];
        assert!(known.iter().any(|start| line.starts_with(start)) && line.lines().count() == 1, "{line}");
        assert_eq!(live(), 0, "after {failures} allocations");
        failures += 1;
    }
    assert!(failures > 10, "{failures} allocations could fail");
    assert_eq!(live(), 0);
}
