//! Damaged files, full disks, read-only places: a clear word, and nothing acknowledged is lost.

use crate::life::{Project, ask, give_back, held, open};
use lockkeeper_core::*;
use lockkeeper_store::{OpenOptions, PruneBefore, SqliteStore, Store, StoreError};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

fn try_open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, OpenOptions::default())
}

/// A store with many holds, closed, all of it in the one file.
fn full_of_holds(folder: &Path) -> PathBuf {
    let path = folder.join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    let turns = (0..400).map(|n| project.apply(ask(session, &format!("file:{n}")))).collect();
    project.commit(&mut store, turns).unwrap();
    drop(store);
    assert!(!folder.join("locks.db-wal").exists(), "everything is in the file");
    path
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "Dear diary, ".repeat(500);
    fs::write(&path, &text).unwrap();
    let refused = try_open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert_eq!(refused.legacy_code(), "E307");
    assert!(refused.to_string().contains("notes.txt") && refused.to_string().contains("restore"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_garbled_header_and_a_cut_file_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = full_of_holds(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut garbled = whole.clone();
    garbled[..60].fill(0xa5);
    let cuts = [garbled, whole[..whole.len() / 2].to_vec(), whole[..4096].to_vec()];
    for (nth, bytes) in cuts.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let outcome = try_open(&path).and_then(|mut store| {
            let claim = store.claim("p")?;
            store.load(&claim).map(|records| records.len())
        });
        assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{nth}: {outcome:?}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Project::take_over(&mut open(&path), "p").table.stats().holds, 400);
}

/// Bytes changed anywhere: whatever is noticed is named, nothing panics, and what is not damaged
/// can still be read. (SQLite has no checksums: a changed letter in a name is just another name.)
#[test]
fn random_damage_ends_in_a_word_and_not_in_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = full_of_holds(folder.path());
    let whole = fs::read(&path).unwrap();
    let (mut noticed, mut number) = (0, 7_u64);
    for _ in 0..60 {
        let mut damaged = whole.clone();
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
        let at = 4096 + (number >> 33) as usize % (whole.len() - 4096 - 300);
        damaged[at..at + 300].iter_mut().for_each(|byte| *byte ^= (number >> 20) as u8 | 1);
        fs::write(&path, &damaged).unwrap();
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", path.display()));
        }
        let outcome = try_open(&path).and_then(|mut store| {
            let claim = store.claim("p")?;
            let loaded = store.load(&claim)?.len();
            store.reader()?.history("p")?;
            Ok(loaded)
        });
        match outcome {
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => noticed += 1,
            Err(StoreError::ForeignSchema { .. }) => noticed += 1,
            Err(other) => panic!("at {at}: {other:?}"),
        }
    }
    assert!(noticed > 15, "only {noticed} of 60");
}

/// What SQLite calls an error of the question is one of the file: our questions never change.
#[test]
fn a_format_of_the_file_that_nobody_knows_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = full_of_holds(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    // The number of the schema's format, of which there are four.
    bytes[44..48].copy_from_slice(&9_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let refused = try_open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert!(refused.to_string().contains("restore a copy"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "and it is left alone");
    let refused = lockkeeper_store::check(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
}

#[test]
fn a_row_that_cannot_be_understood_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = full_of_holds(folder.path());
    let mut store = open(&path);
    let claim = store.claim("p").unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE resource_locks SET timeout_at = 'soon' WHERE rowid = 7", []).unwrap();
    let refused = store.load(&claim).unwrap_err();
    assert!(matches!(&refused, StoreError::Corrupt { detail, .. } if detail.contains("soon")));
    db.execute("UPDATE resource_locks SET timeout_at = acquired_at WHERE rowid = 7", []).unwrap();
    assert!(store.load(&claim).is_ok());
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    let bytes_max = Some(fs::metadata(&path).unwrap().len() + 40 * 4096);
    let options = OpenOptions { bytes_max, ..OpenOptions::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    let mut acknowledged = Vec::new();
    let refused = (0..10_000).find_map(|n| {
        let outcome = project.turn(&mut store, ask(session, &format!("file:{n:04}")));
        acknowledged.extend(outcome.is_ok().then(|| format!("{n:04}")));
        outcome.err()
    });
    let refused = refused.expect("it was never full");
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    assert!(refused.to_string().contains("no room") && refused.to_string().contains("locks.db"));
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    // The same store goes on: another take-over, what was acknowledged, and reading.
    let again = Project::take_over(&mut store, "p");
    assert_eq!(again.table.stats().holds, acknowledged.len());
    assert_eq!(held(&path, "p"), acknowledged);
    drop(store);
    // With room again, everything goes on.
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    assert_eq!(project.table.stats().holds, acknowledged.len());
    project.grant(&mut store, session, "file:more");
}

/// What is over and old makes room, also where there is none left to carry over what is new.
#[test]
fn a_full_store_can_be_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    let bytes_max = Some(fs::metadata(&path).unwrap().len() + 80 * 4096);
    let options = OpenOptions { bytes_max, lag: Duration::MAX, ..OpenOptions::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    let mut turns = 0;
    let refused = loop {
        let replies = match project.turn(&mut store, ask(session, &format!("file:{turns:04}"))) {
            Ok(replies) => replies,
            Err(refused) => break refused,
        };
        let Ok(Answer::Granted(grants)) = &replies[0].outcome else { panic!("{replies:?}") };
        if let Err(refused) = project.turn(&mut store, give_back(session, grants[0].lock)) {
            break refused;
        }
        turns += 1;
        assert!(turns < 10_000, "it was never full");
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    let before = PruneBefore { released: Timestamp::NEVER, audit: Timestamp::NEVER };
    let mut removed = 0;
    while let Ok(some @ 1..) = store.prune(&before, 100) {
        removed += some;
    }
    assert!(removed > 20, "{removed}");
    let mut again = Project::take_over(&mut store, "p");
    again.grant(&mut store, session, "file:more");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    // The tests may run as root, whom permissions do not bind; nobody can make files here.
    for folder in ["/sys", "/proc"] {
        if Path::new(folder).is_dir() {
            let refused = try_open(&Path::new(folder).join("locks.db")).unwrap_err();
            assert!(
                matches!(refused, StoreError::ReadOnly { .. } | StoreError::Io { .. }),
                "{refused:?}"
            );
            assert!(refused.to_string().contains("locks.db"), "{refused}");
        }
    }
    let nowhere = try_open(Path::new("/no/such/folder/locks.db")).unwrap_err();
    assert!(matches!(nowhere, StoreError::Misplaced { .. }), "{nowhere:?}");
    let said = nowhere.to_string();
    assert!(said.contains("the folder /no/such/folder does not exist: create it"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    assert!(try_open(folder.path()).is_err(), "a folder is no store");
}

/// SQLite would make do with reading it.
#[cfg(unix)]
#[test]
fn a_file_that_can_only_be_read_is_refused_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    // Root is not bound by that.
    if fs::File::options().write(true).open(&path).is_err() {
        let refused = try_open(&path).unwrap_err();
        assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused:?}");
    }
}

/// Of a file that cannot be opened SQLite says just that; why, the system says. In a process of its
/// own, because all of a process has too few then.
#[cfg(unix)]
#[test]
fn too_many_open_files_are_not_called_a_matter_of_rights() {
    const IS_THE_CHILD: &str = "LOCKKEEPER_TEST_WITH_FEW_FILES";
    if std::env::var_os(IS_THE_CHILD).is_none() {
        let test = "trouble::too_many_open_files_are_not_called_a_matter_of_rights";
        let ran = std::process::Command::new("sh")
            .args(["-c", r#"ulimit -n 64 && exec "$0" --exact "$1""#])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(IS_THE_CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = full_of_holds(folder.path());
    let store = open(&path);
    let mut open_files = Vec::new();
    let full = loop {
        match fs::File::open("/dev/null") {
            Ok(file) => open_files.push(file),
            Err(error) => break error,
        }
    };
    let refused = store.reader().map(drop).unwrap_err();
    let expected = StoreError::Io { path: path.canonicalize().unwrap(), detail: full.to_string() };
    assert_eq!(refused, expected);
    // Nor is a file that could not be made called one that is not there.
    let new = folder.path().join("new.db");
    let expected = StoreError::Io { path: new.clone(), detail: full.to_string() };
    assert_eq!(try_open(&new).unwrap_err(), expected);
    drop(open_files);
    assert_eq!(store.reader().unwrap().history("p").unwrap().len(), 401);
}

#[test]
fn every_error_says_what_happened_and_what_to_do() {
    let path = PathBuf::from("/var/locks.db");
    let project: std::sync::Arc<str> = "demo".into();
    let (epoch, newest) = (Epoch::new(3), Epoch::new(4));
    let detail = "this detail".to_owned();
    let reach = Some("unix:/run/l.sock".to_owned());
    let cases = [
        (StoreError::Owned { path: path.clone(), pid: Some(42), reach }, "unix:/run/l.sock"),
        (StoreError::Owned { path: path.clone(), pid: None, reach: None }, "ask that process"),
        (StoreError::NewerSchema { path: path.clone(), found: 9, known: 2 }, "restore"),
        (
            StoreError::ForeignSchema { path: path.clone(), migration: "0001_a".to_owned() },
            "0001_a",
        ),
        (StoreError::Corrupt { path: path.clone(), detail: detail.clone() }, "restore"),
        (StoreError::Misplaced { path: path.clone(), detail: detail.clone() }, "this detail"),
        (StoreError::Missing { path: path.clone() }, "first lock"),
        (StoreError::Unreadable { path: path.clone() }, "right to read"),
        (StoreError::Full { path: path.clone() }, "goes on by itself"),
        (StoreError::ReadOnly { path: path.clone() }, "right to write"),
        (StoreError::Locked { path: path.clone() }, "close whatever else"),
        (StoreError::Superseded { project: project.clone(), epoch, newest }, "epoch 4"),
        (StoreError::OutOfOrder { project: project.clone(), detail: detail.clone() }, "again"),
        (StoreError::Contradiction { project: project.clone(), detail: detail.clone() }, "report"),
        (StoreError::Exhausted { project }, "another name"),
        (StoreError::Io { path, detail }, "look after"),
        (StoreError::Closed, "open it again"),
    ];
    for (error, words) in cases {
        let said = error.to_string();
        assert!(said.contains(words), "{said}");
        assert!(
            said == "the store is closed: open it again to go on; nothing was written"
                || said.contains("/var/locks.db")
                || said.contains("demo"),
            "{said}"
        );
        assert!(!said.contains('{') && !said.contains("StoreError"), "{said}");
    }
}
