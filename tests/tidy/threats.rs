//! Each line of the threat model in docs/security.md names a test that is there.
//!
//! A line is a row of a table under a head that ends with `held by`. Its last cell names tests as
//! `file.rs::name`, each in backticks, by as much of the file's path as tells it apart.

use crate::{
    Problem, assert_one, assert_tidy,
    source::{is_word, layers},
    tree::{File, read, rust_files},
};

const MODEL: &str = "docs/security.md";

/// The rows of such tables: the number of the line, and its last cell.
fn rows(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_model = false;
    for (at, line) in text.lines().enumerate() {
        let Some(cells) = line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
            is_model = false;
            continue;
        };
        let last = cells.rsplit('|').next().unwrap_or_default().trim();
        match last {
            "held by" => is_model = true,
            _ if is_model && !last.starts_with("---") => found.push((at + 1, last)),
            _ => {}
        }
    }
    found
}

fn names_no_test(text: &str, files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, cell) in rows(text) {
        let mut problem = |what| problems.push(Problem::new(MODEL, at, what));
        let mut names = 0;
        for name in cell.split('`').skip(1).step_by(2) {
            names += 1;
            match name.split_once("::") {
                Some((file, test)) => {
                    if let Err(what) = is_there(file, test, files) {
                        problem(what);
                    }
                }
                None => problem(format!("`{name}` is not written file.rs::test")),
            }
        }
        if names == 0 {
            problem("names no test".to_owned());
        }
    }
    problems
}

fn is_there(path: &str, test: &str, files: &[File]) -> Result<(), String> {
    let is_it = |file: &&File| {
        let rest = file.path.strip_suffix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let named: Vec<&File> = files.iter().filter(is_it).collect();
    let has_it = |file: &&&File| is_tested(&layers(&file.text).code, test);
    match (named.len(), named.iter().filter(has_it).count()) {
        (0, _) => Err(format!("there is no file `{path}`")),
        (_, 0) => Err(format!("there is no test `{test}` in `{path}`")),
        (_, 1) => Ok(()),
        _ => Err(format!("`{path}` is not one file: name more of its path")),
    }
}

/// Whether a test of this name is in some code: below `#[test]` or one like it, or in a list of
/// tests, or in what makes several of one.
fn is_tested(code: &str, test: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let is_named = |line: &str| line.split(|c| !is_word(c)).any(|word| word == test);
    let mut is_marked = false;
    for line in lines {
        if is_marked && is_named(line) {
            return true;
        }
        // What else stands between the mark and the name is a mark, too.
        is_marked = line.contains("test]")
            || line.contains("test(")
            || line.starts_with("const TESTS")
            || (is_marked && !line.starts_with(['}', ']']) && !line.contains("fn "));
    }
    false
}

#[test]
fn each_line_of_the_threat_model_has_its_test() {
    let model = read(MODEL);
    assert!(rows(&model.text).len() > 40, "the model was not found");
    assert_tidy(names_no_test(&model.text, &rust_files()));
}

#[test]
fn red_when_a_threat_has_no_test() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("a/tests/x.rs", "#[test]\nfn one() {}\nfn two() {}\n// #[test]\n// fn three() {}\n"),
        file("b/tests/x.rs", "#[tokio::test(start_paused = true)]\nasync fn four() {}\n"),
        file("d/tests/x.rs", "#[test]\n#[cfg(unix)]\nfn four() {}\n"),
        file("c/y.rs", "const TESTS: &[Test] = &[\n    (\"five\", five),\n];\nfn six() {}\n"),
    ];
    let check = |cell: &str| {
        let text = format!("| what | held by |\n|---|---|\n| a threat | {cell} |\n\n| a | b |\n");
        names_no_test(&text, &files)
    };
    assert_eq!(check("`tests/x.rs::one`, `b/tests/x.rs::four`, `y.rs::five`"), []);
    assert_eq!(check("`d/tests/x.rs::four`"), []);
    assert_one(&check("nobody"), "names no test");
    assert_one(&check("`y.rs`"), "is not written");
    assert_one(&check("`a/tests/x.rs::two`"), "no test `two`");
    assert_one(&check("`a/tests/x.rs::three`"), "no test `three`");
    assert_one(&check("`a/tests/x.rs::on`"), "no test `on`");
    assert_one(&check("`y.rs::six`"), "no test `six`");
    assert_one(&check("`tests/x.rs::four`"), "not one file");
    assert_one(&check("`z.rs::one`"), "no file `z.rs`");
}
