//! Rows that chance seldom makes: each is written, and read back into a table that goes on exactly
//! like the one that was lost.

use crate::life::{Project, ask, carry_over, contradicting, give_back, held, open, picture};
use lockkeeper_core::*;
use lockkeeper_store::{AuditFilter, Batch, SqliteStore, Store, StoreError};

/// A project, and the table that its rows give.
struct Both {
    _folder: tempfile::TempDir,
    store: SqliteStore,
    project: Project,
}

impl Both {
    fn new() -> Both {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder.path().join("locks.db"));
        let project = Project::take_over(&mut store, "p");
        Both { _folder: folder, store, project }
    }

    fn turn(&mut self, command: impl Into<Command>) -> Vec<Reply> {
        self.project.turn(&mut self.store, command).unwrap()
    }

    fn grant(&mut self, command: impl Into<Command>) -> Grant {
        let replies = self.turn(command);
        let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
        grants[0].clone()
    }

    fn loaded(&mut self) -> Vec<Record> {
        self.store.load(&self.project.claim).unwrap()
    }

    /// Loads the rows into another table, and does all this to both: they say and show the same.
    fn go_on_alike(&mut self, commands: Vec<Command>) {
        let records = self.loaded();
        let mut other = crate::life::rebuilt(&self.project.claim, &records);
        assert_eq!(picture(&self.project.table, true), picture(&other, true));
        for command in commands {
            let now = Timestamp(self.project.known.now);
            let twin = other.apply(now, command.clone());
            let live = self.project.apply(command.clone());
            assert_eq!(live.records(), twin.records(), "{command:?}");
            self.project.commit(&mut self.store, vec![live]).unwrap();
            assert_eq!(picture(&self.project.table, true), picture(&other, true), "{command:?}");
        }
    }
}

fn with_id(number: u128) -> AskOptions {
    AskOptions { request_id: Some(RequestId::new(number)), ..AskOptions::default() }
}

/// I12: whoever asks again after a restart is told which of the permits there are too few of.
#[test]
fn i12_what_a_capacity_ended_is_told_again() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let bob = both.project.open_session(&mut both.store, "bob");
    let (few, many) = (Resource::llm("a"), Resource::llm("m"));
    let has =
        |resource: &Resource, n| DeclareCapacity { resource: resource.clone(), capacity: Some(n) };
    both.turn(has(&few, 1));
    both.turn(has(&many, 4));
    both.grant(Acquire { mode: LockMode::Permit(3), ..ask(ann, "llm:m") });
    // Of the first one there are just enough.
    let wants = vec![(few, LockMode::Permit(1)), (many.clone(), LockMode::Permit(3))];
    let asked = AcquireAll { session: bob, wants, options: with_id(7) };
    assert!(both.turn(asked.clone()).is_empty(), "it waits");
    both.turn(has(&many, 2));
    let told = both.turn(asked.clone()).remove(0).outcome;
    let too_few = Refusal::OverCapacity { resource: many, asked: 3, capacity: 2 };
    assert!(matches!(&told, Err(refusal) if *refusal == too_few), "{told:?}");
    let mut again = Project::take_over(&mut both.store, "p");
    again.known = both.project.known.clone();
    let told_again = again.turn(&mut both.store, asked).unwrap().remove(0).outcome;
    assert_eq!(told_again, told);
}

#[test]
fn a_permit_that_was_cut_keeps_the_slots_it_has_left() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let bob = both.project.open_session(&mut both.store, "bob");
    let resource = Resource::llm("m");
    both.turn(DeclareCapacity { resource: resource.clone(), capacity: Some(4) });
    let permits = |session, n| Acquire {
        session,
        resource: resource.clone(),
        mode: LockMode::Permit(n),
        options: AskOptions::default(),
    };
    let grant = both.grant(permits(ann, 3));
    let (lock, mode) = (grant.lock, LockMode::Permit(1));
    both.turn(Downgrade { session: ann, lock, mode, request_id: None });
    let told = both.project.table.grant(lock).unwrap();
    assert_eq!((told.slots.as_slice(), told.mode), ([0].as_slice(), mode));
    both.go_on_alike(vec![permits(bob, 3).into(), give_back(ann, lock).into()]);
}

/// I12: it is the named acquire of a counted hold that is given back, also after a restart.
#[test]
fn i12_a_counted_hold_keeps_the_acquires_that_are_left() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let again = AskOptions { reentrant: true, ..AskOptions::default() };
    let asked = Acquire { options: again, ..ask(ann, "file:a") };
    let tickets: Vec<TicketId> = (0..3).map(|_| both.grant(asked.clone()).ticket).collect();
    let lock = both.project.table.list()[0].lock;
    let by = Credential::Session(ann);
    let release = |share| Release { by, lock, share: Some(share), request_id: None };
    both.turn(release(tickets[0]));
    let cancel = |ticket| Cancel { session: ann, target: CancelTarget::Ticket(ticket) };
    both.go_on_alike(vec![
        release(tickets[0]).into(),
        cancel(tickets[0]).into(),
        cancel(tickets[1]).into(),
    ]);
    both.go_on_alike(vec![cancel(tickets[1]).into(), cancel(tickets[2]).into()]);
    assert_eq!(both.project.table.stats().holds, 0);
}

/// I10: a victim stays as old as it is, also when it kept holds that were granted before.
#[test]
fn i10_a_victim_that_kept_some_holds_is_still_one_after_a_restart() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let bob = both.project.open_session(&mut both.store, "bob");
    both.grant(ask(ann, "file:a"));
    let kept = both.grant(ask(ann, "file:kept"));
    for name in ["file:b", "file:c", "file:d", "file:e", "file:f"] {
        both.grant(ask(bob, name));
    }
    both.turn(ask(ann, "file:b"));
    both.turn(ask(bob, "file:a"));
    // With some grace the victim may clean up first.
    both.project.known.now += 1_000;
    both.turn(Command::Tick);
    let victim = both.project.table.sessions().into_iter().find(|one| one.session == ann).unwrap();
    assert_eq!((victim.aborts, victim.holds), (1, 1));
    both.go_on_alike(vec![give_back(ann, kept.lock).into(), ask(ann, "file:kept").into()]);
    let later = both.project.table.sessions().into_iter().find(|one| one.session == ann).unwrap();
    assert_eq!((later.birth, later.aborts), (victim.birth, 1));
}

/// I10: an age that was inherited ends with the work, also of somebody who was never a victim.
#[test]
fn i10_an_inherited_age_ends_with_the_work_also_in_the_rows() {
    for aborts in [0, 1] {
        let mut both = Both::new();
        let lineage = Some(Lineage { birth: TicketId::new(Epoch::new(1), 77), aborts });
        let open = OpenSession { agent: "ann".into(), lineage, ..OpenSession::default() };
        let replies = both.turn(open);
        let Ok(Answer::SessionOpened { session }) = replies[0].outcome else { panic!() };
        let lock = both.grant(ask(session, "file:a")).lock;
        // By what was read, and not only by what was written.
        carry_over(&mut both.store);
        both.go_on_alike(vec![]);
        both.turn(give_back(session, lock));
        assert_eq!(both.project.table.sessions()[0].birth, None);
        both.go_on_alike(vec![]);
    }
}

/// I10: work that goes on over a restart is as old as its first lock, also once that is given back.
#[test]
fn i10_work_is_as_old_as_its_first_lock_also_by_what_was_read() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let first = both.grant(ask(ann, "file:a"));
    carry_over(&mut both.store);
    both.go_on_alike(vec![]);
    both.grant(ask(ann, "file:b"));
    both.turn(give_back(ann, first.lock));
    assert_eq!(both.project.table.sessions()[0].birth, Some(first.ticket));
    both.go_on_alike(vec![]);
}

#[test]
fn an_upgrade_is_remembered_by_its_ticket_a_downgrade_is_not() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let shared = Acquire { mode: LockMode::Shared, ..ask(ann, "file:a") };
    let lock = both.grant(shared).lock;
    both.turn(Upgrade { session: ann, lock, options: with_id(1) });
    let request_id = Some(RequestId::new(2));
    both.turn(Downgrade { session: ann, lock, mode: LockMode::Shared, request_id });
    let told: Vec<(u128, bool)> = both
        .loaded()
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::Remembered { request_id, ticket, .. } => {
                Some((request_id.unwrap().get(), ticket.is_some()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, true), (2, false)]);
}

/// The row of a conversion names the token from then on, not the one before.
#[test]
fn the_row_of_a_conversion_names_the_new_token() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let old = both.grant(ask(ann, "file:a"));
    let (lock, mode, request_id) = (old.lock, LockMode::Shared, None);
    both.turn(Downgrade { session: ann, lock, mode, request_id });
    let kind = Some("lock_converted".to_owned());
    let filter = AuditFilter { event_type: kind, ..AuditFilter::default() };
    let rows = both.store.reader().unwrap().audit(&filter).unwrap();
    let new = both.project.table.grant(lock).unwrap().token;
    assert!(new > old.token);
    assert_eq!((rows.len(), rows[0].token), (1, Some(new)));
}

/// A ticket that was told to its asker stays known, also while a call waits on it again.
#[test]
fn a_ticket_that_was_parked_is_remembered_when_it_ends() {
    let mut both = Both::new();
    let ann = both.project.open_session(&mut both.store, "ann");
    let bob = both.project.open_session(&mut both.store, "bob");
    let lock = both.grant(ask(ann, "file:a")).lock;
    let slice = Some(std::time::Duration::ZERO);
    let options = AskOptions { slice, ..AskOptions::default() };
    let replies = both.turn(Acquire { options, ..ask(bob, "file:a") });
    let Ok(Answer::Queued { ticket, .. }) = replies[0].outcome else { panic!("{replies:?}") };
    let wait = Wait { session: bob, ticket, slice: None };
    both.turn(wait);
    both.turn(give_back(ann, lock));
    both.go_on_alike(vec![wait.into()]);
    let replies = both.turn(wait);
    assert!(matches!(&replies[0].outcome, Ok(Answer::Granted(grants)) if grants.len() == 1));
}

/// I11: what was half done when a neighbour's batch failed is done anew, as if for the first time.
#[test]
fn i11_a_hand_over_beside_a_batch_that_fails_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut good = Project::take_over(&mut store, "good");
    let mut bad = Project::take_over(&mut store, "bad");
    let (ann, bob) = (good.open_session(&mut store, "ann"), good.open_session(&mut store, "bob"));
    bad.open_session(&mut store, "eve");
    let lock = good.grant(&mut store, ann, "file:a").lock;
    good.turn(&mut store, ask(bob, "file:a")).unwrap();
    let torn = contradicting(&mut bad, &mut store);
    let fine = good.apply(give_back(ann, lock));
    let outcomes = store.commit(&[
        Batch { claim: &good.claim, turns: std::slice::from_ref(&fine) },
        Batch { claim: &bad.claim, turns: std::slice::from_ref(&torn) },
    ]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
    assert_eq!(held(&path, "good"), ["a"]);
    let claim = good.claim.clone();
    let again = crate::life::rebuilt(&claim, &store.load(&claim).unwrap());
    assert_eq!(picture(&again, true), picture(&good.table, true));
    // A table would pass over a row that is left behind, so it is looked for.
    carry_over(&mut store);
    let db = rusqlite::Connection::open(&path).unwrap();
    let left = "SELECT count(*) FROM lock_tickets";
    assert_eq!(db.query_row(left, [], |row| row.get::<_, u32>(0)).unwrap(), 0);
}

/// The tables are made from the journal: what somebody else did to a row is not believed, whatever
/// comes of the hold.
#[test]
fn a_hold_whose_row_was_touched_by_somebody_else_is_written_anew() {
    let touches = [
        "UPDATE resource_locks SET released_at = acquired_at",
        "DELETE FROM resource_locks",
        // The same row number, another hold that is over.
        "UPDATE resource_locks SET id = 'another', released_at = acquired_at",
    ];
    for touch in touches {
        for what in ["release", "renew", "downgrade", "again"] {
            let mut both = Both::new();
            let ann = both.project.open_session(&mut both.store, "ann");
            let options = AskOptions { reentrant: true, ..AskOptions::default() };
            let asked = Acquire { options, ..ask(ann, "file:a") };
            let lock = both.grant(asked.clone()).lock;
            carry_over(&mut both.store);
            let path = both._folder.path().join("locks.db");
            let db = rusqlite::Connection::open(&path).unwrap();
            assert_eq!(db.execute(touch, []).unwrap(), 1);
            let (by, lease) = (Credential::Session(ann), None);
            let (mode, request_id) = (LockMode::Shared, None);
            both.project.known.now += 1_000;
            let command: Command = match what {
                "release" => give_back(ann, lock).into(),
                "renew" => Renew { by, lock, lease, shorten: false, request_id }.into(),
                "downgrade" => Downgrade { session: ann, lock, mode, request_id }.into(),
                _ => asked.into(),
            };
            both.turn(command);
            carry_over(&mut both.store);
            let records = both.loaded();
            let loaded = crate::life::rebuilt(&both.project.claim, &records);
            let (now, told) = (picture(&loaded, true), picture(&both.project.table, true));
            assert_eq!(now, told, "{what} after {touch}");
        }
    }
}

/// I11, later: what the tables will not have stays in the journal, its project refuses to go on,
/// and the others do go on.
#[test]
fn what_cannot_be_carried_over_stops_its_project_and_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut bad = Project::take_over(&mut store, "bad");
    let mut good = Project::take_over(&mut store, "good");
    let (ann, bob) = (bad.open_session(&mut store, "ann"), good.open_session(&mut store, "bob"));
    // Somebody else wrote an exclusive hold by hand.
    let by_hand = "INSERT INTO resource_locks (id, project_id, resource_type, resource_key,
            agent_id, acquired_at, timeout_at, session_id, mode, token, lease_ms, ticket, birth,
            wait_ms)
        VALUES (?2, 'bad', 'file', 'a', 'eve', ?1, ?1, 1, 'exclusive', 1, 1, 1, 1, 1)";
    let db = rusqlite::Connection::open(&path).unwrap();
    let theirs = LockId::from_u128(1).to_string();
    db.execute(by_hand, ["2026-01-01T00:00:00.000Z", &theirs]).unwrap();
    bad.grant(&mut store, ann, "file:a");
    good.grant(&mut store, bob, "file:a");
    let told = picture(&bad.table, true);
    carry_over(&mut store);
    for _ in 0..2 {
        let turn = bad.apply(ask(ann, "file:b"));
        let batch = Batch { claim: &bad.claim, turns: std::slice::from_ref(&turn) };
        let refused = store.commit(&[batch]).remove(0).unwrap_err();
        let StoreError::Contradiction { project, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(&**project, "bad");
        assert_eq!(store.claim("bad"), Err(refused));
        good.grant(&mut store, bob, &format!("file:{}", good.table.stats().holds));
    }
    assert_eq!(held(&path, "good"), ["1", "2", "a"]);
    // What was acknowledged is still there, also for the next owner; and once nothing is in its
    // way any more, everything goes on.
    assert_eq!(store.reader().unwrap().history("bad").unwrap().len(), 2);
    drop(store);
    let mut store = open(&path);
    assert!(matches!(store.claim("bad"), Err(StoreError::Contradiction { .. })));
    assert!(store.claim("good").is_ok());
    drop(store);
    assert_eq!(db.execute("DELETE FROM resource_locks WHERE id = ?1", [&theirs]).unwrap(), 1);
    let mut store = open(&path);
    let again = Project::take_over(&mut store, "bad");
    assert_eq!(picture(&again.table, true), told);
}
