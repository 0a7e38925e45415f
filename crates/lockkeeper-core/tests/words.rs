//! What programs are told by: codes, ids as text, and which names are none.

use lockkeeper_core::{
    Acquire, AskOptions, CallId, Effects, Epoch, Forgetful, Group, GroupJournal, Ledger, Limit,
    LockId, LockMode, LockTable, News, NotSettled, OpenSession, Refusal, Reign, RequestId,
    Resource, ResourceProblem, SessionId, Subject, TableConfig, Task, TaskStatus, TicketId,
    Timestamp, Upgrade,
};

/// Each refusal, its word, its number of old, and whether asking again may help.
#[test]
fn each_refusal_has_its_codes() {
    let session = SessionId::new(Epoch::new(1), 1);
    let ticket = TicketId::new(Epoch::new(1), 2);
    let (lock, resource) = (LockId::from_u128(7), Resource::file("a"));
    let task = Task { resource: Resource::task("t"), version: 3, status: TaskStatus::Done };
    let limit = |limit| Refusal::LimitReached { limit, max: 1 };
    let holds = 1;
    for (refusal, code, legacy, retryable) in [
        (Refusal::Busy { obstacles: vec![] }, "busy", "E301", true),
        (Refusal::TimedOut { obstacles: vec![], waited_ms: 1 }, "timed_out", "E300", true),
        (
            Refusal::AlreadyWaiting { ticket, resource: resource.clone() },
            "already_waiting",
            "E305",
            false,
        ),
        (Refusal::QueueFull { resource: resource.clone(), limit: 1 }, "queue_full", "E301", true),
        (limit(Limit::Sessions), "limit_reached", "E301", true),
        (limit(Limit::HoldsPerSession), "limit_reached", "E301", true),
        (limit(Limit::WaitsPerSession), "limit_reached", "E301", true),
        (limit(Limit::Capacities), "limit_reached", "E301", true),
        (limit(Limit::Tasks), "limit_reached", "E301", true),
        (limit(Limit::Batch), "limit_reached", "E301", false),
        (limit(Limit::TextBytes), "limit_reached", "E301", false),
        (limit(Limit::Slots), "limit_reached", "E301", false),
        (Refusal::SessionEnded { session }, "session_ended", "E303", false),
        (Refusal::StaleToken { lock }, "stale_token", "E303", false),
        (Refusal::NotHolder { lock, holder: None }, "not_holder", "E302", false),
        (Refusal::Unknown(Subject::Ticket(ticket)), "unknown", "E302", false),
        (Refusal::InUse { resource: resource.clone(), holds, waits: 0 }, "in_use", "E301", true),
        (Refusal::EmptyBatch, "empty_batch", "E305", false),
        (Refusal::Revoking { lock, until: Timestamp(1) }, "revoking", "E305", false),
        (
            Refusal::RequestIdReused { request: RequestId::new(1) },
            "request_id_reused",
            "E305",
            false,
        ),
        (Refusal::ClaimFailed { failed: vec![] }, "claim_failed", "E301", true),
        (
            Refusal::VersionMismatch { task: task.clone(), expected: 1 },
            "version_mismatch",
            "E305",
            false,
        ),
        (Refusal::WrongStatus { task }, "wrong_status", "E305", false),
        (Refusal::Cancelled, "cancelled", "E305", false),
        (Refusal::Superseded { ticket }, "superseded", "E305", false),
        (Refusal::Abandoned { ticket }, "abandoned", "E300", true),
        (Refusal::Exhausted, "exhausted", "E305", true),
    ] {
        let told = (refusal.code(), refusal.legacy_code(), refusal.retryable());
        assert_eq!(told, (code, legacy, retryable), "{refusal:?}");
        assert!(!refusal.to_string().is_empty());
    }
}

#[test]
fn an_id_travels_as_text_and_as_a_number() {
    for number in [0, 1, u128::MAX, 1 << 64, (1 << 64) - 1, 0x0190_b5a2_7c1e_7d3a_8f00 << 40 | 5] {
        let lock = LockId::from_u128(number);
        assert_eq!(lock.as_u128(), number);
        assert_eq!(lock.to_string().parse(), Ok(lock), "{lock}");
        assert_eq!(RequestId::new(number).get(), number);
    }
    for text in [
        "",
        "0190b5a2-7c1e-7d3a-8f00-1234567890a",
        "0190b5a2-7c1e-7d3a-8f00-1234567890abc",
        "0190b5a2f7c1e-7d3a-8f00-1234567890ab",
        "0190b5a-27c1e-7d3a-8f00-1234567890ab",
        "0190b5a2-7c1e-7d3a-8f00-1234567890ag",
        "0190b5a2-7c1e-7d3a-8f00-12345-7890ab",
        "+190b5a2-7c1e-7d3a-8f00-1234567890ab",
        "0190b5a27c1e7d3a8f001234567890ab0000",
    ] {
        let error = text.parse::<LockId>().expect_err(text);
        assert!(error.to_string().contains("36 characters"), "{error}");
    }
}

#[test]
fn which_names_are_none() {
    for good in ["git:index", "a-b_c2:x", "gpu:0", "file:a b", "file:\u{a0}", "file:🚀"] {
        assert!(good.parse::<Resource>().is_ok(), "{good}");
    }
    for bad in ["a b:x", "a.b:x", "2a:x", "-a:x", "_a:x", "A:x", "aB:x", "ä:x", "a/b:x"] {
        assert_eq!(bad.parse::<Resource>(), Err(ResourceProblem::Type), "{bad}");
    }
    // Alone, at either end, and several at once.
    for control in ["\n", "\0", "\x1b", "\x1f", "\x7f", "\u{80}", "\u{85}", "\u{9f}"] {
        for key in [control, &format!("{control}a"), &format!("a{control}"), &control.repeat(2)] {
            let text = format!("file:{key}");
            assert_eq!(text.parse::<Resource>(), Err(ResourceProblem::ControlCharacter), "{key:?}");
        }
    }
    let long = Resource::file("12345678");
    assert_eq!((long.problem(8), long.problem(7).is_some()), (None, true));
}

/// A group commit that has nothing to say.
struct Silent;

impl GroupJournal<()> for Silent {
    type Error = std::fmt::Error;

    fn append_groups(&mut self, _: &[Group<'_, ()>]) -> Vec<Result<(), Self::Error>> {
        Vec::new()
    }
}

/// One that writes everything.
struct Writes;

impl GroupJournal<()> for Writes {
    type Error = std::fmt::Error;

    fn append_groups(&mut self, groups: &[Group<'_, ()>]) -> Vec<Result<(), Self::Error>> {
        groups.iter().map(|_| Ok(())).collect()
    }
}

#[test]
fn a_turn_that_is_not_written_says_which_one_is_next() {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    let mut open = |agent: &str| -> Effects {
        table.apply(Timestamp(0), OpenSession { agent: agent.into(), ..OpenSession::default() })
    };
    let mut ledger = Ledger::new(());
    for agent in ["a", "b", "c"] {
        let turns = vec![open(agent)];
        let settled = Effects::settle_groups(vec![(&mut ledger, turns)], &mut Writes);
        assert!(matches!(&settled[..], [Ok(turns)] if turns.len() == 1));
    }
    let turns = vec![open("d")];
    let settled = Effects::settle_groups(vec![(&mut ledger, turns)], &mut Silent).pop();
    let Some(Err(NotSettled::OutOfOrder { expected, found })) = settled else {
        panic!("it was not written: {settled:?}");
    };
    assert_eq!((expected, found), (CallId(4), CallId(4)));
    let failed = NotSettled::Journal(std::fmt::Error);
    assert!(std::error::Error::source(&failed).is_some(), "{failed}");
    let later = open("e");
    let refused = later.settle(&mut Ledger::new(Forgetful)).expect_err("four come before it");
    let said = refused.to_string();
    assert!(said.contains("turn 5") && said.contains("turn 1"), "{said}");
}

#[test]
fn events_are_told_in_order_and_numbered() {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    let mut ledger = Ledger::new(Forgetful);
    let sessions: Vec<SessionId> = ["a", "b"]
        .map(|agent| {
            let open = OpenSession { agent: agent.into(), ..OpenSession::default() };
            let turn = table.apply(Timestamp(0), open);
            assert_eq!(turn.last_event(), 0);
            let settled = turn.settle(&mut ledger).expect("in order");
            assert_eq!((settled.replies().len(), settled.events().len()), (1, 0));
            table.sessions().last().expect("open").session
        })
        .into();
    for (session, number, word) in [(sessions[0], 1, "Locked"), (sessions[1], 2, "Waiting")] {
        let (resource, mode) = (Resource::file("x"), LockMode::Exclusive);
        let options = AskOptions { reason: Some("why".into()), ..AskOptions::default() };
        let turn = table.apply(Timestamp(0), Acquire { session, resource, mode, options });
        assert_eq!(turn.last_event(), number);
        let settled = turn.settle(&mut ledger).expect("in order");
        let told = format!("{:?}", settled.events());
        assert!(told.contains(word) && told.contains("file:x") && told.contains("why"), "{told}");
        assert_eq!(settled.events().last().map(|event| event.seq), Some(number));
    }
}

/// Whoever listens hears what a hold has become.
#[test]
fn an_upgrade_is_news() {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    let mut ledger = Ledger::new(Forgetful);
    let open = OpenSession { agent: "a".into(), ..OpenSession::default() };
    let _ = table.apply(Timestamp(0), open).settle(&mut ledger).expect("in order");
    let session = table.sessions()[0].session;
    let (resource, mode) = (Resource::file("x"), LockMode::Shared);
    let ask = Acquire { session, resource: resource.clone(), mode, options: AskOptions::default() };
    let _ = table.apply(Timestamp(0), ask).settle(&mut ledger).expect("in order");
    let before = table.owner(&resource).expect("held");
    let upgrade = Upgrade { session, lock: before.lock, options: AskOptions::default() };
    let turn = table.apply(Timestamp(0), upgrade).settle(&mut ledger).expect("in order");
    let [event] = turn.events() else { panic!("{:?}", turn.events()) };
    let News::Locked(news) = &event.news else { panic!("{event:?}") };
    let grant = table.grant(before.lock).expect("held");
    assert_eq!((news.lock, news.mode), (before.lock, LockMode::Exclusive));
    assert_eq!(news.token, grant.token, "it is a later one than that of the readers");
}
