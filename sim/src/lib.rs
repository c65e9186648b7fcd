//! The time plane, simulated: the engine, modelled links and kernels, hardware and model presets, and sweeps.
//! Start at `engine.rs`: it shows the main flow.

pub mod attribution;
pub mod baseline;
pub mod batch;
pub mod choice;
pub mod config;
pub mod constant;
pub mod engine;
mod error;
pub mod events;
pub mod executor;
pub mod grid;
mod issue;
pub mod kernels;
pub mod links;
pub mod machine;
pub mod model;
pub mod mrc;
pub mod overlap;
mod point;
mod pointlog;
pub mod presets;
mod queues;
pub mod record;
pub mod setup;
mod single;
mod summary;
pub mod sweep;
pub mod table;
pub mod timer;
pub mod transfer;
pub mod transfer_fit;
mod twin;
pub mod work;

pub use error::SimError;
pub use pointlog::LOG_NAME;
pub use single::Single;
pub use summary::{Summary, summarise};
