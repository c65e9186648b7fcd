//! The settings of a workload against one another, everything else equal: what a sweep over admission, tiers or prefetch asks.

use super::{Plot, legend, step_bar, step_words};
use crate::canvas::{Align, Canvas, Shape, text_width};
use crate::figures::{count, mean_step_ns, percent, step_parts, time};
use crate::theme::{Ink, STEP_INKS};
use crate::view::{View, overlaps, shown};
use kvtier_sim::record::Point;
use std::collections::BTreeMap;

/// Settings that are drawn in each mode, the fastest first.
const MOST: usize = 24;
const ROW: f64 = 20.0;
/// Where names are long, as they are on a phone, they stand above their bars, in lines of this height.
const LINE: f64 = 16.0;
const HEADER: f64 = 30.0;

/// The settings that ran in one overlap mode, fastest first.
struct Panel<'a> {
    overlap: &'a str,
    rows: Vec<(String, &'a Point)>,
}

/// The plot, at the first view of a workload that has several settings.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    if !view.leads {
        return None;
    }
    let points = || view.offload.iter().chain(&view.others).copied().filter(|p| p.time.total_ns > 0);
    let shared = |point: &Point| (point.config.policy.clone(), point.config.slots, point.config.concurrency);
    let mut numbers: BTreeMap<(String, u32, u32), usize> = BTreeMap::new();
    points().for_each(|point| *numbers.entry(shared(point)).or_default() += 1);
    // The policy, size and requests that most settings were run with; of several the first point's.
    let most = *numbers.values().max()?;
    let common = points().map(shared).find(|shared| numbers[shared] == most)?;
    let mut left_out = 0;
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for overlap in overlaps(points()) {
        let mut rows: Vec<(String, &Point)> = points()
            .filter(|point| shared(point) == common && point.config.overlap == overlap)
            .map(|point| (view.chosen(point), point))
            .collect();
        rows.sort_by_key(|(_, point)| mean_step_ns(point));
        left_out += rows.len().saturating_sub(MOST);
        rows.truncate(MOST);
        if rows.len() > 1 {
            panels.push(Panel { overlap, rows });
        }
    }
    if panels.is_empty() {
        return None;
    }
    let (policy, slots, requests) = common;
    let config = &view.offload.first()?.config;
    let place = format!("{} on {}, {}", shown(&config.trace), config.model, config.machine);
    let mut caption = format!(
        "{place}: mean time of a decode step under every setting with {policy}, {slots} slots and {}, the fastest first, and the \
         share of the accesses that miss. Further below each setting is by itself, with its own policies and sizes.",
        count(requests as usize, "request")
    );
    if left_out > 0 {
        caption.push_str(&format!(" Slower ones are not drawn: {}.", count(left_out, "bar")));
    }
    let rows: usize = panels.iter().map(|panel| panel.rows.len()).sum();
    let height = |shape: Shape| {
        shape.pick(34.0, 54.0)
            + panels.len() as f64 * HEADER
            + rows as f64 * row_height(lines_above(&panels, shape))
    };
    let plot = Plot::new("settings", "Settings compared", caption, height, |canvas| paint(canvas, &panels));
    Some(Plot { across: true, ..plot })
}

/// Width of the longest name, with room for a browser whose letters are wider.
fn names(panels: &[Panel<'_>]) -> f64 {
    let rows = panels.iter().flat_map(|panel| &panel.rows);
    1.1 * rows.map(|(name, _)| text_width(name, 12.0)).fold(0.0, f64::max)
}

/// Lines of each name above its bar; none where names stand beside them.
fn lines_above(panels: &[Panel<'_>], shape: Shape) -> usize {
    if names(panels) + 10.0 <= shape.width() * 0.4 {
        return 0;
    }
    let rows = panels.iter().flat_map(|panel| &panel.rows);
    rows.map(|(name, _)| wrapped(name, shape.width()).len()).max().unwrap_or(0)
}

fn row_height(lines: usize) -> f64 {
    ROW + lines as f64 * LINE
}

/// The settings of a name in lines that fit the width.
fn wrapped(name: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for setting in name.split(" · ") {
        match lines.last_mut() {
            Some(line) if 1.1 * text_width(&format!("{line} · {setting}"), 12.0) + 8.0 <= width => {
                *line = format!("{line} · {setting}");
            }
            _ => lines.push(setting.to_owned()),
        }
    }
    lines
}

fn paint(canvas: &Canvas<'_>, panels: &[Panel<'_>]) {
    let lines = lines_above(panels, canvas.shape);
    let height = row_height(lines);
    let left = if lines == 0 { names(panels) + 10.0 } else { 4.0 };
    let right = canvas.width() - canvas.shape.pick(160.0, 146.0);
    let rows = || panels.iter().flat_map(|panel| &panel.rows);
    let longest = rows().map(|(_, point)| mean_step_ns(point)).max().unwrap_or(1);
    let scale = (right - left) / longest.max(1) as f64;
    let parts = step_parts(&rows().next().expect("panels without rows are dropped").1.time);
    let entries: Vec<_> = parts.iter().zip(STEP_INKS).map(|((name, _), ink)| (*name, ink)).collect();
    legend(canvas, left, 10.0, &entries);
    let mut y = canvas.shape.pick(24.0, 44.0);
    for panel in panels {
        canvas.bold(panel.overlap, (left, y + HEADER / 2.0 + 3.0), 12.0, Ink::Text, Align::Left);
        y += HEADER;
        for (name, point) in &panel.rows {
            paint_row(canvas, (name, point), (y, lines), (left, scale));
            y += height;
        }
    }
}

fn paint_row(
    canvas: &Canvas<'_>,
    (name, point): (&str, &Point),
    (y, lines): (f64, usize),
    (left, scale): (f64, f64),
) {
    let height = row_height(lines);
    let (top, bottom) = (y + 3.0 + lines as f64 * LINE, y + height - 3.0);
    if lines == 0 {
        canvas.text(name, (left - 8.0, y + ROW / 2.0), 12.0, Ink::Text, Align::Right);
    } else {
        let above = wrapped(name, canvas.width());
        // The last line stands right above the bar.
        for (line, up) in above.iter().rev().zip(0..) {
            let at = (left, top - 8.0 - f64::from(up) * (LINE - 2.0));
            canvas.text(line, at, 12.0, Ink::Text, Align::Left);
        }
    }
    let x = step_bar(canvas, point, (left, f64::INFINITY, scale), (top, bottom));
    let step = time(mean_step_ns(point));
    let missed = percent(point.steady.miss_ratio());
    canvas.spot(
        (0.0, y),
        (canvas.width(), y + height),
        &format!("{name}: {}; {missed} miss", step_words(point)),
    );
    let value = format!("{step} · {missed} miss");
    canvas.text(&value, (x + 6.0, f64::midpoint(top, bottom)), 11.5, Ink::Muted, Align::Left);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_go_on_below() {
        let name = "demotion utility, promoting · tiers host 512 MiB + cxl 256 MiB + nvme 2 GiB · seed 3";
        assert_eq!(wrapped(name, 4000.0), [name]);
        let lines = wrapped(name, 360.0);
        assert_eq!(lines.join(" · "), name);
        assert!(lines.len() == 2 && lines[0] == "demotion utility, promoting", "{lines:?}");
    }
}
