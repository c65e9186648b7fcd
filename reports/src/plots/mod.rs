//! The plots of a view: each file draws one, says what one should see in it, and yields nothing where it has no data.

mod breakdown;
mod heatmap;
mod miss_curve;
mod miss_kinds;
mod settings;
pub(crate) mod throughput;

use crate::canvas::{Align, Canvas, Drawing, Shape, Stroke, text_width};
use crate::figures::{mean_step_ns, percent, ratio, step_parts, time, window_steps};
use crate::theme::{Ink, STEP_INKS};
use crate::view::View;
use kvtier_sim::record::Point;

/// A plot in both widths, with its words.
pub(crate) struct Plot {
    /// Short name: part of the file name and of anchors.
    pub name: &'static str,
    /// Heading.
    pub title: String,
    /// What one should see, one or two sentences.
    pub caption: String,
    /// Whether it speaks of all settings of a workload, and not of one view.
    pub across: bool,
    /// For a desktop, and for the PNG file.
    pub wide: Drawing,
    /// For a phone.
    pub narrow: Drawing,
}

impl Plot {
    /// Name of the plot's PNG file in the view of a number.
    pub(crate) fn file_name(&self, view: usize) -> String {
        if view == 1 { format!("{}.png", self.name) } else { format!("{}-{view}.png", self.name) }
    }

    /// Draws in both widths.
    fn new(
        name: &'static str,
        title: &str,
        caption: String,
        height: impl Fn(Shape) -> f64,
        paint: impl Fn(&Canvas<'_>),
    ) -> Plot {
        let drawing = |shape| crate::canvas::draw(shape, height(shape), &paint);
        Plot {
            name,
            title: title.to_owned(),
            caption,
            across: false,
            wide: drawing(Shape::Wide),
            narrow: drawing(Shape::Narrow),
        }
    }
}

/// All plots that the view has data for.
pub(crate) fn draw(view: &View<'_>) -> Vec<Plot> {
    let plots = [
        settings::plot(view),
        miss_curve::plot(view),
        miss_kinds::plot(view),
        breakdown::plot(view),
        throughput::plot(view),
        heatmap::plot(view),
    ];
    plots.into_iter().flatten().collect()
}

/// Up to three of some sizes: the smallest, the middle one and the largest.
fn telling(sizes: &[u32]) -> Vec<u32> {
    let last = sizes.len().saturating_sub(1);
    let mut at = vec![0, last / 2, last];
    at.dedup();
    at.into_iter().filter_map(|at| sizes.get(at).copied()).collect()
}

/// A legend of coloured squares in rows that fit the width; returns where the rows end.
fn legend(canvas: &Canvas<'_>, left: f64, top: f64, entries: &[(&str, Ink)]) -> f64 {
    let size = 12.0;
    let (mut x, mut y) = (left, top);
    for (name, ink) in entries {
        let width = 18.0 + text_width(name, size) + 14.0;
        if x > left && x + width > canvas.width() {
            (x, y) = (left, y + 20.0);
        }
        canvas.fill((x, y - 6.0), (x + 12.0, y + 6.0), *ink);
        canvas.text(name, (x + 18.0, y), size, Ink::Text, Align::Left);
        x += width;
    }
    y + 14.0
}

/// The parts of a point's mean step side by side, between `left` and `right`; returns where they end.
fn step_bar(
    canvas: &Canvas<'_>,
    point: &Point,
    (left, right, scale): (f64, f64, f64),
    (top, bottom): (f64, f64),
) -> f64 {
    let steps = window_steps(point) as f64;
    let mut x = left;
    for ((_, ns), ink) in step_parts(&point.time).iter().zip(STEP_INKS) {
        let end = (x + *ns as f64 / steps * scale).min(right);
        canvas.fill((x, top), (end, bottom), ink);
        if end - x > 3.0 {
            canvas.line(&[(end, top), (end, bottom)], Stroke { ink: Ink::Paper, width: 1.0 });
        }
        x = end;
    }
    x
}

/// What a bar of [`step_bar`] says of itself: the mean step and the share of each part.
fn step_words(point: &Point) -> String {
    let share = |ns: u64| percent(ratio(ns, point.time.total_ns));
    let parts = step_parts(&point.time).map(|(name, ns)| format!("{name} {}", share(ns))).join(", ");
    format!("{} a step; {parts}", time(mean_step_ns(point)))
}

/// Moves labels apart so that neighbours keep a distance, staying within limits and near where they want to be.
fn spread(wanted: &[f64], distance: f64, limits: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut floor = limits.0;
    for at in &order {
        placed[*at] = placed[*at].max(floor);
        floor = placed[*at] + distance;
    }
    let mut ceiling = limits.1;
    for at in order.iter().rev() {
        placed[*at] = placed[*at].min(ceiling);
        ceiling = placed[*at] - distance;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance_and_order() {
        assert_eq!(spread(&[10.0, 11.0, 50.0], 12.0, (0.0, 60.0)), [10.0, 22.0, 50.0]);
        assert_eq!(spread(&[58.0, 57.0], 12.0, (0.0, 60.0)), [60.0, 48.0]);
    }

    #[test]
    fn telling_sizes_are_the_ends_and_the_middle() {
        assert_eq!(telling(&[]), Vec::<u32>::new());
        assert_eq!(telling(&[8]), [8]);
        assert_eq!(telling(&[8, 16]), [8, 16]);
        assert_eq!(telling(&[1, 2, 3, 4, 5, 6]), [1, 3, 6]);
    }
}
