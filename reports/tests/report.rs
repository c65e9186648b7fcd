//! The report as its reader gets it: what the page holds, that its numbers are the points', and how it fails.

#![allow(clippy::unwrap_used)] // shared test functions, where clippy.toml's exception does not reach

mod synthetic;

use kvtier_reports::{ReportError, ReportInput, write};
use kvtier_sim::record::{Footprint, Point, PointKind, Status, Tally, TimeTally};
use resvg::tiny_skia::Pixmap;
use std::fs;
use std::path::{Path, PathBuf};
use synthetic::{Choice, PLAIN};

fn input(points: &[Point]) -> ReportInput<'_> {
    ReportInput {
        title: "A sweep",
        points,
        notes: &[],
        version: "kvtier 0.1.0 · kvtier sweep a.toml",
        config_toml: "k = 32",
    }
}

/// Writes a report into a fresh folder and returns the page and the other files.
fn report(points: &[Point]) -> (String, Vec<PathBuf>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &input(points)).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    (page, files[1..].to_vec(), dir)
}

fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_page_holds_every_section_point_and_plot() {
    let points = synthetic::grid();
    let (page, plots, dir) = report(&points);
    for heading in [
        "Best policy",
        "Distance to the bound",
        "Where a step goes",
        "Does offload pay?",
        "Miss ratio against buffer size",
        "What the misses are",
        "Where the time of a step goes",
        "Tokens per second against HBM",
        "Miss ratio by layer",
        "Infeasible points",
        "All points",
        "Configuration",
        "Notes",
    ] {
        assert!(page.contains(&format!(">{heading}<")), "no {heading}");
    }
    assert!(page.contains("<caption>The Pareto front"));
    for point in &points {
        assert!(page.contains(&format!(">{}<", point.id)), "no row of {}", point.id);
    }
    assert!(page.contains("kvtier 0.1.0 · kvtier sweep a.toml") && page.contains("k = 32"));
    assert!(page.contains("8d4fe1a2b3c4d5e6"), "no trace hash");
    assert!(page.contains("hot buffers need 96 GiB"), "no reason");
    assert!(page.contains("42 points: layer-ahead has nothing to issue early"), "no note");
    assert_eq!(plots.len(), 5);
    let mut expected: Vec<String> =
        plots.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(expected.iter().all(|name| page.contains(&format!("href=\"{name}\""))));
    expected.push("report.html".to_owned());
    expected.sort();
    assert_eq!(names(dir.path()), expected, "something temporary was left");
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let (page, ..) = report(&synthetic::grid());
    for outside in ["http:", "https:", "//cdn", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page mentions {outside}");
    }
}

/// Every drawing is well-formed XML of its own, with a title and a description.
#[test]
fn drawings_are_well_formed_and_described() {
    let (page, ..) = report(&synthetic::grid());
    let drawings: Vec<&str> = page.match_indices("<svg ").map(|(at, _)| &page[at..]).collect();
    assert_eq!(drawings.len(), 10, "five plots in two widths");
    for drawing in drawings {
        let drawing = &drawing[..drawing.find("</svg>").unwrap() + 6];
        let drawing = drawing.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
        resvg::usvg::Tree::from_str(&drawing, &resvg::usvg::Options::default()).unwrap();
        assert!(drawing.contains("<title id=") && drawing.contains("<desc id="));
        assert!(!drawing.contains("#006FB0"), "a colour that does not follow the theme");
    }
}

#[test]
fn names_from_outside_are_escaped() {
    let mut point = synthetic::point(&PLAIN);
    point.config.policy = "<b>\"l&r'u\"\u{1}</b>".to_owned();
    point.config.trace = "</script><script>alert(1)</script>".to_owned();
    point.id = "<i>id</i>".to_owned();
    let mut misfit = point.clone();
    misfit.status = Status::Infeasible("needs <much> & more".to_owned());
    let points = [point, misfit];
    let dir = tempfile::tempdir().unwrap();
    let notes = ["a <note> & more".to_owned()];
    let hostile = ReportInput {
        title: "<u>t</u>",
        points: &points,
        notes: &notes,
        version: "v<0>",
        config_toml: "</pre><hr>",
    };
    let files = write(dir.path(), &hostile).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    for raw in ["<b>", "<script>alert", "<i>id", "<much>", "<note>", "<u>t", "v<0>", "</pre><hr>"] {
        assert!(!page.contains(raw), "{raw} came through");
    }
    for shown in ["&lt;b&gt;", "l&amp;r", "&lt;i&gt;id", "needs &lt;much&gt; &amp; more", "&lt;u&gt;t"] {
        assert!(page.contains(shown), "{shown} is missing");
    }
}

#[test]
fn plots_decode_and_are_not_blank() {
    let (_, plots, _dir) = report(&synthetic::grid());
    for path in plots {
        let image = Pixmap::load_png(&path).unwrap();
        let pixels = image.pixels();
        assert!(pixels.iter().all(|pixel| pixel.alpha() == 255), "{} has holes", path.display());
        let white = pixels.iter().filter(|p| (p.red(), p.green(), p.blue()) == (255, 255, 255)).count();
        let share = white as f64 / pixels.len() as f64;
        assert!((0.2..0.97).contains(&share), "{}: {share} of the image is white", path.display());
        let title = &pixels[..60 * image.width() as usize];
        assert!(title.iter().any(|pixel| pixel.red() < 100), "no text in {}", path.display());
    }
}

#[test]
fn the_same_points_give_the_same_bytes() {
    let points = synthetic::grid();
    let ((page, plots, _a), (page_again, plots_again, _b)) = (report(&points), report(&points));
    assert!(page == page_again);
    assert_eq!(plots.len(), plots_again.len());
    for (one, two) in plots.iter().zip(&plots_again) {
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{} differs", one.display());
    }
}

/// What knows the future is faster than anything that can be run, and still no advice.
#[test]
fn the_front_holds_only_what_can_be_run_and_names_its_prefetcher() {
    let mut points = Vec::new();
    for (prefetch, ns) in [("none", 1000), ("next-ranked", 900), ("oracle", 100)] {
        let mut point = synthetic::point(&synthetic::Choice { prefetch, ..synthetic::PLAIN });
        point.time.total_ns = ns * 1_000_000;
        points.push(point);
    }
    let (page, ..) = report(&points);
    let from = page.find("<caption>The Pareto front").expect("a front");
    let front = &page[from..from + page[from..].find("</table>").expect("the end of it")];
    assert!(front.contains("lru, 64 slots, serial · prefetch next-ranked"), "{front}");
    assert!(!front.contains("oracle"), "{front}");
}

/// The numbers of the headline, computed here from the points again.
#[test]
fn the_headline_is_the_points() {
    let points = synthetic::grid();
    let (page, ..) = report(&points);
    let find = |policy: &str, slots: u32, overlap: &str| {
        let fits = |p: &&Point| {
            (p.config.policy.as_str(), p.config.slots, p.config.overlap.as_str()) == (policy, slots, overlap)
        };
        points.iter().find(fits).unwrap()
    };
    let missed = |point: &Point| point.steady.misses as f64 / point.steady.accesses as f64 * 100.0;
    let (small, large) = (find("lfu", 32, "serial"), find("lfu", 256, "serial"));
    let best = format!(
        "lfu misses least with 32 to 256 slots: {:.1}% to {:.2}% of the selected blocks.",
        missed(small),
        missed(large)
    );
    assert!(page.contains(&best), "{best}");

    let (lru, belady) = (find("lru", 32, "serial"), find("belady", 32, "serial"));
    let gap = format!(
        "widest with 32 slots: lru misses {:.1}%, Belady {:.1}% ({:.2}x); lfu closes {:.0}% of it.",
        missed(lru),
        missed(belady),
        missed(lru) / missed(belady),
        (missed(lru) - missed(small)) / (missed(lru) - missed(belady)) * 100.0
    );
    assert!(page.contains(&gap), "{gap}");

    let runnable =
        |p: &&Point| p.kind == PointKind::Offload && p.config.policy != "belady" && p.status == Status::Ok;
    let fastest = points.iter().filter(runnable).min_by_key(|point| point.time.total_ns).unwrap();
    let TimeTally { total_ns, stall_ns, .. } = fastest.time;
    let step = format!(
        "({}, {} slots, {}) takes {} us a step",
        fastest.config.policy,
        fastest.config.slots,
        fastest.config.overlap,
        total_ns / 240 / 1000
    );
    assert!(page.contains(&step), "{step}");
    let stall = format!("{:.1}% exposed miss stall", stall_ns as f64 / total_ns as f64 * 100.0);
    assert!(page.contains(&stall), "{stall}");

    let resident = points.iter().find(|point| point.kind == PointKind::Resident).unwrap();
    let pays = format!(
        "In memory only: the fastest offload point decodes {:.2}x",
        resident.time.total_ns as f64 / total_ns as f64
    );
    assert!(page.contains(&pays), "{pays}");
}

/// Points of different machines, settings or numbers of requests never share a chart.
#[test]
fn views_are_kept_apart() {
    let mut points = Vec::new();
    for (machine, prefetch, requests) in
        [("h100-pcie5", "none", 6), ("gh200", "none", 6), ("gh200", "next-ranked", 6), ("gh200", "none", 24)]
    {
        let choice = Choice { machine, prefetch, requests, ..PLAIN };
        points.push(synthetic::point(&choice));
        points.push(synthetic::point(&Choice { slots: 128, ..choice }));
    }
    let (page, plots, _dir) = report(&points);
    assert_eq!(page.matches("<section class=\"view\"").count(), 4);
    assert_eq!(plots.len(), 21, "five of each view, and one that compares settings");
    for label in [
        "machine h100-pcie5 · prefetch none · requests 6",
        "machine gh200 · prefetch next-ranked · requests 6",
        "machine gh200 · prefetch none · requests 24",
    ] {
        assert!(page.contains(&format!("{label}</option>")), "no view {label}");
    }
}

/// What a sweep over admission or prefetch asks stands before the views: each setting once, the fastest first.
#[test]
fn settings_of_a_workload_are_compared_the_fastest_first() {
    let mut points =
        ["none", "next-ranked", "oracle"].map(|prefetch| synthetic::point(&Choice { prefetch, ..PLAIN }));
    points.iter_mut().zip([1, 2, 4]).for_each(|(point, by)| point.time.total_ns /= by);
    let (page, ..) = report(&points);
    let all = &page[page.find("Settings compared").unwrap()..page.find("<section class=\"view\"").unwrap()];
    let at = ["prefetch oracle", "prefetch next-ranked", "prefetch none"].map(|name| all.find(name).unwrap());
    assert!(at.is_sorted(), "{at:?}");
    let loads = [6, 24].map(|requests| synthetic::point(&Choice { requests, ..PLAIN }));
    assert!(!report(&loads).0.contains("Settings compared"), "another load is no other setting");
}

#[test]
fn sweeps_with_many_views_chart_some_and_say_so() {
    let points: Vec<Point> =
        (1..=30).map(|requests| synthetic::point(&Choice { requests, ..PLAIN })).collect();
    let (page, ..) = report(&points);
    assert_eq!(page.matches("<section class=\"view\"").count(), 24);
    assert!(page.contains(">Without charts<") && page.contains("<li>requests 30</li>"));
    assert!(points.iter().all(|point| page.contains(&point.id)));
}

#[test]
fn one_point_without_baselines_is_a_report() {
    let mut point = synthetic::point(&PLAIN);
    point.decision_hash = String::new();
    let (page, plots, _dir) = report(&[point]);
    assert_eq!(plots.len(), 4, "one size is no curve");
    assert!(page.contains("lru misses with 64 slots"));
    assert!(!page.contains("Does offload pay?") && !page.contains("NaN") && !page.contains("inf%"));
}

#[test]
fn points_without_misses_time_or_layers_are_a_report() {
    let mut idle = synthetic::point(&PLAIN);
    idle.steady = Tally { accesses: 100, hits: 100, ..Tally::default() };
    idle.layers.iter_mut().for_each(|layer| layer.misses = 0);
    let mut bare = idle.clone();
    bare.config.slots = 128;
    (bare.time, bare.layers) = (TimeTally::default(), Vec::new());
    bare.footprint.hbm_total = 0;
    let (page, plots, _dir) = report(&[idle.clone(), bare.clone()]);
    assert!(!page.contains("NaN") && !page.contains("What the misses are"));
    assert_eq!(plots.len(), 4);
    idle.layers.clear();
    idle.time = TimeTally::default();
    let (page, plots, _dir) = report(&[idle, bare]);
    assert!(!page.contains("NaN"));
    assert_eq!(plots.len(), 1, "only the miss curve has data");
}

#[test]
fn baselines_alone_and_misfits_alone_are_reports() {
    let baselines = synthetic::baselines(&PLAIN);
    let (page, plots, _dir) = report(&baselines);
    assert_eq!(plots.len(), 2, "step time and throughput");
    assert!(page.contains(&baselines[0].id) && !page.contains("NaN"));
    let mut misfit = synthetic::point(&PLAIN);
    misfit.status = Status::Infeasible("too large".to_owned());
    let (page, plots, _dir) = report(&[misfit]);
    assert!(plots.is_empty());
    assert!(page.contains("No point ran") && page.contains("too large"));
}

#[test]
fn a_note_that_points_make_is_not_repeated() {
    let mut point = synthetic::point(&PLAIN);
    (point.note, point.config.mapping) = ("a remark".to_owned(), "6 layers replayed as 30".to_owned());
    let (points, notes) = ([point], ["a remark", "6 layers replayed as 30", "another"].map(str::to_owned));
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &ReportInput { notes: &notes, ..input(&points) }).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    let list = &page[page.find("id=\"notes\"").unwrap()..];
    assert_eq!(list[..list.find("</section>").unwrap()].matches("<li>").count(), 3);
    assert!(list.contains("1 point: a remark") && list.contains("<li>another</li>"));
}

/// Where everything in HBM does not fit, the page says what offload makes possible.
#[test]
fn a_resident_baseline_that_does_not_fit_is_named() {
    let mut points = vec![synthetic::point(&PLAIN)];
    let mut resident = synthetic::baselines(&PLAIN).remove(0);
    resident.status = Status::Infeasible("HBM is too small".to_owned());
    resident.footprint = Footprint::default();
    resident.time = TimeTally::default();
    points.push(resident);
    let (page, ..) = report(&points);
    assert!(page.contains("the whole cache does not fit in HBM, so only offload decodes 6 requests here"));
    assert!(page.contains("does not fit this machine and is not drawn"));
    assert!(page.contains("HBM is too small"));
}

#[test]
fn misses_below_the_bound_are_drawn_and_explained() {
    let mut point = synthetic::point(&Choice { prefetch: "next-ranked", ..PLAIN });
    point.steady.policy = -500;
    point.steady.misses = point.steady.cold + point.steady.capacity - 500;
    let mut larger = point.clone();
    larger.config.slots = 128;
    let (page, ..) = report(&[point, larger]);
    assert!(page.contains("save beyond demand-only Belady"));
    assert!(page.contains("Belady was not among the policies"));
    assert!(page.contains("may fall below the demand-only bound"));
}

#[test]
fn no_points_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = write(dir.path(), &input(&[])).unwrap_err();
    assert!(matches!(error, ReportError::NoPoints));
    assert!(error.to_string().contains("no points to report"));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = write(&file.join("report"), &input(&[synthetic::point(&PLAIN)])).unwrap_err();
    assert!(
        error.to_string().contains("file") && error.to_string().contains("cannot write the report"),
        "{error}"
    );
    assert_eq!(names(dir.path()), ["file"]);
}

/// A folder in the place of one of the files lets nothing be half-written, whoever runs the test.
#[test]
fn a_failure_midway_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".step-time.png.part")).unwrap();
    let error = write(dir.path(), &input(&synthetic::grid())).unwrap_err();
    assert!(error.to_string().contains("step-time.png"), "{error}");
    assert_eq!(names(dir.path()), [".step-time.png.part"]);
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_an_error_and_stays_empty() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(dir.path().join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write to read-only folders");
        return;
    }
    let error = write(dir.path(), &input(&[synthetic::point(&PLAIN)])).unwrap_err();
    assert!(error.to_string().contains("choose a folder that you may write to"), "{error}");
    assert!(names(dir.path()).is_empty());
}
