//! demiarch: typed keys, guards, renewal, several locks at once, sessions.

use crate::support::{Bench, DEMO, Room, file, millis, poll_once, secs, yields};
use lockkeeper::{
    AuditFilter, LockManager, Resource, ResourceKey, ResourceType,
    store::{OpenOptions, SqliteStore},
};
use std::{future::IntoFuture, pin::pin};

#[tokio::test]
async fn seed_1_5_acquire_status_release_status() {
    let bench = Bench::file().await;
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let words = ["file", "database", "llm", "feature", "workspace", "project", "session", "config"];
    for word in words {
        let resource = Resource::new(ResourceType::from(word), "main");
        assert!(!demo.is_locked(resource.clone()).await.unwrap());
        let guard = a.acquire(resource.clone()).await.unwrap();
        assert_eq!(guard.to_string(), format!("Lock[{word}:main]"));
        assert_eq!(demo.get_owner(resource.clone()).await.unwrap().as_deref(), Some("a"));
        guard.release().await.unwrap();
        assert!(!demo.is_locked(resource).await.unwrap());
    }
}

/// The seeds' spelling: a key with its project, an agent by its name.
#[tokio::test]
async fn seed_1_5_typed_keys() {
    let manager = LockManager::in_memory(lockkeeper::Config::in_memory());
    let key = |word: &str| ResourceKey {
        project_id: DEMO.to_owned(),
        resource_type: ResourceType::from(word),
        resource_key: "main".to_owned(),
    };
    let guard = manager.acquire("coder", key("file")).await.unwrap();
    assert_eq!(guard.resource().as_str(), "file:main");
    let other = manager.acquire("tester", key("database")).await.unwrap();
    let busy = manager.try_acquire("tester", key("file")).await.unwrap_err();
    assert_eq!(&*busy.holder().unwrap().agent, "coder");
    // One name is one agent.
    manager.try_acquire("coder", key("database")).await.unwrap_err();
    let again = manager.try_acquire("coder", key("file")).await.unwrap_err();
    assert_eq!(again.code(), "already_held");
    drop((guard, other));
    drop(manager.try_acquire("tester", key("file")).await.unwrap());
}

/// Theirs was uncounted: the first drop freed it for all.
#[tokio::test]
async fn seed_1_5_reentrant_guards_are_counted() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let first = a.acquire(file("x")).await.unwrap();
    let second = a.acquire(file("x")).reentrant().await.unwrap();
    assert_eq!(first.id(), second.id());
    drop(first);
    assert!(second.is_valid());
    b.acquire(file("x")).no_wait().await.unwrap_err();
    drop(second);
    drop(b.acquire(file("x")).no_wait().await.unwrap());
}

/// Theirs turned invalid at the old end.
#[tokio::test(start_paused = true)]
async fn seed_1_5_renewed_guard_stays_valid() {
    let bench = Bench::file().await.still();
    let guard = bench.session("a").await.acquire(file("x")).lease(secs(10)).await.unwrap();
    let before = guard.expires_at();
    bench.pass(secs(6)).await;
    let until = guard.renew(secs(10)).await.unwrap();
    assert_eq!(until.0, before.0 + 6_000);
    bench.pass(secs(6)).await;
    assert!(guard.is_valid());
    let event_type = Some("lock_renewed".to_owned());
    let filter = AuditFilter { event_type, ..AuditFilter::default() };
    assert_eq!(bench.demo().await.audit(filter).await.unwrap().len(), 1, "counted");
}

#[tokio::test]
async fn seed_1_5_list_shows_all() {
    let bench = Bench::memory().await;
    let a = bench.session("a").await;
    let _one = a.acquire(file("1")).await.unwrap();
    let _two = a.acquire(Resource::database("2")).await.unwrap();
    assert_eq!(bench.list().await.len(), 2);
}

/// Theirs sorted by type only, so two files in opposite order were a deadlock.
#[tokio::test]
async fn seed_1_5_several_locks_all_or_nothing() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let taken = a.acquire(file("2")).await.unwrap();
    let busy = b.acquire_all([file("1"), file("2"), file("3")]).no_wait().await.unwrap_err();
    assert_eq!(busy.obstacles().len(), 1);
    assert_eq!(bench.list().await.len(), 1);
    drop(taken);
    let guards = b.acquire_all([file("3"), file("1"), file("2"), file("1")]).await.unwrap();
    assert_eq!((guards.len(), guards.is_empty(), guards.all_valid()), (3, false, true));
    assert_eq!(guards.to_string(), "MultiLock[file:1, file:2, file:3]");
    guards.release().await.unwrap();
    assert_eq!(bench.list().await, []);
}

#[tokio::test]
async fn seed_1_5_release_all_at_session_end_returns_the_count() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    let guards = a.acquire_all([file("1"), file("2")]).await.unwrap();
    let closed = a.close().await.unwrap();
    assert_eq!((closed.released, closed.left), (2, 0));
    assert!(!guards.all_valid());
}

/// Theirs had to be done within two seconds; here it is one turn, whatever its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_1_5_session_end_of_many_locks_is_one_commit() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    for part in 0..5 {
        let names = (0..1_000).map(|n| file(&format!("{part}/{n}")));
        a.acquire_all(names).await.unwrap().into_vec().into_iter().for_each(|guard| {
            guard.leave();
        });
    }
    assert_eq!(a.close().await.unwrap().released, 5_000);
    let event_type = Some("lock_released".to_owned());
    let filter = AuditFilter { event_type, limit: Some(10_000), ..AuditFilter::default() };
    let rows = bench.demo().await.audit(filter).await.unwrap();
    assert_eq!(rows.len(), 5_000);
    assert!(rows.windows(2).all(|pair| pair[0].event_time == pair[1].event_time), "one turn");
    bench.close_empty().await;
}

#[tokio::test]
async fn seed_1_5_touches_of_one_session_succeed_one_after_the_other() {
    let bench = Bench::memory().await;
    let room = Room::new(Resource::new("session".into(), "s"), None);
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (session, room) = (bench.session(&format!("{n}")).await, room.clone());
        tasks.push(tokio::spawn(async move {
            let guard = session.acquire(room.resource.clone()).await.unwrap();
            let visit = room.enter(&guard);
            yields(5).await;
            drop((visit, guard));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    room.check();
    assert_eq!(room.visits(), 8);
}

#[tokio::test(start_paused = true)]
async fn seed_1_5_error_codes_e300_to_e307() {
    let bench = Bench::file().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let mut waiting = pin!(b.acquire(file("x")).wait(secs(1)).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(secs(2)).await;
    let timeout = waiting.await.unwrap_err();
    assert_eq!((timeout.legacy_code(), timeout.retryable()), ("E300", true));
    let contention = b.acquire(file("x")).no_wait().await.unwrap_err();
    assert_eq!(contention.legacy_code(), "E301");
    let demo = bench.demo().await;
    assert_eq!(demo.force_unlock(file("no"), "x", "y").await.unwrap_err().legacy_code(), "E302");
    b.clone().close().await.unwrap();
    assert_eq!(b.acquire(file("x")).await.unwrap_err().legacy_code(), "E303");
    let c = bench.session("c").await;
    let other = c.acquire(file("y")).await.unwrap();
    let mut waiting = pin!(a.acquire(file("y")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    assert_eq!(c.acquire(file("x")).await.unwrap_err().legacy_code(), "E304");
    assert_eq!(a.acquire(file("x")).await.unwrap_err().legacy_code(), "E305");
    let io = LockManager::open(bench.path()).await.unwrap_err();
    assert_eq!(io.legacy_code(), "E306");
    let junk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(junk.path(), b"this is not a database, not at all, it is text").unwrap();
    let corrupt = LockManager::open(junk.path()).await.unwrap_err();
    assert_eq!(corrupt.legacy_code(), "E307", "{corrupt}");
    drop((guard, other));
}

#[tokio::test(start_paused = true)]
async fn seed_1_5_default_wait_and_lease_are_300_seconds() {
    let bench = Bench::memory().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).keep_alive().await.unwrap();
    let holder = &bench.list().await[0];
    assert_eq!(holder.expires_at.0 - holder.acquired_at.0, 300_000);
    let mut waiting = pin!(b.acquire(file("x")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    for _ in 0..299 {
        bench.pass(secs(1)).await;
    }
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.pass(millis(1_001)).await;
    assert_eq!(waiting.await.unwrap_err().code(), "timed_out");
    assert!(guard.is_valid());
}

/// `released_at` is set on both paths: nothing is active afterwards.
#[tokio::test]
async fn seed_1_5_released_on_both_paths() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    a.acquire(file("x")).await.unwrap().release().await.unwrap();
    drop(a.acquire(file("x")).await.unwrap());
    bench.settle().await;
    let event_type = Some("lock_released".to_owned());
    let filter = AuditFilter { event_type, ..AuditFilter::default() };
    assert_eq!(bench.demo().await.audit(filter).await.unwrap().len(), 2);
    drop(a);
    bench.close_empty().await;
}

/// Only one active row per key: a second owner of the file is not even let in.
#[tokio::test]
async fn seed_1_5_one_active_row_per_key() {
    let bench = Bench::file().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    b.acquire(file("x")).no_wait().await.unwrap_err();
    let live = bench.replayed(DEMO).list();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].lock, guard.id());
    assert!(SqliteStore::open(bench.path(), OpenOptions::default()).is_err());
}

/// Theirs: eight of eight inside at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_1_5_eight_tasks_of_one_process_at_most_one_inside() {
    let bench = Bench::memory().await;
    let room = Room::new(file("x"), None);
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (session, room) = (bench.session(&format!("{n}")).await, room.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                let guard = session.acquire(room.resource.clone()).await.unwrap();
                let visit = room.enter(&guard);
                yields(1).await;
                drop((visit, guard));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    room.check();
    assert_eq!(room.visits(), 400);
}

/// Theirs: 44 of 300 leaked for ever.
#[tokio::test]
async fn seed_1_5_three_hundred_drops_at_once_leak_nothing() {
    let bench = Bench::file().await;
    let a = bench.session("a").await;
    let guards = a.acquire_all((0..300).map(|n| file(&format!("{n}")))).await.unwrap();
    drop(guards);
    assert_eq!(bench.list().await, []);
    drop(a);
    bench.close_empty().await;
}

/// Theirs: a guard taken through a clone was never released.
#[tokio::test]
async fn seed_1_5_a_clone_of_the_manager_is_the_manager() {
    let bench = Bench::memory().await;
    let clone = bench.manager.clone();
    let guard = clone.session(DEMO, "a").await.unwrap().acquire(file("x")).await.unwrap();
    assert!(bench.demo().await.is_locked(file("x")).await.unwrap());
    drop((clone, guard));
    assert!(!bench.demo().await.is_locked(file("x")).await.unwrap());
}

/// Theirs: the second release, by key, could free a successor's lock.
#[tokio::test]
async fn seed_1_5_a_late_release_does_not_free_a_successor() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let stale = a.acquire(file("x")).await.unwrap();
    bench.demo().await.force_unlock(file("x"), "admin", "test").await.unwrap();
    let successor = b.acquire(file("x")).await.unwrap();
    stale.release().await.unwrap_err();
    assert!(successor.is_valid());
    a.acquire(file("x")).no_wait().await.unwrap_err();
}

/// Theirs: `try` waited for thirty seconds.
#[tokio::test]
async fn seed_1_5_try_does_not_wait() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let _guard = a.acquire(file("x")).await.unwrap();
    assert_eq!(b.try_acquire(file("x")).await.unwrap_err().code(), "busy");
}
