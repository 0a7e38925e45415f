//! What a store keeps of a table: a row for each thing that is live, and how it tells them again.

use lockkeeper_core::{
    DeadlockReport, Fact, Granted, LeaveCause, LockId, LockMode, Outcome, Queued, Record, Refusal,
    ReleaseCause, RequestId, Resource, SessionId, SessionView, Task, TicketId, Timestamp,
};
use std::{collections::BTreeMap, sync::Arc};

pub(crate) struct Rows {
    remembered_max: usize,
    capacities: BTreeMap<Resource, u32>,
    tasks: BTreeMap<Resource, (Task, Option<LockId>)>,
    sessions: BTreeMap<SessionId, SessionRow>,
    holds: BTreeMap<LockId, HoldRow>,
    tickets: BTreeMap<TicketId, TicketRow>,
    declared: BTreeMap<(SessionId, SessionId), Timestamp>,
}

type Memory = (Option<RequestId>, Option<TicketId>, Outcome);

struct SessionRow {
    opened: Record,
    memory: Vec<Memory>,
    /// Aborted, and nothing granted since.
    retrying: bool,
    report: Option<Arc<DeadlockReport>>,
}

struct HoldRow {
    at: Timestamp,
    granted: Granted,
    shares: Vec<TicketId>,
    revoked_at: Option<Timestamp>,
}

struct TicketRow {
    at: Timestamp,
    queued: Queued,
    poll_by: Option<Timestamp>,
    parked: bool,
}

impl Rows {
    pub(crate) fn new(remembered_max: usize) -> Rows {
        Rows {
            remembered_max,
            capacities: BTreeMap::new(),
            tasks: BTreeMap::new(),
            sessions: BTreeMap::new(),
            holds: BTreeMap::new(),
            tickets: BTreeMap::new(),
            declared: BTreeMap::new(),
        }
    }

    /// Takes one turn over.
    pub(crate) fn see(&mut self, records: &[Record]) {
        for record in records {
            self.fact(record);
        }
        // A request is granted whole, in one turn.
        for record in records {
            if let Fact::Granted(Granted { ticket, .. })
            | Fact::Reentered { ticket, .. }
            | Fact::Converted { ticket, .. } = &record.fact
            {
                self.tickets.remove(ticket);
            }
        }
    }

    fn remember(&mut self, session: SessionId, memory: Memory) {
        let Some(row) = self.sessions.get_mut(&session) else { return };
        row.memory.push(memory);
        if row.memory.len() > self.remembered_max {
            row.memory.remove(0);
        }
    }

    fn granted(
        &mut self,
        session: SessionId,
        (ticket, lock): (TicketId, LockId),
        request_id: Option<RequestId>,
    ) {
        let Some(row) = self.sessions.get_mut(&session) else { return };
        row.retrying = false;
        if request_id.is_none() && !self.tickets.get(&ticket).is_some_and(|row| row.parked) {
            return;
        }
        match row.memory.last_mut() {
            Some((_, of, Outcome::Granted(locks))) if *of == Some(ticket) => locks.push(lock),
            _ => self.remember(session, (request_id, Some(ticket), Outcome::Granted(vec![lock]))),
        }
    }

    fn fact(&mut self, record: &Record) {
        let at = record.at;
        match &record.fact {
            Fact::SessionOpened { session, birth, .. } => {
                let (opened, retrying) = (record.clone(), birth.is_some());
                let row = SessionRow { opened, memory: Vec::new(), retrying, report: None };
                self.sessions.insert(*session, row);
            }
            Fact::SessionEnded { session, .. } => {
                self.sessions.remove(session);
                self.declared.retain(|(from, to), _| from != session && to != session);
            }
            Fact::Queued(queued) => {
                let queued = (**queued).clone();
                let row = TicketRow { at, queued, poll_by: None, parked: false };
                self.tickets.insert(row.queued.ticket, row);
            }
            Fact::Left { ticket, session, cause } => {
                let Some(row) = self.tickets.remove(ticket) else { return };
                if row.parked || row.queued.request_id.is_some() {
                    let refusal = Box::new(self.refusal(*ticket, *session, cause));
                    let outcome = Outcome::Refused(refusal);
                    self.remember(*session, (row.queued.request_id, Some(*ticket), outcome));
                }
            }
            Fact::PollSet { ticket, poll_by } => {
                let Some(row) = self.tickets.get_mut(ticket) else { return };
                row.poll_by = *poll_by;
                row.parked |= poll_by.is_some();
            }
            Fact::Granted(granted) => {
                let (lock, ticket) = (granted.lock, granted.ticket);
                self.granted(granted.session, (ticket, lock), granted.request_id);
                let (granted, shares) = (granted.clone(), vec![ticket]);
                self.holds.insert(lock, HoldRow { at, granted, shares, revoked_at: None });
            }
            Fact::Reentered { ticket, session, lock, request_id, .. } => {
                self.granted(*session, (*ticket, *lock), *request_id);
                self.holds.entry(*lock).and_modify(|row| row.shares.push(*ticket));
            }
            Fact::Released { lock, remaining, share, request_id, .. } => {
                let Some(row) = self.holds.get_mut(lock) else { return };
                row.shares.retain(|one| Some(*one) != *share);
                let session = row.granted.session;
                if *remaining == 0 {
                    self.holds.remove(lock);
                }
                if request_id.is_some() {
                    let outcome = Outcome::Released(*lock, *remaining);
                    self.remember(session, (*request_id, None, outcome));
                }
            }
            Fact::Renewed { lock, expires_at, request_id } => {
                let Some(row) = self.holds.get_mut(lock) else { return };
                row.granted.expires_at = *expires_at;
                let session = row.granted.session;
                if request_id.is_some() {
                    let outcome = Outcome::Renewed(*lock, *expires_at);
                    self.remember(session, (*request_id, None, outcome));
                }
            }
            Fact::Converted { lock, ticket, mode, token, request_id } => {
                let Some(row) = self.holds.get_mut(lock) else { return };
                let granted = &mut row.granted;
                (granted.mode, granted.token) = (*mode, *token);
                if let LockMode::Permit(left) = mode {
                    granted.slots.truncate(*left as usize);
                }
                let (session, began) = (granted.session, granted.ticket);
                if *mode == LockMode::Exclusive
                    && let Some(row) = self.sessions.get_mut(&session)
                {
                    row.retrying = false;
                }
                if request_id.is_some() || self.tickets.get(ticket).is_some_and(|row| row.parked) {
                    let own = Some(*ticket).filter(|ticket| *ticket != began);
                    self.remember(session, (*request_id, own, Outcome::Converted(*lock)));
                }
            }
            Fact::RevocationSet { lock, until } => {
                self.holds.entry(*lock).and_modify(|row| row.revoked_at = Some(*until));
            }
            Fact::WaitDeclared { session, on, .. } => {
                self.declared.insert((*session, *on), at);
            }
            Fact::WaitWithdrawn { session, on } => {
                self.declared.remove(&(*session, *on));
            }
            Fact::CapacityDeclared { resource, capacity } => {
                match capacity {
                    Some(slots) => self.capacities.insert(resource.clone(), *slots),
                    None => self.capacities.remove(resource),
                };
            }
            Fact::TaskMoved { task, lock } => {
                self.tasks.insert(task.resource.clone(), (task.clone(), *lock));
            }
            Fact::TaskForgotten { task } => {
                self.tasks.remove(task);
            }
            Fact::Remembered { session, request_id, ticket, outcome } => {
                self.remember(*session, (*request_id, *ticket, outcome.clone()));
            }
            Fact::DeadlockFound(report) => {
                let Some(row) = self.sessions.get_mut(&report.victim) else { return };
                (row.retrying, row.report) = (true, Some(report.clone()));
            }
            other => panic!("no row for {other:?}"),
        }
    }

    /// What a waiter was told: a store that is no table knows the code and little more.
    fn refusal(&self, ticket: TicketId, session: SessionId, cause: &LeaveCause) -> Refusal {
        match cause {
            LeaveCause::Cancelled | LeaveCause::ReleasedAll => Refusal::Cancelled,
            LeaveCause::TimedOut => Refusal::TimedOut { obstacles: vec![], waited_ms: 0 },
            LeaveCause::Deadlock => match &self.sessions[&session].report {
                Some(report) => Refusal::Deadlock(report.clone()),
                None => Refusal::Cancelled,
            },
            LeaveCause::SessionEnded => Refusal::SessionEnded { session },
            LeaveCause::HoldEnded(lock) => Refusal::NotHolder { lock: *lock, holder: None },
            LeaveCause::Abandoned => Refusal::Abandoned { ticket },
            LeaveCause::CapacityShrunk => {
                let resource = Resource::llm("some");
                Refusal::OverCapacity { resource, asked: 2, capacity: 1 }
            }
            LeaveCause::Exhausted => Refusal::Exhausted,
        }
    }

    /// The rows as facts, in the order in which a table takes them in; and whether they tell the
    /// age of everybody's work exactly. `views` are the sessions as the table showed them last.
    pub(crate) fn tell(&self, views: &[SessionView]) -> (Vec<Record>, bool) {
        let mut told = Vec::new();
        let mut is_exact = true;
        let mut say = |at, fact| told.push(Record { at, fact });
        for (resource, slots) in &self.capacities {
            let (resource, capacity) = (resource.clone(), Some(*slots));
            say(Timestamp(0), Fact::CapacityDeclared { resource, capacity });
        }
        for (task, lock) in self.tasks.values() {
            say(Timestamp(0), Fact::TaskMoved { task: task.clone(), lock: *lock });
        }
        for view in views {
            let row = &self.sessions[&view.session];
            let mut opened = row.opened.clone();
            let Fact::SessionOpened { birth, aborts, .. } = &mut opened.fact else {
                return (told, false);
            };
            let is_retold = row.retrying && row.report.is_some();
            let has_declared = !view.declared.is_empty();
            (*birth, *aborts) = match row.retrying || view.holds > 0 {
                true => (view.birth, view.aborts - u32::from(is_retold)),
                false => (None, 0),
            };
            let is_told = row.retrying
                || view.holds > 0
                || view.birth == view.tickets.first().copied()
                || has_declared;
            let ages = view.aborts == 0 || row.retrying || view.holds > 0;
            is_exact &= is_told && ages;
            say(opened.at, opened.fact);
        }
        for (lock, row) in &self.holds {
            // What is remembered is told by itself, too; what is forgotten must stay so.
            let ticket = Some(row.granted.ticket);
            let memory = &self.sessions[&row.granted.session].memory;
            let known = memory.iter().find(|(_, of, _)| *of == ticket);
            let request_id = known.and_then(|(request_id, ..)| *request_id);
            say(row.at, Fact::Granted(Granted { request_id, ..row.granted.clone() }));
            let (lock, session) = (*lock, row.granted.session);
            let later = row.shares.iter().filter(|share| **share != row.granted.ticket);
            for (nth, ticket) in later.enumerate() {
                let (ticket, count) = (*ticket, nth as u32 + 2);
                say(row.at, Fact::Reentered { ticket, session, lock, count, request_id: None });
            }
            if !row.shares.contains(&row.granted.ticket) {
                let share = Some(row.granted.ticket);
                let (remaining, cause) = (row.shares.len() as u32, ReleaseCause::Released);
                let released = Fact::Released { lock, remaining, cause, share, request_id: None };
                say(row.at, released);
            }
        }
        for (lock, row) in &self.holds {
            if let Some(until) = row.revoked_at {
                say(row.at, Fact::RevocationSet { lock: *lock, until });
            }
        }
        for row in self.sessions.values().filter(|row| row.retrying) {
            if let Some(report) = &row.report {
                say(report.at, Fact::DeadlockFound(report.clone()));
            }
        }
        for ((session, on), at) in &self.declared {
            let view = views.iter().find(|view| view.session == *session);
            let has_begun = self.sessions[session].retrying || view.is_none_or(|one| one.holds > 0);
            let first =
                self.declared.keys().find(|(from, _)| from == session) == Some(&(*session, *on));
            let birth = view.and_then(|view| view.birth).filter(|_| first && !has_begun);
            say(*at, Fact::WaitDeclared { session: *session, on: *on, birth });
        }
        for row in self.tickets.values() {
            say(row.at, Fact::Queued(Box::new(row.queued.clone())));
        }
        for (ticket, row) in &self.tickets {
            if row.parked {
                let parked = Some(row.poll_by.unwrap_or(row.at));
                say(row.at, Fact::PollSet { ticket: *ticket, poll_by: parked });
                say(row.at, Fact::PollSet { ticket: *ticket, poll_by: row.poll_by });
            }
        }
        for (session, row) in &self.sessions {
            for (request_id, ticket, outcome) in &row.memory {
                let (session, request_id, ticket) = (*session, *request_id, *ticket);
                let outcome = outcome.clone();
                let known = Fact::Remembered { session, request_id, ticket, outcome };
                say(Timestamp(0), known);
            }
        }
        (told, is_exact)
    }
}
