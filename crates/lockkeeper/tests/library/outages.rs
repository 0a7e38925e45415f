//! A store that fails or stands still: nobody is told anything that is not on record, and what was
//! held before is held after.

use crate::support::{
    Bench, DEMO, Faulty, Room, Switch, disk_full, file, millis, poll_once, secs, yields,
};
use lockkeeper::{AcquireError, Config, Session, StoreError, Unavailable};
use std::{future::IntoFuture, pin::pin, sync::Arc};

pub async fn faulty(switch: &Switch) -> Bench {
    Bench::over(Config::default(), |store| Faulty::boxed(store, switch)).await
}

/// Whether nothing was decided because of the disk.
pub fn is_disk_full(error: &AcquireError) -> bool {
    use Unavailable::{NotServing, Store};
    matches!(error, AcquireError::Unavailable(Store(why) | NotServing(why)) if *why == disk_full())
}

/// Until the project is taken over again, while time passes: as long as that takes on this machine,
/// so leases must be long ones.
pub async fn serves_again(bench: &Bench) {
    crate::support::until("it serves again", async || {
        tokio::time::advance(millis(50)).await;
        yields(20).await;
        bench.demo().await.stats().await.is_ok()
    })
    .await;
}

/// Until the lock goes to whoever asks for it now.
pub async fn comes_free(next: &Session, key: &str) {
    crate::support::until("the lock comes free", async || {
        match next.acquire(file(key)).no_wait().await {
            Ok(guard) => guard.release().await.is_ok(),
            Err(AcquireError::Busy { .. } | AcquireError::Unavailable(_)) => false,
            Err(other) => panic!("{other}"),
        }
    })
    .await;
}

/// Write, then speak: no answer, no view, no event and no guard's end before the commit.
#[tokio::test(start_paused = true)]
async fn nobody_is_answered_before_the_commit() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let before = a.acquire(file("before")).await.unwrap();
    bench.settle().await;
    let mut events = demo.subscribe();
    switch.shut();
    let watch = before.watch();
    let mut granted = pin!(a.acquire(file("x")).into_future());
    let mut refused = pin!(b.acquire(file("x")).no_wait().into_future());
    let mut released = pin!(before.release());
    let mut renewed = pin!(demo.list());
    let mut opened = pin!(bench.manager.session(DEMO, "c").into_future());
    for _ in 0..50 {
        assert!(poll_once(granted.as_mut()).await.is_none(), "granted before it was written");
        assert!(poll_once(refused.as_mut()).await.is_none(), "refused before it was written");
        assert!(poll_once(released.as_mut()).await.is_none(), "released before it was written");
        assert!(poll_once(renewed.as_mut()).await.is_none(), "seen before it was written");
        assert!(poll_once(opened.as_mut()).await.is_none(), "opened before it was written");
        yields(100).await;
        std::thread::yield_now();
    }
    assert!(switch.is_waiting());
    assert_eq!(events.try_next(), None);
    assert!(watch.is_valid(), "told that it is over before it was written");
    switch.open();
    let guard = granted.await.unwrap();
    let holder = refused.await.unwrap_err();
    assert_eq!(holder.holder().unwrap().lock, guard.id());
    released.await.unwrap();
    assert!(!watch.is_valid());
    assert!(events.try_next().is_some());
    renewed.await.unwrap();
    drop(opened.await.unwrap());
}

/// A commit that fails: whoever waits for it is told that nothing was decided, nothing was, and the
/// next one is served without anybody's help.
#[tokio::test(start_paused = true)]
async fn a_failing_commit_grants_nothing() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let before = a.acquire(file("before")).await.unwrap();
    switch.fail(1);
    let told = a.acquire(file("x")).await.unwrap_err();
    assert!(is_disk_full(&told), "{told}");
    assert_eq!((told.legacy_code(), told.retryable()), ("E306", true));
    let next = b.acquire(file("x")).no_wait().await.unwrap();
    assert!(next.token() > before.token(), "I2");
    assert_eq!(switch.claims(), 2, "one life more");
    assert_eq!(bench.stats().await.holds, 2);
    bench.agrees().await;
    drop((before, next));
    drop((a, b));
    bench.close_empty().await;
}

/// Guards outlive the actor's lives: valid, renewable, releasable, with the same token.
#[tokio::test(start_paused = true)]
async fn guards_from_before_stay_valid() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let mut guard = a.acquire(file("x")).lease(secs(100)).await.unwrap();
    let token = guard.token();
    bench.pass(secs(40)).await;
    for life in 2..6 {
        switch.fail(1);
        assert!(is_disk_full(&b.acquire(file("y")).await.unwrap_err()));
        bench.settle().await;
        assert_eq!(switch.claims(), life);
        assert!(guard.is_valid());
        assert_eq!(guard.token(), token);
    }
    // I17: recovery extends, and the guard knows.
    let listed = bench.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(guard.expires_at(), listed[0].expires_at);
    bench.pass(secs(70)).await;
    assert!(guard.is_valid(), "the lease began anew");
    let busy = b.acquire(file("x")).no_wait().await.unwrap_err();
    assert_eq!(busy.holder().unwrap().lock, guard.id());
    let until = guard.renew(secs(200)).await.unwrap();
    assert_eq!(until, guard.expires_at());
    guard.downgrade(lockkeeper::LockMode::Shared).await.unwrap();
    guard.upgrade().await.unwrap();
    guard.release().await.unwrap();
    b.acquire(file("x")).no_wait().await.unwrap().release().await.unwrap();
    drop((a, b));
    bench.close_empty().await;
}

/// The store was written and yet said that it was not: nobody holds what nobody was told of.
#[tokio::test(start_paused = true)]
async fn a_commit_that_lies_about_its_failure() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    switch.fail_but_write();
    assert!(is_disk_full(&a.acquire(file("x")).await.unwrap_err()));
    comes_free(&b, "x").await;
    switch.fail_but_write();
    assert!(is_disk_full(&a.acquire_all([file("x"), file("y")]).await.unwrap_err()));
    comes_free(&b, "x").await;
    comes_free(&b, "y").await;
    let guard = a.acquire(file("x")).await.unwrap();
    switch.fail_but_write();
    guard.release().await.unwrap_err();
    comes_free(&b, "x").await;
    switch.fail_but_write();
    bench.manager.session(DEMO, "c").await.unwrap_err();
    bench.settle().await;
    drop((a, b));
    bench.settle().await;
    // Nobody can know of the session that was opened, so nobody can close it.
    let left = bench.demo().await.sessions().await.unwrap();
    assert!(left.iter().all(|session| &*session.agent == "c" && session.holds == 0), "{left:?}");
}

/// Fail closed: while the project cannot even be taken over everybody is refused, and once it can
/// be, it is, by itself.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).lease(secs(100_000)).await.unwrap();
    let mut parked = pin!(b.acquire(file("x")).wait(secs(100_000)).into_future());
    assert!(poll_once(parked.as_mut()).await.is_none());
    bench.settle().await;
    switch.fail(1);
    switch.fail_claims(usize::MAX);
    assert!(is_disk_full(&a.acquire(file("y")).await.unwrap_err()));
    for _ in 0..10 {
        yields(50).await;
        tokio::time::advance(secs(1)).await;
        assert!(is_disk_full(&a.acquire(file("y")).await.unwrap_err()));
        assert!(bench.demo().await.list().await.is_err());
        assert!(guard.is_valid());
    }
    assert!(switch.claims() > 4, "it was not tried again");
    let told = parked.await.unwrap_err();
    assert!(is_disk_full(&told), "{told}");
    switch.heal();
    serves_again(&bench).await;
    bench.settle().await;
    assert!(guard.is_valid());
    assert_eq!((bench.stats().await.holds, bench.stats().await.tickets), (1, 0));
    guard.release().await.unwrap();
    b.acquire(file("x")).no_wait().await.unwrap().release().await.unwrap();
    drop((a, b));
    bench.close_empty().await;
}

/// Away from the beginning: the first session is refused, a later one is not.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_first() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    switch.fail_claims(3);
    let told = bench.manager.session(DEMO, "a").await.unwrap_err();
    assert_eq!((told.legacy_code(), told.retryable()), ("E306", true));
    serves_again(&bench).await;
    drop(bench.session("a").await);
    assert_eq!(switch.claims(), 4);
    bench.close_empty().await;
}

/// A guard's own deadline ends it, also when nobody can tell it anything (I14).
#[tokio::test(start_paused = true)]
async fn a_deadline_needs_no_actor() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let guard = bench.session("a").await.acquire(file("x")).lease(secs(10)).await.unwrap();
    switch.shut();
    let mut renewal = Box::pin(guard.renew(secs(100)));
    assert!(poll_once(renewal.as_mut()).await.is_none());
    tokio::time::advance(millis(9_990)).await;
    yields(50).await;
    assert!(guard.is_valid());
    let watch = guard.watch();
    let mut lost = pin!(watch.lost());
    assert!(poll_once(lost.as_mut()).await.is_none());
    tokio::time::advance(millis(11)).await;
    assert!(!guard.is_valid(), "valid past its deadline");
    assert_eq!(lost.await, lockkeeper::Lost::Expired);
    switch.open();
    renewal.as_mut().await.unwrap();
    drop(renewal);
    assert!(!guard.is_valid(), "what was lost once comes back");
    drop(guard);
    comes_free(&bench.session("b").await, "x").await;
}

/// I1, I2, I13, I15, I18: many agents over a store that fails now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_over_a_store_that_fails_now_and_then() {
    let switch = Switch::new();
    let bench = faulty(&switch).await;
    let rooms: Arc<[_]> =
        (0..4).map(|n| Room::new(file(&format!("room-{n}")), None)).collect::<Vec<_>>().into();
    let mut agents = Vec::new();
    for n in 0..24 {
        let (session, rooms) = (bench.session(&format!("agent-{n}")).await, rooms.clone());
        agents.push(tokio::spawn(async move {
            let (mut visits, mut refused) = (0, 0);
            for round in 0.. {
                if visits == 20 {
                    break;
                }
                let room = &rooms[(n + round) % rooms.len()];
                match session.acquire(room.resource.clone()).await {
                    Ok(guard) => {
                        let visit = room.enter(&guard);
                        tokio::task::yield_now().await;
                        assert!(guard.is_valid());
                        drop(visit);
                        visits += 1;
                        // What could not be written is released later.
                        if round % 2 == 0 {
                            let _ = guard.release().await;
                        }
                    }
                    Err(AcquireError::Unavailable(Unavailable::Store(StoreError::Full {
                        ..
                    }))) => {
                        refused += 1;
                    }
                    // Its own release hit a failure and is under way.
                    Err(AcquireError::AlreadyHeld { .. }) => yields(10).await,
                    Err(other) => panic!("{other:?}"),
                }
            }
            refused
        }));
    }
    for round in 0..12 {
        let at = switch.commits() + 5;
        while switch.commits() < at && !agents.iter().all(|agent| agent.is_finished()) {
            tokio::task::yield_now().await;
        }
        switch.fail_one_after(round % 3);
    }
    let mut refused = 0;
    for agent in agents {
        refused += agent.await.unwrap();
    }
    switch.heal();
    for room in rooms.iter() {
        room.check();
    }
    assert!(refused > 0 && switch.claims() > 3, "{refused} refused in {} lives", switch.claims());
    bench.close_empty().await;
}
