//! The core decides by its input alone: no clock, no thread, no file, no map whose order is chance.

use crate::{
    Problem, assert_one, assert_tidy,
    source::{imports, layers, lines_with, without_tests},
    tree::{is_core, rust_files},
};

/// The one file that may hold a hash map, and may only look things up in it.
const INDEX: &str = "crates/lockkeeper-core/src/index.rs";

/// What the core may not say, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant", "time is handed in as a Timestamp"),
    ("SystemTime", "time is handed in as a Timestamp"),
    ("Utc::now", "time is handed in as a Timestamp"),
    ("Local::now", "time is handed in as a Timestamp"),
    ("std::thread", "the core runs on its caller's thread"),
    ("thread::", "the core runs on its caller's thread"),
    ("thread_local", "all state is in the table"),
    ("tokio", "the core knows no runtime"),
    ("kameo", "the core knows no actors"),
    ("async", "the core answers at once"),
    (".await", "the core answers at once"),
    ("std::fs", "what is kept goes through the Journal"),
    ("std::net", "the core talks to nobody"),
    ("std::env", "what it needs is in its TableConfig"),
    ("std::process", "the core starts nothing"),
    ("std::io", "what is kept goes through the Journal"),
];

/// Maps whose order is chance, or hangs on what was removed before.
const UNORDERED: &[&str] =
    &["HashMap", "HashSet", "IndexMap", "IndexSet", "hash_map", "hash_set", "RandomState"];

/// What would walk a map.
const WALKING: &[&str] = &[
    "iter",
    "iter_mut",
    "into_iter",
    "keys",
    "into_keys",
    "values",
    "values_mut",
    "into_values",
    "drain",
    "retain",
    "extract_if",
];

/// What runs of a core file, its tests left out.
fn running_code(text: &str) -> String {
    without_tests(&layers(text).code).0
}

fn reaches_outside(path: &str, text: &str) -> Vec<Problem> {
    let code = running_code(text);
    let imports = imports(&code);
    let mut problems = Vec::new();
    for &(word, why) in FORBIDDEN {
        let said = lines_with(&code, word);
        let brought_in = imports.iter().filter(|(_, path)| !lines_with(path, word).is_empty());
        let mut lines: Vec<usize> = said.into_iter().chain(brought_in.map(|(at, _)| *at)).collect();
        lines.sort_unstable();
        lines.dedup();
        let what = format!("`{word}` in the core: {why}");
        problems.extend(lines.into_iter().map(|line| Problem::new(path, line, &*what)));
    }
    problems
}

fn depends_on_map_order(path: &str, text: &str) -> Vec<Problem> {
    let code = running_code(text);
    let (words, what) = if path == INDEX {
        (WALKING, "walks the map, whose order is chance")
    } else {
        (UNORDERED, "a map whose order is chance: use BTreeMap, or the Index of index.rs")
    };
    let mut problems = Vec::new();
    for word in words {
        let lines = lines_with(&code, word).into_iter();
        problems.extend(lines.map(|line| Problem::new(path, line, format!("`{word}`: {what}"))));
    }
    if path == INDEX {
        let loops = |line: &str| {
            let mut words = line.split_whitespace();
            words.any(|word| word == "for") && words.any(|word| word == "in")
        };
        let lines = code.lines().enumerate().filter(|(_, line)| loops(line));
        problems.extend(lines.map(|(at, _)| Problem::new(path, at + 1, format!("`for`: {what}"))));
    }
    problems
}

/// The core's files that run: without test modules that live in files of their own.
fn core_files() -> Vec<(String, String)> {
    let files: Vec<_> = rust_files().into_iter().filter(|file| is_core(&file.path)).collect();
    let mut test_files = Vec::new();
    for file in &files {
        let folder = folder_of_modules(&file.path);
        for name in without_tests(&layers(&file.text).code).1 {
            test_files.push(format!("{folder}/{name}.rs"));
            test_files.push(format!("{folder}/{name}/mod.rs"));
        }
    }
    let running = files.into_iter().filter(|file| !test_files.contains(&file.path));
    running.map(|file| (file.path, file.text)).collect()
}

/// Where the modules a file declares are found.
fn folder_of_modules(path: &str) -> &str {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_root = path.ends_with("/lib.rs") || path.ends_with("/mod.rs");
    if is_root { folder } else { path.trim_end_matches(".rs") }
}

#[test]
fn the_core_reaches_nothing_outside() {
    assert_tidy(core_files().iter().flat_map(|(path, text)| reaches_outside(path, text)));
}

#[test]
fn no_decision_hangs_on_the_order_of_a_map() {
    assert_tidy(core_files().iter().flat_map(|(path, text)| depends_on_map_order(path, text)));
}

#[test]
fn red_when_the_core_reaches_outside() {
    let check = |text: &str| reaches_outside("crates/lockkeeper-core/src/x.rs", text);
    assert_one(&check("let now = std::time::Instant::now();"), "Instant");
    assert_one(&check("let now = chrono::Utc::now();"), "Utc::now");
    assert_one(&check("use std::{fs, sync::Arc};"), "std::fs");
    assert_one(&check("use std::{\n    sync::Arc,\n    env,\n};"), "std::env");
    assert_one(&check("async fn f() {}"), "async");
    assert_one(&check("call().await;"), ".await");
    assert_one(&check("use std::thread;"), "std::thread");
    assert_one(&check("crossbeam::thread::scope(run);"), "thread::");
    assert_eq!(check("// Instant::now() is read by the caller\nlet a = \"tokio\";"), []);
    assert_eq!(check("#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}"), []);
}

#[test]
fn red_when_a_map_can_be_walked() {
    let elsewhere = |text: &str| depends_on_map_order("crates/lockkeeper-core/src/x.rs", text);
    assert_one(&elsewhere("let held: HashMap<u32, u32>;"), "HashMap");
    assert_one(&elsewhere("struct S(HashSet<u32>);"), "HashSet");
    assert_eq!(elsewhere("/// Like a HashMap.\nstruct S(BTreeMap<u32, u32>);"), []);

    let index = |text: &str| depends_on_map_order(INDEX, text);
    assert_eq!(index("use std::collections::HashMap;\nself.map.get(key)"), []);
    assert_one(&index("self.map.keys()"), "keys");
    assert_one(&index("self.map.retain(|_, _| true)"), "retain");
    assert_one(&index("for (k, v) in &self.map {}"), "for");
    assert_eq!(index("impl<K, V> Default for Index<K, V> {"), []);
}
