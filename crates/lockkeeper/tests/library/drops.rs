//! Guards that are dropped, however many and wherever that happens, give their locks back.

use crate::support::{Bench, DEMO, both, file};
use lockkeeper::{Command, Config, LockGuard, LockManager, Resource, SessionId, Stats, Upgrade};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

const MANY: usize = 10_000;

/// Ten thousand guards of ten sessions.
async fn many(bench: &Bench) -> Vec<LockGuard> {
    let mut guards = Vec::with_capacity(MANY);
    for agent in 0..10 {
        let session = bench.session(&format!("agent-{agent}")).await;
        for _ in 0..MANY / 10_000 {
            let names = (0..MANY / 10).map(|n| file(&format!("{agent}/{n}")));
            guards.extend(session.acquire_all(names).await.unwrap());
        }
    }
    assert_eq!(guards.len(), MANY);
    assert_eq!(bench.stats().await.holds, MANY);
    guards
}

both!(
    threads: in_async_code,
    from_threads_without_a_runtime,
    in_panics,
    while_the_actor_is_busy,
    while_the_manager_shuts_down,
    after_the_manager_was_shut_down,
);

/// I13, I18.
async fn in_async_code(bench: Bench) {
    drop(many(&bench).await);
    bench.close_empty().await;
}

/// I13: from eight plain threads at once, while the runtime cannot run at all.
async fn from_threads_without_a_runtime(bench: Bench) {
    let mut guards = many(&bench).await;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let part = guards.split_off(guards.len() - MANY / 8);
            thread::spawn(move || drop(part))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(guards.is_empty());
    bench.close_empty().await;
}

/// I13: a hundred panics, half of them in threads, each takes a hundred guards along.
async fn in_panics(bench: Bench) {
    let mut guards = many(&bench).await;
    for round in 0..100 {
        let part = guards.split_off(guards.len() - MANY / 100);
        let fall = move || {
            let _held = part;
            resume_unwind(Box::new("as ordered"));
        };
        let fallen = match round % 2 {
            0 => catch_unwind(AssertUnwindSafe(fall)).is_err(),
            _ => thread::spawn(fall).join().is_err(),
        };
        assert!(fallen);
    }
    bench.close_empty().await;
}

/// I13: behind a mailbox that is full of other work.
async fn while_the_actor_is_busy(bench: Bench) {
    let guards = many(&bench).await;
    let actor = bench.actor().await;
    for at in 0..20_000 {
        actor.tell(Command::Tick).try_send().unwrap();
        if at == 10_000 {
            let other = SessionId::from_u64(7);
            let upgrade = Upgrade { session: other, lock: guards[0].id(), options: <_>::default() };
            actor.tell(Command::from(upgrade)).try_send().unwrap();
        }
    }
    drop(guards);
    bench.close_empty().await;
}

/// Guards that are dropped while a shutdown is under way.
async fn while_the_manager_shuts_down(bench: Bench) {
    let guards = many(&bench).await;
    let closing = tokio::spawn(bench.manager.clone().shutdown());
    let dropping = thread::spawn(move || drop(guards));
    let report = closing.await.unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    dropping.join().unwrap();
    bench.nothing_is_active().await;
}

/// Guards that outlive their manager are harmless, and know that they are over.
async fn after_the_manager_was_shut_down(bench: Bench) {
    let guards = many(&bench).await;
    let report = bench.manager.clone().shutdown().await;
    assert_eq!(report.released[DEMO].len(), MANY);
    assert_eq!(report.sessions, 10);
    assert!(guards.iter().all(|guard| !guard.is_valid()));
    bench.nothing_is_active().await;
    drop(guards);
}

/// I13: the runtime is gone before the guards are. What could not be told to the actor any more is
/// told by the next life of the store.
#[test]
fn after_the_runtime_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (manager, guard) = first.block_on(async {
        let manager = LockManager::open(&path).await.unwrap();
        let session = manager.session(DEMO, "agent").await.unwrap();
        (manager, session.acquire(file("x")).await.unwrap())
    });
    drop(first);
    drop(guard);
    drop(manager);
    runtime().block_on(async {
        // The writer's thread of the first one may still be closing the file.
        let mut opened = None;
        crate::support::until("the file is free", async || {
            opened = LockManager::open(&path).await.ok();
            opened.is_some()
        })
        .await;
        let manager = opened.unwrap();
        let demo = manager.project(DEMO).await.unwrap();
        assert_eq!(demo.stats().await.unwrap(), Stats::default());
        let session = manager.session(DEMO, "next").await.unwrap();
        session.acquire(file("x")).no_wait().await.unwrap().release().await.unwrap();
    });
}

/// I18: the last handle of everything is dropped without a shutdown; the store is closed in order.
#[tokio::test]
async fn the_last_handle_closes_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open_with(Config::at(&path)).await.unwrap();
    let session = manager.session(DEMO, "agent").await.unwrap();
    drop(manager);
    let guard = session.acquire(file("x")).await.unwrap();
    drop(session);
    assert!(guard.is_valid(), "a guard keeps its session and its manager");
    drop(guard);
    crate::support::until("the file is free", async || LockManager::open(&path).await.is_ok())
        .await;
    crate::support::until("the file is free again", async || {
        LockManager::open(&path).await.map(drop).is_ok()
    })
    .await;
}

/// A guard of a lock that was lost does nothing to whoever holds it now.
#[tokio::test]
async fn a_lost_guard_is_harmless() {
    let bench = Bench::memory().await;
    let lock: Resource = file("x");
    let lost = bench.session("a").await.acquire(lock.clone()).await.unwrap();
    bench.demo().await.force_unlock(lock.clone(), "admin", "stuck").await.unwrap();
    let next = bench.session("b").await.acquire(lock.clone()).no_wait().await.unwrap();
    drop(lost);
    assert_eq!(bench.demo().await.get_owner(lock).await.unwrap().as_deref(), Some("b"));
    assert!(next.is_valid());
}
