//! What cannot be seen from outside: facts written by hand, and a connection that cannot write.

use super::{project::Projector, *};
use lockkeeper_core::{
    Effects, Fact, LockTable, OpenSession, Reign, Resource, TableConfig, Task, TaskStatus,
    Timestamp,
};
use std::slice::from_ref;

fn store(folder: &tempfile::TempDir) -> SqliteStore {
    let busy_wait = Duration::from_millis(10);
    let options = OpenOptions { busy_wait, ..OpenOptions::default() };
    SqliteStore::open(folder.path().join("locks.db"), options).unwrap()
}

/// Writes facts as the first turn of a claim would.
fn write_facts(store: &mut SqliteStore, claim: &Claim, facts: Vec<Fact>) -> Result<(), Trouble> {
    store.make_room()?;
    let mut live = Live::of(live::Rows::read(&store.db, &claim.project)?);
    let mut entry = Entry::new(claim, 1, 0);
    let mut projector = Projector::new(&mut live, &mut entry);
    let mut records = (1..).zip(facts).map(|(at, fact)| Record { at: Timestamp(at), fact });
    records.try_for_each(|record| projector.take(&record))?;
    assert!(entry.write(&store.db)?);
    store.backlog.forget();
    Ok(())
}

fn turn() -> Effects {
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    table.apply(Timestamp(1), OpenSession::default())
}

#[test]
fn i15_tasks_come_back_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let task = |id: &str, version, status| Task { resource: Resource::task(id), version, status };
    let lock = Some(lockkeeper_core::LockId::from_u128(5));
    let moved = |task: Task, lock| Fact::TaskMoved { task, lock };
    let facts = vec![
        moved(task("a", 1, TaskStatus::Claimed), lock),
        moved(task("b", 1, TaskStatus::Claimed), lock),
        moved(task("b", 2, TaskStatus::Done), None),
        moved(task("c", 1, TaskStatus::Open), None),
        Fact::TaskForgotten { task: Resource::task("c") },
    ];
    write_facts(&mut store, &claim, facts.clone()).unwrap();
    let loaded: Vec<Fact> =
        store.load(&claim).unwrap().into_iter().map(|record| record.fact).collect();
    assert_eq!(loaded, [facts[0].clone(), facts[2].clone()]);
    let history = store.reader().unwrap().history("p").unwrap();
    let history: Vec<Fact> = history.into_iter().map(|record| record.fact).collect();
    assert_eq!(history, facts);
}

#[test]
fn a_fact_that_does_not_fit_is_a_contradiction() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let lock = lockkeeper_core::LockId::from_u128(5);
    let session = lockkeeper_core::SessionId::from_u64(5);
    let ticket = lockkeeper_core::TicketId::from_u64(5);
    let cause = lockkeeper_core::ReleaseCause::Released;
    let (share, request_id) = (None, None);
    let cases = [
        Fact::Released { lock, remaining: 0, cause: cause.clone(), share, request_id },
        Fact::Released { lock, remaining: 1, cause, share, request_id },
        Fact::Renewed { lock, expires_at: Timestamp(1), request_id },
        Fact::Reentered { ticket, session, lock, count: 2, request_id },
        Fact::RevocationSet { lock, until: Timestamp(1) },
        Fact::PollSet { ticket, poll_by: None },
        Fact::Left { ticket, session, cause: lockkeeper_core::LeaveCause::Cancelled },
        Fact::WaitDeclared { session, on: session, birth: None },
        Fact::SessionEnded { session, agent: "a".into(), cause: lockkeeper_core::EndCause::Closed },
    ];
    for fact in cases {
        let outcome = write_facts(&mut store, &claim, vec![fact.clone()]);
        assert!(matches!(outcome, Err(Trouble::Contradiction(_))), "{fact:?}: {outcome:?}");
    }
}

#[test]
fn a_connection_that_cannot_write_says_so_and_writes_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let turn = turn();
    let batch = || [Batch { claim: &claim, turns: from_ref(&turn) }];
    store.db.pragma_update(None, "query_only", true).unwrap();
    let refused = store.commit(&batch()).remove(0);
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    assert!(matches!(store.claim("p"), Err(StoreError::ReadOnly { .. })));
    store.db.pragma_update(None, "query_only", false).unwrap();
    assert_eq!(store.commit(&batch()), [Ok(())]);
}

#[test]
fn a_file_that_somebody_else_has_locked_is_named_and_tried_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let turn = turn();
    let batch = || [Batch { claim: &claim, turns: from_ref(&turn) }];
    let browser = Connection::open(&store.path).unwrap();
    browser.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.commit(&batch()).remove(0);
    assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
    browser.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(&batch()), [Ok(())]);
}

/// A commit that fails at its very end leaves no transaction behind.
#[test]
fn a_commit_that_fails_at_the_end_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let turn = turn();
    let batch = || [Batch { claim: &claim, turns: from_ref(&turn) }];
    let trap = "CREATE TABLE trap (id REFERENCES projects (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER trapped AFTER INSERT ON journal
            BEGIN INSERT INTO trap VALUES ('nobody'); END";
    store.db.execute_batch(trap).unwrap();
    let refused = store.commit(&batch()).remove(0);
    assert!(refused.is_err(), "{refused:?}");
    assert!(store.db.is_autocommit());
    store.db.execute_batch("DROP TRIGGER trapped").unwrap();
    assert_eq!(store.load(&claim).unwrap().len(), 0);
    assert_eq!(store.commit(&batch()), [Ok(())]);
    assert_eq!(store.load(&claim).unwrap().len(), 1);
}

#[test]
fn power_is_synced_at_each_commit_and_a_claim_always() {
    let folder = tempfile::tempdir().unwrap();
    for (durability, expected) in [(Durability::Process, 1), (Durability::Power, 2)] {
        let options = OpenOptions { durability, ..OpenOptions::default() };
        let path = folder.path().join(format!("{expected}.db"));
        let mut store = SqliteStore::open(path, options).unwrap();
        let level = |store: &SqliteStore| -> u32 {
            store.db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(level(&store), expected);
        let claim = store.claim("p").unwrap();
        assert_eq!(level(&store), expected, "and back again");
        let turn = turn();
        assert_eq!(store.commit(&[Batch { claim: &claim, turns: from_ref(&turn) }]), [Ok(())]);
        // Whoever must not wait asks that before: with a log that goes on nothing is synced.
        assert_eq!(store.may_wait(), durability == Durability::Power);
        store.carry_over().unwrap();
        assert_eq!(level(&store), expected, "and after carrying over");
        let journal: String =
            store.db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
        // As many KiB of the file are kept in memory, and not as many pages.
        let cache: i64 = store.db.query_row("PRAGMA cache_size", [], |row| row.get(0)).unwrap();
        assert_eq!(cache, -4 * 1024);
    }
}

/// What the engine never got to see is about one batch, too.
#[test]
fn values_that_do_not_fit_are_of_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let (a, b) = (store.claim("a").unwrap(), store.claim("b").unwrap());
    let session = lockkeeper_core::SessionId::from_u64(u64::MAX);
    let (agent, kind, priority) = ("ann".into(), lockkeeper_core::SessionKind::Attached, 0);
    let fact = Fact::SessionOpened { session, agent, kind, priority, birth: None, aborts: 0 };
    let refused = write_facts(&mut store, &a, vec![fact]).unwrap_err();
    assert!(refused.is_of_one_batch(), "{refused:?}");
    let refused = refused.of(&store.path, &a.project);
    assert!(matches!(refused, StoreError::Contradiction { .. }), "{refused:?}");
    // A row of one project that cannot be read.
    let bad = "UPDATE lock_meta SET epoch = -1 WHERE project_id = 'a'";
    store.db.execute_batch(bad).unwrap();
    let turn = turn();
    let batches = [&a, &b].map(|claim| Batch { claim, turns: from_ref(&turn) });
    let outcomes = store.commit(&batches);
    assert!(matches!(outcomes[0], Err(StoreError::Corrupt { .. })), "{outcomes:?}");
    assert_eq!(outcomes[1], Ok(()));
    assert_eq!(store.load(&b).unwrap().len(), 1);
}

/// A session that was struck again and again costs no more than others when it is loaded.
#[test]
fn rows_that_end_no_request_are_read_so_far_and_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    store.claim("p").unwrap();
    let session = lockkeeper_core::SessionId::from_u64(7);
    let insert = |fact: &Fact, times: usize| {
        let sql = "WITH RECURSIVE times (n) AS
                (SELECT 1 UNION ALL SELECT n + 1 FROM times WHERE n < ?3)
            INSERT INTO audit_log (project_id, event_type, event_time, details, session_id)
            SELECT 'p', 'made up', '2026-01-01T00:00:00.000Z', ?1, ?2 FROM times";
        let details = serde_json::to_string(fact).unwrap();
        store.db.execute(sql, (details, session.get(), times)).unwrap();
    };
    let lock = lockkeeper_core::LockId::from_u128(5);
    insert(&Fact::Renewed { lock, expires_at: Timestamp(1), request_id: None }, 1);
    let verdict = Fact::DeadlockFound(Arc::new(lockkeeper_core::DeadlockReport {
        at: Timestamp(1),
        resource: None,
        requester: session,
        victim: session,
        policy: "youngest".to_owned(),
        participants: Vec::new(),
        freed: Vec::new(),
        reduced: false,
    }));
    let remembers = || {
        let rows = live::Rows::read(&store.db, "p").unwrap();
        let memory = memory::of(&store.db, "p", session, &rows, &[], &[]).unwrap();
        assert!(memory.verdict.is_some());
        memory.requests.len()
    };
    insert(&verdict, 1024);
    assert_eq!(remembers(), 1);
    insert(&verdict, 1);
    assert_eq!(remembers(), 0, "the row before so many was read");
}

/// The log of writes is moved into the file again and again; otherwise it would grow for ever.
#[test]
fn the_log_of_writes_does_not_outgrow_what_it_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    let most = u64::from(log::PAGES_MAX);
    // Each writes three pages at least: of the sessions, of the audit log, and how far it goes.
    for _ in 0..most {
        let turn = table.apply(Timestamp(1), OpenSession::default());
        let batch = Batch { claim: &claim, turns: from_ref(&turn) };
        assert_eq!(store.commit(&[batch]), [Ok(())]);
        store.tidy();
    }
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    let log = bytes(&crate::owner::with_ending(&store.path, "-wal"));
    assert!(log < 3 * most * 4096 / 2, "{log} bytes");
    assert!(bytes(&store.path) > 50 * 4096);
    drop(store);
    assert_eq!(self::store(&folder).load(&claim).unwrap().len() as u64, most);
}

/// A panic in the middle of a commit is caught above; its transaction is still open.
#[test]
fn whoever_comes_after_a_panic_leaves_its_transaction_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let first = store.claim("p").unwrap();
    let begin = |store: &SqliteStore| {
        store.db.execute_batch("BEGIN IMMEDIATE; UPDATE lock_meta SET epoch = 77").unwrap();
    };
    begin(&store);
    let second = store.claim("p").unwrap();
    assert_eq!(second.epoch.get(), first.epoch.get() + 1, "what was not committed is gone");
    begin(&store);
    assert!(store.load(&second).is_ok());
    begin(&store);
    let before = PruneBefore { released: Timestamp(0), audit: Timestamp(0) };
    assert_eq!(store.prune(&before, 10), Ok(0));
    assert!(store.db.is_autocommit());
}

/// What a commit had taken into memory when it panicked is on no record, and is not believed.
#[test]
fn what_a_panic_left_in_memory_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let mut table = LockTable::new(TableConfig::default(), Reign::first(1));
    let mut commit = |store: &mut SqliteStore| {
        let turn = table.apply(Timestamp(1), OpenSession::default());
        store.commit(&[Batch { claim: &claim, turns: from_ref(&turn) }])
    };
    assert_eq!(commit(&mut store), [Ok(())]);
    let live = |store: &SqliteStore| store.reigns["p"].live.as_ref().unwrap().sessions.len();
    assert_eq!(live(&store), 1);
    let forgets = store.reigns.get_mut("p").unwrap().live.as_mut().unwrap();
    forgets.sessions.clear();
    store.is_busy = true;
    assert_eq!(commit(&mut store), [Ok(())]);
    assert_eq!(live(&store), 2);
    // Nor is it carried over, whatever is done next.
    let kept = store.reigns.get_mut("p").unwrap().live.as_mut().unwrap();
    let (&gone, _) = kept.sessions.iter().next().unwrap();
    kept.sessions.remove(&gone);
    kept.touched.push(live::Touched::Session(gone));
    store.is_busy = true;
    store.carry_over().unwrap();
    assert_eq!(store.load(&claim).unwrap().len(), 2);
}

/// Whoever was told that a commit failed may ask for it once more, though it was written.
#[test]
fn i16_a_turn_that_is_only_in_the_journal_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let turn = turn();
    let batch = || [Batch { claim: &claim, turns: from_ref(&turn) }];
    assert_eq!(store.commit(&batch()), [Ok(())]);
    store.reigns.clear();
    store.recover();
    let again = store.commit(&batch()).remove(0);
    assert!(matches!(again, Err(StoreError::OutOfOrder { .. })), "{again:?}");
    assert_eq!(store.load(&claim).unwrap().len(), 1);
}

/// From now on nothing can be read of this table.
fn reads_nothing_of(db: &mut Connection, table: Option<&'static str>) {
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
    let judge = move |context: AuthContext<'_>| match context.action {
        AuthAction::Read { table_name, .. } if Some(table_name) == table => Authorization::Deny,
        _ => Authorization::Allow,
    };
    db.authorizer(Some(judge)).unwrap();
}

/// What a failing disk keeps from being read is no project's fault: each goes on afterwards.
#[test]
fn a_journal_that_cannot_be_read_right_now_is_read_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(&folder);
    let claim = store.claim("p").unwrap();
    let turn = turn();
    let batch = || [Batch { claim: &claim, turns: from_ref(&turn) }];
    assert_eq!(store.commit(&batch()), [Ok(())]);
    store.backlog.forget();
    reads_nothing_of(&mut store.db, Some("sessions"));
    assert!(store.claim("p").is_err());
    // Nor is it passed over by whoever asks for all that happened.
    assert!(journal::audit(&store.db, None, schema::NEWEST).is_err());
    reads_nothing_of(&mut store.db, None);
    assert_eq!(journal::audit(&store.db, None, schema::NEWEST).unwrap().len(), 1);
    assert_eq!(store.load(&claim).unwrap().len(), 1);
    assert!(store.claim("p").is_ok());
}
