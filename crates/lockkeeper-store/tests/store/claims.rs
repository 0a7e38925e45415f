//! One owner at a time: of the file, by the system's lock, and of a project, by its epoch.

use crate::life::{self, Project, ask, contradicting, give_back, open};
use lockkeeper_core::*;
use lockkeeper_store::{
    Batch, MemoryStore, OpenOptions, SqliteStore, Store, StoreError, Writer, WriterOptions,
};
use rusqlite::Connection;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command as Program, Stdio},
};

const IN_CHILD: &str = "LOCKKEEPER_STORE_TEST_CHILD";

/// Not a test by itself: the other process of the test below. Opens the store it is told, takes a
/// lock, says so, and stays until it is killed.
#[test]
fn child_that_owns_a_store() {
    let Ok(path) = std::env::var(IN_CHILD) else { return };
    let reach = Some("unix:/run/child.sock".to_owned());
    let mut store =
        SqliteStore::open(path, OpenOptions { reach, ..OpenOptions::default() }).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "child");
    project.grant(&mut store, session, "file:a");
    println!("\nit is open");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

pub(crate) fn child(path: &Path) -> Child {
    let mut child = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "claims::child_that_owns_a_store", "--nocapture"])
        .env(IN_CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "it is open"), "the child did not get there");
    child
}

#[test]
fn whoever_comes_second_is_told_who_was_first_and_a_killed_owner_leaves_what_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut child = child(&path);
    let refused = SqliteStore::open(&path, OpenOptions::default()).unwrap_err();
    let StoreError::Owned { pid, reach, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!((*pid, reach.as_deref()), (Some(child.id()), Some("unix:/run/child.sock")));
    assert!(refused.to_string().contains(&format!("process {}", child.id())), "{refused}");
    // SIGKILL: what it was told is there all the same, and the lock ended with it.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut store = open(&path);
    let project = Project::take_over(&mut store, "p");
    assert_eq!(project.claim.epoch.get(), 2);
    assert_eq!(project.table.list()[0].agent.as_ref(), "child");
}

#[test]
fn the_same_process_cannot_open_it_twice_not_even_by_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let store = open(&path);
    let mut names = vec![path.clone(), folder.path().join(".").join("locks.db")];
    #[cfg(unix)]
    {
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        names.push(link);
    }
    for name in &names {
        let refused = SqliteStore::open(name, OpenOptions::default()).unwrap_err();
        let StoreError::Owned { pid, reach, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((pid, reach), (Some(std::process::id()), None));
    }
    drop(store);
    drop(open(&path));
}

/// The owner's lock stands beside the file, not beside what leads there, from the first time on.
#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_still_to_come_is_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (real, link) = (data.join("locks.db"), folder.path().join("link.db"));
    symlink("data/locks.db", &link).unwrap();
    let store = open(&link);
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(data.join("locks.db.owner").exists());
    assert!(!folder.path().join("link.db.owner").exists());
    let refused = SqliteStore::open(&real, OpenOptions::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Owned { .. }), "{refused:?}");
    drop(store);
    let round = folder.path().join("round.db");
    symlink("round.db", &round).unwrap();
    assert!(SqliteStore::open(&round, OpenOptions::default()).is_err());
}

const BUSY_IN_CHILD: &str = "LOCKKEEPER_STORE_TEST_BUSY";

/// Not a test by itself: the other process of the test below. Fails if it can write.
#[test]
fn child_that_finds_a_file_locked() {
    let Ok(path) = std::env::var(BUSY_IN_CHILD) else { return };
    let db = Connection::open(path).unwrap();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let refused = db.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
}

/// POSIX takes all locks of a process off a file when it closes it anywhere.
#[test]
fn opening_takes_no_lock_off_that_this_process_has_on_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE bookmarks (url TEXT); BEGIN EXCLUSIVE").unwrap();
    let busy_wait = std::time::Duration::ZERO;
    let options = OpenOptions { busy_wait, ..OpenOptions::default() };
    let refused = SqliteStore::open(&path, options).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused:?}");
    let child = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "claims::child_that_finds_a_file_locked"])
        .env(BUSY_IN_CHILD, &path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
fn i16_a_stale_claim_commits_nothing_and_takes_nobody_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut stale = Project::take_over(&mut store, "p");
    let session = stale.open_session(&mut store, "ann");
    let mut other = Project::take_over(&mut store, "q");
    let bob = other.open_session(&mut store, "bob");
    let newest = Project::take_over(&mut store, "p");

    let (late, fine) = (stale.apply(ask(session, "file:a")), other.apply(ask(bob, "file:b")));
    let before = store.reader().unwrap().history("p").unwrap();
    let outcomes = store.commit(&[
        Batch { claim: &stale.claim, turns: std::slice::from_ref(&late) },
        Batch { claim: &other.claim, turns: std::slice::from_ref(&fine) },
    ]);
    let Err(StoreError::Superseded { epoch, newest: by, .. }) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!((epoch.get(), by.get()), (1, 2));
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(store.reader().unwrap().history("p").unwrap(), before);
    assert_eq!(store.reader().unwrap().history("q").unwrap().len(), 2);
    // Not even a turn that records nothing, which might answer all the same.
    let nothing = stale.apply(Command::Tick);
    assert!(nothing.records().is_empty());
    let turns = [late, nothing];
    let refused = store.commit(&[Batch { claim: &stale.claim, turns: &turns[1..] }]);
    assert!(matches!(refused[0], Err(StoreError::Superseded { .. })), "{refused:?}");
    assert!(store.load(&stale.claim).is_err() && store.load(&newest.claim).is_ok());
}

/// I16, the other fence: somebody who got past the lock of the file and raised the epoch.
#[test]
fn i16_the_epoch_in_the_file_counts_not_the_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE lock_meta SET epoch = 7, seq = 0", []).unwrap();
    let refused = project.turn(&mut store, ask(session, "file:a")).unwrap_err();
    assert!(matches!(refused, StoreError::Superseded { newest, .. } if newest.get() == 7));
    assert_eq!(store.claim("p").unwrap().epoch.get(), 8);
}

/// I16: what records nothing is not written, and yet nobody answers by a claim that is over.
#[test]
fn i16_the_epoch_in_the_file_counts_also_for_what_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    project.open_session(&mut store, "ann");
    let [early, late] = [(); 2].map(|()| project.apply(Command::Tick));
    assert!(early.records().is_empty() && late.records().is_empty());
    let commit = |store: &mut SqliteStore, turn: &Effects| {
        let turns = std::slice::from_ref(turn);
        store.commit(&[Batch { claim: &project.claim, turns }]).remove(0)
    };
    assert_eq!(commit(&mut store, &early), Ok(()));
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE lock_meta SET epoch = 7, seq = 0", []).unwrap();
    let refused = commit(&mut store, &late).unwrap_err();
    assert!(matches!(refused, StoreError::Superseded { newest, .. } if newest.get() == 7));
}

/// I2: whatever was lost or forgotten, a later reign's tokens are larger.
#[test]
fn epochs_only_go_up_and_the_event_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut last = None;
    for reign in 1..=4 {
        let mut store = open(&path);
        let mut project = Project::take_over(&mut store, "p");
        assert_eq!(project.claim.epoch.get(), reign);
        let session = project.open_session(&mut store, "ann");
        let grant = project.grant(&mut store, session, &format!("file:{reign}"));
        assert!(Some(grant.token) > last, "{grant:?}");
        last = Some(grant.token);
        project.turn(&mut store, give_back(session, grant.lock)).unwrap();
        assert_eq!(project.claim.last_event, u64::from(reign - 1) * 2, "two news a reign");
    }
    let mut store = open(&path);
    let db = Connection::open(&path).unwrap();
    let most = Epoch::MAX.get();
    db.execute("UPDATE lock_meta SET epoch = ?1", [most - 1]).unwrap();
    assert_eq!(store.claim("p").unwrap().epoch, Epoch::MAX);
    assert!(matches!(store.claim("p"), Err(StoreError::Exhausted { .. })));
    assert!(store.claim("q").is_ok());
}

#[test]
fn a_turn_is_written_once_and_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let mut project = Project::take_over(&mut store, "p");
    let turns: Vec<Effects> = (0..4).map(|_| project.apply(OpenSession::default())).collect();
    let claim = &project.claim;
    let mut commit = |from: usize, to: usize| {
        store.commit(&[Batch { claim, turns: &turns[from..to] }]).remove(0)
    };
    assert!(matches!(commit(1, 2), Err(StoreError::OutOfOrder { .. })), "a gap");
    assert!(commit(0, 2).is_ok());
    assert!(matches!(commit(1, 3), Err(StoreError::OutOfOrder { .. })), "once more");
    assert!(commit(2, 3).is_ok());
    // In one step, the second batch goes on where the first one ends.
    let outcomes =
        store.commit(&[Batch { claim, turns: &turns[3..4] }, Batch { claim, turns: &turns[3..4] }]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
    assert_eq!(store.reader().unwrap().history("p").unwrap().len(), 4);
}

/// What records nothing is not written, and counts all the same.
#[test]
fn turns_that_record_nothing_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let mut project = Project::take_over(&mut store, "p");
    for _ in 0..3 {
        project.turn(&mut store, Command::Tick).unwrap();
        project.open_session(&mut store, "ann");
    }
    let skipped = project.apply(Command::Tick);
    let early = project.apply(Command::Tick);
    let turns = [skipped, early];
    let refused = store.commit(&[Batch { claim: &project.claim, turns: &turns[1..] }]);
    assert!(matches!(refused[0], Err(StoreError::OutOfOrder { .. })), "{refused:?}");
}

/// I11: of a batch that contradicts what is there nothing is written, and the others are.
#[test]
fn i11_one_bad_batch_takes_no_other_one_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut bad = Project::take_over(&mut store, "bad");
    let mut good = Project::take_over(&mut store, "good");
    bad.open_session(&mut store, "ann");
    let bob = good.open_session(&mut store, "bob");
    let torn = contradicting(&mut bad, &mut store);
    let fine = good.apply(ask(bob, "file:a"));
    let outcomes = store.commit(&[
        Batch { claim: &bad.claim, turns: std::slice::from_ref(&torn) },
        Batch { claim: &good.claim, turns: std::slice::from_ref(&fine) },
    ]);
    let Err(StoreError::Contradiction { project, .. }) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(project.as_ref(), "bad");
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(life::held(&path, "bad"), [""; 0]);
    assert_eq!(life::held(&path, "good"), ["a"]);
    assert_eq!(store.reader().unwrap().history("bad").unwrap().len(), 1, "nor in the audit log");
    // And the store goes on.
    let turn = good.apply(ask(bob, "file:c"));
    let next = store.commit(&[Batch { claim: &good.claim, turns: &[turn] }]);
    assert!(next[0].is_ok(), "{next:?}");
}

/// I16: where each batch is written for itself because one of them fails, a claim that is over is
/// refused as ever.
#[test]
fn i16_a_stale_claim_beside_a_bad_batch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("locks.db"));
    let [mut bad, mut stale] = ["bad", "stale"].map(|name| Project::take_over(&mut store, name));
    bad.open_session(&mut store, "ann");
    store.claim("stale").unwrap();
    let torn = contradicting(&mut bad, &mut store);
    let late = stale.apply(OpenSession::default());
    let outcomes = store.commit(&[
        Batch { claim: &bad.claim, turns: std::slice::from_ref(&torn) },
        Batch { claim: &stale.claim, turns: std::slice::from_ref(&late) },
    ]);
    assert!(matches!(outcomes[0], Err(StoreError::Contradiction { .. })), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(StoreError::Superseded { .. })), "{outcomes:?}");
    assert_eq!(store.reader().unwrap().history("stale").unwrap(), []);
}

/// Every project that was ever claimed is known by its name, whoever claimed it.
#[test]
fn the_projects_of_a_store_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let stores: [Box<dyn Store>; 2] = [Box::new(open(&path)), Box::new(MemoryStore::new())];
    for mut store in stores {
        assert_eq!(store.projects().unwrap().len(), 0);
        for project in ["b", "ü 'quoted'", "a", "b"] {
            store.claim(project).unwrap();
        }
        let names: Vec<String> =
            store.projects().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b", "ü 'quoted'"]);
    }
    let writer = Writer::start(Box::new(open(&path)), WriterOptions::default()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let ask = || {
        let tell = tell.clone();
        writer.projects(move |names| tell.send(names.map(|names| names.len())).unwrap());
        told.recv().unwrap()
    };
    assert_eq!(ask(), Ok(3));
    writer.close();
    assert_eq!(ask(), Err(StoreError::Closed));
}
