//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod hw;
pub(crate) mod mrc;
pub(crate) mod policies;
pub(crate) mod presets;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod sweep;
pub(crate) mod trace;
