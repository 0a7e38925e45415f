//! What follows from each fact by itself: phases, births, memories, idleness.

use super::{
    follow::Walk,
    invariant::{Checked, Invariant, ensure},
    owed::Fresh,
    state::{Finished, Model, Outcome, Wait},
};
use lockkeeper_core::{
    LockMode, RequestId, Resource, SessionId, SessionKind, TicketId, Timestamp, Token,
};

impl Walk<'_> {
    /// The table is in service again: nothing may end before it had its full time from now.
    pub(super) fn resumed(&mut self, poll_by: Timestamp) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Resume(poll_by) => Some(*poll_by),
            _ => None,
        });
        ensure(due == Some(poll_by), Invariant::I17, || {
            format!("resumed, to be polled by {}, due is {due:?}", poll_by.0)
        })?;
        let now = self.model.now;
        for hold in self.model.holds.values_mut() {
            let full = Timestamp(now.0.saturating_add(hold.lease_ms));
            if full > hold.expires_at {
                hold.expires_at = full;
            }
        }
        for wait in self.model.waits.values_mut() {
            wait.told = true;
            wait.poll_by = Some(wait.poll_by.map_or(poll_by, |old| old.max(poll_by)));
        }
        for session in self.model.sessions.values_mut() {
            session.idle_since = session.idle_since.map(|since| since.max(now));
        }
        Ok(())
    }
}

impl Model {
    /// A new token is larger than every one before it.
    pub(super) fn fresh_token(&mut self, token: Token) -> Checked {
        let fresh = token.get() > self.last.token && token.epoch() == self.epoch;
        ensure(fresh, Invariant::I2, || {
            format!("token {token} is issued after token {}", self.last.token)
        })?;
        self.last.token = token.get();
        Ok(())
    }

    /// The first ticket of a run of work is its birth.
    pub(super) fn begin_work(&mut self, session: SessionId, ticket: TicketId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.birth = session.birth.or(Some(ticket));
        }
    }

    pub(super) fn remember(
        &mut self,
        session: SessionId,
        request_id: Option<RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    ) {
        let max = self.rules.limits.remembered_per_session;
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.memory.push(Finished { request_id, ticket, outcome });
        while session.memory.len() > max {
            session.memory.remove(0);
        }
    }

    /// After a hold ended or changed: is a phase of readers and updaters over?
    pub(super) fn end_phase(&mut self, resource: &Resource) {
        let reads = |mode| matches!(mode, LockMode::Shared | LockMode::Update);
        if !self.holds_of(resource).any(|hold| reads(hold.mode)) {
            self.generations.remove(resource);
        }
    }

    /// After a hold was granted or changed: its token is that of the phase.
    pub(super) fn start_phase(&mut self, resource: &Resource, mode: LockMode, token: Token) {
        match mode {
            LockMode::Shared | LockMode::Update => {
                self.generations.insert(resource.clone(), token);
            }
            _ => self.end_phase(resource),
        }
    }

    pub(super) fn forget_declared(&mut self, session: SessionId, on: SessionId) {
        if let Some(one) = self.sessions.get_mut(&session) {
            one.declared.retain(|other| *other != on);
        }
        self.settle(session);
        self.settle(on);
    }

    /// After each change to a session: its work is over when it has nothing any more, unless it was
    /// aborted and tries again; and an idle detached one starts to run out.
    pub(super) fn settle(&mut self, id: SessionId) {
        let nothing = self.has_nothing(id);
        let idle = nothing && self.is_idle(id);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if nothing && !session.retrying {
            session.birth = None;
            session.aborts = 0;
        }
        if session.kind == SessionKind::Detached {
            let since = session.idle_since.unwrap_or(now);
            session.idle_since = idle.then_some(since);
        }
    }

    /// How many stand before a ticket, at most, in any of its queues.
    pub(super) fn ahead_of(&self, ticket: TicketId) -> usize {
        let Some(wait) = self.waits.get(&ticket) else { return 0 };
        let before = |what: &Resource, wait: &Wait| {
            self.queue_of(what).iter().filter(|other| other.place() < wait.place()).count()
        };
        wait.wants.iter().map(|(what, _)| before(what, wait)).max().unwrap_or(0)
    }
}
