//! A look that changes nothing: after a clean end, after a kill, beside a living owner, and of what
//! is no store. And who owns it.

use crate::{
    claims::child,
    life::{self, Project, ask, give_back, open, picture},
    schema::old_file,
};
use lockkeeper_core::*;
use lockkeeper_store::{
    AuditFilter, Claim, OpenOptions, Snapshot, SqliteStore, Store, StoreError, check, owner,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command as Program, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Every file of a folder, with what is in it.
fn folder(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

fn names(path: &Path) -> Vec<String> {
    let names = folder(path).into_keys();
    names.map(|name| name.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn table(snapshot: &mut Snapshot, project: &str) -> LockTable {
    let (claim, records) = snapshot.live(project).unwrap().unwrap();
    life::rebuilt(&claim, &records)
}

fn all() -> AuditFilter {
    AuditFilter::default()
}

#[test]
fn a_store_that_nobody_owns_is_read_where_it_is() {
    // Whatever the folder is called.
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("a b?c#d%20 ü");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    project.grant(&mut store, session, "file:a");
    let other = project.open_session(&mut store, "bob");
    project.turn(&mut store, ask(other, "file:a")).unwrap();
    store.claim("q").unwrap();
    drop(store);
    assert_eq!(names(&inner), ["locks.db", "locks.db.owner"], "a clean end leaves no log");
    let before = folder(&inner);
    let mut snapshot = Snapshot::read(&path).unwrap();
    assert_eq!(snapshot.projects().unwrap(), ["p".into(), "q".into()]);
    let seen = table(&mut snapshot, "p");
    assert_eq!(picture(&seen, true), picture(&project.table, true), "I15");
    let (claim, _) = snapshot.live("p").unwrap().unwrap();
    assert_eq!((claim.epoch.get(), &*claim.project), (1, "p"));
    assert_eq!(snapshot.live("nobody's").unwrap(), None);
    assert_eq!(snapshot.audit(&all()).unwrap().len(), 4);
    let checkup = check(&path).unwrap();
    assert_eq!((checkup.problems.len(), checkup.log_bytes), (0, 0));
    assert_eq!((checkup.schema, checkup.bytes), (checkup.newest, before[&path].len() as u64));
    assert_eq!(owner(&path), Ok(None));
    drop(snapshot);
    assert_eq!(folder(&inner), before);
    // It was nobody's take-over.
    assert_eq!(Project::take_over(&mut open(&path), "p").claim.epoch.get(), 2);
}

#[test]
fn an_owner_that_lives_and_one_that_was_killed_are_read_beside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let mut child = child(&path);
    let look = || {
        let before = folder(dir.path());
        assert!(!before[&dir.path().join("locks.db-wal")].is_empty(), "there is a log");
        let mut snapshot = Snapshot::read(&path).unwrap();
        assert_eq!(&*table(&mut snapshot, "p").list()[0].agent, "child");
        assert_eq!(snapshot.audit(&all()).unwrap().len(), 2);
        assert!(check(&path).unwrap().log_bytes > 0);
        let owner = owner(&path).unwrap();
        drop(snapshot);
        assert_eq!(folder(dir.path()), before);
        owner
    };
    let card = look().expect("it is owned");
    assert_eq!((card.pid, card.reach.as_deref()), (Some(child.id()), Some("unix:/run/child.sock")));
    assert!(card.since.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(look(), None);
    // What is beside a store that this process owns is read like by any reader: to close the file
    // itself would give SQLite's locks on it away.
    let mut store = open(&path);
    let project = Project::take_over(&mut store, "p");
    let mut snapshot = Snapshot::read(&path).unwrap();
    assert_eq!(picture(&table(&mut snapshot, "p"), true), picture(&project.table, true));
    assert_eq!(owner(&path).unwrap().unwrap().pid, Some(std::process::id()));
}

const BUSY: &str = "LOCKKEEPER_STORE_TEST_BUSY";

/// Not a test by itself: an owner that never rests. It holds two locks after each commit, opens and
/// closes the store now and then, and ends with its input.
#[test]
fn child_that_is_busy() {
    let Ok(path) = std::env::var(BUSY) else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().read_line(&mut String::new());
            over.store(true, Ordering::Relaxed);
        });
        let mut is_first = true;
        while !over.load(Ordering::Relaxed) {
            let mut store = open(Path::new(&path));
            let mut project = Project::take_over(&mut store, "p");
            if is_first {
                project.open_session(&mut store, "busy");
            }
            let session = project.table.sessions()[0].session;
            for _ in 0..150 {
                let held = project.table.list();
                let ends = held.iter().map(|one| give_back(session, one.lock));
                let mut turns: Vec<Effects> = ends.map(|end| project.apply(end)).collect();
                turns.extend(["file:a", "file:b"].map(|name| project.apply(ask(session, name))));
                project.commit(&mut store, turns).unwrap();
            }
            if is_first {
                println!("\nit is busy");
                std::io::stdout().flush().unwrap();
            }
            is_first = false;
        }
    });
}

/// I1, I11: what is seen beside an owner that writes, moves its log into the file, closes and opens
/// is always the state after some commit.
#[test]
fn a_busy_owner_is_seen_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let mut child = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "snapshot::child_that_is_busy", "--nocapture"])
        .env(BUSY, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "it is busy"));
    let (mut rows, mut tokens) = (0, 0);
    for round in 0..80 {
        let mut snapshot = Snapshot::read(&path).unwrap();
        let seen = table(&mut snapshot, "p");
        let held = seen.list();
        assert_eq!(held.len(), 2, "{held:?}");
        let token = held.iter().map(|one| seen.grant(one.lock).unwrap().token.get()).max();
        assert!(token.unwrap() >= tokens, "it went back");
        tokens = token.unwrap();
        let newest = snapshot.audit(&AuditFilter { limit: Some(1), ..all() }).unwrap();
        assert!(newest[0].id >= rows, "it went back");
        rows = newest[0].id;
        if round % 3 == 0 {
            assert_eq!(check(&path).unwrap().problems, Vec::<String>::new());
        }
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(tokens > 0);
}

#[test]
fn what_is_no_store_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    for missing in [&path, &dir.path().join("no/such/folder/locks.db")] {
        let told = Snapshot::read(missing).unwrap_err();
        assert!(matches!(told, StoreError::Missing { .. }), "{told:?}");
        assert_eq!(owner(missing), Ok(None));
    }
    assert_eq!(names(dir.path()), Vec::<String>::new());
    let told = Snapshot::read(dir.path()).unwrap_err();
    assert!(matches!(told, StoreError::Misplaced { .. }), "{told:?}");
    // Made, but nothing in it yet.
    fs::write(&path, "").unwrap();
    let mut empty = Snapshot::read(&path).unwrap();
    assert_eq!((empty.projects().unwrap().len(), empty.live("p").unwrap()), (0, None));
    assert_eq!((empty.audit(&all()).unwrap().len(), empty.check().unwrap().schema), (0, 0));
    fs::write(&path, "Dear diary, ".repeat(500)).unwrap();
    let told = Snapshot::read(&path).unwrap_err();
    assert!(matches!(&told, StoreError::Corrupt { path: p, .. } if p.ends_with("locks.db")));
    fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE from_the_future (x); PRAGMA user_version = 99").unwrap();
    drop(db);
    let before = folder(dir.path());
    let told = Snapshot::read(&path).unwrap_err();
    assert!(matches!(told, StoreError::NewerSchema { found: 99, .. }), "{told:?}");
    assert_eq!(folder(dir.path()), before);
}

/// Whoever has looked once and asks again is told what was written since.
#[test]
fn a_look_that_is_kept_sees_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    drop(open(&path));
    let mut snapshot = Snapshot::read(&path).unwrap();
    for reign in 1..=3 {
        assert_eq!(snapshot.audit(&all()).unwrap().len(), reign - 1);
        let mut store = open(&path);
        Project::take_over(&mut store, "p").open_session(&mut store, "ann");
        drop(store);
    }
    assert_eq!(table(&mut snapshot, "p").sessions().len(), 3);
}

const IN_PLACE: &str = "LOCKKEEPER_STORE_TEST_IN_PLACE";

/// Where everything is in the one file nothing is copied. In a process of its own, which has no
/// place for a copy.
#[test]
fn a_look_at_one_file_needs_no_room() {
    if let Ok(path) = std::env::var(IN_PLACE) {
        assert_eq!(Snapshot::read(path).unwrap().projects().unwrap(), ["p".into()]);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    open(&path).claim("p").unwrap();
    let ran = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "snapshot::a_look_at_one_file_needs_no_room"])
        .env(IN_PLACE, &path)
        .envs(["TMPDIR", "TMP", "TEMP"].map(|name| (name, dir.path().join("nowhere"))))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

/// What cannot be copied is told as what it is, and not as somebody's writing that never ends.
#[cfg(unix)]
#[test]
fn what_cannot_be_copied_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    open(&path).claim("p").unwrap();
    let journal = dir.path().join("locks.db-journal");
    fs::create_dir(&journal).unwrap();
    // An empty folder has no length everywhere.
    fs::write(journal.join("something"), "else").unwrap();
    let refused = Snapshot::read(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}");
}

/// Where there is no log of writes SQLite keeps what it overwrites beside the file. Whoever looks
/// after a kill sees the state before what was not committed.
#[test]
fn a_file_without_a_log_of_writes_is_read_with_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let mut store = open(&path);
    Project::take_over(&mut store, "p").open_session(&mut store, "ann");
    drop(store);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    db.execute_batch("BEGIN IMMEDIATE; DELETE FROM sessions; DELETE FROM lock_meta").unwrap();
    db.cache_flush().unwrap();
    let killed = dir.path().join("killed");
    fs::create_dir(&killed).unwrap();
    for name in ["locks.db", "locks.db-journal"] {
        fs::copy(dir.path().join(name), killed.join(name)).unwrap();
    }
    // The file alone would be believed, and tells something else.
    let alone = dir.path().join("alone.db");
    fs::copy(&path, &alone).unwrap();
    assert_eq!(Snapshot::read(&alone).unwrap().live("p").unwrap(), None);
    let before = folder(&killed);
    let mut snapshot = Snapshot::read(killed.join("locks.db")).unwrap();
    assert_eq!(table(&mut snapshot, "p").sessions().len(), 1);
    drop(snapshot);
    assert_eq!(folder(&killed), before);
}

/// What an older program left is read as it is, and not brought up to date.
#[test]
fn an_older_schema_is_read_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    old_file(&path);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO lock_meta VALUES ('p', 3, 1, 7, '2026-01-01T00:00:00.000Z');
         INSERT INTO sessions (project_id, id, agent_id, kind, priority, opened_at)
         VALUES ('p', 12884901889, 'ann', 'detached', 0, '2026-01-01T00:00:00.000Z')",
    )
    .unwrap();
    drop(db);
    let before = folder(dir.path());
    let mut snapshot = Snapshot::read(&path).unwrap();
    assert_eq!(snapshot.projects().unwrap(), ["p".into()]);
    let (claim, records) = snapshot.live("p").unwrap().unwrap();
    let expected = Claim { project: "p".into(), epoch: Epoch::new(3), last_event: 7 };
    assert_eq!((&claim, records.len()), (&expected, 1));
    let checkup = snapshot.check().unwrap();
    assert!((checkup.schema, checkup.problems.len()) == (1, 0) && checkup.newest > 1);
    assert_eq!(folder(dir.path()), before);
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    let turns = (0..400).map(|n| project.apply(ask(session, &format!("file:{n}")))).collect();
    project.commit(&mut store, turns).unwrap();
    drop(store);
    let db = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'resource_locks'";
    let page: usize = db.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(db);
    let mut damaged = fs::read(&path).unwrap();
    damaged[(page - 1) * 4096..page * 4096].fill(0xa5);
    fs::write(&path, damaged).unwrap();
    assert!(!check(&path).unwrap().problems.is_empty());
    let told = Snapshot::read(&path).unwrap().live("p").unwrap_err();
    assert!(matches!(told, StoreError::Corrupt { .. }), "{told:?}");
}

/// Whoever only looks keeps nobody from opening, however many look.
#[test]
fn those_who_look_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks.db");
    drop(open(&path));
    let over = AtomicBool::new(false);
    let (free, owned) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Only so that a test that would hang fails.
    let began = Instant::now();
    let is_in_time = || began.elapsed() < Duration::from_secs(60);
    let is_seen = |count: &AtomicUsize| {
        let before = count.load(Ordering::Relaxed);
        while count.load(Ordering::Relaxed) == before && is_in_time() {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && is_in_time() {
                    match owner(&path).unwrap() {
                        None => free.fetch_add(1, Ordering::Relaxed),
                        Some(card) => {
                            assert!(card.pid.is_none_or(|pid| pid == std::process::id()));
                            owned.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        let opened = (0..200).try_for_each(|_| {
            // They are in the midst of it.
            is_seen(&free);
            let store = SqliteStore::open(&path, OpenOptions::default())?;
            is_seen(&owned);
            assert_eq!(owner(&path)?.unwrap().pid, Some(std::process::id()));
            let second = SqliteStore::open(&path, OpenOptions::default());
            assert!(matches!(second, Err(StoreError::Owned { .. })), "two owners: {second:?}");
            drop(store);
            Ok::<(), StoreError>(())
        });
        over.store(true, Ordering::Relaxed);
        assert_eq!(opened, Ok(()));
    });
    assert!(is_in_time(), "it never ended");
}
