//! The audit log as it is read, what sessions remember of it, and what is removed.

use crate::life::{Project, START, ask, carry_over, give_back, held, open};
use lockkeeper_core::*;
use lockkeeper_store::{AuditFilter, PruneBefore, Reader, Snapshot, SqliteStore, Store};
use std::time::Duration;

/// Two projects with a little history.
fn some_history(store: &mut SqliteStore) -> (Project, Project) {
    let mut one = Project::take_over(store, "one");
    let (ann, bob) = (one.open_session(store, "ann"), one.open_session(store, "bob"));
    let grant = one.grant(store, ann, "file:a");
    one.known.now += 1_000;
    one.turn(store, ask(bob, "file:a")).unwrap();
    one.known.now += 1_000;
    one.turn(store, give_back(ann, grant.lock)).unwrap();
    let mut two = Project::take_over(store, "two");
    let eve = two.open_session(store, "eve");
    two.grant(store, eve, "file:a");
    (one, two)
}

fn kinds(reader: &mut dyn Reader, filter: AuditFilter) -> Vec<String> {
    reader.audit(&filter).unwrap().into_iter().map(|row| row.event_type).collect()
}

#[test]
fn the_audit_log_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    some_history(&mut store);
    let mut reader = store.reader().unwrap();
    let one = || AuditFilter { project: Some("one".to_owned()), ..AuditFilter::default() };
    let first = |filter: AuditFilter| AuditFilter { oldest_first: true, ..filter };
    let story = [
        "session_opened",
        "session_opened",
        "lock_granted",
        "lock_waiting",
        "lock_released",
        "lock_granted",
    ];
    assert_eq!(kinds(&mut *reader, first(one())), story);
    let mut backwards = story;
    backwards.reverse();
    assert_eq!(kinds(&mut *reader, one()), backwards);
    assert_eq!(kinds(&mut *reader, AuditFilter::default()).len(), 8);
    let bob = first(AuditFilter { agent: Some("bob".to_owned()), ..one() });
    assert_eq!(kinds(&mut *reader, bob), ["session_opened", "lock_waiting", "lock_granted"]);
    let a = AuditFilter { resource: Some("file:a".to_owned()), ..AuditFilter::default() };
    assert_eq!(kinds(&mut *reader, a).len(), 5);
    let granted = AuditFilter { event_type: Some("lock_granted".to_owned()), ..one() };
    assert_eq!(kinds(&mut *reader, granted).len(), 2);
    let since = AuditFilter { since: Some(Timestamp(START + 1_000)), ..one() };
    assert_eq!(kinds(&mut *reader, since).len(), 3);
    let until = AuditFilter { until: Some(Timestamp(START + 1_000)), ..one() };
    assert_eq!(kinds(&mut *reader, until).len(), 4);
    let after = first(AuditFilter { after_id: Some(4), limit: Some(1), ..one() });
    assert_eq!(kinds(&mut *reader, after), ["lock_released"]);
    // A quote is a letter like others.
    let sneaky = AuditFilter { agent: Some("x' OR '1'='1".to_owned()), ..AuditFilter::default() };
    assert_eq!(kinds(&mut *reader, sneaky).len(), 0);
}

/// Facts that name a lock and nothing else still say whose and of what in their row.
#[test]
fn a_row_says_whose_and_of_what() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let (one, _) = some_history(&mut store);
    let filter = AuditFilter { event_type: Some("lock_released".to_owned()), ..Default::default() };
    let row = store.reader().unwrap().audit(&filter).unwrap().remove(0);
    assert_eq!((row.project_id.as_str(), row.agent_id.as_deref()), ("one", Some("ann")));
    assert_eq!(row.resource.as_deref(), Some("file:a"));
    assert_eq!(row.event_time, Timestamp(START + 2_000));
    let token = row.token.unwrap();
    assert!(token < one.table.grant(one.table.list()[0].lock).unwrap().token);
    assert_eq!(row.details["released"]["remaining"], 0);
    let json = serde_json::to_value(&row).unwrap();
    assert_eq!(json["agent_id"], "ann");
}

#[test]
fn a_reader_sees_what_is_committed_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.history("one").unwrap().len(), 0);
    some_history(&mut store);
    assert_eq!(reader.history("one").unwrap().len(), 6);
    drop(store);
    assert_eq!(reader.history("two").unwrap().len(), 2, "it outlives the store");
}

/// I12 across a restart: what was finished is remembered, in order, and told again.
#[test]
fn i12_a_request_that_is_asked_again_after_a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let bob = project.open_session(&mut store, "bob");
    let id = |number: u128| Some(RequestId::new(number));
    let with = |number, wait| AskOptions { request_id: id(number), wait, ..AskOptions::default() };
    let a = Acquire { options: with(1, None), ..ask(ann, "file:a") };
    let wants =
        vec![(Resource::file("b"), LockMode::Exclusive), (Resource::file("c"), LockMode::Shared)];
    let both = AcquireAll { session: ann, wants, options: with(2, None) };
    let short = Some(Duration::from_millis(500));
    let blocked = Acquire { options: with(3, short), ..ask(bob, "file:a") };
    let a_again: Command = a.clone().into();
    let mut lock = None;
    for command in [a.into(), Command::from(both.clone()), blocked.clone().into()] {
        let replies = project.turn(&mut store, command).unwrap();
        if let Some(Ok(Answer::Granted(grants))) = replies.first().map(|one| &one.outcome) {
            lock = lock.or(Some(grants[0].lock));
        }
    }
    let lock = lock.unwrap();
    let by = Credential::Session(ann);
    let lease = Some(Duration::from_secs(900));
    let renew = Renew { by, lock, lease, shorten: false, request_id: id(4) };
    project.turn(&mut store, renew).unwrap();
    project.known.now += 700;
    project.turn(&mut store, Command::Tick).unwrap();
    let release = Release { by, lock, share: None, request_id: id(5) };
    project.turn(&mut store, release).unwrap();
    drop(store);
    let mut store = open(&path);
    let mut again = Project::take_over(&mut store, "p");
    assert_eq!(again.table.stats().remembered, 5);
    let known = project.known;
    again.known = known;
    let commands =
        [a_again, both.into(), blocked.into(), Command::from(renew), Command::from(release)];
    for command in commands {
        let effects = again.apply(command.clone());
        assert!(effects.records().is_empty(), "{command:?}");
        let replies = again.commit(&mut store, vec![effects]).unwrap();
        match (&command, &replies[0].outcome) {
            (Command::Acquire(ask), outcome) if ask.session == bob => {
                let Err(Refusal::TimedOut { waited_ms, .. }) = outcome else {
                    panic!("{outcome:?}")
                };
                assert_eq!(*waited_ms, 700);
            }
            (Command::Acquire(_), outcome) => assert!(outcome.is_err(), "its hold is over"),
            (Command::AcquireAll(_), Ok(Answer::Granted(grants))) => assert_eq!(grants.len(), 2),
            (Command::Renew(_), Ok(Answer::Renewed { .. })) => {}
            (Command::Release(_), Ok(Answer::Released { remaining: 0, .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A request id that nobody else knows is remembered by the hold that came of it, while that lives:
/// also after a restart, beside those that were named, in their order; and by nothing else.
#[test]
fn i12_a_fleeting_request_is_remembered_by_its_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let (ann, bob) =
        (project.open_session(&mut store, "ann"), project.open_session(&mut store, "bob"));
    let asks = |who, number, fleeting, key: &str| {
        let request_id = Some(RequestId::new(number));
        let options = AskOptions { request_id, fleeting, ..AskOptions::default() };
        Acquire { options, ..ask(who, key) }
    };
    let (kept, over) = (asks(ann, 1, true, "file:kept"), asks(ann, 2, true, "file:over"));
    let taken_back = asks(bob, 3, true, "file:taken-back");
    let mut locks = Vec::new();
    for asked in [&asks(ann, 7, false, "file:first"), &kept, &over, &taken_back] {
        project.known.now += 1;
        let replies = project.turn(&mut store, asked.clone()).unwrap();
        let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
        locks.push(grants[0].lock);
    }
    project.turn(&mut store, give_back(ann, locks[2])).unwrap();
    project.known.now += 1;
    project.turn(&mut store, asks(ann, 8, false, "file:last")).unwrap();
    let reader = rusqlite::Connection::open(&path).unwrap();
    // From the journal alone first, then from the tables.
    for is_carried in [false, true] {
        if is_carried {
            drop(store);
            store = open(&path);
        }
        let named = "SELECT count(*) FROM audit_log
            WHERE event_type = 'lock_granted' AND session_id IS NOT NULL";
        let named: u32 = reader.query_row(named, [], |row| row.get(0)).unwrap();
        let those_named = if is_carried { 2 } else { 0 };
        assert_eq!(named, those_named, "the index knows those that were named");
        let (_, loaded) = Snapshot::read(&path).unwrap().live("p").unwrap().unwrap();
        let remembered: Vec<(SessionId, u128)> = loaded
            .iter()
            .filter_map(|record| match &record.fact {
                Fact::Remembered { session, request_id, .. } => {
                    Some((*session, request_id.unwrap().get()))
                }
                _ => None,
            })
            .collect();
        let wanted = [(ann, 7), (ann, 1), (ann, 8), (bob, 3)];
        assert_eq!(remembered, wanted, "{is_carried}");
    }
    let known = project.known;
    let mut again = Project::take_over(&mut store, "p");
    again.known = known;
    let replies = again.turn(&mut store, kept).unwrap();
    let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
    assert_eq!(grants[0].lock, locks[1], "it asked for that already");
    let target = CancelTarget::Request(RequestId::new(3));
    again.turn(&mut store, Cancel { session: bob, target }).unwrap();
    assert!(again.table.grant(locks[3]).is_none(), "it was taken back");
    let replies = again.turn(&mut store, over).unwrap();
    let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
    assert_ne!(grants[0].lock, locks[2], "that one is over");
}

/// I12: that a task is done is told again after a restart, and so is what was asked before it.
#[test]
fn i12_a_finished_task_is_told_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let id = |number| Some(RequestId::new(number));
    let with = |number| AskOptions { request_id: id(number), ..AskOptions::default() };
    let claims = vec![TaskClaim { task: Resource::task("a"), expect_version: None }];
    let claimed = ClaimTasks { session: ann, claims, options: with(1) };
    let replies = project.turn(&mut store, claimed).unwrap();
    let Ok(Answer::TasksClaimed(tasks)) = &replies[0].outcome else { panic!("{replies:?}") };
    let lock = tasks[0].grant.lock;
    let asked = Acquire { options: with(2), ..ask(ann, "file:a") };
    let granted = project.turn(&mut store, asked.clone()).unwrap().remove(0).outcome;
    let by = Credential::Session(ann);
    let finish = FinishTask { by, lock, done: true, expect_version: None, request_id: id(3) };
    let finished = project.turn(&mut store, finish).unwrap().remove(0).outcome;
    assert!(matches!(&finished, Ok(Answer::TaskMoved(task)) if task.status == TaskStatus::Done));
    drop(store);
    let mut store = open(&path);
    let mut again = Project::take_over(&mut store, "p");
    again.known = project.known;
    for (command, outcome) in [(Command::from(finish), finished), (asked.into(), granted)] {
        let effects = again.apply(command);
        assert_eq!(effects.records(), []);
        let told = again.commit(&mut store, vec![effects]).unwrap().remove(0).outcome;
        assert_eq!(told, outcome);
    }
}

/// I12: of what somebody chose an id for, a restart forgets nothing that was among the latest, also
/// if fleeting requests were granted before it in the same millisecond.
#[test]
fn i12_fleeting_requests_of_the_same_moment_push_out_none_that_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let mut asks = |number: u128, fleeting| {
        let request_id = Some(RequestId::new(number));
        let options = AskOptions { request_id, fleeting, ..AskOptions::default() };
        let asked = Acquire { options, ..ask(ann, &format!("file:{number}")) };
        project.turn(&mut store, asked).unwrap();
    };
    (0..40).for_each(|number| asks(number, true));
    (100..164).for_each(|number| asks(number, false));
    assert_eq!(project.table.stats().remembered, 64);
    let first = Acquire {
        options: AskOptions { request_id: Some(RequestId::new(100)), ..AskOptions::default() },
        ..ask(ann, "file:100")
    };
    // While it lives the table knows it: the same grant again.
    let replies = project.turn(&mut store, first.clone()).unwrap();
    assert!(matches!(replies[0].outcome, Ok(Answer::Granted(_))), "{replies:?}");
    drop(store);
    let mut store = open(&path);
    let mut again = Project::take_over(&mut store, "p");
    again.known = project.known;
    let replies = again.turn(&mut store, first).unwrap();
    assert!(matches!(replies[0].outcome, Ok(Answer::Granted(_))), "{replies:?}");
}

/// What has no id is not remembered by a table; so it must not be by its store either.
#[test]
fn a_fleeting_request_without_an_id_is_remembered_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let options = AskOptions { fleeting: true, ..AskOptions::default() };
    project.turn(&mut store, Acquire { options, ..ask(ann, "file:a") }).unwrap();
    assert_eq!(project.table.stats().remembered, 0);
    drop(store);
    let again = Project::take_over(&mut open(&path), "p");
    assert_eq!(again.table.stats().remembered, 0);
}

#[test]
fn a_session_remembers_its_latest_requests_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    for number in 0..100 {
        let request_id = Some(RequestId::new(number));
        let options = AskOptions { request_id, ..AskOptions::default() };
        let asked = Acquire { options, ..ask(ann, &format!("file:{number}")) };
        project.turn(&mut store, asked).unwrap();
    }
    let claim = store.claim("p").unwrap();
    let loaded = store.load(&claim).unwrap();
    let remembered: Vec<u128> = loaded
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::Remembered { request_id, .. } => Some(request_id.unwrap().get()),
            _ => None,
        })
        .collect();
    assert_eq!(remembered, (36..100).collect::<Vec<u128>>());
}

/// I12: it is requests that are counted, and not how many locks each got or of what kind it is.
#[test]
fn i12_requests_for_many_locks_are_remembered_as_one_each() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let mut locks = Vec::new();
    for number in 0..30 {
        let request_id = Some(RequestId::new(number));
        let options = AskOptions { request_id, reentrant: true, ..AskOptions::default() };
        let name = |half: &str| Resource::file(&format!("{half}-{number}"));
        // Two that are new to it, and one that it has from the first time on.
        let wants = [name("a"), name("b"), Resource::file("common")];
        let wants = wants.map(|name| (name, LockMode::Exclusive)).to_vec();
        let asked = AcquireAll { session: ann, wants, options };
        let replies = project.turn(&mut store, asked).unwrap();
        let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
        locks.push(grants[0].lock);
    }
    for (number, lock) in (30..40).zip(locks) {
        let request_id = Some(RequestId::new(number));
        project.turn(&mut store, Release { request_id, ..give_back(ann, lock) }).unwrap();
    }
    carry_over(&mut store);
    assert_eq!(Project::take_over(&mut store, "p").table.stats().remembered, 40);
}

#[test]
fn what_is_over_and_old_is_removed_in_steps_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    // One hold lives on from the very beginning; forty end, one a second.
    let hours = Some(Duration::from_secs(9_000));
    let options = AskOptions { lease: hours, ..AskOptions::default() };
    project.turn(&mut store, Acquire { options, ..ask(ann, "file:kept") }).unwrap();
    for n in 0..40 {
        let grant = project.grant(&mut store, ann, &format!("file:{n}"));
        project.known.now += 1_000;
        project.turn(&mut store, give_back(ann, grant.lock)).unwrap();
    }
    let live = project.table.list();
    let rows = |sql: &str| {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.query_row(sql, [], |row| row.get::<_, usize>(0)).unwrap()
    };
    // The first half of the holds, the first quarter of the log.
    let before =
        PruneBefore { released: Timestamp(START + 20_500), audit: Timestamp(START + 10_500) };
    let mut steps = Vec::new();
    while let Ok(removed @ 1..) = store.prune(&before, 7) {
        assert!(removed <= 7);
        steps.push(removed);
    }
    assert_eq!(rows("SELECT count(*) FROM resource_locks"), 21);
    // Two facts each, and before them the session and the hold that lives on.
    assert_eq!(rows("SELECT count(*) FROM audit_log"), 82 - 2 - 21);
    assert_eq!(steps.iter().sum::<usize>(), 20 + 23, "{steps:?}");
    assert_eq!(
        rows("SELECT count(*) FROM audit_log WHERE event_time < '2023-11-14T22:13:30.500Z'"),
        0
    );
    // Everything, as if it were much later: the live one stays, and the newest row of the log.
    let before = PruneBefore { released: Timestamp::NEVER, audit: Timestamp::NEVER };
    while let Ok(1..) = store.prune(&before, 500) {}
    assert_eq!(held(&path, "p"), ["kept"]);
    assert_eq!(rows("SELECT count(*) FROM resource_locks"), 1);
    assert_eq!(rows("SELECT count(*) FROM audit_log"), 1);
    // Ids go on, and so does the project.
    project.grant(&mut store, ann, "file:next");
    carry_over(&mut store);
    assert_eq!(rows("SELECT max(id) FROM audit_log"), 83);
    drop(store);
    let again = Project::take_over(&mut open(&path), "p");
    assert_eq!(again.table.list().len(), live.len() + 1);
}

/// Many old holds that live on do not hide the ended ones behind them.
#[test]
fn holds_that_live_on_are_passed_by() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let turns = (0..300).map(|n| project.apply(ask(ann, &format!("file:{n}")))).collect();
    project.commit(&mut store, turns).unwrap();
    let last = project.grant(&mut store, ann, "file:last");
    project.turn(&mut store, give_back(ann, last.lock)).unwrap();
    let before = PruneBefore { released: Timestamp::NEVER, audit: Timestamp(0) };
    assert_eq!(store.prune(&before, 5).unwrap(), 1);
    assert_eq!(store.prune(&before, 5).unwrap(), 0);
    assert_eq!(held(&path, "p").len(), 300);
}

/// What is over is found, however many old holds that live on stand before it.
#[test]
fn what_is_over_is_found_behind_any_number_that_live_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    store.claim("p").unwrap();
    // More than a search looks at in one step, and behind them one that is over.
    let by_hand = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5001)
        INSERT INTO resource_locks (id, project_id, resource_type, resource_key, agent_id,
            acquired_at, timeout_at, session_id, mode, token, lease_ms, ticket, birth, wait_ms,
            released_at)
        SELECT 'lock ' || n, 'p', 'file', n, 'ann', ?1, ?1, 1, 'exclusive', n, 1, n, n, 1,
            iif(n > 5000, ?1, NULL)
        FROM n";
    let db = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(db.execute(by_hand, ["2026-01-01T00:00:00.000Z"]).unwrap(), 5001);
    let before = PruneBefore { released: Timestamp::NEVER, audit: Timestamp(0) };
    assert_eq!(store.prune(&before, 5), Ok(1));
    let left = "SELECT count(*) FROM resource_locks WHERE released_at IS NULL";
    assert_eq!(db.query_row(left, [], |row| row.get::<_, u32>(0)).unwrap(), 5000);
    assert_eq!(store.prune(&before, 5), Ok(0));
}
