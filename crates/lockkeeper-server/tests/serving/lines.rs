//! What comes in is not always a request.

use crate::support::*;
use lockkeeper::wire::code;
use lockkeeper_server::{Limits, ServerConfig};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::net::UnixStream;

async fn with(limits: Limits) -> Daemon {
    let place = Place::new();
    let config = ServerConfig { limits, ..place.server() };
    place.start_with(place.config(), config).await
}

#[tokio::test]
async fn nonsense_is_answered_and_disturbs_nobody() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    for (line, number) in [
        (&b"nonsense"[..], code::PARSE),
        (b"{\"id\":1", code::PARSE),
        (b"\xff\xfe\x00", code::PARSE),
        (b"[]", code::INVALID_REQUEST),
        (b"[{\"id\":1,\"method\":\"ping\"}]", code::INVALID_REQUEST),
        (b"\"text\"", code::INVALID_REQUEST),
        (b"{\"id\":[],\"method\":\"ping\"}", code::INVALID_REQUEST),
        (b"{\"id\":1,\"method\":\"ping\",\"params\":[1]}", code::INVALID_PARAMS),
        (b"{\"id\":1,\"method\":\"ping\",\"params\":{\"pong\":1}}", code::INVALID_PARAMS),
        (b"{\"id\":1,\"method\":\"acquire\",\"params\":{\"project\":\"\"}}", code::INVALID_PARAMS),
        (b"{\"id\":1,\"method\":\"pong\"}", code::NO_METHOD),
        (b"{\"id\":1,\"method\":\"metrics\"}", code::NO_METHOD),
    ] {
        wire.write(line).await;
        wire.write(b"\n").await;
        let told = wire.line().await.unwrap();
        assert_eq!(told["error"]["code"], number, "{}: {told}", String::from_utf8_lossy(line));
    }
    wire.write(b"\n  \r\n\t\n{\"id\":7,\"method\":\"ping\"}\r\n").await;
    assert_eq!(wire.line().await.unwrap()["id"], 7, "blank lines are nothing");
    wire.call("ping", json!({})).await.unwrap();
    daemon.stop().await;
}

/// A line as deep as it is long, wherever that is looked at.
#[tokio::test]
async fn no_depth_of_nesting_brings_it_down() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let (held, lists) = (wire.open("a").await, 100_000);
    let lock = wire.take(held, "file:x").await.unwrap();
    let deep = format!("{}{}", "[".repeat(lists), "]".repeat(lists));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    let open = "[".repeat(lists);
    let asks = format!(r#""project":"p","session":{held},"resource":"file:y""#);
    for nested in [&deep, &objects, &open] {
        for line in [
            nested.clone(),
            format!(r#"{{"id":{nested},"method":"ping"}}"#),
            format!(r#"{{"id":1,"method":{nested}}}"#),
            format!(r#"{{"id":1,"method":"ping","params":{nested}}}"#),
            format!(r#"{{"id":1,"method":"ping","params":{{"x":{nested}}}}}"#),
            format!(r#"{{"id":1,"method":"stats","params":{{"project":{nested}}}}}"#),
            format!(r#"{{"id":1,"method":"audit","params":{{"agent":{nested}}}}}"#),
            format!(r#"{{"id":1,"method":"acquire","params":{{{asks},"metadata":{nested}}}}}"#),
            format!(r#"{{"id":1,"method":"acquire_all","params":{{{asks},"wants":{nested}}}}}"#),
        ] {
            wire.write(line.as_bytes()).await;
            wire.write(b"\n").await;
            let told = wire.line().await.unwrap();
            assert!(told.get("error").is_some(), "{}: {told}", &line[..60]);
        }
    }
    // As a text it is only a text, and whoever looks at it later is not brought down either.
    let ask = json!({"project": "p", "session": held, "resource": "file:y", "wait_ms": 0,
        "metadata": "[".repeat(60_000), "reason": "{\"a\":".repeat(10_000)});
    wire.call("acquire", ask).await.unwrap();
    let list = wire.call("list", json!({"project": "p"})).await.unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    wire.call("audit", json!({"project": "p"})).await.unwrap();
    wire.release(held, &lock).await.unwrap();
    drop(wire);
    let place = daemon.place.clone();
    daemon.stop().await;
    let daemon = place.start().await;
    assert_eq!(daemon.connect().await.stats().await["holds"], 1, "it is read back");
    daemon.stop().await;
}

/// Whoever waits meanwhile does not notice.
#[tokio::test]
async fn a_number_that_nobody_could_have_been_given_is_not_read() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let (held, waits) = (wire.open("a").await, wire.open("b").await);
    let lock = wire.take(held, "file:x").await.unwrap();
    let waiting = wire.ask(waits, "file:x").await;
    for birth in [1_u64 << 53, 1 << 63, u64::MAX] {
        let evil = json!({
            "project": "p", "agent": "evil", "lineage": {"birth": birth, "aborts": 1},
        });
        let told = wire.call("session.open", evil).await.unwrap_err();
        assert_eq!(told["code"], code::INVALID_PARAMS, "{told}");
        let expects = json!({"project": "p", "task": "task:t", "expect_version": birth});
        let told = wire.call("task.reopen", expects).await.unwrap_err();
        assert_eq!(told["data"]["code"], "unknown", "{told}");
    }
    wire.release(held, &lock).await.unwrap();
    wire.answer(waiting).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn ids_come_back_as_they_were_sent() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    for id in ["7", "-1", "1.50", "\"a\\u0062c\"", "123456789012345678901234567890"] {
        wire.write(format!("{{\"id\":{id},\"method\":\"ping\"}}\n").as_bytes()).await;
        let told = wire.line().await.unwrap();
        assert_eq!(told["id"], serde_json::from_str::<Value>(id).unwrap());
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_notification_is_done_and_not_answered() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let session = wire.open_detached("a").await;
    let take = json!({"method": "acquire",
        "params": {"project": "p", "session": session, "resource": "file:x"}});
    wire.write(format!("{take}\n{{\"method\":\"nonsense\"}}\n").as_bytes()).await;
    wire.until(1, 0).await;
    drop(wire);
    let mut other = daemon.connect().await;
    other.call("ping", json!({})).await.unwrap();
    assert_eq!(other.stats().await["holds"], 1, "nobody waited for an answer, so none was lost");
    daemon.stop().await;
}

#[tokio::test]
async fn a_line_that_is_too_long_is_told_so_once_and_the_next_one_is_heard() {
    let daemon = with(Limits { line_bytes: 1_000, ..Limits::default() }).await;
    let mut wire = daemon.connect().await;
    let fits = format!("{{\"id\":1,\"method\":\"ping\"{}}}\n", " ".repeat(1_000 - 24));
    assert_eq!(fits.len(), 1_001);
    wire.write(fits.as_bytes()).await;
    assert_eq!(wire.line().await.unwrap()["id"], 1);
    for _ in 0..3 {
        for _ in 0..100 {
            wire.write(&[b'x'; 999]).await;
        }
        let told = wire.line().await.unwrap();
        assert_eq!(told["error"]["code"], code::LIMIT, "before the line has an end: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains("1000"), "{told}");
        wire.write(b"\n{\"id\":2,\"method\":\"ping\"}\n").await;
        assert_eq!(wire.line().await.unwrap()["id"], 2);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn half_a_request_does_nothing() {
    let daemon = Place::new().start().await;
    let mut other = daemon.connect().await;
    let session = other.open_detached("a").await;
    let take = json!({"id": 1, "method": "acquire",
        "params": {"project": "p", "session": session, "resource": "file:x"}})
    .to_string();
    for end in 1..take.len() {
        let mut wire = daemon.connect().await;
        wire.write(&take.as_bytes()[..end]).await;
        wire.hush().await;
        let told = wire.line().await.unwrap();
        assert_eq!(told["error"]["code"], code::PARSE, "{told}");
        assert!(wire.line().await.is_none());
    }
    assert_eq!(other.stats().await["holds"], 0);
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_has_said_everything_still_gets_his_answers() {
    let daemon = Place::new().start().await;
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let (mine, its) = (other.open_detached("a").await, other.open("b").await);
    let held = other.take(its, "file:x").await.unwrap();
    let ask = json!({"id": 5, "method": "acquire",
        "params": {"project": "p", "session": mine, "resource": "file:x"}});
    // Without the end of the line, as a script may print it.
    wire.write(ask.to_string().as_bytes()).await;
    wire.hush().await;
    other.until(1, 1).await;
    other.release(its, &held).await.unwrap();
    let told = wire.line().await.unwrap();
    assert_eq!(told["id"], 5);
    assert_eq!(told["result"]["granted"][0]["resource"], "file:x");
    assert!(wire.line().await.is_none());
    assert_eq!(other.stats().await["holds"], 1);
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_listens_on_and_then_vanishes_leaves_no_place() {
    let daemon = Place::new().start().await;
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let (mine, its) = (other.open_detached("a").await, other.open("b").await);
    other.take(its, "file:x").await.unwrap();
    let ask = json!({"id": 5, "method": "acquire",
        "params": {"project": "p", "session": mine, "resource": "file:x"}});
    wire.write(format!("{ask}\n").as_bytes()).await;
    wire.hush().await;
    other.until(1, 1).await;
    drop(wire);
    other.until(1, 0).await;
    daemon.stop().await;
}

#[tokio::test]
async fn more_waits_than_a_connection_may_have_are_refused() {
    let daemon = with(Limits { in_flight: 5, sessions: 3, ..Limits::default() }).await;
    let (mut wire, mut other) = (daemon.connect().await, daemon.connect().await);
    let (mine, its) = (wire.open("a").await, other.open("b").await);
    let mut waits = Vec::new();
    for at in 0..5 {
        other.take(its, &format!("file:{at}")).await.unwrap();
        waits.push(wire.ask(mine, &format!("file:{at}")).await);
    }
    other.until(5, 5).await;
    let one_more = wire.ask(mine, "file:0").await;
    let told = wire.answer(one_more).await.unwrap_err();
    assert_eq!((&told["code"], &told["data"]["retryable"]), (&json!(code::LIMIT), &json!(true)));
    other.call("session.close", json!({"project": "p", "session": its})).await.unwrap();
    for id in waits {
        wire.answer(id).await.unwrap();
    }
    wire.open("a2").await;
    wire.open("a3").await;
    let fourth = wire.call("session.open", json!({"project": "p", "agent": "a4"})).await;
    assert_eq!(fourth.unwrap_err()["code"], code::LIMIT);
    wire.call("session.close", json!({"project": "p", "session": mine})).await.unwrap();
    wire.open("a4").await;
    wire.open_detached("a5").await;
    daemon.stop().await;
}

#[tokio::test]
async fn projects_are_bounded_and_named() {
    let daemon = with(Limits { projects: 2, ..Limits::default() }).await;
    let mut wire = daemon.connect().await;
    for (project, number) in
        [("one", None), ("two", None), ("three", Some(code::LIMIT)), ("one", None)]
    {
        let opened = wire.call("session.open", json!({"project": project, "agent": "a"})).await;
        assert_eq!(opened.err().map(|error| error["code"].as_i64().unwrap()), number);
    }
    let long = wire.call("list", json!({"project": "x".repeat(5_000)})).await.unwrap_err();
    assert_eq!(long["code"], code::INVALID_PARAMS);
    daemon.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever comes in in whatever pieces: each line that is not blank is answered once, and a
    /// connection that has said nonsense is as good as another.
    #[test]
    fn every_line_has_its_answer(
        lines in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[\\{\\}\\[\\]\":,a-z0-9 \\\\]{0,60}".prop_map(String::into_bytes),
                Just(br#"{"id":1,"method":"ping"}"#.to_vec()),
                Just(br#"{"id":1,"method":"acquire","params":{"project":"p"}}"#.to_vec()),
                Just(vec![b'y'; 300]),
            ],
            0..30,
        ),
        cut in 1usize..64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let limits = Limits { line_bytes: 200, ..Limits::default() };
            let server = ServerConfig { limits, ..place.server() };
            let daemon = place.start_in_memory(place.config(), server).await;
            let mut bytes = Vec::new();
            let mut answers = 0;
            for mut line in lines {
                line.retain(|&byte| byte != b'\n');
                // A request without an id is done and not answered; these are not asked for.
                let text = std::str::from_utf8(&line).map(str::trim_ascii);
                if text.is_ok_and(|text| text.starts_with('{') && !text.contains("\"id\"")) {
                    continue;
                }
                answers += usize::from(!text.is_ok_and(str::is_empty));
                bytes.extend_from_slice(&line);
                bytes.push(b'\n');
            }
            let mut wire = Wire::new(UnixStream::connect(place.socket()).await.unwrap());
            for piece in bytes.chunks(cut) {
                wire.write(piece).await;
            }
            for _ in 0..answers {
                let told = wire.line().await.expect("an answer to each line");
                assert!(told.get("error").is_some() ^ told.get("result").is_some());
            }
            wire.call("ping", json!({})).await.unwrap();
            daemon.stop().await;
        });
    }
}

#[tokio::test]
async fn waits_do_not_keep_out_the_release_that_ends_them() {
    let daemon = with(Limits { in_flight: 4, ..Limits::default() }).await;
    let mut wire = daemon.connect().await;
    let session = wire.open("holder").await;
    let held = wire.take(session, "file:x").await.unwrap();
    let mut waits = Vec::new();
    for at in 0..4 {
        let its = wire.open(&format!("waiter-{at}")).await;
        waits.push(wire.ask(its, "file:x").await);
    }
    let its = wire.open("one too many").await;
    let too_many = wire.ask(its, "file:x").await;
    let error = wire.answer(too_many).await.unwrap_err();
    assert_eq!(error["code"], lockkeeper::wire::code::LIMIT, "{error}");
    wire.release(session, &held).await.unwrap();
    wire.answer(waits[0]).await.unwrap();
    daemon.stop().await;
}
