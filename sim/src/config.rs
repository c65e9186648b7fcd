//! The configuration of one run as a user writes it: TOML with every default visible, no unknown field accepted.
//! It is lowered once, in `setup.rs`, into validated parts; nothing else reads it.

use kvtier_traces::Newest;
use kvtier_units::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Trace file; relative to the working directory, or else to the folder of the configuration file.
    pub trace: PathBuf,
    /// Model preset, or the path of a model TOML.
    pub model: String,
    /// Machine preset, or the path of a machine TOML.
    pub machine: String,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// How the trace is read.
    #[serde(default)]
    pub selection: SelectionConfig,
    /// Which requests run, and how many at once.
    #[serde(default)]
    pub batch: BatchConfig,
    /// The hot buffers.
    #[serde(default)]
    pub hot: HotConfig,
    /// The warm pages.
    #[serde(default)]
    pub warm: WarmConfig,
    /// Prefetch.
    #[serde(default)]
    pub prefetch: PrefetchConfig,
    /// The host tier.
    #[serde(default)]
    pub host: HostConfig,
    /// The CXL tier below it.
    #[serde(default)]
    pub cxl: TierPool,
    /// The NVMe tier, the lowest.
    #[serde(default)]
    pub nvme: TierPool,
    /// What moves from one tier to the next.
    #[serde(default)]
    pub demotion: DemotionConfig,
    /// How steps are executed.
    #[serde(default)]
    pub time: TimeSettings,
    /// What is measured.
    #[serde(default)]
    pub measure: MeasureConfig,
}

/// How the trace is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionConfig {
    /// Blocks per selection: a prefix of the recorded ranks; as recorded where absent.
    pub k: Option<u32>,
    /// Near misses shown to policies, per selection; all that were recorded where absent.
    pub near: Option<u32>,
    /// Recorded blocks folded into one; 1 where absent.
    pub fold: Option<u32>,
    /// `reserved`: the block being filled lives outside the buffer. `ordinary`: it is a block like any other.
    pub newest: Newest,
}

/// Which requests run, and how many at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Request ids of the trace, in order; all where empty.
    pub requests: Vec<String>,
    /// Requests decoding at once; as many as there are requests where absent.
    pub concurrency: Option<u32>,
    /// Engine steps; those of the longest request where absent.
    pub steps: Option<u32>,
    /// Recorded steps by which each further copy of a request starts later, so that copies do not run in lockstep.
    pub stagger: u32,
}

/// The hot buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HotConfig {
    /// Eviction policy.
    pub policy: String,
    /// Slots per stream: a number, or a multiple of the selection such as `"2k"`.
    pub slots: SlotCount,
    /// Parameters of the policy.
    pub params: toml::Table,
    /// What buffers hold when a request starts.
    pub start: StartConfig,
    /// How the slots are shared among layers, head groups and requests; `slots` is the even share.
    pub allocation: String,
    /// Parameters of the allocator.
    pub allocation_params: toml::Table,
}

impl Default for HotConfig {
    fn default() -> HotConfig {
        HotConfig {
            policy: "lru".into(),
            slots: SlotCount::TimesK { thousandths: 2000 },
            params: toml::Table::new(),
            start: StartConfig::Cold,
            allocation: "uniform".into(),
            allocation_params: toml::Table::new(),
        }
    }
}

/// What buffers hold when a request starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartConfig {
    /// Nothing: the prompt was prefilled elsewhere.
    #[default]
    Cold,
    /// The last blocks of the prompt, prefilled on this device.
    Recent,
}

/// The warm pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmConfig {
    /// HBM for warm pages, shared by all streams.
    pub size: Bytes,
    /// Which of the blocks that leave a hot buffer enter.
    pub admission: String,
    /// Parameters of the admission policy.
    pub params: toml::Table,
}

impl Default for WarmConfig {
    fn default() -> WarmConfig {
        WarmConfig { size: Bytes::ZERO, admission: "always".into(), params: toml::Table::new() }
    }
}

/// Prefetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefetchConfig {
    /// Prefetch policy.
    pub policy: String,
    /// Blocks that one stream may prefetch in one step.
    pub budget: u32,
    /// Parameters of the policy.
    pub params: toml::Table,
}

impl Default for PrefetchConfig {
    fn default() -> PrefetchConfig {
        PrefetchConfig { policy: "none".into(), budget: 4, params: toml::Table::new() }
    }
}

/// The host tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Pinned host memory for home copies; the machine's default where absent.
    pub pool: Option<Bytes>,
}

/// A tier below host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TierPool {
    /// Its size; the tier is not used where it is zero.
    pub pool: Bytes,
}

/// What moves from one home tier to the next one down, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemotionConfig {
    /// Demotion policy.
    pub policy: String,
    /// Parameters of the policy.
    pub params: toml::Table,
    /// Percent of a pool above which it begins to move blocks down.
    pub high: u32,
    /// Percent of a pool at which it stops.
    pub low: u32,
    /// Blocks that one tier moves down in one step, at most.
    pub batch: u32,
    /// Whether a block brought from below moves to host.
    pub promote: bool,
}

impl Default for DemotionConfig {
    fn default() -> DemotionConfig {
        DemotionConfig {
            policy: "none".into(),
            params: toml::Table::new(),
            high: 95,
            low: 90,
            batch: 4096,
            promote: false,
        }
    }
}

/// How steps are executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSettings {
    /// `serial`, `hit-first` or `layer-ahead`.
    pub overlap: String,
    /// Transfer mechanism of swap-in, or `auto`.
    pub transfer: String,
    /// `graph` (one CUDA graph per step) or `stream` (one submission per kernel).
    pub launch: String,
    /// Whether misses are moved in address order.
    pub sorted: bool,
}

impl Default for TimeSettings {
    fn default() -> TimeSettings {
        TimeSettings {
            overlap: "serial".into(),
            transfer: "gather".into(),
            launch: "graph".into(),
            sorted: false,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureConfig {
    /// First engine step of the measured window; earlier ones are the warm-up.
    pub from_step: u32,
}

impl Default for MeasureConfig {
    fn default() -> MeasureConfig {
        MeasureConfig { from_step: 16 }
    }
}

fn default_seed() -> u64 {
    1
}

/// Slots per hot buffer, absolute or relative to the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotCount {
    /// So many slots.
    Slots(u32),
    /// A multiple of k, in thousandths; rounded down.
    TimesK {
        /// Thousandths of k.
        thousandths: u32,
    },
}

impl SlotCount {
    /// Slots for selections of `k` blocks.
    pub fn of(self, k: u32) -> u32 {
        match self {
            SlotCount::Slots(slots) => slots,
            SlotCount::TimesK { thousandths } => {
                let slots = u64::from(k) * u64::from(thousandths) / 1000;
                u32::try_from(slots).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for SlotCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SlotCount::Slots(slots) => write!(f, "{slots}"),
            SlotCount::TimesK { thousandths } => {
                let (whole, rest) = (thousandths / 1000, thousandths % 1000);
                let fraction = format!("{rest:03}");
                match fraction.trim_end_matches('0') {
                    "" => write!(f, "{whole}k"),
                    fraction => write!(f, "{whole}.{fraction}k"),
                }
            }
        }
    }
}

impl FromStr for SlotCount {
    type Err = String;

    fn from_str(text: &str) -> Result<SlotCount, String> {
        let wrong = || {
            format!(
                "`{text}`: give a number of slots such as 64, or a multiple of the selection such as \"1.5k\""
            )
        };
        let Some(times) = text.strip_suffix('k') else {
            return text.parse().map(SlotCount::Slots).map_err(|_| wrong());
        };
        let (whole, fraction) = times.split_once('.').unwrap_or((times, ""));
        if fraction.len() > 3
            || whole.is_empty()
            || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
        {
            return Err(wrong());
        }
        let thousandths = format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())?;
        Ok(SlotCount::TimesK { thousandths })
    }
}

impl<'de> Deserialize<'de> for SlotCount {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<SlotCount, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "give a number of slots such as 64, or a multiple of the selection such as \"1.5k\""
        )]
        enum Raw {
            Number(u32),
            Text(String),
        }
        match Raw::deserialize(source)? {
            Raw::Number(slots) => Ok(SlotCount::Slots(slots)),
            Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for SlotCount {
    fn serialize<S: serde::Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match *self {
            SlotCount::Slots(slots) => sink.serialize_u32(slots),
            SlotCount::TimesK { .. } => sink.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_absolute_or_a_multiple_of_k() {
        let read = |text: &str| text.parse::<SlotCount>();
        assert_eq!(read("64").unwrap().of(32), 64);
        assert_eq!(read("1.5k").unwrap().of(32), 48);
        assert_eq!(read("2k").unwrap().to_string(), "2k");
        assert_eq!(read("1.25k").unwrap().to_string(), "1.25k");
        assert!(
            read("k").is_err() && read("1.2345k").is_err() && read("-3").is_err() && read("2 k").is_err()
        );
    }

    #[test]
    fn every_default_is_stated_and_unknown_fields_are_errors() {
        let base = "trace = 't.parquet'\nmodel = 'm'\nmachine = 'x'\n";
        let config: RunConfig = toml::from_str(base).unwrap();
        assert_eq!((config.hot.policy.as_str(), config.prefetch.budget, config.seed), ("lru", 4, 1));
        let error = toml::from_str::<RunConfig>(&format!("{base}[hot]\npolicey = 'lru'")).unwrap_err();
        assert!(error.to_string().contains("policey"), "{error}");
    }
}
