//! Units and identities shared by every crate: time, bytes, rates, dense ids and seeded random streams.
//! They stand apart so that a bare `u64` never crosses a crate boundary, and because both planes need them.

mod ids;
mod parse;
mod quantity;
mod seed;

pub use ids::{BlockId, Slot};
pub use parse::ParseUnitError;
pub use quantity::{Bandwidth, Bytes, FlopRate, Nanos};
pub use seed::{RandomStream, Seed};
