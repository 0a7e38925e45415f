//! The verb `run`, and how its line is read: as ours, and as one of `flock`.

use super::{Args, Global, Verb, locks::PERMITS, span, text};
use clap::{Arg, Args as _, Command, FromArgMatches};
use std::{ffi::OsString, time::Duration};

/// Hold locks while a command runs.
///
/// Waits until all of the resources are yours, runs the command, gives them back when it ends, and
/// ends with its exit code. The leases are renewed for as long as it runs. Its input, output,
/// arguments and signals are its own; LOCKKEEPER_TOKEN, LOCKKEEPER_LOCK_ID, LOCKKEEPER_RESOURCE
/// and LOCKKEEPER_EXPIRES_AT tell it what it holds, one line for each resource.
///
/// Should a lock be lost all the same, the command and all it has started are asked to end, and
/// killed before anybody else can have the lock. If `lockkeeper run` itself dies, so do they, and
/// the lock is free.
///
/// In place of `flock`: a single resource needs no `--` before the command, the letters mean what
/// they mean there, and a lock file outside of the repository is one lock wherever it is named
/// from. The file itself is neither made nor opened.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true, verbatim_doc_comment)]
#[command(override_usage = "lockkeeper run [OPTIONS] RESOURCE... -- COMMAND...\n       \
    lockkeeper run [OPTIONS] RESOURCE COMMAND...\n       \
    lockkeeper run [OPTIONS] RESOURCE -c 'SHELL COMMAND'")]
#[command(after_help = "\
Examples:
  lockkeeper run db:schema -- ls -l
  lockkeeper run git:index src/main.rs -- ls       both or neither, once they are free
  lockkeeper run -n gpu:0 -- ls                    now or never
  lockkeeper run -s -w 30 docs/plan.md -- ls       together with other readers, within 30 s
  lockkeeper run -n -E 9 /tmp/backup.lock ls       as with flock
  lockkeeper run /tmp/backup.lock -c ls          a line for the shell, in one word

Exit codes: 0 or whatever the command ends with, 128 and the number of the signal that killed it,
127 it was not found, 126 it cannot be run, 75 not obtained (or what -E says), 76 lost while it
ran, 79 refused because of a deadlock, 69 no daemon, 74 store trouble, 2 wrong usage.")]
pub(crate) struct Run {
    /// Paths, or type:key
    #[arg(required = true, value_name = "RESOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) resources: Vec<String>,

    /// What to run, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    #[arg(value_hint = clap::ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,

    /// Together with other readers, not alone
    #[arg(long, short, overrides_with = "exclusive", conflicts_with = "permits")]
    pub(crate) shared: bool,

    /// Alone: the default
    #[arg(long, short = 'x', short_alias = 'e', overrides_with = "shared")]
    pub(crate) exclusive: bool,

    /// So many slots of a resource that has a capacity
    #[arg(long, value_name = "N", value_parser = PERMITS.parser())]
    pub(crate) permits: Option<u64>,

    /// Now or never
    #[arg(long = "nonblock", short = 'n', aliases = ["nb", "no-wait"])]
    pub(crate) no_wait: bool,

    /// How long to queue for it  [default: until it is yours]
    #[arg(long, short, alias = "timeout", value_name = "TIME", value_parser = span::wait)]
    pub(crate) wait: Option<Duration>,

    /// The exit code if it is not obtained  [default: 75]
    #[arg(long = "conflict-exit-code", short = 'E', value_name = "CODE")]
    pub(crate) conflict: Option<u8>,

    /// How long it stays locked should nobody renew it  [default: 5m]
    #[arg(long, short, value_name = "TIME", value_parser = span::lease)]
    pub(crate) lease: Option<Duration>,

    /// Time for the command to end by itself when a lock is lost  [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = span::wait)]
    pub(crate) grace: Option<Duration>,

    /// Why: whoever has to wait for you will read it  [default: the command's name]
    #[arg(long, short, value_name = "TEXT", value_parser = text)]
    pub(crate) reason: Option<String>,

    /// What it weighs in a deadlock, -10 to 10: the lowest gives way
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i8).range(-10..=10))]
    pub(crate) priority: Option<i8>,

    /// As with flock, where it keeps the lock from being inherited: here it never is
    #[arg(long, short = 'o', hide = true)]
    pub(crate) close: bool,

    /// As with flock, where it saves a process: here somebody must stay to renew the lease
    #[arg(long, short = 'F', hide = true)]
    pub(crate) no_fork: bool,
}

/// Reads a line of `run` without the other verbs, whose flags and pages take longer to put together
/// than all of this. Everything but a line that is right is left to the full definition.
pub(super) fn parse_quickly(line: &[OsString]) -> Option<Args> {
    line.get(1).filter(|verb| *verb == "run")?;
    let run = Run::augment_args(Command::new("run"));
    let program = Global::augment_args(Command::new("lockkeeper")).args_override_self(true);
    let program = program.subcommand(run);
    let line = with_separator(line.to_vec(), &program);
    let matches = program.try_get_matches_from(line).ok()?;
    let global = Global::from_arg_matches(&matches).ok()?;
    let run = Run::from_arg_matches(matches.subcommand_matches("run")?).ok()?;
    Some(Args { global, verb: Verb::Run(run) })
}

/// Puts the `--` in that a line of `flock` does without: `run -n x.lock make -j2`.
///
/// Only where there is none at all. The command is what follows the first resource and the options
/// around it; `-c` there is flock's way to hand a line to the shell.
pub(super) fn with_separator(line: Vec<OsString>, program: &Command) -> Vec<OsString> {
    match separator(&line, program) {
        Some(at) => {
            let mut line = line;
            line.insert(at, "--".into());
            line
        }
        None => line,
    }
}

fn separator(line: &[OsString], program: &Command) -> Option<usize> {
    let run = program.find_subcommand("run")?;
    let flags: Vec<&Arg> = program.get_arguments().chain(run.get_arguments()).collect();
    let verb = next_word(line, 1, &flags)?;
    if line[verb] != "run" || line.iter().any(|word| word == "--") {
        return None;
    }
    let resource = next_word(line, verb + 1, &flags)?;
    let is_shell = |word: &OsString| word == "-c" || word == "--command";
    let after = resource + 1;
    match line.get(after) {
        Some(word) if is_shell(word) => Some(after),
        _ => next_word(line, after, &flags),
    }
}

/// Where the next word stands that is neither an option nor an option's value.
fn next_word(line: &[OsString], from: usize, flags: &[&Arg]) -> Option<usize> {
    let mut at = from;
    while at < line.len() {
        // What is not UTF-8 is no option of ours.
        match line[at].to_str() {
            Some(word) if word.len() > 1 && word.starts_with('-') => {
                at += 1 + usize::from(wants_next(word, flags));
            }
            _ => return Some(at),
        }
    }
    None
}

/// Whether the value of an option is the next word.
fn wants_next(word: &str, flags: &[&Arg]) -> bool {
    let takes = |flag: Option<&&Arg>| flag.is_some_and(|flag| flag.get_action().takes_values());
    if let Some(name) = word.strip_prefix("--") {
        let is_it = |flag: &&&Arg| {
            flag.get_long() == Some(name)
                || flag.get_all_aliases().is_some_and(|names| names.contains(&name))
        };
        return takes(flags.iter().find(is_it));
    }
    let mut letters = word[1..].chars();
    let takes_value = |letter: char| {
        let is_it = |flag: &&&Arg| {
            flag.get_short() == Some(letter)
                || flag.get_all_short_aliases().is_some_and(|all| all.contains(&letter))
        };
        takes(flags.iter().find(is_it))
    };
    // Of `-nw5` and `-nw 5`, only the second has it in the next word.
    letters.any(takes_value) && letters.as_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::help;

    fn parse(line: &[&str]) -> Result<(Args, Run), String> {
        let args = help::parse(line).map_err(|error| error.to_string())?;
        match &args.verb {
            Verb::Run(run) => {
                let run = run.clone();
                Ok((args, run))
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn run(line: &str) -> (Vec<String>, Vec<OsString>, Run) {
        let words: Vec<&str> = line.split(' ').collect();
        let (_, run) = parse(&words).unwrap();
        (run.resources.clone(), run.command.clone(), run)
    }

    #[test]
    fn the_command_is_what_follows_two_dashes() {
        let (resources, command, run) = run("lockkeeper run a.rs gpu:0 -s -w 5m -- make -n -- x");
        assert_eq!((resources, command), (words("a.rs gpu:0"), os("make -n -- x")));
        assert!(run.shared && !run.no_wait);
        assert_eq!(run.wait, Some(Duration::from_secs(300)));
    }

    #[test]
    fn lines_of_flock_are_read_as_flock_reads_them() {
        for (line, resource, command) in [
            ("run x.lock make", "x.lock", "make"),
            ("run -n x.lock make -n --wait", "x.lock", "make -n --wait"),
            ("run -xn x.lock make", "x.lock", "make"),
            ("run -w 5 x.lock make", "x.lock", "make"),
            ("run -w5 -E 9 x.lock make", "x.lock", "make"),
            ("run -nw 5 x.lock make -s", "x.lock", "make -s"),
            ("run --timeout 5 --conflict-exit-code=3 x.lock make", "x.lock", "make"),
            ("run --nb -e -o -F x.lock make", "x.lock", "make"),
            ("run x.lock -w 5 make -n", "x.lock", "make -n"),
            ("run x.lock -c make", "x.lock", "-c make"),
            ("--as ann run -n x.lock make", "x.lock", "make"),
        ] {
            let (resources, found, _) = run(&format!("lockkeeper {line}"));
            assert_eq!((resources, found), (words(resource), os(command)), "{line}");
        }
    }

    #[test]
    fn without_a_command_there_is_nothing_to_run() {
        for line in ["lockkeeper run x.lock", "lockkeeper run", "lockkeeper run 9 -n"] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(parse(&words).unwrap_err().contains("Usage: lockkeeper run"), "{line}");
        }
    }

    #[test]
    fn the_last_of_two_that_exclude_each_other_counts() {
        assert!(!run("lockkeeper run -s -x a -- b").2.shared);
        assert!(run("lockkeeper run -x -s a -- b").2.shared);
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn os(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }
}
