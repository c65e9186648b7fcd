//! The home tier's ledger: room is reserved for a request's whole life when it is admitted, and a shared prefix
//! is held once.

use thiserror::Error;

#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tiers;

pub use tiers::{HomeLookup, TierConfig};

/// What a request needs at home, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lodger {
    /// All its blocks, prompt and output, the shared prefix included.
    pub total: u64,
    /// The part that belongs to the prefix group.
    pub prefix: u64,
    /// The prefix group, if any.
    pub group: Option<u32>,
}

/// The home pool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the home pool is full: {needed} B more are needed and {free} B of {capacity} B are free")]
pub struct HomeFull {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes of the pool.
    pub capacity: u64,
}

/// A pool of bounded size in which every block has its home.
#[derive(Clone, Debug)]
pub struct HomeTier {
    capacity: u64,
    used: u64,
    /// Requests holding each prefix group, and the bytes it takes.
    groups: Vec<(u32, u64)>,
}

impl HomeTier {
    /// An empty pool of `capacity` bytes.
    pub fn new(capacity: u64) -> HomeTier {
        HomeTier { capacity, used: 0, groups: Vec::new() }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Reserves room for a request.
    ///
    /// # Errors
    /// If it does not fit; nothing is reserved then.
    pub fn admit(&mut self, lodger: Lodger) -> Result<(), HomeFull> {
        assert!(lodger.prefix <= lodger.total, "a prefix is part of its request");
        let held =
            lodger.group.and_then(|group| self.groups.get(group as usize)).is_some_and(|group| group.0 > 0);
        let own = lodger.total - if lodger.group.is_some() { lodger.prefix } else { 0 };
        let needed = own + if lodger.group.is_some() && !held { lodger.prefix } else { 0 };
        let free = self.capacity - self.used;
        if needed > free {
            return Err(HomeFull { needed, free, capacity: self.capacity });
        }
        self.used += needed;
        if let Some(group) = lodger.group {
            let group = group as usize;
            if self.groups.len() <= group {
                self.groups.resize(group + 1, (0, 0));
            }
            self.groups[group].0 += 1;
            self.groups[group].1 = lodger.prefix;
        }
        Ok(())
    }

    /// Frees what a request reserved; its prefix stays while another request of the group is there.
    pub fn release(&mut self, lodger: Lodger) {
        let Some(group) = lodger.group else {
            self.used -= lodger.total;
            return;
        };
        self.used -= lodger.total - lodger.prefix;
        let entry = &mut self.groups[group as usize];
        entry.0 -= 1;
        if entry.0 == 0 {
            self.used -= entry.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_held_once_and_leaves_with_its_last_request() {
        let mut home = HomeTier::new(100);
        let shared = Lodger { total: 50, prefix: 30, group: Some(1) };
        home.admit(shared).unwrap();
        home.admit(shared).unwrap();
        assert_eq!(home.used(), 70);
        let full = home.admit(Lodger { total: 31, prefix: 0, group: None }).unwrap_err();
        assert_eq!((full.needed, full.free), (31, 30));
        home.release(shared);
        assert_eq!(home.used(), 50);
        home.release(shared);
        assert_eq!(home.used(), 0);
    }
}
