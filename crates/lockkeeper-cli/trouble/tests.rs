//! What people and programs are told of each refusal.

use super::*;
use lockkeeper::{
    Epoch, Holder, LockId, LockMode, Obstacle, Refusal, Resource, SessionId, Subject, Task,
    TaskStatus, TicketId,
};

const NOW: Timestamp = Timestamp(1_795_193_251_425);

fn asker(agent: &str) -> Asker<'_> {
    let wanted = Wanted::Lock { wait_flag: "--wait" };
    Asker { agent, is_named: true, wanted, now: NOW }
}

fn holder(agent: &str) -> Holder {
    Holder {
        resource: Resource::file("src/a.rs"),
        lock: LockId::from_u128(7),
        session: SessionId::new(Epoch::new(1), 1),
        agent: agent.into(),
        mode: LockMode::Exclusive,
        reason: Some("renaming\nthe parser".into()),
        metadata: None,
        acquired_at: Timestamp(NOW.0 - 130_000),
        expires_at: Timestamp(NOW.0 + 170_000),
        revoked_at: None,
    }
}

fn busy(agent: &str, waiting: usize) -> Refusal {
    let resource = Resource::file("src/a.rs");
    let holders = vec![holder(agent)];
    Refusal::Busy { obstacles: vec![Obstacle { resource, holders, held_by: 1, waiting }] }
}

fn told(refusal: Refusal, asker: &Asker<'_>) -> Trouble {
    Trouble::call(&CallError::Refused(refusal), asker)
}

#[test]
fn a_refusal_says_who_why_until_when_how_many_and_what_next() {
    let trouble = told(busy("coder-2", 3), &asker("ann"));
    assert_eq!(
        trouble.text(Style::PLAIN),
        "file:src/a.rs is locked by coder-2, taken 2 min 10 s ago for 'renaming the parser'; its \
         lease ends in 2 min 50 s (16:50:21Z) unless renewed; 3 wait for it\n\
         next: stand in the queue with --wait 10m, or work on something else meanwhile"
    );
    assert_eq!(trouble.exit, Exit::NotObtained);
    let json = trouble.json();
    assert_eq!((&json["ok"], &json["exit"]), (&Value::from(false), &Value::from(75)));
    let error = &json["error"];
    assert_eq!((&error["code"], &error["legacy_code"]), (&"busy".into(), &"E301".into()));
    assert_eq!(error["retryable"], true);
    let holder = &error["obstacles"][0]["holders"][0];
    assert_eq!(holder["agent"], "coder-2");
    assert_eq!(holder["expires_at"], "2026-11-20T16:50:21.425Z");
    assert_eq!((&holder["held_ms"], &holder["expires_in_ms"]), (&130_000.into(), &170_000.into()));
}

/// The one thing a refusal must never teach.
#[test]
fn no_refusal_names_the_way_to_steal() {
    let session = SessionId::new(Epoch::new(1), 1);
    let ticket = TicketId::new(Epoch::new(1), 9);
    let lock = LockId::from_u128(7);
    let resource = Resource::file("src/a.rs");
    let task = Task { resource: Resource::task("7"), version: 3, status: TaskStatus::Done };
    let refusals = [
        busy("coder-2", 0),
        Refusal::TimedOut { obstacles: vec![], waited_ms: 5_000 },
        Refusal::AlreadyHeld { holder: Box::new(holder("ann")) },
        Refusal::AlreadyWaiting { ticket, resource: resource.clone() },
        Refusal::QueueFull { resource: resource.clone(), limit: 3 },
        Refusal::SessionEnded { session },
        Refusal::StaleToken { lock },
        Refusal::NotHolder { lock, holder: None },
        Refusal::NotHolder { lock, holder: Some(Box::new(holder("coder-2"))) },
        Refusal::Unknown(Subject::Ticket(ticket)),
        Refusal::WrongMode { resource, mode: LockMode::Permit(1), capacity: None },
        Refusal::VersionMismatch { task, expected: 2 },
        Refusal::Abandoned { ticket },
    ];
    let wanted = [
        Wanted::Lock { wait_flag: "-w" },
        Wanted::Ticket,
        Wanted::Hold,
        Wanted::Task,
        Wanted::Admin,
    ];
    for refusal in refusals {
        for wanted in wanted {
            let trouble = told(refusal.clone(), &Asker { wanted, ..asker("ann") });
            let all = format!("{}{}", trouble.text(Style::PLAIN), trouble.json());
            for word in ["force", "cleanup", "--as coder-2", "--yes", "\"token\""] {
                assert!(!all.contains(word), "{word:?} in {all}");
            }
            assert!(trouble.next.is_some(), "{all}: and what now?");
        }
    }
}

#[test]
fn each_kind_of_refusal_has_its_exit_code() {
    let lock = LockId::from_u128(7);
    let ticket = TicketId::new(Epoch::new(1), 9);
    let other = Box::new(holder("coder-2"));
    for (refusal, exit) in [
        (busy("coder-2", 0), 75),
        (Refusal::TimedOut { obstacles: vec![], waited_ms: 0 }, 75),
        (Refusal::Abandoned { ticket }, 75),
        (Refusal::Cancelled, 75),
        (Refusal::NotHolder { lock, holder: None }, 76),
        (Refusal::Unknown(Subject::Ticket(ticket)), 76),
        (Refusal::StaleToken { lock }, 76),
        (Refusal::NotHolder { lock, holder: Some(other) }, 77),
        (Refusal::EmptyBatch, 2),
        (Refusal::Exhausted, 69),
    ] {
        assert_eq!(told(refusal.clone(), &asker("ann")).exit.code(), exit, "{refusal:?}");
    }
    let store = CallError::Unavailable(Unavailable::Store(StoreError::Closed));
    assert_eq!(Trouble::call(&store, &asker("ann")).exit.code(), 74);
    let down = CallError::Unavailable(Unavailable::ShutDown);
    assert_eq!(Trouble::call(&down, &asker("ann")).exit.code(), 69);
}

#[test]
fn who_has_no_name_is_told_to_take_one() {
    let asker = Asker { is_named: false, ..asker("ann@pts/1") };
    let trouble = told(Refusal::AlreadyHeld { holder: Box::new(holder("ann@pts/1")) }, &asker);
    let next = trouble.next.unwrap();
    assert!(next.contains("--as") && next.contains("LOCKKEEPER_AGENT"), "{next}");
}
