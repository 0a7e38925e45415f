//! Migrations, copies, and what the tables refuse by themselves.

use crate::life::{Project, ask, carry_over, give_back, held, open};
use lockkeeper_core::*;
use lockkeeper_store::{OpenOptions, SqliteStore, Store, StoreError, migrate};
use rusqlite::Connection;
use std::{fs, path::Path};

/// Each migration that was part of a release, by number: its name and the hash of its text. A line
/// that is here is never changed; a new migration adds one.
const RELEASED: &[(&str, &str)] = &[
    ("0001_resource_locks", "aecb765f7c6369d863f79b6fe893d154"),
    ("0002_tasks", "62f5a3ba219059a2185387032cd4cef5"),
    ("0003_cheaper_grants", "5145040a0eabae0ff23b4fac396042b5"),
    ("0004_journal", "9316b3adb03e6894e16338045d8fb822"),
    ("0005_fleeting_requests", "72ccdaea21a6904fc21ca7dd7f775457"),
];

/// FNV-1a, 128 bits, carriage returns left out.
fn hash(text: &str) -> String {
    let mut sum: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes().filter(|byte| *byte != b'\r') {
        sum ^= u128::from(byte);
        sum = sum.wrapping_mul((1 << 88) + (1 << 8) + 0x3b);
    }
    format!("{sum:032x}")
}

fn folder_of_migrations() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations")
}

#[test]
fn a_released_migration_is_never_edited() {
    let mut there = Vec::new();
    for entry in fs::read_dir(folder_of_migrations()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "sql") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            there.push((name, hash(&fs::read_to_string(&path).unwrap())));
        }
    }
    there.sort();
    let there: Vec<(&str, &str)> =
        there.iter().map(|(name, hash)| (name.as_str(), hash.as_str())).collect();
    assert_eq!(there, RELEASED, "put things right in a new file, and add its line here");
}

#[test]
fn the_file_knows_what_was_applied_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    let db = Connection::open(&path).unwrap();
    let mut rows = db.prepare("SELECT name, hash FROM schema_history ORDER BY number").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(String, String)> = rows.map(Result::unwrap).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(rows, RELEASED);
    drop(open(&path));
}

#[test]
fn an_edited_migration_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE schema_history SET hash = 'other' WHERE number = 2", []).unwrap();
    let refused = SqliteStore::open(&path, OpenOptions::default()).unwrap_err();
    let StoreError::ForeignSchema { migration, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(migration, "0002_tasks");
    assert!(refused.to_string().contains("0002_tasks"), "{refused}");
}

#[test]
fn a_newer_schema_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE from_the_future (x); PRAGMA user_version = 99").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path, OpenOptions::default()).unwrap_err();
    let known = RELEASED.len() as u32;
    assert!(
        matches!(refused, StoreError::NewerSchema { found: 99, known: k, .. } if k == known),
        "{refused:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), before, "not a byte is changed");
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bookmarks.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path, OpenOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("another program"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// Others count their schemas, too.
#[test]
fn the_numbered_schema_of_another_program_is_left_alone() {
    let others = ["bookmarks (url TEXT)", "schema_history (step INTEGER)"];
    for (table, number) in others.iter().flat_map(|table| [(table, 1), (table, 2)]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bookmarks.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(&format!("CREATE TABLE {table}; PRAGMA user_version = {number}")).unwrap();
        drop(db);
        let before = fs::read(&path).unwrap();
        let refused = SqliteStore::open(&path, OpenOptions::default()).unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
        assert!(refused.to_string().contains("another program"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

/// A file as the first release would have left it.
pub(crate) fn old_file(path: &Path) {
    let db = Connection::open(path).unwrap();
    let text = fs::read_to_string(folder_of_migrations().join("0001_resource_locks.sql")).unwrap();
    db.execute_batch(&text).unwrap();
    db.execute_batch(
        "CREATE TABLE schema_history (number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL,
            hash TEXT NOT NULL, applied_at TEXT NOT NULL) STRICT;
         PRAGMA user_version = 1;
         INSERT INTO projects VALUES ('p', '2026-01-01T00:00:00.000Z')",
    )
    .unwrap();
    let row = (1, RELEASED[0].0, RELEASED[0].1, "2026-01-01T00:00:00.000Z");
    db.execute("INSERT INTO schema_history VALUES (?1, ?2, ?3, ?4)", row).unwrap();
}

#[test]
fn a_migration_copies_first_and_says_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("locks.db"), folder.path().join("before.db"));
    old_file(&path);
    let report = migrate(&path, Some(copy.clone())).unwrap();
    assert_eq!((report.from, report.to), (1, RELEASED.len() as u32));
    let later = RELEASED[1..].iter().map(|(name, _)| *name);
    assert_eq!(report.applied, later.collect::<Vec<_>>());
    assert_eq!(report.backup.as_deref(), Some(copy.as_path()));
    let version = |path: &Path| {
        let db = Connection::open(path).unwrap();
        db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!((version(&copy), version(&path)), (1, RELEASED.len() as u32));
    let projects = "SELECT count(*) FROM projects";
    let db = Connection::open(&copy).unwrap();
    assert_eq!(db.query_row(projects, [], |row| row.get::<_, u32>(0)).unwrap(), 1);
    // Once more there is nothing to do, and a copy is never written over another one.
    let again = migrate(&path, None).unwrap();
    assert_eq!((again.from, again.applied.len()), (RELEASED.len() as u32, 0));
    let refused = migrate(&path, Some(copy.clone())).unwrap_err();
    assert!(refused.to_string().contains("before.db"), "{refused}");
    assert!(refused.to_string().contains("never replaces"), "{refused}");
    assert_eq!(version(&copy), 1);
    // Of a file that was only just made there is nothing to copy.
    let (path, copy) = (folder.path().join("new.db"), folder.path().join("none.db"));
    let report = migrate(&path, Some(copy.clone())).unwrap();
    assert_eq!((report.from, report.applied.len(), report.backup), (0, RELEASED.len(), None));
    assert!(path.exists() && !copy.exists());
}

/// A file as it was before grants got cheaper, with everything that is in another file.
fn before_cheaper_grants(path: &Path, from: &Path) {
    old_file(path);
    let db = Connection::open(path).unwrap();
    let tasks = fs::read_to_string(folder_of_migrations().join("0002_tasks.sql")).unwrap();
    db.execute_batch(&tasks).unwrap();
    let row = (2, RELEASED[1].0, RELEASED[1].1, "2026-01-01T00:00:00.000Z");
    db.execute("INSERT INTO schema_history VALUES (?1, ?2, ?3, ?4)", row).unwrap();
    db.execute_batch("PRAGMA user_version = 2; DELETE FROM projects").unwrap();
    db.execute("ATTACH ?1 AS new", [from.to_str().unwrap()]).unwrap();
    for table in [
        "projects",
        "lock_meta",
        "lock_tickets",
        "sessions",
        "declared_waits",
        "resource_capacities",
        "audit_log",
        "tasks",
    ] {
        db.execute_batch(&format!("INSERT INTO {table} SELECT * FROM new.{table}")).unwrap();
    }
    let of = "PRAGMA table_info(resource_locks)";
    let mut columns = db.prepare(of).unwrap();
    let columns = columns.query_map([], |row| row.get::<_, String>(1)).unwrap();
    let columns = columns.map(Result::unwrap).collect::<Vec<_>>().join(", ");
    // In another order than they were written, and with gaps.
    db.execute_batch(&format!(
        "INSERT INTO resource_locks (rowid, {columns})
         SELECT 10 * rowid, {columns} FROM new.resource_locks ORDER BY rowid DESC"
    ))
    .unwrap();
}

/// Live holds of all modes, counted, cut and revoked ones, and what is over: all of it is there
/// after the table was built anew, in its order.
#[test]
fn i15_a_migration_of_the_holds_loses_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (new, old) = (folder.path().join("new.db"), folder.path().join("old.db"));
    let mut store = open(&new);
    let mut project = Project::take_over(&mut store, "p");
    let ann = project.open_session(&mut store, "ann");
    let bob = project.open_session(&mut store, "bob");
    let mut turn = |command: Command| project.turn(&mut store, command).unwrap();
    let with = |mode, name: &str| Acquire { mode, ..ask(ann, name) };
    turn(DeclareCapacity { resource: Resource::llm("m"), capacity: Some(4) }.into());
    for (mode, name) in [
        (LockMode::Shared, "file:shared"),
        (LockMode::Update, "file:update"),
        (LockMode::Exclusive, "file:exclusive"),
        (LockMode::Permit(3), "llm:m"),
    ] {
        let options = AskOptions {
            reason: Some(format!("it's \"{name}\"").into()),
            metadata: Some("{\"a\":1}".into()),
            request_id: Some(RequestId::new(name.bytes().map(u128::from).sum())),
            reentrant: true,
            ..AskOptions::default()
        };
        turn(Acquire { options, ..with(mode, name) }.into());
        turn(ask(bob, &format!("file:over {name}")).into());
    }
    let counted = AskOptions { reentrant: true, ..AskOptions::default() };
    turn(Acquire { options: counted, ..with(LockMode::Exclusive, "file:exclusive") }.into());
    let over = project.table.list();
    for hold in over.iter().filter(|hold| hold.session == bob) {
        project.turn(&mut store, give_back(bob, hold.lock)).unwrap();
    }
    let waits = project.turn(&mut store, ask(bob, "file:exclusive")).unwrap();
    assert!(waits.is_empty(), "{waits:?}");
    let rows = |path: &Path| -> Vec<Vec<rusqlite::types::Value>> {
        let db = Connection::open(path).unwrap();
        let mut all = db.prepare("SELECT * FROM resource_locks ORDER BY rowid").unwrap();
        // What came later, at the end, is told apart below.
        let width = 24;
        let all = all.query_map([], |row| (0..width).map(|at| row.get(at)).collect()).unwrap();
        all.map(Result::unwrap).collect()
    };
    carry_over(&mut store);
    before_cheaper_grants(&old, &new);
    let before = rows(&old);
    assert_eq!((before.len(), &before), (8, &rows(&new)));
    let later = RELEASED[2..].iter().map(|(name, _)| *name);
    assert_eq!(migrate(&old, None).unwrap().applied, later.collect::<Vec<_>>());
    assert_eq!(rows(&old), before);
    let db = Connection::open(&old).unwrap();
    let numbers = "SELECT group_concat(rowid) FROM (SELECT rowid FROM resource_locks ORDER BY 1)";
    let numbers: String = db.query_row(numbers, [], |row| row.get(0)).unwrap();
    assert_eq!(numbers, "10,20,30,40,50,60,70,80");
    let fleeting = "SELECT count(*) FROM resource_locks WHERE fleeting";
    assert_eq!(db.query_row(fleeting, [], |row| row.get(0)), Ok(0), "nobody said so then");
    let schema = |path: &Path| -> Vec<(String, String)> {
        let db = Connection::open(path).unwrap();
        let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        let mut all = db.prepare(sql).unwrap();
        let all = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        all.map(Result::unwrap).filter(|(name, _)| name != "schema_history").collect()
    };
    assert_eq!(schema(&old), schema(&new));
    let check = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(check("PRAGMA integrity_check").unwrap(), "ok");
    assert!(check("PRAGMA foreign_key_check").is_err(), "no row is without its project");
    drop(db);
    let mut migrated = open(&old);
    let (of_new, of_old) = (store.claim("p").unwrap(), migrated.claim("p").unwrap());
    assert_eq!(migrated.load(&of_old).unwrap(), store.load(&of_new).unwrap());
    assert_eq!(held(&old, "p").len(), 4);
}

/// Half a copy would be taken for a whole one.
#[test]
fn a_copy_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("locks.db"), folder.path().join("copy.db"));
    drop(with_a_hold(&path));
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'resource_locks'";
    let page: usize = db.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(db);
    let mut damaged = fs::read(&path).unwrap();
    damaged[(page - 1) * 4096..page * 4096].fill(0xa5);
    fs::write(&path, damaged).unwrap();
    let refused = migrate(&path, Some(copy.clone())).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert!(!copy.exists());
}

#[cfg(unix)]
#[test]
fn a_copy_has_a_name_that_can_be_said() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(open(&path));
    let copy = folder.path().join(std::ffi::OsStr::from_bytes(b"copy-\xff.db"));
    let refused = migrate(&path, Some(copy.clone())).unwrap_err();
    assert!(refused.to_string().contains("UTF-8"), "{refused}");
    assert!(!copy.exists());
    let here = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let copies = here.filter(|name| name.to_string_lossy().contains("copy")).count();
    assert_eq!(copies, 0);
}

#[test]
fn a_copy_is_a_store_with_everything_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("locks.db"), folder.path().join("copy.db"));
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    project.grant(&mut store, session, "file:a");
    drop(store);
    migrate(&path, Some(copy.clone())).unwrap();
    let mut store = open(&copy);
    let restored = Project::take_over(&mut store, "p");
    assert_eq!(restored.table.list(), project.table.list());
}

/// A file with one live exclusive hold of `file:a`.
fn with_a_hold(path: &Path) -> Connection {
    let mut store = open(path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    project.grant(&mut store, session, "file:a");
    Connection::open(path).unwrap()
}

/// I1 once more, by the schema alone.
#[test]
fn a_second_exclusive_hold_cannot_be_written_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let db = with_a_hold(&path);
    let again = |id: &str, mode: &str, released: Option<&str>| {
        db.execute(
            "INSERT INTO resource_locks (id, project_id, resource_type, resource_key, agent_id,
                acquired_at, timeout_at, session_id, mode, token, lease_ms, ticket, birth,
                wait_ms, released_at)
             SELECT ?1, project_id, resource_type, resource_key, agent_id, acquired_at,
                timeout_at, session_id, ?2, token, lease_ms, ticket, birth, wait_ms, ?3
             FROM resource_locks LIMIT 1",
            (id, mode, released),
        )
    };
    assert!(again("b", "exclusive", None).unwrap_err().to_string().contains("UNIQUE"));
    assert!(again("c", "exclusive", Some("2026-01-01T00:00:00.000Z")).is_ok(), "one that is over");
    assert!(again("d", "nonsense", None).is_err());
    let third = LockId::from_u128(3).to_string();
    assert!(again(&third, "shared", None).is_ok());
    let raised = db.execute("UPDATE resource_locks SET mode = 'exclusive' WHERE id = ?1", [&third]);
    assert!(raised.is_err());
    let revived = db.execute("UPDATE resource_locks SET released_at = NULL WHERE id = 'c'", []);
    assert!(revived.is_err());
    assert_eq!(held(&path, "p").len(), 2);
}

#[test]
fn the_tables_keep_the_names_that_were_promised() {
    let folder = tempfile::tempdir().unwrap();
    let db = with_a_hold(&folder.path().join("locks.db"));
    let story = "SELECT id, project_id, resource_type, resource_key, agent_id, acquired_at,
            released_at, timeout_at, session_id, mode, permit_slot, token, reason, metadata,
            lease_ms, release_cause, released_by
        FROM resource_locks JOIN projects ON projects.id = project_id";
    assert!(db.prepare(&story.replace("SELECT id", "SELECT resource_locks.id")).is_ok());
    let log = "SELECT id, project_id, event_type, event_time, agent_id, resource, token, details
        FROM audit_log";
    assert!(db.prepare(log).is_ok());
    for table in ["lock_tickets", "tasks", "lock_meta"] {
        assert!(db.prepare(&format!("SELECT * FROM {table}")).is_ok(), "{table}");
    }
    let index = |name: &str| -> String {
        let sql = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1";
        db.query_row(sql, [name], |row| row.get(0)).unwrap()
    };
    assert!(index("idx_resource_locks_active").starts_with("CREATE UNIQUE INDEX"));
    assert!(index("idx_resource_locks_timeout").contains("(timeout_at)"));
    let times = "SELECT acquired_at, timeout_at FROM resource_locks";
    let times = db.query_row(times, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let expected = ("2023-11-14T22:13:20.000Z", "2023-11-14T22:18:20.000Z");
    assert_eq!(times, (expected.0.to_owned(), expected.1.to_owned()));
}

#[test]
fn the_audit_log_can_only_grow() {
    let folder = tempfile::tempdir().unwrap();
    let db = with_a_hold(&folder.path().join("locks.db"));
    let refused = |sql: &str| db.execute(sql, []).unwrap_err().to_string();
    assert!(refused("UPDATE audit_log SET agent_id = 'eve'").contains("append-only"));
    assert!(refused("DELETE FROM audit_log").contains("append-only"));
    assert!(refused("DELETE FROM audit_log WHERE id = 1").contains("append-only"));
    let over = "INSERT OR REPLACE INTO audit_log (id, project_id, event_type, event_time, details)
        VALUES (1, 'p', 'lie', '', '{}')";
    assert!(refused(over).contains("append-only"));
    // Even with the horizon gone.
    db.execute("DELETE FROM audit_horizon", []).unwrap();
    assert!(refused("DELETE FROM audit_log WHERE id = 1").contains("append-only"));
    db.execute("INSERT INTO audit_horizon VALUES (1, '2024-01-01T00:00:00.000Z')", []).unwrap();
    db.execute("DELETE FROM audit_log WHERE id = 1", []).unwrap();
    assert!(refused("DELETE FROM audit_log").contains("append-only"), "the newest row stays");
    assert!(db.execute("INSERT INTO audit_horizon VALUES (2, 'z')", []).is_err());
}

/// No way of adding a row changes one that is there, alone or among others, in any program.
#[test]
fn a_row_of_the_audit_log_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    drop(with_a_hold(&path));
    let db = Connection::open(&path).unwrap();
    let rows = |upto: i64| -> Vec<(i64, String, String)> {
        let sql = "SELECT id, event_type, details FROM audit_log WHERE id <= ?1 ORDER BY id";
        let mut all = db.prepare(sql).unwrap();
        let all = all.query_map([upto], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        all.map(Result::unwrap).collect()
    };
    let before = rows(i64::MAX);
    let newest = before.len() as i64;
    assert!(newest > 1);
    let columns = "(id, project_id, event_type, event_time, details)";
    for id in [1, newest] {
        for how in ["INSERT OR REPLACE INTO", "REPLACE INTO", "INSERT OR FAIL INTO", "INSERT INTO"]
        {
            let one = format!("{how} audit_log {columns} VALUES ({id}, 'p', 'lie', '', '{{}}')");
            let refused = db.execute(&one, []).unwrap_err().to_string();
            assert!(refused.contains("append-only"), "{one}: {refused}");
            let several = format!(
                "{how} audit_log {columns} SELECT column1, 'p', 'lie', '', '{{}}'
                 FROM (VALUES (NULL), ({id}))"
            );
            let refused = db.execute(&several, []).unwrap_err().to_string();
            assert!(refused.contains("append-only"), "{several}: {refused}");
        }
        let upsert = format!(
            "INSERT INTO audit_log {columns} VALUES ({id}, 'p', 'lie', '', '{{}}')
             ON CONFLICT DO UPDATE SET details = excluded.details"
        );
        assert!(db.execute(&upsert, []).unwrap_err().to_string().contains("append-only"));
        let ignored = format!(
            "INSERT OR IGNORE INTO audit_log {columns} VALUES ({id}, 'p', 'lie', '', '{{}}')"
        );
        let _ = db.execute(&ignored, []);
    }
    assert_eq!(rows(newest), before);
}

/// What the file says of a task comes from the claim that moved it.
#[test]
fn times_beyond_the_calendar_are_kept_as_late() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    let mut store = open(&path);
    let mut project = Project::take_over(&mut store, "p");
    let session = project.open_session(&mut store, "ann");
    project.known.now = u64::MAX - 5;
    let late = project.turn(&mut store, ask(session, "file:a")).unwrap();
    assert!(matches!(late[0].outcome, Ok(Answer::Granted(_))), "{late:?}");
    let again = Project::take_over(&mut store, "p");
    assert_eq!(again.table.list()[0].expires_at, Timestamp::NEVER);
}
