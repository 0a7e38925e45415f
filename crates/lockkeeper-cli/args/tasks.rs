//! The verbs of task claims: each task is one agent's at a time.

use super::{span, text};
use clap::{Subcommand, ValueEnum};
use std::time::Duration;

/// Claim tasks, so that each is worked on by one agent only.
///
/// A task is any name: TASK-7, or the number of an issue. It is open, claimed or done, and has a
/// version that moves with each step, so that nobody acts on what is outdated. A claim that is not
/// renewed ends with its lease, and the task is open again.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper task claim TASK-7 --lease 30m
  lockkeeper task renew TASK-7
  lockkeeper task complete TASK-7
  lockkeeper task list

Exit codes: 0 done, 75 not claimed (the answer says who has it and until when), 76 not, or no
longer, claimed by you, 77 claimed by somebody else, 69 no daemon, 74 store trouble, 2 wrong
usage.")]
pub(crate) struct Task {
    #[command(subcommand)]
    pub(crate) verb: TaskVerb,
}

/// What can be done with tasks.
#[derive(Subcommand, Clone, PartialEq, Debug)]
pub(crate) enum TaskVerb {
    Claim(Claim),
    Renew(RenewClaim),
    Release(ReleaseClaim),
    Complete(Complete),
    List(ListTasks),
}

/// Claim tasks: all of them or none, now or never.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper task claim TASK-7
  lockkeeper task claim TASK-8 TASK-9 --lease 1h --reason 'they belong together'
  lockkeeper task claim TASK-7 --expect-version 2

Exit codes: 0 yours, 75 nothing was claimed: somebody has one, it is done, or has another version;
69 no daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Claim {
    /// Which
    #[arg(required = true, value_name = "TASK", value_parser = text)]
    pub(crate) tasks: Vec<String>,

    /// How long they are yours unless renewed  [default: 30m]
    #[arg(long, short, value_name = "TIME", value_parser = span::lease)]
    pub(crate) lease: Option<Duration>,

    /// The version you have seen: a task that moved since is not claimed
    #[arg(long, value_name = "N")]
    pub(crate) expect_version: Option<u64>,

    /// Why, or how: others will read it
    #[arg(long, short, value_name = "TEXT", value_parser = text)]
    pub(crate) reason: Option<String>,
}

/// Keep a claim for longer.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper task renew TASK-7
  lockkeeper task renew TASK-7 --lease 1h

Exit codes: 0 renewed, 76 not, or no longer, claimed by you, 77 claimed by somebody else, 69 no
daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct RenewClaim {
    /// Which
    #[arg(required = true, value_name = "TASK", value_parser = text)]
    pub(crate) tasks: Vec<String>,

    /// How long from now  [default: the lease of the claim]
    #[arg(long, short, value_name = "TIME", value_parser = span::lease)]
    pub(crate) lease: Option<Duration>,
}

/// Give claims back: the tasks are open again.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper task release TASK-7

Exit codes: 0 open again, 76 not, or no longer, claimed by you, 77 claimed by somebody else, 69 no
daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct ReleaseClaim {
    /// Which
    #[arg(required = true, value_name = "TASK", value_parser = text)]
    pub(crate) tasks: Vec<String>,

    /// The version you have seen
    #[arg(long, value_name = "N")]
    pub(crate) expect_version: Option<u64>,
}

/// Say that claimed tasks are done: nobody can claim them any more.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper task complete TASK-7

Exit codes: 0 done, 76 not, or no longer, claimed by you, 77 claimed by somebody else, 69 no
daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Complete {
    /// Which
    #[arg(required = true, value_name = "TASK", value_parser = text)]
    pub(crate) tasks: Vec<String>,

    /// The version you have seen
    #[arg(long, value_name = "N")]
    pub(crate) expect_version: Option<u64>,
}

/// Show the tasks that were ever claimed: their state, version, and who has them until when.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper task list
  lockkeeper task list --state claimed --json

Exit codes: 0 shown, 74 store trouble, 2 wrong usage.")]
pub(crate) struct ListTasks {
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<TaskState>,
}

/// The states of a task.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskState {
    /// Free to be claimed.
    Open,
    /// Somebody has it.
    Claimed,
    /// Nobody needs to claim it any more.
    Done,
}
