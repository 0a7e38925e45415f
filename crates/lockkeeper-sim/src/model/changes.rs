//! What ends or changes a hold by will.

use super::{
    decide::{Due, refused, said},
    follow::Walk,
    owed::{Expect, Freed, Fresh, NewToken},
    rules::{covers, millis},
    state::{Hold, Outcome, Verb, Wait},
};
use lockkeeper_core::{
    Answer, Cancel, CancelTarget, Credential, Downgrade, LeaveCause, LockId, LockMode, Release,
    ReleaseCause, Renew, RequestId, TicketId, Timestamp,
};

impl Walk<'_> {
    pub(super) fn cancel(&mut self, cancel: Cancel) -> Due {
        let session = cancel.session;
        if !self.model.sessions.contains_key(&session) {
            return refused("session_ended");
        }
        let is_it = |ticket: Option<TicketId>, request: Option<RequestId>| match cancel.target {
            CancelTarget::Ticket(wanted) => ticket == Some(wanted),
            CancelTarget::Request(wanted) => request == Some(wanted),
        };
        let is_waiting = |wait: &&Wait| is_it(Some(wait.ticket), wait.request_id);
        let waiting = self.model.session_waits(session).find(is_waiting).map(|wait| wait.ticket);
        if let Some(ticket) = waiting {
            self.owed.leave.insert(ticket, LeaveCause::Cancelled);
            return said(Answer::Cancelled { released: 0, was_waiting: true });
        }
        let memory = &self.model.sessions[&session].memory;
        let known = memory.iter().rev().find(|past| is_it(past.ticket, past.request_id));
        let (locks, ticket) = match (known, cancel.target) {
            (Some(past), _) => match &past.outcome {
                Outcome::Granted(locks) | Outcome::Claimed(locks) => (locks.clone(), past.ticket),
                _ => (Vec::new(), past.ticket),
            },
            (None, CancelTarget::Request(_)) => return refused("unknown"),
            (None, CancelTarget::Ticket(ticket)) => {
                let holds = self.model.session_holds(session);
                let held = holds.filter(|hold| hold.still_belongs_to(ticket));
                (held.map(|hold| hold.lock).collect(), Some(ticket))
            }
        };
        if known.is_none() && locks.is_empty() {
            return refused("unknown");
        }
        self.take_back(&locks, ticket)
    }

    /// Takes a request's share of its holds back, unless that was done before.
    fn take_back(&mut self, locks: &[LockId], ticket: Option<TicketId>) -> Due {
        let mut released = 0;
        for lock in locks {
            let (Some(hold), Some(share)) = (self.model.holds.get(lock), ticket) else { continue };
            if !hold.still_belongs_to(share) {
                continue;
            }
            released += 1;
            let (remaining, cause) = (hold.shares.len() as u32 - 1, ReleaseCause::Cancelled);
            let freed = Freed { remaining, cause, share: ticket, request_id: None };
            self.owed.free.insert(*lock, freed);
        }
        said(Answer::Cancelled { released, was_waiting: false })
    }

    /// The hold that a credential opens, or what its bearer is told.
    pub(super) fn open_hold(
        &self,
        by: Credential,
        lock: LockId,
        request_id: Option<RequestId>,
        verb: Verb,
    ) -> Result<Hold, Expect> {
        let hold = self.model.holds.get(&lock);
        let session = match by {
            Credential::Session(session) => session,
            Credential::Token(token) => {
                let its_own = hold.filter(|hold| hold.token == token);
                return its_own.cloned().ok_or(Expect::Refused("stale_token"));
            }
        };
        if !self.model.sessions.contains_key(&session) {
            return Err(Expect::Refused("session_ended"));
        }
        if let Some(finished) = self.over(session, request_id, verb) {
            return Err(self.told(&finished));
        }
        match hold {
            Some(hold) if hold.session == session => Ok(hold.clone()),
            _ => Err(Expect::Refused("not_holder")),
        }
    }

    pub(super) fn release(&mut self, release: Release) -> Due {
        let hold = match self.open_hold(release.by, release.lock, release.request_id, Verb::Release)
        {
            Ok(hold) => hold,
            Err(expect) => return Some(expect),
        };
        if release.share.is_some_and(|share| !hold.still_belongs_to(share)) {
            return refused("not_holder");
        }
        let remaining = hold.shares.len() as u32 - 1;
        let cause = ReleaseCause::Released;
        let request_id = remembered(release.by, release.request_id);
        let share = release.share.or(hold.shares.last().copied());
        let freed = Freed { remaining, cause, share, request_id };
        self.owed.free.insert(hold.lock, freed);
        said(Answer::Released { lock: hold.lock, remaining })
    }

    pub(super) fn renew(&mut self, renew: Renew) -> Due {
        let hold = match self.open_hold(renew.by, renew.lock, renew.request_id, Verb::Renew) {
            Ok(hold) => hold,
            Err(expect) => return Some(expect),
        };
        if hold.revoked_at.is_some() {
            return refused("revoking");
        }
        let max = self.model.rules.limits.lease_max;
        let lease = renew.lease.map_or(hold.lease_ms, |lease| millis(lease.min(max)).max(1));
        let wanted = Timestamp(self.model.now.0.saturating_add(lease));
        let expires_at = if renew.shorten { wanted } else { wanted.max(hold.expires_at) };
        self.owed.fresh.push_back(Fresh::Renew {
            lock: hold.lock,
            expires_at,
            request_id: remembered(renew.by, renew.request_id),
        });
        said(Answer::Renewed { lock: hold.lock, expires_at })
    }

    pub(super) fn downgrade(&mut self, downgrade: Downgrade) -> Due {
        let by = Credential::Session(downgrade.session);
        let hold = match self.open_hold(by, downgrade.lock, downgrade.request_id, Verb::Downgrade) {
            Ok(hold) => hold,
            Err(expect) => return Some(expect),
        };
        if hold.revoked_at.is_some() {
            return refused("revoking");
        }
        let mode = downgrade.mode;
        if mode == hold.mode {
            return Some(Expect::Changed(hold.grant()));
        }
        let none_left = matches!(mode, LockMode::Permit(0));
        if none_left || !covers(hold.mode, mode) {
            return refused("wrong_mode");
        }
        let token = match hold.mode {
            LockMode::Exclusive => NewToken::Fresh,
            _ => NewToken::Kept(hold.token),
        };
        // A wait that counts on the old mode contradicts this; the later word counts.
        let mut waits = self.model.session_waits(hold.session);
        let contradicted = waits.by_ref().filter(|wait| wait.built_on.contains(&hold.lock));
        self.owed.leave_all(contradicted, &LeaveCause::HoldEnded(hold.lock));
        let request_id = downgrade.request_id;
        let lock = hold.lock;
        self.owed.fresh.push_back(Fresh::Convert { lock, mode, token, request_id });
        None
    }
}

/// Whoever shows a token has no session that could remember the request.
pub(super) fn remembered(by: Credential, request_id: Option<RequestId>) -> Option<RequestId> {
    match by {
        Credential::Session(_) => request_id,
        Credential::Token(_) => None,
    }
}
