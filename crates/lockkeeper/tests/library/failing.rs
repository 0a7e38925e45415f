//! What must happen and hits a failing store happens later: releases, drops, ends of sessions.

use crate::{
    outages::{comes_free, faulty, is_disk_full, serves_again},
    support::{Bench, DEMO, Switch, file, secs, yields},
};
use lockkeeper::{LockMode, ReleaseError, SessionError, Unavailable};

async fn bench() -> (Switch, Bench) {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    bench.demo().await;
    (switch, bench)
}

/// I13: told that it was not written, and done all the same as soon as it can be.
#[tokio::test(start_paused = true)]
async fn a_release() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    switch.fail(1);
    let told = guard.release().await.unwrap_err();
    assert!(matches!(told, ReleaseError::Unavailable(Unavailable::Store(_))), "{told}");
    comes_free(&b, "x").await;
    drop((a, b));
    bench.close_empty().await;
}

/// I13.
#[tokio::test(start_paused = true)]
async fn a_drop() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guards = a.acquire_all([file("x"), file("y"), file("z")]).await.unwrap();
    switch.fail(1);
    drop(guards);
    for key in ["x", "y", "z"] {
        comes_free(&b, key).await;
    }
    drop((a, b));
    bench.close_empty().await;
}

/// I13, I18: the session is dropped with its guards in the middle of an outage.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_session() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let held = a.acquire_all([file("x"), file("y")]).await.unwrap();
    switch.fail(1);
    let kept = held.into_vec().into_iter().map(lockkeeper::LockGuard::leave).count();
    assert_eq!(kept, 2);
    drop(a);
    comes_free(&b, "x").await;
    comes_free(&b, "y").await;
    assert_eq!(bench.stats().await.sessions, 1);
    drop(b);
    bench.close_empty().await;
}

/// I13, I18: closed by hand, and told that this was not written.
#[tokio::test(start_paused = true)]
async fn a_close() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    switch.fail(1);
    let told = a.close().await.unwrap_err();
    assert!(matches!(told, SessionError::Unavailable(Unavailable::Store(_))), "{told}");
    comes_free(&b, "x").await;
    assert!(!guard.is_valid());
    drop((guard, b));
    bench.close_empty().await;
}

/// I13: what is owed while the project cannot be taken over at all is paid when it can be.
#[tokio::test(start_paused = true)]
async fn debts_of_a_long_outage() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let first = a.acquire(file("first")).lease(secs(100_000)).await.unwrap();
    let second = a.acquire(file("second")).lease(secs(100_000)).await.unwrap();
    let mut third = a.acquire(file("third")).lease(secs(100_000)).await.unwrap();
    switch.fail(1);
    switch.fail_claims(4);
    assert!(is_disk_full(&b.acquire(file("y")).await.unwrap_err()));
    drop(first);
    second.release().await.unwrap_err();
    third.downgrade(LockMode::Shared).await.unwrap_err();
    serves_again(&bench).await;
    comes_free(&b, "first").await;
    comes_free(&b, "second").await;
    assert!(third.is_valid());
    assert_eq!(third.mode(), LockMode::Exclusive);
    let busy = b.acquire(file("third")).no_wait().await.unwrap_err();
    assert_eq!(busy.holder().unwrap().lock, third.id());
    drop(third);
    drop((a, b));
    bench.close_empty().await;
}

/// A session that was being opened when the store failed is not there; the next one is.
#[tokio::test(start_paused = true)]
async fn an_opening() {
    let (switch, bench) = bench().await;
    switch.fail(1);
    let told = bench.manager.session(DEMO, "a").await.unwrap_err();
    assert!(matches!(told, SessionError::Unavailable(Unavailable::Store(_))), "{told}");
    drop(bench.session("a").await);
    bench.close_empty().await;
}

/// An administrator's word that could not be written did nothing.
#[tokio::test(start_paused = true)]
async fn a_forced_release() {
    let (switch, bench) = bench().await;
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let guard = a.acquire(file("x")).await.unwrap();
    switch.fail(1);
    demo.force_unlock(file("x"), "admin", "because").await.unwrap_err();
    bench.settle().await;
    assert!(guard.is_valid());
    assert_eq!(demo.force_unlock(file("x"), "admin", "because").await.unwrap().len(), 1);
    assert!(!guard.is_valid());
    drop((a, guard));
    bench.close_empty().await;
}

/// A lease that ended while it could not be written ends later, once; its guard knew in time (I14).
#[tokio::test(start_paused = true)]
async fn an_expiry() {
    let (switch, bench) = bench().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).lease(secs(10)).await.unwrap();
    switch.fail(1);
    tokio::time::advance(secs(11)).await;
    yields(50).await;
    assert!(!guard.is_valid());
    crate::support::until("served again", async || switch.claims() == 2).await;
    bench.settle().await;
    // I17: recovery extends a lease; the guard was lost all the same.
    assert!(!guard.is_valid());
    bench.pass(secs(11)).await;
    comes_free(&b, "x").await;
    drop((a, b, guard));
    bench.close_empty().await;
}

/// A lease that renews itself survives a renewal that could not be written.
#[tokio::test(start_paused = true)]
async fn a_renewal_by_itself() {
    let (switch, bench) = bench().await;
    let a = bench.session("a").await;
    let guard = a.acquire(file("x")).lease(secs(9)).keep_alive().await.unwrap();
    for round in 1..20 {
        if round % 5 == 0 {
            switch.fail(1);
        }
        bench.pass(secs(1)).await;
        crate::support::until("it serves", async || bench.demo().await.stats().await.is_ok()).await;
        assert!(guard.is_valid(), "after {round} seconds");
    }
    assert!(switch.claims() > 2);
    drop((guard, a));
    bench.close_empty().await;
}
