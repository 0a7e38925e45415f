//! Events: what subscribers hear, under which names, and what becomes of the slow ones.

use crate::support::{Bench, DEMO, Heard, both, file, millis, poll_once, secs};
use lockkeeper::{Config, Heard as Said, Resource};
use serde_json::json;
use std::{future::IntoFuture, pin::pin};

both!(still: names_and_fields, nothing_is_told_that_is_not_so, of_one_project_only);

/// Names and fields as they are promised.
async fn names_and_fields(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    bench.settle().await;
    let mut heard = Heard::subscribe(&bench.demo().await);
    let guard = a.acquire(file("x")).reason("edit").lease(secs(100)).await.unwrap();
    let mut waiting = pin!(b.acquire(file("x")).reason("too").lease(secs(7)).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(millis(2_500)).await;
    let (id, token) = (guard.id(), guard.token());
    guard.release().await.unwrap();
    let second = waiting.await.unwrap();
    bench.pass(secs(8)).await;
    let forced = a.acquire(file("x")).await.unwrap();
    bench.demo().await.force_unlock(file("x"), "admin", "stuck").await.unwrap();
    b.close().await.unwrap();
    bench.settle().await;
    heard.drain();
    heard.has_no_gap();
    let words: Vec<&str> = heard.all.iter().map(|it| it["event"].as_str().unwrap()).collect();
    assert_eq!(
        words,
        [
            "resource.locked",
            "resource.waiting",
            "resource.unlocked",
            "resource.locked",
            "resource.expired",
            "resource.locked",
            "resource.revoked",
            "session.ended",
        ]
    );
    let locked = heard.all[0].as_object().unwrap();
    assert_eq!(locked["project_id"], DEMO);
    assert_eq!(locked["resource_id"], "file:x");
    assert_eq!(locked["agent_id"], "a");
    assert_eq!(locked["lock_id"], id.to_string());
    assert_eq!(locked["token"], token.get());
    assert_eq!(locked["wait_ms"], 0);
    assert_eq!(locked["reason"], "edit");
    assert!(locked["expires_at"].is_u64() && locked["seq"].is_u64() && locked["at"].is_u64());
    let waiting = &heard.all[1];
    assert_eq!(waiting["resource_ids"], json!(["file:x"]));
    assert_eq!((&waiting["agent_id"], &waiting["reason"]), (&json!("b"), &json!("too")));
    let unlocked = &heard.all[2];
    assert_eq!(unlocked["lock_id"], id.to_string());
    assert_eq!(unlocked["held_ms"], 2_500);
    assert_eq!(heard.all[3]["wait_ms"], 2_500);
    assert_eq!(heard.all[4]["lock_id"], second.id().to_string());
    assert!(heard.all[4]["held_ms"].as_u64().unwrap() >= 7_000);
    assert_eq!(heard.all[6]["lock_id"], forced.id().to_string());
    assert_eq!(heard.all[6]["reason"], "stuck");
    assert_eq!(heard.all[7]["agent_id"], "b");
    drop((a, second, forced));
}

/// A release that changes nothing, a refusal, a cancelled wait: no news of holds.
async fn nothing_is_told_that_is_not_so(bench: Bench) {
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let counted = a.acquire(file("x")).reentrant().await.unwrap();
    bench.settle().await;
    let mut heard = Heard::subscribe(&bench.demo().await);
    b.acquire(file("x")).no_wait().await.unwrap_err();
    a.acquire(file("x")).await.unwrap_err();
    counted.release().await.unwrap();
    bench.demo().await.force_unlock(file("free"), "admin", "?").await.unwrap_err();
    {
        let mut waiting = pin!(b.acquire(file("x")).into_future());
        assert!(poll_once(waiting.as_mut()).await.is_none());
    }
    bench.settle().await;
    guard.release().await.unwrap();
    bench.settle().await;
    heard.drain();
    heard.has_no_gap();
    assert_eq!(heard.count("resource.unlocked"), 1);
    assert_eq!(heard.count("resource.locked"), 0);
    assert_eq!(heard.count("resource.revoked"), 0);
    drop((a, b));
}

async fn of_one_project_only(bench: Bench) {
    let elsewhere = bench.manager.project("elsewhere").await.unwrap();
    let mut here = Heard::subscribe(&bench.demo().await);
    let mut there = Heard::subscribe(&elsewhere);
    let mut all = bench.manager.subscribe();
    drop(bench.session("a").await.acquire(file("x")).await.unwrap());
    drop(elsewhere.session("b").await.unwrap().acquire(file("x")).await.unwrap());
    bench.settle().await;
    elsewhere.stats().await.unwrap();
    crate::support::until("the last session has ended", async || {
        elsewhere.stats().await.unwrap().sessions == 0 && bench.stats().await.sessions == 0
    })
    .await;
    bench.settle().await;
    for heard in [&mut here, &mut there] {
        heard.drain();
        heard.has_no_gap();
        assert_eq!(heard.all.len(), 3, "{:?}", heard.all);
    }
    assert!(here.all.iter().all(|event| event["project_id"] == DEMO));
    assert_eq!(there.all[0]["seq"], 1, "numbered for each project");
    let mut count = 0;
    while let Some(Said::Event(_)) = all.try_next() {
        count += 1;
    }
    assert_eq!(count, 6);
}

/// I18: whoever does not listen misses something, is told how much, and holds nobody up.
#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_misses_something() {
    let config = Config { events_capacity: 16, ..Config::in_memory() };
    let bench = Bench::memory_with(config).await.still();
    let (session, demo) = (bench.session("a").await, bench.demo().await);
    let mut slow = demo.subscribe();
    for _ in 0..500 {
        session.acquire(file("x")).await.unwrap().release().await.unwrap();
    }
    bench.settle().await;
    let Some(Said::Missed(missed)) = slow.next().await else { panic!("it missed nothing") };
    let mut heard = Vec::new();
    while let Some(Said::Event(event)) = slow.try_next() {
        heard.push(event.event.seq);
    }
    assert_eq!(missed as usize + heard.len(), 1_000);
    assert_eq!(heard.first(), Some(&(missed + 1)));
    assert!(heard.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

/// Subscribers come and go; `next` waits, and ends with the manager.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_leaves() {
    let bench = Bench::memory().await.still();
    let (session, demo) = (bench.session("a").await, bench.demo().await);
    let (mut first, second) = (demo.subscribe(), demo.subscribe());
    {
        let mut next = pin!(first.next());
        assert!(poll_once(next.as_mut()).await.is_none());
        let guard = session.acquire(Resource::file("x")).await.unwrap();
        drop(second);
        assert!(matches!(next.await, Some(Said::Event(_))));
        guard.release().await.unwrap();
    }
    assert!(matches!(first.next().await, Some(Said::Event(_))));
    drop(first);
    session.acquire(file("y")).await.unwrap().release().await.unwrap();
    let mut last = demo.subscribe();
    let mut all = bench.manager.subscribe();
    drop((session, demo));
    bench.settle().await;
    while matches!(all.try_next(), Some(Said::Event(_))) {}
    drop(bench);
    crate::support::yields(200).await;
    assert!(matches!(last.next().await, Some(Said::Event(_))), "the session's end");
    let mut end = pin!(last.next());
    let mut all_end = pin!(all.next());
    let mut ended = false;
    for _ in 0..1_000 {
        if poll_once(end.as_mut()).await == Some(None) {
            ended = true;
            break;
        }
        crate::support::yields(10).await;
    }
    assert!(ended, "a subscription outlives its manager for ever");
    assert!(poll_once(all_end.as_mut()).await.is_some());
}
