//! Constants with their origin: every number in a machine or model file says whether it was measured, and where.
//! It stands apart because both kinds of preset are written this way.

use kvtier_units::Nanos;
use serde::{Deserialize, Deserializer};

/// How a constant came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Measured on the hardware, by us or by the source.
    Measured,
    /// Taken from a specification or a published configuration.
    Specified,
    /// Neither; the source says why the value was chosen.
    Assumed,
    /// A model parameter fitted to measurements.
    Fitted,
}

impl Kind {
    /// The word used in files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Measured => "measured",
            Kind::Specified => "specified",
            Kind::Assumed => "assumed",
            Kind::Fitted => "fitted",
        }
    }
}

/// A value, how it came about, and from where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant<T> {
    /// The value, with its unit.
    pub value: T,
    /// How it came about.
    pub kind: Kind,
    /// From where.
    pub source: String,
}

/// One constant of a preset, for lists and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Dotted path in the file.
    pub path: String,
    /// The value as written.
    pub value: String,
    /// How it came about.
    pub kind: String,
    /// From where.
    pub source: String,
}

/// Lists every constant below `table`, in file order by path.
pub(crate) fn provenance(table: &toml::Table) -> Vec<Provenance> {
    let mut found = Vec::new();
    collect("", &toml::Value::Table(table.clone()), &mut found);
    found
}

fn collect(path: &str, value: &toml::Value, found: &mut Vec<Provenance>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        toml::Value::Table(table) if table.contains_key("kind") && table.contains_key("source") => {
            let text = |name: &str| match table.get(name) {
                Some(toml::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            found.push(Provenance {
                path: path.to_owned(),
                value: text("value"),
                kind: text("kind"),
                source: text("source"),
            });
        }
        toml::Value::Table(table) => {
            table.iter().for_each(|(name, inner)| collect(&below(name), inner, found))
        }
        toml::Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, inner)| collect(&below(&index.to_string()), inner, found));
        }
        _ => {}
    }
}

/// A length of time in picoseconds: per-block costs are fractions of a nanosecond. Written as "29.788 ns".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picos(pub u64);

impl Picos {
    /// In nanoseconds, for the cost formulas.
    pub fn as_ns(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl From<Picos> for Nanos {
    /// Rounded to the nearest.
    fn from(picos: Picos) -> Nanos {
        Nanos((picos.0 + 500) / 1_000)
    }
}

impl<'de> Deserialize<'de> for Picos {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let units = [("ns", 1), ("us", 1_000)];
        let parsed = units.iter().find_map(|(unit, scale)| {
            let number = text.trim().strip_suffix(unit)?;
            thousandths(number.trim())?.checked_mul(*scale)
        });
        parsed.map(Picos).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}`: write a time such as \"2.4 us\" or \"29.788 ns\""))
        })
    }
}

/// A share in thousandths. Written as "0.130".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permille(pub u64);

impl Permille {
    /// As a fraction, for the cost formulas.
    pub fn as_fraction(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

impl<'de> Deserialize<'de> for Permille {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        thousandths(text.trim()).map(Permille).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}`: write a share such as \"0.130\", three decimals at most"
            ))
        })
    }
}

/// Reads a plain decimal number of at most three decimals as thousandths.
fn thousandths(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(fraction)
}

/// Where in `text` an error of TOML stands.
pub(crate) fn place(text: &str, error: &toml::de::Error) -> String {
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}")
}

/// An error of TOML on one line.
pub(crate) fn fault(text: &str, error: &toml::de::Error) -> String {
    format!("{}: {}", place(text, error), error.message().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_are_exact() {
        assert_eq!(thousandths("29.788"), Some(29_788));
        assert_eq!(thousandths("7"), Some(7_000));
        assert_eq!(thousandths("0.13"), Some(130));
        assert_eq!(thousandths("1.2345"), None);
        assert_eq!(thousandths("-1"), None);
        assert_eq!(thousandths(".5"), None);
    }
}
