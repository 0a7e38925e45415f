//! What is in the journal and not in the tables yet: whoever asks sees it, and other programs see
//! it soon.

use crate::life::{self, Project, Step, ask, carry_over, open};
use lockkeeper_core::*;
use lockkeeper_store::{
    AuditFilter, AuditRow, Claim, OpenOptions, Retention, Snapshot, SqliteStore, Store, Writer,
    WriterOptions,
};
use proptest::prelude::*;
use rusqlite::Connection;
use std::{path::Path, sync::mpsc::channel, time::Duration};

/// Everything that can be asked of a store.
#[derive(PartialEq, Debug)]
struct Seen {
    audits: Vec<Vec<AuditRow>>,
    histories: Vec<Vec<Record>>,
    live: Vec<Option<(Claim, Vec<Record>)>>,
}

fn look(store: &SqliteStore, path: &Path) -> Seen {
    let mut reader = store.reader().unwrap();
    let mut snapshot = Snapshot::read(path).unwrap();
    let all = AuditFilter { limit: Some(usize::MAX), ..AuditFilter::default() };
    let of_q = AuditFilter { project: Some("q".to_owned()), ..all.clone() };
    let filters = [
        all.clone(),
        of_q.clone(),
        AuditFilter { oldest_first: true, limit: Some(30), ..all.clone() },
        AuditFilter { oldest_first: true, after_id: Some(40), ..of_q.clone() },
        AuditFilter { event_type: Some("lock_granted".to_owned()), limit: Some(3), ..all.clone() },
        AuditFilter { agent: Some("agent-1".to_owned()), ..all.clone() },
        AuditFilter { since: Some(Timestamp(life::START + 900)), ..of_q.clone() },
        AuditFilter { until: Some(Timestamp(life::START + 900)), ..of_q },
        AuditFilter { resource: Some("file:a".to_owned()), ..all },
    ];
    let mut audits = Vec::new();
    for filter in &filters {
        audits.push(reader.audit(filter).unwrap());
        audits.push(snapshot.audit(filter).unwrap());
    }
    Seen {
        audits,
        histories: ["p", "q"].map(|name| reader.history(name).unwrap()).into(),
        live: ["p", "q"].map(|name| snapshot.live(name).unwrap()).into(),
    }
}

fn some_turns(project: &mut Project, store: &mut SqliteStore, steps: &[Step]) {
    for step in steps {
        let command = project.known.command(&project.table, *step);
        project.turn(store, command).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Not even the numbers in the audit log are others once all is carried over; and the next
    /// owner finds the same, whether or not it was.
    #[test]
    fn carrying_over_changes_nothing_that_can_be_seen(
        of_p in life::steps(120),
        of_q in life::steps(120),
        rounds in 1..5_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        let options = OpenOptions { lag: Duration::MAX, ..OpenOptions::default() };
        let mut store = SqliteStore::open(&path, options).unwrap();
        let mut p = Project::take_over(&mut store, "p");
        let mut q = Project::take_over(&mut store, "q");
        let parts = |steps: &[Step]| -> Vec<Vec<Step>> {
            steps.chunks(steps.len().div_ceil(rounds)).map(<[Step]>::to_vec).collect()
        };
        let (of_p, of_q) = (parts(&of_p), parts(&of_q));
        for round in 0..rounds {
            some_turns(&mut p, &mut store, of_p.get(round).map_or(&[], Vec::as_slice));
            some_turns(&mut q, &mut store, of_q.get(round).map_or(&[], Vec::as_slice));
            let before = look(&store, &path);
            carry_over(&mut store);
            prop_assert_eq!(&before, &look(&store, &path));
        }
        some_turns(&mut p, &mut store, &of_p[0]);
        let before = look(&store, &path);
        let claim = store.claim("p").unwrap();
        prop_assert_eq!(&store.load(&claim).unwrap(), &before.live[0].as_ref().unwrap().1);
    }
}

/// Other programs see the tables no later than was said, also if nothing more happens and whether
/// the turn was written by the thread or in place.
#[test]
fn the_tables_follow_by_themselves() {
    for in_place in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        // Nothing else calls the thread.
        let retention = Retention { released: None, audit: None, ..Retention::default() };
        let options = WriterOptions { in_place, retention, ..WriterOptions::default() };
        let writer = Writer::start(Box::new(open(&path)), options).unwrap();
        let (tell, told) = channel();
        writer.claim("p".into(), move |claimed| tell.send(claimed).unwrap());
        let (claim, records) = told.recv().unwrap().unwrap();
        let mut table = life::rebuilt(&claim, &records);
        let other = Connection::open(&path).unwrap();
        let rows = || -> u64 {
            let sql = "SELECT count(*) FROM audit_log";
            other.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        // Once, and once more when everything was at rest.
        for round in 1..=2 {
            let (tell, told) = channel();
            let turn = table.apply(Timestamp(life::START), OpenSession::default());
            writer.submit(&claim, turn, move |settled| tell.send(settled.is_ok()).unwrap());
            assert!(told.recv().unwrap());
            let began = std::time::Instant::now();
            while rows() < round {
                assert!(began.elapsed() < Duration::from_secs(20), "{in_place}: they never did");
                std::thread::yield_now();
            }
        }
    }
}

/// What the unique index would only refuse later is refused before it is acknowledged.
#[test]
fn the_journal_does_not_take_what_the_tables_would_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    // A table that has not heard of the first grant gives a second one.
    let records = store.load(&project.claim).unwrap();
    let mut other = life::rebuilt(&project.claim, &records);
    project.grant(&mut store, ann, "file:a");
    let next = project.apply(Command::Tick).call();
    let second = loop {
        let turn = other.apply(Timestamp(project.known.now), ask(ann, "file:a"));
        if turn.call() == next {
            break turn;
        }
        for hold in other.list() {
            drop(other.apply(Timestamp(project.known.now), life::give_back(ann, hold.lock)));
        }
    };
    let turns = [second];
    let batch = lockkeeper_store::Batch { claim: &project.claim, turns: &turns };
    let refused = store.commit(&[batch]).remove(0).unwrap_err();
    assert!(refused.to_string().contains("held"), "{refused}");
    assert_eq!(life::held(&path, "p"), ["a"]);
}

/// A second way to it: when there is much, it is not waited for.
#[test]
fn much_is_carried_over_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let options = OpenOptions { lag: Duration::MAX, ..OpenOptions::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    let other = Connection::open(&path).unwrap();
    let count = |table: &str| -> usize {
        let sql = format!("SELECT count(*) FROM {table}");
        other.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    for n in 1..=300 {
        project.open_session(&mut store, "ann");
        assert_eq!(count("journal") + count("audit_log"), n);
        assert!(n > 200 || count("audit_log") == 0, "at {n} there is not much");
    }
    assert!(count("audit_log") > 200, "{}", count("audit_log"));
}

/// I11: of a project whose journal is damaged nothing is believed; the others go on.
#[test]
fn a_damaged_entry_stops_its_project_and_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let options = OpenOptions { lag: Duration::MAX, ..OpenOptions::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    let bad = Project::take_over(&mut store, "bad");
    let mut good = Project::take_over(&mut store, "good");
    good.open_session(&mut store, "ann");
    let other = Connection::open(&path).unwrap();
    let entry = "INSERT INTO journal (project_id, epoch, seq, last_event, facts)
        VALUES ('bad', ?1, 1, 0, '[[1,{\"nonsense\":1}]]')";
    other.execute(entry, [bad.claim.epoch.get()]).unwrap();
    let refused = store.claim("bad").unwrap_err();
    assert!(matches!(refused, lockkeeper_store::StoreError::Corrupt { .. }), "{refused:?}");
    let names = |table: &str| -> Vec<String> {
        let mut all = other.prepare(&format!("SELECT project_id FROM {table}")).unwrap();
        let all = all.query_map([], |row| row.get(0)).unwrap();
        all.map(Result::unwrap).collect()
    };
    assert_eq!((names("journal"), names("audit_log")), (vec!["bad".into()], vec!["good".into()]));
    good.open_session(&mut store, "bob");
    let all = AuditFilter::default();
    assert_eq!(store.reader().unwrap().audit(&all).unwrap().len(), 2, "what can be read is told");
    let of_bad = AuditFilter { project: Some("bad".to_owned()), ..all };
    assert!(store.reader().unwrap().audit(&of_bad).is_err());
    assert_eq!(Project::take_over(&mut store, "good").table.sessions().len(), 2);
}
