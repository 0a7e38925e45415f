//! The schema, one step a file, forward only.

use crate::{StoreError, text};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::{Path, PathBuf};

/// One step: number and name, and what it does.
struct Step {
    name: &'static str,
    sql: &'static str,
}

macro_rules! steps {
    ($($name:literal),* $(,)?) => {
        &[$(Step { name: $name, sql: include_str!(concat!("../migrations/", $name, ".sql")) }),*]
    };
}

const STEPS: &[Step] = steps![
    "0001_resource_locks",
    "0002_tasks",
    "0003_cheaper_grants",
    "0004_journal",
    "0005_fleeting_requests",
];

/// The newest schema this program knows.
pub(crate) const NEWEST: u32 = STEPS.len() as u32;

/// What a migration did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigrationReport {
    /// The file.
    pub path: PathBuf,
    /// Its schema before; 0 for a new one.
    pub from: u32,
    /// Its schema now.
    pub to: u32,
    /// The steps that were applied, by name.
    pub applied: Vec<String>,
    /// The copy that was made before.
    pub backup: Option<PathBuf>,
}

/// The schema of a file: 0 for a new one. Refuses what this program does not know.
pub(crate) fn version(path: &Path, db: &Connection) -> Result<u32, StoreError> {
    let of_sqlite = |error: rusqlite::Error| StoreError::of_sqlite(path, &error);
    let found: u32 =
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(of_sqlite)?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known: NEWEST });
    }
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: u32 = db.query_row(tables, [], |row| row.get(0)).map_err(of_sqlite)?;
    let history = "SELECT count(*) FROM pragma_table_info('schema_history')
        WHERE name IN ('number', 'name', 'hash')";
    let history: u32 = db.query_row(history, [], |row| row.get(0)).map_err(of_sqlite)?;
    if (found == 0 && tables > 0) || (found > 0 && history < 3) {
        let detail = "a database of another program".to_owned();
        return Err(StoreError::Corrupt { path: path.to_path_buf(), detail });
    }
    if found > 0 {
        check_history(path, db, found)?;
    }
    Ok(found)
}

/// Whether the steps that were applied are those this program knows by their numbers.
fn check_history(path: &Path, db: &Connection, found: u32) -> Result<(), StoreError> {
    let of_sqlite = |error: rusqlite::Error| StoreError::of_sqlite(path, &error);
    let mut known =
        db.prepare("SELECT name, hash FROM schema_history WHERE number = ?1").map_err(of_sqlite)?;
    for (number, step) in (1..=found).zip(STEPS) {
        let applied = known.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)));
        let applied: Option<(String, String)> = applied.optional().map_err(of_sqlite)?;
        let applied = applied.ok_or_else(|| {
            let detail = format!("it does not say how it came to have schema {number}");
            StoreError::Corrupt { path: path.to_path_buf(), detail }
        })?;
        if applied.1 != hash(step.sql) {
            let migration = applied.0;
            return Err(StoreError::ForeignSchema { path: path.to_path_buf(), migration });
        }
    }
    Ok(())
}

/// Applies what is missing, all of it or nothing; returns the names of the steps.
pub(crate) fn apply(
    path: &Path,
    db: &mut Connection,
    found: u32,
) -> Result<Vec<String>, StoreError> {
    let of_sqlite = |error: rusqlite::Error| StoreError::of_sqlite(path, &error);
    let missing = &STEPS[STEPS.len().min(found as usize)..];
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let step_up = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let step_up = step_up.map_err(of_sqlite)?;
    step_up
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_history (number INTEGER NOT NULL PRIMARY KEY, \
             name TEXT NOT NULL, hash TEXT NOT NULL, applied_at TEXT NOT NULL) STRICT",
        )
        .map_err(of_sqlite)?;
    let at = text::TimeText::from(text::now());
    for (number, step) in (found + 1..).zip(missing) {
        step_up.execute_batch(step.sql).map_err(of_sqlite)?;
        let row = (number, step.name, hash(step.sql), at);
        step_up
            .execute("INSERT INTO schema_history VALUES (?1, ?2, ?3, ?4)", row)
            .map_err(of_sqlite)?;
    }
    step_up.pragma_update(None, "user_version", NEWEST).map_err(of_sqlite)?;
    step_up.commit().map_err(of_sqlite)?;
    Ok(missing.iter().map(|step| step.name.to_owned()).collect())
}

/// FNV-1a with 128 bits. It is there to notice a change by mistake; whoever can write the file can
/// write its hash as well.
fn hash(text: &str) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    // A checkout may have turned the ends of lines.
    let bytes = text.bytes().filter(|&byte| byte != b'\r');
    let sum = bytes.fold(BASIS, |sum, byte| (sum ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{sum:032x}")
}
