//! Every command that the documents and the help show is run here, so that none of them is a
//! promise of the past.

use crate::support::{House, run};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "docs/benchmarks.md",
    "docs/reliability.md",
    "docs/security.md",
    "migrations/README.md",
];

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
    let is_setting = |word: &String| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words: Vec<String> = words(line).into_iter().skip_while(is_setting).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let owned = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    Some(match texts[..] {
        [] => return None,
        [first, ..] if first.starts_with('#') => return None,
        ["lockkeeper", ref args @ ..] => Shown::Lockkeeper(owned(args)),
        // Another program of the house: its own tests know its arguments.
        ["cargo", "run", ref rest @ ..] if rest.contains(&"-p") => {
            Shown::Cargo(format!("run {}", rest.join(" ")))
        }
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
        ["cargo", ..] => Shown::Cargo(texts[1..].join(" ")),
        _ => Shown::Other(line.to_owned()),
    })
}

/// The words of a line, as a shell sees them: what stands in single quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The commands in the shell blocks of a document, and ours in its sentences. In a `console` block
/// only lines after a prompt are commands, the rest is what they print.
fn in_document(text: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in text.lines() {
        match (block, line.trim().strip_prefix("```")) {
            (None, Some(language)) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (Some("sh" | "bash" | "shell"), None) => found.extend(shown(line)),
            (Some("console"), None) if line.starts_with("$ ") => found.extend(shown(line)),
            (None, None) => {
                let quoted = line.split('`').enumerate().filter(|(nth, _)| nth % 2 == 1);
                let ours = quoted.filter(|(_, text)| text.starts_with("lockkeeper "));
                found.extend(ours.filter_map(|(_, text)| shown(text)));
            }
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

/// A house in which the example of a verb can be tried.
fn stage(verb: &[&str]) -> House {
    let house = House::new();
    let taken = ["acquire", "src/main.rs", "git:index", "gpu:0", "browser:main"];
    match verb {
        ["wait" | "cancel", ..] => {
            house.run_as("bob", &["acquire", "browser:main"]).exits(0);
            let ask = ["acquire", "browser:main", "--wait", "1h", "--slice", "0"];
            house.run(&ask).exits(75);
        }
        ["renew" | "release" | "status" | "queue" | "why" | "graph" | "watch", ..]
        | ["audit" | "stats" | "stop" | "doctor" | "cleanup", ..] => {
            house.run(&taken).exits(0);
            house.say("acquire src/example.js AH-011").exits(0);
        }
        ["migrate", ..] => {
            house.run(&taken).exits(0);
            house.say("stop").exits(0);
        }
        ["force-unlock", ..] => drop(house.run_as("bob", &taken).exits(0)),
        ["task", "claim", ..] => {
            house.say("task claim TASK-7").exits(0);
            house.say("task release TASK-7").exits(0);
        }
        ["task", "renew" | "release" | "complete", ..] => {
            house.say("task claim TASK-7").exits(0);
        }
        _ => {}
    }
    house
}

/// What stands in the text for something that is different each time: a ticket, the id of a lock.
fn made_real(house: &House, args: &[String]) -> Vec<String> {
    const TICKET: &str = "4294967299";
    const LOCK: &str = "0190b5a2-7c1e-7d3a-8f00-1234567890ab";
    let real = |arg: &String| match arg.as_str() {
        TICKET | "TICKET" => {
            let rows = house.say("audit --kind lock_waiting --json").json();
            rows["rows"][0]["details"]["queued"]["ticket"].to_string()
        }
        LOCK => {
            let held = house.say("status --json").json();
            held["resources"][0]["holders"][0]["lock_id"].as_str().expect("an id").to_owned()
        }
        _ => arg.clone(),
    };
    args.iter().map(real).collect()
}

/// Runs one of our commands as it is shown, in a house of its own; only shorter where it would take
/// long, and with an answer where it would ask.
fn check_ours(args: &[String]) {
    let texts: Vec<&str> = args.iter().map(String::as_str).collect();
    let is_help = texts.contains(&"--help");
    let house = stage(if is_help { &[] } else { &texts });
    let mut args = made_real(&house, args);
    let mut add = |more: &[&str]| args.extend(more.iter().map(|arg| arg.to_string()));
    match texts[..] {
        _ if is_help => {}
        ["simulate", ..] => add(&["--steps", "300"]),
        ["watch", ..] => add(&["--since", "0", "--count", "1"]),
        ["force-unlock", ..] => add(&["--yes"]),
        // Its turn has come, and its asker does not know yet.
        ["wait", ..] => drop(house.run_as("bob", &["release", "browser:main"]).exits(0)),
        ["serve", ..] => return check_serve(&house, &args),
        _ => {}
    }
    let ran = house.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.all());
    assert!(!ran.out.is_empty(), "{args:?} says nothing");
}

/// A daemon in the foreground ends when it is asked to.
fn check_serve(house: &House, args: &[String]) {
    let mut command = house.command();
    command.args(args).arg("--json");
    if args.iter().any(|arg| arg == "--http") {
        // The port of the text may be somebody else's on this machine.
        command.args(["--http", "127.0.0.1:0"]);
    }
    let mut serving = house.start(&mut command);
    let mut line = String::new();
    let out = serving.stdout.take().expect("it is collected");
    BufReader::new(out).read_line(&mut line).expect("it speaks");
    assert!(line.contains(r#""ok":true"#), "{args:?}: {line}");
    house.say("stop").exits(0);
    assert_eq!(house.finish(serving).code, Some(0), "{args:?}");
}

/// Checks that what cargo is asked to do can be done. These are not run: this test is part of it.
fn check_cargo(command: &str) {
    let known = ["test --workspace", "bench -p lockkeeper-core", "bench --workspace"];
    let known_with_flags = [
        "run --release -p",
        "test -p",
        "test --release -p",
        "test --release --test siege",
        "build --release",
        "install --path .",
        "doc --workspace",
    ];
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

/// The page of the program, of each verb, and of each verb of `task`.
fn pages() -> Vec<Vec<String>> {
    let verbs = |help: &str, title: Option<&str>| -> Vec<String> {
        let lines = help.lines().skip_while(|line| title.is_some_and(|title| *line != title));
        let lines = lines.filter_map(|line| line.strip_prefix("  "));
        let words = lines.filter_map(|line| Some(line.split_once("  ")?.0.to_owned()));
        let is_verb = |word: &String| {
            word != "help"
                && word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        };
        words.filter(is_verb).collect()
    };
    let mut pages = vec![Vec::new()];
    for verb in verbs(&run(&["--help"]).out, None) {
        pages.push(vec![verb]);
    }
    for verb in verbs(&run(&["task", "--help"]).out, Some("Commands:")) {
        pages.push(vec!["task".to_owned(), verb]);
    }
    pages
}

#[test]
fn every_command_in_the_help_works() {
    let pages = pages();
    for verb in ["acquire", "wait", "status", "serve", "simulate"] {
        assert!(pages.contains(&vec![verb.to_owned()]), "{verb} is not in {pages:?}");
    }
    assert!(pages.contains(&vec!["task".to_owned(), "claim".to_owned()]), "{pages:?}");
    for page in pages {
        let mut args: Vec<&str> = page.iter().map(String::as_str).collect();
        args.push("--help");
        let commands = in_help(&run(&args).exits(0).out);
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
lockkeeper outside, `lockkeeper inside`, `cargo frobnicate`
```console
$ lockkeeper simulate
lockkeeper printed
```
";
    let ours = |args: &[&str]| Shown::Lockkeeper(args.iter().map(|arg| arg.to_string()).collect());
    let expected = [
        ours(&["simulate", "--seed", "2"]),
        Shown::Cargo("test --workspace".to_owned()),
        ours(&["inside"]),
        ours(&["simulate"]),
    ];
    assert_eq!(in_document(text), expected);
    let help = "Usage: x\n\nExamples:\n  lockkeeper simulate   and look\n\n  lockkeeper no";
    assert_eq!(in_help(help), [ours(&["simulate"])]);
    let nightly = Some(Shown::Cargo("test --workspace".to_owned()));
    assert_eq!(shown("ROUNDS=200 cargo test --workspace"), nightly);
    let other = Some(Shown::Cargo("run --release -p lockkeeper-bench -- all".to_owned()));
    assert_eq!(shown("cargo run --release -p lockkeeper-bench -- all"), other);
    let quoted = Some(ours(&["acquire", "a b", "--reason", ""]));
    assert_eq!(shown("lockkeeper acquire 'a b' --reason ''"), quoted);
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
