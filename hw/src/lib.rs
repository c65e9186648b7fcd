//! The time plane, real: the policies of the decision plane on a CUDA device. Builds and starts without CUDA, and
//! says in one line what is missing. Start at [`info`]; kernels are in `kernels/`, and what calls them in `ops/`.

// Every call into the driver is unsafe by nature; each one says why it is sound. Elsewhere `unsafe` is an error.
#![allow(unsafe_code)]
// Device times are this crate's subject, and the host clock has its home here as well.
#![allow(clippy::disallowed_methods)]

mod bf16;
pub mod check;
mod cluster;
mod compile;
mod device;
mod error;
mod library;
mod memory;
pub mod ops;
pub mod parity;
pub mod probe;
pub mod replay;
pub mod roofline;
mod spread;
mod stream;

pub use compile::{Module, SOURCES, Source, compile};
pub use device::{Device, DeviceInfo, info};
pub use error::{HwError, OLDEST_DRIVER};
pub use memory::{DeviceBuffer, PinnedBuffer, copy_async, copy_batch_async};
pub use spread::{Figure, Spread};
pub use stream::{Event, Graph, Kernel, Shape, Stream};
