//! A drawing in CSS pixels on top of plotters' SVG backend: inks, text, markers, framed axes and spots to point at.
//! Apart, so that a plot says what is drawn where, and nothing about backends, scaling or themes.

use crate::axis::Axis;
use crate::theme::{Ink, recolour};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::cell::RefCell;
use std::fmt::Write;

/// Drawing units per CSS pixel: the backend knows whole units only, and PNG files are this much finer.
const SCALE: f64 = 2.0;
/// plotters writes font sizes divided by this.
const FONT_SIZE_DIVISOR: f64 = 1.24;

/// A position or a size, in CSS pixels.
pub(crate) type Xy = (f64, f64);

/// For which width of page a drawing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// For a desktop, and for the PNG file.
    Wide,
    /// For a phone.
    Narrow,
}

impl Shape {
    /// Width of the drawing, CSS pixels.
    pub(crate) fn width(self) -> f64 {
        if self == Shape::Wide { 760.0 } else { 360.0 }
    }

    /// One of two values by shape.
    pub(crate) fn pick<T>(self, wide: T, narrow: T) -> T {
        if self == Shape::Wide { wide } else { narrow }
    }
}

/// Where text stands relative to its position.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    /// It starts there.
    Left,
    /// It is centred there.
    Centre,
    /// It ends there.
    Right,
}

/// How a straight or broken line looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stroke {
    /// Colour.
    pub ink: Ink,
    /// Width, CSS pixels.
    pub width: f64,
}

/// A finished drawing.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    /// SVG elements, in light inks.
    body: String,
    /// The spots to point at, in SVG.
    spots: String,
    /// Width and height in drawing units.
    size: (u32, u32),
}

/// A drawing in the making.
pub(crate) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    /// The shape it is drawn for.
    pub shape: Shape,
    /// Height, CSS pixels.
    pub height: f64,
    spots: RefCell<String>,
}

/// The plotting area of a framed chart: maps values to CSS pixels.
pub(crate) struct Frame<'x> {
    axes: (&'x Axis, &'x Axis),
    /// Left, top, right and bottom edge, CSS pixels.
    pub edges: [f64; 4],
}

impl Frame<'_> {
    /// Where a pair of values stands, CSS pixels.
    pub(crate) fn at(&self, x: f64, y: f64) -> Xy {
        let [left, top, right, bottom] = self.edges;
        (left + self.axes.0.share(x) * (right - left), bottom - self.axes.1.share(y) * (bottom - top))
    }
}

/// Draws in memory; `paint` gets the canvas.
pub(crate) fn draw(shape: Shape, height: f64, paint: impl FnOnce(&Canvas<'_>)) -> Drawing {
    let size = (unsigned(shape.width()), unsigned(height));
    let mut body = String::new();
    let spots = {
        let area = SVGBackend::with_string(&mut body, size).into_drawing_area();
        let canvas = Canvas { area, shape, height, spots: RefCell::default() };
        paint(&canvas);
        canvas.area.present().expect(IN_MEMORY);
        canvas.spots.take()
    };
    let start = body.find('>').expect("the backend opens an svg element") + 1;
    let end = body.rfind("</svg>").expect("the backend closes its svg element");
    let dashed = format!(" stroke=\"{}\"", Ink::Bound.light_hex());
    let body = body[start..end]
        .replace(" opacity=\"1\"", "")
        .replace(" \"", "\"")
        .replace("\n</text>", "</text>")
        // Half an x-height is a matter of the font; a share of the font size is not.
        .replace("dy=\"0.5ex\"", "dy=\"0.35em\"")
        .replace(&dashed, &format!("{dashed} stroke-dasharray=\"11,7\""));
    Drawing { body: body.trim().to_owned(), spots, size }
}

const IN_MEMORY: &str = "drawing SVG in memory does not fail";

/// CSS pixels as whole drawing units.
#[allow(clippy::cast_possible_truncation)] // a drawing is a few thousand units wide
fn units(value: f64) -> i32 {
    (value * SCALE).round() as i32
}

fn unsigned(value: f64) -> u32 {
    u32::try_from(units(value)).expect("sizes are not negative")
}

fn point(at: Xy) -> (i32, i32) {
    (units(at.0), units(at.1))
}

/// Width of a text in CSS pixels, estimated: sans-serif letters are a little over half as wide as high.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|letter| if "il.,:;|'·ftj1 ".contains(letter) { 0.36 } else { 0.59 }).sum::<f64>() * size
}

impl Canvas<'_> {
    /// Width, CSS pixels.
    pub(crate) fn width(&self) -> f64 {
        self.shape.width()
    }

    /// A line through points.
    pub(crate) fn line(&self, points: &[Xy], stroke: Stroke) {
        let style = stroke.ink.light().stroke_width(unsigned(stroke.width));
        let points: Vec<_> = points.iter().copied().map(point).collect();
        self.area.draw(&PathElement::new(points, style)).expect(IN_MEMORY);
    }

    /// A filled rectangle from its upper left to its lower right corner.
    pub(crate) fn fill(&self, from: Xy, to: Xy, ink: Ink) {
        self.area.draw(&Rectangle::new([point(from), point(to)], ink.light().filled())).expect(IN_MEMORY);
    }

    /// The outline of a rectangle.
    pub(crate) fn outline(&self, from: Xy, to: Xy, ink: Ink) {
        let corners = [from, (to.0, from.1), to, (from.0, to.1), from];
        self.line(&corners, Stroke { ink, width: 1.0 });
    }

    /// Text of a size, centred on its height.
    pub(crate) fn text(&self, text: &str, at: Xy, size: f64, ink: Ink, align: Align) {
        self.styled(text, at, size, ink, align, FontStyle::Normal);
    }

    /// Bold text.
    pub(crate) fn bold(&self, text: &str, at: Xy, size: f64, ink: Ink, align: Align) {
        self.styled(text, at, size, ink, align, FontStyle::Bold);
    }

    fn styled(&self, text: &str, at: Xy, size: f64, ink: Ink, align: Align, weight: FontStyle) {
        let h_pos = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = font(size, weight, ink).pos(Pos::new(h_pos, VPos::Center));
        self.area.draw_text(&legible(text), &style, point(at)).expect(IN_MEMORY);
    }

    /// A marker of one of several shapes, or its outline alone.
    pub(crate) fn marker(&self, number: usize, at: Xy, radius: f64, ink: Ink, solid: bool) {
        let corners: &[Xy] = match number % 6 {
            0 => {
                let style = if solid { ink.light().filled() } else { ink.light().stroke_width(3) };
                return self.area.draw(&Circle::new(point(at), units(radius), style)).expect(IN_MEMORY);
            }
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
            3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            4 => &[(0.0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
            _ => &[(-1.2, -0.5), (1.2, -0.5), (1.2, 0.5), (-1.2, 0.5)],
        };
        let mut corners: Vec<Xy> =
            corners.iter().map(|(dx, dy)| (at.0 + dx * radius, at.1 + dy * radius)).collect();
        if solid {
            let corners: Vec<_> = corners.into_iter().map(point).collect();
            self.area.draw(&Polygon::new(corners, ink.light().filled())).expect(IN_MEMORY);
        } else {
            corners.push(corners[0]);
            self.line(&corners, Stroke { ink, width: 1.5 });
        }
    }

    /// A spot that says something when pointed at.
    pub(crate) fn spot(&self, from: Xy, to: Xy, text: &str) {
        let ((x, y), (right, bottom)) = (point(from), point(to));
        let (width, height) = ((right - x).max(2), (bottom - y).max(2));
        let text = escape(text);
        let _ = write!(
            self.spots.borrow_mut(),
            "<rect class=\"spot\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{text}</title></rect>"
        );
    }

    /// Where a chart with these axes stands inside the margins (left, top, right, bottom), which hold its labels.
    pub(crate) fn frame<'x>(&self, x: &'x Axis, y: &'x Axis, margins: [f64; 4]) -> Frame<'x> {
        let [left, top, right, bottom] = margins;
        Frame { axes: (x, y), edges: [left, top, self.width() - right, self.height - bottom] }
    }

    /// Draws the grid, axes, ticks and titles of a frame.
    pub(crate) fn axes(&self, frame: &Frame<'_>) {
        let [left, top, right, bottom] = frame.edges;
        let (x, y) = frame.axes;
        let mut chart = ChartBuilder::on(&self.area)
            .margin_top(units(top))
            .margin_right(units(self.width() - right))
            .x_label_area_size(units(self.height - bottom))
            .y_label_area_size(units(left))
            .build_cartesian_2d(x.clone(), y.clone())
            .expect(IN_MEMORY);
        chart
            .configure_mesh()
            .bold_line_style(Ink::Grid.light().stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(Ink::Muted.light().stroke_width(2))
            .label_style(font(11.5, FontStyle::Normal, Ink::Muted))
            .set_all_tick_mark_size(7)
            .draw()
            .expect(IN_MEMORY);
        self.text(&x.title, ((left + right) / 2.0, self.height - 9.0), 12.0, Ink::Text, Align::Centre);
        self.text(&y.title, (2.0, top - 16.0), 12.0, Ink::Text, Align::Left);
    }
}

fn font(size: f64, style: FontStyle, ink: Ink) -> TextStyle<'static> {
    let font: FontDesc<'static> = ("sans-serif", size * SCALE * FONT_SIZE_DIVISOR).into_font();
    font.style(style).color(&ink.light())
}

/// Text without the control characters that XML cannot hold, not even escaped.
fn legible(text: &str) -> String {
    let held = |letter: char| !letter.is_control() && !('\u{fffe}'..='\u{ffff}').contains(&letter);
    text.chars().map(|letter| if held(letter) { letter } else { '\u{fffd}' }).collect()
}

/// Text made safe inside an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    legible(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

impl Drawing {
    /// As an element of the page, in the page's theme; `id` must be unique there.
    pub(crate) fn inline(&self, id: &str, class: &str, title: &str, description: &str) -> String {
        let (width, height) = self.size;
        let (title, description, body) = (escape(title), escape(description), recolour(&self.body));
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>\n{body}\n{spots}</svg>",
            spots = self.spots
        )
    }

    /// As a file of its own on white, under a heading; with its size in pixels.
    pub(crate) fn standalone(&self, title: &str, heading: &str) -> (String, (u32, u32)) {
        let (width, height) = (self.size.0 + 48, self.size.1 + 144);
        let (text, muted, paper) = (Ink::Text, Ink::Muted, Ink::Paper);
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\">\
             <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\
             <text x=\"24\" y=\"48\" font-size=\"32\" font-weight=\"bold\" fill=\"{}\">{}</text>\
             <text x=\"24\" y=\"84\" font-size=\"22\" fill=\"{}\">{}</text>\
             <g transform=\"translate(24 112)\">{}</g></svg>",
            paper.light_hex(),
            text.light_hex(),
            escape(title),
            muted.light_hex(),
            escape(heading),
            self.body
        );
        (svg, (width, height))
    }
}
