//! Requests of detached sessions whose connection goes: what was told stays, what was not can be
//! asked for again, and what nobody asks for again goes.

use crate::support::*;
use lockkeeper_server::ServerConfig;
use serde_json::{Value, json};
use std::time::Duration;

fn named(session: u64, resource: &str) -> Value {
    json!({"project": "p", "session": session, "resource": resource, "request_id": "77"})
}

/// Waits until only so many connections are left, and then a while in turns of the daemon: longer
/// than whatever the end of the others may bring about at once.
async fn left_alone(watch: &mut Wire, connections: u64) {
    let deadline = tokio::time::Instant::now() + LONG;
    while watch.call("daemon.status", json!({})).await.unwrap()["connections"] != connections {
        assert!(tokio::time::Instant::now() < deadline, "{connections} connections");
    }
    for _ in 0..20 {
        watch.stats().await;
    }
}

#[tokio::test]
async fn an_older_connection_takes_nothing_back_that_a_newer_one_was_told() {
    let daemon = Place::new().start().await;
    let (mut older, mut newer) = (daemon.connect().await, daemon.connect().await);
    let session = newer.open_detached("a").await;
    older.send("acquire", named(session, "file:x")).await;
    newer.until(1, 0).await;
    newer.call("acquire", named(session, "file:x")).await.unwrap();
    // It has not read what it was answered.
    drop(older);
    left_alone(&mut newer, 1).await;
    assert_eq!(newer.stats().await["holds"], 1);
    daemon.stop().await;
}

/// I12: who chose an id is told by another daemon what became of the request, also when its hold is
/// over; who chose none has no way to ask.
#[tokio::test]
async fn what_was_asked_by_a_chosen_id_is_known_to_the_next_daemon() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open_detached("a").await;
    let grant = wire.call("acquire", named(session, "file:x")).await.unwrap();
    wire.release(session, &grant["granted"][0]).await.unwrap();
    let grant = wire.take(session, "file:y").await.unwrap();
    wire.release(session, &grant).await.unwrap();
    daemon.stop().await;
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let told = wire.call("acquire", named(session, "file:x")).await.unwrap_err();
    assert_eq!(told["data"]["code"], "not_holder", "its hold is over: {told}");
    assert_eq!(wire.stats().await["holds"], 0);
    let known = wire.call("stats", json!({"project": "p"})).await.unwrap();
    assert_eq!(known["remembered"], 1, "{known}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_wait_that_was_cut_can_be_asked_for_again() {
    let daemon = Place::new().start().await;
    let mut holder = daemon.connect().await;
    let its = holder.open("holder").await;
    let session = holder.open_detached("a").await;
    for (is_free_meanwhile, request) in [(false, "1"), (true, "2")] {
        let resource = format!("file:{is_free_meanwhile}");
        let held = holder.take(its, &resource).await.unwrap();
        let mut ask = named(session, &resource);
        ask["request_id"] = json!(request);
        let mut older = daemon.connect().await;
        older.send("acquire", ask.clone()).await;
        holder.until_tickets(1).await;
        drop(older);
        left_alone(&mut holder, 1).await;
        let mut newer = daemon.connect().await;
        if is_free_meanwhile {
            holder.release(its, &held).await.unwrap();
        }
        let waits = newer.send("acquire", ask).await;
        if !is_free_meanwhile {
            // It is heard: only then is there somebody to be told.
            newer.call("ping", json!({})).await.unwrap();
            holder.release(its, &held).await.unwrap();
        }
        let told = newer.answer(waits).await.unwrap();
        assert_eq!(told["granted"][0]["resource"], resource.as_str());
        drop(newer);
        left_alone(&mut holder, 1).await;
    }
    assert_eq!(holder.stats().await["holds"], 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_wait_that_was_cut_and_that_nobody_asks_for_again_leaves_nothing() {
    let place = Place::new();
    let grace = Duration::from_millis(50);
    let config = ServerConfig { reattach_grace: grace, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let mut holder = daemon.connect().await;
    let its = holder.open("holder").await;
    let session = holder.open_detached("a").await;
    for (is_free_meanwhile, request) in [(false, "1"), (true, "2")] {
        let held = holder.take(its, "file:x").await.unwrap();
        let mut ask = named(session, "file:x");
        ask["request_id"] = json!(request);
        let mut gone = daemon.connect().await;
        gone.send("acquire", ask).await;
        holder.until(1, 1).await;
        drop(gone);
        if is_free_meanwhile {
            holder.release(its, &held).await.unwrap();
            holder.until(0, 0).await;
        } else {
            holder.until(1, 0).await;
            holder.release(its, &held).await.unwrap();
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_idle_connection_that_is_turned_away_keeps_what_it_was_told() {
    let place = Place::new();
    let mut config = place.server();
    config.limits.idle = Duration::from_millis(100);
    let daemon = place.start_with(place.config(), config).await;
    let mut wire = daemon.connect().await;
    let session = wire.open_detached("a").await;
    wire.take(session, "file:x").await.unwrap();
    let error = wire.line().await.unwrap();
    assert_eq!(error["error"]["code"], lockkeeper::wire::code::LIMIT, "{error}");
    assert!(wire.line().await.is_none(), "it is over");
    drop(wire);
    let mut watch = daemon.connect().await;
    left_alone(&mut watch, 1).await;
    assert_eq!(watch.stats().await["holds"], 1);
    daemon.stop().await;
}

#[tokio::test]
async fn an_event_that_lies_unread_takes_nothing_back_that_was_read_before() {
    let daemon = Place::new().start().await;
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let (session, its) = (wire.open_detached("a").await, other.open_detached("b").await);
    wire.call("subscribe", json!({"project": "p"})).await.unwrap();
    wire.take(session, "file:x").await.unwrap();
    other.take(its, "file:y").await.unwrap();
    // Until the event is on its way.
    for _ in 0..20 {
        other.stats().await;
    }
    drop(wire);
    left_alone(&mut other, 1).await;
    assert_eq!(other.stats().await["holds"], 2);
    daemon.stop().await;
}
