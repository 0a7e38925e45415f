//! A session's life over the wire.

use crate::support::*;
use serde_json::json;

#[tokio::test]
async fn a_lock_is_taken_waited_for_and_handed_over() {
    let daemon = Place::new().start().await;
    let (mut one, mut two) = (daemon.connect().await, daemon.connect().await);
    let hello = one.call("hello", json!({"client": "test"})).await.unwrap();
    assert_eq!(hello["protocol"], lockkeeper::wire::PROTOCOL);
    assert_eq!(hello["store"], daemon.place.store().display().to_string());
    let (a, b) = (one.open("a").await, two.open("b").await);
    let held = one.take(a, "file:x").await.unwrap();
    assert_eq!(held["resource"], "file:x");
    let busy = two.take(b, "file:x").await.unwrap_err();
    assert_eq!(busy["data"]["code"], "busy");
    assert_eq!(busy["data"]["retryable"], true);
    assert_eq!(busy["data"]["refusal"]["busy"]["obstacles"][0]["holders"][0]["agent"], "a");
    let waits = two.ask(b, "file:x").await;
    one.until(1, 1).await;
    let released = one.release(a, &held).await.unwrap();
    assert_eq!(released["released"]["remaining"], 0);
    let got = two.answer(waits).await.unwrap();
    assert!(got["granted"][0]["token"].as_u64() > held["token"].as_u64());
    two.call("session.close", json!({"project": "p", "session": b})).await.unwrap();
    one.until(0, 0).await;
    assert!(one.notes().await.is_empty(), "what a client gives back itself is no news to it");
    assert!(two.notes().await.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn requests_travel_together_and_are_answered_in_any_order() {
    let daemon = Place::new().start().await;
    let (mut holder, mut wire) = (daemon.connect().await, daemon.connect().await);
    let (h, s) = (holder.open("holder").await, wire.open("many").await);
    let held = holder.take(h, "file:busy").await.unwrap();
    let waits = wire.ask(s, "file:busy").await;
    let mut ids = Vec::new();
    for at in 0..2_000 {
        let ask = json!({"project": "p", "session": s, "resource": format!("file:{at}")});
        ids.push(wire.send("acquire", ask).await);
        if at % 500 == 499 {
            for id in ids.drain(..) {
                wire.answer(id).await.unwrap();
            }
        }
    }
    holder.until(2_001, 1).await;
    holder.release(h, &held).await.unwrap();
    wire.answer(waits).await.unwrap();
    // Short requests are as many as one likes.
    for _ in 0..5_000 {
        ids.push(wire.send("ping", json!({})).await);
    }
    for id in ids {
        wire.answer(id).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_is_gone_holds_nothing() {
    let daemon = Place::new().start().await;
    let (mut one, mut two) = (daemon.connect().await, daemon.connect().await);
    let (a, b) = (one.open("a").await, two.open("b").await);
    one.take(a, "file:x").await.unwrap();
    let waits = two.ask(b, "file:x").await;
    two.until(1, 1).await;
    drop(one);
    two.answer(waits).await.unwrap();
    two.until_sessions(1).await;
    daemon.stop().await;
}

#[tokio::test]
async fn to_look_at_a_project_does_not_make_it() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    assert_eq!(wire.call("list", json!({"project": "nowhere"})).await.unwrap(), json!([]));
    assert_eq!(wire.call("projects", json!({})).await.unwrap(), json!([]));
    wire.open("a").await;
    assert_eq!(wire.call("projects", json!({})).await.unwrap(), json!(["p"]));
    let status = wire.call("daemon.status", json!({})).await.unwrap();
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["connections"], 1);
    let rows = wire.call("audit", json!({"project": "p"})).await.unwrap();
    assert_eq!(rows[0]["event_type"], "session_opened");
    daemon.stop().await;
}

#[tokio::test]
async fn every_question_has_an_answer() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    for (method, more) in [
        ("inspect", json!({"resource": "file:x"})),
        ("list", json!({})),
        ("queue", json!({"resource": "file:x"})),
        ("sessions", json!({})),
        ("grants", json!({"session": session})),
        ("graph", json!({})),
        ("contention", json!({})),
        ("stats", json!({})),
        ("stale", json!({"older_than_ms": 0})),
        ("leases", json!({"soon_ms": 1, "long_ms": 1})),
        ("task.get", json!({"task": "task:t"})),
        ("task.list", json!({})),
        ("last_event", json!({})),
    ] {
        let mut params = more;
        params["project"] = json!("p");
        let known = wire.call(method, params.clone()).await;
        assert!(known.is_ok(), "{method}: {known:?}");
        params["project"] = json!("unknown");
        let unknown = wire.call(method, params).await;
        assert!(unknown.is_ok(), "{method}: {unknown:?}");
    }
    let error = wire.call("frobnicate", json!({})).await.unwrap_err();
    assert_eq!(error["code"], lockkeeper::wire::code::NO_METHOD);
    assert!(error["message"].as_str().unwrap().contains("acquire_all"));
    daemon.stop().await;
}
