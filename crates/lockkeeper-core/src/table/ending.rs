//! How holds, waits and sessions end, by will, by force or by time.
//!
//! Everything that ends frees something, so everything here ends in a rescan. What frees several
//! things frees them all before the first of them is handed over.

use super::{LockTable, memory::Verb};
use crate::{
    Answer, Cancel, CancelTarget, Credential, EndCause, EndSession, Fact, ForceUnlock, LeaveCause,
    LockId, Outcome, Refusal, Release, ReleaseAll, ReleaseCause, RequestId, Resource, SessionId,
    Subject, TaskStatus, TicketId,
    places::{HoldAt, SessionAt, TicketAt},
};

impl LockTable {
    pub(super) fn release(&mut self, release: Release) -> Result<Answer, Refusal> {
        if let Credential::Session(session) = release.by
            && let Some(answer) = self.repeated(session, Verb::Release, release.request_id)?
        {
            return answer;
        }
        let lock = release.lock;
        let hold = self.authorize(release.by, lock)?;
        let Some(share) = self.state.holds[hold].share(release.share) else {
            return Err(Refusal::NotHolder { lock, holder: None });
        };
        let request_id = release.by.remembers(release.request_id);
        let (remaining, freed) = self.count_down(hold, ReleaseCause::Released, share, request_id);
        self.rescan(freed);
        Ok(Answer::Released { lock, remaining })
    }

    pub(super) fn cancel(&mut self, cancel: Cancel) -> Result<Answer, Refusal> {
        let at = self.session(cancel.session)?;
        if let Some(ticket) = self.waiting_request(at, cancel.target) {
            let freed = self.leave(ticket, LeaveCause::Cancelled);
            self.rescan(freed);
            return Ok(Answer::Cancelled { released: 0, was_waiting: true });
        }
        let shares = self.granted_request(at, cancel.target)?;
        let mut freed = Vec::new();
        for &(share, hold) in &shares {
            freed.extend(self.count_down(hold, ReleaseCause::Cancelled, share, None).1);
        }
        self.rescan(freed);
        Ok(Answer::Cancelled { released: shares.len(), was_waiting: false })
    }

    pub(super) fn end_session(&mut self, end: EndSession) -> Result<Answer, Refusal> {
        let at = self.session(end.session)?;
        let (released, left) = self.close(at, end.cause);
        Ok(Answer::SessionEnded { released, left })
    }

    pub(super) fn release_all(&mut self, release: &ReleaseAll) -> Result<Answer, Refusal> {
        let mut sessions: Vec<(SessionId, SessionAt)> = self
            .state
            .sessions
            .iter()
            .filter(|(_, session)| session.agent == release.agent)
            .map(|(at, session)| (session.id, at))
            .collect();
        sessions.sort_unstable();
        let (mut released, mut left, mut freed) = (0, 0, Vec::new());
        for (_, at) in sessions {
            let emptied = self.empty(at, &LeaveCause::ReleasedAll, &ReleaseCause::ReleasedAll);
            released += emptied.released;
            left += emptied.left;
            freed.extend(emptied.freed);
        }
        self.rescan(freed);
        Ok(Answer::AllReleased { released, left })
    }

    pub(super) fn force_unlock(&mut self, force: ForceUnlock) -> Result<Answer, Refusal> {
        if let Some(problem) = force.resource.problem(self.config.limits.key_bytes_max) {
            let resource = force.resource.as_str().chars().take(256).collect();
            return Err(Refusal::InvalidResource { resource, problem });
        }
        let previous = self.holders(&force.resource);
        if previous.is_empty() {
            return Err(Refusal::Unknown(Subject::Resource(force.resource)));
        }
        let limit = self.config.limits.text_bytes_max;
        let bytes = force.admin.len().max(force.reason.len());
        self.within(crate::Limit::TextBytes, bytes, limit)?;
        let mut freed = Vec::new();
        for holder in &previous {
            if let Some(hold) = self.state.hold(holder.lock) {
                let (admin, reason) = (force.admin.clone(), force.reason.clone());
                freed.extend(self.end_hold(hold, ReleaseCause::Forced { admin, reason }));
            }
        }
        self.rescan(freed);
        Ok(Answer::ForceUnlocked { previous })
    }

    /// A lease, or the grace of a revoked hold, is over.
    pub(super) fn expire(&mut self, lock: LockId) {
        let Some(at) = self.state.hold(lock) else { return };
        let hold = &self.state.holds[at];
        let was_revoked = hold.revoked_at.is_some_and(|end| end <= self.now);
        let cause = match was_revoked && hold.revoked_at <= Some(hold.expires_at) {
            true => ReleaseCause::Deadlock,
            false => ReleaseCause::Expired,
        };
        let freed = self.end_hold(at, cause);
        self.rescan(freed);
    }

    pub(super) fn time_out(&mut self, ticket: TicketId) {
        self.leave_by_id(ticket, LeaveCause::TimedOut);
    }

    pub(super) fn abandon(&mut self, ticket: TicketId) {
        self.leave_by_id(ticket, LeaveCause::Abandoned);
    }

    pub(super) fn end_idle(&mut self, session: SessionId) {
        if let Some(at) = self.state.session(session) {
            self.close(at, EndCause::Idle);
        }
    }

    fn leave_by_id(&mut self, ticket: TicketId, cause: LeaveCause) {
        if let Some(at) = self.state.ticket(ticket) {
            let freed = self.leave(at, cause);
            self.rescan(freed);
        }
    }

    fn close(&mut self, at: SessionAt, cause: EndCause) -> (usize, usize) {
        let (session, agent) = (self.state.sessions[at].id, self.state.sessions[at].agent.clone());
        let emptied = self.empty(at, &LeaveCause::SessionEnded, &ReleaseCause::SessionEnded(cause));
        self.record(Fact::SessionEnded { session, agent, cause });
        self.rescan(emptied.freed);
        (emptied.released, emptied.left)
    }

    /// Ends all waits and holds of a session, without handing anything over yet.
    pub(super) fn empty(
        &mut self,
        at: SessionAt,
        left: &LeaveCause,
        released: &ReleaseCause,
    ) -> Emptied {
        let tickets: Vec<TicketAt> = self.state.sessions[at].tickets.places().collect();
        let mut holds: Vec<(LockId, HoldAt)> = self.state.sessions[at]
            .holds
            .iter()
            .map(|&hold| (self.state.holds[hold].id, hold))
            .collect();
        holds.sort_unstable();
        let mut emptied = Emptied { released: holds.len(), left: tickets.len(), freed: vec![] };
        for ticket in tickets {
            emptied.freed.extend(self.leave(ticket, left.clone()));
        }
        for (_, hold) in holds {
            emptied.freed.extend(self.end_hold(hold, released.clone()));
        }
        emptied
    }

    /// Takes a request out of its queues, tells its call why, and names the resources to rescan.
    pub(super) fn leave(&mut self, at: TicketAt, cause: LeaveCause) -> Vec<Resource> {
        let ticket = &self.state.tickets[at];
        let (id, call) = (ticket.id, ticket.call);
        let session = self.state.sessions[ticket.session].id;
        // It stood only in the way of those behind it that conflict with it.
        let place = ticket.place();
        let freed: Vec<Resource> = ticket
            .wants
            .iter()
            .map(|want| (&self.state.entries[want.entry], want.mode.class().conflicts()))
            .filter(|(entry, classes)| entry.queue.nearest_behind(Some(place), *classes).is_some())
            .map(|(entry, _)| entry.resource.clone())
            .collect();
        if let Some(call) = call {
            let refusal = self.state.refusal_of_leaving(at, &cause, self.now);
            self.reply(call, Err(refusal));
        }
        self.record(Fact::Left { ticket: id, session, cause });
        freed
    }

    /// Ends a hold and the waits that build on it, and names the resources to rescan.
    pub(super) fn end_hold(&mut self, at: HoldAt, cause: ReleaseCause) -> Vec<Resource> {
        self.finish_hold(at, cause, None, None, TaskStatus::Open)
    }

    /// The one place where a hold ends: if it was the claim of a task, that moves on.
    pub(super) fn finish_hold(
        &mut self,
        at: HoldAt,
        cause: ReleaseCause,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
        becomes: TaskStatus,
    ) -> Vec<Resource> {
        let hold = &self.state.holds[at];
        let (lock, entry) = (hold.id, hold.entry);
        let is_claim = hold.is_claim;
        let mut freed = self.end_what_builds_on(at);
        if !self.state.entries[entry].queue.is_empty() {
            freed.push(self.state.entries[entry].resource.clone());
            // It ends, and somebody else has it.
            self.turn.expect_two();
        }
        let released = Fact::Released { lock, remaining: 0, cause, share, request_id };
        match is_claim {
            true => self.end_claim(at, released, becomes),
            false => self.record(released),
        }
        freed
    }

    pub(super) fn end_what_builds_on(&mut self, hold: HoldAt) -> Vec<Resource> {
        let lock = self.state.holds[hold].id;
        let mut freed = Vec::new();
        for ticket in self.state.built_upon(hold) {
            freed.extend(self.leave(ticket, LeaveCause::HoldEnded(lock)));
        }
        freed
    }

    /// Takes one of a hold's acquires back; the last one ends it.
    fn count_down(
        &mut self,
        at: HoldAt,
        cause: ReleaseCause,
        share: TicketId,
        request_id: Option<RequestId>,
    ) -> (u32, Vec<Resource>) {
        let (lock, share) = (self.state.holds[at].id, Some(share));
        let remaining = self.state.holds[at].count().saturating_sub(1);
        if remaining == 0 {
            let becomes = TaskStatus::Open;
            return (0, self.finish_hold(at, cause, share, request_id, becomes));
        }
        self.record(Fact::Released { lock, remaining, cause, share, request_id });
        (remaining, Vec::new())
    }

    /// The hold, if the caller may end or change it.
    pub(super) fn authorize(&self, by: Credential, lock: LockId) -> Result<HoldAt, Refusal> {
        let hold = self.state.hold(lock);
        match (by, hold) {
            (Credential::Session(session), hold) => {
                let at = self.session(session)?;
                match hold {
                    Some(hold) if self.state.holds[hold].session == at => Ok(hold),
                    other => {
                        let holder = other.map(|hold| Box::new(self.state.holder(hold)));
                        Err(Refusal::NotHolder { lock, holder })
                    }
                }
            }
            (Credential::Token(token), Some(hold)) if self.state.holds[hold].token == token => {
                Ok(hold)
            }
            (Credential::Token(_), _) => Err(Refusal::StaleToken { lock }),
        }
    }

    pub(super) fn session(&self, session: SessionId) -> Result<SessionAt, Refusal> {
        match self.state.session(session) {
            Some(at) => Ok(at),
            None => Err(Refusal::SessionEnded { session }),
        }
    }

    fn waiting_request(&self, session: SessionAt, target: CancelTarget) -> Option<TicketAt> {
        match target {
            CancelTarget::Ticket(ticket) => self.state.sessions[session].tickets.get(ticket),
            CancelTarget::Request(request) => self.state.waiting_with(session, request),
        }
    }

    /// The holds of which a request that waits no longer still has its share. The memory tells
    /// which they were; when it has forgotten, the holds themselves do.
    fn granted_request(
        &self,
        at: SessionAt,
        target: CancelTarget,
    ) -> Result<Vec<(TicketId, HoldAt)>, Refusal> {
        let session = &self.state.sessions[at];
        let known = match target {
            CancelTarget::Ticket(ticket) => {
                session.memory.latest().find(|one| one.ticket == Some(ticket))
            }
            CancelTarget::Request(request) => session.memory.with_request(request),
        };
        match (known, target) {
            (Some(one), _) => match (&one.outcome, one.ticket) {
                (Outcome::Granted(locks), Some(ticket)) => Ok(locks
                    .iter()
                    .filter_map(|&lock| Some((ticket, self.state.share_of(one.ticket, lock)?)))
                    .collect()),
                _ => Ok(Vec::new()),
            },
            (None, CancelTarget::Ticket(ticket)) => {
                let mut shares: Vec<(LockId, HoldAt)> = session
                    .holds
                    .iter()
                    .map(|&hold| (self.state.holds[hold].id, hold))
                    .filter(|&(_, hold)| self.state.holds[hold].has_share(ticket))
                    .collect();
                shares.sort_unstable();
                match shares.is_empty() {
                    true => Err(Refusal::Unknown(Subject::Ticket(ticket))),
                    false => Ok(shares.into_iter().map(|(_, hold)| (ticket, hold)).collect()),
                }
            }
            (None, CancelTarget::Request(request)) => {
                Err(Refusal::Unknown(Subject::Request(request)))
            }
        }
    }
}

/// What a session had.
pub(super) struct Emptied {
    pub(super) released: usize,
    left: usize,
    freed: Vec<Resource>,
}
