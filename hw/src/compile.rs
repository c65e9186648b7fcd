//! Kernels: their embedded sources, and their compilation on the machine they run on.

use crate::error::{During, HwError};
use crate::{Device, Kernel, library};
use cudarc::driver::{result, sys};
use cudarc::nvrtc;
use std::ffi::CString;

/// What every kernel source begins with.
const COMMON: &str = include_str!("../kernels/common.cuh");

/// One kernel source.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// File name.
    pub name: &'static str,
    text: &'static str,
}

/// Moves blocks between pinned host memory and frames.
pub(crate) const SWAP: Source = Source { name: "swap.cu", text: include_str!("../kernels/swap.cu") };
/// Residency by recency and use.
pub(crate) const LOOKUP: Source = Source {
    name: "lookup.cu",
    text: concat!(
        include_str!("../kernels/residency.cuh"),
        include_str!("../kernels/order.cuh"),
        include_str!("../kernels/smallest.cuh"),
        "#line 1\n",
        include_str!("../kernels/lookup.cu")
    ),
};
/// Residency by a number per slot.
pub(crate) const SCORED: Source = Source {
    name: "scored.cu",
    text: concat!(
        include_str!("../kernels/residency.cuh"),
        include_str!("../kernels/order.cuh"),
        include_str!("../kernels/smallest.cuh"),
        include_str!("../kernels/echo.cuh"),
        "#line 1\n",
        include_str!("../kernels/scored.cu")
    ),
};
/// Attention with grouped queries.
pub(crate) const ATTEND_GQA: Source = Source {
    name: "attend_gqa.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/gqa.cuh"),
        "#line 1\n",
        include_str!("../kernels/attend_gqa.cu")
    ),
};
/// Attention over latent rows.
pub(crate) const ATTEND_MLA: Source =
    Source { name: "attend_mla.cu", text: include_str!("../kernels/attend_mla.cu") };
/// Attention with grouped queries where it has the device to itself.
pub(crate) const ATTEND_GQA_CLUSTERS: Source = Source {
    name: "attend_gqa_clusters.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/gqa.cuh"),
        "#line 1\n",
        include_str!("../kernels/attend_gqa_clusters.cu")
    ),
};
/// What reading frames takes by itself.
pub(crate) const READ_FRAMES: Source = Source {
    name: "read_frames.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/gqa.cuh"),
        "#line 1\n",
        include_str!("../kernels/read_frames.cu")
    ),
};
/// Attention over latent rows where it has the device to itself.
pub(crate) const ATTEND_MLA_CLUSTERS: Source = Source {
    name: "attend_mla_clusters.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/products.cuh"),
        "#line 1\n",
        include_str!("../kernels/attend_mla_clusters.cu")
    ),
};
/// The latter for few heads of many streams.
pub(crate) const ATTEND_MLA_TEAMS: Source = Source {
    name: "attend_mla_teams.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        "#line 1\n",
        include_str!("../kernels/attend_mla_teams.cu")
    ),
};
/// Page bounds and top k.
pub(crate) const SELECT: Source = Source {
    name: "select.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/order.cuh"),
        "#line 1\n",
        include_str!("../kernels/select.cu")
    ),
};
/// Scores of an indexer.
pub(crate) const INDEX: Source = Source {
    name: "index.cu",
    text: concat!(
        include_str!("../kernels/staged.cuh"),
        include_str!("../kernels/products.cuh"),
        "#line 1\n",
        include_str!("../kernels/index.cu")
    ),
};
/// Stand-ins for the rest of a layer.
pub(crate) const DENSE: Source = Source { name: "dense.cu", text: include_str!("../kernels/dense.cu") };
/// What a replayed step is around those.
pub(crate) const REPLAY: Source = Source {
    name: "replay.cu",
    text: concat!(
        include_str!("../kernels/replay.cu"),
        "#line 1 \"moves.cu\"\n",
        include_str!("../kernels/moves.cu")
    ),
};

/// Every kernel source.
pub const SOURCES: &[Source] = &[
    SWAP,
    LOOKUP,
    SCORED,
    ATTEND_GQA,
    ATTEND_MLA,
    ATTEND_GQA_CLUSTERS,
    READ_FRAMES,
    ATTEND_MLA_CLUSTERS,
    ATTEND_MLA_TEAMS,
    SELECT,
    INDEX,
    DENSE,
    REPLAY,
];

/// Compiles a source for an architecture such as `sm_90a`; needs the compiler, and neither driver nor device.
///
/// # Errors
/// If the compiler is not on this machine, or rejects the source.
pub fn compile(source: Source, architecture: &str) -> Result<Vec<u8>, HwError> {
    library::load_compiler()?;
    let refused = |log: String| HwError::Compile { kernel: source.name, log };
    let failed = |error: nvrtc::result::NvrtcError| refused(format!("{error:?}"));
    let text =
        CString::new(format!("{COMMON}#line 1\n{}", source.text)).expect("a source holds no zero byte");
    let name = CString::new(source.name).expect("a file name holds no zero byte");
    let program = nvrtc::result::create_program(&text, Some(&name)).map_err(failed)?;
    let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "-lineinfo".into()];
    // SAFETY: the program was just made and is destroyed below; the buffer has the size that the compiler asks for.
    unsafe {
        if nvrtc::result::compile_program(program, &options).is_err() {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c.to_ne_bytes()[0]).collect();
            nvrtc::result::destroy_program(program).ok();
            let log = String::from_utf8_lossy(&log).replace('\0', "");
            return Err(refused(
                log.lines().filter(|line| line.contains("error")).collect::<Vec<_>>().join("; "),
            ));
        }
        let mut size = 0;
        nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size).result().map_err(failed)?;
        let mut image = vec![0u8; size];
        nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result().map_err(failed)?;
        nvrtc::result::destroy_program(program).map_err(failed)?;
        Ok(image)
    }
}

/// A compiled source on a device. Kernels are valid while it lives.
pub struct Module {
    device: Device,
    module: sys::CUmodule,
}

impl Module {
    /// Compiles a source for the device and loads it.
    ///
    /// # Errors
    /// Those of [`compile`], or if the driver rejects the result.
    pub fn load(device: &Device, source: Source) -> Result<Module, HwError> {
        let (major, minor) = device.info().compute_capability;
        // Hopper's own instructions are only in the architecture-specific target.
        let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
        let image = compile(source, &format!("sm_{major}{minor}{suffix}"))?;
        device.bind()?;
        // SAFETY: the image is a whole cubin and the driver copies it.
        let module =
            unsafe { result::module::load_data(image.as_ptr().cast()) }.during("loading a kernel")?;
        Ok(Module { device: device.clone(), module })
    }

    /// A kernel of this module, which may ask for `shared` bytes of dynamic shared memory.
    ///
    /// # Errors
    /// If there is no such kernel, or the device has less shared memory.
    pub fn kernel(&self, name: &str, shared: u32) -> Result<Kernel, HwError> {
        self.device.bind()?;
        let name = CString::new(name).expect("a kernel name holds no zero byte");
        // SAFETY: the module is loaded.
        let function =
            unsafe { result::module::get_function(self.module, name) }.during("finding a kernel")?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let shared = i32::try_from(shared).expect("shared memory is far below 2 GiB");
        // SAFETY: the function was just found.
        unsafe { result::function::set_function_attribute(function, attribute, shared) }
            .during("reserving shared memory for a kernel")?;
        Ok(Kernel { function })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: loaded by this object and unloaded once.
            unsafe { result::module::unload(self.module) }.ok();
        }
    }
}
