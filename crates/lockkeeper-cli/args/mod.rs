//! The command line: verbs, flags, their bounds, and the help a newcomer reads.
//!
//! | file | its verbs |
//! |---|---|
//! | `run.rs` | `run` |
//! | `locks.rs` | `acquire wait cancel renew release cleanup force-unlock capacity` |
//! | `views.rs` | `check status queue why graph watch audit stats` |
//! | `tasks.rs` | `task claim`, `renew`, `release`, `complete`, `list` |
//! | `daemon.rs` | `serve stop doctor migrate` |
//! | `shell.rs` | `completions man` |
//! | `simulate.rs` | `simulate` |
//!
//! `span.rs` reads times, `whole.rs` whole numbers, `help.rs` puts the first page together.

pub(crate) mod daemon;
pub(crate) mod help;
pub(crate) mod locks;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod simulate;
pub(crate) mod span;
pub(crate) mod tasks;
pub(crate) mod views;
mod whole;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Everything that was typed.
#[derive(Parser, Debug)]
#[command(name = "lockkeeper", version, arg_required_else_help = true, args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug, Default)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Global {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The lock space: a name, or a folder such as `.`  [default: the repository]
    #[arg(long, global = true, value_name = "NAME", value_parser = text)]
    pub(crate) project: Option<String>,

    /// Whose locks  [default: $LOCKKEEPER_AGENT, else you at your terminal]
    #[arg(long = "as", global = true, value_name = "AGENT", value_parser = text)]
    pub(crate) agent: Option<String>,

    /// The file that remembers  [default: $LOCKKEEPER_STORE, else yours]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) store: Option<PathBuf>,

    /// The daemon's socket  [default: $LOCKKEEPER_SOCKET, else the store's]
    #[arg(long, global = true, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    Run(run::Run),
    Acquire(locks::Acquire),
    Wait(locks::Wait),
    Cancel(locks::Cancel),
    Renew(locks::Renew),
    Release(locks::Release),
    Cleanup(locks::Cleanup),
    Check(views::Check),
    Status(views::Status),
    Queue(views::Queue),
    Why(views::Why),
    Graph(views::Graph),
    Watch(views::Watch),
    Audit(views::Audit),
    Stats(views::Stats),
    ForceUnlock(locks::ForceUnlock),
    Capacity(locks::Capacity),
    Task(tasks::Task),
    Serve(daemon::Serve),
    Stop(daemon::Stop),
    Doctor(daemon::Doctor),
    Migrate(daemon::Migrate),
    Completions(shell::Completions),
    Man(shell::Man),
    Simulate(simulate::Simulate),
}

/// Any text but none: an empty name is nearly always a variable that was not set.
fn text(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("it is empty: is a variable not set?".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        help::command().debug_assert();
    }

    #[test]
    fn what_every_verb_understands_may_stand_before_or_after_it() {
        for line in ["--json --as ann status", "status --json --as ann"] {
            let line = std::iter::once("lockkeeper").chain(line.split(' '));
            let args = help::parse(line).unwrap();
            assert!(args.global.json, "{args:?}");
            assert_eq!(args.global.agent.as_deref(), Some("ann"));
        }
    }

    #[test]
    fn an_empty_name_is_a_variable_that_was_not_set() {
        let error = help::parse(["lockkeeper", "status", "--as", ""]).unwrap_err();
        assert!(error.to_string().contains("is a variable not set?"), "{error}");
    }
}
