//! The first page: what this is, the story of two terminals, the verbs by what they are for, and
//! what scripts rely on. Built here, because a list of verbs by the alphabet explains nothing.

use super::{Args, run};
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;

const ABOUT: &str = "\
The lock coordinator for fleets of software agents: who may use what, and in which order.";

const STORY: &str = "\
An agent is whoever works: a program, a script, you. It asks for a file, a database, the git
index, a GPU, a slot of a language model; it gets it alone, or together with other readers, or
stands in a queue, first come, first served. A lock has a lease, so nothing stays locked for ever
when somebody dies. When agents could only wait for each other, the request that would close the
ring is told so at once, instead of hanging.

Two terminals, one repository:

  one$ lockkeeper acquire src/main.rs --reason 'renaming the parser'
  file:src/main.rs is yours for 5 min

  two$ lockkeeper acquire src/main.rs
  file:src/main.rs is locked by ann@pts/1, taken 12 s ago for 'renaming the parser'; its lease
  ends in 4 min 48 s (19:39:01Z) unless renewed
  next: stand in the queue with --wait 10m, or work on something else meanwhile
  two$ lockkeeper acquire src/main.rs --wait 10m
  waiting for file:src/main.rs, locked by ann@pts/1 for 'renaming the parser'; number 1 of 1 in
  the queue, 9 min 58 s left

  one$ lockkeeper release src/main.rs
  file:src/main.rs is released

And in this moment it is yours in terminal two.";

/// The verbs, by what they are for.
const GROUPS: &[(&str, &[&str])] = &[
    ("Take, keep, give back", &["run", "acquire", "wait", "cancel", "renew", "release", "cleanup"]),
    ("Look (never changes anything)", &["check", "status", "queue", "why", "graph"]),
    ("What happened", &["watch", "audit", "stats"]),
    ("Tasks for one agent each", &["task"]),
    ("For whoever looks after it", &["force-unlock", "capacity"]),
    ("The daemon, which starts by itself", &["serve", "stop", "doctor", "migrate"]),
    ("This program", &["completions", "man", "simulate"]),
];

const AFTER: &str = "\
Resources:
  src/main.rs     a path: the same file however it is spelled, in every worktree of a repository
  type:key        anything else: git:index, gpu:0, database:orders, browser:main
  ./odd:name      a path with a colon

Times: 250ms, 30s, 5m, 1h30m, 2d, or plain seconds.

Environment:
  LOCKKEEPER_AGENT      whose locks, as --as; give each agent a name of its own
  LOCKKEEPER_PROJECT    the lock space, as --project
  LOCKKEEPER_STORE      the file that remembers, as --store
  LOCKKEEPER_SOCKET     the daemon's socket, as --socket
  LOCKKEEPER_IDLE_EXIT  after how long a daemon ends that nobody needs  [default: 10m]
  NO_COLOR              no colours

Exit codes:
   0  done                            75  not obtained: held, timed out, or still queued
   1  the simulation found a fault    76  lost while held, or not held any more
   2  wrong usage                     77  not permitted: it is somebody else's
  69  no daemon answers               78  something is set up wrongly
  74  the store cannot be used        79  refused because of a deadlock";

const EXAMPLES: &str = "\
Examples:
  lockkeeper run git:index -- git status   hold a lock while a command runs
  lockkeeper acquire src/main.rs           take one, to be given back with `release`
  lockkeeper status                        who has what, and how many wait
  lockkeeper acquire --help                each verb has a page of its own, with examples";

/// The whole definition, with the first page in place.
pub(crate) fn command() -> Command {
    let command = Args::command();
    let (verbs, options) = (verbs(&command), options(&command));
    command
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{STORY}"))
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} lockkeeper VERB [OPTIONS] ...\n\n{verbs}\
             Options of every verb:\n{options}{{after-help}}"
        ))
        .after_help(format!("{EXAMPLES}\n\nThe story, resources, exit codes: lockkeeper --help"))
        .after_long_help(format!("{AFTER}\n\n{EXAMPLES}"))
}

/// The list of verbs, each with what it says of itself in one line.
fn verbs(command: &Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        let shown = names.iter().filter_map(|name| command.find_subcommand(name));
        let shown: Vec<&Command> = shown.filter(|verb| !verb.is_hide_set()).collect();
        if shown.is_empty() {
            continue;
        }
        text.push_str(&format!("{title}:\n"));
        for verb in shown {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {:<14}{}\n", verb.get_name(), about.trim_end_matches('.')));
        }
        text.push('\n');
    }
    text
}

/// The flags of every verb. clap would set each of them on lines of its own.
fn options(command: &Command) -> String {
    let mut text = String::new();
    for flag in command.get_arguments() {
        let name = flag.get_long().unwrap_or_default();
        let value = flag.get_value_names().filter(|_| flag.get_action().takes_values());
        let value = value.and_then(|names| names.first()).map(|name| format!(" {name}"));
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let flag = format!("--{name}{}", value.unwrap_or_default());
        text.push_str(&format!("  {flag:<16}{help}\n"));
    }
    text.push_str("  -h, --help      What a verb does, with examples\n");
    text.push_str("  -V, --version   Which version this is");
    text
}

/// Reads a command line.
pub(crate) fn parse<I>(line: I) -> Result<Args, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
    if let Some(args) = run::parse_quickly(&line) {
        return Ok(args);
    }
    // The first page is put together only for whoever is going to read from it.
    let mut plain = Args::command();
    let line = run::with_separator(line, &plain);
    let matches = plain.try_get_matches_from_mut(&line);
    // It would be taken apart piece by piece, and the process ends soon.
    std::mem::forget(plain);
    if let Some(args) = matches.ok().and_then(|matches| Args::from_arg_matches(&matches).ok()) {
        return Ok(args);
    }
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Verb;

    #[test]
    fn each_verb_stands_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        grouped.sort_unstable();
        let command = command();
        let mut verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        verbs.sort_unstable();
        assert_eq!(grouped, verbs);
    }

    /// Only with both can somebody who was never told use a verb.
    #[test]
    fn each_verb_shows_examples_and_its_exit_codes() {
        fn check(command: &Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for words in ["Examples:\n  lockkeeper ", "Exit codes: 0 "] {
                assert!(help.contains(words), "{}: no {words:?}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        command().get_subcommands().for_each(check);
    }

    #[test]
    fn what_a_verb_says_of_itself_fits_a_line() {
        for verb in command().get_subcommands() {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let length = about.chars().count();
            assert!((10..=80).contains(&length), "{}: {about:?}", verb.get_name());
        }
    }

    #[test]
    fn every_flag_says_what_it_does() {
        fn check(command: &Command) {
            for arg in command.get_arguments() {
                let id = arg.get_id();
                assert!(arg.get_help().is_some(), "{} {id}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }

    #[test]
    fn a_verb_is_one_of_the_enum() {
        // A reminder of where a new verb goes: the enum, a group, and READY.
        assert!(matches!(parse(["lockkeeper", "stop"]).unwrap().verb, Verb::Stop(_)));
    }
}
