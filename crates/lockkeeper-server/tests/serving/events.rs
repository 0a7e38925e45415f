//! Events: as they happen, and again for whoever was away.

use crate::support::*;
use lockkeeper_server::{Limits, ServerConfig};
use serde_json::{Value, json};

fn seq(note: &Value) -> u64 {
    note["params"]["seq"].as_u64().unwrap_or_else(|| panic!("{note}"))
}

async fn some(wire: &mut Wire, session: u64, count: usize) {
    for _ in 0..count {
        let held = wire.take(session, "file:x").await.unwrap();
        wire.release(session, &held).await.unwrap();
    }
}

#[tokio::test]
async fn they_come_as_they_happen_and_only_those_that_were_asked_for() {
    let daemon = Place::new().start().await;
    let (mut wire, mut all, mut one) =
        (daemon.connect().await, daemon.connect().await, daemon.connect().await);
    let session = wire.open("a").await;
    let other = wire.open_as(json!({"project": "q", "agent": "a"})).await;
    some(&mut wire, session, 3).await;
    assert_eq!(all.call("subscribe", json!({})).await.unwrap(), json!({"missed": 0}));
    assert_eq!(one.call("subscribe", json!({"project": "q"})).await.unwrap(), json!({"missed": 0}));
    some(&mut wire, session, 1).await;
    let ask = json!({"project": "q", "session": other, "resource": "file:y"});
    wire.call("acquire", ask).await.unwrap();
    let heard = [all.note().await, all.note().await, all.note().await];
    let words = heard.each_ref().map(|note| {
        let params = &note["params"];
        (params["project_id"].as_str().unwrap(), params["event"].as_str().unwrap())
    });
    assert_eq!(
        words,
        [("p", "resource.locked"), ("p", "resource.unlocked"), ("q", "resource.locked")]
    );
    assert_eq!(one.note().await["params"]["resource_id"], "file:y");
    assert!(one.notes().await.is_empty());
    all.call("unsubscribe", json!({})).await.unwrap();
    some(&mut wire, session, 3).await;
    assert!(all.notes().await.is_empty());
    let error = all.call("subscribe", json!({"since": 1})).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("project"), "{error}");
    daemon.stop().await;
}

/// Reconnecting again and again while things happen: every number once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_hears_what_happened_meanwhile_without_gap_or_duplicate() {
    const PAIRS: usize = 1_500;
    let daemon = Place::new().start().await;
    let place = daemon.place.clone();
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    let busy = tokio::spawn(async move {
        some(&mut wire, session, PAIRS).await;
        wire
    });
    let (mut last, mut connections) = (0, 0);
    while last < 2 * PAIRS as u64 {
        let mut listener = place.connect().await;
        let ask = json!({"project": "p", "since": last});
        assert_eq!(listener.call("subscribe", ask).await.unwrap()["missed"], 0);
        for _ in 0..1 + connections % 200 {
            let note = listener.note().await;
            assert_eq!((seq(&note), &note["method"]), (last + 1, &json!("event")));
            last += 1;
            if last == 2 * PAIRS as u64 {
                break;
            }
        }
        connections += 1;
    }
    assert!(connections > 5);
    drop(busy.await.unwrap());
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_told_as_missed() {
    let place = Place::new();
    let limits = Limits { events_kept: 10, ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    some(&mut wire, session, 15).await;
    let mut listener = daemon.connect().await;
    let subscribed = listener.call("subscribe", json!({"project": "p", "since": 5})).await.unwrap();
    assert_eq!(subscribed, json!({"missed": 15}), "of 30, the last ten are kept");
    for expected in 21..=30 {
        assert_eq!(seq(&listener.note().await), expected);
    }
    // A number from another store's future.
    let ask = json!({"project": "p", "since": 1_000});
    assert_eq!(listener.call("subscribe", ask).await.unwrap(), json!({"missed": 0}));
    some(&mut wire, session, 1).await;
    assert_eq!(seq(&listener.note().await), 31);
    daemon.kill().await;
    // After a restart nothing is kept; the audit log has it.
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let ask = json!({"project": "p", "since": 30});
    assert_eq!(wire.call("subscribe", ask).await.unwrap(), json!({"missed": 2}));
    let mut other = daemon.connect().await;
    other.call("session.attach", json!({"project": "p", "session": session})).await.unwrap();
    some(&mut other, session, 1).await;
    assert_eq!(seq(&wire.note().await), 33);
    daemon.stop().await;
}

/// Whoever reads slowly misses what has left the ring, is told how many, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_listener_is_told_what_it_missed() {
    let place = Place::new();
    let limits = Limits { events_kept: 50, ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let (mut wire, mut slow) = (daemon.connect().await, daemon.connect().await);
    let session = wire.open("a").await;
    slow.call("subscribe", json!({"project": "p"})).await.unwrap();
    const PAIRS: usize = 4_000;
    for _ in 0..PAIRS / 200 {
        let mut ids = Vec::new();
        for _ in 0..200 {
            let ask = json!({"project": "p", "session": session, "resource": "file:x",
                "lease_ms": 60_000, "reentrant": true, "reason": "x".repeat(400)});
            ids.push(wire.send("acquire", ask).await);
            let all = json!({"project": "p", "agent": "a"});
            ids.push(wire.send("release_all", all).await);
        }
        for id in ids {
            wire.answer(id).await.unwrap();
        }
    }
    let last = wire.call("last_event", json!({"project": "p"})).await.unwrap().as_u64().unwrap();
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < last {
        let note = slow.note().await;
        match note["method"].as_str() {
            Some("event") => {
                heard += 1;
                assert_eq!(seq(&note), heard + missed, "in order, and none twice");
            }
            Some("missed") => missed += note["params"]["missed"].as_u64().unwrap(),
            _ => panic!("{note}"),
        }
    }
    assert!(missed > 0, "otherwise nothing was tested: {heard}");
    daemon.stop().await;
}
