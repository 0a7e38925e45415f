//! The actor dies and begins anew from what is written: waits keep their place, tokens never come
//! twice, the number of events goes on.

use crate::{
    outages::{faulty, is_disk_full},
    support::{DEMO, Heard, Switch, file, poll_once, secs, until, yields},
};
use lockkeeper::{AcquireError, LockGuard, Resource};
use std::{
    collections::BTreeSet,
    future::IntoFuture,
    pin::pin,
    sync::{Arc, Mutex},
};

/// I8, I9, I12: a thousand waits in one queue, a restart at the head, in the middle and near the
/// end; all are granted, each once, in the order in which they came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waits_survive() {
    const WAITS: usize = 1_000;
    let switch = Switch::new();
    let bench = faulty(&switch).await;
    let (demo, lock) = (bench.demo().await, file("x"));
    let first = bench.session("first").await.acquire(lock.clone()).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..WAITS {
        let (session, order) = (bench.session(&format!("agent-{n}")).await, order.clone());
        let asked = lock.clone();
        tasks.push(tokio::spawn(async move {
            let guard = session.acquire(asked).await.unwrap();
            let is_last = {
                let mut order = order.lock().unwrap();
                order.push((n, guard.token()));
                order.len() == WAITS
            };
            drop(guard);
            is_last
        }));
        if n % 100 == 0 {
            until("queued", async || demo.stats().await.is_ok_and(|it| it.tickets == n + 1)).await;
        }
    }
    until("all wait", async || demo.stats().await.is_ok_and(|it| it.tickets == WAITS)).await;
    let queue = demo.queue(lock.clone()).await.unwrap();
    let fail = async || {
        switch.fail(1);
        // Anything that has to be written.
        let _ = bench.manager.session(DEMO, "bystander").await;
        until("the store has failed", async || switch.is_spent()).await;
    };
    fail().await;
    until("it serves again", async || demo.stats().await.is_ok()).await;
    let after = demo.queue(lock.clone()).await.unwrap();
    let tickets = |queue: &[lockkeeper::Waiter]| -> Vec<_> {
        queue.iter().map(|waiter| (waiter.ticket, waiter.agent.clone())).collect()
    };
    assert_eq!(tickets(&after), tickets(&queue), "somebody lost the place");
    assert_eq!(order.lock().unwrap().len(), 0);
    assert!(first.is_valid());
    drop(first);
    for at in [WAITS / 3, WAITS * 9 / 10] {
        until("so many are through", async || order.lock().unwrap().len() >= at).await;
        fail().await;
    }
    let mut last = 0;
    for task in tasks {
        last += usize::from(task.await.unwrap());
    }
    let order = order.lock().unwrap().clone();
    let agents: Vec<usize> = order.iter().map(|(n, _)| *n).collect();
    let by_queue: Vec<usize> =
        queue.iter().map(|waiter| waiter.agent[6..].parse().unwrap()).collect();
    assert_eq!(agents, by_queue, "I9");
    assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "I2");
    assert_eq!((order.len(), last), (WAITS, 1));
    assert!(switch.claims() >= 4);
    bench.close_empty().await;
}

/// I2: no token comes twice, and later ones are larger, in however many lives.
#[tokio::test(start_paused = true)]
async fn tokens_never_come_twice() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let session = bench.session("a").await;
    let mut tokens = Vec::new();
    let mut ids = BTreeSet::new();
    for life in 0..15 {
        for _ in 0..=life % 3 {
            let guard = session.acquire(file("x")).await.unwrap();
            tokens.push(guard.token());
            ids.insert(guard.id());
            guard.release().await.unwrap();
        }
        switch.fail(1);
        assert!(is_disk_full(&session.acquire(file("x")).await.unwrap_err()));
    }
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    assert_eq!(ids.len(), tokens.len());
    assert_eq!(tokens.last().unwrap().epoch().get(), 15);
    drop(session);
    bench.close_empty().await;
}

/// I12: a request that is asked again because the actor died is the same request, whether it was
/// granted meanwhile or not: also a counted one, also a batch, also an upgrade.
#[tokio::test(start_paused = true)]
async fn parked_requests_of_all_kinds() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (holder, a) = (bench.session("holder").await, bench.session("a").await);
    let (b, c) = (bench.session("b").await, bench.session("c").await);
    let held = holder.acquire(file("x")).await.unwrap();
    let reading = holder.acquire(file("y")).shared().await.unwrap();
    let mut writing = a.acquire(file("y")).shared().await.unwrap();
    let mut one = pin!(a.acquire(file("x")).into_future());
    let mut batch = pin!(b.acquire_all([file("x"), file("z")]).into_future());
    let mut upgrade = Box::pin(writing.upgrade().into_future());
    assert!(poll_once(one.as_mut()).await.is_none());
    bench.settle().await;
    assert!(poll_once(batch.as_mut()).await.is_none());
    bench.settle().await;
    assert!(poll_once(upgrade.as_mut()).await.is_none());
    bench.settle().await;
    for _ in 0..3 {
        switch.fail(1);
        assert!(is_disk_full(&c.acquire(file("other")).await.unwrap_err()));
        until("it serves", async || bench.demo().await.stats().await.is_ok()).await;
        // They are polled again, and ask again.
        assert!(poll_once(one.as_mut()).await.is_none());
        assert!(poll_once(batch.as_mut()).await.is_none());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        bench.settle().await;
        assert_eq!((bench.stats().await.tickets, bench.stats().await.holds), (3, 3));
    }
    drop(held);
    let one = one.await.unwrap();
    assert!(poll_once(batch.as_mut()).await.is_none());
    drop(one);
    assert_eq!(batch.await.unwrap().len(), 2);
    drop(reading);
    upgrade.as_mut().await.unwrap();
    drop(upgrade);
    drop(writing);
    drop((holder, a, b, c));
    bench.close_empty().await;
}

/// Events are numbered without a gap across lives, and nothing is told that was not written.
#[tokio::test(start_paused = true)]
async fn events_go_on() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let session = bench.session("a").await;
    bench.settle().await;
    let mut heard = Heard::subscribe(&bench.demo().await);
    for _ in 0..4 {
        session.acquire(file("x")).await.unwrap().release().await.unwrap();
        switch.fail(1);
        session.acquire(file("x")).await.unwrap_err();
    }
    session.acquire(file("x")).await.unwrap().release().await.unwrap();
    bench.settle().await;
    heard.drain();
    heard.has_no_gap();
    assert_eq!(heard.count("resource.locked"), 5);
    assert_eq!(heard.count("resource.unlocked"), 5);
}

/// A defect inside the actor is not the end: it is restarted, and what was held is held.
#[tokio::test(start_paused = true)]
async fn a_killed_actor_comes_back() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let mut waiting = pin!(b.acquire(file("x")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.demo().await.actor().unwrap().kill();
    yields(20).await;
    until("it serves", async || bench.demo().await.stats().await.is_ok()).await;
    assert!(poll_once(waiting.as_mut()).await.is_none());
    assert!(guard.is_valid());
    assert_eq!(switch.claims(), 2);
    guard.release().await.unwrap();
    assert!(waiting.await.unwrap().is_valid());
    drop((a, b));
    bench.close_empty().await;
}

/// I13: the asker vanishes while the actor is being restarted.
#[tokio::test(start_paused = true)]
async fn a_wait_is_cut_off_during_a_restart() {
    let switch = Switch::new();
    let bench = faulty(&switch).await.still();
    let (a, b, c) = (bench.session("a").await, bench.session("b").await, bench.session("c").await);
    for steps in 0..30 {
        let held = a.acquire(file("x")).await.unwrap();
        let mut waiting = Box::pin(b.acquire(file("x")).into_future());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        bench.settle().await;
        switch.fail(1);
        let mut failing = Box::pin(c.acquire(file("y")).into_future());
        assert!(poll_once(failing.as_mut()).await.is_none());
        for _ in 0..steps {
            assert!(poll_once(waiting.as_mut()).await.is_none());
            yields(1).await;
            std::thread::yield_now();
        }
        drop(waiting);
        let failed = failing.await;
        assert!(matches!(failed, Err(AcquireError::Unavailable(_))), "{failed:?}");
        until("it serves", async || bench.demo().await.stats().await.is_ok()).await;
        bench.settle().await;
        assert_eq!(bench.stats().await.tickets, 0, "after {steps} steps");
        held.release().await.unwrap();
        let next: LockGuard = c.acquire(Resource::file("x")).no_wait().await.unwrap();
        next.release().await.unwrap();
        bench.pass(secs(1)).await;
    }
    drop((a, b, c));
    bench.close_empty().await;
}

/// A victim policy of somebody's own that panics.
#[derive(Debug)]
struct Poison;

impl lockkeeper::VictimPolicy for Poison {
    fn name(&self) -> &str {
        "poison"
    }

    fn order(&self, _: &lockkeeper::Candidate, _: &lockkeeper::Candidate) -> std::cmp::Ordering {
        std::panic::resume_unwind(Box::new("as ordered"))
    }
}

/// A request that kills the actor each time is given up, and nobody else with it: neither those who
/// hold nor those who wait.
#[tokio::test(start_paused = true)]
async fn a_request_that_kills_the_actor() {
    let mut config = lockkeeper::Config::default();
    config.table.victim_policy = Arc::new(Poison);
    let bench = crate::support::Bench::file_with(config).await.still();
    let (a, b, c) = (bench.session("a").await, bench.session("b").await, bench.session("c").await);
    let one = a.acquire(file("1")).await.unwrap();
    let two = b.acquire(file("2")).await.unwrap();
    let mut crossing = pin!(a.acquire(file("2")).into_future());
    assert!(poll_once(crossing.as_mut()).await.is_none());
    bench.settle().await;
    let mut waiting = tokio::spawn(c.acquire(file("1")).into_future());
    bench.settle().await;
    let told = b.acquire(file("1")).await.unwrap_err();
    assert!(matches!(told, AcquireError::Unavailable(lockkeeper::Unavailable::Crashed)), "{told}");
    until("it serves", async || bench.demo().await.stats().await.is_ok()).await;
    bench.settle().await;
    assert!(one.is_valid() && two.is_valid());
    assert!(!waiting.is_finished(), "an innocent one is refused: {:?}", (&mut waiting).await);
    drop(two);
    drop(crossing.await.unwrap());
    drop(one);
    drop(waiting.await.unwrap().unwrap());
    drop((a, b, c));
    bench.close_empty().await;
}
