//! Requests are read as they were written, and as little as possible must be said.

use super::*;
use crate::{Inspect, Stale};
use lockkeeper_core::*;
use serde_json::{json, value::to_raw_value};
use std::time::Duration;

fn read(method: &str, params: serde_json::Value) -> Command {
    let params = to_raw_value(&params).unwrap();
    read_command(method, &params).expect("a known method").expect("its parameters")
}

fn session() -> SessionId {
    SessionId::from_u64(7)
}

#[test]
fn a_request_needs_to_say_no_more_than_what_it_wants() {
    let asked = read("acquire", json!({"project": "p", "session": 7, "resource": "file:a"}));
    let options = AskOptions::default();
    let (session, resource) = (session(), Resource::file("a"));
    let meant = Acquire { session, resource, mode: LockMode::Exclusive, options };
    assert_eq!(asked, meant.into());
}

#[test]
fn a_batch_names_its_members_as_text_or_with_their_mode() {
    let asked = read(
        "acquire_all",
        json!({
            "session": 7,
            "wants": ["file:a", {"resource": "llm:x", "mode": {"permit": 2}}],
            "wait_ms": 0,
        }),
    );
    let wants =
        vec![(Resource::file("a"), LockMode::Exclusive), (Resource::llm("x"), LockMode::Permit(2))];
    let options = AskOptions { wait: Some(Duration::ZERO), ..AskOptions::default() };
    assert_eq!(asked, AcquireAll { session: session(), wants, options }.into());
}

#[test]
fn who_may_release_is_a_session_or_a_token() {
    let lock = "0190b5a2-7c1e-7000-8000-000000000001";
    let by_session = read("release", json!({"session": 7, "lock": lock}));
    let by_token = read("release", json!({"token": 9, "lock": lock}));
    let lock = lock.parse().unwrap();
    let release = |by| Release { by, lock, share: None, request_id: None };
    assert_eq!(by_session, release(Credential::Session(session())).into());
    assert_eq!(by_token, release(Credential::Token(Token::from_u64(9))).into());
}

#[test]
fn every_command_is_read_as_it_was_written() {
    let (session, lock) = (session(), LockId::from_u128(3 << 76));
    let (resource, request_id) = (Resource::file("a"), Some(RequestId::new(11)));
    let by = Credential::Session(session);
    let task = Resource::task("t");
    let options = AskOptions {
        wait: Some(Duration::from_millis(5)),
        slice: Some(Duration::from_millis(6)),
        lease: Some(Duration::from_millis(7)),
        reason: Some("why".into()),
        metadata: Some("{}".into()),
        priority: Some(-3),
        reentrant: true,
        request_id,
        fleeting: false,
    };
    let wants = vec![(resource.clone(), LockMode::Shared), (task.clone(), LockMode::Update)];
    let claims = vec![TaskClaim { task: task.clone(), expect_version: Some(4) }];
    let commands: Vec<Command> = vec![
        EndSession { session, cause: EndCause::OwnerDied }.into(),
        Acquire {
            session,
            resource: resource.clone(),
            mode: LockMode::Permit(2),
            options: options.clone(),
        }
        .into(),
        AcquireAll { session, wants, options: options.clone() }.into(),
        Wait { session, ticket: TicketId::from_u64(8), slice: Some(Duration::ZERO) }.into(),
        Cancel { session, target: CancelTarget::Request(RequestId::new(1)) }.into(),
        Cancel { session, target: CancelTarget::Ticket(TicketId::from_u64(8)) }.into(),
        Release { by, lock, share: Some(TicketId::from_u64(8)), request_id }.into(),
        Renew { by, lock, lease: Some(Duration::from_secs(1)), shorten: true, request_id }.into(),
        Upgrade { session, lock, options: options.clone() }.into(),
        Downgrade { session, lock, mode: LockMode::Shared, request_id }.into(),
        DeclareWait { session, on: SessionId::from_u64(8) }.into(),
        WithdrawWait { session, on: SessionId::from_u64(8) }.into(),
        ForceUnlock { resource: resource.clone(), admin: "me".into(), reason: "why".into() }.into(),
        ReleaseAll { agent: "a".into() }.into(),
        DeclareCapacity { resource: resource.clone(), capacity: Some(3) }.into(),
        ClaimTasks { session, claims, options }.into(),
        FinishTask { by, lock, done: true, expect_version: Some(1), request_id }.into(),
        ReopenTask { task: task.clone(), expect_version: None }.into(),
        ForgetTask { task }.into(),
        Command::Tick,
    ];
    let mut methods = Vec::new();
    for command in commands {
        let (method, params) = write_command(&command).expect("it travels").unwrap();
        assert_eq!(read(method, params), command);
        let mut line = Vec::new();
        write_command_line(7, "p", &command, &mut line).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["method"], &line["params"]["project"]), (&json!(method), &json!("p")));
        assert_eq!(read(method, line["params"].clone()), command);
        methods.push(method);
    }
    methods.dedup();
    assert_eq!(methods, COMMANDS);
}

/// Whoever is far away may come back after this process: to them no id is fleeting.
#[test]
fn nobody_says_from_afar_that_a_request_id_is_fleeting() {
    let request_id = Some(RequestId::new(11));
    let asked = |fleeting| {
        let options = AskOptions { request_id, fleeting, ..AskOptions::default() };
        let (resource, mode) = (Resource::file("a"), LockMode::Exclusive);
        Command::from(Acquire { session: session(), resource, mode, options })
    };
    let (method, params) = write_command(&asked(true)).expect("it travels").unwrap();
    assert!(!params.to_string().contains("fleeting"), "{params}");
    assert_eq!(read(method, params.clone()), asked(false));
    let mut line = Vec::new();
    write_command_line(7, "p", &asked(true), &mut line).unwrap();
    let line = String::from_utf8(line).unwrap();
    assert_eq!(quickly(&line).unwrap().2, asked(false));
    let mut said = params;
    said["fleeting"] = json!(true);
    let said = to_raw_value(&said).unwrap();
    let heard = read_command(method, &said).expect("it is known");
    assert!(heard.is_err() || heard.is_ok_and(|heard| heard == asked(false)));
}

/// What the general way makes of the line, if it makes anything of it.
fn in_general(line: &str) -> Option<(Option<String>, String, Command)> {
    let whole: serde_json::Value = serde_json::from_str(line).ok()?;
    let method = whole["method"].as_str()?;
    let params = to_raw_value(&whole["params"]).ok()?;
    let command = read_command(method, &params)?.ok()?;
    let id = whole.get("id").map(ToString::to_string);
    Some((id, whole["params"]["project"].as_str()?.to_owned(), command))
}

fn quickly(line: &str) -> Option<(Option<String>, String, Command)> {
    let QuickLine { id, project, command } = read_quickly(line.as_bytes())?;
    Some((id.map(|id| id.get().to_owned()), project.into_owned(), command))
}

const LOCK: &str = "0190b5a2-7c1e-7000-8000-000000000001";

#[test]
fn what_is_asked_most_is_read_in_one_go_as_it_is_read_in_general() {
    let lines = [
        r#"{"id":1,"method":"acquire","params":{"project":"p","session":7,"resource":"file:a"}}"#,
        r#" {"jsonrpc":"2.0","id":"x","method":"acquire","params":{"mode":{"permit":2},
            "wait_ms":5,"slice_ms":6,"lease_ms":7,"reason":"a \"b\"","metadata":null,
            "priority":-3,"reentrant":true,"request_id":"0b","resource":"llm:\u0078","session":7,
            "project":"p\n"}} "#,
        &format!(
            r#"{{"id":-2,"method":"release","params":{{"project":"p","session":7,"lock":"{LOCK}",
            "share":4,"request_id":"1"}}}}"#
        ),
        &format!(
            r#"{{"method":"renew","params":{{"session":7,"project":"p","lock":"{LOCK}",
            "shorten":true,"lease_ms":9}}}}"#
        ),
    ];
    for line in lines {
        let quick = quickly(line);
        assert!(quick.is_some(), "{line}");
        assert_eq!(quick, in_general(line), "{line}");
    }
}

#[test]
fn whatever_is_unusual_is_left_to_the_general_way() {
    let with = |params: &str| format!(r#"{{"id":1,"method":"acquire","params":{params}}}"#);
    let usual = |head: &str| {
        let rest = r#""method":"acquire","params":{"project":"p","session":7,"resource":"f:a"}}"#;
        format!("{{{head}{rest}")
    };
    assert!(read_quickly(usual(r#""id":1,"#).as_bytes()).is_some());
    for line in [
        with(r#"{"project":"p","session":7,"resource":"file:a","lese_ms":5}"#),
        with(r#"{"project":"p","session":7,"resource":"file:a","session":8}"#),
        with(r#"{"project":"p","project":"q","session":7,"resource":"file:a"}"#),
        with(r#"{"project":null,"session":7,"resource":"file:a"}"#),
        with(r#"{"session":7,"resource":"file:a"}"#),
        with(r#"{"project":"p","session":7,"resource":"a"}"#),
        with(r#"{"project":"p","session":"x","resource":"file:a"}"#),
        with(r#"{"project":"p","session":7,"resource":"file:a","mode":null}"#),
        with(r#"["p",7,"file:a","shared",1,2,3,null,null,0,false,null]"#),
        with("{}") + "x",
        r#"{"params":{"project":"p","session":7,"resource":"file:a"},"method":"acquire"}"#.into(),
        usual(r#""id":null,"#),
        usual(r#""jsonrpc":"1","#),
        usual(r#""id":1,"id":2,"#),
        usual(r#""id":"\ud83d","#),
        usual(r#""id":1e999,"#),
        format!(r#"{{"method":"release","params":{{"project":"p","token":7,"lock":"{LOCK}"}}}}"#),
        r#"{"method":"acquire_all","params":{"project":"p","session":7,"wants":[]}}"#.into(),
        r#"{"method":"acquire","more":1,"params":{"project":"p","session":7,"resource":"f:a"}}"#
            .into(),
        r#"{"method":"acquire"}"#.into(),
    ] {
        assert!(read_quickly(line.as_bytes()).is_none(), "{line}");
    }
    assert!(read_quickly(b"\xff").is_none());
}

#[test]
fn questions_travel_with_their_spans_in_milliseconds() {
    let stale = Stale { older_than: Duration::from_secs(2) };
    assert_eq!(serde_json::to_value(&stale).unwrap(), json!({"older_than_ms": 2000}));
    let inspect: Inspect =
        serde_json::from_value(json!({"project": "p", "resource": "file:a"})).unwrap();
    assert_eq!(inspect.resource, Resource::file("a"));
}

#[test]
fn a_refusal_comes_back_as_it_was_said() {
    let refusal = Refusal::SessionEnded { session: session() };
    let told = ErrorObject::from(&CallError::Refused(refusal.clone()));
    let line = serde_json::to_string(&told).unwrap();
    let heard: ErrorObject = serde_json::from_str(&line).unwrap();
    assert!(matches!(CallError::from(heard), CallError::Refused(said) if said == refusal));
}

#[test]
fn what_only_a_restart_says_never_travels() {
    assert!(write_command(&Resume { orphaned: true }.into()).is_none());
    assert!(read_command("resume", &to_raw_value(&json!({"orphaned": true})).unwrap()).is_none());
}
