//! What a project shows of itself, and what its refusals say.

use crate::support::{Bench, both, file, millis, poll_once, secs};
use lockkeeper::{AcquireError, AuditFilter, Config, LeaseCounts, LockMode, Resource, SessionKind};
use serde_json::json;
use std::{future::IntoFuture, pin::pin};

both!(
    still:
    who_holds_what,
    who_waits_for_whom,
    what_is_old,
    refusals_name_the_holder,
    views_change_nothing,
    codes,
);

async fn who_holds_what(bench: Bench) {
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let lock = file("x");
    assert!(!demo.is_locked(lock.clone()).await.unwrap());
    assert_eq!(demo.get_owner(lock.clone()).await.unwrap(), None);
    assert_eq!(demo.get_lock_info(lock.clone()).await.unwrap(), None);
    assert_eq!(demo.inspect(lock.clone()).await.unwrap(), None);
    let metadata = json!({ "branch": "main", "line": 7 });
    let ask = a.acquire(lock.clone()).reason("edit").metadata(&metadata).lease(secs(60));
    let guard = ask.await.unwrap();
    assert!(demo.is_locked(lock.clone()).await.unwrap());
    assert_eq!(demo.get_owner(lock.clone()).await.unwrap().as_deref(), Some("a"));
    let info = demo.get_lock_info(lock.clone()).await.unwrap().unwrap();
    assert_eq!((info.lock, info.session, &*info.agent), (guard.id(), a.id(), "a"));
    assert_eq!((info.mode, info.reason.as_deref()), (LockMode::Exclusive, Some("edit")));
    let noted: serde_json::Value = serde_json::from_str(info.metadata.as_deref().unwrap()).unwrap();
    assert_eq!(noted, metadata);
    assert_eq!(info.expires_at, guard.expires_at());
    assert_eq!(info.expires_at.0 - info.acquired_at.0, 60_000);
    let shared = a.acquire_each([(file("b"), LockMode::Shared), (file("a"), LockMode::Update)]);
    let shared = shared.await.unwrap();
    let list = demo.list().await.unwrap();
    let names: Vec<&str> = list.iter().map(|holder| holder.resource.as_str()).collect();
    assert_eq!(names, ["file:a", "file:b", "file:x"], "by resource");
    let sessions = demo.sessions().await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].holds, sessions[0].kind), (3, SessionKind::Attached));
    let stats = demo.stats().await.unwrap();
    assert_eq!((stats.holds, stats.resources, stats.sessions, stats.tickets), (3, 3, 1, 0));
    assert_eq!(guard.to_string(), "Lock[file:x]");
    assert_eq!(shared.to_string(), "MultiLock[file:a, file:b]");
    assert!(!format!("{guard:?} {demo:?} {a:?}").is_empty());
    drop((guard, shared, a));
    bench.close_empty().await;
}

async fn who_waits_for_whom(bench: Bench) {
    let demo = bench.demo().await;
    let (a, b, c) = (bench.session("a").await, bench.session("b").await, bench.session("c").await);
    let guard = a.acquire(file("x")).await.unwrap();
    let mut first = pin!(b.acquire(file("x")).reason("second").wait(secs(50)).into_future());
    assert!(poll_once(first.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(secs(3)).await;
    let mut second = pin!(c.acquire_all([file("x"), file("y")]).shared().into_future());
    assert!(poll_once(second.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(secs(2)).await;
    let queue = demo.queue(file("x")).await.unwrap();
    assert_eq!(queue.iter().map(|one| &*one.agent).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!((queue[0].reason.as_deref(), queue[0].batch), (Some("second"), 1));
    assert_eq!((queue[1].mode, queue[1].batch), (LockMode::Shared, 2));
    assert_eq!(queue[0].wait_until.0 - queue[0].queued_at.0, 50_000);
    let graph = demo.wait_graph().await.unwrap();
    assert_eq!(graph.nodes.len(), 3);
    let edges: Vec<_> = graph.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    assert!(edges.contains(&(b.id(), a.id())) && edges.contains(&(c.id(), b.id())), "{graph:?}");
    assert!(graph.cycle.is_empty());
    let contention = demo.contention().await.unwrap();
    assert_eq!(contention[0].resource, file("x"));
    assert_eq!((contention[0].holders, contention[0].waiting), (1, 2));
    assert_eq!(contention[0].longest_wait_ms, 5_000);
    let inspection = demo.inspect(file("x")).await.unwrap().unwrap();
    assert_eq!((inspection.holders.len(), inspection.queue.len()), (1, 2));
    let stats = demo.stats().await.unwrap();
    assert_eq!(stats.tickets, 2);
    bench.agrees().await;
    guard.release().await.unwrap();
    drop((first.await.unwrap(), a, b));
    assert_eq!(second.await.unwrap().len(), 2);
    drop(c);
    bench.close_empty().await;
}

async fn what_is_old(bench: Bench) {
    let (a, demo) = (bench.session("a").await, bench.demo().await);
    let old = a.acquire(file("old")).lease(secs(100)).await.unwrap();
    bench.pass(secs(60)).await;
    let new = a.acquire(file("new")).lease(secs(100)).await.unwrap();
    let stale = demo.find_stale(secs(30)).await.unwrap();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].lock, old.id());
    assert_eq!(demo.find_stale(secs(0)).await.unwrap().len(), 2);
    assert_eq!(demo.find_stale(secs(61)).await.unwrap(), []);
    let counts = demo.lease_counts(secs(50), secs(30)).await.unwrap();
    assert_eq!(counts, LeaseCounts { held: 2, near_expiry: 1, expired: 0, stale: 1 });
    assert_eq!(demo.cleanup_expired().await.unwrap(), 0);
    // Before the actor's own alarm has a chance to run.
    tokio::time::advance(secs(41)).await;
    let freed = demo.cleanup_expired().await.unwrap();
    assert!(freed <= 1, "freed {freed}");
    assert_eq!(demo.list().await.unwrap().len(), 1);
    assert!(!old.is_valid() && new.is_valid());
    drop((old, new, a));
    bench.close_empty().await;
}

async fn refusals_name_the_holder(bench: Bench) {
    let (a, b) = (bench.session("agent-coder").await, bench.session("b").await);
    let guard = a.acquire(file("x")).reason("writing the parser").await.unwrap();
    let busy = b.acquire_all([file("x"), file("y")]).no_wait().await.unwrap_err();
    assert_eq!(busy.obstacles().len(), 1);
    assert_eq!(busy.holder().unwrap().lock, guard.id());
    let text = busy.to_string();
    assert!(text.contains("agent-coder") && text.contains("writing the parser"), "{text}");
    assert!(text.contains("file:x") && !text.contains("file:y"), "{text}");
    let mut waiting = pin!(b.acquire(file("x")).wait(secs(5)).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(millis(4_999)).await;
    assert!(poll_once(waiting.as_mut()).await.is_none(), "gave up early");
    bench.pass(millis(2)).await;
    let late = poll_once(waiting.as_mut()).await.expect("gave up late").unwrap_err();
    let AcquireError::TimedOut { waited_ms, .. } = &late else { panic!("{late}") };
    assert!((5_000..5_003).contains(waited_ms), "{waited_ms}");
    assert_eq!(late.holder().unwrap().lock, guard.id());
    assert!(late.to_string().contains("agent-coder"), "{late}");
    let again = a.acquire(file("x")).await.unwrap_err();
    assert!(matches!(&again, AcquireError::AlreadyHeld { holder } if holder.lock == guard.id()));
    drop((guard, a, b));
    bench.close_empty().await;
}

/// Questions leave no record, no event, no trace.
async fn views_change_nothing(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let guard = a.acquire(file("x")).await.unwrap();
    let mut waiting = pin!(b.acquire(file("x")).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    let mut events = demo.subscribe();
    let before = if bench.is_on_file() { bench.history(crate::support::DEMO).len() } else { 0 };
    let stats = demo.stats().await.unwrap();
    for _ in 0..3 {
        demo.list().await.unwrap();
        demo.inspect(file("x")).await.unwrap();
        demo.queue(file("nothing")).await.unwrap();
        demo.wait_graph().await.unwrap();
        demo.contention().await.unwrap();
        demo.find_stale(secs(0)).await.unwrap();
        demo.sessions().await.unwrap();
        demo.tasks().await.unwrap();
        demo.task("none").await.unwrap();
        demo.audit(AuditFilter::default()).await.unwrap();
        demo.cleanup_expired().await.unwrap();
    }
    assert_eq!(demo.stats().await.unwrap(), stats);
    assert_eq!(events.try_next(), None);
    if bench.is_on_file() {
        assert_eq!(bench.history(crate::support::DEMO).len(), before);
    }
    drop((guard, a, b));
}

/// The words and the numbers of errors, and whether asking again can help.
async fn codes(bench: Bench) {
    let (a, b, demo) = (bench.session("a").await, bench.session("b").await, bench.demo().await);
    let guard = a.acquire(file("x")).await.unwrap();
    let told = |error: &AcquireError| (error.code(), error.legacy_code(), error.retryable());
    let busy = b.acquire(file("x")).no_wait().await.unwrap_err();
    assert_eq!(told(&busy), ("busy", "E301", true));
    let mut waiting = pin!(b.acquire(file("x")).wait(secs(1)).into_future());
    assert!(poll_once(waiting.as_mut()).await.is_none());
    bench.settle().await;
    bench.pass(secs(2)).await;
    assert_eq!(told(&waiting.await.unwrap_err()), ("timed_out", "E300", true));
    let held = a.acquire(file("x")).await.unwrap_err();
    assert_eq!(told(&held), ("already_held", "E305", false));
    let mode = a.acquire(file("y")).permit().await.unwrap_err();
    assert_eq!(told(&mode), ("wrong_mode", "E305", false));
    let llm = Resource::llm("m");
    demo.declare_capacity(llm.clone(), Some(2)).await.unwrap();
    let mode = a.acquire(llm.clone()).await.unwrap_err();
    assert_eq!(told(&mode), ("wrong_mode", "E305", false));
    let more = a.acquire(llm).permits(3).await.unwrap_err();
    assert_eq!(told(&more), ("over_capacity", "E305", false));
    let text = a.acquire(file("a\nb")).await.unwrap_err();
    assert_eq!(told(&text), ("invalid_resource", "E305", false));
    let none: [Resource; 0] = [];
    assert_eq!(told(&a.acquire_all(none).await.unwrap_err()), ("empty_batch", "E305", false));
    let unknown = demo.force_unlock(file("free"), "admin", "?").await.unwrap_err();
    assert_eq!((unknown.code(), unknown.legacy_code()), ("unknown", "E302"));
    let id = guard.id();
    demo.force_unlock(file("x"), "admin", "?").await.unwrap();
    let gone = guard.release().await.unwrap_err();
    assert_eq!((gone.code(), gone.legacy_code(), gone.retryable()), ("not_holder", "E302", false));
    assert!(gone.to_string().contains(&id.to_string()));
    b.clone().close().await.unwrap();
    let over = b.acquire(file("x")).await.unwrap_err();
    assert_eq!(told(&over), ("session_ended", "E303", false));
    drop((a, b));
}

/// Limits are typed refusals.
#[tokio::test]
async fn limits() {
    let mut config = Config::in_memory();
    config.table.limits.sessions_max = 2;
    config.table.limits.holds_per_session_max = 2;
    config.table.limits.queue_length_max = 0;
    config.table.limits.key_bytes_max = 8;
    let bench = Bench::memory_with(config).await;
    let (a, b) = (bench.session("a").await, bench.session("b").await);
    let full = bench.manager.session(crate::support::DEMO, "c").await.unwrap_err();
    assert_eq!(
        (full.code(), full.legacy_code(), full.retryable()),
        ("limit_reached", "E301", true)
    );
    let held = a.acquire_all([file("x"), file("y")]).await.unwrap();
    assert_eq!(a.acquire(file("z")).await.unwrap_err().code(), "limit_reached");
    assert_eq!(b.acquire(file("x")).await.unwrap_err().code(), "queue_full");
    assert_eq!(b.acquire(file("123456789")).await.unwrap_err().code(), "invalid_resource");
    drop((held, a, b));
    bench.at_rest().await;
}
