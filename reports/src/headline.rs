//! The few sentences that a reader wants first, computed from the points of one view.
//! Facts and sentences are apart, so that the facts can be checked as numbers.

use crate::figures::{bytes, factor, mean_step_ns, percent, ratio, step_parts, time};
use crate::theme::{BOUND, foresees};
use crate::view::View;
use kvtier_sim::record::{Point, PointKind, Status};
use serde::Serialize;

/// One sentence or two under a label.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// The question.
    pub label: &'static str,
    /// The answer.
    pub text: String,
}

/// The policies with the fewest misses at a run of neighbouring sizes.
struct Winners<'a> {
    policies: Vec<&'a str>,
    /// Sizes, with the misses per access there.
    sizes: Vec<(u32, f64)>,
}

/// Misses of a policy and of the bound at one size.
struct Gap<'a> {
    slots: u32,
    policy: f64,
    bound: f64,
    best: &'a Point,
}

/// The findings of a view; empty where nothing ran.
pub(crate) fn findings(view: &View<'_>) -> Vec<Finding> {
    let found = [
        ("Best policy", best_policy(view)),
        ("Distance to the bound", distance(view)),
        ("Where a step goes", step(view)),
        ("Does offload pay?", pays(view)),
    ];
    found.into_iter().filter_map(|(label, text)| text.map(|text| Finding { label, text })).collect()
}

fn winners<'a>(view: &View<'a>) -> Vec<Winners<'a>> {
    let mut runs: Vec<Winners<'a>> = Vec::new();
    for slots in view.sizes() {
        let best = view.best(slots);
        let Some(first) = best.first() else { continue };
        let policies: Vec<&str> = best.iter().map(|point| point.config.policy.as_str()).collect();
        let missed = first.steady.miss_ratio();
        match runs.last_mut() {
            Some(run) if run.policies == policies => {
                run.sizes.push((slots, missed));
            }
            _ => runs.push(Winners { policies, sizes: vec![(slots, missed)] }),
        }
    }
    runs
}

fn best_policy(view: &View<'_>) -> Option<String> {
    let runs = winners(view);
    let alone = view.policies().iter().filter(|policy| **policy != BOUND).count() < 2;
    let phrase = |run: &Winners<'_>| {
        let names = run.policies.join(" and ");
        let (verb, least) =
            (if run.policies.len() > 1 { "miss" } else { "misses" }, if alone { "" } else { " least" });
        let ((first, most), (last, fewest)) = (run.sizes.first()?, run.sizes.last()?);
        Some(if first == last {
            format!("{names} {verb}{least} with {first} slots: {} of the selected blocks", percent(*most))
        } else {
            let (most, fewest) = (percent(*most), percent(*fewest));
            format!(
                "{names} {verb}{least} with {first} to {last} slots: {most} to {fewest} of the selected blocks"
            )
        })
    };
    let parts: Vec<String> = runs.iter().filter_map(phrase).collect();
    (!parts.is_empty()).then(|| format!("{}.", parts.join("; ")))
}

/// The gap between the reference policy (lru, or the best one without it) and the bound, at each size.
fn gaps<'a>(view: &View<'a>) -> (String, Vec<Gap<'a>>) {
    let has_lru = view.policies().contains("lru");
    let gap = |slots: u32| {
        let bound = view.decision(BOUND, slots)?.steady.miss_ratio();
        let best = view.best(slots).into_iter().next()?;
        let policy = if has_lru { view.decision("lru", slots)? } else { best };
        Some(Gap { slots, policy: policy.steady.miss_ratio(), bound, best })
    };
    let name = if has_lru { "lru" } else { "the best policy" };
    (name.to_owned(), view.sizes().into_iter().filter_map(gap).collect())
}

fn distance(view: &View<'_>) -> Option<String> {
    let (name, gaps) = gaps(view);
    let widest = gaps.iter().max_by(|a, b| {
        let width = |gap: &Gap<'_>| gap.policy - gap.bound;
        // The smaller size where two gaps are equal.
        width(a).total_cmp(&width(b)).then(b.slots.cmp(&a.slots))
    })?;
    let width = widest.policy - widest.bound;
    if width <= 0.0 {
        return Some(format!(
            "{name} misses no more than Belady at any size: no choice of victims can help here."
        ));
    }
    let mut text = format!(
        "The gap is widest with {} slots: {name} misses {}, Belady {}",
        widest.slots,
        percent(widest.policy),
        percent(widest.bound)
    );
    if widest.bound > 0.0 {
        text.push_str(&format!(" ({})", factor(widest.policy / widest.bound)));
    }
    let best = widest.best.config.policy.as_str();
    let closed = (widest.policy - widest.best.steady.miss_ratio()) / width;
    if best != "lru" && name == "lru" && closed > 0.0 {
        text.push_str(&format!("; {best} closes {:.0}% of it", closed * 100.0));
    }
    Some(text + ".")
}

/// The offload point with the most tokens per second that can be run; the first where several tie.
fn quickest<'a>(view: &View<'a>) -> Option<&'a Point> {
    let rivals = view.offload.iter().filter(|p| !foresees(p) && p.time.total_ns > 0).copied();
    rivals.rev().max_by(|a, b| a.time.tokens_per_s().total_cmp(&b.time.tokens_per_s()))
}

fn step(view: &View<'_>) -> Option<String> {
    let point = quickest(view)?;
    let parts = step_parts(&point.time);
    let shares = parts.map(|(name, ns)| format!("{} {name}", percent(ratio(ns, point.time.total_ns))));
    let config = &point.config;
    let mut text = format!(
        "The fastest point ({}, {} slots, {}) takes {} a step: {}",
        config.policy,
        config.slots,
        config.overlap,
        time(mean_step_ns(point)),
        shares.join(", ")
    );
    let serial = view.offload.iter().find(|other| {
        (&other.config.policy, other.config.slots, other.config.overlap.as_str())
            == (&config.policy, config.slots, "serial")
    });
    match serial.filter(|_| config.overlap != "serial") {
        Some(serial) => {
            let (step, stall) =
                (mean_step_ns(serial), percent(ratio(serial.time.stall_ns, serial.time.total_ns)));
            text.push_str(&format!("; the same without overlap takes {}, {stall} of it stall.", time(step)));
        }
        None => text.push('.'),
    }
    Some(text)
}

fn pays(view: &View<'_>) -> Option<String> {
    let offload = quickest(view)?;
    let requests = offload.config.concurrency;
    let text = match view.baseline(PointKind::Resident, requests) {
        Some(resident) => against(offload, resident),
        None => match view.misfits.iter().find(|point| point.kind == PointKind::Resident) {
            Some(misfit) => format!(
                "Yes: the whole cache does not fit in HBM, so only offload decodes {requests} requests here, with {} of HBM.{}",
                bytes(offload.footprint.hbm_total),
                reason(misfit).map(|reason| format!(" ({reason})")).unwrap_or_default()
            ),
            None => return None,
        },
    };
    let dense = view.baseline(PointKind::Dense, requests).map(|dense| {
        let gain = offload.time.tokens_per_s() / dense.time.tokens_per_s();
        let requests = dense.config.concurrency;
        format!(" Against dense attention in HBM with {requests} requests it is {}.", factor(gain))
    });
    Some(text + &dense.unwrap_or_default())
}

/// Why a point did not run.
fn reason(point: &Point) -> Option<&str> {
    match &point.status {
        Status::Infeasible(reason) => Some(reason),
        Status::Ok => None,
    }
}

/// The fastest offload point against the cache in HBM.
fn against(offload: &Point, resident: &Point) -> String {
    let gain = offload.time.tokens_per_s() / resident.time.tokens_per_s();
    let (small, large) = (offload.footprint.hbm_total, resident.footprint.hbm_total);
    let requests = match (offload.config.concurrency, resident.config.concurrency) {
        (here, there) if here == there => format!("{here} requests each"),
        (here, there) => format!("{here} requests against {there}"),
    };
    let memory = if small <= large {
        format!(
            "{} of HBM instead of {}, {} less",
            bytes(small),
            bytes(large),
            percent(ratio(large - small, large))
        )
    } else {
        format!("{} of HBM instead of {}, which is more", bytes(small), bytes(large))
    };
    let verdict = match (gain >= 1.0, small <= large) {
        (true, true) => "Yes",
        (true, false) => "In speed only",
        (false, true) => "In memory only",
        (false, false) => "No",
    };
    format!(
        "{verdict}: the fastest offload point decodes {} the tokens/s of all in HBM ({requests}), with {memory}.",
        factor(gain)
    )
}
