//! code-chef: owner and status, lease and wait as two numbers, force, events, many agents.

use crate::support::{Bench, Heard, Room, file, millis, poll_once, secs, yields};
use lockkeeper::{AcquireError, AuditFilter, Resource};
use serde_json::json;
use std::{future::IntoFuture, pin::pin};

/// Case 1.
#[tokio::test]
async fn seed_2_8_acquire_owner_release() {
    let bench = Bench::file().await;
    let (a, demo) = (bench.session("agent-1").await, bench.demo().await);
    let resource: Resource = "deployment:production".parse().unwrap();
    let guard = a.acquire(resource.clone()).reason("deploy").await.unwrap();
    let info = demo.get_lock_info(resource.clone()).await.unwrap().unwrap();
    assert_eq!((&*info.agent, info.reason.as_deref()), ("agent-1", Some("deploy")));
    guard.release().await.unwrap();
    assert!(!demo.is_locked(resource).await.unwrap());
}

/// Case 2.
#[tokio::test]
async fn seed_2_8_a_scope_holds_and_then_releases() {
    let bench = Bench::memory().await;
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    {
        let _guard = a.acquire(file("x")).await.unwrap();
        assert!(demo.is_locked(file("x")).await.unwrap());
    }
    assert!(!demo.is_locked(file("x")).await.unwrap());
}

/// Case 3, made real: they overlap.
#[tokio::test]
async fn seed_2_8_contention_that_overlaps() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let waiting = tokio::spawn(b.acquire(file("x")).into_future());
    crate::support::until("it waits", async || bench.stats().await.tickets == 1).await;
    assert!(!waiting.is_finished());
    drop(guard);
    assert!(waiting.await.unwrap().unwrap().is_valid());
}

/// Case 4.
#[tokio::test(start_paused = true)]
async fn seed_2_8_a_lease_of_five_seconds() {
    let bench = Bench::file().await.still();
    let guard = bench.session("a").await.acquire(file("x")).lease(secs(5)).await.unwrap();
    bench.pass(secs(6)).await;
    assert!(!bench.demo().await.is_locked(file("x")).await.unwrap());
    assert!(!guard.is_valid());
}

/// Case 5.
#[tokio::test]
async fn seed_2_8_force_by_an_admin() {
    let bench = Bench::file().await;
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let _guard = a.acquire(file("x")).await.unwrap();
    let previous = demo.force_unlock(file("x"), "admin", "stuck").await.unwrap();
    assert_eq!(&*previous[0].agent, "a");
    assert!(!demo.is_locked(file("x")).await.unwrap());
    demo.force_unlock(file("x"), "admin", "again").await.unwrap_err();
}

/// Case 6.
#[tokio::test]
async fn seed_2_8_listing_and_statistics() {
    let bench = Bench::memory().await;
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let _three = a.acquire_all([file("1"), file("2"), file("3")]).await.unwrap();
    assert_eq!(demo.list().await.unwrap().len(), 3);
    assert_eq!(demo.stats().await.unwrap().holds, 3);
    assert_eq!(demo.contention().await.unwrap(), []);
}

/// Case 7, made real: fifty agents, five resources, a hundred milliseconds each; all succeed, never
/// two inside, and it takes no longer than the holds do.
#[tokio::test(start_paused = true)]
async fn seed_2_8_fifty_agents_five_resources() {
    let bench = Bench::memory().await;
    let rooms: Vec<_> = (0..5).map(|n| Room::new(file(&format!("{n}")), None)).collect();
    let began = tokio::time::Instant::now();
    let mut tasks = Vec::new();
    for n in 0..50 {
        let (session, room) = (bench.session(&format!("{n}")).await, rooms[n % 5].clone());
        tasks.push(tokio::spawn(async move {
            let guard = session.acquire(room.resource.clone()).await.unwrap();
            let visit = room.enter(&guard);
            tokio::time::sleep(millis(100)).await;
            drop((visit, guard));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for room in &rooms {
        room.check();
        assert_eq!(room.visits(), 10);
    }
    // On the paused clock: ten holds of 100 ms, one after the other, and the timers' rounding.
    assert!(began.elapsed() <= millis(1_050), "{:?}", began.elapsed());
    bench.at_rest().await;
}

#[tokio::test]
async fn seed_2_8_wait_zero_fails_and_a_later_one_succeeds() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let busy = b.acquire(file("x")).no_wait().await.unwrap_err();
    assert!(busy.to_string().contains('a') && busy.holder().is_some());
    drop(guard);
    drop(b.acquire(file("x")).no_wait().await.unwrap());
}

/// Theirs rounded a wait of nothing up to 300 seconds.
#[tokio::test(start_paused = true)]
async fn seed_2_8_wait_is_honoured_and_zero_is_zero() {
    let bench = Bench::memory().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let _guard = a.acquire(file("x")).await.unwrap();
    for wait in [1, 10, 250, 60_000] {
        let mut waiting = pin!(b.acquire(file("x")).wait(millis(wait)).into_future());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        bench.settle().await;
        bench.pass(millis(wait - 1)).await;
        assert!(poll_once(waiting.as_mut()).await.is_none(), "early");
        bench.pass(millis(2)).await;
        let Some(Err(AcquireError::TimedOut { waited_ms, .. })) = poll_once(waiting.as_mut()).await
        else {
            panic!("late");
        };
        assert!((wait..wait + 3).contains(&waited_ms));
    }
    let zero = b.acquire(file("x")).wait(millis(0)).await.unwrap_err();
    assert_eq!(zero.code(), "busy");
    // A lease of nothing is not 300 seconds either.
    let none = b.acquire(file("y")).lease(millis(0)).await;
    bench.pass(millis(2)).await;
    assert!(!bench.demo().await.is_locked(file("y")).await.unwrap(), "{none:?}");
}

#[tokio::test(start_paused = true)]
async fn seed_2_8_events_and_their_fields() {
    let bench = Bench::memory().await.still();
    let a = bench.session("agent:with:colons").await;
    bench.settle().await;
    let mut heard = Heard::subscribe(&bench.demo().await);
    a.acquire(file("x")).await.unwrap().release().await.unwrap();
    let _held = a.acquire(file("y")).await.unwrap();
    bench.demo().await.force_unlock(file("y"), "admin", "force_unlock").await.unwrap();
    bench.settle().await;
    heard.drain();
    let locked = heard.of("resource.locked")[0];
    assert_eq!(locked["resource_id"], "file:x");
    assert_eq!(locked["agent_id"], "agent:with:colons", "theirs cut it at the colon");
    assert!(locked["expires_at"].is_u64());
    let unlocked = heard.of("resource.unlocked");
    assert_eq!(unlocked.len(), 1);
    assert_eq!(
        (&unlocked[0]["resource_id"], &unlocked[0]["agent_id"]),
        (&json!("file:x"), &json!("agent:with:colons"))
    );
    assert_eq!(heard.of("resource.revoked")[0]["reason"], "force_unlock");
}

#[tokio::test]
async fn seed_2_8_release_by_somebody_else_is_refused() {
    let bench = Bench::memory().await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let release = lockkeeper::Release {
        by: lockkeeper::Credential::Session(b.id()),
        lock: guard.id(),
        share: None,
        request_id: None,
    };
    let actor = bench.manager.lock_actor("demo").await.unwrap();
    let refused = format!("{:?}", actor.ask(release).await.unwrap_err());
    assert!(refused.contains("NotHolder"), "{refused}");
    assert!(guard.is_valid());
    // And of what nobody holds: it says so.
    let id = guard.id();
    guard.release().await.unwrap();
    let refused = format!("{:?}", actor.ask(release).await.unwrap_err());
    assert!(refused.contains("NotHolder") && refused.contains("None"), "{refused} {id}");
}

#[tokio::test(start_paused = true)]
async fn seed_2_8_an_expired_lock_is_acquired_and_a_late_release_disturbs_nobody() {
    let bench = Bench::file().await.still();
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let old = a.acquire(file("x")).lease(secs(5)).await.unwrap();
    bench.pass(secs(6)).await;
    let new = b.acquire(file("x")).no_wait().await.unwrap();
    old.release().await.unwrap_err();
    assert!(new.is_valid());
    assert_eq!(bench.demo().await.get_owner(file("x")).await.unwrap().as_deref(), Some("b"));
}

/// Theirs left 17 ghosts of 20.
#[tokio::test]
async fn seed_2_8_the_queue_is_empty_in_the_end() {
    let bench = Bench::file().await;
    let mut tasks = Vec::new();
    for n in 0..20 {
        let session = bench.session(&format!("{n}")).await;
        tasks.push(tokio::spawn(async move {
            let guard = session.acquire(file("x")).await.unwrap();
            yields(3).await;
            drop(guard);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bench.demo().await.queue(file("x")).await.unwrap(), []);
    bench.close_empty().await;
}

/// Theirs logged 3 seconds for 2 minutes and 3.
#[tokio::test(start_paused = true)]
async fn seed_2_8_a_hold_of_more_than_a_minute_is_told_in_full() {
    let bench = Bench::file().await.still();
    let mut heard = Heard::subscribe(&bench.demo().await);
    let guard = bench.session("a").await.acquire(file("x")).await.unwrap();
    bench.pass(secs(123)).await;
    guard.release().await.unwrap();
    bench.settle().await;
    heard.drain();
    assert_eq!(heard.of("resource.unlocked")[0]["held_ms"], 123_000);
}

#[tokio::test]
async fn seed_2_8_long_ids_are_accepted_or_refused_by_name() {
    let bench = Bench::file().await;
    let a = bench.session(&"a".repeat(10_000)).await;
    let long = "k".repeat(10_000);
    let guard = a.acquire(file(&long)).await.unwrap();
    assert_eq!(guard.resource().key(), long);
    guard.release().await.unwrap();
    let refused = a.acquire(file(&"k".repeat(16 * 1024 + 1))).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_resource");
    drop(a);
    bench.close_empty().await;
}

/// The words of their history, in ours.
#[tokio::test(start_paused = true)]
async fn seed_2_9_history_has_every_operation() {
    let bench = Bench::file().await.still();
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    a.acquire(file("x")).await.unwrap().release().await.unwrap();
    let late = a.acquire(file("x")).lease(secs(1)).await.unwrap();
    bench.pass(secs(2)).await;
    let forced = a.acquire(file("x")).await.unwrap();
    forced.renew(secs(900)).await.unwrap();
    demo.force_unlock(file("x"), "admin", "test").await.unwrap();
    drop((late, forced));
    for word in ["lock_granted", "lock_released", "lease_expired", "lock_renewed", "force_release"]
    {
        let event_type = Some(word.to_owned());
        let filter = AuditFilter { event_type, ..AuditFilter::default() };
        assert!(!demo.audit(filter).await.unwrap().is_empty(), "{word}");
    }
}
