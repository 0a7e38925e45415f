//! News that are faster than the answer they are about, and news that are lost.
//!
//! With one thread and locks in memory the order of things is the same each time: what is written
//! together is decided together, and whoever was woken first goes first.

use crate::support::*;
use lockkeeper::Config;
use serde_json::{Value, json};

fn acquire(project: &str, session: u64, resource: &str) -> Value {
    json!({"project": project, "session": session, "resource": resource})
}

async fn in_memory() -> Daemon {
    let place = Place::new();
    let server = place.server();
    place.start_in_memory(Config { events_capacity: 1 << 16, ..place.config() }, server).await
}

/// Somebody else's request wakes the one who hears all events, before the answer is taken.
#[tokio::test]
async fn an_end_that_is_heard_before_its_grant_is_answered_is_told_behind_it() {
    let daemon = in_memory().await;
    let (mut first, mut wire) = (daemon.connect().await, daemon.connect().await);
    let (f, s) = (first.open("first").await, wire.open("a").await);
    for round in 0..10 {
        let other = first.send("acquire", acquire("p", f, &format!("file:{round}"))).await;
        wire.send("acquire", acquire("p", s, "file:x")).await;
        wire.send("release_all", json!({"project": "p", "agent": "a"})).await;
        let granted = wire.line().await.unwrap();
        let lock = &granted["result"]["granted"][0]["lock"];
        assert!(lock.is_string(), "{granted}");
        let rest = [wire.line().await.unwrap(), wire.line().await.unwrap()];
        let note = rest.iter().find(|line| line.get("method").is_some()).expect("a note");
        assert_eq!((&note["method"], &note["params"]["lock"]), (&json!("lost"), lock));
        first.answer(other).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_grant_that_is_heard_before_its_ticket_is_answered_is_told_behind_it() {
    let daemon = in_memory().await;
    let (mut first, mut wire) = (daemon.connect().await, daemon.connect().await);
    let (f, s, h) = (first.open("first").await, wire.open("a").await, wire.open("h").await);
    for round in 0..10 {
        let held = wire.take(h, "file:x").await.unwrap();
        let other = first.send("acquire", acquire("p", f, &format!("file:{round}"))).await;
        let mut ask = acquire("p", s, "file:x");
        ask["slice_ms"] = json!(0);
        let asked = wire.send("acquire", ask).await;
        let give = json!({"project": "p", "session": h, "lock": held["lock"]});
        let given = wire.send("release", give).await;
        let queued = wire.answer(asked).await.unwrap();
        let note = wire.note().await;
        assert_eq!(note["method"], "granted", "{note}");
        assert_eq!(note["params"]["ticket"], queued["queued"]["ticket"]);
        wire.release(s, &note["params"]["grants"][0]).await.unwrap();
        wire.answer(given).await.unwrap();
        first.answer(other).await.unwrap();
    }
    daemon.stop().await;
}

/// The one event of a project is pushed out by another project's: not even a gap is left to see.
#[tokio::test]
async fn what_was_missed_altogether_is_found_out() {
    let place = Place::new();
    let config = Config { events_capacity: 1, ..place.config() };
    let daemon = place.start_in_memory(config, place.server()).await;
    let (mut wire, mut admin) = (daemon.connect().await, daemon.connect().await);
    let session = wire.open("a").await;
    let other = admin.open_as(json!({"project": "q", "agent": "b"})).await;
    for round in 0..10 {
        let held = wire.take(session, "file:x").await.unwrap();
        let all = json!({"id": 1, "method": "release_all",
            "params": {"project": "p", "agent": "a"}});
        let its = json!({"id": 2, "method": "acquire",
            "params": acquire("q", other, &format!("file:{round}"))});
        admin.write(format!("{all}\n{its}\n").as_bytes()).await;
        let note = wire.note().await;
        assert_eq!((&note["method"], &note["params"]["lock"]), (&json!("lost"), &held["lock"]));
        admin.line().await.unwrap();
        admin.line().await.unwrap();
    }
    daemon.stop().await;
}
