//! A store that cannot be written for a while.

use crate::support::*;
use lockkeeper::{
    LockManager, Record, StoreError,
    store::{Batch, Claim, OpenOptions, PruneBefore, Reader, SqliteStore, Store},
};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Fails that many commits.
struct Faulty {
    store: SqliteStore,
    fail: Arc<AtomicUsize>,
    /// Whether what is said to have failed is written all the same.
    writes: bool,
}

impl Store for Faulty {
    fn claim(&mut self, project: &str) -> Result<Claim, StoreError> {
        self.store.claim(project)
    }

    fn projects(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        self.store.projects()
    }

    fn load(&mut self, claim: &Claim) -> Result<Vec<Record>, StoreError> {
        self.store.load(claim)
    }

    fn commit(&mut self, batches: &[Batch<'_>]) -> Vec<Result<(), StoreError>> {
        let fewer = |left: usize| left.checked_sub(1);
        let fails = self.fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
        let written = (!fails || self.writes).then(|| self.store.commit(batches));
        match written {
            Some(written) if !fails => written,
            _ => batches.iter().map(|_| Err(StoreError::Full { path: "made-up".into() })).collect(),
        }
    }

    fn prune(&mut self, before: &PruneBefore, at_most: usize) -> Result<usize, StoreError> {
        self.store.prune(before, at_most)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}

async fn faulty(writes: bool) -> (Daemon, Arc<AtomicUsize>) {
    let place = Place::new();
    let fail = Arc::new(AtomicUsize::new(0));
    let store = SqliteStore::open(place.store(), OpenOptions::default()).unwrap();
    let store = Box::new(Faulty { store, fail: fail.clone(), writes });
    let manager = LockManager::over(store, place.config()).unwrap();
    let server = place.server();
    (Daemon::over(place, manager, server).await, fail)
}

#[tokio::test]
async fn a_session_whose_connection_went_during_an_outage_ends_after_it() {
    let (daemon, fail) = faulty(false).await;
    let (mut wire, mut watch) = (daemon.connect().await, daemon.connect().await);
    let (session, other) = (wire.open("a").await, watch.open("b").await);
    wire.take(session, "file:x").await.unwrap();
    let ask = json!({"project": "p", "session": other, "resource": "file:x", "request_id": "1"});
    let waits = watch.send("acquire", ask.clone()).await;
    watch.until(1, 1).await;
    fail.store(6, Ordering::SeqCst);
    drop(wire);
    let mut told = watch.answer(waits).await;
    while let Err(error) = told {
        assert_eq!(error["data"]["code"], "store", "{error}");
        told = watch.call("acquire", ask.clone()).await;
    }
    assert_eq!(fail.load(Ordering::SeqCst), 0, "the outage was real");
    watch.until_sessions(1).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_outage_is_told_as_one_and_what_is_held_stays() {
    let (daemon, fail) = faulty(false).await;
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let (session, its) = (wire.open("a").await, other.open("b").await);
    let held = wire.take(session, "file:x").await.unwrap();
    let waits = other.ask(its, "file:x").await;
    wire.until(1, 1).await;
    fail.store(1, Ordering::SeqCst);
    let told = wire.take(session, "file:y").await.unwrap_err();
    assert_eq!(told["code"], lockkeeper::wire::code::UNAVAILABLE, "{told}");
    assert_eq!(
        (&told["data"]["code"], &told["data"]["retryable"]),
        (&json!("store"), &json!(true))
    );
    // The one that waited goes on in its place, whoever keeps the table now.
    wire.until(1, 1).await;
    wire.release(session, &held).await.unwrap();
    other.answer(waits).await.unwrap();
    daemon.stop().await;
}

/// What was taken away by a turn that nobody could tell of is found out with the next event.
#[tokio::test]
async fn what_an_actor_could_not_tell_any_more_is_told() {
    let (daemon, fail) = faulty(true).await;
    let (mut wire, mut admin) = (daemon.connect().await, daemon.connect().await);
    let session = wire.open("a").await;
    let held = wire.take(session, "file:x").await.unwrap();
    fail.store(1, Ordering::SeqCst);
    let force = json!({"project": "p", "resource": "file:x", "admin": "root", "reason": "r"});
    admin.call("force_unlock", force).await.unwrap_err();
    let its = admin.open("b").await;
    admin.take(its, "file:x").await.unwrap();
    let note = wire.note().await;
    assert_eq!((&note["method"], &note["params"]["lock"]), (&json!("lost"), &held["lock"]));
    daemon.stop().await;
}
