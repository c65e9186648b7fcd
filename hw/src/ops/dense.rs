//! The rest of a layer: a stand-in that streams its weights, or the product that reads them, by the vendor's library
//! where it is on this machine. And noise to measure on.

use crate::compile::{DENSE, Module};
use crate::{Device, DeviceBuffer, HwError, Kernel, Shape, Stream, library};
use std::ffi::{c_int, c_void};

/// bf16 noise of either sign between 0.5 and 2, four to a word: what to keep of random bits, and what to force.
pub const BF16_NOISE: (u64, u64) = (0x80ff_80ff_80ff_80ff, 0x3f00_3f00_3f00_3f00);
/// The same for fp8 rows: e4m3 values of either sign between 1 and 2, whose scales, four of these bytes each, lie between
/// 2^-15 and 2.
pub const FP8_NOISE: (u64, u64) = (0x8787_8787_8787_8787, 0x3838_3838_3838_3838);

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

/// A product of a batch with weights: `outputs = inputs x weights^T`, all bf16 and row by row, added up in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of inputs and outputs: requests.
    pub batch: u32,
    /// Elements of a row of inputs, and of weights.
    pub from: u32,
    /// Rows of weights, elements of a row of outputs.
    pub to: u32,
}

impl Product {
    /// The product that reads as many bytes of weights as a stand-in that streams `bytes`, but for less than one row.
    ///
    /// # Panics
    /// If there is no whole row, or there are 2^32.
    pub fn of_bytes(batch: u32, from: u32, bytes: u64) -> Product {
        let to = u32::try_from(bytes / (2 * u64::from(from))).expect("fewer than 2^32 rows of weights");
        assert!(to > 0, "{bytes} B of weights hold no row of {from}");
        Product { batch, from, to }
    }

    /// Bytes of its weights.
    pub fn weight_bytes(&self) -> u64 {
        2 * u64::from(self.from) * u64::from(self.to)
    }
}

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> c_int;
type SetWorkspace = unsafe extern "C" fn(Handle, u64, usize) -> c_int;
/// `cublasGemmEx`: handle, two transpositions, three sizes, alpha, A, its type and stride, the same of B, beta, the same of
/// C, type of the sums, algorithm.
type Multiply = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const f32,
    u64,
    c_int,
    c_int,
    u64,
    c_int,
    c_int,
    *const f32,
    u64,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// Matrix products by the vendor's library.
pub struct Gemm {
    device: Device,
    handle: Handle,
    set_stream: SetStream,
    set_workspace: SetWorkspace,
    multiply: Multiply,
    destroy: Destroy,
    /// The library's own memory, given to it so that its calls can be recorded in graphs.
    workspace: DeviceBuffer<u8>,
}

impl Gemm {
    /// Bytes that the library recommends for Hopper.
    pub(crate) const WORKSPACE: usize = 32 << 20;

    /// Opens libcublas.so.13, or what KVTIER_LIBCUBLAS names; `None` if it is not on this machine, where the stand-in must
    /// do.
    ///
    /// # Errors
    /// If it is there and does not start.
    pub fn load(device: &Device) -> Result<Option<Gemm>, HwError> {
        let Some(library) = library::products() else { return Ok(None) };
        device.bind()?;
        // SAFETY: as declared in cublas_api.h and cublas_v2.h of CUDA 13.
        let found = unsafe {
            (
                library.get::<Create>(b"cublasCreate_v2"),
                library.get::<Destroy>(b"cublasDestroy_v2"),
                library.get::<SetStream>(b"cublasSetStream_v2"),
                library.get::<SetWorkspace>(b"cublasSetWorkspace_v2"),
                library.get::<Multiply>(b"cublasGemmEx"),
            )
        };
        let (Ok(create), Ok(destroy), Ok(set_stream), Ok(set_workspace), Ok(multiply)) = found else {
            return Ok(None);
        };
        let workspace = DeviceBuffer::filled(device, Gemm::WORKSPACE, 0)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device's context is current.
        accepted("opening the library", unsafe { create(&raw mut handle) })?;
        Ok(Some(Gemm {
            device: device.clone(),
            handle,
            set_stream: *set_stream,
            set_workspace: *set_workspace,
            multiply: *multiply,
            destroy: *destroy,
            workspace,
        }))
    }

    /// Multiplies; the arguments are addresses.
    ///
    /// # Errors
    /// If the library refuses.
    ///
    /// # Panics
    /// If a size exceeds 2^31.
    pub fn multiply(
        &self,
        stream: &Stream,
        product: Product,
        (inputs, weights, outputs): (u64, u64, u64),
    ) -> Result<(), HwError> {
        const BF16: c_int = 14;
        const IN_F32: c_int = 68;
        const DEFAULT: c_int = -1;
        let size = |n: u32| c_int::try_from(n).expect("sizes of a product are below 2^31");
        let [batch, from, to] = [product.batch, product.from, product.to].map(size);
        let (one, zero) = (1.0f32, 0.0f32);
        self.device.bind()?;
        // SAFETY: the handle is this object's; the workspace lives as long. Setting the stream resets the workspace.
        unsafe {
            accepted("choosing a stream", (self.set_stream)(self.handle, stream.raw().cast()))?;
            let given = (self.set_workspace)(self.handle, self.workspace.address(), Gemm::WORKSPACE);
            accepted("giving it memory", given)?;
        }
        // The library counts in columns, so the weights' rows are columns that it transposes.
        // SAFETY: the caller's memory holds the product's operands; alpha and beta are read before the call returns.
        let status = unsafe {
            (self.multiply)(
                self.handle,
                1,
                0,
                to,
                batch,
                from,
                &raw const one,
                weights,
                BF16,
                from,
                inputs,
                BF16,
                from,
                &raw const zero,
                outputs,
                BF16,
                to,
                IN_F32,
                DEFAULT,
            )
        };
        accepted("multiplying", status)
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by this object and destroyed once.
            unsafe { (self.destroy)(self.handle) };
        }
    }
}

fn accepted(what: &'static str, status: c_int) -> Result<(), HwError> {
    if status == 0 { Ok(()) } else { Err(HwError::Product { what, status }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_reads_what_the_stand_in_streams() {
        // A layer of 4096: q and o, k and v of 1024, three products of 14336, two norms.
        let bytes = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096);
        let product = Product::of_bytes(8, 4096, bytes);
        assert_eq!(product, Product { batch: 8, from: 4096, to: 53_250 });
        assert_eq!(product.weight_bytes(), bytes, "the norms are two rows");
        assert_eq!(Product::of_bytes(1, 4096, bytes + 8191).weight_bytes(), bytes);
    }
}
