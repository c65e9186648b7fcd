//! Where the time of a step goes: compute, exposed stall, launch and wait, for a telling subset and the baselines.

use super::{Plot, legend, step_bar, step_words, telling};
use crate::canvas::{Align, Canvas, Stroke, text_width};
use crate::figures::{mean_step_ns, ratio, step_parts, time};
use crate::theme::{BOUND, Ink, STEP_INKS};
use crate::view::View;
use kvtier_sim::record::{Point, PointKind};
use std::collections::BTreeSet;

const ROW: f64 = 19.0;
const HEADER: f64 = 30.0;
/// Bars of baselines longer than this many times the longest other bar are cut.
const CUT: f64 = 1.6;

/// Bars under one heading.
struct Panel<'a> {
    heading: String,
    bars: Vec<(String, &'a Point)>,
}

/// The plot, where any point took time.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    let mut panels: Vec<Panel<'_>> =
        telling(&view.sizes()).into_iter().map(|slots| panel(view, slots)).collect();
    let requests = view.offload.first().map_or(0, |point| point.config.concurrency);
    let kinds = [PointKind::Resident, PointKind::Dense].into_iter();
    let baselines = kinds.filter_map(|kind| view.baseline(kind, requests));
    let baselines: Vec<_> = baselines.map(|point| (baseline_name(point), point)).collect();
    if !baselines.is_empty() {
        panels.insert(0, Panel { heading: "Baselines".to_owned(), bars: baselines });
    }
    panels.iter_mut().for_each(|panel| panel.bars.retain(|(_, point)| point.time.total_ns > 0));
    panels.retain(|panel| !panel.bars.is_empty());
    if panels.is_empty() {
        return None;
    }
    let bars: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let height = |legend: f64| legend + panels.len() as f64 * HEADER + bars as f64 * ROW;
    let caption = "Mean time of a decode step, every nanosecond attributed. Exposed miss stall is the time in which attention waits \
                   for missing blocks and nothing hides it: overlap modes and fewer misses shrink this part. Beside a \
                   swap-in attention has fewer multiprocessors, and hit-first attends to hits and misses apart and merges the \
                   two, so that compute may grow by more than a small stall shrinks. The \
                   number is the whole step, with the stall's share of it."
        .to_owned();
    let caption = match subset(view) {
        Some(left_out) => format!("{caption} {left_out}"),
        None => caption,
    };
    let title = "Where the time of a step goes";
    let heights = |shape: crate::canvas::Shape| height(shape.pick(34.0, 54.0));
    Some(Plot::new("step-time", title, caption, heights, |canvas| paint(canvas, &panels)))
}

/// Says that not everything is shown, where it is not.
fn subset(view: &View<'_>) -> Option<String> {
    let policies = view.policies().len();
    let some = view.sizes().len() > 3 || policies > 3;
    some.then(|| {
        "Shown: the best policy, lru and Belady at up to three sizes; the table has all points.".to_owned()
    })
}

/// Policies worth a bar at a size: the best, lru as the common choice, the bound; all where there are three or fewer.
fn panel<'a>(view: &View<'a>, slots: u32) -> Panel<'a> {
    let all = view.policies();
    let mut policies: Vec<&str> = Vec::new();
    if all.len() <= 3 {
        policies.extend(&all);
    } else {
        let best = view.best(slots).first().map(|point| point.config.policy.as_str());
        policies.extend(best.into_iter().chain(["lru", BOUND]).filter(|policy| all.contains(policy)));
    }
    let mut seen = BTreeSet::new();
    policies.retain(|policy| seen.insert(*policy));
    let order = view.overlaps();
    let mut bars = Vec::new();
    for policy in policies {
        for overlap in &order {
            let wanted = |point: &&&Point| {
                (point.config.policy.as_str(), point.config.slots, point.config.overlap.as_str())
                    == (policy, slots, *overlap)
            };
            let name = if order.len() > 1 { format!("{policy} · {overlap}") } else { policy.to_owned() };
            bars.extend(view.offload.iter().find(wanted).map(|point| (name, *point)));
        }
    }
    Panel { heading: format!("{slots} slots"), bars }
}

/// A baseline in words.
pub(super) fn baseline_name(point: &Point) -> String {
    match point.kind {
        PointKind::Resident => format!("all in HBM, {} req", point.config.concurrency),
        PointKind::Dense => format!("dense, {} req", point.config.concurrency),
        PointKind::Offload => format!("{} · {}", point.config.policy, point.config.overlap),
    }
}

fn paint(canvas: &Canvas<'_>, panels: &[Panel<'_>]) {
    let bars = || panels.iter().flat_map(|panel| &panel.bars);
    let names = bars().map(|(name, _)| text_width(name, 12.0)).fold(0.0, f64::max);
    let left = (names + 10.0).min(canvas.width() * 0.4);
    let right = canvas.width() - canvas.shape.pick(130.0, 92.0);
    let longest = |offload: bool| {
        let steps = bars().filter(|(_, point)| !offload || point.kind == PointKind::Offload);
        steps.map(|(_, point)| mean_step_ns(point) as f64).fold(0.0, f64::max)
    };
    let most = if longest(true) > 0.0 { longest(false).min(longest(true) * CUT) } else { longest(false) };
    let scale = (right - left) / most.max(1.0);
    let parts = step_parts(&bars().next().expect("panels without bars are dropped").1.time);
    let entries: Vec<_> = parts.iter().zip(STEP_INKS).map(|((name, _), ink)| (*name, ink)).collect();
    let start = canvas.shape.pick(left, 4.0);
    legend(canvas, start, 10.0, &entries);
    let mut y = canvas.shape.pick(24.0, 44.0);
    for panel in panels {
        canvas.bold(&panel.heading, (left, y + HEADER / 2.0 + 3.0), 12.0, Ink::Text, Align::Left);
        y += HEADER;
        for (name, point) in &panel.bars {
            paint_bar(canvas, (name, point), y, (left, right, scale));
            y += ROW;
        }
    }
}

fn paint_bar(
    canvas: &Canvas<'_>,
    (name, point): (&str, &Point),
    y: f64,
    (left, right, scale): (f64, f64, f64),
) {
    let middle = y + ROW / 2.0;
    let (top, bottom) = (y + 3.0, y + ROW - 3.0);
    canvas.text(name, (left - 8.0, middle), 12.0, Ink::Text, Align::Right);
    let x = step_bar(canvas, point, (left, right, scale), (top, bottom));
    let step = mean_step_ns(point);
    if step as f64 * scale > right - left + 1.0 {
        for shift in [14.0, 9.0] {
            let from = (right - shift, bottom + 2.0);
            canvas.line(&[from, (right - shift + 6.0, top - 2.0)], Stroke { ink: Ink::Paper, width: 2.5 });
        }
    }
    canvas.spot((0.0, y), (canvas.width(), y + ROW), &format!("{name}: {}", step_words(point)));
    let stall = ratio(point.time.stall_ns, point.time.total_ns);
    let value = match point.kind {
        PointKind::Offload => {
            format!("{} · {:.0}%{}", time(step), stall * 100.0, canvas.shape.pick(" stall", ""))
        }
        PointKind::Resident | PointKind::Dense => time(step),
    };
    canvas.text(&value, (x + 6.0, middle), 11.5, Ink::Muted, Align::Left);
}
