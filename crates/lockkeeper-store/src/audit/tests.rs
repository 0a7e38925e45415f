//! The word of each fact, against the table of words in the documentation.

use super::*;
use lockkeeper_core::{
    DeadlockReport, EndCause, Epoch, Granted, LeaveCause, LockId, LockMode, Outcome, Queued,
    Resource, SessionId, SessionKind, Task, TaskStatus, TicketId,
};
use std::sync::Arc;

/// Every fact there is, and its word.
fn facts() -> Vec<(Fact, &'static str)> {
    let (epoch, at) = (Epoch::new(1), Timestamp(1));
    let (session, on) = (SessionId::new(epoch, 1), SessionId::new(epoch, 2));
    let (ticket, token) = (TicketId::new(epoch, 3), Token::new(epoch, 4));
    let (lock, resource, mode) = (LockId::from_u128(5), Resource::file("a"), LockMode::Exclusive);
    let agent = || Arc::from("ann");
    let task = Task { resource: Resource::task("t"), version: 1, status: TaskStatus::Open };
    let queued = Queued {
        ticket,
        session,
        wants: vec![(resource.clone(), mode)],
        built_on: vec![],
        upgrade: false,
        wait_until: at,
        lease_ms: 1,
        priority: 0,
        reason: None,
        metadata: None,
        request_id: None,
    };
    let granted = Granted {
        lock,
        ticket,
        session,
        resource: resource.clone(),
        mode,
        token,
        slots: vec![],
        lease_ms: 1,
        expires_at: at,
        wait_ms: 0,
        reason: None,
        metadata: None,
        request_id: None,
        fleeting: false,
    };
    let report = DeadlockReport {
        at,
        resource: None,
        requester: session,
        victim: on,
        policy: "youngest".to_owned(),
        participants: vec![],
        freed: vec![],
        reduced: false,
    };
    let kind = SessionKind::Detached;
    let released = |remaining, cause| {
        let (share, request_id) = (None, None);
        Fact::Released { lock, remaining, cause, share, request_id }
    };
    let forced = || ReleaseCause::Forced { admin: Arc::from("root"), reason: Arc::from("stuck") };
    let (agent_of, birth, request_id) = (agent(), None, None);
    let (opened, ended) = (agent(), EndCause::Closed);
    let mut facts = vec![
        (
            Fact::SessionOpened { session, agent: opened, kind, priority: 0, birth, aborts: 0 },
            "session_opened",
        ),
        (Fact::SessionEnded { session, agent: agent_of, cause: ended }, "session_ended"),
        (Fact::Queued(Box::new(queued)), "lock_waiting"),
        (Fact::Left { ticket, session, cause: LeaveCause::TimedOut }, "wait_left"),
        (Fact::PollSet { ticket, poll_by: None }, "ticket_polled"),
        (Fact::Granted(granted), "lock_granted"),
        (Fact::Reentered { ticket, session, lock, count: 2, request_id }, "lock_reentered"),
        (released(0, ReleaseCause::Released), "lock_released"),
        (released(0, ReleaseCause::Cancelled), "lock_released"),
        (released(0, ReleaseCause::ReleasedAll), "lock_released"),
        (released(0, ReleaseCause::SessionEnded(ended)), "lock_released"),
        (released(0, ReleaseCause::Expired), "lease_expired"),
        (released(0, ReleaseCause::Deadlock), "lock_revoked"),
        (released(0, forced()), "force_release"),
        (Fact::Renewed { lock, expires_at: at, request_id }, "lock_renewed"),
        (Fact::Converted { lock, ticket, mode, token, request_id }, "lock_converted"),
        (Fact::RevocationSet { lock, until: at }, "lock_revoking"),
        (Fact::WaitDeclared { session, on, birth }, "wait_declared"),
        (Fact::WaitWithdrawn { session, on }, "wait_withdrawn"),
        (Fact::CapacityDeclared { resource, capacity: Some(1) }, "capacity_declared"),
        (Fact::TaskForgotten { task: task.resource.clone() }, "task_forgotten"),
        (Fact::TaskMoved { task, lock: None }, "task_moved"),
        (Fact::Resumed { poll_by: at }, "resumed"),
        (
            Fact::Remembered {
                session,
                request_id,
                ticket: None,
                outcome: Outcome::Released(lock, 0),
            },
            "remembered",
        ),
        (Fact::DeadlockFound(Arc::new(report)), "deadlock_detected"),
    ];
    // However one of several acquires of a hold is given back, the hold goes on.
    for cause in [ReleaseCause::Released, ReleaseCause::Cancelled] {
        for remaining in [1, 2, u32::MAX] {
            facts.push((released(remaining, cause.clone()), "lock_counted_down"));
        }
    }
    facts
}

#[test]
fn every_fact_has_its_word() {
    for (fact, word) in facts() {
        assert_eq!(event_type(&fact), word, "{fact:?}");
    }
}

/// Who filters the log looks the words up there.
#[test]
fn the_documentation_has_these_words_and_no_others() {
    let table = include_str!("../lib.rs")
        .lines()
        .skip_while(|line| !line.contains("| `event_type` |"))
        .take_while(|line| line.starts_with("//! |"));
    let mut documented: Vec<&str> = table
        .skip(2)
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|words| words.split('`').skip(1).step_by(2))
        .collect();
    let mut words: Vec<&str> = facts().into_iter().map(|(_, word)| word).collect();
    for list in [&mut documented, &mut words] {
        list.sort_unstable();
        list.dedup();
    }
    assert_eq!(documented, words);
}
