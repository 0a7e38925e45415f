//! What else can be cut off: upgrades, releases, renewals, downgrades, sessions that open or close.

use crate::{
    cancel::{everywhere, is_free},
    place::Place,
    support::{Bench, DEMO, both, file, poll_once, secs, yields},
};
use lockkeeper::{LockGuard, LockManager, LockMode};
use std::future::IntoFuture;

both!(
    still:
    an_upgrade_of_the_only_holder,
    an_upgrade_that_waits,
    an_upgrade_that_is_granted_while_nobody_looks,
    a_downgrade,
    a_release,
    a_renewal,
    a_session_that_opens,
    a_session_that_closes,
    the_first_session_of_a_project,
    views,
);

/// The guard says of its hold what the coordinator says of it.
async fn agree(bench: &Bench, guard: &LockGuard) {
    let list = bench.list().await;
    let hold = list.iter().find(|holder| holder.lock == guard.id()).expect("it is held");
    assert_eq!(hold.mode, guard.mode(), "the guard and its hold are of two minds");
    assert!(guard.expires_at() <= hold.expires_at, "I14");
}

/// I13: the hold stays; whether it was turned or not, the guard knows it.
async fn an_upgrade_of_the_only_holder(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    let ended = everywhere(12, async |cut| {
        let mut guard = a.acquire(lock.clone()).shared().await.unwrap();
        let ended = cut.run(&bench, guard.upgrade().into_future()).await.is_some();
        bench.settle().await;
        assert!(guard.is_valid());
        agree(&bench, &guard).await;
        assert_eq!(bench.stats().await.tickets, 0);
        guard.release().await.unwrap();
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I8, I13: the place ahead of all others is given up, and who waited behind it is let in.
async fn an_upgrade_that_waits(bench: Bench) {
    let (a, reader) = (bench.session("a").await, bench.session("reader").await);
    let (late, lock) = (bench.session("late").await, file("x"));
    everywhere(4, async |cut| {
        let mut guard = a.acquire(lock.clone()).shared().await.unwrap();
        let reading = reader.acquire(lock.clone()).shared().await.unwrap();
        assert!(cut.run(&bench, guard.upgrade().into_future()).await.is_none());
        agree(&bench, &guard).await;
        let late = late.acquire(lock.clone()).shared().no_wait().await.unwrap();
        assert_eq!((bench.stats().await.holds, bench.stats().await.tickets), (3, 0));
        drop(reading);
        late.release().await.unwrap();
        bench.settle().await;
        assert_eq!(bench.list().await[0].mode, LockMode::Shared, "turned after all");
        guard.release().await.unwrap();
        false
    })
    .await;
    drop((a, reader, late));
    bench.close_empty().await;
}

/// I13: the last reader leaves, the upgrade is granted, its future is dropped without a look.
async fn an_upgrade_that_is_granted_while_nobody_looks(bench: Bench) {
    let (a, reader) = (bench.session("a").await, bench.session("reader").await);
    let (next, lock) = (bench.session("next").await, file("x"));
    for steps in 0..12 {
        let mut guard = a.acquire(lock.clone()).shared().await.unwrap();
        let reading = reader.acquire(lock.clone()).shared().await.unwrap();
        {
            let mut upgrade = Box::pin(guard.upgrade().into_future());
            assert!(poll_once(upgrade.as_mut()).await.is_none());
            bench.settle().await;
            drop(reading);
            match steps {
                11 => bench.settle().await,
                _ => yields(steps).await,
            }
        }
        bench.settle().await;
        assert!(guard.is_valid());
        agree(&bench, &guard).await;
        drop(guard);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
    }
    drop((a, reader, next));
    bench.close_empty().await;
}

async fn a_downgrade(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    everywhere(12, async |cut| {
        let mut guard = a.acquire(lock.clone()).await.unwrap();
        let ended = cut.run(&bench, guard.downgrade(LockMode::Shared)).await.is_some();
        bench.settle().await;
        agree(&bench, &guard).await;
        drop(guard);
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    drop((a, next));
    bench.close_empty().await;
}

/// I13: a release that nobody waits for is a release.
async fn a_release(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    let ended = everywhere(12, async |cut| {
        let guard = a.acquire(lock.clone()).await.unwrap();
        let ended = cut.run(&bench, guard.release()).await.is_some();
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I14: a renewal that nobody waits for may count or not; the guard is never valid for longer than
/// the hold.
async fn a_renewal(bench: Bench) {
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let lock = file("x");
    let ended = everywhere(12, async |cut| {
        let guard = a.acquire(lock.clone()).lease(secs(10)).await.unwrap();
        bench.pass(secs(2)).await;
        let ended = cut.run(&bench, guard.renew(secs(10))).await.is_some();
        bench.settle().await;
        agree(&bench, &guard).await;
        bench.pass(secs(7)).await;
        assert!(guard.is_valid());
        guard.release().await.unwrap();
        is_free(&bench, &next, 0, std::slice::from_ref(&lock)).await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    drop((a, next));
    bench.close_empty().await;
}

/// I13, I18: a session whose opening nobody waits for ends.
async fn a_session_that_opens(bench: Bench) {
    bench.demo().await;
    let ended = everywhere(12, async |cut| {
        let opening = bench.manager.session(DEMO, "a").into_future();
        let got = cut.run(&bench, opening).await;
        let ended = got.is_some();
        drop(got);
        bench.at_rest().await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    bench.close_empty().await;
}

/// I13, I18: once asked, a session closes, and all that it held is free, whoever waits for it.
async fn a_session_that_closes(bench: Bench) {
    let ended = everywhere(12, async |cut| {
        let a = bench.session("a").await;
        let guard = a.acquire(file("x")).await.unwrap();
        let ended = cut.run(&bench, a.clone().close()).await.is_some();
        if cut.was_begun() {
            bench.settle().await;
            assert_eq!(bench.stats().await.holds, 0);
            assert!(!guard.is_valid());
        }
        drop((a, guard));
        bench.at_rest().await;
        ended
    })
    .await;
    assert!(ended, "no attempt came to its end");
    bench.close_empty().await;
}

/// Cut off while the project's actor is started: the next one who asks gets a whole actor.
async fn the_first_session_of_a_project(bench: Bench) {
    for times in 0..40 {
        let project = format!("project-{times}");
        let opening = bench.manager.session(&project, "a").into_future();
        let got = crate::support::cut(times, opening, async || yields(1).await).await;
        let a = bench.manager.session(&project, "b").await.unwrap();
        let guard = a.acquire(file("x")).no_wait().await.unwrap();
        guard.release().await.unwrap();
        drop((a, got));
        let project = bench.manager.project(&project).await.unwrap();
        crate::support::until("the sessions ended", async || {
            project.stats().await.unwrap().sessions == 0
        })
        .await;
    }
}

/// Questions that nobody waits for do no harm.
async fn views(bench: Bench) {
    let demo = bench.demo().await;
    let guard = bench.session("a").await.acquire(file("x")).await.unwrap();
    everywhere(8, async |cut| cut.run(&bench, demo.list()).await.is_some()).await;
    everywhere(8, async |cut| cut.run(&bench, demo.cleanup_expired()).await.is_some()).await;
    everywhere(8, async |cut| {
        cut.run(&bench, demo.force_unlock(file("y"), "admin", "no reason")).await.is_some()
    })
    .await;
    assert!(guard.is_valid());
    drop(guard);
    bench.at_rest().await;
    let manager: LockManager = bench.manager.clone();
    let cut = crate::support::cut(1, manager.shutdown(), async || yields(1).await).await;
    assert!(cut.is_none() || Place::IS_FAR, "there was something to wait for");
}
