//! What can go wrong on real hardware. Every message is one line that says what is missing and what to do.

use cudarc::driver::DriverError;
use thiserror::Error;

/// CUDA version that a driver must support at least, as CUDA counts it (1000 x major + 10 x minor).
pub const OLDEST_DRIVER: i32 = 13_000;

/// Why the device could not do what was asked.
#[derive(Debug, Error)]
pub enum HwError {
    /// There is no CUDA driver on this machine.
    #[error(
        "no CUDA driver: libcuda.so.1 was not found; install the NVIDIA driver or set KVTIER_LIBCUDA to its full path"
    )]
    NoDriver,
    /// The driver works and sees no device.
    #[error("no CUDA device: the driver is there and sees no GPU{}", .0.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    NoDevice(Option<String>),
    /// The driver is older than the kernels need.
    #[error("the CUDA driver is too old: it supports CUDA {}.{}, and {}.{} is needed (NVIDIA driver 580 or newer)", .found / 1000, .found % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10)]
    DriverTooOld {
        /// CUDA version that the driver supports.
        found: i32,
    },
    /// The driver lacks an entry point.
    #[error("the CUDA driver is too old: it has no {0}; NVIDIA driver 580 or newer is needed")]
    MissingSymbol(&'static str),
    /// The device cannot run the kernels.
    #[error("{name} has compute capability {major}.{minor}; the kernels need 9.0 or newer")]
    DeviceTooOld {
        /// Name of the device.
        name: String,
        /// Compute capability, major part.
        major: i32,
        /// Compute capability, minor part.
        minor: i32,
    },
    /// The run-time compiler is not on this machine.
    #[error(
        "no CUDA run-time compiler: libnvrtc.so.13 was not found; install CUDA 13 or `pip install nvidia-cuda-nvrtc`, or set KVTIER_LIBNVRTC to its full path"
    )]
    NoCompiler,
    /// The library of matrix products is not on this machine.
    #[error(
        "no CUDA matrix products: libcublas.so.13 was not found or lacks cublasGemmEx; install CUDA 13 or `pip install nvidia-cublas`, set KVTIER_LIBCUBLAS to its full path, or let weights be streamed (--weights streamed)"
    )]
    NoProducts,
    /// A kernel did not compile.
    #[error("kernel {kernel} does not compile: {log}")]
    Compile {
        /// Source file.
        kernel: &'static str,
        /// The compiler's first complaint.
        log: String,
    },
    /// Device memory is exhausted.
    #[error(
        "out of device memory: {asked} B were asked for and {free} B of {total} B are free; use fewer requests or smaller buffers"
    )]
    OutOfDeviceMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// The host cannot pin enough memory.
    #[error(
        "too little pinnable host memory: {asked} B were asked for and the driver refused ({why}); use a smaller home tier"
    )]
    TooLittlePinnable {
        /// Bytes asked for.
        asked: usize,
        /// What the driver said.
        why: String,
    },
    /// A call failed in another way.
    #[error("CUDA: {what}: {}", describe(.source))]
    Call {
        /// What was being done.
        what: &'static str,
        /// What the driver said.
        source: DriverError,
    },
    /// The library of matrix products refused a call.
    #[error("cuBLAS: {what}: status {status}")]
    Product {
        /// What was being done.
        what: &'static str,
        /// The library's status.
        status: i32,
    },
    /// The device computed something else than the reference.
    #[error("{0}")]
    Wrong(String),
}

/// Names a driver's error in words.
fn describe(error: &DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{text} ({name})"),
        _ => format!("error {:?}", error.0),
    }
}

/// Says what was being done when a call failed.
pub(crate) trait During<T> {
    /// Wraps the driver's error.
    fn during(self, what: &'static str) -> Result<T, HwError>;
}

impl<T> During<T> for Result<T, DriverError> {
    fn during(self, what: &'static str) -> Result<T, HwError> {
        self.map_err(|source| HwError::Call { what, source })
    }
}
