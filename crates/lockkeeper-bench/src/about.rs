//! What figures are of: the machine, the versions, the day. Without that they are only numbers.

use crate::{args::Plan, place};
use serde::Serialize;
use std::{fs, process::Command, thread, time::SystemTime};

/// Where and with what figures were taken.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct About {
    /// The day, in UTC.
    pub(crate) day: String,
    pub(crate) machine: String,
    /// Ours first.
    pub(crate) versions: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Whether it was only to see that everything works.
    pub(crate) short: bool,
}

/// Who says its version, and how it is asked.
const PEERS: [(&str, &str); 4] = [
    ("redis-server", "--version"),
    ("postgres", "--version"),
    ("mariadbd", "--version"),
    ("etcd", "--version"),
];

impl About {
    pub(crate) fn now(plan: &Plan) -> About {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut versions = vec![format!("lockkeeper {}", env!("CARGO_PKG_VERSION"))];
        versions.extend(PEERS.into_iter().filter_map(|(name, ask)| version(name, ask)));
        About {
            day: day(since.as_secs() / 86_400),
            machine: machine(),
            versions,
            rounds: plan.rounds.count,
            seconds: plan.window.as_secs_f64(),
            short: plan.short,
        }
    }

    /// One paragraph.
    pub(crate) fn text(&self) -> String {
        let About { day, machine, rounds, seconds, .. } = self;
        let short = if self.short { " Only to see that everything works." } else { "" };
        format!(
            "Taken on {day} on {machine}, with {}; {rounds} rounds of {seconds} s.{short}",
            self.versions.join(", ")
        )
    }
}

fn version(name: &str, ask: &str) -> Option<String> {
    let said = Command::new(place::program(name)?).arg(ask).output().ok()?.stdout;
    Some(format!("{name} {}", number(&String::from_utf8_lossy(&said))?))
}

/// The first thing that looks like a version.
fn number(said: &str) -> Option<&str> {
    let words = said.split(|c: char| c.is_whitespace() || c == '=');
    let mut words = words.map(|word| word.split(['-', ',']).next().unwrap_or_default());
    words.find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("unknown processors", |line| line.trim_start_matches([':', '\t', ' ']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, Linux {}", kernel.trim().split('-').next().unwrap_or_default())
}

/// The day of this number since 1970, by the calendar.
fn day(number: u64) -> String {
    // Years begin in March here, so that the leap day is their last.
    let days = number + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(11_017), "2000-03-01");
        assert_eq!(day(20_453), "2025-12-31");
        assert_eq!(day(20_454), "2026-01-01");
    }

    #[test]
    fn versions_are_found_in_what_is_said() {
        assert_eq!(number("Redis server v=7.0.15 sha=00000000:0 bits=64"), Some("7.0.15"));
        assert_eq!(number("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some("15.18"));
        assert_eq!(number("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for"), Some("10.11.19"));
        assert_eq!(number("etcd Version: 3.4.23\nGit SHA: Not provided"), Some("3.4.23"));
        assert_eq!(number("no version"), None);
    }

    #[test]
    fn it_is_one_paragraph() {
        let about = About {
            day: "2026-01-02".to_owned(),
            machine: "2 × a processor, Linux 6.1".to_owned(),
            versions: vec!["lockkeeper 0.1.0".to_owned(), "etcd 3.4.23".to_owned()],
            rounds: 9,
            seconds: 0.6,
            short: false,
        };
        let text = "Taken on 2026-01-02 on 2 × a processor, Linux 6.1, with lockkeeper 0.1.0, \
            etcd 3.4.23; 9 rounds of 0.6 s.";
        assert_eq!(about.text(), text);
    }
}
