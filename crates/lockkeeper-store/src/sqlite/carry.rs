//! What is in the journal, carried over into the tables: as it is by then. A lock that was taken
//! and given back meanwhile is one row, written once.

use super::{
    journal::{Entry, Line},
    live::{Ended, Held, HoldRow, Live, SessionRow, Ticket, Touched},
};
use crate::{
    StoreError,
    error::Trouble,
    text::{Digits, IdText, RequestText, TimeText},
};
use lockkeeper_core::{LockMode, RequestId, SessionKind, TicketId, Token};
use rusqlite::{CachedStatement, Connection, Params};

/// Writes what one project owes to the tables.
pub(super) struct Carrier<'a> {
    db: &'a Connection,
    project: &'a str,
    grant: Option<CachedStatement<'a>>,
}

/// A new hold, over or not.
const GRANT: &str = "INSERT INTO resource_locks (id, project_id, resource_type, resource_key,
        agent_id, acquired_at, timeout_at, session_id, mode, permit_slot, slots, token, reason,
        metadata, lease_ms, ticket, birth, request_id, wait_ms, shares, revoked_at, released_at,
        release_cause, released_by, fleeting)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,
        ?20, ?21, ?22, ?23, ?24, ?25)";

/// A hold that is there already. It ends once: by its row and its id, if nobody has ended it.
const CHANGE: &str = "UPDATE resource_locks SET timeout_at = ?3, mode = ?4, permit_slot = ?5,
        slots = ?6, token = ?7, shares = ?8, revoked_at = ?9, released_at = ?10,
        release_cause = ?11, released_by = ?12
    WHERE rowid = ?1 AND id = ?2 AND released_at IS NULL";

/// It is added or it fails, and then so does all that is carried over with it: with nothing to
/// take back, SQLite keeps no copies of the pages for it.
const AUDIT: &str = "INSERT OR FAIL INTO audit_log (project_id, event_type, event_time, agent_id,
        resource, token, details, session_id, request_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

impl<'a> Carrier<'a> {
    pub(super) fn new(db: &'a Connection, project: &'a str) -> Carrier<'a> {
        Carrier { db, project, grant: None }
    }

    /// Writes it all. Whoever gets an error believes nothing of what is live any more.
    pub(super) fn carry(&mut self, live: &mut Live) -> Result<(), Trouble> {
        // What is over first, so that there is room for what came after it.
        for ended in std::mem::take(&mut live.ended) {
            let Ended { held, at, cause, by } = &ended;
            let by = by.as_deref().unwrap_or(&held.row.agent);
            let how = How { at: Some(TimeText::from(*at)), cause: Some(cause), by: Some(by) };
            self.hold(&held.row, &how)?;
        }
        for touched in std::mem::take(&mut live.touched) {
            self.touched(live, &touched)?;
        }
        Ok(())
    }

    fn touched(&mut self, live: &mut Live, touched: &Touched) -> Result<(), Trouble> {
        let project = self.project;
        match touched {
            Touched::Hold(lock) => {
                // Otherwise it is over, and written.
                if let Some(held) = live.holds.get_mut(lock) {
                    let row = self.hold(&held.row, &How::default())?;
                    let Held { is_touched, row: hold, .. } = &mut **held;
                    (*is_touched, hold.row) = (false, Some(row));
                }
            }
            Touched::Ticket(id) => match live.tickets.get_mut(id) {
                Some(ticket) => self.ticket(ticket)?,
                None => {
                    let sql = "DELETE FROM lock_tickets WHERE project_id = ?1 AND ticket = ?2";
                    self.run(sql, (project, id.get()))?;
                }
            },
            Touched::Session(id) => match live.sessions.get(id) {
                Some(session) => self.session(&session.row)?,
                None => {
                    let sql = "DELETE FROM sessions WHERE project_id = ?1 AND id = ?2";
                    self.run(sql, (project, id.get()))?;
                }
            },
            Touched::Wait(session, on) => match live.waits.get(&(*session, *on)) {
                Some(row) => {
                    let birth = row.birth.map(TicketId::get);
                    let sql = "INSERT OR REPLACE INTO declared_waits VALUES (?1, ?2, ?3, ?4, ?5)";
                    let at = TimeText::from(row.at);
                    self.run(sql, (project, session.get(), on.get(), birth, at))?;
                }
                None => {
                    let sql = "DELETE FROM declared_waits
                        WHERE project_id = ?1 AND session_id = ?2 AND on_session_id = ?3";
                    self.run(sql, (project, session.get(), on.get()))?;
                }
            },
            Touched::Capacity(resource) => match live.capacities.get(resource) {
                Some((at, capacity)) => {
                    let sql = "INSERT OR REPLACE INTO resource_capacities VALUES (?1, ?2, ?3, ?4)";
                    self.run(sql, (project, resource.as_str(), capacity, TimeText::from(*at)))?;
                }
                None => {
                    let sql = "DELETE FROM resource_capacities
                        WHERE project_id = ?1 AND resource = ?2";
                    self.run(sql, (project, resource.as_str()))?;
                }
            },
            Touched::Task(resource) => match live.tasks.get(resource) {
                Some(task) => {
                    let sql = "INSERT OR REPLACE INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                    let (version, status) = (whole(task.version), task.status.to_string());
                    let (lock, at) = (task.lock.map(IdText::from), TimeText::from(task.at));
                    self.run(sql, (project, resource.as_str(), version, status, lock, at))?;
                }
                None => {
                    let sql = "DELETE FROM tasks WHERE project_id = ?1 AND resource = ?2";
                    self.run(sql, (project, resource.as_str()))?;
                }
            },
        }
        Ok(())
    }

    /// Writes a hold as it is; returns where.
    fn hold(&mut self, hold: &HoldRow, how: &How<'_>) -> Result<i64, Trouble> {
        let id = IdText::from(hold.lock);
        let expires_at = TimeText::from(hold.expires_at);
        let (slots, slot) = (slots_as_json(&hold.slots), hold.slots.first());
        let shares = hold.shares.as_deref().map(tickets_as_json);
        let revoked_at = hold.revoked_at.map(TimeText::from);
        let (mode, token) = (mode_word(hold.mode), hold.token.get());
        if let Some(row) = hold.row {
            let changed = rusqlite::params![
                row, id, expires_at, mode, slot, slots, token, shares, revoked_at, how.at,
                how.cause, how.by,
            ];
            if self.run(CHANGE, changed)? == 1 {
                return Ok(row);
            }
            // The journal is what counts.
            let (lock, project) = (hold.lock, self.project);
            tracing::warn!(project, %lock, "its row was changed by somebody else: written anew");
            self.run("DELETE FROM resource_locks WHERE id = ?1", [&id])?;
        }
        let (word, key) = hold.resource.as_str().split_once(':').unwrap_or_default();
        let grant = match &mut self.grant {
            Some(statement) => statement,
            none => none.insert(self.db.prepare_cached(GRANT)?),
        };
        grant.execute(rusqlite::params![
            id,
            self.project,
            word,
            key,
            &*hold.agent,
            TimeText::from(hold.at),
            expires_at,
            hold.session.get(),
            mode,
            slot,
            slots,
            token,
            hold.reason.as_deref(),
            hold.metadata.as_deref(),
            whole(hold.lease_ms),
            hold.ticket.get(),
            hold.birth.get(),
            hold.request_id.map(RequestText::from),
            whole(hold.wait_ms),
            shares,
            revoked_at,
            how.at,
            how.cause,
            how.by,
            hold.fleeting,
        ])?;
        Ok(self.db.last_insert_rowid())
    }

    fn ticket(&self, ticket: &mut Ticket) -> Result<(), Trouble> {
        let row = &ticket.row;
        let request = serde_json::to_string(&row.request)
            .map_err(|error| Trouble::Contradiction(error.to_string()))?;
        let row = rusqlite::params![
            self.project,
            row.request.ticket.get(),
            row.request.session.get(),
            &*row.agent,
            TimeText::from(row.at),
            TimeText::from(row.request.wait_until),
            row.poll_by.map(TimeText::from),
            row.parked,
            row.birth.get(),
            row.request.request_id.map(RequestText::from),
            request,
        ];
        let sql = "INSERT OR REPLACE INTO lock_tickets (project_id, ticket, session_id, agent_id,
                queued_at, wait_until, poll_by, parked, birth, request_id, request)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        self.run(sql, row)?;
        ticket.is_carried = true;
        Ok(())
    }

    fn session(&self, row: &SessionRow) -> Result<(), Trouble> {
        let kind = match row.kind {
            SessionKind::Attached => "attached",
            SessionKind::Detached => "detached",
        };
        let sql = "INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let row = (
            self.project,
            row.id.get(),
            &*row.agent,
            kind,
            row.priority,
            row.birth.map(TicketId::get),
            row.aborts,
            row.retrying,
            TimeText::from(row.at),
        );
        self.run(sql, row).map(drop)
    }

    fn run(&self, sql: &str, row: impl Params) -> Result<usize, Trouble> {
        Ok(self.db.prepare_cached(sql)?.execute(row)?)
    }
}

/// How a hold ended, if it did.
#[derive(Default)]
struct How<'a> {
    at: Option<TimeText>,
    cause: Option<&'a str>,
    by: Option<&'a str>,
}

/// Carries an entry's lines over into the audit log, and the entry out of the journal.
pub(super) fn enter(db: &Connection, entry: &Entry) -> Result<(), Trouble> {
    if !entry.remove(db)? {
        let detail = "somebody else carried over what was ours".to_owned();
        let project = entry.project.clone();
        return Err(Trouble::Known(StoreError::OutOfOrder { project, detail }));
    }
    let mut audit = db.prepare_cached(AUDIT)?;
    for line in &entry.lines {
        let Line { agent, resource, session, request_id, .. } = line;
        audit.execute(rusqlite::params![
            &*entry.project,
            line.event_type,
            TimeText::from(line.at),
            agent.as_deref(),
            resource.as_ref().map(|resource| resource.as_str()),
            line.token.map(Token::get),
            entry.details(line),
            session.map(|session| session.get()),
            request_id.map(|id: RequestId| RequestText::from(id)),
        ])?;
    }
    Ok(())
}

/// Says how far the tables go; in a later reign turns are counted anew.
pub(super) fn reach(db: &Connection, entry: &Entry) -> Result<(), Trouble> {
    let sql = "UPDATE lock_meta SET seq = iif(epoch = ?2, ?3, seq), last_event = ?4
        WHERE project_id = ?1";
    let row = (&*entry.project, entry.epoch.get(), whole(entry.seq), whole(entry.last_event));
    db.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

fn mode_word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Update => "update",
        LockMode::Exclusive => "exclusive",
        LockMode::Permit(_) => "permit",
    }
}

fn slots_as_json(slots: &[u32]) -> Option<String> {
    (!slots.is_empty()).then(|| as_json(slots.iter().map(|slot| u64::from(*slot))))
}

fn tickets_as_json(tickets: &[TicketId]) -> String {
    as_json(tickets.iter().map(|ticket| ticket.get()))
}

/// Numbers as JSON.
pub(super) fn as_json(numbers: impl Iterator<Item = u64>) -> String {
    let mut json = String::from("[");
    for number in numbers {
        let comma = if json.len() > 1 { "," } else { "" };
        json.push_str(comma);
        json.push_str(Digits::of(number).as_str());
    }
    json.push(']');
    json
}

/// A number as SQLite has them: up to 2^63.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
