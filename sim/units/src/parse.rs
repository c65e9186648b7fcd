//! Exact parsing of quantities such as "16 KiB" or "54.6 GB/s": decimal digits and a unit, never floats.

use thiserror::Error;

/// Why a quantity could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseUnitError {
    /// The unit is missing or not one of those this quantity takes.
    #[error("`{text}`: unit missing or unknown; write a number and one of: {units}")]
    Unit {
        /// What was given.
        text: String,
        /// The units accepted, comma separated.
        units: String,
    },
    /// The part before the unit is not a plain decimal number.
    #[error("`{text}`: `{number}` is not a plain decimal number")]
    Number {
        /// What was given.
        text: String,
        /// The part that should have been a number.
        number: String,
    },
    /// The quantity is finer than the base unit, or too large for 64 bits.
    #[error("`{text}`: not a whole number of {base} within 64 bits")]
    Range {
        /// What was given.
        text: String,
        /// Name of the base unit.
        base: &'static str,
    },
}

/// A unit's name and how many base units it holds.
pub(crate) type Unit = (&'static str, u64);

/// Reads `text` as a whole number of base units.
pub(crate) fn parse(text: &str, units: &[Unit], base: &'static str) -> Result<u64, ParseUnitError> {
    let trimmed = text.trim();
    let split =
        trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(trimmed.len());
    let (number, unit) = (trimmed[..split].trim(), trimmed[split..].trim());
    let Some(&(_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        return Err(ParseUnitError::Unit { text: text.into(), units: names.join(", ") });
    };
    scale_decimal(&number.replace('_', ""), scale).map_err(|fault| match fault {
        DecimalFault::Syntax => ParseUnitError::Number { text: text.into(), number: number.into() },
        DecimalFault::Range => ParseUnitError::Range { text: text.into(), base },
    })
}

enum DecimalFault {
    Syntax,
    Range,
}

/// `number * scale`, exact or an error.
fn scale_decimal(number: &str, scale: u64) -> Result<u64, DecimalFault> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return Err(DecimalFault::Syntax);
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| DecimalFault::Range)?;
    let divisor =
        u32::try_from(fraction.len()).ok().and_then(|n| 10u128.checked_pow(n)).ok_or(DecimalFault::Range)?;
    let scaled = digits.checked_mul(u128::from(scale)).ok_or(DecimalFault::Range)?;
    if scaled % divisor != 0 {
        return Err(DecimalFault::Range);
    }
    u64::try_from(scaled / divisor).map_err(|_| DecimalFault::Range)
}

/// `value` with three significant digits in the largest unit that keeps it at or above one.
pub(crate) fn show(value: u64, units: &[Unit]) -> String {
    let &(name, scale) = units
        .iter()
        .rev()
        .find(|(_, scale)| value >= *scale)
        .or(units.first())
        .expect("a quantity has units");
    let whole = value / scale;
    let rest = u128::from(value % scale);
    let digits = 3usize.saturating_sub(whole.to_string().len());
    if rest == 0 || digits == 0 {
        return format!("{whole} {name}");
    }
    let fraction = rest * 10u128.pow(u32::try_from(digits).unwrap_or(0)) / u128::from(scale);
    format!("{whole}.{fraction:0digits$} {name}")
}
