//! Stand-ins for the rest of a layer, and noise to measure on.

use crate::compile::{DENSE, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream};

/// bf16 noise of either sign between 0.5 and 2, four to a word: what to keep of random bits, and what to force.
pub const BF16_NOISE: (u64, u64) = (0x80ff_80ff_80ff_80ff, 0x3f00_3f00_3f00_3f00);

/// The kernels.
pub struct Dense {
    device: Device,
    stream_weights: Kernel,
    nothing: Kernel,
    fill_noise: Kernel,
    checksum: DeviceBuffer<u32>,
    _module: Module,
}

impl Dense {
    /// Compiles and loads them.
    ///
    /// # Errors
    /// If they cannot be compiled or loaded.
    pub fn load(device: &Device) -> Result<Dense, HwError> {
        let module = Module::load(device, DENSE)?;
        Ok(Dense {
            device: device.clone(),
            stream_weights: module.kernel("stream_weights", 0)?,
            nothing: module.kernel("nothing", 0)?,
            fill_noise: module.kernel("fill_noise", 0)?,
            checksum: DeviceBuffer::filled(device, 1, 0)?,
            _module: module,
        })
    }

    /// Reads `bytes` of weights once, with `grid` thread blocks.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn stream_weights(
        &self,
        stream: &Stream,
        weights: u64,
        bytes: u64,
        grid: u32,
    ) -> Result<(), HwError> {
        let arguments = [weights, bytes / 16, self.checksum.address()];
        // SAFETY: as declared in dense.cu.
        unsafe { stream.launch(self.stream_weights, Shape::flat(grid, 512), &arguments) }
    }

    /// Launches a kernel that does nothing.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn nothing(&self, stream: &Stream) -> Result<(), HwError> {
        // SAFETY: it has no arguments.
        unsafe { stream.launch(self.nothing, Shape::flat(1, 32), &[]) }
    }

    /// Fills `bytes` of memory with noise of the given bits.
    ///
    /// # Errors
    /// If the launch is refused.
    pub fn fill_noise(
        &self,
        stream: &Stream,
        to: u64,
        bytes: u64,
        seed: u64,
        bits: (u64, u64),
    ) -> Result<(), HwError> {
        let arguments = [to, bytes / 8, seed, bits.0, bits.1];
        // SAFETY: as declared in dense.cu.
        unsafe { stream.launch(self.fill_noise, Shape::flat(self.device.info().sms * 8, 256), &arguments) }
    }
}
