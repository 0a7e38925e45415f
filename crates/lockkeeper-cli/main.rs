//! Opens the doors: turns arguments into library calls, and answers into text, JSON and exit codes.
//!
//! | file | its part |
//! |---|---|
//! | `args.rs` | the command line: verbs, flags, their bounds, and the help |
//! | `exit.rs` | what the exit codes mean |
//! | `progress.rs` | the live line on stderr |
//! | `simulate.rs` | the verb `simulate` |
//!
//! It keeps no state and knows no lock rule. stdout carries the answer and nothing else; whatever
//! is said on the way there goes to stderr.

mod args;
mod exit;
mod progress;
mod simulate;

use anyhow::Context;
use args::{Args, Verb};
use clap::Parser;
use exit::Exit;
use std::{
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    // Wrong usage ends in here: clap says what is wrong on stderr and exits with 2.
    let args = Args::parse();
    match run(&args) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Nobody is left to hear it if stderr is closed as well.
            let _ = writeln!(io::stderr().lock(), "error: {error:#}");
            Exit::Failed.into()
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Simulate(wanted) => simulate::run(wanted).context("cannot write the answer"),
    }
}
