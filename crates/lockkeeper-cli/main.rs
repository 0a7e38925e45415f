//! Opens the doors: turns arguments into library calls, and answers into text, JSON and exit codes.
//!
//! | file | its part |
//! |---|---|
//! | `args/` | the command line: verbs, flags, their bounds, and the help |
//! | `child/` | a command that runs under our eyes |
//! | `daemon/` | the daemon: finding it, starting it, being it |
//! | `exit.rs` | what the exit codes mean |
//! | `output/` | answers as text and as JSON |
//! | `places/` | where things are: store, socket, project, files; and who asks |
//! | `progress.rs` | the live line of a simulation |
//! | `shell.rs` | the verbs `completions` and `man` |
//! | `simulate.rs` | the verb `simulate` |
//! | `trouble/` | why something was not done: exit code, text and JSON of each reason |
//! | `verbs/` | all other verbs, one file for those that belong together |
//!
//! It keeps no state and knows no lock rule. stdout carries the answer and nothing else; whatever
//! is said on the way there goes to stderr.
#![forbid(unsafe_code)]

mod args;
mod child;
mod daemon;
mod exit;
mod output;
mod places;
mod progress;
mod shell;
mod simulate;
mod trouble;
mod verbs;

use args::{Args, Verb, daemon::Step, help};
use child::Prepared;
use daemon::{care, serve};
use exit::Exit;
use output::style::Style;
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
    // It gets ready while we read the line and ask the daemon.
    let prepared = match line.get(1) {
        Some(verb) if verb == "run" => Prepared::new().ok(),
        _ => None,
    };
    let args = match help::parse(&line) {
        Ok(args) => args,
        Err(error) => return misused(&error, &line).into(),
    };
    match run(&args, prepared) {
        Ok(exit) => exit.into(),
        Err(trouble) => told(&trouble, args.global.json).into(),
    }
}

fn run(args: &Args, prepared: Option<Prepared>) -> Result<Exit, Trouble> {
    let json = args.global.json;
    let answer = match &args.verb {
        Verb::Simulate(wanted) => {
            return simulate::run(wanted, json).map_err(|error| Trouble::unwritten(&error));
        }
        Verb::Completions(wanted) => shell::completions(wanted)?,
        Verb::Man(wanted) => shell::man(wanted)?,
        Verb::Serve(wanted) if wanted.background == Some(Step::Begin) => {
            return Err(serve::leave());
        }
        Verb::Serve(wanted) => return serve::serve(&Here::anywhere(&args.global)?, wanted),
        Verb::Migrate(wanted) => care::migrate(&Here::anywhere(&args.global)?, wanted)?,
        _ => return block_on(verbs::run(args, prepared)),
    };
    answer.write(json)
}

/// One thread is enough for one command.
fn block_on<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(work);
            // What still waits for the system, such as somebody else to start the daemon, does not
            // keep the user from the prompt.
            runtime.shutdown_background();
            ended
        }
        Err(error) => {
            let what = format!("the system gives no more threads or files: {error}");
            Err(Trouble::new(Exit::Unavailable, "no_runtime", what))
        }
    }
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
