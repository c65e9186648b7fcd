//! Tidiness: what this project bans and neither the compiler nor clippy sees, each with what to do instead.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Something that no line of some files may hold.
struct Ban {
    what: &'static str,
    instead: &'static str,
    /// Which files, by their path from the root of the checkout.
    applies: fn(&str) -> bool,
    breaks: fn(&str) -> bool,
    /// Where: shipped code alone, tests as well, or comments too.
    reach: Reach,
    /// A line that breaks it.
    example: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Shipped,
    Tests,
    Comments,
}

const LIBRARIES: [&str; 5] =
    ["sim/units/src/", "sim/policies/src/", "traces/src/", "sim/src/", "reports/src/"];

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Library code that ships: modules for tests alone are called testing.
fn in_library(path: &str) -> bool {
    is_rust(path)
        && LIBRARIES.iter().any(|library| path.starts_with(library))
        && !path.ends_with("/testing.rs")
}

fn in_decision_plane(path: &str) -> bool {
    in_library(path) && path.starts_with("sim/policies/src/")
}

/// The words of a line: letters, digits and underscores between anything else.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn has_word(line: &str, banned: &[&str]) -> bool {
    words(line).any(|word| banned.contains(&word))
}

fn is_code_in_a_comment(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("// ") else { return false };
    let starts = ["let ", "use ", "fn ", "pub ", "if ", "for ", "match ", "return ", "assert"];
    let ends = [";", "{"].iter().any(|end| comment.ends_with(end));
    ends && (comment.ends_with(");") || starts.iter().any(|start| comment.starts_with(start)))
}

/// Whether a line defines something by a name that would suit anything.
fn is_vaguely_named(line: &str) -> bool {
    let mut words = words(line).filter(|word| !["pub", "crate", "super"].contains(word));
    let defines = words.next().is_some_and(|word| ["struct", "enum", "trait", "mod"].contains(&word));
    let vague = ["utils", "util", "common", "helpers"];
    let is_vague =
        |name: &str| vague.contains(&name) || name.ends_with("Manager") || name.ends_with("Helper");
    defines && words.next().is_some_and(is_vague)
}

const BANS: &[Ban] = &[
    Ban {
        what: "unwrap in library code",
        instead: "an error that names file or field, or `expect` with the invariant that holds",
        applies: in_library,
        breaks: |line| line.contains(".unwrap()"),
        reach: Reach::Shipped,
        example: "let first = blocks.first().unwrap();",
    },
    Ban {
        what: "a hash map or set in a library",
        instead: "dense ids in a Vec, or a BTreeMap: what depends on the order of iteration must not reach results",
        applies: in_library,
        breaks: |line| has_word(line, &["HashMap", "HashSet"]),
        reach: Reach::Shipped,
        example: "use std::collections::HashMap;",
    },
    Ban {
        what: "a float in the decision plane",
        instead: "integers or fixed point with stated rounding, so that CPU and GPU agree",
        applies: in_decision_plane,
        breaks: |line| has_word(line, &["f16", "f32", "f64"]),
        reach: Reach::Shipped,
        example: "let keep = 0.5 * f64::from(score);",
    },
    Ban {
        what: "unsafe outside hw",
        instead: "safe code; what must talk to the driver belongs to hw",
        applies: |path| is_rust(path) && !path.starts_with("hw/"),
        breaks: |line| has_word(line, &["unsafe"]),
        reach: Reach::Tests,
        example: "unsafe { slots.get_unchecked(0) }",
    },
    Ban {
        what: "randomness without a seed",
        instead: "a named stream of the run's seed: `seed.stream(\"crate.purpose\")`",
        applies: is_rust,
        breaks: |line| {
            line.contains("rand::rng()") || has_word(line, &["thread_rng", "from_os_rng", "from_entropy"])
        },
        reach: Reach::Tests,
        example: "let mut random = rand::rng();",
    },
    Ban {
        what: "global mutable state",
        instead: "state that its owner passes on",
        applies: in_library,
        breaks: |line| line.contains("static mut ") || has_word(line, &["thread_local", "LazyLock"]),
        reach: Reach::Shipped,
        example: "static mut STEPS: u64 = 0;",
    },
    Ban {
        what: "unfinished work",
        instead: "the work, or nothing",
        applies: |path| !path.ends_with(".lock"),
        breaks: |line| {
            let line = line.replace("placeholder=\"", ""); // of an HTML form
            has_word(&line, &["TODO", "FIXME", "XXX", "HACK", "stub", "stubs", "placeholder", "placeholders"])
        },
        reach: Reach::Comments,
        example: "# TODO: the other direction",
    },
    Ban {
        what: "a path of somebody's machine",
        instead: "a path relative to the checkout, or a temporary folder asked for at run time",
        applies: |path| !path.ends_with(".lock"),
        breaks: |line| {
            ["/home/", "/root/", "/Users/", "/work/", "/tmp/"].iter().any(|path| line.contains(path))
        },
        reach: Reach::Comments,
        example: "trace = \"/home/me/trace.parquet\"",
    },
    Ban {
        what: "code in a comment",
        instead: "nothing: the history keeps it",
        applies: is_rust,
        breaks: is_code_in_a_comment,
        reach: Reach::Comments,
        example: "    // slots.sort_unstable();",
    },
    Ban {
        what: "a name that says nothing",
        instead: "a noun for what it is, or the module that it belongs to",
        applies: is_rust,
        breaks: is_vaguely_named,
        reach: Reach::Tests,
        example: "pub(crate) mod utils;",
    },
];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 70;
/// How a file says why it, or a function of it, is longer.
const REASON: &str = "//! Long because";

/// This file names what it bans.
const SELF: &str = "tests/tidy.rs";

/// Every text file of the checkout, by its path from the root.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> = vec![root.to_owned(), root.join(".ci")];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the checkout is readable").path();
            let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
            if name.starts_with('.') || ["target", "runs"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let relative = path.strip_prefix(root).expect("below the root");
                files.push((relative.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    files.sort_unstable();
    files
}

/// Which lines are outside the file's test module, which rustfmt ends at the margin.
fn shipped(text: &str) -> impl Iterator<Item = usize> {
    let mut in_tests = false;
    let mut marked = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        in_tests |= marked && line.starts_with("mod ") && line.ends_with('{');
        marked = line == "#[cfg(test)]";
        let shipped = !in_tests;
        in_tests &= line != "}";
        shipped.then_some(at)
    })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Complaints about one file.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for ban in BANS.iter().filter(|ban| (ban.applies)(path)) {
        let shipped: Vec<usize> = shipped(text).collect();
        for (at, line) in text.lines().enumerate() {
            let reached = match ban.reach {
                Reach::Comments => true,
                Reach::Tests => !is_comment(line), // prose may speak of what code may not do
                Reach::Shipped => !is_comment(line) && shipped.binary_search(&at).is_ok(),
            };
            if reached && (ban.breaks)(line) {
                found.push(format!("{path}:{}: {}; instead: {}", at + 1, ban.what, ban.instead));
            }
        }
    }
    if is_rust(path) {
        if !text.starts_with("//! ") {
            found.push(format!(
                "{path}:1: no `//!` line; instead: say what the file is and why it stands apart"
            ));
        }
        let may_be_long = path.starts_with("hw/") || text.lines().any(|line| line.starts_with(REASON));
        if !may_be_long {
            let lines = text.lines().count();
            if lines > LONGEST_FILE {
                let instead = format!("parts with a purpose each, or a `{REASON}` line");
                found.push(format!("{path}: {lines} lines, more than {LONGEST_FILE}; instead: {instead}"));
            }
            for (number, length) in functions(text).filter(|&(_, length)| length > LONGEST_FUNCTION) {
                let instead = format!("steps with a name each, or a `{REASON}` line");
                found.push(format!("{path}:{number}: a function of {length} lines; instead: {instead}"));
            }
        }
    }
    found
}

/// Line number and length of every function; rustfmt closes it where it opens it.
fn functions(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_function = |line: &str| {
        !is_comment(line) && !line.contains('"') && has_word(line, &["fn"]) && line.ends_with(['{', '('])
    };
    let starts: Vec<usize> = (0..lines.len()).filter(|&at| is_function(lines[at])).collect();
    starts.into_iter().map(move |start| {
        let indent = &lines[start][..lines[start].len() - lines[start].trim_start().len()];
        // A declaration without a body ends where its parameters do.
        let declared = |line: &str| line.starts_with(&format!("{indent})")) && line.ends_with(';');
        let end = lines[start..].iter().position(|line| *line == format!("{indent}}}") || declared(line));
        (start + 1, end.map_or(1, |end| end + 1))
    })
}

#[test]
fn the_checkout_is_tidy() {
    let files = files();
    assert!(
        files.len() > 100 && files.iter().any(|(path, _)| path == "sim/src/engine.rs"),
        "too few files were found"
    );
    let mut all = String::new();
    for (path, text) in files.iter().filter(|(path, _)| path != SELF) {
        complaints(path, text).iter().for_each(|one| writeln!(all, "{one}").expect("memory suffices"));
    }
    assert!(all.is_empty(), "untidy:\n{all}");
}

#[test]
fn every_ban_catches_its_example_and_spares_tests() {
    for ban in BANS {
        let path = "sim/policies/src/lru.rs";
        assert!((ban.applies)(path), "{}", ban.what);
        let text = format!("//! What it is.\n\n{}\n", ban.example);
        let found = complaints(path, &text);
        assert_eq!(found.len(), 1, "{}: {found:?}", ban.what);
        assert!(
            found[0].starts_with("sim/policies/src/lru.rs:3: ") && found[0].contains("; instead: "),
            "{found:?}"
        );
        let tested = format!("//! What it is.\n\n#[cfg(test)]\nmod tests {{\n    {}\n}}\n", ban.example);
        let in_tests = usize::from(ban.reach != Reach::Shipped);
        assert_eq!(complaints(path, &tested).len(), in_tests, "{}", ban.what);
        let after = format!("{tested}{}\n", ban.example);
        assert_eq!(complaints(path, &after).len(), in_tests + 1, "what follows the tests is looked at again");
    }
    let float = "//! What it is.\nlet cost = 0.5_f64;\n";
    assert!(
        complaints("sim/src/links.rs", float).is_empty(),
        "the time plane may use floats in its formulas"
    );
}

#[test]
fn length_is_counted_and_excused() {
    let body = "    let x = 1;\n".repeat(LONGEST_FUNCTION);
    let long = format!("//! What it is.\nimpl A {{\n    fn f() {{\n{body}    }}\n}}\n");
    assert!(complaints("sim/src/a.rs", &long)[0].starts_with("sim/src/a.rs:3: a function of 72 lines"));
    let file = "//! What it is.\n".to_owned() + &"const A: u32 = 1;\n".repeat(LONGEST_FILE);
    assert!(complaints("sim/src/a.rs", &file)[0].starts_with("sim/src/a.rs: 401 lines"));
    let excused = file.replacen('\n', "\n//! Long because it is a table.\n", 1);
    assert!(complaints("sim/src/a.rs", &excused).is_empty());
    assert!(complaints("sim/src/a.rs", "fn f() {}\n")[0].contains("no `//!` line"));
}
