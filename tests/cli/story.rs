//! The story of two terminals, as the help and the README tell it, happens like that.

use crate::support::{House, Ran, run};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A command in one of the terminals, and what it prints.
#[derive(Debug)]
struct Step {
    terminal: usize,
    line: String,
    printed: String,
}

/// The steps of a story. What is printed may be broken into lines anywhere.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_open = false;
    for line in text.lines().map(str::trim) {
        let prompts = ["one$ ", "two$ "];
        let prompt = prompts.iter().position(|prompt| line.starts_with(prompt));
        if let Some(terminal) = prompt {
            let line = line[prompts[terminal].len()..].to_owned();
            steps.push(Step { terminal, line, printed: String::new() });
            is_open = true;
        } else if line.is_empty() || line.starts_with("```") {
            is_open = false;
        } else if let (true, Some(step)) = (is_open, steps.last_mut()) {
            step.printed.push_str(line);
            step.printed.push('\n');
        }
    }
    steps
}

/// What stays the same from one telling to the next: words, without times, terminals and places.
fn told(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| "();,".contains(c));
        let is_number = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit());
        let is_clock = bare.ends_with('Z') && bare.contains(':');
        match bare {
            _ if bare.contains("@pts/") => word.replace(bare, "WHO"),
            _ if is_clock || bare.starts_with('/') => word.replace(bare, "SOMETHING"),
            _ if is_number => String::new(),
            "ms" | "s" | "min" => word.replace(bare, ""),
            _ => word.to_owned(),
        }
    });
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").replace(" ;", ";").replace(" ,", ",")
}

/// A terminal: what is started at it belongs to it, whatever its input and output are.
struct Terminal {
    name: std::ffi::CString,
    _desk: OwnedFd,
}

impl Terminal {
    fn new() -> Terminal {
        let desk = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&desk).expect("a terminal");
        unlockpt(&desk).expect("a terminal");
        Terminal { name: ptsname(&desk, Vec::new()).expect("its name"), _desk: desk }
    }

    /// Starts a command line at it, as a shell would for somebody who never named an agent.
    fn start(&self, house: &House, line: &str) -> Child {
        let screen = open(self.name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let mut command = Command::new("setsid");
        house.furnish(&mut command);
        let program = format!("{:?}", env!("CARGO_BIN_EXE_lockkeeper"));
        let line = line.replacen("lockkeeper", &program, 1);
        command.args(["--ctty", "--wait", "sh", "-c", &line]).env_remove("LOCKKEEPER_AGENT");
        command.stdin(Stdio::from(screen.expect("its end")));
        house.start(&mut command)
    }
}

fn tell(text: &str) {
    let steps = steps(text);
    let count = steps.len();
    assert!(count >= 4, "the story is gone: {steps:?}");
    let house = House::new();
    let terminals = [Terminal::new(), Terminal::new()];
    let mut waiting: Option<Child> = None;
    for step in steps {
        let mut child = terminals[step.terminal].start(&house, &step.line);
        if step.printed.starts_with("waiting for ") {
            let mut line = String::new();
            let err = child.stderr.take().expect("it is collected");
            BufReader::new(err).read_line(&mut line).expect("it speaks");
            assert_eq!(told(&line), told(&step.printed), "{}", step.line);
            waiting = Some(child);
            continue;
        }
        let Ran { out, err, .. } = house.finish(child);
        assert_eq!(told(&format!("{out}{err}")), told(&step.printed), "{}", step.line);
    }
    let ran = house.finish(waiting.expect("somebody waits in this story")).exits(0);
    assert!(ran.out.starts_with("file:src/main.rs is yours for 5 min"), "{}", ran.all());
}

#[test]
fn the_story_in_the_help_is_true() {
    tell(&run(&["--help"]).exits(0).out);
}

#[test]
fn the_story_in_the_readme_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    tell(&fs::read_to_string(path).unwrap());
}

#[test]
fn a_story_is_compared_by_what_does_not_change() {
    assert_eq!(told("for 5 min"), "for");
    assert_eq!(told("ends in 4 min 48 s (19:39:01Z) unless"), "ends in (SOMETHING) unless");
    assert_eq!(told("by ann@pts/1, taken 12 s ago"), "by WHO, taken ago");
    assert_ne!(told("is yours"), told("is locked"));
    let told = steps("one$ lockkeeper a\nb\nc\n\nnot this\ntwo$ lockkeeper d\n");
    assert_eq!((told.len(), told[0].printed.as_str(), told[1].terminal), (2, "b\nc\n", 1));
}
