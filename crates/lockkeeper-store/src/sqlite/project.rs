//! What each fact changes in the tables: one row in the audit log, always, and the live rows.
//!
//! Nothing is decided here. A fact that does not fit what is there (of a hold that is over, of a
//! session nobody opened) is a contradiction and fails its batch: a store that shrugged would not
//! tell the table's story any more.

use super::{
    details,
    live::{Held, Live, Session, Ticket, from_json, opt_text, text, time},
};
use crate::{
    audit::event_type,
    error::Trouble,
    text::{IdText, RequestText, TimeText},
};
use lockkeeper_core::{
    DeadlockReport, Fact, Granted, LockId, LockMode, Queued, Record, ReleaseCause, RequestId,
    Resource, SessionId, SessionKind, Task, TicketId, Timestamp, Token,
};
use rusqlite::{CachedStatement, Connection, Params};
use std::sync::Arc;

/// Writes the facts of one project.
pub(super) struct Projector<'a> {
    db: &'a Connection,
    project: &'a str,
    live: &'a mut Live,
    often: Often<'a>,
    details: String,
    /// The ticket that ended last, and whether its asker may come back for the outcome: the other
    /// grants of the batch follow in the same turn.
    ended: Option<(TicketId, bool)>,
}

/// What the row in the audit log says beside the fact itself.
#[derive(Default)]
struct About<'a> {
    agent: Option<&'a str>,
    resource: Option<&'a str>,
    token: Option<u64>,
    /// The session that remembers it.
    session: Option<SessionId>,
    request_id: Option<RequestId>,
}

/// The statements that make up nearly every commit, looked up once for all facts of a batch.
#[derive(Default)]
struct Often<'a> {
    grant: Option<CachedStatement<'a>>,
    end: Option<CachedStatement<'a>>,
    audit: Option<CachedStatement<'a>>,
}

/// A statement that is kept in a place of its own.
fn kept<'k, 'a>(
    db: &'a Connection,
    place: &'k mut Option<CachedStatement<'a>>,
    sql: &str,
) -> Result<&'k mut CachedStatement<'a>, Trouble> {
    match place {
        Some(statement) => Ok(statement),
        none => Ok(none.insert(db.prepare_cached(sql)?)),
    }
}

const GRANT: &str = "INSERT INTO resource_locks (id, project_id, resource_type, resource_key,
        agent_id, acquired_at, timeout_at, session_id, mode, permit_slot, slots, token, reason,
        metadata, lease_ms, ticket, birth, request_id, wait_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// A hold ends once: by its row and its id, if nobody has ended it.
const END: &str = "UPDATE resource_locks SET released_at = ?3, release_cause = ?4,
        released_by = coalesce(?5, agent_id), shares = iif(?6, '[]', shares)
    WHERE rowid = ?1 AND id = ?2 AND released_at IS NULL";

impl<'a> Projector<'a> {
    pub(super) fn new(db: &'a Connection, project: &'a str, live: &'a mut Live) -> Projector<'a> {
        let (often, details) = (Often::default(), String::with_capacity(512));
        Projector { db, project, live, often, details, ended: None }
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), Trouble> {
        let at = record.at;
        match &record.fact {
            Fact::Granted(granted) => self.granted(record, granted),
            Fact::Released { lock, remaining, cause, share, request_id } => match remaining {
                0 => self.ended(record, *lock, cause, *share, *request_id),
                _ => self.counted_down(record, *lock, *remaining, *share, *request_id),
            },
            Fact::SessionOpened { session, agent, kind, priority, birth, aborts } => {
                self.session_opened(record, *session, agent, *kind, *priority, *birth, *aborts)
            }
            Fact::SessionEnded { session, agent, .. } => {
                self.session_ended(*session)?;
                self.audit(record, &About { agent: Some(agent), ..About::default() })
            }
            Fact::Queued(queued) => self.queued(record, queued),
            Fact::Left { ticket, .. } => self.left(record, *ticket),
            Fact::PollSet { ticket, poll_by } => self.poll_set(record, *ticket, *poll_by),
            Fact::Reentered { ticket, session, lock, request_id, .. } => {
                self.reentered(record, *ticket, *session, *lock, *request_id)
            }
            Fact::Renewed { lock, expires_at, request_id } => {
                let held = self.change(*lock, "timeout_at = ?3", TimeText::from(*expires_at))?;
                self.audit_held(record, &held, *request_id, false)
            }
            Fact::Converted { lock, ticket, mode, token, request_id } => {
                self.converted(record, *lock, *ticket, *mode, *token, *request_id)
            }
            Fact::RevocationSet { lock, until } => {
                let held = self.change(*lock, "revoked_at = ?3", TimeText::from(*until))?;
                self.audit_held(record, &held, None, false)
            }
            Fact::WaitDeclared { session, on, birth } => {
                self.wait_declared(at, *session, *on, *birth)?;
                self.audit_of_session(record, *session)
            }
            Fact::WaitWithdrawn { session, on } => {
                let sql = "DELETE FROM declared_waits
                    WHERE project_id = ?1 AND session_id = ?2 AND on_session_id = ?3";
                let gone = self.run(sql, (self.project, session.get(), on.get()))?;
                self.live.declared_waits -= gone.min(self.live.declared_waits);
                self.untie(*session, gone)?;
                self.audit_of_session(record, *session)
            }
            Fact::CapacityDeclared { resource, capacity } => {
                self.capacity_declared(at, resource, *capacity)?;
                let resource = Some(resource.as_str());
                self.audit(record, &About { resource, ..About::default() })
            }
            Fact::TaskMoved { task, lock } => self.task_moved(record, task, *lock),
            Fact::TaskForgotten { task } => {
                let sql = "DELETE FROM tasks WHERE project_id = ?1 AND resource = ?2";
                self.run(sql, (self.project, task.as_str()))?;
                let resource = Some(task.as_str());
                self.audit(record, &About { resource, ..About::default() })
            }
            Fact::Resumed { poll_by } => {
                self.resumed(at, *poll_by)?;
                self.audit(record, &About::default())
            }
            Fact::DeadlockFound(report) => self.deadlock_found(record, report),
            Fact::Remembered { session, request_id, .. } => {
                let (session, request_id) = (Some(*session), *request_id);
                self.audit(record, &About { session, request_id, ..About::default() })
            }
            // Whatever else there may be one day is at least on record.
            _ => self.audit(record, &About::default()),
        }
    }

    fn granted(&mut self, record: &Record, granted: &Granted) -> Result<(), Trouble> {
        let Granted { ticket, session, resource, token, request_id, .. } = granted;
        let now_tied = self.begin_work(*session, *ticket)?;
        now_tied.ties += 1;
        let (agent, birth) = (now_tied.agent.clone(), now_tied.birth);
        self.progress(*session)?;
        let parked = self.end_ticket(*ticket)?;
        let (word, key) = resource.as_str().split_once(':').unwrap_or((resource.as_str(), ""));
        let slots = slots_as_json(&granted.slots);
        kept(self.db, &mut self.often.grant, GRANT)?.execute(rusqlite::params![
            IdText::from(granted.lock),
            self.project,
            word,
            key,
            &*agent,
            TimeText::from(record.at),
            TimeText::from(granted.expires_at),
            session.get(),
            mode_word(granted.mode),
            granted.slots.first(),
            slots,
            token.get(),
            granted.reason.as_deref(),
            granted.metadata.as_deref(),
            whole(granted.lease_ms),
            ticket.get(),
            birth.unwrap_or(*ticket).get(),
            request_id.map(RequestText::from),
            whole(granted.wait_ms),
        ])?;
        let row = self.db.last_insert_rowid();
        let session = *session;
        let held = Held { row, session, agent, resource: resource.clone(), token: *token };
        self.audit_held(record, &held, *request_id, parked)?;
        self.live.holds.insert(granted.lock, held);
        Ok(())
    }

    /// A hold is over.
    fn ended(
        &mut self,
        record: &Record,
        lock: LockId,
        cause: &ReleaseCause,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
    ) -> Result<(), Trouble> {
        let held = self.live.holds.remove(&lock).ok_or_else(|| not_held(lock))?;
        let (word, by) = cause_words(cause);
        let (id, at) = (IdText::from(lock), TimeText::from(record.at));
        let end = kept(self.db, &mut self.often.end, END)?;
        if end.execute((held.row, id, at, word, by, share.is_some()))? != 1 {
            return Err(not_held(lock));
        }
        self.audit_held(record, &held, request_id, false)?;
        self.untie(held.session, 1)
    }

    fn counted_down(
        &mut self,
        record: &Record,
        lock: LockId,
        remaining: u32,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
    ) -> Result<(), Trouble> {
        let mut shares = self.shares(lock)?;
        let at = match share {
            Some(share) => shares.iter().position(|one| *one == share),
            None => shares.len().checked_sub(1),
        };
        match at {
            Some(at) if shares.len() == remaining as usize + 1 => shares.remove(at),
            _ => {
                let why = format!("lock {lock} has {} acquires left", shares.len());
                return Err(Trouble::Contradiction(why));
            }
        };
        let held = self.change(lock, "shares = ?3", tickets_as_json(&shares))?;
        self.audit_held(record, &held, request_id, false)
    }

    fn reentered(
        &mut self,
        record: &Record,
        ticket: TicketId,
        session: SessionId,
        lock: LockId,
        request_id: Option<RequestId>,
    ) -> Result<(), Trouble> {
        let mut shares = self.shares(lock)?;
        shares.push(ticket);
        let held = self.change(lock, "shares = ?3", tickets_as_json(&shares))?;
        self.begin_work(session, ticket)?;
        self.progress(session)?;
        let parked = self.end_ticket(ticket)?;
        self.audit_held(record, &held, request_id, parked)
    }

    fn converted(
        &mut self,
        record: &Record,
        lock: LockId,
        ticket: TicketId,
        mode: LockMode,
        token: Token,
        request_id: Option<RequestId>,
    ) -> Result<(), Trouble> {
        let kept = match mode {
            LockMode::Permit(n) => {
                let mut slots: Vec<u32> = self.json_of(lock, "slots")?.unwrap_or_default();
                slots.truncate(n as usize);
                slots
            }
            _ => Vec::new(),
        };
        let held = self.live.holds.get_mut(&lock).ok_or_else(|| not_held(lock))?;
        held.token = token;
        let held = held.clone();
        let sql = "UPDATE resource_locks SET mode = ?3, token = ?4, permit_slot = ?5, slots = ?6
            WHERE rowid = ?1 AND id = ?2 AND released_at IS NULL";
        let (id, word, slots) = (IdText::from(lock), mode_word(mode), slots_as_json(&kept));
        if self.run(sql, (held.row, id, word, token.get(), kept.first(), slots))? != 1 {
            return Err(not_held(lock));
        }
        // Only an upgrade has a ticket of its own; a downgrade carries that of the hold.
        let parked = match mode {
            LockMode::Exclusive => {
                self.progress(held.session)?;
                self.end_ticket(ticket)?
            }
            _ => false,
        };
        self.audit_held(record, &held, request_id, parked)
    }

    #[allow(clippy::too_many_arguments, reason = "one for each field of the fact")]
    fn session_opened(
        &mut self,
        record: &Record,
        session: SessionId,
        agent: &Arc<str>,
        kind: SessionKind,
        priority: i8,
        birth: Option<TicketId>,
        aborts: u32,
    ) -> Result<(), Trouble> {
        let kind = match kind {
            SessionKind::Attached => "attached",
            SessionKind::Detached => "detached",
        };
        let retrying = birth.is_some();
        let opened = (
            self.project,
            session.get(),
            &**agent,
            kind,
            priority,
            birth.map(TicketId::get),
            aborts,
            retrying,
            TimeText::from(record.at),
        );
        self.run("INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", opened)?;
        let (agent, is_marked) = (agent.clone(), retrying || aborts > 0);
        let about = About { agent: Some(&agent), ..About::default() };
        self.audit(record, &about)?;
        let live = Session { agent, birth, aborts, retrying, ties: 0, is_marked };
        self.live.sessions.insert(session, live);
        Ok(())
    }

    fn session_ended(&mut self, session: SessionId) -> Result<(), Trouble> {
        let sql = "DELETE FROM sessions WHERE project_id = ?1 AND id = ?2";
        if self.run(sql, (self.project, session.get()))? == 0 {
            return Err(Trouble::Contradiction(format!("session {session} is not open")));
        }
        self.live.sessions.remove(&session);
        if self.live.declared_waits == 0 {
            return Ok(());
        }
        let own = "DELETE FROM declared_waits WHERE project_id = ?1 AND session_id = ?2";
        let own = self.run(own, (self.project, session.get()))?;
        let mut others = self.db.prepare_cached(
            "DELETE FROM declared_waits WHERE project_id = ?1 AND on_session_id = ?2
             RETURNING session_id",
        )?;
        let others = others.query_map((self.project, session.get()), |row| row.get(0))?;
        let others: Vec<u64> = others.collect::<rusqlite::Result<_>>()?;
        self.live.declared_waits -= (own + others.len()).min(self.live.declared_waits);
        others.into_iter().try_for_each(|other| self.untie(SessionId::from_u64(other), 1))
    }

    fn queued(&mut self, record: &Record, queued: &Queued) -> Result<(), Trouble> {
        let session = self.begin_work(queued.session, queued.ticket)?;
        session.ties += 1;
        let (agent, birth) = (session.agent.clone(), session.birth);
        let request = serde_json::to_string(queued).map_err(not_json)?;
        let row = rusqlite::params![
            self.project,
            queued.ticket.get(),
            queued.session.get(),
            &*agent,
            TimeText::from(record.at),
            TimeText::from(queued.wait_until),
            birth.unwrap_or(queued.ticket).get(),
            queued.request_id.map(RequestText::from),
            request,
        ];
        self.run(
            "INSERT INTO lock_tickets (project_id, ticket, session_id, agent_id, queued_at,
                wait_until, birth, request_id, request)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            row,
        )?;
        let ticket = Ticket::of(queued, false);
        let about = About {
            agent: Some(&agent),
            resource: ticket.resource.as_ref().map(Resource::as_str),
            token: None,
            // So that it can be told how long a wait was that ran out.
            session: Some(queued.session),
            request_id: queued.request_id,
        };
        self.audit(record, &about)?;
        self.live.tickets.insert(queued.ticket, ticket);
        Ok(())
    }

    fn left(&mut self, record: &Record, id: TicketId) -> Result<(), Trouble> {
        let Some(ticket) = self.take_ticket(id)? else { return Err(not_waiting(id)) };
        let agent = self.agent(ticket.session);
        let request_id = ticket.request_id;
        let about = About {
            agent: agent.as_deref(),
            resource: ticket.resource.as_ref().map(Resource::as_str),
            token: None,
            session: Some(ticket.session).filter(|_| ticket.parked || request_id.is_some()),
            request_id,
        };
        self.audit(record, &about)?;
        self.untie(ticket.session, 1)
    }

    fn poll_set(
        &mut self,
        record: &Record,
        id: TicketId,
        poll_by: Option<Timestamp>,
    ) -> Result<(), Trouble> {
        let sql = "UPDATE lock_tickets SET poll_by = ?3, parked = parked OR ?3 IS NOT NULL
            WHERE project_id = ?1 AND ticket = ?2";
        self.run(sql, (self.project, id.get(), poll_by.map(TimeText::from)))?;
        let Some(ticket) = self.live.tickets.get_mut(&id) else { return Err(not_waiting(id)) };
        ticket.parked |= poll_by.is_some();
        let (session, resource) = (ticket.session, ticket.resource.clone());
        let agent = self.agent(session);
        let resource = resource.as_ref().map(Resource::as_str);
        self.audit(record, &About { agent: agent.as_deref(), resource, ..About::default() })
    }

    fn wait_declared(
        &mut self,
        at: Timestamp,
        session: SessionId,
        on: SessionId,
        birth: Option<TicketId>,
    ) -> Result<(), Trouble> {
        let Some(from) = self.live.sessions.get_mut(&session) else {
            return Err(not_open(session));
        };
        from.birth = from.birth.or(birth);
        let birth = from.birth.map(TicketId::get);
        let sql = "INSERT INTO declared_waits VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let row = (self.project, session.get(), on.get(), birth, TimeText::from(at));
        let new = self.run(sql, row)?;
        self.live.declared_waits += new;
        if let Some(from) = self.live.sessions.get_mut(&session) {
            from.ties += new;
        }
        Ok(())
    }

    fn capacity_declared(
        &mut self,
        at: Timestamp,
        resource: &Resource,
        capacity: Option<u32>,
    ) -> Result<(), Trouble> {
        let (project, resource) = (self.project, resource.as_str());
        let Some(capacity) = capacity else {
            let gone = "DELETE FROM resource_capacities WHERE project_id = ?1 AND resource = ?2";
            return self.run(gone, (project, resource)).map(drop);
        };
        let sql = "INSERT INTO resource_capacities VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET capacity = ?3, declared_at = ?4";
        self.run(sql, (project, resource, capacity, TimeText::from(at))).map(drop)
    }

    fn task_moved(
        &mut self,
        record: &Record,
        task: &Task,
        lock: Option<LockId>,
    ) -> Result<(), Trouble> {
        let sql = "INSERT INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET version = ?3, status = ?4, lock_id = ?5, moved_at = ?6";
        let (project, resource) = (self.project, task.resource.as_str());
        let (status, lock) = (task.status.to_string(), lock.map(IdText::from));
        let at = TimeText::from(record.at);
        self.run(sql, (project, resource, whole(task.version), status, lock, at))?;
        let resource = Some(resource);
        self.audit(record, &About { resource, ..About::default() })
    }

    /// Leases and polls only ever get longer by it (I17).
    fn resumed(&mut self, at: Timestamp, poll_by: Timestamp) -> Result<(), Trouble> {
        let leases = "SELECT timeout_at, lease_ms, id FROM resource_locks
            WHERE project_id = ?1 AND released_at IS NULL";
        let leases = super::live::all(self.db, leases, self.project, |row| {
            let full = Timestamp(at.0.saturating_add(row.get(1)?));
            Ok((time(row, 0)?, full, text(row, 2)?.to_owned()))
        })?;
        let longer = "UPDATE resource_locks SET timeout_at = ?1 WHERE id = ?2";
        for (_, full, id) in leases.into_iter().filter(|(old, full, _)| full > old) {
            self.run(longer, (TimeText::from(full), id))?;
        }
        let polls = "UPDATE lock_tickets SET poll_by = max(coalesce(poll_by, ''), ?2), parked = 1
            WHERE project_id = ?1";
        self.run(polls, (self.project, TimeText::from(poll_by)))?;
        self.live.tickets.values_mut().for_each(|ticket| ticket.parked = true);
        Ok(())
    }

    fn deadlock_found(&mut self, record: &Record, report: &DeadlockReport) -> Result<(), Trouble> {
        let victim = report.victim();
        if let Some(session) = self.live.sessions.get_mut(&report.victim) {
            session.birth = session.birth.or(victim.map(|victim| victim.rank.birth));
            session.aborts = session.aborts.saturating_add(1);
            (session.retrying, session.is_marked) = (true, true);
            self.mark(report.victim)?;
        }
        let about = About {
            agent: victim.map(|victim| &*victim.rank.agent),
            resource: report.resource.as_ref().map(Resource::as_str),
            session: Some(report.victim),
            ..About::default()
        };
        self.audit(record, &about)
    }
}

mod parts;
pub(super) use parts::as_json;
use parts::{
    cause_words, mode_word, not_held, not_json, not_open, not_waiting, slots_as_json,
    tickets_as_json, whole,
};
