//! Quantities as newtypes over `u64`: each parses from and prints as a number with its unit.

use crate::parse::{self, ParseUnitError, Unit};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::iter::Sum;
use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Mul, Sub, SubAssign};
use std::str::FromStr;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $base:literal, $units:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: $name = $name(0);
            const UNITS: &'static [Unit] = $units;

            /// The difference, or zero where `other` is larger.
            pub const fn saturating_sub(self, other: $name) -> $name {
                $name(self.0.saturating_sub(other.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseUnitError;
            fn from_str(text: &str) -> Result<Self, ParseUnitError> {
                parse::parse(text, Self::UNITS, $base).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&parse::show(self.0, Self::UNITS))
            }
        }

        impl Add for $name {
            type Output = $name;
            fn add(self, other: $name) -> $name {
                $name(self.0 + other.0)
            }
        }

        impl Sub for $name {
            type Output = $name;
            fn sub(self, other: $name) -> $name {
                $name(self.0 - other.0)
            }
        }

        impl Mul<u64> for $name {
            type Output = $name;
            fn mul(self, times: u64) -> $name {
                $name(self.0 * times)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: $name) {
                self.0 += other.0;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: $name) {
                self.0 -= other.0;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = $name>>(items: I) -> $name {
                $name(items.map(|item| item.0).sum())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let expected = concat!("a text with a number and its unit, such as \"8 ", $base, "\"");
                source.deserialize_str(Quantity(PhantomData, expected))
            }
        }

        impl Serialize for $name {
            /// As a whole number of base units with its unit, so that reading it back is exact.
            fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
                sink.collect_str(&format_args!("{} {}", self.0, $base))
            }
        }
    };
}

quantity!(
    /// A point in simulated time, or a length of it, in nanoseconds.
    Nanos,
    "ns",
    &[("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)]
);
quantity!(
    /// A number of bytes. KiB, MiB, GiB and TiB are binary.
    Bytes,
    "B",
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)]
);
quantity!(
    /// A transfer rate in bytes per second. kB/s, MB/s, GB/s and TB/s are decimal.
    Bandwidth,
    "B/s",
    &[("B/s", 1), ("kB/s", 1_000), ("MB/s", 1_000_000), ("GB/s", 1_000_000_000), ("TB/s", 1_000_000_000_000)]
);
quantity!(
    /// An arithmetic rate in floating-point operations per second.
    FlopRate,
    "FLOP/s",
    &[("FLOP/s", 1), ("GFLOP/s", 1_000_000_000), ("TFLOP/s", 1_000_000_000_000), ("PFLOP/s", 1_000_000_000_000_000)]
);

/// Reads a quantity, and says what it should look like where it is something else.
struct Quantity<T>(PhantomData<T>, &'static str);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.1)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl Nanos {
    /// The time as seconds, for reports only.
    #[allow(clippy::cast_precision_loss)] // a report's seven digits
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_mandatory_and_exact() {
        assert_eq!("16 KiB".parse(), Ok(Bytes(16_384)));
        assert_eq!("54.6 GB/s".parse(), Ok(Bandwidth(54_600_000_000)));
        assert_eq!("1.2us".parse(), Ok(Nanos(1_200)));
        assert!("16".parse::<Bytes>().unwrap_err().to_string().contains("KiB"));
        assert!("1.5 ns".parse::<Nanos>().unwrap_err().to_string().contains("whole number of ns"));
        assert!("x ns".parse::<Nanos>().is_err());
        assert!("1e3 ns".parse::<Nanos>().is_err());
        assert!(".5 us".parse::<Nanos>().is_err());
        assert!("99999999999 TiB".parse::<Bytes>().is_err());
    }

    #[test]
    fn quantities_print_in_their_largest_unit() {
        assert_eq!(Bytes(16_384).to_string(), "16 KiB");
        assert_eq!(Bandwidth(54_600_000_000).to_string(), "54.6 GB/s");
        assert_eq!(Nanos(1_234_567).to_string(), "1.23 ms");
        assert_eq!(Nanos(0).to_string(), "0 ns");
        assert_eq!(format!("{:>8}", Nanos(5)), "    5 ns");
    }

    #[test]
    fn serde_round_trips_to_the_unit() {
        let bytes = Bytes(123_456_789);
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(text, "\"123456789 B\"");
        assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), bytes);
    }
}
