//! Miss ratio against slots, one line per policy, with the bound below them.

use super::{Plot, spread};
use crate::axis::Axis;
use crate::canvas::{Align, Canvas, Stroke, text_width};
use crate::figures::{grouped, percent, percent_tick};
use crate::theme::{BOUND, Ink, Look, looks};
use crate::view::View;
use kvtier_sim::record::Point;

struct Line<'a> {
    policy: &'a str,
    look: Look,
    points: Vec<&'a Point>,
}

/// The plot, where any point ran.
pub(super) fn plot(view: &View<'_>) -> Option<Plot> {
    let looks = looks(&view.policies());
    let decisions = view.decisions();
    let line = |(policy, look): (&&'_ str, &Look)| {
        let points = decisions.iter().filter(|point| point.config.policy == **policy).copied().collect();
        (policy.to_string(), *look, points)
    };
    let mut lines: Vec<(String, Look, Vec<&Point>)> = looks.iter().map(line).collect();
    // The bound is drawn last, on top.
    lines.sort_by_key(|(policy, ..)| policy == BOUND);
    let lines: Vec<Line<'_>> = lines
        .iter()
        .map(|(policy, look, points)| Line { policy, look: *look, points: points.clone() })
        .collect();
    // A size alone is no curve; what it misses is in the other plots.
    if view.sizes().len() < 2 {
        return None;
    }
    let title = "Miss ratio against buffer size";
    Some(Plot::new(
        "miss-curve",
        title,
        caption(view),
        |shape| shape.pick(400.0, 360.0),
        |canvas| {
            paint(canvas, view, &lines);
        },
    ))
}

fn caption(view: &View<'_>) -> String {
    let mut text = "Misses per selected block over the measured window, lower is better. ".to_owned();
    if view.policies().contains(BOUND) {
        text.push_str(
            "The dashed line is Belady, who knows the future: no demand-only policy with as many slots misses less, so the \
             distance to it is all that a better choice of victims can win.",
        );
    } else {
        text.push_str("Belady was not among the policies, so no bound is drawn.");
    }
    let helped = |point: &&Point| point.steady.prefetches > 0 || point.steady.warm_hits > 0;
    if view.offload.iter().any(helped) {
        text.push_str(" Prefetch or warm pages are on, so a policy may fall below the demand-only bound.");
    }
    if view.decisions_differ() {
        text.push_str(
            " Points of different overlap modes differ in misses here; the plainest mode is drawn.",
        );
    }
    text
}

fn paint(canvas: &Canvas<'_>, view: &View<'_>, lines: &[Line<'_>]) {
    let sizes = view.sizes();
    let x = Axis::sizes(&sizes, canvas.shape.pick(0.06, 0.11), "slots per hot buffer (log scale)");
    let y = miss_axis(lines, canvas.shape.pick(6.0, 5.0));
    let names = lines.iter().map(|line| text_width(line.policy, 12.0)).fold(0.0, f64::max);
    let right = (names + 22.0).min(canvas.width() / 3.0);
    let frame = canvas.frame(&x, &y, [52.0, 34.0, right, 48.0]);
    canvas.axes(&frame);
    let height_of = |point: &Point| point.steady.miss_ratio().max(y.range.start);
    let mut ends = Vec::new();
    for line in lines {
        let at: Vec<_> =
            line.points.iter().map(|p| frame.at(f64::from(p.config.slots), height_of(p))).collect();
        canvas.line(&at, Stroke { ink: line.look.ink, width: 2.0 });
        for (at, point) in at.iter().zip(&line.points) {
            if line.policy != BOUND {
                canvas.marker(line.look.marker, *at, 3.5, line.look.ink, true);
            }
            let ratio = percent(point.steady.miss_ratio());
            let misses = grouped(point.steady.misses);
            let text = format!("{}, {} slots: {ratio} ({misses} misses)", line.policy, point.config.slots);
            canvas.spot((at.0 - 7.0, at.1 - 7.0), (at.0 + 7.0, at.1 + 7.0), &text);
        }
        ends.extend(at.last().copied());
    }
    let wanted: Vec<f64> = ends.iter().map(|end| end.1).collect();
    let [_, top, edge, bottom] = frame.edges;
    let heights = spread(&wanted, 15.0, (top + 4.0, bottom - 4.0));
    for ((line, end), height) in lines.iter().zip(&ends).zip(heights) {
        let start = (end.0 + 6.0, end.1);
        canvas.line(&[start, (edge + 7.0, height)], Stroke { ink: Ink::Grid, width: 1.0 });
        canvas.bold(line.policy, (edge + 11.0, height), 12.0, line.look.ink, Align::Left);
    }
}

/// Linear from zero, or logarithmic where the largest ratio would hide the small ones.
fn miss_axis(lines: &[Line<'_>], count: f64) -> Axis {
    let ratios = lines.iter().flat_map(|line| &line.points).map(|point| point.steady.miss_ratio());
    let most = ratios.clone().fold(0.0, f64::max);
    let least = ratios.filter(|ratio| *ratio > 0.0).fold(f64::INFINITY, f64::min);
    if most > 20.0 * least {
        Axis::log(least / 1.2, most * 1.2, "misses per selected block (log scale)", percent_tick)
    } else {
        Axis::from_zero(most, count, "misses per selected block", percent_tick)
    }
}
