//! The verbs that look after the daemon and its store.

use super::span;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Run the daemon in the foreground.
///
/// Nobody has to: the first verb that needs a daemon starts one, and it ends by itself when nothing
/// is held and nobody asks. Run it yourself to have it under a supervisor, to watch its log, or to
/// open it to HTTP.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper serve
  lockkeeper serve --http 127.0.0.1:7420
  lockkeeper serve --idle-exit 10m

Ctrl-C, TERM and `lockkeeper stop` end it. Locks survive: the next daemon finds them.

Exit codes: 0 it was asked to end, 69 another daemon serves this store already, 74 store trouble,
78 a place cannot be used, 2 wrong usage.")]
pub(crate) struct Serve {
    /// Serve HTTP here, too
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<SocketAddr>,

    /// Serve JSON lines here, too
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) tcp: Option<SocketAddr>,

    /// Let in by --http and --tcp only who knows the secret in this file; needed beyond loopback
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// End when nothing was held and nobody asked for so long  [default: never]
    #[arg(long, value_name = "TIME", value_parser = span::any)]
    pub(crate) idle_exit: Option<Duration>,

    /// Leave the terminal, tell whoever waits at stdout, and write the log to a file
    #[arg(long, hide = true, value_name = "STEP")]
    pub(crate) background: Option<Step>,
}

/// The steps of a daemon into the background.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Out of the terminal.
    Begin,
    /// To work.
    GoOn,
}

/// End the daemon of this store.
///
/// It finishes what it is at, tells everybody who waits, and goes. Locks that were taken with
/// `acquire` survive; the next verb that needs a daemon starts one.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper stop

Exit codes: 0 it has ended, or none was running, 69 it does not answer, 2 wrong usage.")]
pub(crate) struct Stop {}

/// Look for the usual troubles, and say how to mend them.
///
/// Store, socket, folders and their rights, the version of the daemon, room on the disk, the
/// clock, and what is stuck. Nothing is changed.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper doctor
  lockkeeper doctor --json

Exit codes: 0 all is well, 78 something is not (each with its remedy), 2 wrong usage.")]
pub(crate) struct Doctor {}

/// Bring the store to the form this version needs.
///
/// The daemon does this by itself when it starts; this verb does it at a time of your choice, and
/// can keep a copy of the file as it was.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper migrate --backup

Exit codes: 0 it has the newest form, 74 it cannot be brought there, or a daemon has it open,
2 wrong usage.")]
pub(crate) struct Migrate {
    /// Copy the file first, beside it
    #[arg(long)]
    pub(crate) backup: bool,
}
