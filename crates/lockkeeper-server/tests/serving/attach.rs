//! Sessions that another connection takes up, while the one they lived by may still be there.

use crate::support::*;
use serde_json::json;

fn attach(session: u64) -> serde_json::Value {
    json!({"project": "p", "session": session})
}

#[tokio::test]
async fn the_older_connection_is_closed_when_its_session_is_attached() {
    let daemon = Place::new().start().await;
    let (mut older, mut newer) = (daemon.connect().await, daemon.connect().await);
    let (one, two) = (older.open("one").await, older.open("two").await);
    older.take(one, "file:one").await.unwrap();
    older.take(two, "file:two").await.unwrap();
    newer.call("session.attach", attach(one)).await.unwrap();
    assert!(older.line().await.is_none(), "it is closed");
    // What else lived by it can be taken up as well: the client comes back for one after the other.
    let attached = newer.call("session.attach", attach(two)).await.unwrap();
    assert_eq!(attached["grants"][0]["resource"], "file:two");
    assert_eq!(newer.stats().await["holds"], 2);
    // And by the newer one they live now.
    drop(newer);
    daemon.connect().await.until_sessions(0).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_session_attached_again_by_its_own_connection_stays_there() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    let attached = wire.call("session.attach", attach(session)).await.unwrap();
    assert_eq!(attached["grants"][0]["resource"], "file:x");
    assert_eq!(wire.stats().await["sessions"], 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_wait_of_the_older_connection_ends_with_it() {
    let daemon = Place::new().start().await;
    let (mut older, mut newer) = (daemon.connect().await, daemon.connect().await);
    let its = newer.open("holder").await;
    let held = newer.take(its, "file:x").await.unwrap();
    let open = json!({"project": "p", "agent": "a", "linger_ms": 60_000});
    let session = older.open_as(open).await;
    older.ask(session, "file:x").await;
    newer.until(1, 1).await;
    let attach = json!({"project": "p", "session": session, "linger_ms": 60_000});
    newer.call("session.attach", attach).await.unwrap();
    drop(older);
    // Nobody could be told of what it still got.
    newer.until(1, 0).await;
    newer.release(its, &held).await.unwrap();
    assert_eq!(newer.stats().await["holds"], 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_attaches_last_has_it_and_nobody_else() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let place = place.clone();
        asked.spawn(async move {
            let mut wire = place.connect().await;
            wire.send("session.attach", attach(session)).await;
            // Closed before its answer, or behind it, or never.
            let told = wire.line().await;
            (told, wire)
        });
    }
    let all = asked.join_all().await;
    let told = all.iter().filter(|(told, _)| told.is_some()).count();
    assert!(told > 0, "somebody got it");
    let mut watch = daemon.connect().await;
    // Of those that stand, one has it: the others were closed.
    let deadline = tokio::time::Instant::now() + LONG;
    while watch.call("daemon.status", json!({})).await.unwrap()["connections"] != 2 {
        assert!(tokio::time::Instant::now() < deadline, "one of them, and who watches");
    }
    assert_eq!(watch.stats().await["holds"], 1);
    drop(all);
    watch.until_sessions(0).await;
    daemon.stop().await;
}
