//! Who should lose in a deadlock is for the orchestrator to say: it knows who is waited for by a
//! person, and what it would cost to do the work again. Run it with
//! `cargo run --example custom_victim_policy`.
#![allow(clippy::print_stdout, reason = "telling the story is what an example is for")]

use lockkeeper::{
    AcquireError, Candidate, Config, DeadlockReport, LockManager, Resource, VictimPolicy,
};
use std::{cmp::Ordering, collections::HashMap, error::Error, sync::Arc, time::Duration};

/// Batch work gives way to people. Among equals, whoever has burnt less money loses: that is the
/// cheapest work to do again.
#[derive(Debug)]
struct CheapestToRedo {
    /// What each agent's model calls have cost so far, in cents. A real one shares its counters
    /// with whoever pays the bills; the order is asked for only when there is a deadlock.
    spent: HashMap<&'static str, u64>,
}

impl CheapestToRedo {
    fn rank(&self, one: &Candidate) -> (bool, u64) {
        let is_interactive = !one.agent.contains("batch");
        (is_interactive, self.spent.get(&*one.agent).copied().unwrap_or(0))
    }
}

impl VictimPolicy for CheapestToRedo {
    fn name(&self) -> &str {
        "cheapest_to_redo"
    }

    /// The lowest loses. Ties need no care: they are broken by session, always in the same way.
    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        self.rank(a).cmp(&self.rank(b))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let spent = HashMap::from([("batch-reindex", 410), ("batch-lint", 30), ("pair-anna", 5)]);
    let by_default = LockManager::in_memory(Config::in_memory());
    let mut config = Config::in_memory();
    config.table.victim_policy = Arc::new(CheapestToRedo { spent });
    let by_ours = LockManager::in_memory(config);

    println!("batch against a person, who came later:");
    let report = duel(&by_default, "batch-reindex", "pair-anna").await?;
    tell(&report, "both would lose the same work, and she is the youngest");
    let report = duel(&by_ours, "batch-reindex", "pair-anna").await?;
    tell(&report, "batch work gives way to people");

    println!("\nbatch against batch:");
    let report = duel(&by_default, "batch-reindex", "batch-lint").await?;
    tell(&report, "the youngest");
    let report = duel(&by_ours, "batch-lint", "batch-reindex").await?;
    tell(&report, "30 cents are gone rather than 410, whoever came first");

    by_default.shutdown().await;
    by_ours.shutdown().await;
    Ok(())
}

/// A takes the index and B the schema; then A wants the schema and B the index. One of them is
/// told that it lost, with the report; the other one gets what it wants in the same moment.
async fn duel(
    manager: &LockManager,
    first: &str,
    second: &str,
) -> Result<Arc<DeadlockReport>, Box<dyn Error>> {
    let (index, schema) = (Resource::database("index"), Resource::file("schema.sql"));
    let a = manager.session("demo", first).await?;
    let b = manager.session("demo", second).await?;
    let a_has = a.acquire(index.clone()).await?;
    let b_has = b.acquire(schema.clone()).await?;

    let a_wants = tokio::spawn({
        let (a, schema) = (a.clone(), schema.clone());
        async move { a.acquire(schema).await }
    });
    let demo = manager.project("demo").await?;
    while demo.queue(schema.clone()).await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (a_wants, b_wants) = tokio::join!(a_wants, async { b.acquire(index).await });
    drop((a_has, b_has));
    match (a_wants?, b_wants) {
        (Ok(_), Err(AcquireError::Deadlock(report)))
        | (Err(AcquireError::Deadlock(report)), Ok(_)) => Ok(report),
        other => Err(format!("expected one winner and one victim, got {other:?}").into()),
    }
}

fn tell(report: &DeadlockReport, why: &str) {
    let loser = report.victim().map_or("nobody", |victim| &*victim.rank.agent);
    println!("  {:<17} {loser:<14} loses: {why}", report.policy);
}
