//! A client that goes away leaves neither a hold nor a place.

use crate::{
    client::PATIENCE,
    live::{Live, until},
};
use lockkeeper_server::http::HttpLimits;
use serde_json::{Value, json};
use std::time::Duration;

const QUEUE: &str = "/v1/projects/p/queue?resource=file:a";
const LOCKS: &str = "/v1/projects/p/locks";

fn ask(session: u64, more: Value) -> Value {
    let mut ask = json!({"project": "p", "session": session, "resource": "file:a"});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask
}

fn has(count: usize) -> impl Fn(&Value) -> bool {
    move |seen| seen.as_array().is_some_and(|all| all.len() == count)
}

/// Waits, is cut, and leaves nothing; whatever it sends behind its request.
async fn waits_and_goes(method: &str, params: Value, behind: &str) {
    // So long what has a name may be asked for again.
    let grace = Duration::from_millis(50);
    let live = Live::with(|_, server, _| server.reattach_grace = grace).await;
    let mut client = live.client().await;
    let (one, two) = (client.open("p", "one").await, client.open("p", "two").await);
    let held = client.call("acquire", ask(one, json!({}))).await["granted"][0]["lock"].clone();
    let mut waiter = live.client().await;
    let mut params = params;
    (params["project"], params["session"]) = (json!("p"), json!(two));
    waiter.send("POST", &format!("/v1/{method}"), Some(&params.to_string())).await;
    waiter.raw(behind).await;
    until(&mut client, QUEUE, has(1)).await;
    drop(waiter);
    until(&mut client, QUEUE, has(0)).await;
    let back = json!({"project": "p", "session": one, "lock": held});
    client.call("release", back).await;
    assert_eq!(client.get(LOCKS).await.json(), json!([]));
    live.stop().await;
}

#[tokio::test]
async fn while_it_waits() {
    waits_and_goes("acquire", json!({"resource": "file:a"}), "").await;
}

#[tokio::test]
async fn while_it_waits_under_a_name_of_its_own() {
    let named = json!({"resource": "file:a", "request_id": "abc"});
    waits_and_goes("acquire", named, "").await;
}

#[tokio::test]
async fn while_it_waits_for_several() {
    waits_and_goes("acquire_all", json!({"wants": ["file:b", "file:a"]}), "").await;
}

#[tokio::test]
async fn while_more_of_its_requests_lie_unread() {
    let more = "GET /v1/projects HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(10);
    waits_and_goes("acquire", json!({"resource": "file:a"}), &more).await;
}

#[tokio::test]
async fn what_has_a_name_can_be_asked_for_again() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let (one, two) = (client.open("p", "one").await, client.open("p", "two").await);
    let held = client.call("acquire", ask(one, json!({}))).await["granted"][0]["lock"].clone();
    let named = ask(two, json!({"request_id": "77"}));
    let mut waiter = live.client().await;
    waiter.send("POST", "/v1/acquire", Some(&named.to_string())).await;
    let place = until(&mut client, QUEUE, has(1)).await[0]["ticket"].clone();
    drop(waiter);
    let status = async {
        while client.call("daemon.status", json!({})).await["connections"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, status).await.expect("it is gone");
    client.call("release", json!({"project": "p", "session": one, "lock": held})).await;
    let granted = client.call("acquire", named).await;
    assert_eq!(granted["granted"][0]["ticket"], place);
    live.stop().await;
}

#[tokio::test]
async fn a_ticket_keeps_its_place_when_the_call_on_it_goes() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let (one, two) = (client.open("p", "one").await, client.open("p", "two").await);
    client.call("acquire", ask(one, json!({}))).await;
    let queued = client.call("acquire", ask(two, json!({"slice_ms": 0}))).await;
    let ticket = queued["queued"]["ticket"].clone();
    let wait = json!({"project": "p", "session": two, "ticket": ticket});
    let mut waiter = live.client().await;
    waiter.send("POST", "/v1/wait", Some(&wait.to_string())).await;
    until(&mut client, QUEUE, |queue| queue[0]["poll_by"].is_null() && has(1)(queue)).await;
    drop(waiter);
    let queue = until(&mut client, QUEUE, |queue| !queue[0]["poll_by"].is_null()).await;
    assert_eq!(queue[0]["ticket"], ticket);
    let mut later = wait;
    later["slice_ms"] = json!(0);
    assert_eq!(client.call("wait", later).await["queued"]["ticket"], ticket);
    live.stop().await;
}

#[tokio::test]
async fn what_it_was_answered_stands_when_the_connection_goes() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let mut other = live.client().await;
    let session = other.open("p", "one").await;
    other.call("acquire", ask(session, json!({}))).await;
    drop(other);
    until(&mut client, "/v1/projects/p/sessions", has(1)).await;
    let status = async {
        while client.call("daemon.status", json!({})).await["connections"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, status).await.expect("it is gone");
    // Whatever its end might take back is asked for before this.
    let again = client.open("p", "two").await;
    let busy = client.post("acquire", ask(again, json!({"wait_ms": 0}))).await;
    assert_eq!((busy.status, busy.word().as_str()), (409, "busy"));
    live.stop().await;
}

#[tokio::test]
async fn an_answer_that_never_left_is_taken_back() {
    let unread_for = Duration::from_millis(200);
    let limits = HttpLimits { unread_for, body_bytes: 32 << 20, ..HttpLimits::default() };
    let live = Live::limited(limits).await;
    let mut client = live.client().await;
    let session = client.open("p", "one").await;
    // What it is granted fills more than the system keeps for anybody, and it reads nothing of it.
    let wants: Vec<String> = (0..900).map(|n| format!("file:{n}{}", "x".repeat(15_000))).collect();
    let body = json!({"project": "p", "session": session, "wants": wants}).to_string();
    let mut deaf = live.client().await;
    deaf.send("POST", "/v1/acquire_all", Some(&body)).await;
    until(&mut client, "/v1/projects/p/audit?event_type=lock_granted&limit=1", has(1)).await;
    until(&mut client, "/v1/projects/p/stats", |stats| stats["holds"] == 0).await;
    live.stop().await;
}

/// At whatever point it goes: some are in the queue then, some are granted, some are answered. An
/// answer that has left may be lost on the way, and its hold lives by its lease; but here whoever
/// has its answer gives the lock back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_any_moment() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let session = client.open("p", "holder").await;
    let leaver = client.open("p", "leaver").await;
    for round in 0..60_u32 {
        let held = client.call("acquire", ask(session, json!({}))).await["granted"][0].clone();
        let mut waiter = live.client().await;
        let body = ask(leaver, json!({"wait_ms": 60_000})).to_string();
        waiter.send("POST", "/v1/acquire", Some(&body)).await;
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            until(&mut client, QUEUE, has(1)).await;
        }
        drop(waiter);
        let back = json!({"project": "p", "session": session, "lock": held["lock"]});
        client.call("release", back).await;
        until(&mut client, LOCKS, has(0)).await;
        until(&mut client, QUEUE, has(0)).await;
    }
    live.stop().await;
}
