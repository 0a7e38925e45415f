//! Past each bound there is a clear error, and the others are not disturbed.

use crate::{
    client::{Client, PATIENCE, Reply},
    live::{Live, until},
};
use lockkeeper_server::http::HttpLimits;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// So short that a test can wait for it, and only for it.
const SOON: Duration = Duration::from_millis(200);

/// The same, where a test must be faster than this more than once.
const LATER: Duration = Duration::from_secs(1);

fn is(reply: &Reply, status: u16, word: &str) {
    assert_eq!((reply.status, reply.word().as_str()), (status, word), "{reply:?}");
    let retryable = reply.json()["error"]["data"]["retryable"] == true;
    let waits = matches!(status, 429 | 503);
    assert_eq!(reply.header("retry-after").is_some(), retryable && waits, "{reply:?}");
}

/// Somebody else is served as ever.
async fn serves(live: &Live) {
    assert_eq!(live.client().await.get("/v1/projects").await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_read() {
    let live = Live::limited(HttpLimits { body_bytes: 1000, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let body = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    let fits = client.ask("POST", "/v1/ping", Some(&body(1000))).await;
    assert_eq!(fits.status, 200, "{fits:?}");
    is(&client.ask("POST", "/v1/ping", Some(&body(1001))).await, 413, "body_too_large");
    let mut client = live.client().await;
    let head = "POST /v1/ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    client.raw(format!("{head}content-length: 1000000000\r\n\r\n")).await;
    is(&client.reply().await, 413, "body_too_large");
    client.end().await;
    serves(&live).await;
    live.stop().await;
}

#[tokio::test]
async fn a_body_of_a_gigabyte_in_pieces_is_cut_off() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let head = "POST /v1/ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    client.raw(format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    let (mut read, mut write) = client.wire.into_inner().into_split();
    let answer = tokio::spawn(async move {
        let mut text = String::new();
        let _ = timeout(PATIENCE, read.read_to_string(&mut text)).await.expect("an end");
        text
    });
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0;
    while sent < 1 << 30 && write.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    let text = answer.await.unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    serves(&live).await;
    live.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let live = Live::limited(HttpLimits { body_for: SOON, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let head = "POST /v1/ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    client.raw(format!("{head}content-length: 10\r\n\r\n{{")).await;
    is(&client.reply().await, 408, "body_too_slow");
    client.end().await;
    live.stop().await;
}

#[tokio::test]
async fn a_head_that_drips_and_a_connection_that_says_nothing_are_cut() {
    let live = Live::limited(HttpLimits { head_for: LATER, ..HttpLimits::default() }).await;
    let mut silent = live.client().await;
    let mut kept = live.client().await;
    assert_eq!(kept.get("/healthz").await.status, 200);
    let dripping = live.client().await.wire.into_inner();
    let (mut read, mut write) = dripping.into_split();
    let drip = async {
        let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ";
        let head = head.iter().chain(std::iter::repeat(&b'x'));
        let mut ticks = tokio::time::interval(LATER / 50);
        for &byte in head {
            ticks.tick().await;
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let end = async {
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
    };
    let cut = async {
        tokio::select! { () = drip => {}, () = end => {} }
    };
    timeout(PATIENCE, cut).await.expect("the dripping one is cut");
    silent.end().await;
    kept.end().await;
    serves(&live).await;
    live.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let live = Live::start().await;
    let mut client = live.client().await;
    client.raw(format!("GET /healthz HTTP/1.1\r\nx: {}\r\n", "x".repeat(60_000))).await;
    client.raw("y: ".to_owned() + &"y".repeat(60_000)).await;
    assert_eq!(client.reply().await.status, 431);
    serves(&live).await;
    live.stop().await;
}

#[tokio::test]
async fn garbage_is_refused() {
    let live = Live::start().await;
    let garbage: [&[u8]; 4] =
        [b"\0\0\0\0\r\n\r\n", b"{\"jsonrpc\":\"2.0\"}\n", b"GET\r\n\r\n", &[0xff; 1000]];
    for garbage in garbage {
        let mut client = live.client().await;
        client.raw(garbage).await;
        client.raw("\r\n\r\n").await;
        client.end().await;
    }
    serves(&live).await;
    live.stop().await;
}

#[tokio::test]
async fn more_requests_than_allowed_at_once_are_told_to_come_back() {
    let live = Live::limited(HttpLimits { requests: 2, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let holder = client.open("p", "holder").await;
    let ask = |session: u64| json!({"project": "p", "session": session, "resource": "file:a"});
    client.call("acquire", ask(holder)).await;
    let mut waiters = Vec::new();
    for agent in ["one", "two"] {
        let session = client.open("p", agent).await;
        let mut waiter = live.client().await;
        waiter.send("POST", "/v1/acquire", Some(&ask(session).to_string())).await;
        waiters.push(waiter);
        if agent == "one" {
            until(&mut client, "/v1/projects/p/queue?resource=file:a", is_queued).await;
        }
    }
    let mut now = ask(client.open("p", "three").await);
    now["wait_ms"] = json!(0);
    let full = async {
        loop {
            let reply = client.post("acquire", now.clone()).await;
            if reply.status != 409 {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    is(&timeout(PATIENCE, full).await.expect("two wait"), 429, "limit");
    assert_eq!(client.get("/v1/projects").await.status, 200, "it lives");
    waiters.pop();
    let again = async { while client.post("acquire", now.clone()).await.status != 409 {} };
    timeout(PATIENCE, again).await.expect("the place of one who has gone is free");
    let stream = client.ask("GET", "/v1/projects/p/queue?resource=file:a", None).await;
    assert_eq!(stream.json()[0]["agent"], "one", "the other still waits");
    live.stop().await;
}

fn is_queued(queue: &Value) -> bool {
    queue.as_array().is_some_and(|queue| queue.len() == 1)
}

#[tokio::test]
async fn more_streams_than_allowed_are_told_to_come_back() {
    let live = Live::limited(HttpLimits { subscribers: 1, ..HttpLimits::default() }).await;
    let mut first = live.client().await;
    first.send("GET", "/v1/events", None).await;
    assert_eq!(first.head().await.unwrap().status, 200);
    let mut second = live.client().await;
    is(&second.get("/v1/events").await, 429, "limit");
    assert_eq!(second.get("/v1/projects").await.status, 200, "streams have their own bound");
    drop(first);
    let again = async {
        loop {
            second.send("GET", "/v1/events", None).await;
            let head = second.head().await.unwrap();
            if head.status == 200 {
                return;
            }
            let mut body = vec![0; head.header("content-length").unwrap().parse().unwrap()];
            second.wire.read_exact(&mut body).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place is free again");
    live.stop().await;
}

#[tokio::test]
async fn more_connections_than_allowed_are_told_so() {
    let live = Live::limited(HttpLimits { connections: 2, ..HttpLimits::default() }).await;
    let (mut one, mut two) = (live.client().await, live.client().await);
    assert_eq!(one.get("/healthz").await.status, 200);
    assert_eq!(two.get("/healthz").await.status, 200);
    let mut three = live.client().await;
    is(&three.reply().await, 503, "limit");
    three.end().await;
    assert_eq!(one.get("/healthz").await.status, 200, "not disturbed");
    drop(two);
    let again = async {
        loop {
            let mut client = live.client().await;
            client.send("GET", "/healthz", None).await;
            if client.head().await.is_some_and(|head| head.status == 200) {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
    live.stop().await;
}

#[tokio::test]
async fn hundreds_of_idle_connections_disturb_nobody() {
    let live = Live::start().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(live.client().await);
    }
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    let ask = json!({"project": "p", "session": session, "resource": "file:a"});
    client.call("acquire", ask).await;
    for mut one in idle {
        assert_eq!(one.get("/healthz").await.status, 200);
    }
    live.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_nobody_waits_for_it() {
    let live = Live::limited(HttpLimits { unread_for: SOON, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    let reason = "x".repeat(4000);
    for n in 0..200 {
        let ask = json!({"project": "p", "session": session, "resource": format!("file:{n}"),
            "reason": reason});
        client.call("acquire", ask).await;
    }
    // Its answers pile up: a megabyte each, more than the system keeps for anybody.
    let deaf = live.client().await;
    let ask = deaf.written("GET", "/v1/projects/p/locks", None);
    let (mut read, mut write) = deaf.wire.into_inner().into_split();
    let asks = async { while write.write_all(ask.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, asks).await.expect("it is cut");
    let mut buffer = vec![0; 1 << 16];
    while read.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    serves(&live).await;
    until(&mut client, "/v1/projects/p/stats", |stats| stats["holds"] == 200).await;
    let status = client.call("daemon.status", json!({})).await;
    assert!(status["connections"].as_u64().unwrap() <= 2, "{status}");
    live.stop().await;
}

#[tokio::test]
async fn it_does_not_end_for_idleness_while_somebody_listens() {
    let live = Live::with(|_, server, _| server.idle_exit = Some(LATER)).await;
    let mut listener: Client = live.client().await;
    listener.send("GET", "/v1/events", None).await;
    assert_eq!(listener.head().await.unwrap().status, 200);
    tokio::time::sleep(LATER * 2).await;
    serves(&live).await;
    drop(listener);
    let report = live.stopped().await;
    assert_eq!(report.reason, lockkeeper_server::StopReason::Idle);
}

#[tokio::test]
async fn waits_do_not_keep_out_the_release_that_ends_them() {
    let live = Live::limited(HttpLimits { requests: 2, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let session = client.open("p", "holder").await;
    let ask = |session: u64| json!({"project": "p", "session": session, "resource": "file:a"});
    let held = client.call("acquire", ask(session)).await["granted"][0]["lock"].clone();
    let mut waits = Vec::new();
    for at in 0..2_usize {
        let its = client.open("p", &format!("waiter-{at}")).await;
        let mut waiter = live.client().await;
        waiter.send("POST", "/v1/acquire", Some(&ask(its).to_string())).await;
        let queue = "/v1/projects/p/queue?resource=file:a";
        until(&mut client, queue, |seen| seen.as_array().is_some_and(|all| all.len() > at)).await;
        waits.push(waiter);
    }
    let its = client.open("p", "one too many").await;
    assert_eq!(client.post("acquire", ask(its)).await.status, 429);
    client.call("release", json!({"project": "p", "session": session, "lock": held})).await;
    assert_eq!(waits[0].reply().await.status, 200);
    live.stop().await;
}
