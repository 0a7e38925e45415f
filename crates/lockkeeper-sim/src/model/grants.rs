//! A grant: only when the rule lets it in, whole, and with the right numbers.

use super::{
    follow::Walk,
    invariant::{Checked, Invariant, Violation, broken, ensure},
    owed::{Expect, Fresh},
    rules::{Obstacle, Scene, permits},
    state::{Hold, Outcome, Wait},
};
use lockkeeper_core::{
    Fact, Granted, LockId, LockMode, Record, RequestId, SessionId, TicketId, Token,
};

impl Walk<'_> {
    /// Takes in all members of one grant.
    pub(super) fn granted(&mut self, facts: &[Record]) -> Checked {
        let ticket = match facts.first().map(|record| &record.fact) {
            Some(Fact::Granted(granted)) => granted.ticket,
            Some(Fact::Reentered { ticket, .. } | Fact::Converted { ticket, .. }) => *ticket,
            _ => return Ok(()),
        };
        // Everything that is freed is free before the first of it is handed over.
        let freed = self.owed.nothing_to_free();
        ensure(freed, Invariant::I20, || {
            format!("ticket {ticket} is granted before {:?}", self.owed.rest())
        })?;
        let wait = self.entitled(ticket)?;
        let members = wait.wants.len() + if wait.upgrade { 0 } else { wait.built_on.len() };
        ensure(facts.len() == members, Invariant::I11, || {
            format!("ticket {ticket} is granted {} of {members} members", facts.len())
        })?;
        self.model.waits.remove(&ticket);
        self.model.begin_work(wait.session, ticket);
        let mut locks = Vec::new();
        for record in facts {
            let lock = match &record.fact {
                Fact::Granted(granted) => self.new_hold(&wait, granted)?,
                Fact::Reentered { session, lock, count, request_id, .. } => {
                    self.reentered(&wait, *session, (*lock, *count), *request_id)?
                }
                Fact::Converted { lock, mode, token, request_id, .. } => {
                    self.upgraded(&wait, *lock, (*mode, *token), *request_id)?
                }
                _ => continue,
            };
            ensure(!locks.contains(&lock), Invariant::I11, || format!("{lock} twice"))?;
            locks.push(lock);
        }
        if let Some(session) = self.model.sessions.get_mut(&wait.session) {
            session.retrying = false;
        }
        self.tell(&wait, locks);
        self.model.settle(wait.session);
        Ok(())
    }

    /// The request of a grant, if the rule lets it in.
    fn entitled(&mut self, ticket: TicketId) -> Result<Wait, Violation> {
        let waiting = self.model.waits.get(&ticket).cloned();
        let wait = match waiting {
            Some(wait) => {
                ensure(wait.wait_until > self.model.now, Invariant::I13, || {
                    format!("ticket {ticket} is granted after its wait ran out")
                })?;
                wait
            }
            None => {
                let due = self.owed.take(|fresh| match fresh {
                    Fresh::Grant(wait) => Some(wait.clone()),
                    _ => None,
                });
                let Some(mut wait) = due else {
                    let what = format!("ticket {ticket} is granted, but nobody waits with it");
                    return broken(self.granted_too_early(), what);
                };
                self.minted(ticket)?;
                wait.ticket = ticket;
                wait
            }
        };
        let who = self.name(wait.session);
        match Scene::now(self.model).obstacle_of(&wait) {
            None => Ok(wait),
            Some(Obstacle::Holder) => {
                broken(Invariant::I1, format!("{who} is let in beside a holder, ticket {ticket}"))
            }
            Some(Obstacle::Waiter) => {
                broken(Invariant::I9, format!("{who} passes an earlier waiter, ticket {ticket}"))
            }
        }
    }

    /// What is broken when a request is granted at once that had to queue.
    fn granted_too_early(&self) -> Invariant {
        let Some(Fresh::Queue(wait)) = self.owed.fresh.front() else { return Invariant::I13 };
        let last = Wait { ticket: TicketId::from_u64(u64::MAX), ..wait.clone() };
        match Scene::now(self.model).obstacle_of(&last) {
            Some(Obstacle::Waiter) => Invariant::I9,
            _ => Invariant::I1,
        }
    }

    fn new_hold(&mut self, wait: &Wait, granted: &Granted) -> Result<LockId, Violation> {
        let now = self.model.now;
        let Granted { lock, resource, mode, token, .. } = granted;
        ensure(wait.mode_for(resource) == Some(*mode), Invariant::I11, || {
            format!("ticket {} is granted {mode} on {resource}", wait.ticket)
        })?;
        let expires_at = lockkeeper_core::Timestamp(now.0.saturating_add(wait.lease_ms));
        ensure(granted.expires_at == expires_at, Invariant::I14, || {
            format!("hold {lock} ends at {} and not {}", granted.expires_at.0, expires_at.0)
        })?;
        let same = Granted {
            lock: *lock,
            ticket: wait.ticket,
            session: wait.session,
            resource: resource.clone(),
            mode: *mode,
            token: *token,
            slots: self.lowest_free(wait, granted),
            lease_ms: wait.lease_ms,
            expires_at,
            wait_ms: now.since(wait.queued_at),
            reason: wait.reason.clone(),
            metadata: wait.metadata.clone(),
            request_id: wait.request_id,
            fleeting: wait.fleeting,
        };
        ensure(same == *granted, Invariant::I20, || format!("due {same:?}, got {granted:?}"))?;
        let known = self.model.holds.contains_key(lock);
        ensure(!known, Invariant::I2, || format!("lock id {lock} is given out twice"))?;
        let generation = self.model.generations.get(resource).copied();
        match (mode, generation) {
            (LockMode::Shared | LockMode::Update, Some(shared)) => {
                ensure(shared == *token, Invariant::I2, || {
                    format!("{resource} is read with token {shared}, but {lock} got {token}")
                })?;
            }
            _ => self.model.fresh_token(*token)?,
        }
        let hold = Hold {
            lock: *lock,
            ticket: wait.ticket,
            session: wait.session,
            resource: resource.clone(),
            mode: *mode,
            token: *token,
            slots: granted.slots.clone(),
            shares: vec![wait.ticket],
            lease_ms: wait.lease_ms,
            wait_ms: granted.wait_ms,
            granted_at: now,
            expires_at,
            revoked_at: None,
            reason: wait.reason.clone(),
            metadata: wait.metadata.clone(),
        };
        self.model.holds.insert(*lock, hold);
        if matches!(mode, LockMode::Shared | LockMode::Update) {
            self.model.start_phase(resource, *mode, *token);
        }
        Ok(*lock)
    }

    fn lowest_free(&self, wait: &Wait, granted: &Granted) -> Vec<u32> {
        let wanted = wait.mode_for(&granted.resource).map_or(0, permits) as usize;
        let used = |slot: &u32| {
            self.model.holds_of(&granted.resource).any(|hold| hold.slots.contains(slot))
        };
        (0u32..).filter(|slot| !used(slot)).take(wanted).collect()
    }

    fn reentered(
        &mut self,
        wait: &Wait,
        session: SessionId,
        (lock, count): (LockId, u32),
        request_id: Option<RequestId>,
    ) -> Result<LockId, Violation> {
        let due = wait.built_on.contains(&lock)
            && session == wait.session
            && request_id == wait.request_id;
        let Some(hold) = self.model.holds.get_mut(&lock).filter(|_| due) else {
            return broken(Invariant::I11, format!("{lock} is counted up, which is not due"));
        };
        let before = hold.shares.len() as u32;
        ensure(count == before + 1, Invariant::I12, || {
            format!("hold {lock}, held {before} times, is now held {count} times")
        })?;
        hold.shares.push(wait.ticket);
        Ok(lock)
    }

    fn upgraded(
        &mut self,
        wait: &Wait,
        lock: LockId,
        (mode, token): (LockMode, Token),
        request_id: Option<RequestId>,
    ) -> Result<LockId, Violation> {
        let due = wait.upgrade
            && wait.built_on == [lock]
            && mode == LockMode::Exclusive
            && request_id == wait.request_id;
        ensure(due, Invariant::I20, || format!("{lock} becomes {mode}, which is not due"))?;
        self.model.fresh_token(token)?;
        let Some(hold) = self.model.holds.get_mut(&lock) else {
            return broken(Invariant::I13, format!("{lock} is upgraded, but nobody holds it"));
        };
        hold.mode = mode;
        hold.token = token;
        let resource = hold.resource.clone();
        self.model.end_phase(&resource);
        Ok(lock)
    }

    /// The call that waits is told, and the request is remembered.
    fn tell(&mut self, wait: &Wait, locks: Vec<LockId>) {
        let holds = locks.iter().filter_map(|lock| self.model.holds.get(lock));
        let grants: Vec<_> = holds.map(|hold| hold.grant_to(wait.ticket)).collect();
        let expect = match (wait.upgrade, grants.first()) {
            (true, Some(grant)) => Expect::Changed(grant.clone()),
            _ => Expect::granted(grants),
        };
        if let Some(call) = wait.call {
            self.replies.insert(call, expect);
        }
        if wait.request_id.is_some() || wait.told {
            let outcome = match (wait.upgrade, locks.first()) {
                (true, Some(lock)) => Outcome::Converted(*lock),
                _ if matches!(self.owed.fresh.front(), Some(Fresh::Claim(..))) => {
                    Outcome::Claimed(locks)
                }
                _ => Outcome::Granted(locks),
            };
            self.model.remember(wait.session, wait.request_id, Some(wait.ticket), outcome);
        }
    }
}
