//! Leases: never early, lost in time, renewed while they last and not a moment later.

use crate::support::{Bench, both, file, millis, poll_once, secs, yields};
use lockkeeper::{LockMode, Lost, ReleaseError, RenewError};
use std::{future::IntoFuture, pin::pin};

both!(
    still:
    a_lease_ends_on_time,
    a_late_renewal_brings_nothing_back,
    a_renewal_never_shortens,
    an_expiry_hands_over,
    keep_alive_lasts,
    keep_alive_stops_with_its_guard,
    the_lease_of_each_in_a_batch,
    a_lease_longer_than_allowed_is_cut,
    watching_without_holding,
    leases_below_a_second,
);

/// I14: never early, not even by a millisecond; then lost, free, and on record as expired.
async fn a_lease_ends_on_time(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let before = bench.list().await.len();
    let guard = a.acquire(file("x")).lease(secs(10)).await.unwrap();
    let watch = guard.watch();
    let mut lost = pin!(watch.lost());
    for _ in 0..9 {
        bench.pass(secs(1)).await;
        assert!(guard.is_valid());
        assert!(poll_once(lost.as_mut()).await.is_none());
        assert_eq!(demo.list().await.unwrap().len(), before + 1);
    }
    bench.pass(millis(999)).await;
    assert!(guard.is_valid(), "I14: early");
    assert_eq!(demo.list().await.unwrap().len(), 1, "I14: early");
    b.acquire(file("x")).no_wait().await.unwrap_err();
    bench.pass(millis(2)).await;
    assert!(!guard.is_valid());
    assert_eq!(lost.await, Lost::Expired);
    assert_eq!(guard.lost().await, Lost::Expired);
    assert_eq!(demo.list().await.unwrap(), []);
    let next = b.acquire(file("x")).no_wait().await.unwrap();
    assert!(next.token() > guard.token(), "I2");
    if bench.is_on_file() {
        let filter = lockkeeper::AuditFilter {
            event_type: Some("lease_expired".to_owned()),
            ..lockkeeper::AuditFilter::default()
        };
        assert_eq!(demo.audit(filter).await.unwrap().len(), 1);
    }
    drop((guard, next, a, b));
    bench.close_empty().await;
}

async fn a_late_renewal_brings_nothing_back(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let mut guard = a.acquire(file("x")).lease(secs(10)).await.unwrap();
    bench.pass(millis(10_001)).await;
    let late = guard.renew(secs(100)).await.unwrap_err();
    assert!(matches!(late, RenewError::NotHeld { .. }), "{late}");
    assert!(!late.retryable());
    assert!(!guard.is_valid());
    let next = b.acquire(file("x")).no_wait().await.unwrap();
    guard.renew(secs(100)).await.unwrap_err();
    guard.upgrade().await.unwrap_err();
    guard.downgrade(LockMode::Shared).await.unwrap_err();
    let late = guard.release().await.unwrap_err();
    assert!(matches!(late, ReleaseError::NotHeld { .. }), "{late}");
    assert!(next.is_valid());
    assert_eq!(bench.demo().await.get_owner(file("x")).await.unwrap().as_deref(), Some("b"));
    drop((next, a, b));
    bench.close_empty().await;
}

/// I14: the guard and the coordinator agree on each new end.
async fn a_renewal_never_shortens(bench: Bench) {
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(100)).await.unwrap();
    let first = guard.expires_at();
    let kept = guard.renew(secs(10)).await.unwrap();
    assert_eq!((kept, guard.expires_at()), (first, first));
    bench.pass(secs(50)).await;
    let later = guard.renew(secs(100)).await.unwrap();
    assert_eq!(later.0, first.0 + 50_000);
    assert_eq!(bench.list().await[0].expires_at, guard.expires_at());
    bench.pass(millis(99_999)).await;
    assert!(guard.is_valid());
    bench.pass(millis(2)).await;
    assert!(!guard.is_valid());
    drop((guard, a));
    bench.close_empty().await;
}

/// I8: whoever waits gets it in the turn in which the lease ends.
async fn an_expiry_hands_over(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).lease(secs(10)).await.unwrap();
    let mut waiting = pin!(b.acquire(file("x")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(millis(9_999)).await;
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.pass(millis(2)).await;
    let got = poll_once(waiting.as_mut()).await.expect("handed over").unwrap();
    assert!(!guard.is_valid(), "I3: both have it");
    assert!(got.token() > guard.token());
    assert!(got.waited() >= secs(10));
    drop((guard, got, a, b));
    bench.close_empty().await;
}

/// A hold that renews itself outlives many leases, and its guard never doubts.
async fn keep_alive_lasts(bench: Bench) {
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(9)).keep_alive().await.unwrap();
    let batch = a.acquire_all([file("y"), file("z")]).lease(secs(9)).keep_alive().await.unwrap();
    let later = a.acquire(file("w")).lease(secs(9)).await.unwrap();
    later.keep_alive();
    for _ in 0..100 {
        bench.pass(secs(1)).await;
        assert!(guard.is_valid() && batch.all_valid() && later.is_valid());
        // A third of the lease may be over, hardly more.
        let now = guard.expires_at().0 - 6_000;
        assert!(bench.list().await.iter().all(|holder| holder.expires_at.0 >= now));
    }
    assert_eq!(bench.list().await.len(), 4);
    drop((guard, batch, later, a));
    bench.close_empty().await;
}

/// I18: nobody renews for a guard that is gone, or that was left.
async fn keep_alive_stops_with_its_guard(bench: Bench) {
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(9)).keep_alive().await.unwrap();
    for _ in 0..20 {
        bench.pass(secs(1)).await;
    }
    assert!(guard.is_valid());
    let _ = guard.leave();
    bench.pass(secs(1)).await;
    assert_eq!(bench.list().await.len(), 1);
    bench.pass(secs(9)).await;
    assert_eq!(bench.list().await, [], "somebody still renews it");
    let guard = a.acquire(file("x")).lease(secs(9)).keep_alive().await.unwrap();
    drop(guard);
    assert_eq!(bench.list().await, []);
    bench.pass(secs(30)).await;
    drop(a);
    bench.close_empty().await;
}

async fn the_lease_of_each_in_a_batch(bench: Bench) {
    let a = bench.session("a").await;
    let guards = a.acquire_all([file("x"), file("y")]).lease(secs(10)).await.unwrap();
    let x = guards.get(&file("x")).unwrap();
    bench.pass(secs(5)).await;
    x.renew(secs(10)).await.unwrap();
    bench.pass(secs(6)).await;
    assert!(x.is_valid() && !guards.all_valid());
    assert_eq!(bench.list().await.len(), 1);
    drop((guards, a));
    bench.close_empty().await;
}

async fn a_lease_longer_than_allowed_is_cut(bench: Bench) {
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(u64::MAX)).wait(secs(u64::MAX)).await.unwrap();
    let holder = &bench.list().await[0];
    assert_eq!(holder.expires_at, guard.expires_at());
    assert_eq!(holder.expires_at.0 - holder.acquired_at.0, 7 * 24 * 3600 * 1000);
    guard.renew(secs(u64::MAX)).await.unwrap();
    assert!(guard.is_valid());
    drop((guard, a));
    bench.close_empty().await;
}

async fn watching_without_holding(bench: Bench) {
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).await.unwrap();
    let watch = guard.watch();
    let mut lost = pin!(watch.lost());
    assert!(watch.is_valid() && poll_once(lost.as_mut()).await.is_none());
    guard.release().await.unwrap();
    bench.settle().await;
    assert_eq!(poll_once(lost.as_mut()).await, Some(Lost::Released));
    let guard = a.acquire(file("x")).await.unwrap();
    let watch = guard.watch();
    a.close().await.unwrap();
    yields(10).await;
    assert_eq!(watch.lost().await, Lost::Released);
    drop(guard);
    bench.close_empty().await;
}

async fn leases_below_a_second(bench: Bench) {
    let a = bench.session("a").await;
    for lease in [1, 2, 10, 500] {
        let guard = a.acquire(file("x")).lease(millis(lease)).await.unwrap();
        assert!(guard.is_valid(), "born expired");
        bench.pass(millis(lease + 1)).await;
        assert!(!guard.is_valid());
        assert_eq!(bench.list().await, []);
    }
    drop(a);
    bench.close_empty().await;
}
