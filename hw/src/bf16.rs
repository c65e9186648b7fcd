//! bfloat16 on the host, for references: the upper half of an f32.

/// The value of a bf16.
pub(crate) fn widen(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// The nearest bf16, ties to even; for finite values.
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits + 0x7fff + (bits >> 16 & 1);
    u16::try_from(rounded >> 16).expect("the upper half of 32 bits has 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        assert_eq!(round(1.0), 0x3f80);
        assert_eq!(round(1.0 + 1.0 / 256.0), 0x3f80, "a tie goes to the even neighbour");
        assert_eq!(round(1.0 + 3.0 / 256.0), 0x3f82);
        assert!((widen(round(-0.3)) + 0.3).abs() < 1e-3);
    }
}
