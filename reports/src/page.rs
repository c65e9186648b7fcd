//! The HTML page: gathers what the template shows. The template, its style and its script are files of their own and
//! are inlined, so that the page needs nothing but itself.

use crate::headline::{Finding, findings};
use crate::plots::{Plot, throughput};
use crate::table::{Table, table};
use crate::view::{View, Views, ran, shown};
use crate::{ReportInput, figures, theme};
use kvtier_sim::record::{Point, PointKind, Status};
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use std::collections::BTreeSet;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// All that the template shows.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    version: &'a str,
    config: &'a str,
    summary: String,
    /// Of several settings at once.
    overview: Vec<Figure>,
    sections: Vec<Section>,
    uncharted: &'a [String],
    table: Table,
    misfits: Vec<Misfit>,
    traces: Vec<(String, String)>,
    notes: Vec<String>,
    style: Value,
    script: Value,
}

/// A plot as the template wants it.
#[derive(Serialize)]
struct Figure {
    id: String,
    title: String,
    caption: String,
    file: String,
    svg: Value,
    front: Vec<[String; 5]>,
    reference: String,
}

/// A view as the template wants it.
#[derive(Serialize)]
struct Section {
    number: usize,
    label: String,
    points: String,
    findings: Vec<Finding>,
    figures: Vec<Figure>,
}

/// A point that could not run.
#[derive(Serialize)]
struct Misfit {
    name: String,
    id: String,
    reason: String,
}

/// The page as HTML text.
pub(crate) fn render(input: &ReportInput<'_>, views: &Views<'_>, plots: &[Vec<Plot>]) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", TEMPLATE).expect("the compiled-in template parses");
    let template = environment.get_template("page.html").expect("it was just added");
    let page = Page {
        title: input.title,
        version: input.version,
        config: input.config_toml,
        summary: summary(input.points),
        overview: views
            .charted
            .iter()
            .zip(plots)
            .flat_map(|(view, plots)| plots.iter().filter(|plot| plot.across).map(|plot| figure(view, plot)))
            .collect(),
        sections: views.charted.iter().zip(plots).map(|(view, plots)| section(view, plots)).collect(),
        uncharted: &views.uncharted,
        table: table(input.points),
        misfits: input.points.iter().filter_map(misfit).collect(),
        traces: traces(input.points),
        notes: notes(input),
        style: Value::from_safe_string(format!("{}{STYLE}", theme::css())),
        script: Value::from_safe_string(SCRIPT.to_owned()),
    };
    template.render(Serde(page)).expect("the compiled-in template renders")
}

fn figure(view: &View<'_>, plot: &Plot) -> Figure {
    let id = format!("{}-{}", plot.name, view.number);
    let drawn = |drawing: &crate::canvas::Drawing, class: &str| {
        drawing.inline(&format!("{id}-{class}"), class, &plot.title, &plot.caption)
    };
    let svg = drawn(&plot.wide, "wide") + "\n" + &drawn(&plot.narrow, "narrow");
    let front = if plot.name == "throughput-memory" { throughput::front_rows(view) } else { Vec::new() };
    Figure {
        title: plot.title.clone(),
        caption: plot.caption.clone(),
        file: plot.file_name(view.number),
        svg: Value::from_safe_string(svg),
        front,
        reference: throughput::front_reference(view),
        id,
    }
}

fn section(view: &View<'_>, plots: &[Plot]) -> Section {
    Section {
        number: view.number,
        label: view.label.clone(),
        points: figures::count(view.offload.len(), "point"),
        findings: findings(view),
        figures: plots.iter().filter(|plot| !plot.across).map(|plot| figure(view, plot)).collect(),
    }
}

/// What the sweep holds, in one line.
fn summary(points: &[Point]) -> String {
    let offload: Vec<&Point> = points.iter().filter(|point| point.kind == PointKind::Offload).collect();
    let distinct = |value: fn(&Point) -> String, word: &str| {
        let values: BTreeSet<String> = offload.iter().map(|point| value(point)).collect();
        figures::count(values.len(), word).replace("policys", "policies")
    };
    let failed = points.iter().filter(|point| !ran(point)).count();
    let mut parts = vec![figures::count(points.len(), "point")];
    if !offload.is_empty() {
        parts.push(distinct(|p| p.config.policy.clone(), "policy"));
        parts.push(distinct(|p| p.config.slots.to_string(), "buffer size"));
        parts.push(distinct(|p| p.config.overlap.clone(), "overlap mode"));
    }
    let baselines = points.len() - offload.len();
    if baselines > 0 {
        parts.push(figures::count(baselines, "baseline"));
    }
    if failed > 0 {
        parts.push(format!("{failed} infeasible"));
    }
    parts.join(" · ")
}

/// Distinct traces: name and hash.
fn traces(points: &[Point]) -> Vec<(String, String)> {
    let pairs =
        points.iter().map(|p| (shown(&p.config.trace).to_owned(), shown(&p.config.trace_hash).to_owned()));
    pairs.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a reader must know: what the points say of themselves, then the notes given, less what was said already.
fn notes(input: &ReportInput<'_>) -> Vec<String> {
    let points = input.points;
    let mut notes = Vec::new();
    let mapped: BTreeSet<_> = points
        .iter()
        .map(|point| &point.config)
        .filter(|config| !config.mapping.is_empty())
        .map(|config| {
            format!("{} is replayed with the geometry of {}: {}.", config.trace, config.model, config.mapping)
        })
        .collect();
    notes.extend(mapped);
    // Once each, with how many say it.
    let said: BTreeSet<&str> =
        points.iter().map(|point| point.note.as_str()).filter(|note| !note.is_empty()).collect();
    notes.extend(said.into_iter().map(|note| {
        let number = points.iter().filter(|point| point.note == note).count();
        format!("{}: {note}", figures::count(number, "point"))
    }));
    let said =
        |note: &&String| points.iter().any(|point| point.note == **note || point.config.mapping == **note);
    notes.extend(input.notes.iter().filter(|note| !said(note)).cloned());
    notes
}

fn misfit(point: &Point) -> Option<Misfit> {
    let Status::Infeasible(reason) = &point.status else { return None };
    let config = &point.config;
    let name = match point.kind {
        PointKind::Offload => format!(
            "{}, {} slots, {}, {} requests",
            config.policy, config.slots, config.overlap, config.concurrency
        ),
        PointKind::Resident => format!("all in HBM, {} requests", config.concurrency),
        PointKind::Dense => format!("dense, {} requests", config.concurrency),
    };
    let place = format!("{} on {}", config.model, config.machine);
    Some(Misfit { name: format!("{name} ({place})"), id: point.id.clone(), reason: reason.clone() })
}
