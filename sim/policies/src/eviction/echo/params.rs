//! Parameters of echo, apart from what it does with them.

use crate::PolicyError;
use serde::Deserialize;

/// When this step's near misses begin to count.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum NearTiming {
    /// When this step's victims are chosen.
    BeforeVictims,
    /// With the credit of this step, for the next one's victims.
    After,
}

/// Whose worth the ghost keeps.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GhostWorth {
    /// None: it only counts, and every block that is loaded starts with nothing.
    Nothing,
    /// What blocks earn when they are selected.
    Selected,
    /// What they earn as near misses too.
    All,
}

/// Parameters of [`super::Echo`]. Worths are in 512ths of one selection.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EchoParams {
    /// When this step's near misses begin to count.
    pub near: NearTiming,
    /// Entries of the ghost: 0, or a multiple of 4 up to 192.
    pub ghost: u32,
    /// Which worth the ghost keeps.
    pub ghost_worth: GhostWorth,
    /// What each count of the ghost is worth per selection that the buffer holds.
    pub ghost_weight: u16,
    /// What the worst selected rank earns.
    pub selected_worst: u16,
    /// What the best rank earns beyond that, nearly.
    pub selected_gain: u16,
    /// What the last near miss earns.
    pub near_worst: u16,
    /// What the first near miss earns beyond that, nearly.
    pub near_gain: u16,
    /// What a near miss of this step counts at victim choice, in quarters of its credit.
    pub near_now: u16,
    /// What a block is worth when it has just been filled in place.
    pub grown: u16,
    /// What each step since the last selection costs, up to 16 steps.
    pub recency: u16,
    /// Memory of a buffer of one selection, in steps; at least 20.
    pub decay_base: u32,
    /// Memory that each further selection of slots adds, in steps.
    pub decay_slack: u32,
    /// Whether decay follows how much of the last selection this one repeats.
    pub warp: bool,
}

impl Default for EchoParams {
    fn default() -> Self {
        EchoParams {
            near: NearTiming::BeforeVictims,
            ghost: MOST_GHOSTS,
            ghost_worth: GhostWorth::All,
            ghost_weight: 5,
            selected_worst: 496,
            selected_gain: 576,
            near_worst: 168,
            near_gain: 384,
            near_now: 7,
            grown: 1408,
            recency: 20,
            decay_base: 36,
            decay_slack: 36,
            warp: true,
        }
    }
}

/// Entries of the ghost, at most; the state charged to HBM has as many.
pub(super) const MOST_GHOSTS: u32 = 192;

/// Ranks to which a selection, and its near misses, are scaled.
pub(super) const RANKS: u32 = 32;
impl EchoParams {
    pub(super) fn checked(self) -> Result<EchoParams, PolicyError> {
        let refuse = |field, message| Err(PolicyError::Params { field, message });
        if !self.ghost.is_multiple_of(4) || self.ghost > MOST_GHOSTS {
            let message = format!("{} entries; give 0, or a multiple of 4 up to {MOST_GHOSTS}", self.ghost);
            return refuse("hot.params.ghost", message);
        }
        if self.decay_base < 20 {
            let message = format!("{} steps of memory; give at least 20", self.decay_base);
            return refuse("hot.params.decay_base", message);
        }
        Ok(self)
    }
}

/// What each of `k` ranks earns, best first.
pub(super) fn credits(worst: u16, gain: u16, k: u32) -> Vec<u16> {
    let credit = |rank: u32| {
        let scaled = u64::from(rank) * u64::from(RANKS) / u64::from(k);
        let below = RANKS - 1 - u32::try_from(scaled).expect("a rank below k scales to one below 32");
        let gain = u32::from(gain) * below / RANKS;
        worst.saturating_add(u16::try_from(gain).expect("less than all of the gain"))
    };
    (0..k).map(credit).collect()
}
