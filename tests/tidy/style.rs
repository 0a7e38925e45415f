//! The habits of the house, as far as a machine can hold them.

use crate::{
    Problem, assert_one, assert_tidy,
    source::{layers, lines_with},
    tree::{is_production, paths, rust_files},
};
use std::collections::BTreeSet;

const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// The invariants, numbered I1 to I20.
const INVARIANTS: std::ops::RangeInclusive<u32> = 1..=20;

/// Invariants of a crate that is not written yet. The day it is, they must be tested.
const AWAITED: &[(u32, &str)] = &[
    (4, "lockkeeper"),        // the fence stands on the resource's side
    (15, "lockkeeper-store"), // the audit log is the store's
    (16, "lockkeeper-store"), // and so is the claim on a project
];

fn lacks_module_doc(path: &str, text: &str) -> Vec<Problem> {
    match text.trim_start().starts_with("//!") {
        true => vec![],
        false => vec![Problem::new(path, 1, "does not open with a `//!` comment: what is it for?")],
    }
}

fn is_too_long(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if is_production(path) && lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, {FILE_LINES_MAX} are allowed: split it");
        problems.push(Problem::new(path, 0, what));
    }
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let what = format!("{columns} columns, {COLUMNS_MAX} are allowed");
            problems.push(Problem::new(path, at + 1, what));
        }
    }
    problems
}

/// The border to C of the disk that tests break. No program has it in it.
const MAY_BE_UNSAFE: &[&str] = &["crates/lockkeeper-disk/src/shim.rs"];

fn is_unsafe_or_skipped(path: &str, text: &str) -> Vec<Problem> {
    let layers = layers(text);
    let rules = [
        (&layers.code, "unsafe", "no `unsafe` in this house"),
        (&layers.code, "#[ignore", "a test nobody runs: make it fit, or take it out"),
        (&layers.comments, "```ignore", "an example nobody compiles: `no_run` at most"),
    ];
    let mut problems = Vec::new();
    for (layer, word, what) in rules {
        if word == "unsafe" && MAY_BE_UNSAFE.contains(&path) {
            continue;
        }
        let lines = lines_with(layer, word).into_iter();
        problems.extend(lines.map(|line| Problem::new(path, line, what)));
    }
    problems
}

/// `names` are those in `migrations/`.
fn is_misnumbered(names: &[&str]) -> Vec<Problem> {
    let mut names: Vec<&str> = names.iter().filter(|&&name| name != "README.md").copied().collect();
    names.sort_unstable();
    let mut problems = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let expected = format!("{:04}_", at + 1);
        let what = name.strip_prefix(&*expected).and_then(|rest| rest.strip_suffix(".sql"));
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !what.is_some_and(|what| !what.is_empty() && what.chars().all(is_word)) {
            let what = format!("expected `{expected}what.sql` here: numbers from 0001, no gap");
            problems.push(Problem::new(&format!("migrations/{name}"), 0, what));
        }
    }
    problems
}

/// `texts` are those of tests and of the simulator, `crates` those that exist.
fn invariants_without_test(texts: &[String], crates: &BTreeSet<String>) -> Vec<Problem> {
    let is_awaited =
        |number| AWAITED.iter().any(|&(n, home)| n == number && !crates.contains(home));
    let is_named = |number: u32| {
        let name = format!("I{number}");
        texts.iter().any(|text| !lines_with(text, &name).is_empty())
    };
    let missing = INVARIANTS.filter(|&number| !is_awaited(number) && !is_named(number));
    missing.map(|n| Problem::new("tests", 0, format!("no test or check names I{n}"))).collect()
}

/// Where an invariant must be named: by what would go red, not by what is supposed to keep it, and
/// not where its name is only introduced.
fn guards_invariants(path: &str) -> bool {
    let is_test = path.starts_with("tests/") || path.contains("/tests/");
    let only_names = path.starts_with("tests/tidy/") || path.ends_with("/invariant.rs");
    !only_names && (is_test || path.starts_with("crates/lockkeeper-sim/"))
}

#[test]
fn each_file_says_what_it_is_for() {
    assert_tidy(rust_files().iter().flat_map(|file| lacks_module_doc(&file.path, &file.text)));
}

#[test]
fn files_and_lines_are_short() {
    assert_tidy(rust_files().iter().flat_map(|file| is_too_long(&file.path, &file.text)));
}

#[test]
fn nothing_is_unsafe_and_no_test_is_skipped() {
    assert_tidy(rust_files().iter().flat_map(|file| is_unsafe_or_skipped(&file.path, &file.text)));
}

#[test]
fn migrations_are_numbered_without_a_gap() {
    let paths = paths();
    let names: Vec<&str> =
        paths.iter().filter_map(|path| path.strip_prefix("migrations/")).collect();
    assert!(names.contains(&"README.md"), "the rules are gone");
    assert_tidy(is_misnumbered(&names));
}

#[test]
fn each_invariant_is_guarded() {
    let files = rust_files();
    let texts: Vec<String> = files
        .iter()
        .filter(|file| guards_invariants(&file.path))
        .map(|file| file.text.clone())
        .collect();
    let manifests = paths();
    let crates = manifests
        .iter()
        .filter_map(|path| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
        .map(str::to_owned)
        .collect();
    assert_tidy(invariants_without_test(&texts, &crates));
}

#[test]
fn red_without_a_module_doc() {
    assert_one(&lacks_module_doc("a.rs", "use std::fmt;\n//! Late."), "//!");
    assert_eq!(lacks_module_doc("a.rs", "//! Early.\n"), []);
}

#[test]
fn red_when_too_long() {
    let long = "//! x\n".repeat(FILE_LINES_MAX + 1);
    assert_one(&is_too_long("crates/lockkeeper-core/src/a.rs", &long), "601 lines");
    assert_eq!(is_too_long("crates/lockkeeper-core/tests/a.rs", &long), []);
    assert_one(&is_too_long("tests/a.rs", &"ü".repeat(101)), "101 columns");
    assert_eq!(is_too_long("tests/a.rs", &"ü".repeat(100)), []);
}

#[test]
fn red_when_unsafe_or_skipped() {
    let check = |text: &str| is_unsafe_or_skipped("a.rs", text);
    assert_one(&check("unsafe { x() }"), "no `unsafe`");
    assert_one(&check("#[test]\n#[ignore = \"slow\"]\nfn f() {}"), "nobody runs");
    assert_one(&check("/// ```ignore\n/// f();\n/// ```"), "nobody compiles");
    assert_eq!(check("#![forbid(unsafe_code)] // nothing unsafe\nlet a = \"#[ignore]\";"), []);
}

#[test]
fn red_when_a_migration_is_missing() {
    assert_eq!(is_misnumbered(&["README.md", "0001_locks.sql", "0002_tasks.sql"]), []);
    assert_one(&is_misnumbered(&["0001_locks.sql", "0003_tasks.sql"]), "0002_");
    assert_one(&is_misnumbered(&["0001_Locks.sql"]), "0001_");
    assert_eq!(is_misnumbered(&["0001_a.sql", "0001_b.sql"]).len(), 1);
}

#[test]
fn red_when_an_invariant_is_not_guarded() {
    let all = || INVARIANTS.map(|n| format!("I{n} "));
    let some = |texts: String, crates: &[&str]| {
        let crates = crates.iter().map(|&name| name.to_owned()).collect();
        invariants_without_test(&[texts], &crates)
    };
    assert_eq!(some(all().collect(), &["lockkeeper", "lockkeeper-store"]), []);
    assert_one(&some(all().filter(|name| name != "I1 ").collect(), &[]), "I1");
    let without_fence: String = all().filter(|name| name != "I4 ").collect();
    assert_eq!(some(without_fence.clone(), &[]), [], "its crate is still to come");
    assert_one(&some(without_fence, &["lockkeeper"]), "I4");
    assert!(guards_invariants("crates/lockkeeper-core/tests/rules.rs"));
    assert!(!guards_invariants("crates/lockkeeper-core/src/lib.rs"));
    assert!(!guards_invariants("crates/lockkeeper-sim/src/model/invariant.rs"));
}
