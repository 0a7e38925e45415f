//! The whole stack, actor, writer and SQLite, beside the table with its naive model: the same
//! commands at the same moments must get the same answers, and leave the same things behind.
//!
//! Time stands still and is moved by hand. The writer is a real thread all the same, so a task that
//! never rests keeps the clock from running ahead while the commits are waited for.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../crates/lockkeeper-core/tests/life/mod.rs"]
mod life;

use kameo::actor::ActorRef;
use life::{Known, Step, steps};
use lockkeeper::{
    Answer, AuditFilter, CallError, CallId, Config, List, LockActor, LockId, LockManager,
    LockTable, OpenSession, Record, Refusal, Reign, Reply, StatsNow, StoreError, Timestamp,
    store::{Batch, Claim, OpenOptions, PruneBefore, Reader, SqliteStore, Store},
};
use lockkeeper_sim::{Bench, Rules, Turn};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

type Outcome = Result<Answer, Refusal>;
type Pending = Pin<Box<dyn Future<Output = Outcome>>>;

/// The real thing and its twin.
struct Both {
    manager: LockManager,
    actor: ActorRef<LockActor>,
    /// Makes the next commit fail.
    broken: Arc<AtomicBool>,
    bench: Bench,
    /// What the agents of either side have learned.
    real: Known,
    twin: Known,
    /// The wall's time when the clock began, in milliseconds.
    wall: u64,
    began: Instant,
    /// Calls that wait, by the number of the step.
    pending: BTreeMap<usize, Pending>,
    calls: BTreeMap<CallId, usize>,
}

impl Both {
    async fn new(path: PathBuf) -> Both {
        let began = Instant::now();
        let broken = Arc::new(AtomicBool::new(false));
        let sqlite = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        let store = Flaky { sqlite, broken: broken.clone() };
        let manager = LockManager::over(Box::new(store), Config::default()).unwrap();
        let actor = manager.lock_actor("demo").await.unwrap();
        actor.ask(StatsNow {}).send().await.unwrap();
        let mut both = Both {
            manager,
            actor,
            broken,
            bench: Bench::new(Rules::default(), 1, true),
            real: Known::default(),
            twin: Known::default(),
            wall: 0,
            began,
            pending: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        // The real one's first turn resumes a table that has nothing; so does the twin's.
        both.set_clock().await;
        both.twin_resumes_first().await;
        both
    }

    /// Learns what the real clock showed, from the record of its first turn.
    async fn set_clock(&mut self) {
        let filter = AuditFilter { event_type: Some("resumed".into()), ..Default::default() };
        let rows = self.manager.audit(filter).await.unwrap();
        self.wall = rows[0].event_time.0 - millis(self.began.elapsed());
    }

    async fn twin_resumes_first(&mut self) {
        let now = self.now();
        let resume = lockkeeper::Resume { orphaned: true };
        self.bench.apply(now, &resume.into()).unwrap();
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.wall + millis(self.began.elapsed()))
    }

    /// One step of both, and everything it answered, compared.
    async fn step(&mut self, at: usize, step: Step) {
        let before = self.real.now;
        let command = self.real.command(step);
        let same = self.twin.command(step);
        tokio::time::advance(Duration::from_millis(self.real.now - before)).await;
        let now = self.now();
        let actor = self.actor.clone();
        let asked: Pending = Box::pin(async move {
            match actor.ask(command).send().await {
                Ok(answer) => Ok(answer),
                Err(kameo::error::SendError::HandlerError(CallError::Refused(refusal))) => {
                    Err(refusal)
                }
                Err(error) => panic!("no answer: {error:?}"),
            }
        });
        self.pending.insert(at, asked);
        // Sends it.
        let mut told = self.poll_all().await;
        // Everything before this question has been answered when it is.
        self.actor.ask(StatsNow {}).send().await.unwrap();
        told.extend(self.poll_all().await);

        let turn = self.bench.apply(now, &same).unwrap_or_else(|broken| panic!("{broken:?}"));
        self.calls.insert(turn.call, at);
        let twin_told = self.told_by(&turn);
        self.compare(&told, &twin_told);
    }

    async fn poll_all(&mut self) -> BTreeMap<usize, Outcome> {
        let mut told = BTreeMap::new();
        poll_fn(|context| {
            self.pending.retain(|at, pending| match pending.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    told.insert(*at, outcome);
                    false
                }
                Poll::Pending => true,
            });
            Poll::Ready(())
        })
        .await;
        told
    }

    fn told_by(&mut self, turn: &Turn) -> BTreeMap<usize, Outcome> {
        let step_of = |reply: &Reply| self.calls[&reply.call];
        turn.replies.iter().map(|reply| (step_of(reply), reply.outcome.clone())).collect()
    }

    fn compare(&mut self, real: &BTreeMap<usize, Outcome>, twin: &BTreeMap<usize, Outcome>) {
        let as_replies = |told: &BTreeMap<usize, Outcome>| -> Vec<Reply> {
            let reply = |(at, outcome): (&usize, &Outcome)| Reply {
                call: CallId(*at as u64),
                outcome: outcome.clone(),
            };
            told.iter().map(reply).collect()
        };
        self.real.learn(&as_replies(real));
        self.twin.learn(&as_replies(twin));
        let plain = |told: &BTreeMap<usize, Outcome>, locks: &[LockId]| -> Vec<String> {
            told.iter().map(|(at, one)| format!("{at}: {}", named(one, locks))).collect()
        };
        let real = plain(real, &self.real.locks);
        let twin = plain(twin, &self.twin.locks);
        assert_eq!(real, twin, "the real one answered otherwise");
    }

    /// What both show at rest, and what the audit log replays to (I15).
    async fn compare_views(&self) {
        let list = self.actor.ask(List {}).send().await.unwrap();
        let twin = named(&self.bench.table.list(), &self.twin.locks);
        assert_eq!(named(&list, &self.real.locks), twin);
        let stats = self.actor.ask(StatsNow {}).send().await.unwrap();
        assert_eq!(stats, self.bench.table.stats());
        let filter =
            AuditFilter { oldest_first: true, limit: Some(usize::MAX), ..Default::default() };
        let rows = self.manager.audit(filter).await.unwrap();
        let mut again = LockTable::new(Rules::default().table_config(), Reign::first(0));
        for row in rows {
            let fact = serde_json::from_value(row.details).unwrap();
            again.replay(&Record { at: row.event_time, fact });
        }
        assert_eq!(again.list(), list, "the audit log replays to other holds (I15)");
        assert_eq!(again.stats().tickets, stats.tickets, "… to other waits (I15)");
    }

    /// The disk fails at the next commit: the actor dies and comes back, and with it every session
    /// and every wait that was on record. Leases begin anew (I17).
    async fn restart(&mut self) {
        let now = self.now();
        self.broken.store(true, Ordering::SeqCst);
        let lost = self.actor.ask(OpenSession::default()).send().await;
        assert!(lost.is_err(), "answered although it was not written: {lost:?}");
        self.pending.clear();
        self.calls.clear();
        // It is asked in its next life.
        let mut tries = 0;
        while let Err(error) = self.actor.ask(StatsNow {}).send().await {
            tries += 1;
            assert!(tries < 10_000, "the actor does not come back: {error:?}");
        }
        self.bench.crash(now, false).unwrap_or_else(|broken| panic!("{broken:?}"));
    }
}

/// SQLite on a disk that fails when it is told to, once.
struct Flaky {
    sqlite: SqliteStore,
    broken: Arc<AtomicBool>,
}

impl Store for Flaky {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.sqlite.claim(project)
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.sqlite.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.sqlite.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        if self.broken.swap(false, Ordering::SeqCst) {
            return batches.iter().map(|_| Err(StoreError::Full { path: "disk".into() })).collect();
        }
        self.sqlite.commit(batches)
    }

    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        self.sqlite.prune(before, at_most)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.sqlite.reader()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

/// As JSON, with every lock named by the order in which it was learned: the ids differ.
fn named(what: &impl serde::Serialize, locks: &[LockId]) -> String {
    let mut text = serde_json::to_string(what).unwrap();
    for (at, lock) in locks.iter().enumerate() {
        text = text.replace(&lock.to_string(), &format!("#{at}"));
    }
    // What was granted to a call that died with its actor nobody has learned.
    let key = "\"lock\":\"";
    let parts: Vec<&str> = text.split(key).collect();
    let nameless = |part: &&str| match part.split_once('"') {
        Some((lock, rest)) if lock.parse::<LockId>().is_ok() => format!("#?\"{rest}"),
        _ => (*part).to_owned(),
    };
    parts.iter().map(nameless).collect::<Vec<String>>().join(key)
}

fn play(steps: &[Step], restart_every: usize) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let restless = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let mut both = Both::new(folder.path().join("locks.db")).await;
        for (at, step) in steps.iter().enumerate() {
            both.step(at, *step).await;
            if at % restart_every == restart_every - 1 {
                both.compare_views().await;
                both.restart().await;
                both.compare_views().await;
            }
        }
        both.compare_views().await;
        both.manager.shutdown().await;
        restless.abort();
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("LOCKKEEPER_CASES").map_or(24, |text| text.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// I15, I17, I20 through the whole stack.
    #[test]
    fn the_stack_agrees_with_the_model(steps in steps(160), restart_every in 20usize..200) {
        play(&steps, restart_every);
    }
}
