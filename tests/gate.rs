//! The regression gate: committed baselines hold, one edited count fails with a table that says which, and blessing
//! rewrites the expectations and nothing else.

mod program;

use program::{Folder, Outcome};

const MARK: &str = "[[expect]]";

/// The committed baselines, as paths from the root of the checkout.
fn baselines() -> Vec<String> {
    let folder = "configs/baselines";
    let names = program::names(&program::root().join(folder));
    names.into_iter().map(|name| format!("{folder}/{name}")).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(program::root().join(path)).expect("the baseline can be read")
}

fn points(baseline: &str) -> usize {
    baseline.lines().filter(|line| *line == MARK).count()
}

#[test]
fn committed_baselines_hold() {
    let baselines = baselines();
    assert!(baselines.contains(&"configs/baselines/samples.toml".to_owned()));
    for baseline in baselines {
        let before = read(&baseline);
        let points = points(&before);
        assert!(points > 0, "{baseline} expects nothing; bless it");
        let outcome = Outcome::of(["check", &baseline]).ended(0);
        assert_eq!(outcome.out, format!("{points} points, every count as expected\n"));
        assert_eq!(read(&baseline), before, "checking changes nothing");
    }
}

/// A copy of the samples baseline with one point's count of cold misses one too high.
fn edited(folder: &Folder) -> (String, String, u64) {
    let committed = read("configs/baselines/samples.toml");
    let point = committed.find("point = \"smollm2-pages.parquet lru C=64 ").expect("lru with 2k slots");
    let start = point + committed[point..].find("cold = ").expect("its cold misses") + "cold = ".len();
    let end = start + committed[start..].find('\n').expect("a line");
    let cold: u64 = committed[start..end].parse().expect("a count");
    let text = format!("{}{}{}", &committed[..start], cold + 1, &committed[end..]);
    (folder.write("edited.toml", text), committed, cold)
}

#[test]
fn one_edited_count_fails_with_a_table_and_blessing_mends_it() {
    let folder = Folder::new();
    let (file, committed, cold) = edited(&folder);
    let before = read(&file);
    let outcome = Outcome::of(["check", &file]).ended(1);
    let lines: Vec<&str> = outcome.out.lines().collect();
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells(lines[0]), ["point", "count", "expected", "found", "change"]);
    assert!(
        lines[1].starts_with("smollm2-pages.parquet lru C=64 k=32 requests=6 cold reserved "),
        "{}",
        outcome.out
    );
    let row = cells(lines[1]);
    assert_eq!(
        row[row.len() - 4..],
        ["cold".to_owned(), (cold + 1).to_string(), cold.to_string(), "-1".into()]
    );
    assert_eq!(lines[2], format!("{} points, 1 counts differ", points(&committed)));
    assert_eq!(lines[3], "if the change is meant, run the same command with --bless");
    assert_eq!(lines.len(), 4);
    assert_eq!(read(&file), before, "a failed check changes nothing");

    let blessed = Outcome::of(["check", &file, "--bless"]).ended(0);
    assert!(blessed.out.contains("1 counts differ") && blessed.out.contains("rewritten"), "{}", blessed.out);
    assert_eq!(read(&file), committed, "blessing puts back exactly what was edited, which holds");
    assert_eq!(folder.names(), ["edited.toml"], "no temporary file is left");
}

/// Comments, order and spacing of the settings are the author's.
const SETTINGS: &str = "# Mine; keep this.\n\n  trace='traces/samples/smollm2-pages.parquet' # as shipped\n\
    model = \"smollm2-135m\"\nmachine = 'h100-pcie5'\n[batch]\nrequests = [ 's-d01' ]\nsteps = 40\n\
    [grid]\n'hot.policy' = ['lru',\n    'fifo']\n";

#[test]
fn blessing_keeps_the_settings_to_the_letter() {
    let folder = Folder::new();
    let file = folder.write("mine.toml", SETTINGS);
    let missing = Outcome::of(["check", &file]).ended(1);
    assert!(
        missing.out.contains("absent") && missing.out.contains("2 points, 2 counts differ"),
        "{}",
        missing.out
    );
    Outcome::of(["check", &file, "--bless"]).ended(0);
    let blessed = read(&file);
    assert!(blessed.starts_with(SETTINGS), "{blessed}");
    assert_eq!(blessed.matches(MARK).count(), 2);
    Outcome::of(["check", &file]).ended(0);
    Outcome::of(["check", &file, "--bless"]).ended(0);
    assert_eq!(read(&file), blessed, "blessing again changes nothing");
}

#[test]
fn points_that_come_or_go_are_differences() {
    let folder = Folder::new();
    let file = folder.write("mine.toml", SETTINGS);
    Outcome::of(["check", &file, "--bless"]).ended(0);
    let changed = Outcome::of(["check", &file, "--set", "hot.policy=clock"]).ended(1);
    for (policy, expected, found) in [("lru", "present", "absent"), ("clock", "absent", "present")] {
        let row = changed.out.lines().find(|line| line.contains(&format!(" {policy} "))).expect(policy);
        assert!(row.contains(expected) && row.trim_end().ends_with(found), "{row}");
    }
}

#[test]
fn expectations_that_cannot_be_read_are_refused() {
    let folder = Folder::new();
    let file = folder.write("mine.toml", format!("{SETTINGS}{MARK}\npoint = 'x'\ncolde = 3\n"));
    Outcome::of(["check", &file]).refused(&["mine.toml: expect: ", "colde", "--bless"]);
}
