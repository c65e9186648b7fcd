//! Utility: the block with the smallest aged count of demands from home moves down first.
//!
//! A demand adds one, up to 15; all counts halve (rounded down) every `half_life` steps. A count stays with its block
//! from tier to tier. Total order: (count, time since when it has had it); where halving makes two counts one, those
//! that had less come first.

use super::lists::Lists;
use super::{DemotionPolicy, Descent, HomeId, Tier};
use crate::PolicyError;
use serde::Deserialize;

/// Parameters of [`Utility`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UtilityParams {
    /// Steps after which a demand counts half.
    pub half_life: u32,
}

impl Default for UtilityParams {
    fn default() -> Self {
        UtilityParams { half_life: 32 }
    }
}

/// Counts from 0 to 15.
const LEVELS: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    demands: u8,
    /// Halvings of all counts before it was written.
    epoch: u32,
}

/// A list per tier and count.
pub struct Utility {
    half_life: u32,
    epoch: u32,
    counts: Vec<Count>,
    lists: Lists,
}

impl Utility {
    fn level(&self, id: HomeId) -> u8 {
        let count = self.counts[id.index()];
        count.demands.checked_shr(self.epoch - count.epoch).unwrap_or(0)
    }

    fn list(tier: Tier, level: usize) -> usize {
        tier as usize * LEVELS + level
    }

    fn of(&self, id: HomeId, tier: Tier) -> usize {
        Utility::list(tier, usize::from(self.level(id)))
    }
}

impl Descent for Utility {
    fn create(&mut self, id: HomeId) {
        if self.counts.len() <= id.index() {
            self.counts.resize(id.index() + 1, Count::default());
        }
        self.counts[id.index()] = Count { demands: 0, epoch: self.epoch };
    }

    fn enter(&mut self, id: HomeId, tier: Tier) {
        self.lists.push(self.of(id, tier), id);
    }

    fn leave(&mut self, id: HomeId, tier: Tier) {
        self.lists.remove(self.of(id, tier), id);
    }

    fn demand(&mut self, id: HomeId, tier: Tier) {
        self.leave(id, tier);
        let most = u8::try_from(LEVELS - 1).expect("sixteen levels");
        self.counts[id.index()] = Count { demands: (self.level(id) + 1).min(most), epoch: self.epoch };
        self.enter(id, tier);
    }

    fn begin_step(&mut self, step: u32) {
        if step == 0 || !step.is_multiple_of(self.half_life) {
            return;
        }
        self.epoch += 1;
        for tier in Tier::ALL {
            for level in 1..LEVELS {
                self.lists.append(Utility::list(tier, level), Utility::list(tier, level / 2));
            }
        }
    }

    fn next(&self, tier: Tier) -> Option<HomeId> {
        (0..LEVELS).find_map(|level| self.lists.oldest(Utility::list(tier, level)))
    }
}

impl DemotionPolicy for Utility {
    const NAME: &'static str = "utility";
    const SUMMARY: &'static str = "fewest demands from home first, counts halving with time";
    const BYTES_PER_BLOCK: u32 = 13;
    type Params = UtilityParams;

    fn new(params: UtilityParams) -> Result<Self, PolicyError> {
        if params.half_life == 0 {
            let message = "0 steps; give at least 1".to_owned();
            return Err(PolicyError::Params { field: "demotion.params.half_life", message });
        }
        Ok(Utility {
            half_life: params.half_life,
            epoch: 0,
            counts: Vec::new(),
            lists: Lists::new(Tier::ALL.len() * LEVELS),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::home::testing::Home;

    #[test]
    fn the_block_demanded_least_moves_down_and_counts_fade() {
        let mut home = Home::new("utility", "half_life = 2", [4, 0, 8]);
        home.admit(4);
        home.demand(&[0, 1, 2, 3]);
        home.demand(&[0, 0, 1, 1, 2]);
        assert_eq!(home.demote_one(), 3, "one demand against two and three");
        home.step();
        home.step();
        home.demand(&[2]);
        assert_eq!(home.demote_one(), 0, "3 halved is 1, as for 1; 0 has stood there longer; 2 has 2 again");
    }
}
