//! What a daemon says without being asked.

use crate::support::*;
use lockkeeper::Config;
use lockkeeper_server::{Limits, ServerConfig};
use serde_json::{Value, json};
use std::time::Duration;

fn about(note: &Value) -> (&str, &Value, &Value) {
    let params = &note["params"];
    (note["method"].as_str().unwrap(), &params["lock"], &params["why"])
}

#[tokio::test]
async fn whoever_loses_a_lock_hears_why() {
    let daemon = Place::new().start().await;
    let (mut wire, mut admin) = (daemon.connect().await, daemon.connect().await);
    let session = wire.open("a").await;
    let ask = json!({"project": "p", "session": session, "resource": "file:short",
        "lease_ms": 30});
    let expires = wire.call("acquire", ask).await.unwrap()["granted"][0]["lock"].clone();
    let note = wire.note().await;
    assert_eq!(about(&note), ("lost", &expires, &json!("expired")), "{note}");
    assert_eq!(
        (&note["params"]["project"], &note["params"]["session"]),
        (&json!("p"), &json!(session))
    );
    let forced = wire.take(session, "file:forced").await.unwrap();
    let force = json!({"project": "p", "resource": "file:forced", "admin": "root",
        "reason": "because"});
    admin.call("force_unlock", force).await.unwrap();
    let note = wire.note().await;
    assert_eq!(about(&note), ("lost", &forced["lock"], &json!("revoked")), "{note}");
    let given = wire.take(session, "file:given").await.unwrap();
    admin.call("release_all", json!({"project": "p", "agent": "a"})).await.unwrap();
    let note = wire.note().await;
    assert_eq!(about(&note), ("lost", &given["lock"], &json!("revoked")), "{note}");
    // What it gives back itself is no news, and what others have is none of its business.
    let own = wire.take(session, "file:own").await.unwrap();
    wire.release(session, &own).await.unwrap();
    let its = admin.open("b").await;
    let theirs = admin.take(its, "file:theirs").await.unwrap();
    admin.release(its, &theirs).await.unwrap();
    assert_eq!(wire.notes().await, Vec::<Value>::new());
    assert_eq!(admin.notes().await, Vec::<Value>::new());
    // Somebody else gives it back, or ends the session.
    let given = wire.take(session, "file:given").await.unwrap();
    admin.release(session, &given).await.unwrap();
    let note = wire.note().await;
    assert_eq!(about(&note), ("lost", &given["lock"], &json!("released")), "{note}");
    let last = wire.take(session, "file:last").await.unwrap();
    admin.call("session.close", json!({"project": "p", "session": session})).await.unwrap();
    let note = wire.note().await;
    assert_eq!(about(&note), ("lost", &last["lock"], &json!("released")), "{note}");
    // It ends its own.
    let session = wire.open("a").await;
    wire.take(session, "file:own").await.unwrap();
    wire.call("session.close", json!({"project": "p", "session": session})).await.unwrap();
    assert_eq!(wire.notes().await, Vec::<Value>::new());
    daemon.stop().await;
}

/// Whoever is told that a lock was taken away may count on its holder having been told before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_was_taken_away_is_told_before_that_is_answered() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    for round in 0..200 {
        let held = wire.take(session, "file:x").await.unwrap();
        let (method, params) = match round % 2 {
            0 => (
                "force_unlock",
                json!({"project": "p", "resource": "file:x", "admin": "root",
                "reason": "r"}),
            ),
            _ => ("release_all", json!({"project": "p", "agent": "a"})),
        };
        wire.send(method, params).await;
        let note = wire.line().await.unwrap();
        assert_eq!((&note["method"], &note["params"]["lock"]), (&json!("lost"), &held["lock"]));
        assert!(wire.line().await.unwrap().get("result").is_some());
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_victim_hears_that_its_lock_will_be_taken() {
    let place = Place::new();
    let mut config = place.config();
    config.table.grace = Duration::from_secs(3600);
    let daemon = place.start_with(config, place.server()).await;
    let (mut one, mut two) = (daemon.connect().await, daemon.connect().await);
    let (a, b) = (one.open("a").await, two.open("b").await);
    let held = one.take(a, "file:one").await.unwrap();
    let other = two.take(b, "file:two").await.unwrap();
    let first = one.ask(a, "file:two").await;
    two.until(2, 1).await;
    let second = two.ask(b, "file:one").await;
    // One of them is the victim, and hears until when it may clean up.
    let (victim, lock) = tokio::select! {
        told = one.answer(first) => (told.unwrap_err(), &held),
        told = two.answer(second) => (told.unwrap_err(), &other),
    };
    assert_eq!(victim["data"]["code"], "deadlock", "{victim}");
    let note = tokio::select! {
        note = one.note() => note,
        note = two.note() => note,
    };
    assert_eq!((&note["method"], &note["params"]["lock"]), (&json!("revoking"), &lock["lock"]));
    assert_eq!(note["params"]["until"], lock["expires_at"], "the grace ends with the lease");
    daemon.stop().await;
}

#[tokio::test]
async fn a_ticket_that_nobody_waits_on_is_told_when_it_is_granted() {
    let daemon = Place::new().start().await;
    let (mut holder, mut wire) = (daemon.connect().await, daemon.connect().await);
    let h = holder.open("holder").await;
    for kind in ["attached", "detached"] {
        let open = json!({"project": "p", "agent": kind, "kind": kind});
        let session = wire.open_as(open).await;
        for round in 0..20 {
            let held = holder.take(h, "file:x").await.unwrap();
            let ask = json!({"project": "p", "session": session, "resource": "file:x",
                "slice_ms": 0});
            let queued = wire.call("acquire", ask).await.unwrap();
            let ticket = &queued["queued"]["ticket"];
            let wait = json!({"project": "p", "session": session, "ticket": ticket});
            if round % 2 == 0 {
                holder.release(h, &held).await.unwrap();
                let note = wire.note().await;
                assert_eq!(note["method"], "granted", "{note}");
                assert_eq!(&note["params"]["ticket"], ticket);
                let told = wire.call("wait", wait).await.unwrap();
                assert_eq!(told["granted"], note["params"]["grants"]);
                wire.release(session, &told["granted"][0]).await.unwrap();
            } else {
                let waits = wire.send("wait", wait).await;
                holder.until(1, 1).await;
                wire.call("ping", json!({})).await.unwrap();
                holder.release(h, &held).await.unwrap();
                let told = wire.answer(waits).await.unwrap();
                wire.release(session, &told["granted"][0]).await.unwrap();
            }
        }
        assert_eq!(wire.notes().await, Vec::<Value>::new(), "whoever waits needs no note");
    }
    daemon.stop().await;
}

/// Grants that end before their answer is written are told behind the answer, never before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_heard_before_its_end() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    for at in 0..300 {
        let ask = json!({"project": "p", "session": session, "resource": format!("file:{at}"),
            "lease_ms": 1});
        let line = json!({"id": at, "method": "acquire", "params": ask});
        wire.write(format!("{line}\n").as_bytes()).await;
        let answer = wire.line().await.unwrap();
        let lock = answer["result"]["granted"][0]["lock"].clone();
        assert!(lock.is_string(), "{answer}");
        let note = wire.line().await.unwrap();
        assert_eq!(about(&note), ("lost", &lock, &json!("expired")), "{note}");
    }
    daemon.stop().await;
}

/// With room for one event, most are missed: what clients must know, they hear all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_is_found_out() {
    let place = Place::new();
    let config = Config { events_capacity: 1, ..place.config() };
    let daemon = place.start_with(config, place.server()).await;
    let (mut wire, mut admin) = (daemon.connect().await, daemon.connect().await);
    let (session, parked) = (wire.open("a").await, wire.open("parked").await);
    let other = admin.open("other").await;
    for round in 0..5 {
        let mut expected = Vec::new();
        for at in 0..100 {
            let held = wire.take(session, &format!("file:{round}/{at}")).await.unwrap();
            expected.push(held["lock"].as_str().unwrap().to_owned());
        }
        let held = admin.take(other, "file:wanted").await.unwrap();
        let ask = json!({"project": "p", "session": parked, "resource": "file:wanted",
            "slice_ms": 0});
        let ticket = wire.call("acquire", ask).await.unwrap()["queued"]["ticket"].clone();
        let give = json!({"project": "p", "session": other, "lock": held["lock"]});
        let ids = [
            admin.send("release", give).await,
            admin.send("release_all", json!({"project": "p", "agent": "a"})).await,
        ];
        for id in ids {
            admin.answer(id).await.unwrap();
        }
        let (mut lost, mut granted) = (Vec::new(), None);
        while lost.len() < expected.len() || granted.is_none() {
            let note = wire.note().await;
            match note["method"].as_str().unwrap() {
                "lost" => lost.push(note["params"]["lock"].as_str().unwrap().to_owned()),
                "granted" => granted = Some(note["params"].clone()),
                other => panic!("{other}"),
            }
        }
        lost.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lost, expected);
        let granted = granted.unwrap();
        assert_eq!(granted["ticket"], ticket);
        wire.release(parked, &granted["grants"][0]).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_cut_and_disturbs_nobody() {
    let place = Place::new();
    let unread_for = Duration::from_millis(300);
    let limits = Limits { unread_for, ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let mut wire = daemon.connect().await;
    let own = wire.open("own").await;
    let (mut asks, mut hears) = (daemon.connect().await, daemon.connect().await);
    let (a, b) = (asks.open("asks").await, hears.open("hears").await);
    hears.call("subscribe", json!({})).await.unwrap();
    asks.take(a, "file:asks").await.unwrap();
    hears.take(b, "file:hears").await.unwrap();
    // One asks without end and reads no answer, the other reads no event.
    let flood = tokio::spawn(async move {
        let line = json!({"id": 1, "method": "sessions", "params": {"project": "p"}});
        let lines = format!("{line}\n").repeat(100);
        while asks.try_write(lines.as_bytes()).await.is_ok() {}
    });
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let held = wire.take(own, "file:own").await.unwrap();
        wire.release(own, &held).await.unwrap();
        if wire.stats().await["sessions"] == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "they are cut");
    }
    flood.await.unwrap();
    wire.until(0, 0).await;
    drop(hears);
    daemon.stop().await;
}
