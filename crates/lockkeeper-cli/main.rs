//! Opens the doors: turns arguments into library calls, and answers into text, JSON and exit codes.
//!
//! | file | its part |
//! |---|---|
//! | `args/` | the command line: verbs, flags, their bounds, and the help |
//! | `child/` | a command that runs under our eyes |
//! | `exit.rs` | what the exit codes mean |
//! | `output/` | answers as text and as JSON |
//! | `places/` | where things are: store, socket, project, files; and who asks |
//! | `progress.rs` | the live line of a simulation |
//! | `shell.rs` | the verbs `completions` and `man` |
//! | `simulate.rs` | the verb `simulate` |
//! | `trouble/` | why something was not done: exit code, text and JSON of each reason |
//!
//! It keeps no state and knows no lock rule. stdout carries the answer and nothing else; whatever
//! is said on the way there goes to stderr.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the verbs that use the rest are still being built")]

mod args;
#[expect(dead_code, unused_imports, reason = "the verb `run` is still to come")]
mod child;
mod exit;
mod output;
mod places;
mod progress;
mod shell;
mod simulate;
mod trouble;

use args::{Args, Verb, help};
use exit::Exit;
use output::{Answer, style::Style};
use places::Here;
use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};
use trouble::Trouble;

fn main() -> ExitCode {
    if let Some(code) = child::trampoline() {
        return code;
    }
    let line: Vec<OsString> = env::args_os().collect();
    let args = match help::parse(&line) {
        Ok(args) => args,
        Err(error) => return misused(&error, &line).into(),
    };
    match run(&args) {
        Ok(exit) => exit.into(),
        Err(trouble) => told(&trouble, args.global.json).into(),
    }
}

fn run(args: &Args) -> Result<Exit, Trouble> {
    let json = args.global.json;
    let answer = match &args.verb {
        Verb::Simulate(wanted) => {
            return simulate::run(wanted, json).map_err(|error| Trouble::unwritten(&error));
        }
        Verb::Completions(wanted) => shell::completions(wanted)?,
        Verb::Man(wanted) => shell::man(wanted)?,
        other => unbuilt(args, other)?,
    };
    answer.write(json)?;
    Ok(Exit::Done)
}

/// The verbs that are still being built: what they were asked for is checked already.
fn unbuilt(args: &Args, verb: &Verb) -> Result<Answer, Trouble> {
    let here = Here::find(&args.global)?;
    let (here, words) = match verb {
        Verb::Acquire(wanted) => here.last_word(wanted.resources.clone(), &args.global)?,
        Verb::Release(wanted) => here.last_word(wanted.resources.clone(), &args.global)?,
        Verb::Check(wanted) => (here, wanted.resources.clone()),
        _ => (here, Vec::new()),
    };
    let resources = here.resources(&words)?;
    let what = format!("this verb is still being built: {here:?} {resources:?}");
    Err(Trouble::new(Exit::Unavailable, "unbuilt", what))
}

/// Tells why something was not done: a program on stdout, a person on stderr.
fn told(trouble: &Trouble, json: bool) -> Exit {
    match json {
        // Nobody is left to hear it if this cannot be written either.
        true => drop(output::say(&mut io::stdout().lock(), &trouble.json().to_string())),
        false => output::remark(&trouble.text(Style::of_stderr())),
    }
    trouble.exit
}

/// Help that was asked for, or what is wrong with the line, in clap's words.
fn misused(error: &clap::Error, line: &[OsString]) -> Exit {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => Exit::Done,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Err(error) => told(&Trouble::unwritten(&error), false),
        };
    }
    let ours = line.iter().take_while(|word| *word != "--");
    if ours.into_iter().any(|word| word == "--json") {
        let text = error.render().to_string();
        let trouble = Trouble::new(Exit::Usage, "usage", text.trim_end());
        return told(&trouble, true);
    }
    let _ = error.print().and_then(|()| io::stderr().flush());
    Exit::Usage
}
