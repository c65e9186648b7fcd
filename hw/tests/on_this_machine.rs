//! What this machine has decides what runs: kernels compile where the compiler is, and are checked where a device is.
//! What is missing is said in one line, and skipped.

// A skipped test says why.
#![allow(clippy::print_stdout)]

use kvtier_hw::{Device, HwError, SOURCES, check, compile, info};

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
    let findings = check::run(&device, 5).unwrap();
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.passes()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
