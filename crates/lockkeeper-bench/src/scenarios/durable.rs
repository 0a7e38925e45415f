//! Locks on record, as a library: beside the same rows written by hand.

use super::{heads, times};
use crate::{
    args::Plan,
    load,
    peers::{by_hand::ByHand, library::Library, writer::Bare},
    rounds::{Entry, Race},
    sheet::{Sheet, Target, Unit},
    trouble::Result,
};
use lockkeeper::Durability;

pub(crate) async fn run(plan: &Plan) -> Result<Vec<Sheet>> {
    let mut sheets = Vec::new();
    for durability in [Durability::Process, Durability::Power] {
        sheets.extend(plan.rounds.run(race(plan, durability)).await?);
    }
    Ok(sheets)
}

fn race(plan: &Plan, durability: Durability) -> Race {
    let window = plan.window;
    let mut ours = Entry::ours(format!("LockManager, {durability:?}"));
    let mut bare = Entry::ours("its table and writer alone");
    let mut one_by_one = Entry::new("rusqlite, a transaction for each");
    let mut batched = Entry::new("rusqlite, batched: the limit");
    for &clients in &plan.clients {
        ours = ours.job(move || async move {
            let library = Library::durable(durability).await?;
            let rate = load::uncontended(&library, clients, window).await?;
            library.shutdown().await;
            Ok(vec![rate])
        });
        bare = bare.job(move || async move {
            let rate = move || Bare::new(durability, clients)?.rate(window);
            Ok(vec![tokio::task::spawn_blocking(rate).await??])
        });
        one_by_one = one_by_one.job(move || by_hand(durability, clients, 1, window));
        batched = batched.job(move || by_hand(durability, clients, clients, window));
    }
    if durability == Durability::Power {
        one_by_one = one_by_one.reaching(0, with_many(8.0, plan));
    }
    let entries = vec![ours, bare, one_by_one, batched.reaching(0, with_many(0.6, plan))];
    Race {
        scenario: "durable",
        sheets: vec![(
            format!("{durability:?}: grant and release each on record before it is answered"),
            Unit::PairsPerSecond,
        )],
        across: "clients",
        columns: heads(&plan.clients),
        entries,
    }
}

/// What is to be reached where 64 or more wait for one commit.
fn with_many(least: f64, plan: &Plan) -> Target {
    times(least, &plan.clients, 64)
}

async fn by_hand(
    durability: Durability,
    clients: usize,
    batch: usize,
    window: std::time::Duration,
) -> Result<Vec<f64>> {
    let rate = move || ByHand::new(durability, clients, batch)?.rate(window);
    Ok(vec![tokio::task::spawn_blocking(rate).await??])
}
