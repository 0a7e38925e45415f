//! Questions about what is written, on a connection of their own.

use super::{connect, journal, live};
use crate::{
    AuditFilter, AuditRow, Reader, StoreError, error::Trouble, owner::Here, schema::NEWEST,
    text::TimeText,
};
use lockkeeper_core::{Record, Token};
use rusqlite::{Connection, OpenFlags, Row, ToSql};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const LIMIT: usize = 1000;

/// A read-only connection.
#[derive(Debug)]
pub(super) struct SqliteReader {
    db: Connection,
    path: PathBuf,
    _here: Here,
}

impl SqliteReader {
    pub(super) fn open(path: &Path) -> Result<SqliteReader, StoreError> {
        let _here = Here::enter(path);
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::from_secs(5))?;
        db.pragma_update(None, "query_only", true)
            .map_err(|error| StoreError::of_sqlite(path, &error))?;
        Ok(SqliteReader { db, path: path.to_path_buf(), _here })
    }

    fn of(&self, trouble: Trouble, project: Option<&str>) -> StoreError {
        trouble.of(&self.path, &project.unwrap_or_default().into())
    }
}

impl Reader for SqliteReader {
    fn audit(&mut self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        audit(&self.db, filter, NEWEST)
            .map_err(|trouble| self.of(trouble, filter.project.as_deref()))
    }

    fn history(&mut self, project: &str) -> Result<Vec<Record>, StoreError> {
        history(&self.db, project).map_err(|trouble| self.of(trouble, Some(project)))
    }
}

fn history(db: &Connection, project: &str) -> Result<Vec<Record>, Trouble> {
    let moment = db.unchecked_transaction()?;
    let sql = "SELECT event_time, details FROM audit_log WHERE project_id = ?1 ORDER BY id";
    let mut records = live::all(&moment, sql, project, |row| {
        Ok(Record { at: live::time(row, 0)?, fact: live::from_json(live::text(row, 1)?)? })
    })?;
    records.extend(journal::facts(&moment, project, NEWEST)?);
    Ok(records)
}

/// What the audit log says, and will say once all is carried over.
pub(super) fn audit(
    db: &Connection,
    filter: &AuditFilter,
    schema: u32,
) -> Result<Vec<AuditRow>, Trouble> {
    let moment = db.unchecked_transaction()?;
    let limit = filter.limit.unwrap_or(LIMIT);
    let mut latest = journal::audit(&moment, filter.project.as_deref(), schema)?;
    latest.retain(|row| is_asked_for(row, filter));
    let mut found = carried(&moment, filter, limit)?;
    match filter.oldest_first {
        true => found.append(&mut latest),
        false => {
            latest.reverse();
            latest.append(&mut found);
            found = latest;
        }
    }
    found.truncate(limit);
    Ok(found)
}

fn is_asked_for(row: &AuditRow, filter: &AuditFilter) -> bool {
    let AuditFilter { project, resource, agent, event_type, since, until, after_id, .. } = filter;
    let is = |asked: &Option<String>, there: Option<&String>| {
        asked.as_ref().is_none_or(|asked| Some(asked) == there)
    };
    is(project, Some(&row.project_id))
        && is(resource, row.resource.as_ref())
        && is(agent, row.agent_id.as_ref())
        && is(event_type, Some(&row.event_type))
        && since.is_none_or(|since| row.event_time >= since)
        && until.is_none_or(|until| row.event_time <= until)
        && after_id.is_none_or(|after| row.id > after)
}

fn carried(db: &Connection, filter: &AuditFilter, limit: usize) -> Result<Vec<AuditRow>, Trouble> {
    let mut sql =
        "SELECT id, project_id, event_type, event_time, agent_id, resource, token, details
        FROM audit_log WHERE 1"
            .to_owned();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut only = |condition: &str, value: Option<Box<dyn ToSql>>| {
        if let Some(value) = value {
            values.push(value);
            sql += &format!(" AND {condition} ?{}", values.len());
        }
    };
    let text = |text: &Option<String>| text.clone().map(|text| Box::new(text) as Box<dyn ToSql>);
    let time = |time: Option<_>| time.map(|time| Box::new(TimeText::from(time)) as Box<dyn ToSql>);
    only("project_id =", text(&filter.project));
    only("resource =", text(&filter.resource));
    only("agent_id =", text(&filter.agent));
    only("event_type =", text(&filter.event_type));
    only("event_time >=", time(filter.since));
    only("event_time <=", time(filter.until));
    only("id >", filter.after_id.map(|id| Box::new(id) as Box<dyn ToSql>));
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    sql += &format!(" ORDER BY id {order} LIMIT {}", i64::try_from(limit).unwrap_or(i64::MAX));
    let mut question = db.prepare_cached(&sql)?;
    let mut rows = question.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(audit_row(row)?);
    }
    Ok(found)
}

fn audit_row(row: &Row<'_>) -> Result<AuditRow, Trouble> {
    Ok(AuditRow {
        id: row.get(0)?,
        project_id: row.get(1)?,
        event_type: row.get(2)?,
        event_time: live::time(row, 3)?,
        agent_id: row.get(4)?,
        resource: row.get(5)?,
        token: row.get::<_, Option<u64>>(6)?.map(Token::from_u64),
        details: live::from_json(live::text(row, 7)?)?,
    })
}
