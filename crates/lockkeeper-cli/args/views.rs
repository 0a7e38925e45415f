//! The verbs that only look. They never start a daemon and never change a byte.

use super::{span, text, whole::Count};
use clap::ValueEnum;
use std::time::Duration;

/// Ask whether you could have something now.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper check src/main.rs
  lockkeeper check src/main.rs docs/plan.md --shared

Nothing is taken: by the time you ask for it, somebody else may have it.

Exit codes: 0 free, or yours already, 75 held or promised to somebody else, 74 store trouble,
2 wrong usage.")]
pub(crate) struct Check {
    /// Paths, or type:key
    #[arg(required = true, value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// Together with other readers, not alone
    #[arg(long, short)]
    pub(crate) shared: bool,
}

/// Show who holds what, why, until when, and how many wait.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper status                  all of this project
  lockkeeper status src/main.rs      one resource, its holders and its queue
  lockkeeper status --mine           what you hold
  lockkeeper status --everywhere     all projects of the store

Exit codes: 0 shown, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Status {
    /// Paths, or type:key  [default: all that is held or waited for]
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// Only what this agent holds
    #[arg(long, conflicts_with = "resources")]
    pub(crate) mine: bool,

    /// Of all projects in the store
    #[arg(long, conflicts_with = "resources")]
    pub(crate) everywhere: bool,
}

/// Show who waits for something, the next first.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper queue git:index

Exit codes: 0 shown, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Queue {
    /// A path, or type:key
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resource: String,
}

/// Explain a wait, a refusal, or how a lock was lost.
///
/// It tells who holds the resource and why, who stands before you and what they wait for
/// themselves, and, from the audit log, what became of earlier requests: timed out, expired,
/// broken as a deadlock, with the whole ring and who lost.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper why git:index
  lockkeeper why src/main.rs --as coder-2      as coder-2 sees it

Exit codes: 0 explained, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Why {
    /// A path, or type:key
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resource: String,
}

/// Draw who waits for whom.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper graph
  lockkeeper graph --format mermaid      for Markdown
  lockkeeper graph --format dot          for Graphviz

Exit codes: 0 drawn, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Graph {
    /// How to draw it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: GraphFormat,
}

/// How a graph is drawn.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GraphFormat {
    /// For the terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// For Mermaid.
    Mermaid,
    /// For programs.
    Json,
}

/// Show what happens, as it happens, until Ctrl-C.
///
/// With --json each event is one object on a line of its own. After a break it goes on where it
/// was, and says so if it missed something.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper watch
  lockkeeper watch src/main.rs git:index
  lockkeeper watch --json --since 1200     from event 1200 on
  lockkeeper watch --count 1               until something happens

Exit codes: 0 seen so many as asked for, 69 no daemon, 74 store trouble, 2 wrong usage, 130
Ctrl-C.")]
pub(crate) struct Watch {
    /// Only of these: paths, or type:key  [default: all]
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// Begin with the event after this one  [default: from now on]
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,

    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Show what happened, from the audit log.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper audit                                the last 50 things that happened
  lockkeeper audit src/main.rs --since 2h
  lockkeeper audit --agent coder-2 --kind deadlock_detected
  lockkeeper audit --everywhere --limit 1000 --json

Exit codes: 0 shown, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Audit {
    /// About one resource: a path, or type:key
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resource: Option<String>,

    /// By, or about, one agent
    #[arg(long, value_name = "AGENT", value_parser = text)]
    pub(crate) agent: Option<String>,

    /// Of one kind, such as lock_granted, lease_expired or deadlock_detected
    #[arg(long, value_name = "KIND", value_parser = text)]
    pub(crate) kind: Option<String>,

    /// Not longer ago than this
    #[arg(long, value_name = "TIME", value_parser = span::any)]
    pub(crate) since: Option<Duration>,

    /// At most so many, the latest
    #[arg(long, short = 'n', value_name = "N", default_value = "50", value_parser = ROWS.parser())]
    pub(crate) limit: u64,

    /// Of all projects in the store
    #[arg(long)]
    pub(crate) everywhere: bool,
}

/// Count: locks, waits, sessions, and what people queue for most.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper stats
  lockkeeper stats --everywhere --json

Exit codes: 0 shown, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Stats {
    /// Of all projects in the store
    #[arg(long)]
    pub(crate) everywhere: bool,
}

const ROWS: Count = Count {
    bounds: 1..=100_000,
    too_few: "show at least 1 row",
    too_many: "at most 100000 rows at a time: narrow it down with --since",
};
