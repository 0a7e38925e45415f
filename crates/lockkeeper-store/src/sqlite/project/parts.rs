//! What the facts have in common: the hold they are about, the work of the session they belong to.

use super::*;

impl Projector<'_> {
    /// A live hold, of which something changes.
    pub(super) fn change(&mut self, lock: LockId) -> Result<&mut HoldRow, Trouble> {
        let held: &mut Held = self.live.holds.get_mut(&lock).ok_or_else(|| not_held(lock))?;
        if !std::mem::replace(&mut held.is_touched, true) {
            self.live.touched.push(Touched::Hold(lock));
        }
        Ok(&mut held.row)
    }

    /// A hold becomes the exclusive one of its resource: the tables would not have a second one.
    pub(super) fn alone(&mut self, resource: &Resource, lock: LockId) -> Result<(), Trouble> {
        match self.live.exclusive.insert(resource.clone(), lock) {
            None => Ok(()),
            Some(other) => {
                let why = format!("{resource} is held exclusively, by lock {other}");
                Err(Trouble::Contradiction(why))
            }
        }
    }

    pub(super) fn no_more_alone(&mut self, row: &HoldRow) {
        if row.mode == LockMode::Exclusive {
            self.live.exclusive.remove(&row.resource);
        }
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
    pub(super) fn progress(&mut self, id: SessionId) {
        if let Some(session) = self.live.sessions.get_mut(&id)
            && std::mem::take(&mut session.retrying)
        {
            self.mark(id);
        }
    }

    /// A session has so many holds, tickets and declared waits less; with the last its work ends.
    pub(super) fn untie(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.live.sessions.get_mut(&id) else { return };
        session.ties = session.ties.saturating_sub(count);
        if session.ties > 0 || session.retrying {
            return;
        }
        session.birth = None;
        session.aborts = 0;
        if std::mem::take(&mut session.is_marked) {
            self.mark(id);
        }
    }

    /// What is known of a session's work goes into its row.
    pub(super) fn mark(&mut self, id: SessionId) {
        let Some(session) = self.live.sessions.get_mut(&id) else { return };
        session.row.birth = session.birth;
        session.row.aborts = session.aborts;
        session.row.retrying = session.retrying;
        self.live.touched.push(Touched::Session(id));
    }

    /// Takes a ticket out of the queues, if it stands there.
    pub(super) fn take_ticket(&mut self, id: TicketId) -> Option<TicketRow> {
        let ticket = self.live.tickets.remove(&id)?;
        if ticket.is_carried {
            self.live.touched.push(Touched::Ticket(id));
        }
        Some(ticket.row)
    }

    /// A ticket got what it waited for, if it waited; whether its asker may come back for that.
    pub(super) fn end_ticket(&mut self, id: TicketId) -> bool {
        if let Some((ended, parked)) = self.live.ticket_ended
            && ended == id
        {
            return parked;
        }
        let Some(row) = self.take_ticket(id) else { return false };
        self.live.ticket_ended = Some((id, row.parked));
        self.untie(row.request.session, 1);
        row.parked
    }

    pub(super) fn agent(&self, session: SessionId) -> Option<Arc<str>> {
        self.live.sessions.get(&session).map(|session| session.row.agent.clone())
    }

    pub(super) fn of_session(&self, session: SessionId) -> About {
        About { agent: self.agent(session), ..About::default() }
    }
}

pub(super) fn of_resource(resource: &Resource) -> About {
    About { resource: Some(resource.clone()), ..About::default() }
}

pub(super) fn of_hold(row: &HoldRow, request_id: Option<RequestId>, parked: bool) -> About {
    About {
        agent: Some(row.agent.clone()),
        resource: Some(row.resource.clone()),
        token: Some(row.token),
        session: Some(row.session).filter(|_| parked || request_id.is_some()),
        request_id,
    }
}

pub(super) fn first_wanted(queued: &Queued) -> Option<Resource> {
    queued.wants.first().map(|(resource, _)| resource.clone())
}

/// The word for why a hold ended, and who ended it; none where that was its own agent.
pub(super) fn cause_words(cause: &ReleaseCause) -> (&'static str, Option<Arc<str>>) {
    match cause {
        ReleaseCause::Released => ("released", None),
        ReleaseCause::Cancelled => ("cancelled", None),
        ReleaseCause::Expired => ("expired", Some("lockkeeper".into())),
        ReleaseCause::Deadlock => ("deadlock", Some("lockkeeper".into())),
        ReleaseCause::Forced { admin, .. } => ("forced", Some(admin.clone())),
        ReleaseCause::ReleasedAll => ("released_all", Some("administrator".into())),
        ReleaseCause::SessionEnded(_) => ("session_ended", None),
    }
}

/// Numbers are below 2^63 in the tables: a larger one could never be carried over.
pub(super) fn fits(number: u64) -> Result<(), Trouble> {
    match i64::try_from(number) {
        Ok(_) => Ok(()),
        Err(_) => Err(Trouble::Contradiction(format!("{number} is no number of ours"))),
    }
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
