//! Operations: one file per kernel source, each a loaded module with typed calls.

pub mod attend;
pub(crate) mod clusters;
pub mod dense;
pub mod index;
pub mod lookup;
pub mod replay;
pub mod select;
pub mod swap;

/// A count as kernels take it.
///
/// # Panics
/// If it does not fit 32 bits, to which every list of one launch is bounded.
pub(crate) fn count32(n: usize) -> u32 {
    u32::try_from(n).expect("a launch's lists have fewer than 2^32 elements")
}
