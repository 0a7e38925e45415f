//! The journal: what is acknowledged and not carried over yet, one entry for each commit of a
//! project.

use super::{
    details,
    live::{Live, Rows, from_json},
    project::Projector,
};
use crate::{AuditRow, Claim, audit::event_type, error::Trouble, text::Digits};
use lockkeeper_core::{Epoch, Fact, Record, RequestId, Resource, SessionId, Timestamp, Token};
use rusqlite::{Connection, Row};
use std::{collections::HashMap, ops::Range, sync::Arc};

/// The first schema that has a journal.
const SCHEMA: u32 = 4;

/// What one commit wrote of one project.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its number in the table; 0 before it is there.
    pub(super) id: i64,
    pub(super) project: Arc<str>,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    pub(super) last_event: u64,
    /// The facts, as JSON.
    facts: String,
    /// A line of the audit log for each of them.
    pub(super) lines: Vec<Line>,
}

/// What the audit log will say of a fact.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    pub(super) event_type: &'static str,
    pub(super) agent: Option<Arc<str>>,
    pub(super) resource: Option<Resource>,
    pub(super) token: Option<Token>,
    /// The session that remembers it.
    pub(super) session: Option<SessionId>,
    pub(super) request_id: Option<RequestId>,
    /// Where in the entry the fact stands.
    pub(super) details: Range<usize>,
}

impl Line {
    pub(super) fn of(record: &Record) -> Line {
        Line {
            at: record.at,
            event_type: event_type(&record.fact),
            agent: None,
            resource: None,
            token: None,
            session: None,
            request_id: None,
            details: 0..0,
        }
    }
}

/// The facts of an entry as they are read.
type Facts = Vec<(Timestamp, Fact)>;

impl Entry {
    pub(super) fn new(claim: &Claim, seq: u64, last_event: u64) -> Entry {
        Entry {
            id: 0,
            project: claim.project.clone(),
            epoch: claim.epoch,
            seq,
            last_event,
            facts: String::with_capacity(512),
            lines: Vec::new(),
        }
    }

    /// One fact more.
    pub(super) fn say(&mut self, record: &Record, line: Line) -> Result<(), serde_json::Error> {
        self.facts += if self.lines.is_empty() { "[[" } else { ",[" };
        self.facts += Digits::of(record.at.0).as_str();
        self.facts.push(',');
        let from = self.facts.len();
        details::write(&record.fact, &mut self.facts)?;
        self.lines.push(Line { details: from..self.facts.len(), ..line });
        self.facts.push(']');
        Ok(())
    }

    /// The fact of a line as JSON.
    pub(super) fn details(&self, line: &Line) -> &str {
        &self.facts[line.details.clone()]
    }

    /// Writes it if its claim is the newest one of its project; whether it was.
    pub(super) fn write(&mut self, db: &Connection) -> Result<bool, Trouble> {
        self.facts.push(']');
        let sql = "INSERT INTO journal (project_id, epoch, seq, last_event, facts)
            SELECT ?1, ?2, ?3, ?4, ?5 FROM lock_meta WHERE project_id = ?1 AND epoch = ?2";
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let row = (
            &*self.project,
            self.epoch.get(),
            whole(self.seq),
            whole(self.last_event),
            &self.facts,
        );
        let written = db.prepare_cached(sql)?.execute(row)? == 1;
        self.id = db.last_insert_rowid();
        Ok(written)
    }

    /// Takes it out of the table; whether it was there.
    pub(super) fn remove(&self, db: &Connection) -> Result<bool, Trouble> {
        let sql = "DELETE FROM journal
            WHERE id = ?1 AND project_id = ?2 AND epoch = ?3 AND seq = ?4";
        let whole = i64::try_from(self.seq).unwrap_or(i64::MAX);
        let row = (self.id, &*self.project, self.epoch.get(), whole);
        Ok(db.prepare_cached(sql)?.execute(row)? == 1)
    }

    /// Does once more to the live rows what was done when it was written.
    pub(super) fn redo(&mut self, live: &mut Live) -> Result<(), Trouble> {
        let facts: Facts = from_json(&self.facts)?;
        self.facts.clear();
        let mut projector = Projector::new(live, self);
        facts.into_iter().try_for_each(|(at, fact)| projector.take(&Record { at, fact }))
    }
}

fn entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        id: row.get(0)?,
        project: row.get_ref(1)?.as_str()?.into(),
        epoch: Epoch::new(row.get(2)?),
        seq: row.get(3)?,
        last_event: row.get(4)?,
        facts: row.get(5)?,
        lines: Vec::new(),
    })
}

/// All entries, in order, as they are written: their lines come with [`Entry::redo`].
pub(super) fn read(db: &Connection, schema: u32) -> Result<Vec<Entry>, Trouble> {
    if schema < SCHEMA {
        return Ok(Vec::new());
    }
    let mut all = db.prepare_cached(
        "SELECT id, project_id, epoch, seq, last_event, facts FROM journal ORDER BY id",
    )?;
    let entries = all.query_map([], entry)?;
    Ok(entries.collect::<rusqlite::Result<_>>()?)
}

/// Whether these are all entries there are, but for those of some projects: another owner may have
/// come and gone.
pub(super) fn is(
    db: &Connection,
    entries: &[Entry],
    is_left_out: impl Fn(&str) -> bool,
) -> Result<bool, Trouble> {
    let mut ids =
        db.prepare_cached("SELECT id, epoch, seq, project_id FROM journal ORDER BY id")?;
    let mut rows = ids.query([])?;
    let mut known = entries.iter();
    while let Some(row) = rows.next()? {
        let there: (i64, u32, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let name = super::live::text(row, 3)?;
        if is_left_out(name) {
            continue;
        }
        let is_known = known.next().is_some_and(|entry| {
            there == (entry.id, entry.epoch.get(), entry.seq) && *name == *entry.project
        });
        if !is_known {
            return Ok(false);
        }
    }
    Ok(known.next().is_none())
}

/// A project as it is after everything in the journal, and what of that is only there.
#[derive(Default)]
pub(super) struct Present {
    pub(super) rows: Rows,
    pub(super) entries: Vec<Entry>,
}

/// Reads a project that somebody else may be writing: all of it within one transaction.
pub(super) fn present(db: &Connection, project: &str, schema: u32) -> Result<Present, Trouble> {
    let rows = Rows::read_of(db, project, schema)?;
    let mut entries = read(db, schema)?;
    entries.retain(|entry| &*entry.project == project);
    if entries.is_empty() {
        return Ok(Present { rows, entries });
    }
    let mut live = Live::of(rows);
    entries.iter_mut().try_for_each(|entry| entry.redo(&mut live))?;
    Ok(Present { rows: live.into_rows(), entries })
}

/// The facts of a project that are only in the journal.
pub(super) fn facts(db: &Connection, project: &str, schema: u32) -> Result<Vec<Record>, Trouble> {
    let mut records = Vec::new();
    for entry in read(db, schema)?.into_iter().filter(|entry| &*entry.project == project) {
        let facts: Facts = from_json(&entry.facts)?;
        records.extend(facts.into_iter().map(|(at, fact)| Record { at, fact }));
    }
    Ok(records)
}

/// What the audit log will say once all is carried over, with the numbers it will have there. Of
/// one project, or of all; what cannot be carried over has no number, and is left out.
pub(super) fn audit(
    db: &Connection,
    project: Option<&str>,
    schema: u32,
) -> Result<Vec<AuditRow>, Trouble> {
    let mut entries = read(db, schema)?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let newest = "SELECT coalesce(max(id), 0) FROM audit_log";
    let mut id: i64 = db.prepare_cached(newest)?.query_row([], |row| row.get(0))?;
    let mut lives: HashMap<Arc<str>, Live> = HashMap::new();
    let mut rows = Vec::new();
    for entry in &mut entries {
        let live = match lives.entry(entry.project.clone()) {
            std::collections::hash_map::Entry::Occupied(live) => live.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Live::of(Rows::read_of(db, &entry.project, schema)?))
            }
        };
        match entry.redo(live) {
            Err(trouble) if trouble.is_of_one_batch() => {
                if project == Some(&*entry.project) {
                    return Err(trouble);
                }
                continue;
            }
            done => done?,
        }
        let is_asked_for = project.is_none_or(|project| project == &*entry.project);
        for line in &entry.lines {
            id += 1;
            if !is_asked_for {
                continue;
            }
            rows.push(AuditRow {
                id,
                project_id: entry.project.to_string(),
                event_type: line.event_type.to_owned(),
                event_time: line.at,
                agent_id: line.agent.as_deref().map(str::to_owned),
                resource: line.resource.as_ref().map(|resource| resource.as_str().to_owned()),
                token: line.token,
                details: from_json(entry.details(line))?,
            });
        }
    }
    Ok(rows)
}
