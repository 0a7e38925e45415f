//! Locks in memory, in one process.

use super::{
    heads, times,
    work::{HandOver, Uncontended, Work, fresh},
};
use crate::{
    args::Plan,
    peers::{
        floor::Floor,
        library::Library,
        mutexes::{Lockable, Mutexes, OneMutex},
    },
    rounds::{Entry, Race},
    sheet::{Sheet, Unit},
    trouble::Result,
};
use lockkeeper::Durability;
use std::time::Duration;

const SCENARIO: &str = "in-process";

/// Locks that are held for a while change hands so seldom that a shorter look sees little.
const SEEN: Duration = Duration::from_millis(300);

/// Those who hand over.
const CROWDS: [usize; 2] = [2, 16];

pub(crate) async fn run(plan: &Plan) -> Result<Vec<Sheet>> {
    let mut sheets = plan.rounds.run(uncontended(plan)).await?;
    sheets.extend(plan.rounds.run(hand_over(plan)).await?);
    Ok(sheets)
}

/// The rows that both races have.
fn ours(columns: &[usize], work: impl Work) -> Vec<Entry> {
    let durable = |durability| move || Library::durable(durability);
    let process = Entry::ours("LockManager, durable: Process");
    let power = Entry::ours("LockManager, durable: Power");
    vec![
        fresh(
            Entry::ours("LockManager, in memory"),
            columns,
            || async { Ok(Library::in_memory()) },
            work,
        ),
        fresh(process, columns, durable(Durability::Process), work),
        fresh(power, columns, durable(Durability::Power), work),
    ]
}

fn maps(columns: &[usize], work: impl Work) -> Vec<Entry> {
    let mutexes = Entry::new("DashMap of tokio mutexes");
    vec![
        fresh(mutexes, columns, || async { Ok(Mutexes::default()) }, work),
        fresh(Entry::new("lockable"), columns, || async { Ok(Lockable::default()) }, work),
    ]
}

fn uncontended(plan: &Plan) -> Race {
    let (columns, work) = (&plan.clients, Uncontended { window: plan.window });
    let floor = Entry::new("floor: empty actor, ask + tell");
    let floor = fresh(floor, columns, || async { Ok(Floor::start()) }, work);
    let mut entries = ours(columns, work);
    entries.push(floor.reaching(0, times(0.6, columns, 0)));
    entries.extend(maps(columns, work));
    Race {
        scenario: SCENARIO,
        sheets: vec![("uncontended, each client its own lock".to_owned(), Unit::PairsPerSecond)],
        across: "clients",
        columns: heads(columns),
        entries,
    }
}

fn hand_over(plan: &Plan) -> Race {
    let work = HandOver { window: plan.window.max(SEEN) };
    let mutex = Entry::new("one tokio mutex");
    let mutex = fresh(mutex, &CROWDS, || async { Ok(OneMutex::default()) }, work);
    let mut entries = ours(&CROWDS, work);
    // At most twice as long as there.
    entries.push(mutex.reaching(0, times(0.5, &CROWDS, 0)));
    entries.extend(maps(&CROWDS, work));
    Race {
        scenario: SCENARIO,
        sheets: vec![
            ("hand-over: from a release to the next one inside, median".to_owned(), Unit::Micros),
            ("hand-over, 99 of 100 are quicker".to_owned(), Unit::Micros),
        ],
        across: "clients",
        columns: heads(&CROWDS),
        entries,
    }
}
