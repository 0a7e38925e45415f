//! Runs every example as a user would, and holds the README to what the example really does.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// What an example must say, in this order. An example without an entry fails.
const ESSENTIALS: &[(&str, &[&str])] = &[(
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
)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("examples")).expect("examples/ is there");
    let paths = files.map(|file| file.expect("a readable entry").path());
    let sources = paths.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    sources.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// The example beside this test, as `cargo test` has built it. It is built here if only this test
/// was asked for, so that what runs is never older than what is written.
fn binary(name: &str) -> PathBuf {
    let here = env::current_exe().expect("a test has a path");
    let profile = here.parent().and_then(Path::parent).expect("target/<profile>/deps/test");
    let built = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let source = changed(&root().join(format!("examples/{name}.rs")));
    if changed(&built).max(Some(SystemTime::UNIX_EPOCH)) < source {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--quiet", "--locked", "--example", name]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "{name} does not build");
    }
    built
}

#[test]
fn each_example_is_expected_here() {
    let expected: BTreeSet<String> = ESSENTIALS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(examples(), expected, "an example nobody checks, or a check without example");
}

#[test]
fn each_example_ends_well_and_says_what_matters() {
    for (name, essentials) in ESSENTIALS {
        let output = Command::new(binary(name)).output().expect("the example runs");
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
fn the_code_in_the_readme_is_that_of_the_example() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a readable file");
    let (readme, example) = (read("README.md"), read("examples/two_agents.rs"));
    let example = bare(&example);
    let blocks = rust_blocks(&readme);
    assert!(!blocks.is_empty(), "the README shows no code");
    for block in blocks {
        let block = bare(block);
        let found = example.windows(block.len()).any(|lines| lines == block);
        assert!(found, "not in examples/two_agents.rs:\n{}", block.join("\n"));
    }
}
