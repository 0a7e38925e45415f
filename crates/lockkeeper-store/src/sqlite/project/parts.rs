//! What the facts have in common: the row in the audit log, the hold they are about, the work of
//! the session they belong to.

use super::*;
use crate::text::Digits;

/// It is added or it fails, and then so does all of its batch: with nothing to take back, SQLite
/// keeps no copies of the pages for it.
const AUDIT: &str = "INSERT OR FAIL INTO audit_log (project_id, event_type, event_time, agent_id,
        resource, token, details, session_id, request_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

impl Projector<'_> {
    pub(super) fn run(&self, sql: &str, row: impl Params) -> Result<usize, Trouble> {
        Ok(self.db.prepare_cached(sql)?.execute(row)?)
    }

    /// Changes one column of a live hold.
    pub(super) fn change(
        &self,
        lock: LockId,
        what: &str,
        new: impl rusqlite::ToSql,
    ) -> Result<Held, Trouble> {
        let held = self.live.holds.get(&lock).ok_or_else(|| not_held(lock))?;
        let sql = format!(
            "UPDATE resource_locks SET {what} WHERE rowid = ?1 AND id = ?2 AND released_at IS NULL"
        );
        match self.run(&sql, (held.row, IdText::from(lock), new))? {
            1 => Ok(held.clone()),
            _ => Err(not_held(lock)),
        }
    }

    /// The acquires of a counted hold that are left.
    pub(super) fn shares(&self, lock: LockId) -> Result<Vec<TicketId>, Trouble> {
        let first = "json_array(ticket)";
        let shares = self.json_of(lock, &format!("coalesce(shares, {first})"))?;
        shares.ok_or_else(|| not_held(lock))
    }

    pub(super) fn json_of<T: serde::de::DeserializeOwned>(
        &self,
        lock: LockId,
        what: &str,
    ) -> Result<Option<T>, Trouble> {
        let sql = format!("SELECT {what} FROM resource_locks WHERE id = ?1 AND project_id = ?2");
        let mut sql = self.db.prepare_cached(&sql)?;
        let mut rows = sql.query((IdText::from(lock), self.project))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        opt_text(row, 0)?.map(from_json).transpose()
    }

    /// The first ticket of a run of work is its birth.
    pub(super) fn begin_work(
        &mut self,
        id: SessionId,
        ticket: TicketId,
    ) -> Result<&mut Session, Trouble> {
        let session = self.live.sessions.get_mut(&id).ok_or_else(|| not_open(id))?;
        session.birth.get_or_insert(ticket);
        Ok(session)
    }

    /// Its work goes on: it is not a victim that got nothing since.
    pub(super) fn progress(&mut self, id: SessionId) -> Result<(), Trouble> {
        match self.live.sessions.get_mut(&id) {
            Some(session) if session.retrying => {
                session.retrying = false;
                self.mark(id)
            }
            _ => Ok(()),
        }
    }

    /// A session has so many holds, tickets and declared waits less; with the last its work ends.
    pub(super) fn untie(&mut self, id: SessionId, count: usize) -> Result<(), Trouble> {
        let Some(session) = self.live.sessions.get_mut(&id) else { return Ok(()) };
        session.ties = session.ties.saturating_sub(count);
        if session.ties > 0 || session.retrying {
            return Ok(());
        }
        session.birth = None;
        session.aborts = 0;
        match std::mem::take(&mut session.is_marked) {
            true => self.mark(id),
            false => Ok(()),
        }
    }

    /// Writes what is known of a session's work.
    pub(super) fn mark(&self, id: SessionId) -> Result<(), Trouble> {
        let Some(session) = self.live.sessions.get(&id) else { return Ok(()) };
        let sql = "UPDATE sessions SET birth = ?3, aborts = ?4, retrying = ?5
            WHERE project_id = ?1 AND id = ?2";
        let birth = session.birth.map(TicketId::get);
        let row = (self.project, id.get(), birth, session.aborts, session.retrying);
        self.run(sql, row).map(drop)
    }

    /// Takes a ticket out of the queues, if it stands there.
    pub(super) fn take_ticket(&mut self, id: TicketId) -> Result<Option<Ticket>, Trouble> {
        let Some(ticket) = self.live.tickets.remove(&id) else { return Ok(None) };
        let sql = "DELETE FROM lock_tickets WHERE project_id = ?1 AND ticket = ?2";
        match self.run(sql, (self.project, id.get()))? {
            0 => Err(not_waiting(id)),
            _ => Ok(Some(ticket)),
        }
    }

    /// A ticket got what it waited for, if it waited; whether its asker may come back for that.
    pub(super) fn end_ticket(&mut self, id: TicketId) -> Result<bool, Trouble> {
        if let Some((ended, parked)) = self.ended
            && ended == id
        {
            return Ok(parked);
        }
        let Some(ticket) = self.take_ticket(id)? else { return Ok(false) };
        self.ended = Some((id, ticket.parked));
        self.untie(ticket.session, 1)?;
        Ok(ticket.parked)
    }

    pub(super) fn agent(&self, session: SessionId) -> Option<Arc<str>> {
        self.live.sessions.get(&session).map(|session| session.agent.clone())
    }

    pub(super) fn audit_of_session(
        &mut self,
        record: &Record,
        session: SessionId,
    ) -> Result<(), Trouble> {
        let agent = self.agent(session);
        self.audit(record, &About { agent: agent.as_deref(), ..About::default() })
    }

    pub(super) fn audit_held(
        &mut self,
        record: &Record,
        held: &Held,
        request_id: Option<RequestId>,
        parked: bool,
    ) -> Result<(), Trouble> {
        let about = About {
            agent: Some(&held.agent),
            resource: Some(held.resource.as_str()),
            token: Some(held.token.get()),
            session: Some(held.session).filter(|_| parked || request_id.is_some()),
            request_id,
        };
        self.audit(record, &about)
    }

    /// The one row that each fact gets.
    pub(super) fn audit(&mut self, record: &Record, about: &About<'_>) -> Result<(), Trouble> {
        details::write(&record.fact, &mut self.details).map_err(not_json)?;
        let audit = kept(self.db, &mut self.often.audit, AUDIT)?;
        audit.execute(rusqlite::params![
            self.project,
            event_type(&record.fact),
            TimeText::from(record.at),
            about.agent,
            about.resource,
            about.token,
            &self.details,
            about.session.map(SessionId::get),
            about.request_id.map(RequestText::from),
        ])?;
        Ok(())
    }
}

pub(super) fn mode_word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Update => "update",
        LockMode::Exclusive => "exclusive",
        LockMode::Permit(_) => "permit",
    }
}

/// The word for why a hold ended, and who ended it; none where that was its own agent.
pub(super) fn cause_words(cause: &ReleaseCause) -> (&'static str, Option<&str>) {
    match cause {
        ReleaseCause::Released => ("released", None),
        ReleaseCause::Cancelled => ("cancelled", None),
        ReleaseCause::Expired => ("expired", Some("lockkeeper")),
        ReleaseCause::Deadlock => ("deadlock", Some("lockkeeper")),
        ReleaseCause::Forced { admin, .. } => ("forced", Some(admin)),
        ReleaseCause::ReleasedAll => ("released_all", Some("administrator")),
        ReleaseCause::SessionEnded(_) => ("session_ended", None),
    }
}

pub(super) fn slots_as_json(slots: &[u32]) -> Option<String> {
    (!slots.is_empty()).then(|| as_json(slots.iter().map(|slot| u64::from(*slot))))
}

pub(super) fn tickets_as_json(tickets: &[TicketId]) -> String {
    as_json(tickets.iter().map(|ticket| ticket.get()))
}

/// Numbers as JSON.
pub(in crate::sqlite) fn as_json(numbers: impl Iterator<Item = u64>) -> String {
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
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn not_held(lock: LockId) -> Trouble {
    Trouble::Contradiction(format!("lock {lock} is not held"))
}

pub(super) fn not_waiting(ticket: TicketId) -> Trouble {
    Trouble::Contradiction(format!("ticket {ticket} does not wait"))
}

pub(super) fn not_open(session: SessionId) -> Trouble {
    Trouble::Contradiction(format!("session {session} is not open"))
}

pub(super) fn not_json(error: serde_json::Error) -> Trouble {
    Trouble::Contradiction(error.to_string())
}
