//! The decision plane: which blocks hit, which miss, which victims leave, what is prefetched.
//! It knows no clock, file, link or GPU, so that a simulator and a device can be held to identical plans.
//!
//! Start at [`DecisionPlane::step`]; one stream's step is `Residency::step`, and a policy is one file in `eviction/`.

pub mod admission;
pub mod allocation;
pub mod churn;
mod counts;
pub mod demotion;
mod error;
pub mod eviction;
mod hash;
mod home;
mod plan;
mod plane;
pub mod prefetch;
mod recency;
mod recency_log;
mod residency;
mod schedule;
mod selection;
mod shared;
mod slot_queues;
mod warm;

pub use counts::Counts;
pub use error::{PolicyError, nearest};
pub use home::{HomeFull, HomeLookup, HomeTier, Lodger, TierConfig};
pub use plan::{Fill, LayerPlan, Moves, Resized, Source, StepPlan, StreamPlan};
pub use plane::{Admission, DecisionPlane, PlaneConfig, Prefix, SeatSlots, Start};
pub use recency_log::RecencyLog;
pub use residency::{Below, HotBuffer, Prefetch, Residency};
pub use schedule::{Join, Run, Schedule, ScheduleError, StepSchedule};
pub use selection::{Foresight, Selection, SelectionSource};
pub use slot_queues::SlotQueues;
pub use warm::{WarmLookup, WarmPool};
