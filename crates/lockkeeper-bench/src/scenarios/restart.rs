//! From starting on a store that is full to the first answer.

use crate::{
    args::Plan,
    peers::{
        Client, Granted, Key, Peer,
        daemon::Daemon,
        history::History,
        house::House,
        library::{Library, PROJECT},
    },
    rounds::{Entry, Race},
    sheet::{Bound, Sheet, Target, Unit},
    trouble::{Result, trouble},
};
use lockkeeper::Durability;
use std::{sync::Arc, time::Instant};

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let rows = super::growth::rows(plan);
    let holds = plan.size(10_000, 1_000);
    let in_time = Target { bound: Bound::AtMost(1000.0), columns: vec![] };
    let what = format!("{holds} holds, {rows} rows of history");
    let names = [format!("lockkeeper serve, {what}"), format!("LockManager, {what}")];
    // It takes a while to write, so it is not for nothing.
    if !names.iter().any(|name| plan.rounds.takes(name)) {
        return Ok(Vec::new());
    }
    let (new, full) = (house.history(0).await?, house.history(rows).await?);
    full.hold(holds).await?;
    let [served, embedded] = names;
    let entries = vec![
        daemon(Entry::ours("lockkeeper serve, a new store"), &new),
        daemon(Entry::ours(served), &full).reaching(0, in_time.clone()),
        library(Entry::ours(embedded), &full, holds).reaching(0, in_time),
    ];
    let race = Race {
        scenario: "restart",
        sheets: vec![("from starting to the first answer".to_owned(), Unit::Millis)],
        across: "",
        columns: vec!["ms".to_owned()],
        entries,
    };
    plan.rounds.run(race).await
}

/// From starting the process to a lock that is granted. It was killed before.
fn daemon(entry: Entry, history: &Arc<History>) -> Entry {
    let history = history.clone();
    entry.job(move || {
        let history = history.clone();
        async move {
            let begun = Instant::now();
            let daemon = Daemon::start_on(&history.path()).await?;
            let mut client = daemon.client(0).await?;
            if client.acquire(&Key::own(0)).await? != Granted::Yes {
                return trouble("it grants nothing");
            }
            let took = begun.elapsed();
            client.release().await?;
            client.close().await?;
            Ok(vec![took.as_secs_f64() * 1e3])
        }
    })
}

/// From opening to knowing what is held.
fn library(entry: Entry, history: &Arc<History>, holds: usize) -> Entry {
    let history = history.clone();
    entry.job(move || {
        let history = history.clone();
        async move {
            let begun = Instant::now();
            let library = Library::at(&history.path(), Durability::Process).await?;
            let stats = library.manager().project(PROJECT).await?.stats().await?;
            let took = begun.elapsed();
            library.shutdown().await;
            match stats.holds == holds {
                true => Ok(vec![took.as_secs_f64() * 1e3]),
                false => trouble(format!("{} of {holds} holds are there", stats.holds)),
            }
        }
    })
}
