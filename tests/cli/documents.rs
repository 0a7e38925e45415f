//! Every command that the documents and the help show is run here, so that none of them is a
//! promise of the past.

use crate::support::run;
use std::{fs, path::Path};

const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "migrations/README.md"];

/// A command line somebody is told to type.
#[derive(PartialEq, Debug)]
enum Shown {
    /// Ours, also by way of `cargo run`: its arguments.
    Lockkeeper(Vec<String>),
    /// An example by way of `cargo run`.
    Example(String),
    /// Cargo's own work: everything after `cargo`.
    Cargo(String),
    /// Anything else.
    Other(String),
}

fn shown(line: &str) -> Option<Shown> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split(" #").next().unwrap_or_default().trim();
    let is_setting = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words: Vec<&str> = line.split_whitespace().skip_while(is_setting).collect();
    let owned = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    Some(match words[..] {
        [] => return None,
        [first, ..] if first.starts_with('#') => return None,
        ["lockkeeper", ref args @ ..] => Shown::Lockkeeper(owned(args)),
        ["cargo", "run", ref rest @ ..] => {
            let (options, args) = match rest.iter().position(|&word| word == "--") {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, &[][..]),
            };
            match options.iter().position(|&word| word == "--example") {
                Some(at) => Shown::Example(options.get(at + 1)?.to_string()),
                None => Shown::Lockkeeper(owned(args)),
            }
        }
        ["cargo", ..] => Shown::Cargo(words[1..].join(" ")),
        _ => Shown::Other(line.to_owned()),
    })
}

/// The commands in the shell blocks of a document. In a `console` block only lines after a prompt
/// are commands, the rest is what they print.
fn in_document(text: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in text.lines() {
        match (block, line.trim().strip_prefix("```")) {
            (None, Some(language)) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (Some("sh" | "bash" | "shell"), None) => found.extend(shown(line)),
            (Some("console"), None) if line.starts_with("$ ") => found.extend(shown(line)),
            _ => {}
        }
    }
    found
}

/// The commands in a help text: what stands under `Examples:`, up to the remark beside it.
fn in_help(text: &str) -> Vec<Shown> {
    let examples = text.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = examples.take_while(|line| line.starts_with("  "));
    lines.filter_map(|line| shown(line.trim().split("   ").next()?)).collect()
}

/// Runs one of our commands as it is shown, only shorter: the last `--steps` counts.
fn check_ours(args: &[String]) {
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let is_run = args.first() == Some(&"simulate") && !args.contains(&"--help");
    if is_run {
        args.extend(["--steps", "300"]);
    }
    let ran = run(&args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.all());
    assert!(!ran.out.is_empty(), "{args:?} says nothing");
}

/// Checks that what cargo is asked to do can be done. These are not run: this test is part of it.
fn check_cargo(command: &str) {
    let known = ["test --workspace", "bench -p lockkeeper-core", "bench --workspace"];
    let known_with_flags =
        ["test -p", "test --release -p", "build --release", "install --path .", "doc --workspace"];
    let package = command.split_once("-p ").and_then(|(_, rest)| rest.split(' ').next());
    if let Some(package) = package {
        let manifest = root().join("crates").join(package).join("Cargo.toml");
        assert!(manifest.exists(), "cargo {command}: there is no package {package}");
    }
    let is_known =
        known.contains(&command) || known_with_flags.iter().any(|start| command.starts_with(start));
    assert!(is_known, "cargo {command}: is that right? Then say so here");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_command_in_the_documents_works() {
    let mut ours = 0;
    for document in DOCUMENTS {
        let Ok(text) = fs::read_to_string(root().join(document)) else { continue };
        for command in in_document(&text) {
            match command {
                Shown::Lockkeeper(args) => {
                    ours += 1;
                    check_ours(&args);
                }
                // What they print is the business of tests/examples.
                Shown::Example(name) => {
                    let places =
                        [format!("examples/{name}.rs"), format!("examples/{name}/main.rs")];
                    let exists = places.iter().any(|place| root().join(place).exists());
                    assert!(exists, "{document}: there is no example {name}");
                }
                Shown::Cargo(command) => check_cargo(&command),
                Shown::Other(line) => {
                    let script = root().join(line.split(' ').next().unwrap_or_default());
                    assert!(script.is_file(), "{document}: nobody checks {line:?}");
                }
            }
        }
    }
    assert!(ours > 0, "no document shows the program at work");
}

#[test]
fn every_command_in_the_help_works() {
    for args in [&["--help"][..], &["simulate", "--help"]] {
        let help = run(args).out;
        let commands = in_help(&help);
        assert!(!commands.is_empty(), "{args:?} shows no example");
        for command in commands {
            match command {
                Shown::Lockkeeper(args) => check_ours(&args),
                other => panic!("{args:?} shows {other:?}"),
            }
        }
    }
}

#[test]
fn commands_are_found_where_they_stand() {
    let text = "\
```sh
cargo run --release -- simulate --seed 2   # a remark
cargo test --workspace
# only a remark
```
lockkeeper outside
```console
$ lockkeeper simulate
lockkeeper printed
```
";
    let ours = |args: &[&str]| Shown::Lockkeeper(args.iter().map(|arg| arg.to_string()).collect());
    let expected = [
        ours(&["simulate", "--seed", "2"]),
        Shown::Cargo("test --workspace".to_owned()),
        ours(&["simulate"]),
    ];
    assert_eq!(in_document(text), expected);
    let help = "Usage: x\n\nExamples:\n  lockkeeper simulate   and look\n\n  lockkeeper no";
    assert_eq!(in_help(help), [ours(&["simulate"])]);
    let nightly = Some(Shown::Cargo("test --workspace".to_owned()));
    assert_eq!(shown("ROUNDS=200 cargo test --workspace"), nightly);
    let example = Some(Shown::Example("two_agents".to_owned()));
    assert_eq!(shown("cargo run --example two_agents"), example);
}

#[test]
#[should_panic(expected = "is that right")]
fn red_when_cargo_is_asked_for_something_unknown() {
    check_cargo("frobnicate");
}

#[test]
#[should_panic(expected = "there is no package")]
fn red_when_a_package_is_not_there() {
    check_cargo("bench -p lockkeeper-chair");
}

#[test]
#[should_panic(expected = "unrecognized subcommand")]
fn red_when_a_verb_is_gone() {
    check_ours(&["doubt".to_owned()]);
}
