//! SEMAD's `locks.js`, where it concerns a library: contention with guidance, clean-up by agent,
//! leases that belong to a lock and not to a path.

use crate::support::{Bench, DEMO, active_rows, file, millis, secs};
use lockkeeper::{LockManager, SessionKind};

/// The message names the holder, and says what is held for what.
#[tokio::test]
async fn seed_4_4_a_second_story_is_refused_and_told_who_has_it() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("AH-011").await, bench.session("AH-012").await);
    let _guard = a.acquire(file("src/a.js")).reason("story AH-011").await.unwrap();
    let text = b.acquire(file("src/a.js")).no_wait().await.unwrap_err().to_string();
    assert!(text.contains("AH-011") && text.contains("file:src/a.js"), "{text}");
}

/// Two agents of one story exclude each other: theirs did not.
#[tokio::test]
async fn seed_4_4_one_name_is_not_one_owner() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("story").await, bench.session("story").await);
    let guard = a.acquire(file("x")).await.unwrap();
    b.acquire(file("x")).no_wait().await.unwrap_err();
    b.acquire(file("x")).reentrant().no_wait().await.unwrap_err();
    assert!(guard.is_valid());
}

#[tokio::test]
async fn seed_4_4_cleanup_of_a_story_counts() {
    let bench = Bench::file().await;
    let (a, other) = (bench.session("AH-011").await, bench.session("other").await);
    let mine = a.acquire_all([file("1"), file("2"), file("3")]).await.unwrap();
    let theirs = other.acquire(file("4")).await.unwrap();
    assert_eq!(bench.demo().await.release_all("AH-011").await.unwrap(), 3);
    assert!(!mine.all_valid() && theirs.is_valid());
}

/// Theirs: the timer of the first lock released the second one.
#[tokio::test(start_paused = true)]
async fn seed_4_4_a_lease_ends_its_own_lock_only() {
    let bench = Bench::file().await.still();
    let a = bench.session("a").await;
    a.acquire(file("x")).lease(millis(300)).await.unwrap().release().await.unwrap();
    bench.pass(millis(200)).await;
    let second = a.acquire(file("x")).lease(secs(30)).await.unwrap();
    bench.pass(millis(150)).await;
    assert!(second.is_valid());
    assert!(bench.demo().await.is_locked(file("x")).await.unwrap());
    bench.pass(secs(30)).await;
    assert!(!bench.demo().await.is_locked(file("x")).await.unwrap());
}

/// Theirs judged a lock's age by the caller's patience: anybody could steal it.
#[tokio::test(start_paused = true)]
async fn seed_4_4_nobody_steals_with_a_short_lease_of_his_own() {
    let bench = Bench::memory().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).lease(secs(60)).await.unwrap();
    bench.pass(millis(30)).await;
    b.acquire(file("x")).lease(millis(10)).no_wait().await.unwrap_err();
    assert!(guard.is_valid());
}

/// A lock that has to survive its process does; theirs was released as the process left.
#[tokio::test]
async fn seed_4_4_a_detached_lock_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let manager = LockManager::open(&path).await.unwrap();
    let session = manager.session(DEMO, "cli-session").detached().await.unwrap();
    let id = session.acquire(file("x")).lease(secs(30)).await.unwrap().leave();
    drop(session);
    manager.shutdown().await;
    assert!(!active_rows(&path, DEMO).is_empty());
    let manager = LockManager::open(&path).await.unwrap();
    let demo = manager.project(DEMO).await.unwrap();
    assert_eq!(demo.list().await.unwrap()[0].lock, id);
    assert_eq!(demo.sessions().await.unwrap()[0].kind, SessionKind::Detached);
    manager.shutdown().await;
}

/// A status is a question: it deletes nothing. Its numbers are those of a status of theirs.
#[tokio::test(start_paused = true)]
async fn seed_4_4_status_is_a_question() {
    let bench = Bench::file().await.still();
    let a = bench.session("a").await;
    let _guard = a.acquire(file("x")).lease(secs(30)).await.unwrap();
    bench.pass(secs(10)).await;
    let before = bench.history(DEMO).len();
    let status = serde_json::to_value(bench.list().await).unwrap();
    let fields = ["lock", "agent", "resource", "acquired_at", "expires_at"];
    assert!(fields.iter().all(|field| status[0].get(field).is_some()), "{status}");
    assert_eq!(bench.history(DEMO).len(), before);
}

/// A damaged store is named, once, and not for ever on every acquire.
#[tokio::test]
async fn seed_4_4_a_damaged_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    std::fs::write(&path, "{ \"lockId\": broken").unwrap();
    let told = LockManager::open(&path).await.unwrap_err().to_string();
    assert!(told.contains("locks.db") && told.contains("move it away"), "{told}");
    std::fs::remove_file(&path).unwrap();
    let manager = LockManager::open(&path).await.unwrap();
    let session = manager.session(DEMO, "a").await.unwrap();
    drop(session.acquire(file("x")).await.unwrap());
}
