//! What a session remembers of its finished requests.
//!
//! The memory is a ring per session, so that one that lives for months remembers no more than one
//! that lives for a minute.

use super::state::State;
use crate::{LockId, Outcome, RequestId, TicketId, places::SessionAt};

/// A finished request, so that asking again changes nothing.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) request_id: Option<RequestId>,
    pub(super) ticket: Option<TicketId>,
    pub(super) outcome: Outcome,
}

/// What a request id was used for. It cannot be used for anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Acquire,
    Upgrade,
    Release,
    Renew,
    Downgrade,
    Claim,
    Finish,
}

impl Outcome {
    /// Whether a request of this kind can have ended like this.
    pub(super) fn is_of(&self, verb: Verb) -> bool {
        match self {
            Outcome::Granted(_) => matches!(verb, Verb::Acquire | Verb::Claim),
            Outcome::TaskMoved(_) => verb == Verb::Finish,
            Outcome::Converted(_) => matches!(verb, Verb::Upgrade | Verb::Downgrade),
            Outcome::Refused(_) => matches!(verb, Verb::Acquire | Verb::Upgrade),
            Outcome::Released(..) => verb == Verb::Release,
            Outcome::Renewed(..) => verb == Verb::Renew,
        }
    }
}

impl State {
    /// Adds a hold to what a request got; the members of a batch come one by one.
    pub(super) fn remember_grant(
        &mut self,
        session: SessionAt,
        ticket: TicketId,
        request_id: Option<crate::RequestId>,
        lock: LockId,
    ) {
        if request_id.is_none() && !self.is_parked(ticket) {
            return;
        }
        if let Some(last) = self.sessions[session].memory.back_mut()
            && last.ticket == Some(ticket)
            && let Outcome::Granted(locks) = &mut last.outcome
        {
            locks.push(lock);
            return;
        }
        self.remember(session, request_id, Some(ticket), Outcome::Granted(vec![lock]));
    }

    /// Whether the asker knows the ticket and may come back for the outcome.
    pub(super) fn is_parked(&self, ticket: TicketId) -> bool {
        self.ticket(ticket).is_some_and(|at| self.tickets[at].parked)
    }

    /// Takes over what a store remembers: the whole outcome, whatever is known of it by now.
    #[inline(never)]
    pub(super) fn remember_again(
        &mut self,
        session: SessionAt,
        request_id: Option<crate::RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    ) {
        let is_it = |one: &Remembered| (one.request_id, one.ticket) == (request_id, ticket);
        self.sessions[session].memory.retain(|one| !is_it(one));
        self.remember(session, request_id, ticket, outcome);
    }

    pub(super) fn remember(
        &mut self,
        session: SessionAt,
        request_id: Option<crate::RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    ) {
        let memory = &mut self.sessions[session].memory;
        memory.push_back(Remembered { request_id, ticket, outcome });
        while memory.len() > self.remembered_max {
            memory.pop_front();
        }
    }
}
