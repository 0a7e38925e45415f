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
        methods.push(method);
    }
    methods.dedup();
    assert_eq!(methods, COMMANDS);
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
