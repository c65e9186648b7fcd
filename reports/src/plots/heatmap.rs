//! Miss ratio by layer: which layers miss, at which buffer size and under which policy.

use super::Plot;
use crate::canvas::{Align, Canvas, Shape, text_width};
use crate::figures::{grouped, percent, ratio};
use crate::theme::{BOUND, Ink, SHADES};
use crate::view::View;
use kvtier_sim::record::{LayerTally, Point};

const ROW: f64 = 22.0;
const HEADER: f64 = 30.0;
const FOOTER: f64 = 36.0;
const SCALE_HEIGHT: f64 = 34.0;

struct Panel<'a> {
    heading: String,
    rows: Vec<(String, &'a [LayerTally])>,
}

/// The plot, where layers were recorded.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    let panels: Vec<Panel<'_>> = [by_size(view), by_policy(view)]
        .into_iter()
        .flatten()
        .filter(|panel| !panel.rows.is_empty())
        .collect();
    let layers = panels.iter().flat_map(|panel| &panel.rows).map(|row| row.1.len()).max()?;
    let rows: usize = panels.iter().map(|panel| panel.rows.len()).sum();
    let height = SCALE_HEIGHT + panels.len() as f64 * (HEADER + FOOTER) + rows as f64 * ROW;
    let caption = "Misses per selected block in each layer; the darker (on a dark page: the brighter), the more misses. Layers that stand \
                   out want more slots than the rest; layers that hardly miss can give some."
        .to_owned();
    let title = "Miss ratio by layer";
    Some(Plot::new("layer-heat", title, caption, |_: Shape| height, |canvas| paint(canvas, &panels, layers)))
}

fn row(name: String, point: &Point) -> Option<(String, &[LayerTally])> {
    (!point.layers.is_empty()).then_some((name, point.layers.as_slice()))
}

/// Layer by size, for the policy that is best at the middle size.
fn by_size<'a>(view: &View<'a>) -> Option<Panel<'a>> {
    let sizes = view.sizes();
    let policy = match sizes.get(sizes.len().checked_sub(1)? / 2).map(|slots| view.best(*slots))?.first() {
        Some(best) => best.config.policy.as_str(),
        None => view.policies().into_iter().next()?,
    };
    let rows = sizes.iter().filter_map(|slots| row(format!("{slots} slots"), view.decision(policy, *slots)?));
    Some(Panel { heading: format!("{policy}, by buffer size"), rows: rows.collect() })
}

/// Layer by policy, at the middle size; nothing where there is one policy only.
fn by_policy<'a>(view: &View<'a>) -> Option<Panel<'a>> {
    let sizes = view.sizes();
    let slots = *sizes.get(sizes.len().checked_sub(1)? / 2)?;
    let mut points: Vec<&Point> = view.decisions().into_iter().filter(|p| p.config.slots == slots).collect();
    if points.len() < 2 {
        return None;
    }
    points.sort_by(|a, b| {
        let key = |point: &Point| (point.config.policy != BOUND, point.steady.miss_ratio());
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let rows = points.into_iter().filter_map(|point| row(point.config.policy.clone(), point)).collect();
    Some(Panel { heading: format!("{slots} slots, by policy"), rows })
}

fn paint(canvas: &Canvas<'_>, panels: &[Panel<'_>], layers: usize) {
    let rows = || panels.iter().flat_map(|panel| &panel.rows);
    let names = rows().map(|(name, _)| text_width(name, 12.0)).fold(0.0, f64::max);
    let left = (names + 10.0).min(canvas.width() / 3.0);
    let right = canvas.width() - 4.0;
    let most =
        rows().flat_map(|row| row.1).map(|layer| ratio(layer.misses, layer.accesses)).fold(0.0, f64::max);
    paint_scale(canvas, left, most);
    let edge = |layer: usize| left + (right - left) * layer as f64 / layers as f64;
    let mut y = SCALE_HEIGHT;
    for panel in panels {
        canvas.bold(&panel.heading, (left, y + HEADER / 2.0), 12.0, Ink::Text, Align::Left);
        y += HEADER;
        for (name, tallies) in &panel.rows {
            canvas.text(name, (left - 8.0, y + ROW / 2.0), 12.0, Ink::Text, Align::Right);
            for (layer, tally) in tallies.iter().enumerate().filter(|(_, tally)| tally.accesses > 0) {
                let missed = ratio(tally.misses, tally.accesses);
                let (from, to) = ((edge(layer), y), (edge(layer + 1) - 0.5, y + ROW - 1.0));
                canvas.fill(from, to, shade(missed, most));
                let misses = grouped(tally.misses);
                canvas.spot(
                    from,
                    to,
                    &format!("{name}, layer {layer}: {} ({misses} misses)", percent(missed)),
                );
            }
            y += ROW;
        }
        let every = [1, 2, 5, 10, 20, 50, 100]
            .into_iter()
            .find(|every| (right - left) * *every as f64 / layers as f64 > 24.0);
        for layer in (0..layers).step_by(every.unwrap_or(200)) {
            let x = (edge(layer) + edge(layer + 1)) / 2.0;
            canvas.text(&layer.to_string(), (x, y + 8.0), 11.0, Ink::Muted, Align::Centre);
        }
        canvas.text(
            "layer that selects, in order",
            ((left + right) / 2.0, y + 23.0),
            12.0,
            Ink::Text,
            Align::Centre,
        );
        y += FOOTER;
    }
}

/// The shade of a ratio on a scale from zero to `most`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between zero and the number of shades
fn shade(missed: f64, most: f64) -> Ink {
    let step = if most > 0.0 { missed / most * SHADES as f64 } else { 0.0 };
    Ink::Shade((step as usize).min(SHADES - 1))
}

/// The colour scale with its ends.
fn paint_scale(canvas: &Canvas<'_>, left: f64, most: f64) {
    canvas.text("0%", (left, 12.0), 11.5, Ink::Muted, Align::Left);
    let start = left + 24.0;
    for step in 0..SHADES {
        let x = start + step as f64 * 12.0;
        canvas.fill((x, 5.0), (x + 12.0, 19.0), Ink::Shade(step));
    }
    let end = start + SHADES as f64 * 12.0;
    canvas.text(&format!("{} missed", percent(most)), (end + 6.0, 12.0), 11.5, Ink::Muted, Align::Left);
}
