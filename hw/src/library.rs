//! Finds the CUDA driver and the run-time compiler when the program runs, so that it builds and starts without them.

use crate::HwError;
use cudarc::{driver, nvrtc};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const DRIVER: &[&str] = &[
    "libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
];

const COMPILER: &[&str] = &[
    "libnvrtc.so.13",
    "/usr/local/cuda/lib64/libnvrtc.so.13",
    "/usr/local/cuda/targets/x86_64-linux/lib/libnvrtc.so.13",
    "/usr/local/cuda/targets/sbsa-linux/lib/libnvrtc.so.13",
];

const PRODUCTS: &[&str] = &[
    "libcublas.so.13",
    "/usr/local/cuda/lib64/libcublas.so.13",
    "/usr/local/cuda/targets/x86_64-linux/lib/libcublas.so.13",
    "/usr/local/cuda/targets/sbsa-linux/lib/libcublas.so.13",
];

/// Makes the driver's entry points available.
///
/// # Errors
/// If there is no driver library on this machine.
pub(crate) fn load_driver() -> Result<(), HwError> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        preload("KVTIER_LIBCUDA", DRIVER);
        // SAFETY: only opens libraries by their well-known names.
        unsafe { driver::sys::is_culib_present() }
    });
    if found { Ok(()) } else { Err(HwError::NoDriver) }
}

/// Makes the run-time compiler's entry points available.
///
/// # Errors
/// If there is no such library on this machine.
pub(crate) fn load_compiler() -> Result<(), HwError> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        if let Some(path) = preload("KVTIER_LIBNVRTC", COMPILER) {
            preload_builtins(&path);
        }
        // SAFETY: only opens libraries by their well-known names.
        unsafe { nvrtc::sys::is_culib_present() }
    });
    if found { Ok(()) } else { Err(HwError::NoCompiler) }
}

/// The vendor's library of matrix products, if it is on this machine. Opened when it is first asked for: it is large.
pub(crate) fn products() -> Option<&'static Library> {
    static FOUND: OnceLock<Option<Library>> = OnceLock::new();
    let named = || std::env::var_os("KVTIER_LIBCUBLAS").map(PathBuf::from);
    let open = || {
        let mut paths = named().into_iter().chain(PRODUCTS.iter().map(PathBuf::from));
        // SAFETY: NVIDIA's libraries have no initialisers that depend on the caller.
        paths.find_map(|path| unsafe { Library::open(Some(path), RTLD_NOW) }.ok())
    };
    FOUND.get_or_init(open).as_ref()
}

/// Whether the driver has an entry point; asking for a missing one later would panic.
pub(crate) fn driver_has(symbol: &'static str) -> bool {
    // SAFETY: the symbol is only looked up, never called through this type.
    unsafe { driver::sys::culib().get::<unsafe extern "C" fn()>(symbol.as_bytes()).is_ok() }
}

/// Opens the first library that can be opened, by full path, so that a later look-up by its bare name finds it.
fn preload(variable: &str, candidates: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named.into_iter().chain(candidates.iter().map(PathBuf::from)).find(|path| open(path))
}

fn open(path: &Path) -> bool {
    // SAFETY: NVIDIA's libraries have no initialisers that depend on the caller.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    // Kept open for the life of the process: entry points are handed out from it.
    library.map(std::mem::forget).is_ok()
}

/// The compiler opens its built-ins by bare name, which fails outside the default search path.
fn preload_builtins(compiler: &Path) {
    let Some(folder) = compiler.parent().filter(|folder| folder.is_absolute()) else { return };
    let Ok(files) = std::fs::read_dir(folder) else { return };
    let mut builtins: Vec<PathBuf> = files
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so.13"))
        .map(|file| file.path())
        .collect();
    builtins.sort();
    builtins.iter().any(|path| open(path));
}
