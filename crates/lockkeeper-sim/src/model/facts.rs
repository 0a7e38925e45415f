//! Each fact must be owed; then it is taken over.

use super::{
    follow::Walk,
    invariant::{Checked, Invariant, broken, ensure},
    owed::{Expect, Freed, Fresh, NewToken, code_of},
    rules::{millis, permits},
    state::{Outcome, Session},
};
use lockkeeper_core::{
    Answer, EndCause, Fact, LeaveCause, LockId, LockMode, Queued, ReleaseCause, RequestId,
    Resource, SessionId, SessionKind, TicketId, Timestamp, Token,
};

impl Walk<'_> {
    /// Takes in any fact that is not a member of a grant.
    pub(super) fn fact(&mut self, fact: &Fact) -> Checked {
        match fact {
            Fact::SessionOpened { session, agent, kind, priority, birth, aborts } => {
                let due = self.owed.take(|fresh| match fresh {
                    Fresh::Open { agent: a, kind: k, priority: p, birth: b, aborts: n } => {
                        Some((a, k, p, b, n) == (agent, kind, priority, birth, aborts))
                    }
                    _ => None,
                });
                ensure(due == Some(true), Invariant::I20, || format!("not due: {fact:?}"))?;
                self.opened(*session, (*kind, agent), *priority, (*birth, *aborts))
            }
            Fact::SessionEnded { session, cause, .. } => self.ended(*session, *cause),
            Fact::Queued(queued) => self.queued(queued),
            Fact::Left { ticket, session, cause } => self.left(*ticket, *session, cause),
            Fact::PollSet { ticket, poll_by } => self.poll_set(*ticket, *poll_by),
            Fact::Released { lock, remaining, cause, share, request_id } => {
                let (remaining, share, request_id) = (*remaining, *share, *request_id);
                let freed = Freed { remaining, cause: cause.clone(), share, request_id };
                self.released(*lock, &freed)
            }
            Fact::Renewed { lock, expires_at, request_id } => {
                self.renewed(*lock, *expires_at, *request_id)
            }
            Fact::Converted { lock, mode, token, request_id, .. } => {
                self.downgraded(*lock, *mode, *token, *request_id)
            }
            Fact::RevocationSet { lock, until, .. } => {
                let due = self.owed.revoke.remove(lock);
                ensure(due == Some(*until), Invariant::I7, || {
                    format!("hold {lock} is revoked until {}, due is {due:?}", until.0)
                })?;
                if let Some(hold) = self.model.holds.get_mut(lock) {
                    hold.revoked_at = Some(*until);
                }
                Ok(())
            }
            Fact::WaitDeclared { session, on, birth } => self.declared(*session, *on, *birth),
            Fact::WaitWithdrawn { session, on } => {
                let due = self.owed.withdraw.remove(&(*session, *on));
                ensure(due, Invariant::I20, || format!("{session} still waits for {on}"))?;
                self.model.forget_declared(*session, *on);
                Ok(())
            }
            Fact::CapacityDeclared { resource, capacity } => self.capacity_set(resource, *capacity),
            Fact::DeadlockFound(report) => self.verdict(report),
            Fact::Resumed { poll_by } => self.resumed(*poll_by),
            Fact::TaskMoved { task, lock } => self.task_moved(task, *lock),
            Fact::TaskForgotten { task } => self.task_forgotten(task),
            Fact::Remembered { session, request_id, ticket: None, outcome } => {
                self.remembered(*session, *request_id, outcome)
            }
            other => broken(Invariant::I20, format!("not a fact the model knows: {other:?}")),
        }
    }

    fn opened(
        &mut self,
        id: SessionId,
        (kind, agent): (SessionKind, &std::sync::Arc<str>),
        priority: i8,
        (birth, aborts): (Option<TicketId>, u32),
    ) -> Checked {
        ensure(id.get() > self.model.last.session, Invariant::I20, || {
            format!("session {id} is not newer than {}", self.model.last.session)
        })?;
        self.model.last.session = id.get();
        let session = Session {
            agent: agent.clone(),
            kind,
            priority,
            birth,
            aborts,
            retrying: birth.is_some(),
            declared: Vec::new(),
            idle_since: None,
            memory: Vec::new(),
        };
        self.model.sessions.insert(id, session);
        self.replies.insert(self.call, Expect::Said(Answer::SessionOpened { session: id }));
        self.model.settle(id);
        Ok(())
    }

    fn ended(&mut self, id: SessionId, cause: EndCause) -> Checked {
        let Some(session) = self.model.sessions.get(&id) else {
            return broken(Invariant::I13, format!("session {id} ends twice"));
        };
        let idle_ms = millis(self.model.rules.session_idle);
        let since = session.idle_since;
        let idle = since.is_some_and(|since| since.0.saturating_add(idle_ms) <= self.model.now.0);
        let due = self.owed.end.remove(&id) == Some(cause) || (idle && cause == EndCause::Idle);
        ensure(due, Invariant::I20, || format!("session {id} ends: {cause:?}"))?;
        let holds = self.model.session_holds(id).count();
        let waits = self.model.session_waits(id).count();
        ensure(holds + waits == 0, Invariant::I13, || {
            format!("session {id} ends, but leaves {holds} holds and {waits} waits")
        })?;
        let mut partners = Vec::new();
        for (other, one) in &mut self.model.sessions {
            let before = one.declared.len();
            one.declared.retain(|on| *on != id);
            if one.declared.len() != before {
                partners.push(*other);
            }
        }
        let gone = self.model.sessions.remove(&id);
        partners.extend(gone.into_iter().flat_map(|session| session.declared));
        for partner in partners {
            self.model.settle(partner);
        }
        Ok(())
    }

    fn queued(&mut self, queued: &Queued) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Queue(wait) => Some(wait.clone()),
            _ => None,
        });
        let Some(mut wait) = due else {
            return broken(Invariant::I8, format!("a request queues that need not: {queued:?}"));
        };
        self.minted(queued.ticket)?;
        wait.ticket = queued.ticket;
        let same = Queued {
            ticket: wait.ticket,
            session: wait.session,
            wants: wait.wants.clone(),
            built_on: wait.built_on.clone(),
            upgrade: wait.upgrade,
            wait_until: wait.wait_until,
            lease_ms: wait.lease_ms,
            priority: wait.priority,
            reason: wait.reason.clone(),
            metadata: wait.metadata.clone(),
            request_id: wait.request_id,
        };
        ensure(same == *queued, Invariant::I20, || format!("due {same:?}, got {queued:?}"))?;
        let session = wait.session;
        self.model.begin_work(session, wait.ticket);
        self.asked = Some(wait.ticket);
        self.model.waits.insert(wait.ticket, wait);
        self.model.settle(session);
        Ok(())
    }

    /// A ticket is new.
    pub(super) fn minted(&mut self, ticket: TicketId) -> Checked {
        let fresh = ticket.get() > self.model.last.ticket && ticket.epoch() == self.model.epoch;
        ensure(fresh, Invariant::I20, || {
            format!("ticket {ticket} is not newer than {}", self.model.last.ticket)
        })?;
        self.model.last.ticket = ticket.get();
        Ok(())
    }

    fn left(&mut self, ticket: TicketId, session: SessionId, cause: &LeaveCause) -> Checked {
        let now = self.model.now;
        let Some(wait) = self.model.waits.get(&ticket).filter(|wait| wait.session == session)
        else {
            return broken(Invariant::I13, format!("ticket {ticket} leaves, but does not wait"));
        };
        let due = self.owed.leave.get(&ticket);
        let (justified, invariant) = match cause {
            LeaveCause::TimedOut => (wait.wait_until <= now, Invariant::I10),
            LeaveCause::Abandoned => (wait.poll_by.is_some_and(|by| by <= now), Invariant::I10),
            LeaveCause::HoldEnded(lock) => {
                let builds = wait.built_on.contains(lock) && self.is_ending(*lock);
                (builds || due == Some(cause), Invariant::I13)
            }
            LeaveCause::Deadlock => (due == Some(cause), Invariant::I7),
            _ => (due == Some(cause), Invariant::I13),
        };
        ensure(justified, invariant, || {
            format!("ticket {ticket} of {} leaves: {cause:?}", self.name(session))
        })?;
        self.owed.leave.remove(&ticket);
        let Some(wait) = self.model.waits.remove(&ticket) else { return Ok(()) };
        if let Some(call) = wait.call {
            self.replies.insert(call, Expect::Refused(code_of(cause)));
        }
        if wait.request_id.is_some() || wait.told {
            let outcome = Outcome::Refused(code_of(cause));
            self.model.remember(session, wait.request_id, Some(ticket), outcome);
        }
        self.model.settle(session);
        Ok(())
    }

    /// Whether a hold is over, or will be at the end of this turn, or changes under those who
    /// build on it.
    fn is_ending(&self, lock: LockId) -> bool {
        let Some(hold) = self.model.holds.get(&lock) else { return true };
        let changes = |fresh: &Fresh| matches!(fresh, Fresh::Convert { lock: l, .. } if *l == lock);
        hold.ends_at() <= self.model.now
            || hold.revoked_at.is_some()
            || self.owed.free.get(&lock).is_some_and(|freed| freed.remaining == 0)
            || self.owed.revoke.contains_key(&lock)
            || self.owed.fresh.iter().any(changes)
    }

    fn poll_set(&mut self, ticket: TicketId, poll_by: Option<Timestamp>) -> Checked {
        let now = self.model.now;
        let grace = self.model.rules.ticket_grace;
        let unpolled = poll_by.is_none()
            && self
                .owed
                .take(|f| matches!(f, Fresh::Unpoll(t) if *t == ticket).then_some(()))
                .is_some();
        let Some(wait) = self.model.waits.get_mut(&ticket) else {
            return broken(Invariant::I10, format!("ticket {ticket} is polled, but does not wait"));
        };
        let Some(poll_by) = poll_by else {
            wait.poll_by = None;
            return ensure(unpolled, Invariant::I10, || format!("nobody polls {ticket}"));
        };
        let due = wait.slice_until.is_some_and(|until| until <= now);
        let right = due && poll_by == now.after(grace);
        ensure(right, Invariant::I10, || {
            format!("ticket {ticket} must be polled by {}, its slice is {due}", poll_by.0)
        })?;
        wait.poll_by = Some(poll_by);
        wait.told = true;
        wait.slice_until = None;
        let call = wait.call.take();
        let ahead = self.model.ahead_of(ticket);
        if let Some(call) = call {
            let answer = Answer::Queued { ticket, ahead, poll_by };
            self.replies.insert(call, Expect::Said(answer));
        }
        Ok(())
    }

    fn released(&mut self, lock: LockId, freed: &Freed) -> Checked {
        let now = self.model.now;
        let Some(hold) = self.model.holds.get(&lock) else {
            return broken(Invariant::I12, format!("hold {lock} ends twice"));
        };
        let by_itself = (freed.remaining, freed.share, freed.request_id) == (0, None, None);
        let (justified, invariant) = match freed.cause {
            ReleaseCause::Expired if by_itself => (hold.expires_at <= now, Invariant::I14),
            ReleaseCause::Deadlock if by_itself => {
                (hold.revoked_at.is_some_and(|at| at <= now), Invariant::I7)
            }
            ReleaseCause::Released => (false, Invariant::I12),
            _ => (false, Invariant::I13),
        };
        let due = self.owed.free.get(&lock);
        ensure(justified || due == Some(freed), invariant, || {
            format!(
                "hold {lock} of {} on {} is counted down by {freed:?}, due is {due:?}",
                self.name(hold.session),
                hold.resource
            )
        })?;
        self.owed.free.remove(&lock);
        let (session, resource) = (hold.session, hold.resource.clone());
        if freed.request_id.is_some() {
            let outcome = Outcome::Released(lock, freed.remaining);
            self.model.remember(session, freed.request_id, None, outcome);
        }
        match self.model.holds.get_mut(&lock) {
            Some(hold) if freed.remaining > 0 => {
                hold.shares.retain(|share| Some(*share) != freed.share);
                ensure(hold.shares.len() as u32 == freed.remaining, Invariant::I12, || {
                    format!("hold {lock} is left with {:?} by {freed:?}", hold.shares)
                })?;
            }
            _ => {
                self.claim_ended(lock, &freed.cause);
                self.model.holds.remove(&lock);
                self.model.end_phase(&resource);
                self.model.settle(session);
            }
        }
        Ok(())
    }

    fn renewed(
        &mut self,
        lock: LockId,
        expires_at: Timestamp,
        request_id: Option<RequestId>,
    ) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Renew { lock, expires_at, request_id } => {
                Some((*lock, *expires_at, *request_id))
            }
            _ => None,
        });
        ensure(due == Some((lock, expires_at, request_id)), Invariant::I14, || {
            format!("hold {lock} is renewed until {}, due is {due:?}", expires_at.0)
        })?;
        let Some(hold) = self.model.holds.get_mut(&lock) else { return Ok(()) };
        hold.expires_at = expires_at;
        let session = hold.session;
        if request_id.is_some() {
            let outcome = Outcome::Renewed(lock, expires_at);
            self.model.remember(session, request_id, None, outcome);
        }
        Ok(())
    }

    fn downgraded(
        &mut self,
        lock: LockId,
        mode: LockMode,
        token: Token,
        request_id: Option<RequestId>,
    ) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Convert { lock: l, mode: m, token, request_id: r } => {
                Some((*token, (*l, *m, *r) == (lock, mode, request_id)))
            }
            _ => None,
        });
        let Some((kind, true)) = due else {
            return broken(Invariant::I20, format!("hold {lock} becomes {mode}, which is not due"));
        };
        match kind {
            NewToken::Fresh => self.model.fresh_token(token)?,
            NewToken::Kept(kept) => ensure(kept == token, Invariant::I2, || {
                format!("hold {lock} had token {kept} and has {token}")
            })?,
        }
        let Some(hold) = self.model.holds.get_mut(&lock) else { return Ok(()) };
        hold.mode = mode;
        hold.token = token;
        hold.slots.truncate(permits(mode) as usize);
        let (session, resource, grant) = (hold.session, hold.resource.clone(), hold.grant());
        self.model.start_phase(&resource, mode, token);
        if request_id.is_some() {
            let outcome = Outcome::Converted(lock);
            self.model.remember(session, request_id, None, outcome);
        }
        self.replies.insert(self.call, Expect::Changed(grant));
        Ok(())
    }

    fn declared(&mut self, session: SessionId, on: SessionId, birth: Option<TicketId>) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Declare { session, on } => Some((*session, *on)),
            _ => None,
        });
        ensure(due == Some((session, on)), Invariant::I20, || {
            format!("{session} declares to wait for {on}, due is {due:?}")
        })?;
        if let Some(birth) = birth {
            self.minted(birth)?;
        }
        let Some(one) = self.model.sessions.get_mut(&session) else { return Ok(()) };
        ensure(one.birth.is_some() != birth.is_some(), Invariant::I20, || {
            format!("{session} is born at {:?}, and again at {birth:?}", one.birth)
        })?;
        one.birth = one.birth.or(birth);
        one.declared.push(on);
        one.declared.sort();
        self.model.settle(session);
        self.model.settle(on);
        Ok(())
    }

    fn capacity_set(&mut self, resource: &Resource, capacity: Option<u32>) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Capacity { resource: r, capacity: c } => Some((r, *c) == (resource, capacity)),
            _ => None,
        });
        ensure(due == Some(true), Invariant::I20, || {
            format!("{resource} has capacity {capacity:?}, which is not due")
        })?;
        match capacity {
            Some(slots) => self.model.capacities.insert(resource.clone(), slots),
            None => self.model.capacities.remove(resource),
        };
        Ok(())
    }
}
