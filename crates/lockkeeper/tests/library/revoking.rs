//! Locks that are taken away: at once, or after a grace in which their guard may clean up.

use crate::support::{Bench, DEMO, file, millis, poll_once, secs};
use lockkeeper::{
    AcquireError, Config, LockGuard, LockManager, Lost, RenewError, Session, Timestamp,
};
use std::{future::IntoFuture, pin::pin};

async fn with_grace(on_file: bool) -> Bench {
    let mut config = Config::default();
    config.table.grace = secs(10);
    match on_file {
        true => Bench::file_with(config).await,
        false => Bench::memory_with(config).await,
    }
    .still()
}

struct Struck {
    sessions: (Session, Session),
    kept: LockGuard,
    struck: LockGuard,
    waiting: lockkeeper::RequestFuture<'static, LockGuard, AcquireError>,
}

/// One holds 1 and waits for 2; the other holds 2, asks for 1 and is the victim.
async fn strike(bench: &Bench) -> Struck {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let kept = a.acquire(file("1")).await.unwrap();
    let struck = b.acquire(file("2")).await.unwrap();
    let mut waiting = a.acquire(file("2")).into_future();
    assert!(poll_once(pin!(&mut waiting)).await.is_none());
    bench.settle().await;
    let told = b.acquire(file("1")).await.unwrap_err();
    assert!(matches!(told, AcquireError::Deadlock(_)), "{told}");
    Struck { sessions: (a, b), kept, struck, waiting }
}

/// When the guard is to be taken away, if it has been told.
async fn told(guard: &LockGuard) -> Timestamp {
    let mut revoking = pin!(guard.revoking());
    poll_once(revoking.as_mut()).await.expect("it is told that it is revoked")
}

/// I3: the guard learns when it ends, renews in vain, cleans up, and lets the other one in early.
#[tokio::test(start_paused = true)]
async fn a_guard_cleans_up_and_releases_early() {
    for on_file in [false, true] {
        let bench = with_grace(on_file).await;
        let Struck { sessions, kept, struck, mut waiting } = strike(&bench).await;
        bench.settle().await;
        let until = told(&struck).await;
        assert_eq!(until, bench.list().await[1].revoked_at.unwrap());
        assert!(struck.is_valid(), "it may still clean up");
        assert!(kept.is_valid());
        match struck.renew(secs(100)).await.unwrap_err() {
            RenewError::Revoking { until: told, .. } => assert_eq!(told, until),
            other => panic!("{other}"),
        }
        bench.pass(secs(5)).await;
        assert!(struck.is_valid());
        assert!(poll_once(pin!(&mut waiting)).await.is_none(), "I1");
        struck.release().await.unwrap();
        let got = waiting.await.unwrap();
        assert!(got.is_valid());
        drop((kept, got, sessions));
        bench.close_empty().await;
    }
}

/// I3, I14: the grace ends, and with it the hold, whatever the guard does.
#[tokio::test(start_paused = true)]
async fn a_guard_that_does_not_listen() {
    for on_file in [false, true] {
        let bench = with_grace(on_file).await;
        let Struck { sessions, kept, struck, mut waiting } = strike(&bench).await;
        bench.pass(millis(9_998)).await;
        assert!(struck.is_valid());
        assert!(poll_once(pin!(&mut waiting)).await.is_none());
        bench.pass(millis(4)).await;
        assert!(!struck.is_valid(), "valid past its grace");
        assert!(waiting.await.unwrap().is_valid());
        assert_eq!(struck.lost().await, Lost::Revoked);
        drop((kept, struck, sessions));
        bench.close_empty().await;
    }
}

/// A revocation that is under way survives the manager: keep_alive does not prolong it either.
#[tokio::test(start_paused = true)]
async fn a_hold_that_renews_itself_is_revoked_all_the_same() {
    let bench = with_grace(true).await;
    let Struck { sessions, kept, struck, waiting } = strike(&bench).await;
    struck.keep_alive();
    for _ in 0..9 {
        bench.pass(secs(1)).await;
        assert!(struck.is_valid());
    }
    bench.pass(millis(1_002)).await;
    assert!(!struck.is_valid());
    assert!(waiting.await.unwrap().is_valid());
    drop((kept, struck, sessions));
    bench.close_empty().await;
}

/// Without a grace the lock is gone at once, and whoever waits for the news gets it.
#[tokio::test(start_paused = true)]
async fn without_grace() {
    let bench = Bench::file().await.still();
    let Struck { sessions, kept, struck, waiting } = strike(&bench).await;
    assert_eq!(struck.lost().await, Lost::Revoked);
    // Does not hang: there is nothing to clean up any more.
    told(&struck).await;
    let watch = struck.watch();
    assert!(poll_once(pin!(watch.revoking())).await.is_some());
    assert!(waiting.await.unwrap().is_valid());
    drop((kept, struck, sessions));
    bench.close_empty().await;
}

/// The watch sees what the guard sees.
#[tokio::test(start_paused = true)]
async fn a_watch_hears_of_the_grace() {
    let bench = with_grace(false).await;
    let Struck { sessions, kept, struck, waiting } = strike(&bench).await;
    bench.settle().await;
    let watch = struck.watch();
    let until = told(&struck).await;
    assert_eq!(poll_once(pin!(watch.revoking())).await, Some(until));
    let mut lost = pin!(watch.lost());
    assert!(poll_once(lost.as_mut()).await.is_none());
    drop(struck);
    bench.settle().await;
    assert_eq!(lost.await, Lost::Released);
    drop((kept, waiting, sessions));
    let manager: LockManager = bench.manager.clone();
    assert_eq!(manager.project(DEMO).await.unwrap().name(), DEMO);
}
