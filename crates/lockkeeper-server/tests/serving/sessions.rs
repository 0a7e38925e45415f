//! Sessions and the connections they live by.

use crate::support::*;
use lockkeeper_server::ServerConfig;
use serde_json::json;
use std::{collections::HashSet, time::Duration};

fn attach(session: u64) -> serde_json::Value {
    json!({"project": "p", "session": session})
}

/// A session's life, one message after the other; `{x}` is filled in by what was answered before.
const LIFE: &[(&str, &str)] = &[
    ("session.open", r#"{"agent":"a","kind":"{kind}"}"#),
    ("acquire", r#"{"session":{s},"resource":"file:one","request_id":"a1"}"#),
    ("acquire", r#"{"session":{s},"resource":"file:taken"}"#),
    ("acquire", r#"{"session":{s},"resource":"file:shared","mode":"shared","wait_ms":0}"#),
    ("renew", r#"{"session":{s},"lock":"{lock}"}"#),
    ("upgrade", r#"{"session":{s},"lock":"{lock}"}"#),
    ("release", r#"{"session":{s},"lock":"{lock}"}"#),
    ("acquire_all", r#"{"session":{s},"wants":["file:two","file:three"]}"#),
    ("acquire_all", r#"{"session":{s},"wants":["file:four","file:taken2"],"slice_ms":0}"#),
    ("wait", r#"{"session":{s},"ticket":{ticket}}"#),
    ("task.claim", r#"{"session":{s},"claims":[{"task":"task:t"}]}"#),
    ("task.finish", r#"{"session":{s},"lock":"{lock}","done":true}"#),
    ("task.reopen", r#"{"task":"task:t"}"#),
    ("session.close", r#"{"session":{s}}"#),
];

/// How a life is cut: with half of the last request, with all of it, or with its answer sent.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    Half,
    Sent,
    Decided,
}

/// Lives up to a message, and is cut there; then looks at what is left.
async fn live(daemon: &Daemon, kind: &str, last: usize, cut: Cut) {
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let _ = other.call("task.reopen", json!({"project": "p", "task": "task:t"})).await;
    let its = other.open("holder").await;
    let (mut session, mut lock, mut ticket) = (0, String::new(), 0);
    // What whoever lives was told that it holds; and what is in its way.
    let mut told_held = HashSet::new();
    let mut taken = None;
    let (mut method, mut may_be_found) = ("", 0);
    for (at, (named, params)) in LIFE.iter().enumerate().take(last + 1) {
        method = named;
        let filled = params
            .replace("{kind}", kind)
            .replace("{s}", &session.to_string())
            .replace("{lock}", &lock)
            .replace("{ticket}", &ticket.to_string());
        for blocked in ["file:taken2", "file:taken"] {
            if taken.is_none() && filled.contains(blocked) {
                taken = Some(other.take(its, blocked).await.unwrap());
            }
        }
        let mut params: serde_json::Value = serde_json::from_str(&filled).unwrap();
        params["project"] = json!("p");
        // What has a name can be asked for again, so it may stay.
        may_be_found = u64::from(params.get("request_id").is_some());
        let line = json!({"id": at, "method": method, "params": params}).to_string() + "\n";
        if at == last {
            match cut {
                Cut::Half => wire.write(&line.as_bytes()[..line.len() / 2]).await,
                Cut::Sent | Cut::Decided => wire.write(line.as_bytes()).await,
            }
            if cut == Cut::Decided {
                // So long that the answer is on its way, but nobody reads it.
                for _ in 0..20 {
                    other.stats().await;
                }
            }
            break;
        }
        wire.write(line.as_bytes()).await;
        let is_sliced = filled.contains("slice_ms");
        if !is_sliced && let Some(taken) = taken.take() {
            while other.stats().await["tickets"] != 1 {}
            other.release(its, &taken).await.unwrap();
        }
        let told = loop {
            match wire.line().await.unwrap() {
                note if note.get("method").is_some() => {}
                told => break told,
            }
        };
        let result = &told["result"];
        assert!(result.is_object(), "{method}: {told}");
        if let Some(opened) = result["session_opened"]["session"].as_u64() {
            session = opened;
        }
        if let Some(queued) = result["queued"]["ticket"].as_u64() {
            ticket = queued;
        }
        let none = Vec::new();
        let granted = result["granted"].as_array().unwrap_or(&none).iter();
        let claimed = result["tasks_claimed"].as_array().unwrap_or(&none).iter();
        for grant in granted.chain(claimed.map(|claimed| &claimed["grant"])) {
            grant["lock"].as_str().unwrap().clone_into(&mut lock);
            told_held.insert(lock.clone());
        }
        if matches!(method, "release" | "task.finish") {
            told_held.remove(&lock);
        }
    }
    drop(wire);
    if ticket > 0 && kind == "detached" {
        // A ticket that it was told keeps its place, and is granted in its time.
        other.until_tickets(1 - u64::from(last > 9)).await;
    } else {
        other.until_tickets(0).await;
    }
    other.call("session.close", json!({"project": "p", "session": its})).await.unwrap();
    let mut watch = daemon.connect().await;
    if kind == "attached" {
        watch.until_sessions(0).await;
        return watch.until(0, 0).await;
    }
    let waited = if ticket > 0 && last <= 9 { 2 } else { 0 };
    let held = told_held.len() as u64 + waited;
    // What it asked to end may have ended; everything else is as it was told.
    let may_be = match method {
        _ if cut == Cut::Half => held..=held,
        "release" | "task.finish" => held - 1..=held,
        "session.close" => 0..=held,
        _ => held..=held + may_be_found,
    };
    watch.until_tickets(0).await;
    let deadline = tokio::time::Instant::now() + LONG;
    while !may_be.contains(&watch.stats().await["holds"].as_u64().unwrap()) {
        let holds = watch.call("list", json!({"project": "p"})).await;
        assert!(tokio::time::Instant::now() < deadline, "{method} {cut:?}: {holds:?}");
    }
    if session > 0 {
        let _ = watch.call("session.close", json!({"project": "p", "session": session})).await;
    }
    watch.until(0, 0).await;
    watch.until_sessions(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_is_cut_anywhere_leaves_neither_hold_nor_place() {
    let place = Place::new();
    let daemon = place.start().await;
    for cut in [Cut::Half, Cut::Sent, Cut::Decided] {
        for last in 0..LIFE.len() {
            live(&daemon, "attached", last, cut).await;
        }
    }
    daemon.stop().await;
}

/// What a detached session was told it holds stays; a request whose answer nobody read does not,
/// unless it has a name to be asked for again by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_session_keeps_what_it_was_told_and_no_more() {
    let place = Place::new();
    let daemon = place.start().await;
    for cut in [Cut::Half, Cut::Sent, Cut::Decided] {
        for last in 0..LIFE.len() {
            live(&daemon, "detached", last, cut).await;
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_ticket_that_was_waited_on_keeps_its_place_when_the_caller_vanishes() {
    let daemon = Place::new().start().await;
    let (mut other, mut wire) = (daemon.connect().await, daemon.connect().await);
    let its = other.open("holder").await;
    let held = other.take(its, "file:x").await.unwrap();
    let mine = wire.open_detached("a").await;
    let ask = json!({"project": "p", "session": mine, "resource": "file:x", "slice_ms": 0});
    let ticket = wire.call("acquire", ask).await.unwrap()["queued"]["ticket"].clone();
    let wait = json!({"project": "p", "session": mine, "ticket": ticket});
    wire.send("wait", wait.clone()).await;
    let polled = async |other: &mut Wire| {
        let queue = other.call("queue", json!({"project": "p", "resource": "file:x"})).await;
        queue.unwrap()[0]["poll_by"].is_u64()
    };
    while polled(&mut other).await {}
    drop(wire);
    // It is a ticket again that must be polled in time.
    while !polled(&mut other).await {}
    other.until(1, 1).await;
    let mut back = daemon.connect().await;
    let waits = back.send("wait", wait).await;
    while polled(&mut other).await {}
    other.release(its, &held).await.unwrap();
    assert_eq!(back.answer(waits).await.unwrap()["granted"][0]["ticket"], ticket);
    daemon.stop().await;
}

#[tokio::test]
async fn a_session_moves_to_the_connection_that_attaches_it() {
    let daemon = Place::new().start().await;
    let (mut one, mut two) = (daemon.connect().await, daemon.connect().await);
    let session = one.open("a").await;
    let held = one.take(session, "file:x").await.unwrap();
    let attached = two.call("session.attach", attach(session)).await.unwrap();
    assert_eq!(attached["grants"][0]["lock"], held["lock"]);
    // The first one is closed: whoever still speaks there does not speak for the session any more.
    while one.line().await.is_some() {}
    let mut watch = daemon.connect().await;
    watch.until_sessions(1).await;
    for _ in 0..20 {
        assert_eq!(watch.stats().await["sessions"], 1, "it lives by the other one now");
    }
    two.release(session, &held).await.unwrap();
    drop(two);
    watch.until_sessions(0).await;
    let error = watch.call("session.attach", attach(session)).await.unwrap_err();
    assert_eq!(error["data"]["code"], "session_ended");
    let detached = watch.open_detached("d").await;
    let error = watch.call("session.attach", attach(detached)).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("detached"), "{error}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_session_lingers_if_it_was_asked_to() {
    let daemon = Place::new().start().await;
    let mut watch = daemon.connect().await;
    let (mut long, mut short) = (daemon.connect().await, daemon.connect().await);
    let open = |agent: &str, linger: u64| {
        json!({"project": "p", "agent": agent,
        "linger_ms": linger})
    };
    let (stays, goes) =
        (long.open_as(open("long", 3_600_000)).await, short.open_as(open("short", 50)).await);
    long.take(stays, "file:long").await.unwrap();
    short.take(goes, "file:short").await.unwrap();
    drop(long);
    drop(short);
    watch.until_sessions(1).await;
    assert_eq!(watch.stats().await["holds"], 1);
    let mut back = daemon.connect().await;
    let attached = back.call("session.attach", attach(stays)).await.unwrap();
    assert_eq!(attached["grants"][0]["resource"], "file:long");
    // Attached without a linger, it now ends with this connection.
    drop(back);
    watch.until_sessions(0).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_who_ask_for_an_agents_session_at_once_get_the_same_one() {
    let daemon = Place::new().start().await;
    for round in 0..10 {
        let open = json!({"project": "p", "agent": format!("agent-{round}"), "kind": "detached",
            "reuse": true});
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (place, open) = (daemon.place.clone(), open.clone());
            asked.spawn(async move { place.connect().await.open_as(open).await });
        }
        let found: HashSet<u64> = asked.join_all().await.into_iter().collect();
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let mut wire = daemon.connect().await;
    assert_eq!(wire.stats().await["sessions"], 10);
    let error = wire.call("session.open", json!({"project": "p", "agent": "a", "reuse": true}));
    assert!(error.await.is_err(), "an attached session is nobody else's");
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_opens_a_session_and_vanishes_leaves_none() {
    let daemon = Place::new().start().await;
    for kind in ["attached", "detached"] {
        for _ in 0..50 {
            let mut wire = daemon.connect().await;
            wire.send("session.open", json!({"project": "p", "agent": "a", "kind": kind})).await;
        }
    }
    let mut watch = daemon.connect().await;
    watch.open("w").await;
    watch.until_sessions(1).await;
    daemon.stop().await;
}

#[tokio::test]
async fn attached_sessions_survive_a_daemon_that_dies_until_their_clients_are_back() {
    let place = Place::new();
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let (back, never) = (wire.open("back").await, wire.open("never").await);
    let one = wire.take(back, "file:one").await.unwrap();
    wire.take(never, "file:two").await.unwrap();
    wire.ask(back, "file:two").await;
    wire.until(2, 1).await;
    daemon.kill().await;
    let config = ServerConfig { reattach_grace: Duration::from_millis(400), ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let mut wire = daemon.connect().await;
    assert_eq!(wire.stats().await["holds"], 2, "nothing is lost with the daemon");
    let attached = wire.call("session.attach", attach(back)).await.unwrap();
    assert_eq!(attached["grants"][0]["token"], one["token"]);
    wire.until_sessions(1).await;
    // The other one's hold went to whoever waited for it.
    wire.until(2, 0).await;
    let grants = wire.call("grants", json!({"project": "p", "session": back})).await.unwrap();
    assert_eq!(grants.as_array().unwrap().len(), 2);
    drop(wire);
    daemon.connect().await.until_sessions(0).await;
    daemon.stop().await;
}

/// What the test below runs as a process of its own, to kill it.
#[tokio::test]
async fn as_a_daemon() {
    let Some(folder) = std::env::var_os("LOCKKEEPER_TEST_DAEMON") else { return };
    let folder = std::path::PathBuf::from(folder);
    let config = lockkeeper::Config {
        attached_outlive: true,
        ..lockkeeper::Config::at(folder.join("locks.db"))
    };
    let manager = lockkeeper::LockManager::open_with(config).await.unwrap();
    let config = ServerConfig::at(folder.join("run/it.sock"));
    lockkeeper_server::Server::start(manager, config).await.unwrap().run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_loses_no_hold_that_was_answered() {
    let place = Place::new();
    let folder = place.store().parent().unwrap().to_owned();
    let mut expected = Vec::new();
    let mut session = None;
    for round in 0..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sessions::as_a_daemon"])
            .env("LOCKKEEPER_TEST_DAEMON", &folder)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = tokio::time::Instant::now() + LONG;
        let mut wire = loop {
            match tokio::net::UnixStream::connect(place.socket()).await {
                Ok(stream) => break Wire::new(stream),
                Err(_) => assert!(tokio::time::Instant::now() < deadline, "it starts"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        match session {
            Some(session) => {
                let attached = wire.call("session.attach", attach(session)).await.unwrap();
                let mut there: Vec<String> = attached["grants"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|grant| grant["lock"].as_str().unwrap().to_owned())
                    .collect();
                there.retain(|lock| expected.contains(lock));
                assert_eq!(there.len(), expected.len(), "round {round}");
            }
            None => session = Some(wire.open("a").await),
        }
        let session = session.unwrap();
        let mut ids = Vec::new();
        for at in 0..200 {
            let ask = json!({"project": "p", "session": session,
                "resource": format!("file:{round}/{at}")});
            ids.push(wire.send("acquire", ask).await);
        }
        // Killed in the middle of the answers.
        for id in ids.into_iter().take(50 + 20 * round) {
            let granted = wire.answer(id).await.unwrap();
            expected.push(granted["granted"][0]["lock"].as_str().unwrap().to_owned());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let daemon = place.start().await;
    let mut wire = daemon.connect().await;
    let attached = wire.call("session.attach", attach(session.unwrap())).await.unwrap();
    assert!(attached["grants"].as_array().unwrap().len() >= expected.len());
    daemon.stop().await;
}
