//! What happened several times in one turn, or several times in a row: grants that end as they
//! begin, commits that fail again and again, clocks that go back.

use crate::{
    outages::{comes_free, faulty, serves_again},
    support::{Bench, Switch, file, millis, poll_once, secs, until, yields},
};
use lockkeeper::{AgentContext, Config, ForceUnlock, Lost, Orchestrator};
use std::{future::IntoFuture, pin::pin};

/// I1 as the guards see it: whoever was granted a lock that ended in the same turn has no valid
/// guard of it.
#[tokio::test(start_paused = true)]
async fn granted_and_ended_in_one_turn() {
    let bench = Bench::memory().await.still();
    let (a, b, c) = (bench.session("a").await, bench.session("b").await, bench.session("c").await);
    let old = a.acquire(file("x")).lease(millis(150)).await.unwrap();
    let mut second = pin!(b.acquire(file("x")).into_future());
    let mut third = pin!(c.acquire(file("x")).into_future());
    assert!(poll_once(second.as_mut()).await.is_none());
    assert!(poll_once(third.as_mut()).await.is_none());
    yields(20).await;
    // The message is there before the alarm can ring: its turn ends the lease first, and then what
    // that granted.
    let (admin, reason) = ("admin".into(), "test".into());
    let force = ForceUnlock { resource: file("x"), admin, reason };
    let actor = bench.actor().await;
    let told = actor.tell(force);
    let advanced = tokio::time::advance(millis(200));
    told.try_send().unwrap();
    advanced.await;
    until("both are told", async || {
        yields(5).await;
        !old.is_valid() && bench.list().await.len() == 1
    })
    .await;
    let holder = bench.list().await.remove(0);
    match &*holder.agent {
        // The force came after the lease had ended: b was granted and lost it in that turn.
        "c" => {
            let second = second.await.unwrap();
            assert!(!second.is_valid(), "two valid guards of one lock");
            assert_eq!(second.lost().await, Lost::Revoked);
            assert!(third.await.unwrap().is_valid());
        }
        // The force came first: a's hold was ended by it.
        other => assert_eq!(other, "b"),
    }
}

/// However often the journal fails, also while the actor starts: whatever was dropped meanwhile is
/// given back in the end, and the project is not claimed without end.
#[tokio::test(start_paused = true)]
async fn drops_in_a_long_outage() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let mut guards = Vec::new();
    for at in 0..200 {
        guards.push(a.acquire(file(&format!("{at}"))).lease(secs(10_000)).await.unwrap());
    }
    switch.fail(usize::MAX);
    for guard in guards {
        drop(guard);
        yields(3).await;
        tokio::time::advance(millis(5)).await;
    }
    for _ in 0..100 {
        tokio::time::advance(millis(100)).await;
        // The writer is a real thread and needs a moment of the processor, whatever the clock says.
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_micros(200));
            yields(5).await;
        }
    }
    let claims = switch.claims();
    assert!((3..40).contains(&claims), "{claims} claims in 11 s of an outage");
    switch.heal();
    for _ in 0..60 {
        tokio::time::advance(millis(100)).await;
        yields(10).await;
    }
    serves_again(&bench).await;
    comes_free(&next, "0").await;
    until("all of them are given back", async || bench.list().await.is_empty()).await;
    drop((a, next));
    bench.close_empty().await;
}

/// Whoever stops waiting for a release has released all the same, also if its commit failed.
#[tokio::test(start_paused = true)]
async fn a_release_nobody_waits_for_whose_commit_fails() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, next) = (bench.session("a").await, bench.session("next").await);
    let guard = a.acquire(file("x")).lease(secs(10_000)).await.unwrap();
    switch.shut();
    {
        let mut release = pin!(guard.release());
        assert!(poll_once(release.as_mut()).await.is_none());
        yields(20).await;
    }
    switch.fail(1);
    switch.open();
    serves_again(&bench).await;
    comes_free(&next, "x").await;
    drop((a, next));
    bench.close_empty().await;
}

/// Time that was written has happened: where the wall's went back since, leases and waits still
/// last as long as they say.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_went_back() {
    let bench = Bench::file().await.still();
    let path = bench.path().to_owned();
    let demo = bench.demo().await;
    // An hour later, as the paused clock has it; the wall knows nothing of that.
    bench.pass(secs(3600)).await;
    demo.declare_capacity(file("slots"), Some(4)).await.unwrap();
    bench.manager.clone().shutdown().await;
    let manager = lockkeeper::LockManager::open_with(Config::at(&path)).await.unwrap();
    let a = manager.session("demo", "a").await.unwrap();
    let guard = a.acquire(file("x")).lease(secs(2)).await.unwrap();
    assert!(guard.lease_left() <= secs(2), "{:?} left of 2 s", guard.lease_left());
    drop((guard, a));
    manager.shutdown().await;
}

#[derive(kameo::Actor)]
struct Idle {
    _context: AgentContext,
}

/// When the agents are stopped, so are their sessions, however the news of their deaths travels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_agents_have_no_sessions() {
    for _ in 0..10 {
        let orchestrator = Orchestrator::start(Config::in_memory()).await.unwrap();
        let mut agents = Vec::new();
        for at in 0..50 {
            let make = |context| Idle { _context: context };
            agents.push(orchestrator.spawn_agent("demo", &format!("{at}"), make).await.unwrap());
        }
        orchestrator.stop_agents().await;
        let demo = orchestrator.manager().project("demo").await.unwrap();
        assert_eq!(demo.sessions().await.unwrap(), []);
        orchestrator.shutdown().await;
    }
}
