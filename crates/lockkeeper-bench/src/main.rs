//! Races Lockkeeper against what people use today, in one run and interleaved:
//! `cargo run --release -p lockkeeper-bench -- <scenario>`. What the figures mean, and what they
//! are, is in `docs/benchmarks.md`.
//!
//! # The tour
//!
//! ```text
//!   args ─► scenarios: rows and columns ─► rounds: shuffled, until all are measured
//!                │                                      │ figures
//!                ▼                                      ▼
//!   load: closed loops ─► peers: who locks     sheet ─► table, json, plot
//! ```
//!
//! | file | its part |
//! |---|---|
//! | `args.rs` | the command line |
//! | `rounds.rs` | runs all cells of a race, round by round |
//! | `load.rs` | the work: pairs, batches, hand-over, a crowd, a ring |
//! | `inside.rs` | counts who is inside: a lock that lets two in is not measured |
//! | `peers/` | who takes part, one file each, and what they share: `server.rs`, `wire.rs` |
//! | `scenarios/` | what is compared with what, one file each |
//! | `sheet.rs`, `stats.rs` | figures, their quarters and ratios, and what is to be reached |
//! | `table.rs`, `plot.rs` | the same for people |
//! | `about.rs` | the machine, the versions, the day |
//! | `place.rs`, `trouble.rs` | folders, ports, programs; why something was not measured |
//! | `served.rs` | a daemon of ours with other durability than the program offers |
//!
//! Nothing depends on this crate. It may use what users of the library use, and the server, so
//! that it can serve with other durability.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(clippy::print_stderr, reason = "so is why there are none")]

mod about;
mod args;
mod inside;
mod load;
mod peers;
mod place;
mod plot;
mod rounds;
mod scenarios;
mod served;
mod sheet;
mod stats;
mod table;
mod trouble;

use about::About;
use args::Args;
use clap::Parser;
use sheet::Sheet;
use std::{env, fs, path::Path, process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};
use trouble::{Result, Trouble, trouble};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    let ended = match &words[1..] {
        [verb, durability] if verb == "serve" => served::serve(durability),
        _ => race(&Args::parse()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("lockkeeper-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn race(args: &Args) -> Result<()> {
    if args.scenarios().iter().any(|scenario| scenario.needs_program()) {
        build_program()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Whatever ends it, the servers end with what is dropped here.
    let sheets = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            sheets = measure(args) => sheets,
            _ = interrupt.recv() => trouble("interrupted"),
            _ = terminate.recv() => trouble("asked to end"),
        }
    })?;
    let about = About::now(&args.plan());
    if let Some(path) = &args.json {
        let all = serde_json::json!({ "about": about, "sheets": sheets });
        write(path, &(serde_json::to_string_pretty(&all)? + "\n"))?;
    }
    if let Some(path) = &args.markdown {
        write(path, &table::document(&about, &sheets))?;
    }
    if let Some(path) = &args.svg {
        plot::svg(&sheets, path)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Trouble(format!("{}: {error}", path.display())))
}

async fn measure(args: &Args) -> Result<Vec<Sheet>> {
    let (plan, house) = (args.plan(), Arc::new(peers::house::House::default()));
    let mut sheets = Vec::new();
    for scenario in args.scenarios() {
        for sheet in scenarios::run(scenario, &plan, &house).await? {
            print!("{}", table::text(&sheet));
            sheets.push(sheet);
        }
    }
    Ok(sheets)
}

/// Under `cargo run` the program that is measured is built like this one, so that no old one is.
fn build_program() -> Result<()> {
    let Some(cargo) = env::var_os("CARGO") else { return Ok(()) };
    if env::var_os(peers::daemon::PROGRAM).is_some() {
        return Ok(());
    }
    let mut command = std::process::Command::new(cargo);
    command.args(["build", "--quiet", "--bin", "lockkeeper"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.status()?.success() {
        true => Ok(()),
        false => Err(Trouble("the program `lockkeeper` cannot be built".to_owned())),
    }
}
