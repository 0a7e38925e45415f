//! What is over and old, removed.

use crate::{PruneBefore, text::TimeText};
use rusqlite::{Connection, TransactionBehavior};

/// Where the search goes on: rows are written in the order of time, so what is old stands first,
/// and no index is needed to find it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursors {
    locks: i64,
    audit: i64,
}

/// How many rows a step of the search looks at.
const LOOK: i64 = 4096;

pub(super) fn prune(
    db: &mut Connection,
    from: &mut Cursors,
    before: &PruneBefore,
    at_most: usize,
) -> rusqlite::Result<usize> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut next = *from;
    let locks = old_locks(&transaction, &mut next.locks, before, at_most)?;
    for &row in &locks {
        transaction
            .prepare_cached("DELETE FROM resource_locks WHERE rowid = ?1")?
            .execute([row])?;
    }
    let at_most = at_most - locks.len();
    let audit = old_audit(&transaction, &mut next.audit, before, at_most)?;
    if !audit.is_empty() {
        let horizon = TimeText::from(before.audit);
        let sql = "UPDATE audit_horizon SET before = max(before, ?1)";
        transaction.prepare_cached(sql)?.execute([horizon])?;
    }
    for &row in &audit {
        transaction.prepare_cached("DELETE FROM audit_log WHERE id = ?1")?.execute([row])?;
    }
    transaction.commit()?;
    *from = next;
    Ok(locks.len() + audit.len())
}

/// The rows of holds that were over in time. A hold that still lives is passed by; the search ends
/// where everything is younger, and begins anew the next time.
fn old_locks(
    db: &Connection,
    cursor: &mut i64,
    before: &PruneBefore,
    at_most: usize,
) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT rowid, acquired_at < ?2, coalesce(released_at < ?2, 0) FROM resource_locks
        WHERE rowid > ?1 ORDER BY rowid LIMIT ?3";
    search(db, sql, cursor, TimeText::from(before.released), at_most)
}

/// The newest row stays, so that ids are never given twice.
fn old_audit(
    db: &Connection,
    cursor: &mut i64,
    before: &PruneBefore,
    at_most: usize,
) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT id, event_time < ?2, event_time < ?2 FROM audit_log
        WHERE id > ?1 AND id < (SELECT max(id) FROM audit_log) ORDER BY id LIMIT ?3";
    search(db, sql, cursor, TimeText::from(before.audit), at_most)
}

/// Looks from where the last search stopped, in steps, until something is found.
fn search(
    db: &Connection,
    sql: &str,
    cursor: &mut i64,
    before: TimeText,
    at_most: usize,
) -> rusqlite::Result<Vec<i64>> {
    let mut found = Vec::new();
    while at_most > 0 && found.is_empty() {
        let mut question = db.prepare_cached(sql)?;
        let mut rows = question.query((*cursor, before, LOOK))?;
        let mut there_is_more = false;
        while found.len() < at_most
            && let Some(row) = rows.next()?
        {
            *cursor = row.get(0)?;
            let (was_there, is_over): (bool, bool) = (row.get(1)?, row.get(2)?);
            there_is_more |= was_there;
            if is_over {
                found.push(*cursor);
            }
        }
        if !there_is_more {
            // From here on everything is younger. The next search begins anew.
            *cursor = 0;
            break;
        }
    }
    Ok(found)
}
