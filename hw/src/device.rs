//! The device: what it is, and the context in which everything else lives.

use crate::error::{During, HwError, OLDEST_DRIVER};
use crate::library;
use cudarc::driver::{CudaContext, result, sys};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use sys::CUdevice_attribute_enum as Attribute;

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Name, as the vendor gives it.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Version of the kernel driver, where the system tells it.
    pub driver: Option<String>,
    /// CUDA version that the driver supports (1000 x major + 10 x minor).
    pub cuda: i32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Bytes of L2 cache.
    pub l2: usize,
    /// Copy engines.
    pub copy_engines: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_per_block: u32,
    /// PCIe link as the system describes it ("32.0 GT/s PCIe x16"), where it does.
    pub pcie: Option<String>,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        writeln!(f, "device        {} (compute capability {major}.{minor})", self.name)?;
        let driver = self.driver.as_deref().unwrap_or("version unknown");
        writeln!(f, "driver        {driver}, CUDA {}.{}", self.cuda / 1000, self.cuda % 1000 / 10)?;
        writeln!(f, "memory        {} MiB, L2 {} MiB", self.memory >> 20, self.l2 >> 20)?;
        writeln!(f, "processors    {} SMs, {} copy engines", self.sms, self.copy_engines)?;
        write!(f, "link          {}", self.pcie.as_deref().unwrap_or("unknown"))
    }
}

/// The first device of this machine.
///
/// # Errors
/// If there is no driver, the driver is too old, or there is no device.
pub fn info() -> Result<DeviceInfo, HwError> {
    let ordinal = first_device()?;
    // SAFETY: `ordinal` is a device of an initialised driver.
    let attribute =
        |which| unsafe { result::device::get_attribute(ordinal, which) }.during("asking the device");
    let unsigned = |which| attribute(which).map(|value| u32::try_from(value).unwrap_or(0));
    let mut cuda = 0;
    // SAFETY: the pointer is valid for the call.
    unsafe { sys::cuDriverGetVersion(&raw mut cuda) }.result().during("asking the driver's version")?;
    Ok(DeviceInfo {
        name: result::device::get_name(ordinal).during("asking the device's name")?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        driver: driver_version(),
        cuda,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(ordinal) }.during("asking the device's memory")?,
        sms: unsigned(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2: unsigned(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        copy_engines: unsigned(Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT)?,
        shared_per_block: unsigned(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        pcie: pcie_link(ordinal),
    })
}

fn first_device() -> Result<sys::CUdevice, HwError> {
    library::load_driver()?;
    let mut cuda = 0;
    // SAFETY: the pointer is valid for the call; this entry point needs no initialisation.
    unsafe { sys::cuDriverGetVersion(&raw mut cuda) }.result().during("asking the driver's version")?;
    if cuda < OLDEST_DRIVER {
        return Err(HwError::DriverTooOld { found: cuda });
    }
    if let Err(error) = result::init() {
        let why = error.error_name().map(|name| name.to_string_lossy().into_owned());
        return Err(HwError::NoDevice(why.ok()));
    }
    if result::device::get_count().during("counting devices")? == 0 {
        return Err(HwError::NoDevice(None));
    }
    result::device::get(0).during("opening the device")
}

/// "580.159.04" out of the first line that the kernel driver shows.
fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

fn pcie_link(device: sys::CUdevice) -> Option<String> {
    if !library::driver_has("cuDeviceGetPCIBusId") {
        return None;
    }
    let mut id = [0u8; 32];
    // SAFETY: the buffer is as long as said.
    unsafe { sys::cuDeviceGetPCIBusId(id.as_mut_ptr().cast(), 32, device) }.result().ok()?;
    let id = std::str::from_utf8(&id).ok()?.trim_end_matches('\0').to_lowercase();
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("/sys/bus/pci/devices/{id}/{file}")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.starts_with("Unknown"))
    };
    Some(format!("{} x{}", read("max_link_speed")?, read("max_link_width")?))
}

/// An opened device.
#[derive(Clone)]
pub struct Device {
    context: Arc<CudaContext>,
    info: Arc<DeviceInfo>,
}

impl Device {
    /// Opens the first device for running kernels.
    ///
    /// # Errors
    /// Those of [`info`], or if the device is too old for the kernels.
    pub fn open() -> Result<Device, HwError> {
        let info = info()?;
        let (major, minor) = info.compute_capability;
        if major < 9 {
            return Err(HwError::DeviceTooOld { name: info.name, major, minor });
        }
        let context = CudaContext::new(0).during("opening the device")?;
        Ok(Device { context, info: Arc::new(info) })
    }

    /// What the device says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes free and in all.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn memory(&self) -> Result<(usize, usize), HwError> {
        self.bind()?;
        result::mem_get_info().during("asking for free memory")
    }

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// If anything submitted so far failed.
    pub fn synchronize(&self) -> Result<(), HwError> {
        self.bind()?;
        result::ctx::synchronize().during("running on the device")
    }

    /// Makes the device current on this thread.
    pub(crate) fn bind(&self) -> Result<(), HwError> {
        self.context.bind_to_thread().during("making the device current")
    }
}
