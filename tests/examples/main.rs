//! Runs every example as a user would, and holds the README to what the examples really do.

mod simulation;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

/// What an example must say, in this order. An example without an entry fails.
const ESSENTIALS: &[(&str, &[&str])] = &[
    (
        "custom_victim_policy",
        &[
            "batch against a person",
            "least_work        pair-anna      loses",
            "cheapest_to_redo  batch-reindex  loses",
            "batch against batch",
            "least_work        batch-lint     loses",
            "cheapest_to_redo  batch-lint     loses",
        ],
    ),
    (
        "fenced_write",
        &[
            "sleeper  has the lock, token 4294967297",
            "sleeper  writes \"draft of the sleeper\" with token 4294967297",
            "walker   asks for the lock and waits",
            "walker   has the lock, token 4294967298: the lease is over",
            "walker   writes \"final text of the walker\" with token 4294967298",
            "sleeper  wakes up",
            "bounces: token 4294967297 is outdated, 4294967298 has been here",
            "is_valid() is false, the lease ended",
            "walker   is not disturbed: is_valid() is true",
            "behind the fence: \"final text of the walker\"",
            "without a fence:  \"second draft of the sleeper\"",
        ],
    ),
    (
        "message_passing",
        &[
            "coder has MultiLock[file:src/main.rs]",
            "tester is queued with a ticket",
            "inspected: coder holds it (message passing)",
            "inspected: tester waits for it",
            "coder drops it, tester has MultiLock[file:src/main.rs]",
            "tester's session is ended",
            "demo 1: coder locked file:src/main.rs",
            "demo 2: tester waits",
            "demo 3: coder unlocked file:src/main.rs",
            "demo 4: tester locked file:src/main.rs",
            "the session of tester ended (Closed)",
        ],
    ),
    // What it must say is a matter of its own: see `simulation`.
    ("multi_project_simulation", &[]),
    (
        "quickstart",
        &[
            "agent-coder took src/main.rs, wrote, and gave it back",
            "// written under token 4294967297\n",
            "agent-coder has it again: token 4294967298",
            "agent-tester is refused: not free now: file:src/main.rs is held (exclusive) \
             by agent-coder for \"renaming the parser\"",
            "code busy, retryable true",
            "agent-coder must renew or give it back within",
            "agent-tester waits for file:src/main.rs (exclusive)",
            "agent-coder drops its guard",
            "agent-tester has it: token 4294967299",
            "the owner is agent-tester",
            "shutdown took file:src/main.rs from agent-tester",
            "is_valid() is false",
        ],
    ),
    (
        "task_queue",
        &[
            "ann claims design: claimed at version 1",
            "ben is refused: nothing is claimed: task:design is claimed by ann",
            "ann renews it for 30 s more",
            "ann completes it: done at version 2",
            "ben comes late: nothing is claimed: task:design is done",
            "ann wants api, client and docs: nothing is claimed: task:docs is claimed by ben",
            "api is still open",
            "ben gives docs back: open at version 2",
            "ann claims all 3 at once",
            "cid claims tests, now at version 1, and is killed",
            "tests is open again, at version 2",
            "ann, outdated: nothing is claimed: task:tests is at version 2, not 1",
            "ann looks again and claims it: version 3",
            "40 tasks done, each by exactly one of five workers; 40 closed",
        ],
    ),
    (
        "two_agents",
        &[
            "tester takes database:tests",
            "coder  asks for database:tests and waits behind tester",
            "deadlock: tester waits for file:src/main.rs held by coder, \
             coder waits for database:tests held by tester; tester lost",
            "flowchart",
            "coder  gets database:tests",
            "both go home; nothing is held",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder that is there");
    entries.map(|entry| entry.expect("a readable entry").path()).collect()
}

/// An example is a file, or a folder with a `main.rs`.
fn examples() -> BTreeSet<String> {
    let paths = entries(&root().join("examples")).into_iter();
    let sources = paths.filter(|path| {
        path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists()
    });
    sources.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// When anything in there was changed last.
fn changed(path: &Path) -> Option<SystemTime> {
    match path.is_dir() {
        true => entries(path).iter().filter_map(|path| changed(path)).max(),
        false => fs::metadata(path).and_then(|meta| meta.modified()).ok(),
    }
}

/// The example beside this test, as `cargo test` has built it. It is built here if only this test
/// was asked for, so that what runs is never older than what is written.
fn binary(name: &str) -> PathBuf {
    let here = env::current_exe().expect("a test has a path");
    let profile = here.parent().and_then(Path::parent).expect("target/<profile>/deps/test");
    let built = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let rooms = ["lockkeeper-core", "lockkeeper-store", "lockkeeper"];
    let rooms = rooms.map(|name| root().join("crates").join(name).join("src"));
    let sources = [root().join("examples").join(name), root().join(format!("examples/{name}.rs"))];
    let source = sources.iter().chain(&rooms).filter_map(|path| changed(path)).max();
    if changed(&built).max(Some(SystemTime::UNIX_EPOCH)) < source {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--quiet", "--locked", "--example", name]);
        if let Some(target) = profile.parent() {
            cargo.arg("--target-dir").arg(target);
        }
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "{name} does not build");
    }
    built
}

fn run(name: &str, args: &[&str]) -> Output {
    Command::new(binary(name)).args(args).output().expect("the example runs")
}

#[test]
fn each_example_is_expected_here() {
    let expected: BTreeSet<String> = ESSENTIALS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(examples(), expected, "an example nobody checks, or a check without example");
}

#[test]
fn each_example_ends_well_and_says_what_matters() {
    for (name, essentials) in ESSENTIALS.iter().filter(|(_, essentials)| !essentials.is_empty()) {
        let output = run(name, &[]);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} failed:\n{out}\n{err}");
        let mut rest = &*out;
        for essential in *essentials {
            let at = rest.find(essential);
            let at = at.unwrap_or_else(|| panic!("{name} does not say {essential:?} in:\n{out}"));
            rest = &rest[at + essential.len()..];
        }
    }
}

/// Lines without indentation, blank ones and trailing space: what a reader would copy.
fn bare(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

fn rust_blocks(markdown: &str) -> Vec<&str> {
    let blocks = markdown.split("```rust\n").skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn the_code_in_the_readme_is_that_of_an_example() {
    let read = |path: &Path| fs::read_to_string(path).expect("a readable file");
    let readme = read(&root().join("README.md"));
    let files = entries(&root().join("examples")).into_iter().filter(|path| path.is_file());
    let examples: Vec<String> = files.map(|path| read(&path)).collect();
    let examples: Vec<Vec<&str>> = examples.iter().map(|text| bare(text)).collect();
    let blocks = rust_blocks(&readme);
    assert!(!blocks.is_empty(), "the README shows no code");
    for block in blocks {
        let block = bare(block);
        let mut windows = examples.iter().flat_map(|lines| lines.windows(block.len()));
        assert!(windows.any(|lines| lines == block), "in no example:\n{}", block.join("\n"));
    }
}
