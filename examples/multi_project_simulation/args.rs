//! What may be said on the command line: a loop by hand, because five flags need no library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const USAGE: &str = "\
usage: multi_project_simulation [--seed N] [--projects N] [--agents N] [--seconds N] [--plain]

  --seed N      what the agents intend is drawn from it (default: from the clock, and printed)
  --projects N  how many lock spaces, 1 to 32 (default 4)
  --agents N    how many agents in each, 1 to 1000 (default 24)
  --seconds N   for how long, 1 to 3600 (default 8)
  --plain       a line each second instead of a live picture, also on a terminal";

/// A run, as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args {
    pub(crate) seed: u64,
    pub(crate) projects: usize,
    pub(crate) agents: usize,
    pub(crate) time: Duration,
    pub(crate) plain: bool,
}

/// What to do: run, or only tell how.
#[derive(Debug)]
pub(crate) enum Asked {
    Run(Args),
    Help,
}

pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Asked, String> {
    let mut args = Args {
        seed: seed_from_the_clock(),
        projects: 4,
        agents: 24,
        time: Duration::from_secs(8),
        plain: false,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        // `--seed 7` and `--seed=7` are the same.
        let (flag, glued) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let mut number = |least: u64, most: u64| {
            let value = glued.clone().or_else(|| words.next());
            let value = value.ok_or_else(|| format!("{flag} needs a number"))?;
            match value.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(format!("{flag} takes a number from {least} to {most}, not {value:?}")),
            }
        };
        match flag.as_str() {
            "--seed" => args.seed = number(0, u64::MAX)?,
            "--projects" => args.projects = number(1, 32)? as usize,
            "--agents" => args.agents = number(1, 1000)? as usize,
            "--seconds" => args.time = Duration::from_secs(number(1, 3600)?),
            "--plain" if glued.is_none() => args.plain = true,
            "--help" | "-h" => return Ok(Asked::Help),
            _ => return Err(format!("what is {flag:?}?")),
        }
    }
    Ok(Asked::Run(args))
}

/// Short enough to be read out and typed again.
fn seed_from_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 100_000
}
