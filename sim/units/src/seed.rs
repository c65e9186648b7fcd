//! One seed, many named random streams: a new consumer never shifts the numbers an old one draws.

use rand::SeedableRng;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The generator behind every random decision; its sequence is fixed by its algorithm, not by a platform.
pub type RandomStream = rand_pcg::Pcg64Mcg;

/// The seed of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The random stream that belongs to `name`, say `"evict.random"`.
    pub fn stream(self, name: &str) -> RandomStream {
        RandomStream::seed_from_u64(xxh3_64_with_seed(name.as_bytes(), self.0))
    }

    /// A seed of its own for the `index`-th member of a family, say one stream's policy.
    pub fn child(self, name: &str, index: u64) -> Seed {
        Seed(xxh3_64_with_seed(name.as_bytes(), xxh3_64_with_seed(&index.to_le_bytes(), self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_are_repeatable_and_apart() {
        let seed = Seed(7);
        assert_eq!(seed.stream("a").next_u64(), seed.stream("a").next_u64());
        assert_ne!(seed.stream("a").next_u64(), seed.stream("b").next_u64());
        assert_ne!(seed.stream("a").next_u64(), Seed(8).stream("a").next_u64());
        assert_ne!(seed.child("x", 0), seed.child("x", 1));
    }
}
