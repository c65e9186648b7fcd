//! Launches in clusters of thread blocks, which read one another's shared memory. Apart from plain launches, which do
//! without attributes.

use crate::error::{During, HwError};
use crate::{Kernel, Shape, Stream};
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// Most blocks of a cluster.
pub(crate) const LARGEST: u32 = 16;

/// Lets a kernel run in clusters of up to [`LARGEST`] blocks, more than every device of its kind promises.
pub(crate) fn allow(kernel: Kernel) -> Result<(), HwError> {
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
    // SAFETY: the function's module is loaded.
    unsafe { result::function::set_function_attribute(kernel.function, attribute, 1) }
        .during("allowing a kernel large clusters")
}

/// How many clusters of `blocks` blocks the device holds at once.
pub(crate) fn most(kernel: Kernel, shape: Shape, blocks: u32) -> Result<u32, HwError> {
    let mut attributes = [dimension(blocks)];
    let config = config(std::ptr::null_mut(), shape, &mut attributes);
    let mut clusters = 0;
    // SAFETY: the function's module is loaded; pointers are valid for the call.
    unsafe { sys::cuOccupancyMaxActiveClusters(&raw mut clusters, kernel.function, &raw const config) }
        .result()
        .during("asking how many clusters the device holds")?;
    Ok(u32::try_from(clusters).unwrap_or(0))
}

fn dimension(blocks: u32) -> sys::CUlaunchAttribute {
    let dimension = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { clusterDim: dimension },
    }
}

fn config(
    stream: sys::CUstream,
    shape: Shape,
    attributes: &mut [sys::CUlaunchAttribute],
) -> sys::CUlaunchConfig {
    sys::CUlaunchConfig {
        gridDimX: shape.grid.0,
        gridDimY: shape.grid.1,
        gridDimZ: 1,
        blockDimX: shape.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: u32::try_from(attributes.len()).expect("a few attributes"),
    }
}

impl Stream {
    /// As [`Stream::launch`], in clusters of `blocks` blocks, of which the grid's width is a multiple. The kernel gets
    /// ready while the one before it ends, and waits for it by itself before it reads anything.
    ///
    /// # Safety
    /// As [`Stream::launch`], and the kernel begins by waiting for its predecessor.
    ///
    /// # Errors
    /// If the launch is refused.
    pub(crate) unsafe fn launch_clusters(
        &self,
        kernel: Kernel,
        shape: Shape,
        blocks: u32,
        arguments: &[u64],
    ) -> Result<(), HwError> {
        let early = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let mut attributes = [early, dimension(blocks)];
        let config = config(self.raw(), shape, &mut attributes);
        let mut pointers: Vec<*mut c_void> =
            arguments.iter().map(|argument| std::ptr::from_ref(argument).cast_mut().cast()).collect();
        // SAFETY: promised by the caller; the driver copies configuration and arguments before it returns.
        unsafe {
            let none = std::ptr::null_mut();
            sys::cuLaunchKernelEx(&raw const config, kernel.function, pointers.as_mut_ptr(), none)
        }
        .result()
        .during("launching a kernel in clusters")
    }
}
