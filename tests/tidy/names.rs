//! README.md and ARCHITECTURE.md name only what exists.
//!
//! A name is what stands in backticks outside of code blocks: a path, a crate, a type, a function.
//! Links to files of the project count as well.

use crate::{
    Problem, assert_one, assert_tidy,
    source::{Layers, is_word, layers},
    tree::{File, paths, read, root, rust_files},
    walls::{ROOMS, metadata},
};
use std::collections::BTreeSet;

const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md"];

/// Names of the standard library and of other crates, which our sources need not mention.
const FOREIGN: &[&str] = &[
    "Arc",
    "BTreeMap",
    "BTreeSet",
    "BinaryHeap",
    "Debug",
    "Display",
    "Drop",
    "Duration",
    "HashMap",
    "HashSet",
    "Instant",
    "Mutex",
    "Option",
    "Result",
    "StableDiGraph",
    "StableGraph",
    "String",
    "SystemTime",
    "Vec",
];

/// Ends of names that are files.
const FILES: &[&str] = &[".rs", ".toml", ".md", ".sql", ".lock", ".yml", ".json"];

/// Everything a document may name.
struct Known {
    paths: Vec<String>,
    crates: BTreeSet<String>,
    /// Words of code: types must be among them.
    code: BTreeSet<String>,
    /// Words of code and of strings: a `snake_case` name may be a field of JSON as well.
    spoken: BTreeSet<String>,
}

/// What a piece of text in backticks is taken for.
#[derive(PartialEq, Debug)]
enum Named<'a> {
    Path(&'a str),
    Crate(&'a str),
    /// Each of them must be a word of the sources.
    Words(Vec<&'a str>),
    /// A command, a value, a word of the trade.
    Other,
}

fn named(text: &str) -> Named<'_> {
    // A single letter is a formula: `O(n)`.
    let is_name = |text: &str| text.len() > 1 && text.chars().all(|c| is_word(c) || c == ':');
    let is_path = text.contains('/') || FILES.iter().any(|end| text.ends_with(end));
    if text.contains(['*', '<', '$', '{', '='])
        || text.contains("NNNN")
        || text.contains("://")
        || text.starts_with('#')
    {
        return Named::Other;
    }
    if is_path && !text.contains([' ', ':', ',', '(']) {
        return Named::Path(text.trim_end_matches('/').trim_start_matches("./"));
    }
    if text.starts_with("lockkeeper-") && text.chars().all(|c| is_word(c) || c == '-') {
        return Named::Crate(text);
    }
    // `Type::method(arguments)` and `method()`: the arguments are only an illustration.
    let (name, is_call) = match text.split_once('(') {
        Some((name, rest)) if rest.ends_with(')') => (name, true),
        Some(_) => return Named::Other,
        None => (text, false),
    };
    // `TicketId`, but neither `I7` nor `SQL`: those are not names of code.
    let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.contains(|c: char| c.is_ascii_lowercase());
    let is_snake = name.contains('_') && !name.contains(|c: char| c.is_ascii_uppercase());
    if is_name(name) && (is_call || is_type || is_snake || name.contains("::")) {
        Named::Words(name.split("::").filter(|word| !word.is_empty()).collect())
    } else {
        Named::Other
    }
}

fn names_what_is_not(path: &str, text: &str, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, text) in backticked(text) {
        let missing = match named(text) {
            Named::Path(path) => (!known.has_path(path)).then_some(("file or folder", path)),
            Named::Crate(name) => (!known.crates.contains(name)).then_some(("crate", name)),
            Named::Words(words) => {
                words.into_iter().find(|word| !known.has_word(word)).map(|word| ("name", word))
            }
            Named::Other => None,
        };
        if let Some((kind, name)) = missing {
            let what = format!("there is no {kind} `{name}` (in `{text}`)");
            problems.push(Problem::new(path, line, what));
        }
    }
    for (line, target) in links(text) {
        let is_local = !target.contains("://") && !target.starts_with(['#', '/']);
        let file = target.split('#').next().unwrap_or_default().trim_end_matches('/');
        if is_local && !known.paths.iter().any(|path| path == file) {
            problems.push(Problem::new(path, line, format!("a link to nowhere: {target}")));
        }
    }
    problems
}

impl Known {
    /// A path may leave out the folders it starts with: `table/mod.rs`.
    fn has_path(&self, wanted: &str) -> bool {
        let mut paths = self.paths.iter();
        paths.any(|path| {
            path.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    }

    fn has_word(&self, word: &str) -> bool {
        let is_type = word.starts_with(|c: char| c.is_ascii_uppercase());
        let words = if is_type { &self.code } else { &self.spoken };
        FOREIGN.contains(&word)
            || words.contains(word)
            || self.crates.iter().any(|name| name.replace('-', "_") == word)
    }
}

/// The lines outside of code blocks, from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        (!in_block && !is_fence).then_some((at + 1, line))
    })
}

fn backticked(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        let inside = line.split('`').enumerate().filter(|(nth, _)| nth % 2 == 1);
        found.extend(inside.map(|(_, text)| (at, text.trim())));
    }
    found
}

fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| (at, target)));
    }
    found
}

/// All words of some text. Comments are no proof that something exists, so they are not asked.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c| !is_word(c)).map(str::to_owned)
}

fn known_from(files: &[File], paths: Vec<String>, crates: BTreeSet<String>) -> Known {
    let layers: Vec<Layers> = files.iter().map(|file| layers(&file.text)).collect();
    Known {
        paths,
        crates,
        code: layers.iter().flat_map(|layers| words(&layers.code)).collect(),
        spoken: layers.iter().flat_map(|layers| words(&layers.spoken)).collect(),
    }
}

fn known() -> Known {
    let mut files = rust_files();
    // This test names many things that are not there.
    files.retain(|file| !file.path.starts_with("tests/tidy/"));
    let metadata = metadata();
    let crates = metadata.packages.iter().map(|package| package.name.to_string());
    // A room that is still to be built may be spoken of.
    let crates = crates.chain(ROOMS.iter().map(|room| room.name.to_owned()));
    known_from(&files, paths(), crates.collect())
}

#[test]
fn the_documents_name_only_what_exists() {
    let known = known();
    let there = DOCUMENTS.iter().filter(|path| root().join(path).exists());
    let documents: Vec<File> = there.map(|path| read(path)).collect();
    assert!(!documents.is_empty(), "no document was found");
    let problems = documents.iter().flat_map(|file| {
        assert!(!backticked(&file.text).is_empty(), "{} names nothing", file.path);
        names_what_is_not(&file.path, &file.text, &known)
    });
    assert_tidy(problems);
}

#[test]
fn a_name_is_told_from_a_command() {
    assert_eq!(named("crates/lockkeeper-core/"), Named::Path("crates/lockkeeper-core"));
    assert_eq!(named("lib.rs"), Named::Path("lib.rs"));
    assert_eq!(named("lockkeeper-core"), Named::Crate("lockkeeper-core"));
    assert_eq!(named("LockTable::apply(now, command)"), Named::Words(vec!["LockTable", "apply"]));
    assert_eq!(named("next_deadline"), Named::Words(vec!["next_deadline"]));
    assert_eq!(named("TicketId"), Named::Words(vec!["TicketId"]));
    for other in ["cargo test --workspace", "I7", "file:src/main.rs", "shared", "O(n)"] {
        assert_eq!(named(other), Named::Other, "{other}");
    }
}

#[test]
fn red_when_a_document_names_what_is_not() {
    let file = File {
        path: "crates/a/src/lib.rs".to_owned(),
        text: "struct LockTable; fn apply() { \"timed_out Spoken\" } // a Ghost".to_owned(),
    };
    let paths = ["crates", "crates/a", &*file.path].map(str::to_owned).to_vec();
    let known = known_from(&[file], paths, BTreeSet::from(["lockkeeper-core".to_owned()]));
    let check = |text: &str| names_what_is_not("README.md", text, &known);
    assert_eq!(check("`LockTable::apply(now)` in `crates/a/src/lib.rs`, short `src/lib.rs`"), []);
    assert_eq!(check("`timed_out`, `lockkeeper-core`, [here](crates/a), `HashMap`"), []);
    assert_one(&check("`LockChair`"), "no name `LockChair`");
    assert_one(&check("`LockTable::decide()`"), "no name `decide`");
    assert_one(&check("`Ghost`"), "no name `Ghost`");
    assert_one(&check("`Spoken`"), "no name `Spoken`");
    assert_one(&check("`crates/b/src/lib.rs`"), "no file or folder");
    assert_one(&check("`rc/lib.rs`"), "no file or folder");
    assert_one(&check("`lockkeeper-chair`"), "no crate");
    assert_one(&check("a [link](docs/none.md#there)"), "link to nowhere");
    assert_eq!(check("```rust\nlet chair = LockChair::new(); // `LockChair`\n```"), []);
}
