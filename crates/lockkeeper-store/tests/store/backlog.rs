//! What is in the journal and owed to the tables: when it is carried over, and what if it cannot
//! be. The tables refuse what a test has told them to by a trigger: the journal knows nothing of
//! that, and takes it.

use crate::life::{self, Project, ask, carry_over, held};
use lockkeeper_core::*;
use lockkeeper_store::{Batch, OpenOptions, Snapshot, SqliteStore, Store, StoreError};
use rusqlite::Connection;
use std::{
    fs,
    path::PathBuf,
    slice::from_ref,
    time::{Duration, Instant},
};

/// How many bytes more than at first a store may have.
const ROOM: u64 = 16_000_000;

/// A store that carries nothing over by itself, and somebody else who looks into its file.
struct Owing {
    _folder: tempfile::TempDir,
    path: PathBuf,
    other: Connection,
    store: SqliteStore,
}

impl Owing {
    fn new() -> Owing {
        Owing::with(Duration::MAX)
    }

    fn with(lag: Duration) -> Owing {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        drop(life::open(&path));
        let bytes_max = Some(fs::metadata(&path).unwrap().len() + ROOM);
        let options = OpenOptions { lag, bytes_max, ..OpenOptions::default() };
        let store = SqliteStore::open(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        Owing { _folder: folder, path, other, store }
    }

    /// From now on a table will have nothing of a project.
    fn refuses(&self, table: &str, project: &str) {
        let then = "SELECT RAISE(ABORT, 'as the test wants it')";
        self.trap("refused", table, project, then);
    }

    /// From now on there is no room where a table takes something of a project.
    fn is_full(&self, table: &str, project: &str) {
        self.other.execute_batch("CREATE TABLE ballast (bytes BLOB)").unwrap();
        let then = format!("INSERT INTO ballast VALUES (zeroblob({ROOM}))");
        self.trap("full", table, project, &then);
    }

    fn trap(&self, name: &str, table: &str, project: &str, then: &str) {
        let trap = format!(
            "CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN new.project_id = '{project}'
             BEGIN {then}; END"
        );
        self.other.execute_batch(&trap).unwrap();
    }

    fn heals(&self, name: &str) {
        self.other.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }

    /// Of which projects a table has rows, one name for each.
    fn rows(&self, table: &str) -> Vec<String> {
        let sql = format!("SELECT project_id FROM {table} ORDER BY id");
        let mut all = self.other.prepare(&sql).unwrap();
        let all = all.query_map([], |row| row.get(0)).unwrap();
        all.map(Result::unwrap).collect()
    }
}

/// I11, later: what the tables refuse stops its project, before and behind others in the alphabet;
/// those are carried over, and go on.
#[test]
fn i11_what_the_tables_refuse_stops_its_project_and_no_other_one() {
    let mut owing = Owing::new();
    let [mut early, mut bad, mut late] =
        ["early", "in the way", "late"].map(|name| Project::take_over(&mut owing.store, name));
    owing.refuses("sessions", "in the way");
    for project in [&mut bad, &mut early, &mut late] {
        project.open_session(&mut owing.store, "ann");
    }
    assert_eq!((owing.rows("journal").len(), owing.rows("audit_log").len()), (3, 0));
    carry_over(&mut owing.store);
    assert_eq!(owing.rows("journal"), ["in the way"]);
    assert_eq!(owing.rows("audit_log"), ["early", "late"]);
    // Those are owed nothing any more, and what comes next is carried over as ever.
    for project in [&mut early, &mut late] {
        project.open_session(&mut owing.store, "bob");
    }
    carry_over(&mut owing.store);
    assert_eq!(owing.rows("journal"), ["in the way"]);
    assert_eq!(owing.rows("audit_log"), ["early", "late", "early", "late"]);
    let turn = bad.apply(OpenSession::default());
    let batch = Batch { claim: &bad.claim, turns: from_ref(&turn) };
    let refused = owing.store.commit(&[batch]).remove(0).unwrap_err();
    let StoreError::Contradiction { project, detail } = &refused else { panic!("{refused:?}") };
    assert_eq!((&**project, detail.contains("as the test wants it")), ("in the way", true));
    assert_eq!(owing.store.claim("in the way"), Err(refused));
    assert!(owing.store.claim("early").is_ok() && owing.store.claim("late").is_ok());
}

/// That there is no room is no project's fault: once there is some again, it goes on.
#[test]
fn what_ails_the_whole_store_stops_no_project_for_ever() {
    let mut owing = Owing::new();
    let [mut bad, mut fine] =
        ["bad", "fine"].map(|name| Project::take_over(&mut owing.store, name));
    owing.refuses("audit_log", "bad");
    owing.is_full("sessions", "fine");
    bad.open_session(&mut owing.store, "ann");
    let ann = fine.open_session(&mut owing.store, "ann");
    // All together fail because of the one, so each is carried over for itself, and for the other
    // one there is no room.
    carry_over(&mut owing.store);
    assert_eq!(owing.rows("journal"), ["bad", "fine"]);
    owing.heals("full");
    fine.grant(&mut owing.store, ann, "file:a");
    carry_over(&mut owing.store);
    assert_eq!(owing.rows("journal"), ["bad"]);
    assert_eq!(owing.rows("audit_log"), ["fine", "fine"]);
    assert!(matches!(owing.store.claim("bad"), Err(StoreError::Contradiction { .. })));
}

/// A store in trouble is left alone for a while, however little may be owed for how long: whoever
/// comes by would only fail again.
#[test]
fn what_could_not_be_carried_over_is_tried_again_later() {
    for lag in [Duration::ZERO, Duration::MAX] {
        let mut owing = Owing::with(lag);
        let mut project = Project::take_over(&mut owing.store, "p");
        owing.is_full("audit_log", "p");
        let began = Instant::now();
        project.open_session(&mut owing.store, "ann");
        carry_over(&mut owing.store);
        let again = owing.store.tidy_by().expect("it is tried again");
        assert!(again > began, "{lag:?}: it is tried again at once");
        // Whoever goes on meanwhile puts it off no further, and brings it no nearer.
        project.open_session(&mut owing.store, "bob");
        let meanwhile = owing.store.tidy_by();
        assert!(meanwhile >= Some(again), "{lag:?}: {meanwhile:?}");
        owing.heals("full");
        carry_over(&mut owing.store);
        assert_eq!((owing.rows("journal").len(), owing.rows("audit_log").len()), (0, 2));
        assert_eq!(owing.store.tidy_by(), None, "nothing is owed");
    }
}

/// I15: what cannot be carried over now is known all the same to whoever claims the project next,
/// also if it goes by what it has seen itself.
#[test]
fn i15_what_is_owed_is_known_to_the_next_claim() {
    let mut owing = Owing::new();
    let mut project = Project::take_over(&mut owing.store, "p");
    owing.is_full("audit_log", "p");
    let ann = project.open_session(&mut owing.store, "ann");
    let claim = owing.store.claim("p").unwrap();
    let (seen, records) = Snapshot::read(&owing.path).unwrap().live("p").unwrap().unwrap();
    assert_eq!((&seen, owing.rows("audit_log").len()), (&claim, 0));
    let grant = life::rebuilt(&claim, &records).apply(Timestamp(life::START), ask(ann, "file:a"));
    let batch = Batch { claim: &claim, turns: from_ref(&grant) };
    assert_eq!(owing.store.commit(&[batch]), [Ok(())]);
    owing.heals("full");
    carry_over(&mut owing.store);
    assert_eq!(owing.rows("journal"), [""; 0]);
    assert_eq!(held(&owing.path, "p"), ["a"]);
}

/// Where nothing is owed the tables are what counts, whoever has written them meanwhile.
#[test]
fn i15_where_nothing_is_owed_the_next_claim_reads_the_tables() {
    let mut owing = Owing::new();
    let mut project = Project::take_over(&mut owing.store, "p");
    let ann = project.open_session(&mut owing.store, "ann");
    let grant = project.grant(&mut owing.store, ann, "file:a");
    carry_over(&mut owing.store);
    let over = "UPDATE resource_locks SET released_at = acquired_at, release_cause = 'released'";
    assert_eq!(owing.other.execute(over, []).unwrap(), 1);
    let claim = owing.store.claim("p").unwrap();
    let (_, records) = Snapshot::read(&owing.path).unwrap().live("p").unwrap().unwrap();
    let mut table = life::rebuilt(&claim, &records);
    let again = table.apply(Timestamp(life::START), ask(ann, "file:a"));
    let batch = Batch { claim: &claim, turns: from_ref(&again) };
    assert_eq!(owing.store.commit(&[batch]), [Ok(())]);
    assert!(table.grant(grant.lock).is_none() && table.stats().holds == 1);
}

/// I16: another owner has come, has carried over what was ours, and has written something of its
/// own, which has the number that ours had. It is taken for what it is, and not for ours.
#[test]
fn i16_what_another_owner_left_is_not_taken_for_our_own() {
    for theirs in ["p", "q"] {
        let mut owing = Owing::new();
        Project::take_over(&mut owing.store, "p").open_session(&mut owing.store, "ann");
        // Somebody who got past the lock of the file.
        fs::remove_file(format!("{}.owner", owing.path.display())).unwrap();
        let options = OpenOptions { lag: Duration::MAX, ..OpenOptions::default() };
        let mut second = SqliteStore::open(&owing.path, options).unwrap();
        carry_over(&mut second);
        Project::take_over(&mut second, theirs).open_session(&mut second, "bob");
        assert_eq!(owing.rows("journal"), [theirs]);
        assert_eq!(owing.rows("audit_log"), ["p"]);
        let claim = owing.store.claim(theirs).unwrap();
        assert_eq!(owing.rows("journal"), [""; 0]);
        assert_eq!(owing.rows("audit_log"), ["p", theirs]);
        let sessions = owing.store.load(&claim).unwrap().len();
        assert_eq!(sessions, if theirs == "p" { 2 } else { 1 });
    }
}

/// I16: what a claim that is over in the file wanted to write is on no record, and is not carried
/// over with what is.
#[test]
fn i16_what_was_refused_is_not_carried_over() {
    let mut owing = Owing::new();
    let mut project = Project::take_over(&mut owing.store, "p");
    let ann = project.open_session(&mut owing.store, "ann");
    let over = "UPDATE lock_meta SET epoch = 7";
    assert_eq!(owing.other.execute(over, []).unwrap(), 1);
    let refused = project.turn(&mut owing.store, ask(ann, "file:a")).unwrap_err();
    assert!(matches!(refused, StoreError::Superseded { .. }), "{refused:?}");
    carry_over(&mut owing.store);
    assert_eq!((owing.rows("journal").len(), owing.rows("audit_log").len()), (0, 1));
    assert_eq!(owing.rows("resource_locks"), [""; 0]);
    let claim = owing.store.claim("p").unwrap();
    assert_eq!((claim.epoch.get(), owing.store.load(&claim).unwrap().len()), (8, 1));
}

/// I15: whoever goes on with a claim that another owner of the file has made knows what that one
/// has written.
#[test]
fn i15_the_claim_of_another_owner_comes_with_what_it_has_written() {
    let mut owing = Owing::new();
    Project::take_over(&mut owing.store, "p").open_session(&mut owing.store, "ann");
    carry_over(&mut owing.store);
    fs::remove_file(format!("{}.owner", owing.path.display())).unwrap();
    let mut second = life::open(&owing.path);
    let mut project = Project::take_over(&mut second, "p");
    let bob = project.open_session(&mut second, "bob");
    drop(second);
    assert_eq!(owing.store.load(&project.claim).unwrap().len(), 2);
    project.grant(&mut owing.store, bob, "file:a");
    assert_eq!(held(&owing.path, "p"), ["a"]);
}

/// Where there is no room for one there is none for all of a commit: it is not tried for each.
#[test]
fn what_ails_the_whole_store_is_told_to_everybody_in_the_commit() {
    let mut owing = Owing::new();
    let projects = ["fine", "full"].map(|name| Project::take_over(&mut owing.store, name));
    owing.is_full("journal", "full");
    let [(fine, one), (full, two)] = projects.map(|mut project| {
        let turn = project.apply(OpenSession::default());
        (project.claim, turn)
    });
    let batches = [
        Batch { claim: &fine, turns: from_ref(&one) },
        Batch { claim: &full, turns: from_ref(&two) },
    ];
    let told = owing.store.commit(&batches);
    assert!(matches!(&told[0], Err(StoreError::Full { .. })), "{told:?}");
    assert_eq!(told[1], told[0]);
    assert_eq!(owing.rows("journal"), [""; 0]);
    owing.heals("full");
    assert_eq!(owing.store.commit(&batches), [Ok(()), Ok(())]);
}

/// What is owed may wait as long as was said, and no longer.
#[test]
fn what_is_owed_is_carried_over_when_it_is_due() {
    for (lag, is_due) in [(Duration::ZERO, true), (Duration::from_secs(3600), false)] {
        let mut owing = Owing::with(lag);
        let mut project = Project::take_over(&mut owing.store, "p");
        let turn = project.apply(OpenSession::default());
        let batch = Batch { claim: &project.claim, turns: from_ref(&turn) };
        assert_eq!(owing.store.commit(&[batch]), [Ok(())]);
        assert_eq!(owing.rows("audit_log").len(), 0, "not before everybody is told");
        assert_eq!(owing.store.is_untidy(), is_due, "{lag:?}");
        owing.store.tidy();
        assert_eq!(owing.rows("audit_log").len(), usize::from(is_due), "{lag:?}");
    }
}

/// While one commit follows the other nothing is carried over in front of them, until very much is
/// owed: then whoever comes next waits for it, so that it does not grow for ever.
#[test]
fn whoever_comes_while_very_much_is_owed_waits_for_it() {
    let mut owing = Owing::new();
    let mut project = Project::take_over(&mut owing.store, "p");
    let mut commit = |store: &mut SqliteStore, turns: usize| {
        let turns: Vec<Effects> =
            (0..turns).map(|_| project.apply(OpenSession::default())).collect();
        let batch = Batch { claim: &project.claim, turns: &turns };
        assert_eq!(store.commit(&[batch]), [Ok(())]);
    };
    commit(&mut owing.store, 10_000);
    commit(&mut owing.store, 10_000);
    assert_eq!((owing.rows("journal").len(), owing.rows("audit_log").len()), (2, 0));
    commit(&mut owing.store, 1);
    assert_eq!((owing.rows("journal").len(), owing.rows("audit_log").len()), (1, 20_000));
}
