//! What the misses are: cold, capacity and policy, per policy at a few sizes.

use super::{Plot, legend, telling};
use crate::canvas::{Align, Canvas, Stroke, text_width};
use crate::figures::{percent, ratio};
use crate::theme::{Ink, KIND_INKS};
use crate::view::View;
use kvtier_sim::record::{Point, Tally};

const ROW: f64 = 19.0;
const HEADER: f64 = 30.0;

/// One panel: the policies at one size, fewest misses first.
struct Panel<'a> {
    slots: u32,
    points: Vec<&'a Point>,
}

/// The plot, where any point missed.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    let decisions = view.decisions();
    let panel = |slots: u32| {
        let mut points: Vec<&Point> = decisions.iter().filter(|p| p.config.slots == slots).copied().collect();
        points.sort_by(|a, b| a.steady.miss_ratio().total_cmp(&b.steady.miss_ratio()));
        Panel { slots, points }
    };
    let panels: Vec<Panel<'_>> = telling(&view.sizes()).into_iter().map(panel).collect();
    if decisions.iter().all(|point| point.steady.misses == 0) {
        return None;
    }
    let rows: usize = panels.iter().map(|panel| panel.points.len()).sum();
    let height = 34.0 + panels.len() as f64 * HEADER + rows as f64 * ROW;
    let caption = "Cold misses are first uses, which no eviction policy avoids. Capacity misses are those that Belady also takes \
                   with as many slots. Policy misses are the rest: what a better choice of victims would save."
        .to_owned();
    let negative = decisions.iter().any(|point| point.steady.policy < 0);
    let caption = if negative {
        caption + " An outlined part is what prefetch or warm pages save beyond demand-only Belady."
    } else {
        caption
    };
    Some(Plot::new("miss-kinds", "What the misses are", caption, |_| height, |canvas| paint(canvas, &panels)))
}

/// Shares of the accesses: cold, capacity and policy misses; the last is negative where Belady was beaten.
fn shares(tally: &Tally) -> [f64; 3] {
    let policy = ratio(tally.policy.unsigned_abs(), tally.accesses);
    let policy = if tally.policy < 0 { -policy } else { policy };
    [ratio(tally.cold, tally.accesses), ratio(tally.capacity, tally.accesses), policy]
}

fn paint(canvas: &Canvas<'_>, panels: &[Panel<'_>]) {
    let points = || panels.iter().flat_map(|panel| &panel.points);
    let names = points().map(|point| text_width(&point.config.policy, 12.0)).fold(0.0, f64::max);
    let left = (names + 10.0).min(canvas.width() / 3.0);
    let right = canvas.width() - 56.0;
    let reach = |point: &Point| shares(&point.steady).iter().map(|share| share.max(0.0)).sum::<f64>();
    let most = points().map(|point| reach(point)).fold(f64::MIN_POSITIVE, f64::max);
    let entries = [("cold", KIND_INKS[0]), ("capacity", KIND_INKS[1]), ("policy", KIND_INKS[2])];
    let mut y = legend(canvas, left, 10.0, &entries);
    for panel in panels {
        canvas.bold(
            &format!("{} slots", panel.slots),
            (left, y + HEADER / 2.0 + 3.0),
            12.0,
            Ink::Text,
            Align::Left,
        );
        y += HEADER;
        for point in &panel.points {
            paint_row(canvas, point, y, (left, (right - left) / most));
            y += ROW;
        }
    }
}

fn paint_row(canvas: &Canvas<'_>, point: &Point, y: f64, (left, scale): (f64, f64)) {
    let middle = y + ROW / 2.0;
    canvas.text(&point.config.policy, (left - 8.0, middle), 12.0, Ink::Text, Align::Right);
    let mut x = left;
    let total = point.steady.miss_ratio();
    let kinds = ["cold", "capacity", "policy"];
    let shares = shares(&point.steady);
    for (share, ink) in shares.iter().zip(KIND_INKS) {
        let end = x + share * scale;
        let (top, bottom) = (y + 3.0, y + ROW - 3.0);
        if *share < 0.0 {
            canvas.fill((end, top), (x, bottom), Ink::Paper);
            canvas.outline((end, top), (x, bottom), ink);
            continue;
        }
        canvas.fill((x, top), (end, bottom), ink);
        if end - x > 3.0 {
            canvas.line(&[(end, top), (end, bottom)], Stroke { ink: Ink::Paper, width: 1.0 });
        }
        x = end;
    }
    let parts = kinds.iter().zip(shares).map(|(kind, share)| format!("{kind} {}", percent(share)));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let name = format!("{}, {} slots", point.config.policy, point.config.slots);
    canvas.spot(
        (0.0, y),
        (canvas.width(), y + ROW),
        &format!("{name}: {} of the accesses miss; {parts}", percent(total)),
    );
    canvas.text(&percent(total), (x + 6.0, middle), 11.5, Ink::Muted, Align::Left);
}
