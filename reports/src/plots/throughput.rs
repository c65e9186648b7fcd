//! Tokens per second against HBM in use, with both baselines and the Pareto front: where offload wins and where it loses.

use super::Plot;
use super::breakdown::baseline_name;
use crate::axis::Axis;
use crate::canvas::{Align, Canvas, Frame, Shape, Stroke, Xy, text_width};
use crate::figures::{bytes, factor, plain, rate};
use crate::theme::{BOUND, Ink, Look, foresees, looks};
use crate::view::View;
use kvtier_sim::record::{Point, PointKind};
use std::collections::BTreeMap;

const GIB: f64 = (1u64 << 30) as f64;

/// Points that no other beats in both HBM and tokens per second, by HBM. Bounds are left aside: nobody can run them.
pub(crate) fn front<'a>(view: &View<'a>) -> Vec<&'a Point> {
    let mut points: Vec<&Point> = all(view).filter(|point| !foresees(point)).collect();
    points.sort_by(|a, b| {
        let rates = b.time.tokens_per_s().total_cmp(&a.time.tokens_per_s());
        a.footprint.hbm_total.cmp(&b.footprint.hbm_total).then(rates)
    });
    let mut fastest = 0.0;
    points.retain(|point| {
        let faster = point.time.tokens_per_s() > fastest;
        fastest = point.time.tokens_per_s().max(fastest);
        faster
    });
    points
}

/// The baseline with everything in HBM that the area and the factors refer to.
fn resident<'a>(view: &View<'a>) -> Option<&'a Point> {
    let requests = view.offload.first().map_or(0, |point| point.config.concurrency);
    view.baseline(PointKind::Resident, requests)
}

/// A point in words, as far as views and lines leave it open.
pub(crate) fn name(view: &View<'_>, point: &Point) -> String {
    if point.kind != PointKind::Offload {
        return baseline_name(point);
    }
    let config = &point.config;
    let chosen = view.chosen(point);
    let chosen = if chosen.is_empty() { chosen } else { format!(" · {chosen}") };
    format!("{}, {} slots, {}{chosen}", config.policy, config.slots, config.overlap)
}

fn all<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Point> {
    let timed = |point: &&&Point| point.time.total_ns > 0;
    view.offload.iter().chain(&view.others).chain(&view.baselines).filter(timed).copied()
}

/// The plot, where any point took time.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    all(view).next()?;
    let mut caption = "Up is faster, left is smaller. The line with numbered rings is the Pareto front: nothing measured needs less HBM and is \
                       faster too; what knows the future is drawn but never on it."
        .to_owned();
    if resident(view).is_some() {
        caption.push_str(
            " In the grey area offload is slower than the whole cache in HBM, and memory is all it buys.",
        );
    } else if view.misfits.iter().any(|point| point.kind == PointKind::Resident) {
        caption.push_str(" The whole cache in HBM does not fit this machine and is not drawn.");
    } else {
        caption.push_str(" The sweep has no baseline with the whole cache in HBM.");
    }
    if !view.others.is_empty() {
        caption.push_str(" Faint marks are the same workload under the other settings.");
    }
    let title = "Tokens per second against HBM";
    Some(Plot::new(
        "throughput-memory",
        title,
        caption,
        |shape: Shape| shape.pick(450.0, 440.0),
        |canvas| {
            paint(canvas, view);
        },
    ))
}

fn hbm(point: &Point) -> f64 {
    point.footprint.hbm_total as f64 / GIB
}

fn axes(view: &View<'_>, shape: Shape) -> (Axis, Axis) {
    let sizes = || all(view).map(hbm);
    let (low, high) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let rates = || all(view).map(|point| point.time.tokens_per_s());
    let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let tick = |value: f64| plain(value);
    let x = if low > 0.0 && high > 2.5 * low {
        Axis::log(low / 1.15, high * 1.15, "HBM in use, GiB (log scale)", tick)
    } else {
        let margin = if high > low { (high - low) * 0.06 } else { high * 0.2 }.max(1e-3);
        let count = shape.pick(8.0, 4.0);
        Axis::linear((low - margin).max(0.0), high + margin, count, "HBM in use, GiB", tick)
    };
    let (count, title) = (shape.pick(6.0, 5.0), "tokens per second");
    if least > 0.6 * most {
        let margin = (most - least).max(most * 0.02) * 0.15;
        (x, Axis::linear(least - margin, most + margin, count, title, rate_tick))
    } else {
        (x, Axis::from_zero(most * 1.03, count, title, rate_tick))
    }
}

fn rate_tick(value: f64) -> String {
    if value >= 100.0 { rate(value) } else { plain(value) }
}

fn paint(canvas: &Canvas<'_>, view: &View<'_>) {
    let looks = looks(&view.policies());
    let modes = view.overlaps();
    let top = paint_legend(canvas, &looks, &modes, !view.others.is_empty());
    let (x, y) = axes(view, canvas.shape);
    let frame = canvas.frame(&x, &y, [58.0, top + 34.0, 14.0, 48.0]);
    let at = |point: &Point| frame.at(hbm(point), point.time.tokens_per_s());
    // The area first, so that the grid stays visible on it.
    if let Some(resident) = resident(view) {
        paint_losing_area(canvas, &frame, resident);
    }
    canvas.axes(&frame);
    let spot = |point: &Point| {
        let (x, y) = at(point);
        let rates =
            format!("{} tokens/s with {}", rate(point.time.tokens_per_s()), bytes(point.footprint.hbm_total));
        canvas.spot((x - 6.0, y - 6.0), (x + 6.0, y + 6.0), &format!("{}: {rates}", name(view, point)));
    };
    for point in view.others.iter().filter(|point| point.time.total_ns > 0) {
        canvas.marker(0, at(point), 2.5, Ink::Muted, false);
        spot(point);
    }
    // The bound first: it must not cover what can be run.
    let mut offload: Vec<&Point> =
        view.offload.iter().filter(|point| point.time.total_ns > 0).copied().collect();
    offload.sort_by_key(|point| point.config.policy != BOUND);
    for point in offload {
        let mode = modes.iter().position(|mode| *mode == point.config.overlap).unwrap_or(0);
        let ink = looks[point.config.policy.as_str()].ink;
        canvas.marker(mode, at(point), 4.2, Ink::Paper, true);
        canvas.marker(mode, at(point), 3.4, ink, true);
        spot(point);
    }
    let baselines: Vec<&Point> =
        view.baselines.iter().filter(|point| point.time.total_ns > 0).copied().collect();
    let names: Vec<Name> = baselines.iter().map(|point| Name::beside(at(point), point, &frame)).collect();
    let front = front(view);
    let rings: Vec<(Xy, PointKind)> = front.iter().map(|point| (at(point), point.kind)).collect();
    paint_front(canvas, &frame, &rings, &names);
    for (point, name) in baselines.into_iter().zip(&names) {
        canvas.marker(3, at(point), 6.0, Ink::Text, point.kind == PointKind::Resident);
        canvas.bold(&name.text, name.at, 12.0, Ink::Text, name.align);
        spot(point);
    }
}

/// The name of a baseline, beside its mark.
struct Name {
    text: String,
    at: Xy,
    align: Align,
}

impl Name {
    fn beside((x, y): Xy, point: &Point, frame: &Frame<'_>) -> Name {
        let text = baseline_name(point);
        let room = text_width(&text, 12.0) + 14.0;
        // To the left it stands above its mark: below, the front's last stair may end in another one.
        let (side, down, align) =
            if x + room > frame.edges[2] { (-12.0, -13.0, Align::Right) } else { (12.0, 13.0, Align::Left) };
        Name { text, at: (x + side, y + down), align }
    }

    /// Whether a number written at `label` would touch it.
    fn touches(&self, label: Xy) -> bool {
        let width = text_width(&self.text, 12.0);
        let left = if matches!(self.align, Align::Right) { self.at.0 - width } else { self.at.0 };
        label.0 > left - 8.0 && label.0 < left + width + 8.0 && (label.1 - self.at.1).abs() < 13.0
    }
}

/// Colours of the policies and shapes of the overlap modes; returns the height taken.
fn paint_legend(canvas: &Canvas<'_>, looks: &BTreeMap<&str, Look>, modes: &[&str], others: bool) -> f64 {
    let policies = looks.iter().map(|(policy, look)| (*policy, look.ink, None));
    let modes = modes.iter().enumerate().map(|(number, mode)| (*mode, Ink::Muted, Some(number)));
    let (mut x, mut y) = (4.0, 10.0);
    for (entry, (name, ink, marker)) in policies.chain(modes).enumerate() {
        let width = 16.0 + text_width(name, 12.0) + 12.0;
        if x + width > canvas.width() || (marker == Some(0) && entry > 0) {
            (x, y) = (4.0, y + 19.0);
        }
        match marker {
            Some(number) => canvas.marker(number, (x + 5.0, y), 4.0, ink, true),
            None => canvas.fill((x, y - 5.0), (x + 10.0, y + 5.0), ink),
        }
        canvas.text(name, (x + 16.0, y), 12.0, Ink::Text, Align::Left);
        x += width;
    }
    if others {
        let name = "other settings";
        if x + 16.0 + text_width(name, 12.0) > canvas.width() {
            (x, y) = (4.0, y + 19.0);
        }
        canvas.marker(0, (x + 5.0, y), 2.5, Ink::Muted, false);
        canvas.text(name, (x + 16.0, y), 12.0, Ink::Text, Align::Left);
    }
    y + 12.0
}

/// Shades what is slower than the baseline with everything in HBM.
fn paint_losing_area(canvas: &Canvas<'_>, frame: &Frame<'_>, resident: &Point) {
    let level = frame.at(hbm(resident), resident.time.tokens_per_s()).1;
    let [left, top, right, bottom] = frame.edges;
    if level > top && level < bottom {
        canvas.fill((left + 1.0, level), (right, bottom - 1.0), Ink::Tint);
        canvas.line(&[(left, level), (right, level)], Stroke { ink: Ink::Muted, width: 1.0 });
        // At the bottom, where a chart from zero is empty.
        canvas.text("slower than all in HBM", (left + 8.0, bottom - 11.0), 11.5, Ink::Muted, Align::Left);
    }
}

/// The front as a staircase with numbered rings.
fn paint_front(canvas: &Canvas<'_>, frame: &Frame<'_>, front: &[(Xy, PointKind)], names: &[Name]) {
    let mut stairs = Vec::new();
    for (number, (at, _)) in front.iter().enumerate() {
        if number > 0 {
            stairs.push((at.0, front[number - 1].0.1));
        }
        stairs.push(*at);
    }
    if let Some(last) = front.last() {
        stairs.push((frame.edges[2], last.0.1));
    }
    canvas.line(&stairs, Stroke { ink: Ink::Text, width: 1.0 });
    let mut taken: Option<Xy> = None;
    for (number, (at, kind)) in front.iter().enumerate() {
        if *kind == PointKind::Offload {
            canvas.marker(0, *at, 7.0, Ink::Text, false);
        }
        let above = (at.0 - 11.0, at.1 - 10.0);
        let below = (at.0 - 11.0, at.1 + 12.0);
        let free = |label: Xy| names.iter().all(|name| !name.touches(label));
        let Some(label) = [above, below].into_iter().find(|&label| free(label)) else { continue };
        if taken.is_none_or(|(x, y)| (label.0 - x).abs() > 14.0 || (label.1 - y).abs() > 12.0) {
            canvas.bold(&(number + 1).to_string(), label, 11.0, Ink::Text, Align::Centre);
            taken = Some(label);
        }
    }
}

/// What the last column of [`front_rows`] compares with.
pub(crate) fn front_reference(view: &View<'_>) -> String {
    resident(view).map_or_else(|| "all in HBM".to_owned(), baseline_name)
}

/// One row of the front as a table: number, configuration, HBM, tokens per second, and that against the reference.
pub(crate) fn front_rows(view: &View<'_>) -> Vec<[String; 5]> {
    let resident = resident(view).map(|point| point.time.tokens_per_s());
    let row = |(number, point): (usize, &&Point)| {
        let speed = point.time.tokens_per_s();
        let against = resident.filter(|rate| *rate > 0.0).map(|rate| factor(speed / rate));
        let number = (number + 1).to_string();
        let used = bytes(point.footprint.hbm_total);
        [number, name(view, point), used, rate(speed), against.unwrap_or_else(|| "-".to_owned())]
    };
    front(view).iter().enumerate().map(row).collect()
}
