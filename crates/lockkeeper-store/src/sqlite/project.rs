//! What each fact changes: one line for the audit log, always, and the live rows.
//!
//! Nothing is decided here. A fact that does not fit what is there (of a hold that is over, of a
//! session nobody opened) is a contradiction and fails its batch: a store that shrugged would not
//! tell the table's story any more.

use super::{
    journal::{Entry, Line},
    live::{
        Ended, Held, HoldRow, Live, Session, SessionRow, TaskRow, Ticket, TicketRow, Touched,
        WaitRow,
    },
};
use crate::error::Trouble;
use lockkeeper_core::{
    DeadlockReport, Fact, Granted, LockId, LockMode, Queued, Record, ReleaseCause, RequestId,
    Resource, SessionId, Task, TicketId, Timestamp, Token,
};
use std::sync::Arc;

/// Takes the facts of one project into an entry of the journal.
pub(super) struct Projector<'a> {
    live: &'a mut Live,
    entry: &'a mut Entry,
}

/// What the audit log says beside the fact itself.
#[derive(Default)]
struct About {
    agent: Option<Arc<str>>,
    resource: Option<Resource>,
    token: Option<Token>,
    /// The session that remembers it.
    session: Option<SessionId>,
    request_id: Option<RequestId>,
}

impl<'a> Projector<'a> {
    pub(super) fn new(live: &'a mut Live, entry: &'a mut Entry) -> Projector<'a> {
        Projector { live, entry }
    }

    pub(super) fn take(&mut self, record: &Record) -> Result<(), Trouble> {
        let about = match &record.fact {
            Fact::Granted(granted) => self.granted(record.at, granted)?,
            Fact::Released { lock, remaining, cause, share, request_id } => match remaining {
                0 => self.ended(record.at, *lock, cause, *share, *request_id)?,
                _ => self.counted_down(*lock, *remaining, *share, *request_id)?,
            },
            Fact::SessionOpened { session, agent, kind, priority, birth, aborts } => {
                let row = SessionRow {
                    at: record.at,
                    id: *session,
                    agent: agent.clone(),
                    kind: *kind,
                    priority: *priority,
                    birth: *birth,
                    aborts: *aborts,
                    retrying: birth.is_some(),
                };
                self.session_opened(row)?
            }
            Fact::SessionEnded { session, agent, .. } => {
                self.session_ended(*session)?;
                About { agent: Some(agent.clone()), ..About::default() }
            }
            Fact::Queued(queued) => self.queued(record.at, queued)?,
            Fact::Left { ticket, .. } => self.left(*ticket)?,
            Fact::PollSet { ticket, poll_by } => self.poll_set(*ticket, *poll_by)?,
            Fact::Reentered { ticket, session, lock, request_id, .. } => {
                self.reentered(*ticket, *session, *lock, *request_id)?
            }
            Fact::Renewed { lock, expires_at, request_id } => {
                let row = self.change(*lock)?;
                row.expires_at = *expires_at;
                of_hold(row, *request_id, false)
            }
            Fact::Converted { lock, ticket, mode, token, request_id } => {
                self.converted(*lock, *ticket, *mode, *token, *request_id)?
            }
            Fact::RevocationSet { lock, until } => {
                let row = self.change(*lock)?;
                row.revoked_at = Some(*until);
                of_hold(row, None, false)
            }
            Fact::WaitDeclared { session, on, birth } => {
                self.wait_declared(record.at, *session, *on, *birth)?;
                self.of_session(*session)
            }
            Fact::WaitWithdrawn { session, on } => {
                let gone = self.wait_withdrawn(*session, *on);
                self.untie(*session, usize::from(gone));
                self.of_session(*session)
            }
            Fact::CapacityDeclared { resource, capacity } => {
                self.capacity_declared(record.at, resource, *capacity);
                of_resource(resource)
            }
            Fact::TaskMoved { task, lock } => self.task_moved(record.at, task, *lock),
            Fact::TaskForgotten { task } => {
                self.live.tasks.remove(task);
                self.live.touched.push(Touched::Task(task.clone()));
                of_resource(task)
            }
            Fact::Resumed { poll_by } => {
                self.resumed(record.at, *poll_by);
                About::default()
            }
            Fact::DeadlockFound(report) => self.deadlock_found(report),
            Fact::Remembered { session, request_id, .. } => {
                let (session, request_id) = (Some(*session), *request_id);
                About { session, request_id, ..About::default() }
            }
            // Whatever else there may be one day is at least on record.
            _ => About::default(),
        };
        let About { agent, resource, token, session, request_id } = about;
        let line = Line { agent, resource, token, session, request_id, ..Line::of(record) };
        self.entry.say(record, line).map_err(not_json)
    }

    fn granted(&mut self, at: Timestamp, granted: &Granted) -> Result<About, Trouble> {
        let Granted { ticket, session, resource, token, request_id, fleeting, .. } = granted;
        fits(token.get())?;
        let now_tied = self.begin_work(*session, *ticket)?;
        now_tied.ties += 1;
        let (agent, birth) = (now_tied.row.agent.clone(), now_tied.birth);
        self.progress(*session);
        let parked = self.end_ticket(*ticket);
        if self.live.holds.contains_key(&granted.lock) {
            let why = format!("lock {} is held already", granted.lock);
            return Err(Trouble::Contradiction(why));
        }
        if granted.mode == LockMode::Exclusive {
            self.alone(resource, granted.lock)?;
        }
        let row = HoldRow {
            row: None,
            agent,
            at,
            lock: granted.lock,
            session: *session,
            resource: resource.clone(),
            mode: granted.mode,
            slots: granted.slots.clone(),
            token: *token,
            ticket: *ticket,
            shares: None,
            birth: birth.unwrap_or(*ticket),
            expires_at: granted.expires_at,
            revoked_at: None,
            lease_ms: granted.lease_ms,
            wait_ms: granted.wait_ms,
            reason: granted.reason.clone(),
            metadata: granted.metadata.clone(),
            request_id: *request_id,
            fleeting: *fleeting,
        };
        // By an id that is fleeting nobody asks again once the hold is over.
        let about = of_hold(&row, request_id.filter(|_| !fleeting), parked);
        self.live.hold(row, true);
        self.live.touched.push(Touched::Hold(granted.lock));
        Ok(about)
    }

    /// A hold is over.
    fn ended(
        &mut self,
        at: Timestamp,
        lock: LockId,
        cause: &ReleaseCause,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
    ) -> Result<About, Trouble> {
        let mut held = self.live.holds.remove(&lock).ok_or_else(|| not_held(lock))?;
        self.no_more_alone(&held.row);
        if share.is_some() {
            held.row.shares = Some(Vec::new());
        }
        let about = of_hold(&held.row, request_id, false);
        let session = held.row.session;
        let (cause, by) = cause_words(cause);
        self.live.ended.push(Ended { held, at, cause, by });
        self.untie(session, 1);
        Ok(about)
    }

    fn counted_down(
        &mut self,
        lock: LockId,
        remaining: u32,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
    ) -> Result<About, Trouble> {
        let row = self.change(lock)?;
        let shares = row.shares.get_or_insert_with(|| vec![row.ticket]);
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
        Ok(of_hold(row, request_id, false))
    }

    fn reentered(
        &mut self,
        ticket: TicketId,
        session: SessionId,
        lock: LockId,
        request_id: Option<RequestId>,
    ) -> Result<About, Trouble> {
        let row = self.change(lock)?;
        row.shares.get_or_insert_with(|| vec![row.ticket]).push(ticket);
        self.begin_work(session, ticket)?;
        self.progress(session);
        let parked = self.end_ticket(ticket);
        Ok(of_hold(self.change(lock)?, request_id, parked))
    }

    fn converted(
        &mut self,
        lock: LockId,
        ticket: TicketId,
        mode: LockMode,
        token: Token,
        request_id: Option<RequestId>,
    ) -> Result<About, Trouble> {
        fits(token.get())?;
        let row = self.change(lock)?;
        match mode {
            LockMode::Permit(n) => row.slots.truncate(n as usize),
            _ => row.slots.clear(),
        }
        let before = std::mem::replace(&mut row.mode, mode);
        row.token = token;
        let (session, resource) = (row.session, row.resource.clone());
        match (before, mode) {
            (LockMode::Exclusive, LockMode::Exclusive) => {}
            (LockMode::Exclusive, _) => drop(self.live.exclusive.remove(&resource)),
            (_, LockMode::Exclusive) => self.alone(&resource, lock)?,
            _ => {}
        }
        // Only an upgrade has a ticket of its own; a downgrade carries that of the hold.
        let mut parked = false;
        if mode == LockMode::Exclusive {
            self.progress(session);
            parked = self.end_ticket(ticket);
        }
        Ok(of_hold(self.change(lock)?, request_id, parked))
    }

    fn session_opened(&mut self, row: SessionRow) -> Result<About, Trouble> {
        let (id, agent) = (row.id, row.agent.clone());
        fits(id.get())?;
        let (birth, aborts, retrying) = (row.birth, row.aborts, row.retrying);
        let is_marked = retrying || aborts > 0;
        let session = Session { row, birth, aborts, retrying, ties: 0, is_marked };
        if self.live.sessions.insert(id, session).is_some() {
            return Err(Trouble::Contradiction(format!("session {id} is open already")));
        }
        self.live.touched.push(Touched::Session(id));
        Ok(About { agent: Some(agent), ..About::default() })
    }

    fn session_ended(&mut self, id: SessionId) -> Result<(), Trouble> {
        if self.live.sessions.remove(&id).is_none() {
            return Err(not_open(id));
        }
        self.live.touched.push(Touched::Session(id));
        let (first, last) = (SessionId::from_u64(0), SessionId::from_u64(u64::MAX));
        let own = self.live.waits.range((id, first)..=(id, last));
        let own: Vec<SessionId> = own.map(|((_, on), _)| *on).collect();
        for on in own {
            self.wait_withdrawn(id, on);
        }
        let others = self.live.waits_on.range((id, first)..=(id, last));
        let others: Vec<SessionId> = others.map(|(_, other)| *other).collect();
        for other in others {
            self.wait_withdrawn(other, id);
            self.untie(other, 1);
        }
        Ok(())
    }

    fn queued(&mut self, at: Timestamp, queued: &Queued) -> Result<About, Trouble> {
        let id = queued.ticket;
        fits(id.get())?;
        let session = self.begin_work(queued.session, id)?;
        session.ties += 1;
        let (agent, birth) = (session.row.agent.clone(), session.birth.unwrap_or(id));
        let row = TicketRow {
            agent: agent.clone(),
            at,
            poll_by: None,
            parked: false,
            birth,
            request: queued.clone(),
        };
        let ticket = Ticket { row, is_carried: false };
        if self.live.tickets.insert(id, ticket).is_some() {
            return Err(Trouble::Contradiction(format!("ticket {id} waits already")));
        }
        self.live.touched.push(Touched::Ticket(id));
        Ok(About {
            agent: Some(agent),
            resource: first_wanted(queued),
            token: None,
            // So that it can be told how long a wait was that ran out.
            session: Some(queued.session),
            request_id: queued.request_id,
        })
    }

    fn left(&mut self, id: TicketId) -> Result<About, Trouble> {
        let TicketRow { parked, request, .. } =
            self.take_ticket(id).ok_or_else(|| not_waiting(id))?;
        let (session, request_id) = (request.session, request.request_id);
        let about = About {
            agent: self.agent(session),
            resource: first_wanted(&request),
            token: None,
            session: Some(session).filter(|_| parked || request_id.is_some()),
            request_id,
        };
        self.untie(session, 1);
        Ok(about)
    }

    fn poll_set(&mut self, id: TicketId, poll_by: Option<Timestamp>) -> Result<About, Trouble> {
        let ticket = self.live.tickets.get_mut(&id).ok_or_else(|| not_waiting(id))?;
        ticket.row.poll_by = poll_by;
        ticket.row.parked |= poll_by.is_some();
        self.live.touched.push(Touched::Ticket(id));
        let resource = first_wanted(&ticket.row.request);
        let agent = self.agent(self.live.tickets[&id].row.request.session);
        Ok(About { agent, resource, ..About::default() })
    }

    fn wait_declared(
        &mut self,
        at: Timestamp,
        session: SessionId,
        on: SessionId,
        birth: Option<TicketId>,
    ) -> Result<(), Trouble> {
        let from = self.live.sessions.get_mut(&session).ok_or_else(|| not_open(session))?;
        from.birth = from.birth.or(birth);
        if self.live.waits_on.insert((on, session)) {
            from.ties += 1;
            let row = WaitRow { at, session, on, birth: from.birth };
            self.live.waits.insert((session, on), row);
            self.live.touched.push(Touched::Wait(session, on));
        }
        Ok(())
    }

    /// Whether it was declared.
    fn wait_withdrawn(&mut self, session: SessionId, on: SessionId) -> bool {
        self.live.waits_on.remove(&(on, session));
        let gone = self.live.waits.remove(&(session, on)).is_some();
        if gone {
            self.live.touched.push(Touched::Wait(session, on));
        }
        gone
    }

    fn capacity_declared(&mut self, at: Timestamp, resource: &Resource, capacity: Option<u32>) {
        match capacity {
            Some(capacity) => drop(self.live.capacities.insert(resource.clone(), (at, capacity))),
            None => drop(self.live.capacities.remove(resource)),
        }
        self.live.touched.push(Touched::Capacity(resource.clone()));
    }

    fn task_moved(&mut self, at: Timestamp, task: &Task, lock: Option<LockId>) -> About {
        let Task { resource, version, status } = task.clone();
        let row = TaskRow { at, resource, version, status, lock };
        self.live.tasks.insert(task.resource.clone(), row);
        self.live.touched.push(Touched::Task(task.resource.clone()));
        of_resource(&task.resource)
    }

    /// Leases and polls only ever get longer by it (I17).
    fn resumed(&mut self, at: Timestamp, poll_by: Timestamp) {
        let live = &mut *self.live;
        for (lock, held) in &mut live.holds {
            let full = Timestamp(at.0.saturating_add(held.row.lease_ms));
            if full > held.row.expires_at {
                held.row.expires_at = full;
                if !std::mem::replace(&mut held.is_touched, true) {
                    live.touched.push(Touched::Hold(*lock));
                }
            }
        }
        for (id, ticket) in &mut live.tickets {
            ticket.row.poll_by = ticket.row.poll_by.max(Some(poll_by));
            ticket.row.parked = true;
            live.touched.push(Touched::Ticket(*id));
        }
    }

    fn deadlock_found(&mut self, report: &DeadlockReport) -> About {
        let victim = report.victim();
        if let Some(session) = self.live.sessions.get_mut(&report.victim) {
            session.birth = session.birth.or(victim.map(|victim| victim.rank.birth));
            session.aborts = session.aborts.saturating_add(1);
            (session.retrying, session.is_marked) = (true, true);
            self.mark(report.victim);
        }
        About {
            agent: victim.map(|victim| victim.rank.agent.clone()),
            resource: report.resource.clone(),
            session: Some(report.victim),
            ..About::default()
        }
    }
}

mod parts;
use parts::{
    cause_words, first_wanted, fits, not_held, not_json, not_open, not_waiting, of_hold,
    of_resource,
};
