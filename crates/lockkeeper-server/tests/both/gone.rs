//! Daemons that are gone for good.

use crate::support::{Bench, DEMO, file, millis, poll_once, secs, yields};
use lockkeeper::{AcquireError, LockManager, Lost, Unavailable, remote::Connect};
use std::{future::IntoFuture, pin::pin};

/// I14: a guard is lost at its own deadline, not later and not before.
#[tokio::test(start_paused = true)]
async fn a_guard_ends_at_its_own_deadline() {
    let mut bench = Bench::memory().await.still();
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(100)).await.unwrap();
    let kept = a.acquire(file("y")).lease(secs(10)).keep_alive().await.unwrap();
    let mut lost = pin!(guard.lost());
    bench.place.kill().await;
    tokio::time::advance(secs(10) - millis(1)).await;
    yields(20).await;
    assert!(guard.is_valid() && kept.is_valid());
    tokio::time::advance(millis(1)).await;
    assert!(guard.is_valid() && !kept.is_valid(), "renewing did not help");
    assert_eq!(kept.lost().await, Lost::Expired);
    tokio::time::advance(secs(90) - millis(1)).await;
    yields(20).await;
    assert!(guard.is_valid() && poll_once(lost.as_mut()).await.is_none());
    tokio::time::advance(millis(1)).await;
    assert!(!guard.is_valid());
    assert_eq!(lost.await, Lost::Expired);
}

/// Whoever asks waits for a while, and is then told; whoever asks later is told at once.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_it_without_end() {
    let mut bench = Bench::memory().await.still();
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).await.unwrap();
    let mut waiting = pin!(a.acquire(file("y")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.place.kill().await;
    let gives_up = Connect::to(std::path::PathBuf::new()).give_up_after;
    // In small steps: what is tried takes turns between them.
    for _ in 0..(gives_up.as_millis() / 500) - 1 {
        tokio::time::advance(millis(500)).await;
        yields(20).await;
        assert!(poll_once(waiting.as_mut()).await.is_none(), "given up early");
    }
    for _ in 0..4 {
        tokio::time::advance(millis(500)).await;
        yields(20).await;
    }
    let unreachable = |error: &AcquireError| {
        matches!(error, AcquireError::Unavailable(Unavailable::Unreachable(_)))
    };
    assert!(unreachable(&waiting.await.unwrap_err()));
    assert!(unreachable(&a.acquire(file("y")).await.unwrap_err()));
    assert!(guard.is_valid());
    assert!(bench.manager.session(DEMO, "b").await.is_err());
    drop(guard);
}

/// Its actors are not here, and that is said.
#[tokio::test]
async fn there_is_no_actor_here() {
    let bench = Bench::memory().await;
    let manager: &LockManager = &bench.manager;
    assert!(matches!(manager.lock_actor(DEMO).await, Err(Unavailable::Elsewhere)));
    assert!(matches!(bench.demo().await.actor(), Err(Unavailable::Elsewhere)));
}

/// A lock of a session that lives by its leases outlives its client, and its guards hear of it when
/// it is taken away.
#[tokio::test]
async fn a_detached_session_outlives_its_manager() {
    let bench = Bench::memory().await;
    let far = LockManager::connect(bench.place.socket()).await.unwrap();
    let a = far.session(DEMO, "a").detached().await.unwrap();
    let left = a.acquire(file("x")).await.unwrap();
    let taken = a.acquire(file("y")).await.unwrap();
    let demo = bench.demo().await;
    demo.force_unlock(file("y"), "admin", "a test").await.unwrap();
    assert_eq!(taken.lost().await, Lost::Revoked);
    let lock = left.leave();
    drop((taken, a));
    far.shutdown().await;
    assert_eq!(demo.get_lock_info(file("x")).await.unwrap().unwrap().lock, lock);
}
