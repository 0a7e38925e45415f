//! The short run: every example there is, and a fixed number of seeded mutations of them.
//!
//! `LOCKKEEPER_FUZZ_TRIES=20` tries twenty times as many, `LOCKKEEPER_FUZZ_SEED=7` others.

use lockkeeper_fuzz::{TARGETS, Target};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The committed examples, in the order of their names, and those that are made.
fn examples(target: &Target) -> Vec<Vec<u8>> {
    let listed = fs::read_dir(folder(target)).expect("each target has a folder of examples");
    let mut paths: Vec<PathBuf> =
        listed.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let committed = paths.iter().map(|path| fs::read(path).expect("a readable example"));
    committed.chain((target.seeds)()).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs one input; says which it was if it breaks something.
fn run(target: &Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let path = std::env::temp_dir().join(format!("lockkeeper-fuzz-{}", target.name));
        fs::write(&path, bytes).expect("it is kept");
        let text = String::from_utf8_lossy(bytes).into_owned();
        panic!("{} breaks a promise, kept in {}:\n{text:?}", target.name, path.display());
    }
}

/// What numbers are about: the edges of what fits somewhere.
const EDGES: &[&str] = &[
    "0",
    "-1",
    "1",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740992",
    "4294967296",
    "1e400",
    "0.5",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "-0",
    "1e-9",
];

fn mutated(rng: &mut SmallRng, examples: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut SmallRng| &examples[rng.random_range(0..examples.len())];
    let mut bytes = pick(rng).clone();
    for _ in 0..rng.random_range(1..5) {
        let at = if bytes.is_empty() { 0 } else { rng.random_range(0..bytes.len()) };
        let end = (at + rng.random_range(1..17)).min(bytes.len());
        match rng.random_range(0..8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if !bytes.is_empty() => bytes[at] = rng.random(),
            2 => bytes.insert(at, rng.random()),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
            5 => {
                let other = pick(rng);
                let from = if other.is_empty() { 0 } else { rng.random_range(0..other.len()) };
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => {
                let edge = EDGES[rng.random_range(0..EDGES.len())];
                bytes.splice(at..end, edge.bytes());
            }
            _ => {
                // A whole number in a text is replaced: most of what is strange is one of those.
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let Some(start) = bytes[at..].iter().position(is_digit) else { continue };
                let start = at + start;
                let length = bytes[start..].iter().position(|byte| !is_digit(byte));
                let stop = length.map_or(bytes.len(), |length| start + length);
                let edge = EDGES[rng.random_range(0..EDGES.len())];
                bytes.splice(start..stop, edge.bytes());
            }
        }
    }
    bytes.truncate(64 * 1024);
    bytes
}

fn short_run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let examples = examples(target);
    assert!(examples.len() > 10, "too few examples to learn anything from");
    examples.iter().for_each(|bytes| run(target, bytes));
    let mut rng = SmallRng::seed_from_u64(number("LOCKKEEPER_FUZZ_SEED", 1));
    for _ in 0..u64::from(target.tries) * number("LOCKKEEPER_FUZZ_TRIES", 1) {
        run(target, &mutated(&mut rng, &examples));
    }
}

#[test]
fn requests() {
    short_run("requests");
}

#[test]
fn answers() {
    short_run("answers");
}

#[test]
fn texts() {
    short_run("texts");
}

#[test]
fn rows() {
    short_run("rows");
}

#[test]
fn journals() {
    short_run("journal");
}

#[test]
fn stores() {
    short_run("store");
}

/// No target is forgotten here, and none of them has a folder that nobody reads.
#[test]
fn every_target_has_its_run() {
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["answers", "journal", "requests", "rows", "store", "texts"]);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<String> = fs::read_dir(corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, names);
}
