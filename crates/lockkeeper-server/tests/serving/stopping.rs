//! The end of a daemon: in order, by itself, or when the store gives trouble.

use crate::support::*;
use lockkeeper_server::{ServerConfig, StopReason};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn whoever_waits_is_told_to_come_back_and_finds_its_place() {
    let place = Place::new();
    let daemon = place.start().await;
    let (mut holder, mut wire) = (daemon.connect().await, daemon.connect().await);
    let (h, a) = (holder.open("holder").await, wire.open("a").await);
    let d = wire.open_detached("d").await;
    let held = holder.take(h, "file:x").await.unwrap();
    let ask = |session: u64, id: &str| {
        let resource = "file:x";
        json!({"project": "p", "session": session, "resource": resource, "request_id": id})
    };
    let first = wire.send("acquire", ask(a, "a1")).await;
    holder.until(1, 1).await;
    let second = wire.send("acquire", ask(d, "d1")).await;
    holder.until(1, 2).await;
    let stopped = holder.call("daemon.stop", json!({})).await.unwrap();
    assert_eq!(stopped["waits"], 2, "it is answered before it stops: {stopped}");
    for id in [first, second] {
        let told = wire.answer(id).await.unwrap_err();
        assert_eq!(told["code"], lockkeeper::wire::code::UNAVAILABLE);
        assert_eq!(
            (&told["data"]["code"], &told["data"]["retryable"]),
            (&json!("stopping"), &json!(true))
        );
    }
    assert!(wire.line().await.is_none());
    assert_eq!(daemon.ended().await.reason, StopReason::Asked);
    assert!(!place.socket().exists());
    let daemon = place.start().await;
    let (mut holder, mut wire) = (daemon.connect().await, daemon.connect().await);
    for (wire, session) in [(&mut holder, h), (&mut wire, a)] {
        wire.call("session.attach", json!({"project": "p", "session": session})).await.unwrap();
    }
    // The later one asks first, and still comes second.
    let second = wire.send("acquire", ask(d, "d1")).await;
    let first = wire.send("acquire", ask(a, "a1")).await;
    holder.until(1, 2).await;
    holder.release(h, &held).await.unwrap();
    let granted = wire.answer(first).await.unwrap();
    holder.until(1, 1).await;
    wire.release(a, &granted["granted"][0]).await.unwrap();
    wire.answer(second).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn nobody_needs_it_so_it_ends() {
    let place = Place::new();
    let config = ServerConfig { idle_exit: Some(Duration::from_millis(100)), ..place.server() };
    let daemon = place.start_with(place.config(), config.clone()).await;
    let mut wire = daemon.connect().await;
    let status = wire.call("daemon.status", json!({})).await.unwrap();
    assert_eq!(status["idle_exit_ms"], 100);
    let started = std::time::Instant::now();
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    let detached = wire.open_detached("d").await;
    let ask = json!({"project": "p", "session": detached, "resource": "file:y",
        "lease_ms": 700});
    wire.call("acquire", ask).await.unwrap();
    drop(wire);
    // The detached session's hold needs it until the lease ends, whoever is connected.
    let report = daemon.ended().await;
    assert_eq!(report.reason, StopReason::Idle);
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
    assert!(!place.socket().exists());
    // A connection that only stands does not keep it, one that waits for something does.
    let daemon = place.start_with(place.config(), config).await;
    let mut idle = daemon.connect().await;
    idle.call("ping", json!({})).await.unwrap();
    assert_eq!(daemon.ended().await.reason, StopReason::Idle);
    assert!(idle.line().await.is_none());
}

#[tokio::test]
async fn a_session_without_a_hold_keeps_it() {
    let place = Place::new();
    let idle_exit = Some(Duration::from_millis(50));
    let daemon =
        place.start_with(place.config(), ServerConfig { idle_exit, ..place.server() }).await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let held = wire.take(session, "file:x").await.expect("it is still there");
    wire.release(session, &held).await.unwrap();
    wire.call("session.close", json!({"project": "p", "session": session})).await.unwrap();
    assert_eq!(daemon.ended().await.reason, StopReason::Idle);
}
