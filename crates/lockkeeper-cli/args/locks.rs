//! The verbs that take locks, keep them and give them back.

use super::{span, text, whole::Count};
use std::time::Duration;

/// Take locks and return; they are held until released, or until their lease ends.
///
/// All of the resources or none. What is taken stays yours when the command has ended: give it
/// back with `lockkeeper release`, or keep it longer with `lockkeeper renew`. Whoever forgets, or
/// dies, loses it when the lease ends.
///
/// Without --wait the answer comes at once: yours, or who has it, why and until when. With --wait
/// you stand in a queue, first come, first served. Whoever cannot wait that long in one go adds
/// --slice: then the answer is a ticket that keeps your place, and `lockkeeper wait TICKET` goes
/// on from there.
///
/// A resource is a path, or type:key for anything else. A path is taken from the current folder
/// and means the same file however it is spelled, in every worktree of the repository. It need not
/// exist yet. A path with a colon in it is written ./like:this.
///
/// A last word without `.`, `/` or `:` is the agent, as in `acquire src/example.js AH-011`. For a
/// file of such a name write ./name.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper acquire src/main.rs
  lockkeeper acquire src/main.rs --reason 'renaming the parser' --lease 15m
  lockkeeper acquire git:index gpu:0 --wait 10m    both or neither, once they are free
  lockkeeper acquire docs/plan.md --shared         together with other readers
  lockkeeper acquire browser:main --wait 1h --slice 30s
  lockkeeper acquire src/example.js AH-011         for the agent AH-011

Exit codes: 0 it is yours, 75 it is not (held, timed out, or a ticket), 79 refused because of a
deadlock, 69 no daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Acquire {
    /// Paths, or type:key; perhaps an agent as the last word
    #[arg(required = true, value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// Together with other readers, not alone
    #[arg(long, short, conflicts_with_all = ["update", "permits"])]
    pub(crate) shared: bool,

    /// Beside readers for now, to become the only one later
    #[arg(long, conflicts_with = "permits")]
    pub(crate) update: bool,

    /// So many slots of a resource that has a capacity
    #[arg(long, value_name = "N", value_parser = PERMITS.parser())]
    pub(crate) permits: Option<u64>,

    /// How long to queue for it  [default: not at all]
    #[arg(long, short, value_name = "TIME", value_parser = span::wait)]
    pub(crate) wait: Option<Duration>,

    /// Answer with a ticket when it is not yours after this time; needs --wait
    #[arg(long, value_name = "TIME", value_parser = span::wait, requires = "wait")]
    pub(crate) slice: Option<Duration>,

    /// How long it is yours unless renewed  [default: 5m]
    #[arg(long, short, value_name = "TIME", value_parser = span::lease)]
    pub(crate) lease: Option<Duration>,

    /// Why: whoever has to wait for you will read it
    #[arg(long, short, value_name = "TEXT", value_parser = text)]
    pub(crate) reason: Option<String>,

    /// What it weighs in a deadlock, -10 to 10: the lowest gives way
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i8).range(-10..=10))]
    pub(crate) priority: Option<i8>,

    /// Count up what this agent holds already; it takes as many releases
    #[arg(long)]
    pub(crate) reentrant: bool,
}

/// Go on waiting with a ticket, in the place it keeps.
///
/// `lockkeeper acquire --slice` answers with a ticket when the lock is not yours yet. The ticket
/// keeps its place for two minutes; each `wait` begins these anew. Once the lock was granted,
/// `wait` says so, also when it was granted while nobody was looking.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper wait 4294967299               until it is yours, or the wait is over
  lockkeeper wait 4294967299 --slice 30s   at most 30 seconds now
  lockkeeper wait 4294967299 --slice 0     only look

Exit codes: 0 it is yours, 75 not yet (the ticket is still good) or never (the JSON says which),
79 chosen to break a deadlock, 69 no daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Wait {
    /// The number `acquire` answered with
    #[arg(value_name = "TICKET", value_parser = ticket)]
    pub(crate) ticket: u64,

    /// Answer after this time, whatever happened  [default: when the wait is over]
    #[arg(long, value_name = "TIME", value_parser = span::wait)]
    pub(crate) slice: Option<Duration>,
}

/// Give a place in the queue up.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper cancel 4294967299

Had the ticket been granted meanwhile, the lock is released.

Exit codes: 0 given up, 76 there is no such ticket (any more), 69 no daemon, 74 store trouble,
2 wrong usage.")]
pub(crate) struct Cancel {
    /// The number `acquire` answered with
    #[arg(value_name = "TICKET", value_parser = ticket)]
    pub(crate) ticket: u64,
}

/// Keep what you hold for longer.
///
/// The lease is counted from now, and never made shorter unless you say --shorten. A lock whose
/// lease has ended is lost: renewing it late does not bring it back.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper renew src/main.rs
  lockkeeper renew src/main.rs git:index --lease 30m
  lockkeeper renew 0190b5a2-7c1e-7d3a-8f00-1234567890ab --lease 1h

Exit codes: 0 renewed, 76 you do not hold it (any more), 77 somebody else holds it, 69 no daemon,
74 store trouble, 2 wrong usage.")]
pub(crate) struct Renew {
    /// Paths, type:key, or lock ids
    #[arg(required = true, value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// How long from now  [default: the lease it was taken with]
    #[arg(long, short, value_name = "TIME", value_parser = span::lease)]
    pub(crate) lease: Option<Duration>,

    /// The new end may come before the old one
    #[arg(long, requires = "lease")]
    pub(crate) shorten: bool,
}

/// Give back what you hold.
///
/// Whoever waits longest gets it in the same moment. You can only release what is yours, that is
/// what was taken by the same agent: see `lockkeeper status` for who holds what.
///
/// A last word without `.`, `/` or `:` is the agent, as in `release src/example.js AH-011`. For a
/// file of such a name write ./name.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper release src/main.rs
  lockkeeper release git:index gpu:0
  lockkeeper release src/example.js AH-011
  lockkeeper release src/main.rs --if-held         nothing to release is fine, too

Exit codes: 0 released, 76 you do not hold it (any more), 77 somebody else holds it, 69 no daemon,
74 store trouble, 2 wrong usage.")]
pub(crate) struct Release {
    /// Paths, type:key, or lock ids; perhaps an agent as the last word
    #[arg(required = true, value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// It is no failure if you do not hold it
    #[arg(long)]
    pub(crate) if_held: bool,
}

/// Give back all that an agent holds, and all its places in queues.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper cleanup AH-011        when the work of this agent is over, well or not

Exit codes: 0 nothing is left (the answer says how much it was), 69 no daemon, 74 store trouble,
2 wrong usage.")]
pub(crate) struct Cleanup {
    /// Whose
    #[arg(value_name = "AGENT", value_parser = text)]
    pub(crate) agent: String,
}

/// End a lock that somebody else holds.
///
/// For people who know that the holder is gone or mistaken. It shows what it breaks and asks first;
/// where nobody can be asked it needs --yes. The holder is told, and the audit log keeps who did
/// it and why.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper force-unlock src/main.rs --reason 'the machine of coder-3 is down'
  lockkeeper force-unlock gpu:0 --reason 'driver hangs' --yes

Exit codes: 0 it is free, 76 nobody held it, 77 you said no, or nobody could be asked, 69 no
daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct ForceUnlock {
    /// A path, or type:key
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resource: String,

    /// Why; it is kept for ever
    #[arg(long, short, value_name = "TEXT", required = true, value_parser = text)]
    pub(crate) reason: String,

    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Say how many slots a resource has, so that several can use it at once.
///
/// A resource with a capacity is taken by slots: `lockkeeper acquire llm:large --permits 1`.
/// One without is locked as a whole.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(after_help = "\
Examples:
  lockkeeper capacity llm:large 4
  lockkeeper capacity llm:large 0          no slots any more: a lock like any other

Exit codes: 0 so it is, 75 it is in use and cannot change like that now, 69 no daemon, 74 store
trouble, 2 wrong usage.")]
pub(crate) struct Capacity {
    /// A path, or type:key
    #[arg(value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resource: String,

    /// How many slots, 0 for none
    #[arg(value_name = "N", value_parser = SLOTS.parser())]
    pub(crate) slots: u64,
}

pub(super) const PERMITS: Count = Count {
    bounds: 1..=65_536,
    too_few: "ask for at least 1 slot",
    too_many: "no resource has more than 65536 slots",
};

const SLOTS: Count = Count {
    bounds: 0..=65_536,
    too_few: "a number of slots cannot be negative",
    too_many: "a resource has at most 65536 slots",
};

fn ticket(text: &str) -> Result<u64, String> {
    const HOW: &str = "a ticket is the number that `lockkeeper acquire --slice` answered with";
    text.parse().map_err(|_| HOW.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::args::{Verb, help};
    use std::time::Duration;

    fn verb(line: &str) -> Result<Verb, String> {
        help::parse(line.split(' ')).map(|args| args.verb).map_err(|error| error.to_string())
    }

    #[test]
    fn acquire_takes_times_as_people_write_them() {
        let line = "lockkeeper acquire a.rs git:index -s --wait 10m --slice 30s --lease 1h";
        let Verb::Acquire(acquire) = verb(line).unwrap() else { panic!("{line}") };
        assert_eq!(acquire.resources, ["a.rs", "git:index"]);
        assert_eq!(acquire.wait, Some(Duration::from_secs(600)));
        assert_eq!(acquire.slice, Some(Duration::from_secs(30)));
        assert_eq!(acquire.lease, Some(Duration::from_secs(3600)));
        assert!(acquire.shared && !acquire.update && !acquire.reentrant);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (line, words) in [
            ("lockkeeper acquire", "<RESOURCE>..."),
            ("lockkeeper acquire a --slice 3s", "--wait <TIME>"),
            ("lockkeeper acquire a --shared --update", "cannot be used with"),
            ("lockkeeper acquire a --shared --permits 2", "cannot be used with"),
            ("lockkeeper acquire a --priority 11", "-10..=10"),
            ("lockkeeper acquire a --lease 0", "over at once"),
            ("lockkeeper acquire a --permits 0", "at least 1 slot"),
            ("lockkeeper renew a --shorten", "--lease <TIME>"),
            ("lockkeeper wait soon", "a ticket is the number"),
            ("lockkeeper force-unlock a", "--reason <TEXT>"),
        ] {
            let error = verb(line).unwrap_err();
            assert!(error.contains(words), "{line}: no {words:?} in {error}");
        }
        assert!(verb("lockkeeper acquire a --priority -3").is_ok());
    }
}
