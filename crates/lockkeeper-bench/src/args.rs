//! The command line.

use crate::rounds::Rounds;
use clap::{Parser, ValueEnum};
use std::{path::PathBuf, time::Duration};

const ABOUT: &str = "\
Races Lockkeeper against what people use today: the same work, in the same run, interleaved.";

const STORY: &str = "\
Each scenario measures all of its rows in every round, in an order drawn anew each time, so that
whatever else the machine does disturbs all of them alike. What is shown are medians with the
quarters beside them, and how many times better ours is (the median of the ratios of the rounds).

Redis, PostgreSQL, MariaDB and etcd are started by themselves on this machine, in folders that go
away, on ports that are free, if they are installed; otherwise their rows say that they are not.
Every client is a bare one: the peer's own protocol over one connection, by hand.
Wherever clients want one lock it is counted who is inside, and two at once end the run.";

const AFTER: &str = "\
Examples:
  lockkeeper-bench socket
  lockkeeper-bench socket --clients 16,64 --only everysec
  lockkeeper-bench all --json figures.json --markdown figures.md --svg figures.svg
  lockkeeper-bench all --short

Nothing else should be busy: figures of a busy machine are lower, its ratios less so.
What is measured beside this program is `lockkeeper` in the same folder; under `cargo run` it is
built first.

Environment:
  LOCKKEEPER_BENCH_DIR     where everything is written while it is measured
                           [default: the folder of the system for temporary files]
  LOCKKEEPER_BENCH_DAEMON  the program `lockkeeper` that is measured

Exit codes: 0 measured, whether or not what was to be reached is; 1 something could not be measured,
or a lock let two in; 2 wrong usage.";

/// What to measure, and how long.
#[derive(Parser, Clone, Debug)]
#[command(name = "lockkeeper-bench", about = ABOUT, long_about = format!("{ABOUT}\n\n{STORY}"))]
#[command(after_help = AFTER, after_long_help = AFTER, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, required = true)]
    pub(crate) scenario: Vec<Scenario>,

    /// How often each figure is taken  [default: 9, or 2 if short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,

    /// How long a figure is taken each time  [default: 0.6, or 0.1 if short]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,

    /// So many clients at once, up to 190, in scenarios that ask for it  [default: 1,16,64]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=190))]
    pub(crate) clients: Vec<u16>,

    /// Only rows in whose names one of these words occurs, and the first row of ours
    #[arg(long, value_name = "WORD,WORD,...", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Few, short rounds and small sizes: to see that everything works, not how fast
    #[arg(long)]
    pub(crate) short: bool,

    /// Write all figures of all rounds here
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,

    /// Write the tables here, as they stand in docs/benchmarks.md
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) markdown: Option<PathBuf>,

    /// Draw the figures here
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) svg: Option<PathBuf>,
}

/// What can be measured.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scenario {
    /// Locks in memory: beside an empty actor and maps of mutexes
    InProcess,
    /// Locks on record, as a library: beside the rows written by plain rusqlite
    Durable,
    /// Own locks by a socket: beside Redis, PostgreSQL, MariaDB and etcd
    Socket,
    /// One lock that all want: how long from hand to hand, and who gets it
    HandOver,
    /// From the request that closes a ring to the word of a deadlock
    Deadlock,
    /// Waiters, agents, projects, history: whether it slows down; memory
    Growth,
    /// From starting on a full store to the first answer
    Restart,
    /// A command under a lock: beside flock and redis-cli
    Command,
    /// Several locks in one request
    Batch,
    /// All of them
    All,
}

impl Scenario {
    /// Each of them, in the order of the list.
    pub(crate) const EACH: [Scenario; 9] = [
        Scenario::InProcess,
        Scenario::Durable,
        Scenario::Socket,
        Scenario::HandOver,
        Scenario::Deadlock,
        Scenario::Growth,
        Scenario::Restart,
        Scenario::Command,
        Scenario::Batch,
    ];

    /// Whether it needs the program `lockkeeper`.
    pub(crate) fn needs_program(self) -> bool {
        !matches!(self, Scenario::InProcess | Scenario::Durable)
    }
}

/// What a scenario goes by.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: Rounds,
    pub(crate) window: Duration,
    pub(crate) clients: Vec<usize>,
    pub(crate) short: bool,
}

impl Plan {
    /// One of two sizes.
    pub(crate) fn size<T>(&self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }
}

impl Args {
    /// The scenarios, each once, and in the order of the list.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let all = self.scenario.contains(&Scenario::All);
        Scenario::EACH.into_iter().filter(|each| all || self.scenario.contains(each)).collect()
    }

    pub(crate) fn plan(&self) -> Plan {
        let of = |full, short| if self.short { short } else { full };
        let count = self.rounds.unwrap_or(of(9, 2));
        let window = self.seconds.unwrap_or(Duration::from_millis(of(600, 100).into()));
        let mut clients: Vec<usize> = self.clients.iter().map(|&count| count.into()).collect();
        if clients.is_empty() {
            clients = if self.short { vec![1, 16] } else { vec![1, 16, 64] };
        }
        let rounds = Rounds { count: count.into(), only: self.only.clone() };
        Plan { rounds, window, clients, short: self.short }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "so many seconds, such as 0.5".to_owned())?;
    match seconds {
        0.01..=600.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("from 0.01 to 600 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn scenarios_run_in_their_order_and_once() {
        let args = parse("lockkeeper-bench deadlock in-process deadlock").unwrap();
        assert_eq!(args.scenarios(), [Scenario::InProcess, Scenario::Deadlock]);
        let args = parse("lockkeeper-bench socket all").unwrap();
        assert_eq!(args.scenarios(), Scenario::EACH);
        // Whoever adds one must add it to the list as well.
        assert_eq!(Scenario::value_variants().len(), Scenario::EACH.len() + 1);
    }

    #[test]
    fn what_is_not_said_is_sane() {
        let plan = parse("lockkeeper-bench all").unwrap().plan();
        assert_eq!((plan.rounds.count, plan.window.as_millis()), (9, 600));
        assert_eq!((&plan.clients[..], plan.short), (&[1, 16, 64][..], false));
        let plan = parse("lockkeeper-bench all --short --rounds 5").unwrap().plan();
        assert_eq!((plan.rounds.count, plan.window.as_millis()), (5, 100));
        let line = "lockkeeper-bench socket --clients 2,8 --only redis,pg --seconds 0.25";
        let plan = parse(line).unwrap().plan();
        assert_eq!((&plan.clients[..], plan.window.as_millis()), (&[2, 8][..], 250));
        assert!(plan.rounds.takes("redis, in memory") && !plan.rounds.takes("etcd"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "chair",
            "all --rounds 0",
            "all --clients 0",
            "all --clients 1,,2",
            "all --clients 191",
        ] {
            assert!(parse(&format!("lockkeeper-bench {line}")).is_err(), "{line:?}");
        }
        for seconds in ["0", "-1", "nan", "1e9", "soon"] {
            assert!(parse(&format!("lockkeeper-bench all --seconds={seconds}")).is_err());
        }
    }

    #[test]
    fn every_line_of_the_document_and_the_help_is_understood() {
        const START: &str = "cargo run --release -p lockkeeper-bench -- ";
        let document = include_str!("../../../docs/benchmarks.md");
        let lines = document.lines().filter_map(|line| line.strip_prefix(START));
        let mut said: Vec<Scenario> = Vec::new();
        for line in lines {
            let args = parse(&format!("lockkeeper-bench {line}"));
            said.extend(args.unwrap_or_else(|error| panic!("{line}: {error}")).scenario);
        }
        for each in Scenario::value_variants() {
            assert!(said.contains(each), "{each:?} is not shown");
            let name = each.to_possible_value().map(|value| format!("`{}`", value.get_name()));
            let is_told = name.is_some_and(|name| document.contains(&name));
            assert!(is_told || *each == Scenario::All, "{each:?} is not explained");
        }
        let examples = AFTER.lines().filter_map(|line| line.strip_prefix("  lockkeeper-bench "));
        assert_eq!(examples.filter(|line| parse(&format!("x {line}")).is_ok()).count(), 4);
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        for line in Args::command().render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 100, "too long: {line}");
        }
    }
}
