//! What this machine has decides what runs: kernels compile where the compiler is, and are checked where a device is.
//! What is missing is said in one line, and skipped.

// A skipped test says why.
#![allow(clippy::print_stdout)]

use kvtier_hw::replay::{Managed, Options, Weights, run};
use kvtier_hw::{Device, HwError, SOURCES, check, compile, info};
use kvtier_sim::Single;
use kvtier_sim::grid::ConfigFile;
use kvtier_units::Bytes;

/// The device, or why there is none; anything but its absence fails the test.
fn device() -> Option<Device> {
    match Device::open() {
        Ok(device) => Some(device),
        Err(
            error @ (HwError::NoDriver
            | HwError::NoDevice(_)
            | HwError::DriverTooOld { .. }
            | HwError::DeviceTooOld { .. }),
        ) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn absence_is_one_line_and_no_panic() {
    match info() {
        Ok(found) => assert!(!found.name.is_empty()),
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
}

#[test]
fn every_kernel_compiles() {
    for &source in SOURCES {
        match compile(source, "sm_90a") {
            Ok(image) => assert!(image.starts_with(b"\x7fELF"), "{} gives a cubin", source.name),
            Err(HwError::NoCompiler) => {
                println!("skipped: {}", HwError::NoCompiler);
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_kernel_agrees_with_its_reference() {
    let Some(device) = device() else { return };
    if let Err(HwError::NoCompiler) = compile(SOURCES[0], "sm_90a") {
        println!("skipped: {}", HwError::NoCompiler);
        return;
    }
    let findings = check::run(&device, 5, check::Extent::default()).unwrap();
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.passes()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A short replay of the shipped pages on the model of this name.
fn single(model: &str, rest: &str) -> Single {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/samples/smollm2-pages.parquet");
    let text = format!(
        "trace = \"{trace}\"\nmodel = \"{model}\"\nmachine = \"h100-pcie5\"\n[batch]\nconcurrency = 2\nsteps = 24\n{rest}"
    );
    Single::prepare(&ConfigFile::parse(&text).expect("a configuration"), Bytes(1 << 30)).expect("it lowers")
}

#[test]
fn what_a_device_does_not_do_is_refused_by_name() {
    let Some(device) = device() else { return };
    let options =
        Options { managed: Managed::Device, weights: Weights::Streamed, repeats: 1, stop: &|| false };
    for (rest, field) in [
        ("[time]\ntransfer = \"copy-loop\"\n", "time.transfer"),
        ("[hot]\nallocation = \"utility\"\n", "hot.allocation"),
        ("[warm]\nsize = \"1 MiB\"\n", "warm.size"),
        ("[hot]\npolicy = \"arc\"\n", "hot.policy"),
    ] {
        let error = run(&device, &single("llama-3.1-8b", rest), &options).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(field) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn replays_decide_as_the_host_does_and_every_byte_is_in_place() {
    let Some(device) = device() else { return };
    if let Err(HwError::NoCompiler) = compile(SOURCES[0], "sm_90a") {
        println!("skipped: {}", HwError::NoCompiler);
        return;
    }
    for (model, rest, managed) in [
        ("llama-3.1-8b", "[hot]\npolicy = \"lru-step\"\n", Managed::Device),
        ("llama-3.1-8b", "[hot]\npolicy = \"s3-fifo\"\nstart = \"recent\"\n", Managed::Host),
        (
            "llama-3.1-8b",
            "[prefetch]\npolicy = \"next-ranked\"\n[time]\noverlap = \"hit-first\"\n",
            Managed::Device,
        ),
        ("smollm2-135m", "[hot]\npolicy = \"lfu\"\n[time]\nsorted = true\n", Managed::Device),
        (
            "llama-3.1-8b",
            "[prefetch]\npolicy = \"next-ranked\"\n[time]\noverlap = \"layer-ahead\"\n\
             transfer = \"gather-per-request\"\n",
            Managed::Device,
        ),
        (
            "llama-3.1-8b",
            "[warm]\nsize = \"64 MiB\"\n[prefetch]\npolicy = \"next-ranked\"\n[time]\noverlap = \"layer-ahead\"\n",
            Managed::Either,
        ),
        (
            "smollm2-135m",
            "[prefetch]\npolicy = \"next-layer\"\n[time]\noverlap = \"hit-first\"\nlaunch = \"stream\"\n\
             transfer = \"copy-batch\"\n",
            Managed::Host,
        ),
    ] {
        let options = Options { managed, weights: Weights::Streamed, repeats: 1, stop: &|| false };
        let (point, report) = run(&device, &single(model, rest), &options).unwrap();
        assert!(report.holds(), "{model} {rest}: {:?} {:?}", report.mismatches, report.integrity);
        assert_eq!(point.decision_hash, report.device_hash);
        let time = point.time;
        assert_eq!(time.compute_ns + time.stall_ns + time.launch_ns + time.wait_ns, time.total_ns);
    }
}

#[test]
fn lists_that_gathers_and_copy_engines_bring_by_turns_are_in_place() {
    let Some(device) = device() else { return };
    if let Err(HwError::NoCompiler) = compile(SOURCES[0], "sm_90a") {
        println!("skipped: {}", HwError::NoCompiler);
        return;
    }
    for (overlap, prefetch) in
        [("serial", "next-ranked"), ("hit-first", "next-layer"), ("layer-ahead", "next-ranked")]
    {
        let rest = format!(
            "[time]\noverlap = \"{overlap}\"\ntransfer = \"auto\"\nlaunch = \"stream\"\n\
             [prefetch]\npolicy = \"{prefetch}\"\n"
        );
        let mut single = single("llama-3.1-8b", &rest);
        // Believed of the device, so that either is chosen at times.
        single.blueprint.machine.transfer.gather.rate = 2.0;
        let options =
            Options { managed: Managed::Either, weights: Weights::Streamed, repeats: 1, stop: &|| false };
        let (point, report) = run(&device, &single, &options).unwrap();
        assert!(report.holds(), "{overlap}: {:?} {:?}", report.mismatches, report.integrity);
        assert!(
            point.note.contains("by gather, ") && point.note.contains(" by copy-batch"),
            "{}",
            point.note
        );
    }
}
