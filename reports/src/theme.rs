//! Colours by role: every ink has a light and a dark value, and the light one identifies it in a drawing.
//! Apart, because the page, the inlined drawings and the PNG files must agree on them.

use kvtier_sim::record::Point;
use plotters::style::RGBColor;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The policy that bounds the others: it knows the future, so nothing can run it.
pub(crate) const BOUND: &str = "belady";

/// Whether a point knows the future: it bounds what can be had, and nobody can run it.
pub(crate) fn foresees(point: &Point) -> bool {
    point.config.policy == BOUND || point.config.prefetch == "oracle"
}

/// Number of hues told apart by colour alone.
const HUES: usize = 8;
/// Shades of the heat map.
pub(crate) const SHADES: usize = 12;

/// What a mark means; the colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text that must be read.
    Text,
    /// Text and lines that support it.
    Muted,
    /// Grid lines.
    Grid,
    /// The page behind a drawing, for the gap between touching areas.
    Paper,
    /// A faint area.
    Tint,
    /// The bound.
    Bound,
    /// One of the hues, by number.
    Hue(usize),
    /// One of the shades of the heat map, pale to strong.
    Shade(usize),
}

/// The parts of a step, and the kinds of a miss, in their own fixed inks.
pub(crate) const STEP_INKS: [Ink; 4] = [Ink::Hue(0), Ink::Hue(1), Ink::Hue(5), Ink::Hue(7)];
/// Cold, capacity and policy misses.
pub(crate) const KIND_INKS: [Ink; 3] = [Ink::Hue(7), Ink::Hue(4), Ink::Hue(1)];

const NAMED: [(&str, Ink, u32, u32); 6] = [
    ("text", Ink::Text, 0x1b_1f_24, 0xe8_ea_ed),
    ("muted", Ink::Muted, 0x5b_64_70, 0xa3_ab_b5),
    ("grid", Ink::Grid, 0xe2_e5_e9, 0x33_38_3f),
    ("paper", Ink::Paper, 0xff_ff_ff, 0x17_1a_1e),
    ("tint", Ink::Tint, 0xf1_f3_f5, 0x22_26_2b),
    ("bound", Ink::Bound, 0x11_14_17, 0xf5_f6_f7),
];

/// Hues after Okabe and Ito, darkened on light paper and lightened on dark for contrast.
const HUE_VALUES: [(u32, u32); HUES] = [
    (0x00_6f_b0, 0x5a_ae_ec),
    (0xcf_52_00, 0xff_8f_52),
    (0x00_84_5f, 0x35_c7_98),
    (0xb3_4f_8a, 0xe8_92_c2),
    (0x3f_9a_cf, 0x93_d6_f7),
    (0xc2_85_00, 0xf2_b9_42),
    (0x7a_52_30, 0xcb_a1_78),
    (0x6b_77_85, 0x8d_99_a6),
];

/// Ends of the heat map: pale to strong on light paper, dim to bright on dark.
const HEAT_LIGHT: [u32; 3] = [0xf3_ee_f7, 0xd8_6a_8e, 0x3d_0d_4f];
const HEAT_DARK: [u32; 3] = [0x26_22_30, 0xa8_3a_72, 0xff_d9_a0];

impl Ink {
    fn all() -> impl Iterator<Item = Ink> {
        let named = NAMED.iter().map(|(_, ink, _, _)| *ink);
        named.chain((0..HUES).map(Ink::Hue)).chain((0..SHADES).map(Ink::Shade))
    }

    /// Name of the ink's class and variable in the page.
    fn name(self) -> String {
        match self {
            Ink::Hue(hue) => format!("hue{hue}"),
            Ink::Shade(shade) => format!("shade{shade}"),
            named => NAMED.iter().find(|row| row.1 == named).expect("every named ink has a row").0.to_owned(),
        }
    }

    /// Light and dark value, 0xRRGGBB.
    fn values(self) -> (u32, u32) {
        match self {
            Ink::Hue(hue) => HUE_VALUES[hue % HUES],
            Ink::Shade(shade) => (blend(HEAT_LIGHT, shade), blend(HEAT_DARK, shade)),
            named => {
                let row = NAMED.iter().find(|row| row.1 == named).expect("every named ink has a row");
                (row.2, row.3)
            }
        }
    }

    /// The colour on light paper, as drawn.
    pub(crate) fn light(self) -> RGBColor {
        let [_, red, green, blue] = self.values().0.to_be_bytes();
        RGBColor(red, green, blue)
    }

    /// The colour on light paper as the drawing spells it.
    pub(crate) fn light_hex(self) -> String {
        format!("#{:06X}", self.values().0)
    }
}

/// Shade `step` of a ramp through three colours, in integers so that it is the same everywhere.
fn blend(ramp: [u32; 3], step: usize) -> u32 {
    let last = u32::try_from(SHADES - 1).expect("few shades");
    let at = u32::try_from(step.min(SHADES - 1)).expect("few shades") * 2;
    let (from, to, weight) = if at <= last { (ramp[0], ramp[1], at) } else { (ramp[1], ramp[2], at - last) };
    let channel = |shift: u32| {
        let (a, b) = ((from >> shift) & 0xff, (to >> shift) & 0xff);
        ((a * (last - weight) + b * weight) / last) << shift
    };
    channel(16) | channel(8) | channel(0)
}

/// Turns the fixed colours of a drawing into classes, so that it follows the theme of the page.
pub(crate) fn recolour(svg: &str) -> String {
    let mut text = svg.to_owned();
    for ink in Ink::all() {
        let (hex, name) = (ink.light_hex(), ink.name());
        text = text.replace(&format!(" fill=\"{hex}\""), &format!(" class=\"f-{name}\""));
        text = text.replace(&format!(" stroke=\"{hex}\""), &format!(" class=\"s-{name}\""));
    }
    text
}

/// The style rules of the inks: variables for both themes, and the classes of the drawings.
pub(crate) fn css() -> String {
    let (mut light, mut dark, mut classes) = (String::new(), String::new(), String::new());
    for ink in Ink::all() {
        let (name, (on_light, on_dark)) = (ink.name(), ink.values());
        let _ = write!(light, "--{name}:#{on_light:06x};");
        let _ = write!(dark, "--{name}:#{on_dark:06x};");
        let _ = writeln!(classes, ".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}");
    }
    format!(":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{classes}")
}

/// How the marks of a policy look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Colour.
    pub ink: Ink,
    /// Number of the marker shape.
    pub marker: usize,
}

/// Policies that keep their look in every report.
const KNOWN: [(&str, usize); 6] =
    [("lru", 0), ("fifo", 1), ("lfu", 2), ("lru-step", 4), ("clock", 5), ("random", 7)];

/// The look of every policy: fixed for the known ones, by name order for the rest.
pub(crate) fn looks<'a>(policies: &BTreeSet<&'a str>) -> BTreeMap<&'a str, Look> {
    let hue_of = |name: &str| KNOWN.iter().find(|(known, _)| *known == name).map(|(_, hue)| *hue);
    let taken: BTreeSet<usize> = policies.iter().filter_map(|name| hue_of(name)).collect();
    let mut free = (0..HUES).filter(|hue| !taken.contains(hue)).chain((0..HUES).cycle());
    let mut number = 0;
    let look = |name: &str| {
        if name == BOUND {
            return Look { ink: Ink::Bound, marker: 0 };
        }
        let hue = hue_of(name).unwrap_or_else(|| free.next().expect("hues repeat without end"));
        number += 1;
        Look { ink: Ink::Hue(hue), marker: number - 1 }
    };
    policies.iter().copied().zip(policies.iter().copied().map(look)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ink_is_told_apart_by_its_light_colour() {
        let colours: BTreeSet<String> = Ink::all().map(Ink::light_hex).collect();
        assert_eq!(colours.len(), Ink::all().count());
    }

    #[test]
    fn known_policies_keep_their_look() {
        let few = looks(&BTreeSet::from(["lru", "arc"]));
        let many = looks(&BTreeSet::from(["lru", "arc", "fifo", BOUND, "sieve"]));
        assert_eq!(few["lru"].ink, many["lru"].ink);
        assert_eq!(many[BOUND].ink, Ink::Bound);
        let inks: Vec<Ink> = many.values().map(|look| look.ink).collect();
        assert!(inks.iter().enumerate().all(|(at, ink)| !inks[..at].contains(ink)), "{inks:?}");
    }

    #[test]
    fn a_drawing_follows_the_theme() {
        let svg = format!("<rect fill=\"{}\" stroke=\"none\"/>", Ink::Hue(1).light_hex());
        assert_eq!(recolour(&svg), "<rect class=\"f-hue1\" stroke=\"none\"/>");
        assert!(css().contains("--hue1:"));
    }
}
