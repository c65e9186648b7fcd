//! Age: the block that has not been brought to a hot buffer from its home for longest moves down first.
//!
//! A block that stays in HBM is not demanded from home, so it counts as old there: its home copy moves down while it is
//! hot, and comes from further below once it has been evicted. A block that enters a tier is its most recent. Total
//! order: the list's, in which every block has a place of its own.

use super::lists::Lists;
use super::{DemotionPolicy, Descent, HomeId, Tier};
use crate::PolicyError;
use crate::eviction::NoParams;

/// A list per tier, least recently demanded first.
pub struct Age(Lists);

impl Descent for Age {
    fn create(&mut self, _: HomeId) {}

    fn enter(&mut self, id: HomeId, tier: Tier) {
        self.0.push(tier as usize, id);
    }

    fn leave(&mut self, id: HomeId, tier: Tier) {
        self.0.remove(tier as usize, id);
    }

    fn demand(&mut self, id: HomeId, tier: Tier) {
        self.0.remove(tier as usize, id);
        self.0.push(tier as usize, id);
    }

    fn next(&self, tier: Tier) -> Option<HomeId> {
        self.0.oldest(tier as usize)
    }
}

impl DemotionPolicy for Age {
    const NAME: &'static str = "age";
    const SUMMARY: &'static str = "least recently demanded from home first";
    const BYTES_PER_BLOCK: u32 = 8;
    type Params = NoParams;

    fn new(_: NoParams) -> Result<Self, PolicyError> {
        Ok(Age(Lists::new(Tier::ALL.len())))
    }
}

#[cfg(test)]
mod tests {
    use crate::home::testing::Home;

    #[test]
    fn the_block_not_demanded_for_longest_moves_down() {
        let mut home = Home::new("age", "", [4, 0, 8]);
        home.admit(4);
        home.demand(&[0, 2]);
        assert_eq!(home.demote_one(), 1, "1 is older than 3, and 0 and 2 were demanded");
        assert_eq!(home.demote_one(), 3);
        home.demand(&[0]);
        assert_eq!(home.demote_one(), 2);
    }
}
