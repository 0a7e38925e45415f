//! The live rows of a project: read, and kept as they will be written.

use crate::{error::Trouble, schema::NEWEST, text::parse_time};
use lockkeeper_core::{
    LockId, LockMode, Queued, RequestId, Resource, ResourceType, SessionId, SessionKind,
    TaskStatus, TicketId, Timestamp, Token,
};
use rusqlite::{Connection, Row, types::FromSql};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Everything of a project that is not over.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) capacities: Vec<(Timestamp, Resource, u32)>,
    pub(super) tasks: Vec<TaskRow>,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) holds: Vec<HoldRow>,
    pub(super) waits: Vec<WaitRow>,
    pub(super) tickets: Vec<TicketRow>,
}

#[derive(Debug)]
pub(super) struct TaskRow {
    pub(super) at: Timestamp,
    pub(super) resource: Resource,
    pub(super) version: u64,
    pub(super) status: TaskStatus,
    pub(super) lock: Option<LockId>,
}

#[derive(Debug)]
pub(super) struct SessionRow {
    pub(super) at: Timestamp,
    pub(super) id: SessionId,
    pub(super) agent: Arc<str>,
    pub(super) kind: SessionKind,
    pub(super) priority: i8,
    pub(super) birth: Option<TicketId>,
    pub(super) aborts: u32,
    pub(super) retrying: bool,
}

#[derive(Debug)]
pub(super) struct HoldRow {
    /// Where it stands in its table; nowhere yet, if it has not been carried over.
    pub(super) row: Option<i64>,
    pub(super) agent: Arc<str>,
    pub(super) at: Timestamp,
    pub(super) lock: LockId,
    pub(super) session: SessionId,
    pub(super) resource: Resource,
    pub(super) mode: LockMode,
    pub(super) slots: Vec<u32>,
    pub(super) token: Token,
    pub(super) ticket: TicketId,
    pub(super) shares: Option<Vec<TicketId>>,
    pub(super) birth: TicketId,
    pub(super) expires_at: Timestamp,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) lease_ms: u64,
    pub(super) wait_ms: u64,
    pub(super) reason: Option<Arc<str>>,
    pub(super) metadata: Option<Arc<str>>,
    pub(super) request_id: Option<RequestId>,
    /// Whether nothing but this row remembers that request.
    pub(super) fleeting: bool,
}

#[derive(Debug)]
pub(super) struct WaitRow {
    pub(super) at: Timestamp,
    pub(super) session: SessionId,
    pub(super) on: SessionId,
    pub(super) birth: Option<TicketId>,
}

#[derive(Debug)]
pub(super) struct TicketRow {
    pub(super) agent: Arc<str>,
    pub(super) at: Timestamp,
    pub(super) poll_by: Option<Timestamp>,
    pub(super) parked: bool,
    pub(super) birth: TicketId,
    pub(super) request: Queued,
}

/// The live holds, by the two indexes that know them, in the order in which they were written.
macro_rules! holds {
    ($fleeting:literal) => {
        concat!(
            "SELECT acquired_at, id, session_id, resource_type, resource_key, mode, slots, token,
                ticket, shares, birth, timeout_at, revoked_at, lease_ms, wait_ms, reason, metadata,
                rowid, agent_id, request_id, ",
            $fleeting,
            " FROM resource_locks WHERE rowid IN (
                SELECT rowid FROM resource_locks INDEXED BY idx_resource_locks_active
                    WHERE project_id = ?1 AND released_at IS NULL AND mode = 'exclusive'
                UNION ALL
                SELECT rowid FROM resource_locks INDEXED BY idx_resource_locks_together
                    WHERE project_id = ?1 AND released_at IS NULL AND mode <> 'exclusive')
            ORDER BY rowid"
        )
    };
}

impl Rows {
    pub(super) fn read(db: &Connection, project: &str) -> Result<Rows, Trouble> {
        Rows::read_of(db, project, NEWEST)
    }

    /// The same of an older schema: what it did not know, it does not have.
    pub(super) fn read_of(db: &Connection, project: &str, schema: u32) -> Result<Rows, Trouble> {
        let capacities = "SELECT declared_at, resource, capacity FROM resource_capacities
            WHERE project_id = ?1 ORDER BY resource";
        let tasks = "SELECT moved_at, resource, version, status, lock_id FROM tasks
            WHERE project_id = ?1 ORDER BY resource";
        let sessions = "SELECT opened_at, id, agent_id, kind, priority, birth, aborts, retrying
            FROM sessions WHERE project_id = ?1 ORDER BY id";
        let waits = "SELECT declared_at, session_id, on_session_id, birth FROM declared_waits
            WHERE project_id = ?1 ORDER BY session_id, on_session_id";
        let tickets =
            "SELECT queued_at, poll_by, parked, birth, request, agent_id FROM lock_tickets
            WHERE project_id = ?1 ORDER BY ticket";
        Ok(Rows {
            capacities: all(db, capacities, project, |row| {
                Ok((time(row, 0)?, parsed(row, 1)?, get(row, 2)?))
            })?,
            tasks: match schema {
                ..2 => Vec::new(),
                2.. => all(db, tasks, project, task)?,
            },
            sessions: all(db, sessions, project, session)?,
            holds: match schema {
                ..5 => all(db, holds!("0"), project, hold)?,
                5.. => all(db, holds!("fleeting"), project, hold)?,
            },
            waits: all(db, waits, project, wait)?,
            tickets: all(db, tickets, project, ticket)?,
        })
    }
}

/// The names of all projects, in order.
pub(super) fn projects(db: &Connection) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut question = db.prepare_cached("SELECT id FROM projects ORDER BY id")?;
    let names = question.query_map([], |row| Ok(Arc::from(row.get_ref(0)?.as_str()?)))?;
    names.collect()
}

fn task(row: &Row<'_>) -> Result<TaskRow, Trouble> {
    let status = match text(row, 3)? {
        "open" => TaskStatus::Open,
        "claimed" => TaskStatus::Claimed,
        "done" => TaskStatus::Done,
        other => return Err(damaged("a status", other)),
    };
    let lock = opt_text(row, 4)?.map(parse_lock).transpose()?;
    Ok(TaskRow {
        at: time(row, 0)?,
        resource: parsed(row, 1)?,
        version: get(row, 2)?,
        status,
        lock,
    })
}

fn session(row: &Row<'_>) -> Result<SessionRow, Trouble> {
    let kind = match text(row, 3)? {
        "attached" => SessionKind::Attached,
        "detached" => SessionKind::Detached,
        other => return Err(damaged("a kind of session", other)),
    };
    Ok(SessionRow {
        at: time(row, 0)?,
        id: SessionId::from_u64(get(row, 1)?),
        agent: text(row, 2)?.into(),
        kind,
        priority: get(row, 4)?,
        birth: get::<Option<u64>>(row, 5)?.map(TicketId::from_u64),
        aborts: get(row, 6)?,
        retrying: get(row, 7)?,
    })
}

fn hold(row: &Row<'_>) -> Result<HoldRow, Trouble> {
    let resource_type = ResourceType::from(text(row, 3)?);
    let slots: Vec<u32> = opt_text(row, 6)?.map(from_json).transpose()?.unwrap_or_default();
    let mode = match text(row, 5)? {
        "shared" => LockMode::Shared,
        "update" => LockMode::Update,
        "exclusive" => LockMode::Exclusive,
        "permit" => LockMode::Permit(slots.len() as u32),
        other => return Err(damaged("a mode", other)),
    };
    Ok(HoldRow {
        row: Some(get(row, 17)?),
        agent: text(row, 18)?.into(),
        at: time(row, 0)?,
        lock: parse_lock(text(row, 1)?)?,
        session: SessionId::from_u64(get(row, 2)?),
        resource: Resource::new(resource_type, text(row, 4)?),
        mode,
        slots,
        token: Token::from_u64(get(row, 7)?),
        ticket: TicketId::from_u64(get(row, 8)?),
        shares: opt_text(row, 9)?.map(from_json).transpose()?,
        birth: TicketId::from_u64(get(row, 10)?),
        expires_at: time(row, 11)?,
        revoked_at: opt_text(row, 12)?.map(moment).transpose()?,
        lease_ms: get(row, 13)?,
        wait_ms: get(row, 14)?,
        reason: opt_text(row, 15)?.map(Arc::from),
        metadata: opt_text(row, 16)?.map(Arc::from),
        request_id: opt_text(row, 19)?.map(parse_request).transpose()?,
        fleeting: get(row, 20)?,
    })
}

fn wait(row: &Row<'_>) -> Result<WaitRow, Trouble> {
    Ok(WaitRow {
        at: time(row, 0)?,
        session: SessionId::from_u64(get(row, 1)?),
        on: SessionId::from_u64(get(row, 2)?),
        birth: get::<Option<u64>>(row, 3)?.map(TicketId::from_u64),
    })
}

fn ticket(row: &Row<'_>) -> Result<TicketRow, Trouble> {
    Ok(TicketRow {
        agent: text(row, 5)?.into(),
        at: time(row, 0)?,
        poll_by: opt_text(row, 1)?.map(moment).transpose()?,
        parked: get(row, 2)?,
        birth: TicketId::from_u64(get(row, 3)?),
        request: from_json(text(row, 4)?)?,
    })
}

/// Every row of a question about one project.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    project: &str,
    of: impl Fn(&Row<'_>) -> Result<T, Trouble>,
) -> Result<Vec<T>, Trouble> {
    let mut question = db.prepare_cached(sql)?;
    let mut rows = question.query([project])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(of(row)?);
    }
    Ok(found)
}

fn damaged(what: &str, found: &str) -> Trouble {
    Trouble::Damaged(format!("{found:?} is not {what}"))
}

fn get<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, Trouble> {
    Ok(row.get(at)?)
}

pub(super) fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, Trouble> {
    opt_text(row, at)?.ok_or_else(|| Trouble::Damaged("a text is missing".to_owned()))
}

pub(super) fn opt_text<'a>(row: &'a Row<'_>, at: usize) -> Result<Option<&'a str>, Trouble> {
    let value = row.get_ref(at)?;
    value.as_str_or_null().map_err(|error| Trouble::Damaged(error.to_string()))
}

pub(super) fn time(row: &Row<'_>, at: usize) -> Result<Timestamp, Trouble> {
    moment(text(row, at)?)
}

pub(super) fn moment(text: &str) -> Result<Timestamp, Trouble> {
    parse_time(text).map_err(Trouble::Damaged)
}

fn parsed(row: &Row<'_>, at: usize) -> Result<Resource, Trouble> {
    let text = text(row, at)?;
    text.parse().map_err(|_| damaged("a resource", text))
}

fn parse_lock(text: &str) -> Result<LockId, Trouble> {
    text.parse().map_err(|_| damaged("a lock id", text))
}

pub(super) fn parse_request(text: &str) -> Result<RequestId, Trouble> {
    let number = u128::from_str_radix(text, 16).map_err(|_| damaged("a request id", text))?;
    Ok(RequestId::new(number))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Damaged(error.to_string()))
}

/// The live rows of a project as they are after everything that is acknowledged, and which of them
/// are still to be carried over into the tables.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) capacities: BTreeMap<Resource, (Timestamp, u32)>,
    pub(super) tasks: BTreeMap<Resource, TaskRow>,
    pub(super) sessions: HashMap<SessionId, Session>,
    pub(super) holds: HashMap<LockId, Box<Held>>,
    /// Which of them are exclusive: a second one of a resource is impossible.
    pub(super) exclusive: HashMap<Resource, LockId>,
    pub(super) waits: BTreeMap<(SessionId, SessionId), WaitRow>,
    /// The same, by whom they are on.
    pub(super) waits_on: BTreeSet<(SessionId, SessionId)>,
    pub(super) tickets: HashMap<TicketId, Ticket>,
    /// How many holds there were: they are kept in the order in which they came.
    pub(super) holds_made: u64,
    /// The ticket that ended last, and whether its asker may come back for the outcome: the other
    /// grants of its batch follow in the same turn.
    pub(super) ticket_ended: Option<(TicketId, bool)>,
    /// What is to be carried over: holds that are over; and rows, some of them more than once, that
    /// are new, changed or gone.
    pub(super) ended: Vec<Ended>,
    pub(super) touched: Vec<Touched>,
}

/// An open session, and the work it is at; the same rules as in the table.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) row: SessionRow,
    pub(super) birth: Option<TicketId>,
    pub(super) aborts: u32,
    pub(super) retrying: bool,
    /// Holds, tickets and declared waits.
    pub(super) ties: usize,
    /// Whether its row has a birth or aborts.
    pub(super) is_marked: bool,
}

/// A live hold.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: HoldRow,
    /// Its place among all.
    pub(super) number: u64,
    /// Whether it is among those to be carried over.
    pub(super) is_touched: bool,
}

/// A place in the queues.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) row: TicketRow,
    /// Whether it stands in its table.
    pub(super) is_carried: bool,
}

/// A hold that is over, and how.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) held: Box<Held>,
    pub(super) at: Timestamp,
    pub(super) cause: &'static str,
    pub(super) by: Option<Arc<str>>,
}

/// A row that is not as it stands in its table. If it is not live any more, it is gone.
#[derive(Debug)]
pub(super) enum Touched {
    Capacity(Resource),
    Task(Resource),
    Session(SessionId),
    Hold(LockId),
    Wait(SessionId, SessionId),
    Ticket(TicketId),
}

impl Live {
    pub(super) fn of(rows: Rows) -> Live {
        let mut live = Live::default();
        let capacities = rows.capacities.into_iter();
        live.capacities = capacities.map(|(at, resource, n)| (resource, (at, n))).collect();
        live.tasks = rows.tasks.into_iter().map(|row| (row.resource.clone(), row)).collect();
        for row in rows.sessions {
            let (birth, aborts, retrying) = (row.birth, row.aborts, row.retrying);
            let is_marked = birth.is_some() || aborts > 0 || retrying;
            let id = row.id;
            let session = Session { row, birth, aborts, retrying, ties: 0, is_marked };
            live.sessions.insert(id, session);
        }
        for mut row in rows.holds {
            live.tie(row.session, Some(row.birth));
            // One name for all holds of a session.
            if let Some(session) = live.sessions.get(&row.session)
                && session.row.agent == row.agent
            {
                row.agent = session.row.agent.clone();
            }
            live.hold(row, false);
        }
        for row in rows.waits {
            live.tie(row.session, row.birth);
            live.waits_on.insert((row.on, row.session));
            live.waits.insert((row.session, row.on), row);
        }
        for row in rows.tickets {
            live.tie(row.request.session, Some(row.birth));
            live.tickets.insert(row.request.ticket, Ticket { row, is_carried: true });
        }
        live
    }

    /// One more hold.
    pub(super) fn hold(&mut self, row: HoldRow, is_touched: bool) {
        self.holds_made += 1;
        if row.mode == LockMode::Exclusive {
            self.exclusive.insert(row.resource.clone(), row.lock);
        }
        let lock = row.lock;
        let held = Held { row, number: self.holds_made, is_touched };
        self.holds.insert(lock, Box::new(held));
    }

    fn tie(&mut self, session: SessionId, birth: Option<TicketId>) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.ties += 1;
        if !session.is_marked {
            session.birth = match (session.birth, birth) {
                (Some(known), Some(other)) => Some(known.min(other)),
                (known, other) => known.or(other),
            };
        }
    }

    /// The rows as they would be read once all is carried over.
    pub(super) fn into_rows(self) -> Rows {
        let capacities = self.capacities.into_iter();
        let mut sessions: Vec<SessionRow> =
            self.sessions.into_values().map(|session| session.row).collect();
        sessions.sort_unstable_by_key(|row| row.id);
        let mut holds: Vec<Box<Held>> = self.holds.into_values().collect();
        holds.sort_unstable_by_key(|held| held.number);
        let mut tickets: Vec<TicketRow> =
            self.tickets.into_values().map(|ticket| ticket.row).collect();
        tickets.sort_unstable_by_key(|row| row.request.ticket);
        Rows {
            capacities: capacities.map(|(resource, (at, n))| (at, resource, n)).collect(),
            tasks: self.tasks.into_values().collect(),
            sessions,
            holds: holds.into_iter().map(|held| held.row).collect(),
            waits: self.waits.into_values().collect(),
            tickets,
        }
    }
}
