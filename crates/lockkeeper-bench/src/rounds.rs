//! Takes the figures: round after round, each time all cells of all rows, shuffled, so that
//! whatever else the machine does disturbs all of them alike.

use crate::{
    sheet::{Figure, Row, Sheet, Target, Unit},
    trouble::{Result, Trouble},
};
use rand::seq::SliceRandom;
use std::{
    io::{IsTerminal, Write},
    pin::Pin,
    time::Duration,
};

/// What runs once for each round, and gives a figure for each sheet; what is no number is no
/// figure.
pub(crate) type Job =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<f64>>> + Send>> + Send>;

/// A row of a race: a job for each column.
pub(crate) struct Entry {
    name: String,
    ours: bool,
    missing: Option<String>,
    jobs: Vec<Job>,
    targets: Vec<(usize, Target)>,
}

impl Entry {
    /// Somebody else.
    pub(crate) fn new(name: impl Into<String>) -> Entry {
        let (jobs, targets) = (Vec::new(), Vec::new());
        Entry { name: name.into(), ours: false, missing: None, jobs, targets }
    }

    /// Lockkeeper.
    pub(crate) fn ours(name: impl Into<String>) -> Entry {
        Entry { ours: true, ..Entry::new(name) }
    }

    /// It is not there.
    pub(crate) fn absent(self, why: impl Into<String>) -> Entry {
        Entry { missing: Some(why.into()), ..self }
    }

    /// What it does in the next column.
    pub(crate) fn job<F>(mut self, job: impl Fn() -> F + Send + 'static) -> Entry
    where
        F: Future<Output = Result<Vec<f64>>> + Send + 'static,
    {
        self.jobs.push(Box::new(move || Box::pin(job())));
        self
    }

    /// What is to be reached beside it on a sheet.
    pub(crate) fn reaching(mut self, sheet: usize, target: Target) -> Entry {
        self.targets.push((sheet, target));
        self
    }
}

/// A race: what its sheets show, and who takes part.
pub(crate) struct Race {
    pub(crate) scenario: &'static str,
    pub(crate) sheets: Vec<(String, Unit)>,
    pub(crate) across: &'static str,
    pub(crate) columns: Vec<String>,
    pub(crate) entries: Vec<Entry>,
}

/// How rounds are run.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    /// How many.
    pub(crate) count: usize,
    /// Only rows in whose name one of these occurs, and what they are compared with; all if there
    /// are none.
    pub(crate) only: Vec<String>,
}

/// Longer than any job takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(300);

impl Rounds {
    /// Whether a row of this name is asked for.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Runs a race, if anybody of it is asked for. Its first row is the one that the others are
    /// compared with.
    pub(crate) async fn run(&self, race: Race) -> Result<Vec<Sheet>> {
        let Race { scenario, sheets, across, columns, entries } = race;
        if !entries.iter().any(|entry| self.takes(&entry.name)) {
            return Ok(Vec::new());
        }
        let entries: Vec<Entry> = entries
            .into_iter()
            .enumerate()
            .filter_map(|(at, entry)| (at == 0 || self.takes(&entry.name)).then_some(entry))
            .collect();
        let rows = |sheet: usize| {
            let row = |entry: &Entry| Row {
                name: entry.name.clone(),
                ours: entry.ours,
                missing: entry.missing.clone(),
                cells: vec![Vec::new(); columns.len()],
                target: entry.targets.iter().find(|(at, _)| *at == sheet).map(|(_, t)| t.clone()),
            };
            entries.iter().map(row).collect()
        };
        let sheet = |(at, (title, unit)): (usize, (String, Unit))| Sheet {
            scenario: scenario.to_owned(),
            title,
            unit,
            across: across.to_owned(),
            columns: columns.clone(),
            rows: rows(at),
            base: 0,
        };
        let mut sheets: Vec<Sheet> = sheets.into_iter().enumerate().map(sheet).collect();
        let all = entries.iter().enumerate().flat_map(|(row, entry)| {
            let jobs = entry.jobs.iter().enumerate();
            jobs.map(move |(column, job)| (row, column, job))
        });
        let mut jobs: Vec<(usize, usize, &Job)> = all.collect();
        for round in 0..self.count {
            jobs.shuffle(&mut rand::rng());
            for (nth, &(row, column, job)) in jobs.iter().enumerate() {
                let name = &entries[row].name;
                progress(&format!(
                    "{scenario}: round {} of {}, {} of {}: {name}",
                    round + 1,
                    self.count,
                    nth + 1,
                    jobs.len()
                ));
                let what = || format!("{scenario}, {name}, {}", columns[column]);
                let done = tokio::time::timeout(PATIENCE, job()).await;
                let done = done.unwrap_or_else(|_| Err(Trouble("it is stuck".to_owned())));
                let figures = done.map_err(|why| Trouble(format!("{}: {why}", what())))?;
                for (sheet, figure) in sheets.iter_mut().zip(figures) {
                    // What did not happen in this round has no figure.
                    if !figure.is_finite() {
                        continue;
                    }
                    sheet.rows[row].cells[column].push(Figure { round, figure });
                }
            }
        }
        progress("");
        Ok(sheets)
    }
}

/// One line that is written over, for whoever sits before it.
fn progress(line: &str) {
    let mut to = std::io::stderr().lock();
    if to.is_terminal() {
        let _ = write!(to, "\r\x1b[K{line}");
        let _ = to.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::Bound;
    use std::sync::{Arc, Mutex};

    fn race(entries: Vec<Entry>) -> Race {
        Race {
            scenario: "socket",
            sheets: vec![("one".into(), Unit::PairsPerSecond), ("two".into(), Unit::Micros)],
            across: "clients",
            columns: vec!["1".into(), "16".into()],
            entries,
        }
    }

    #[tokio::test]
    async fn each_cell_is_measured_once_a_round() {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let entry = |name: &'static str, entry: Entry| {
            (0..2).fold(entry, |entry, column| {
                let ran = ran.clone();
                entry.job(move || {
                    ran.lock().unwrap().push((name, column));
                    async move { Ok(vec![f64::from(column), 7.0]) }
                })
            })
        };
        let target = Target { bound: Bound::Ratio(1.0), columns: vec![] };
        let theirs = entry("theirs", Entry::new("theirs")).reaching(1, target.clone());
        let entries = vec![
            entry("ours", Entry::ours("ours")),
            theirs,
            entry("others", Entry::new("others")),
            Entry::new("theirs too").absent("not installed"),
        ];
        let rounds = Rounds { count: 3, only: vec!["theirs".to_owned()] };
        let sheets = rounds.run(race(entries)).await.unwrap();
        let ran = ran.lock().unwrap();
        assert_eq!(ran.len(), 3 * 2 * 2, "{ran:?}");
        for round in ran.chunks(4) {
            let mut cells = round.to_vec();
            cells.sort();
            assert_eq!(cells, [("ours", 0), ("ours", 1), ("theirs", 0), ("theirs", 1)]);
        }
        let names: Vec<&str> = sheets[0].rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["ours", "theirs", "theirs too"]);
        assert_eq!(sheets[0].rows[1].cells[1].len(), 3);
        assert_eq!(sheets[1].rows[0].cells[1][2], Figure { round: 2, figure: 7.0 });
        assert_eq!((&sheets[0].rows[1].target, &sheets[1].rows[1].target), (&None, &Some(target)));
    }

    #[tokio::test]
    async fn a_race_that_nobody_asked_for_is_not_run() {
        let entry = Entry::ours("ours").job(|| async { panic!("nobody asked for it") });
        let rounds = Rounds { count: 1, only: vec!["theirs".to_owned()] };
        assert_eq!(rounds.run(race(vec![entry])).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_did_not_happen_has_no_figure() {
        let entry = Entry::ours("ours").job(|| async { Ok(vec![f64::NAN, 1.0]) });
        let sheets = Rounds { count: 2, only: vec![] }.run(race(vec![entry])).await.unwrap();
        let count = |sheet: &Sheet| sheet.rows[0].cells[0].len();
        assert_eq!((count(&sheets[0]), count(&sheets[1])), (0, 2));
    }

    #[tokio::test]
    async fn a_job_that_fails_ends_the_run_and_says_which_it_was() {
        let entries = vec![
            Entry::ours("ours")
                .job(|| async { Ok(vec![1.0, 2.0]) })
                .job(|| async { crate::trouble::trouble("two were inside") }),
        ];
        let failed = Rounds { count: 1, only: vec![] }.run(race(entries)).await.unwrap_err();
        assert_eq!(failed.to_string(), "socket, ours, 16: two were inside");
    }
}
