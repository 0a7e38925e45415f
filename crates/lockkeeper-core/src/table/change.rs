//! What changes a hold or a resource without ending it: renewal, upgrade, downgrade, capacity, and
//! waits that are declared.

use super::{LockTable, detect::Closing, memory::Verb, queue::Place, rescan::Terms};
use crate::{
    Answer, CallId, Credential, DeclareCapacity, DeclareWait, Downgrade, Fact, LeaveCause, Limit,
    LockMode, Queued, Refusal, Renew, Subject, Upgrade, WithdrawWait,
    mode::Class,
    places::{EntryAt, HoldAt, SessionAt, TicketAt},
};

impl LockTable {
    pub(super) fn renew(&mut self, renew: Renew) -> Result<Answer, Refusal> {
        if let Credential::Session(session) = renew.by
            && let Some(answer) = self.repeated(session, Verb::Renew, renew.request_id)?
        {
            return answer;
        }
        let at = self.authorize(renew.by, renew.lock)?;
        self.check_not_revoking(at)?;
        let hold = &self.state.holds[at];
        let lease_ms = renew.lease.map_or(hold.lease_ms, |lease| self.lease_ms(Some(lease)));
        let wanted = crate::Timestamp(self.now.0.saturating_add(lease_ms));
        let expires_at = if renew.shorten { wanted } else { wanted.max(hold.expires_at) };
        let lock = renew.lock;
        let request_id = renew.by.remembers(renew.request_id);
        self.record(Fact::Renewed { lock, expires_at, request_id });
        Ok(Answer::Renewed { lock, expires_at })
    }

    pub(super) fn upgrade(&mut self, call: CallId, upgrade: Upgrade) {
        let options = &upgrade.options;
        let outcome = match self.session(upgrade.session) {
            Err(refusal) => Err(refusal),
            Ok(at) => {
                if self.is_repeated(call, at, Verb::Upgrade, options) {
                    return;
                }
                self.try_upgrade(at, &upgrade)
            }
        };
        match outcome {
            Err(refusal) => self.reply(call, Err(refusal)),
            Ok(Some(answer)) => self.reply(call, Ok(answer)),
            Ok(None) => self.queue_upgrade(call, upgrade),
        }
    }

    /// Upgrades at once, or says (`None`) that the request must wait.
    fn try_upgrade(
        &mut self,
        session: SessionAt,
        upgrade: &Upgrade,
    ) -> Result<Option<Answer>, Refusal> {
        let at = self.authorize(Credential::Session(upgrade.session), upgrade.lock)?;
        self.check_not_revoking(at)?;
        self.check_texts(&upgrade.options)?;
        let hold = &self.state.holds[at];
        let (entry, mode) = (hold.entry, hold.mode);
        let resource = self.state.entries[entry].resource.clone();
        match mode {
            LockMode::Exclusive => {
                return Ok(Some(Answer::Changed(self.state.grant_of(at).into())));
            }
            LockMode::Permit(_) => {
                let mode = LockMode::Exclusive;
                let capacity = self.state.entries[entry].slots.as_ref().map(|slots| slots.total);
                return Err(Refusal::WrongMode { resource, mode, capacity });
            }
            LockMode::Shared | LockMode::Update => {}
        }
        if let Some(ticket) = self.state.own_ticket(session, entry) {
            let ticket = self.state.tickets[ticket].id;
            return Err(Refusal::AlreadyWaiting { ticket, resource });
        }
        let place = Place { holds_nothing: false, ticket: self.next_ticket()? };
        if self.state.admits(entry, session, place, LockMode::Exclusive) {
            let terms = Terms {
                ticket: place.ticket,
                session,
                lease_ms: 0,
                wait_ms: 0,
                reason: None,
                metadata: None,
                request_id: upgrade.options.request_id,
                fleeting: false,
            };
            let answer = self.record_upgrade(&terms, Some(upgrade.lock))?;
            // Waiters whom the old mode let pass, if only something else were free, may wait for
            // this session from now on.
            self.break_cycles(session, Closing::Granted);
            return Ok(Some(answer));
        }
        let wants = [(resource, LockMode::Exclusive)];
        if self.wait_ms(upgrade.options.wait) == 0 {
            let obstacles = self.state.obstacles(session, place, &wants);
            return Err(Refusal::Busy { obstacles });
        }
        self.check_room(session, &[entry])?;
        Ok(None)
    }

    fn queue_upgrade(&mut self, call: CallId, upgrade: Upgrade) {
        let (Some(hold), Ok(ticket)) = (self.state.hold(upgrade.lock), self.next_ticket()) else {
            return self.reply(call, Err(Refusal::Exhausted));
        };
        let hold = &self.state.holds[hold];
        let resource = self.state.entries[hold.entry].resource.clone();
        let own_priority = self.state.sessions[hold.session].priority;
        let options = upgrade.options;
        let queued = Queued {
            ticket,
            session: upgrade.session,
            wants: vec![(resource, LockMode::Exclusive)],
            built_on: vec![upgrade.lock],
            upgrade: true,
            wait_until: crate::Timestamp(self.now.0.saturating_add(self.wait_ms(options.wait))),
            lease_ms: hold.lease_ms,
            priority: options.priority.unwrap_or(own_priority).clamp(-10, 10),
            reason: options.reason,
            metadata: options.metadata,
            request_id: options.request_id,
        };
        self.park(call, queued, options.slice);
    }

    pub(super) fn downgrade(&mut self, downgrade: Downgrade) -> Result<Answer, Refusal> {
        if let Some(answer) =
            self.repeated(downgrade.session, Verb::Downgrade, downgrade.request_id)?
        {
            return answer;
        }
        let at = self.authorize(Credential::Session(downgrade.session), downgrade.lock)?;
        self.check_not_revoking(at)?;
        let hold = &self.state.holds[at];
        let (entry, old, new) = (hold.entry, hold.mode, downgrade.mode);
        let resource = self.state.entries[entry].resource.clone();
        if old == new {
            return Ok(Answer::Changed(self.state.grant_of(at).into()));
        }
        if !old.covers(new) || new == LockMode::Permit(0) {
            let capacity = self.state.entries[entry].slots.as_ref().map(|slots| slots.total);
            return Err(Refusal::WrongMode { resource, mode: new, capacity });
        }
        // Out of Exclusive a new generation begins: whatever was sent before it is outdated.
        let token = match old {
            LockMode::Exclusive => self.next_token()?,
            _ => hold.token,
        };
        let ticket = hold.ticket;
        let (lock, request_id) = (downgrade.lock, downgrade.request_id);
        // An upgrade of the same hold that still waits contradicts this; the later word counts.
        let mut freed = self.end_what_builds_on(at);
        self.record(Fact::Converted { lock, ticket, mode: new, token, request_id });
        freed.push(resource);
        let answer = Answer::Changed(self.state.grant_of(at).into());
        self.rescan(freed);
        Ok(answer)
    }

    pub(super) fn declare_wait(&mut self, declare: DeclareWait) -> Result<Answer, Refusal> {
        let from = self.session(declare.session)?;
        let unknown = Refusal::Unknown(Subject::Session(declare.on));
        let to = self.state.session(declare.on).ok_or(unknown.clone())?;
        if from == to {
            return Err(unknown);
        }
        if self.state.graph.has_declared(from, to) {
            return Ok(Answer::WaitDeclared);
        }
        let limit = self.config.limits.waits_per_session_max;
        self.within(Limit::WaitsPerSession, self.state.waits_of(from) + 1, limit)?;
        let birth = match self.state.sessions[from].birth {
            Some(_) => None,
            None => Some(self.next_ticket()?),
        };
        self.record(Fact::WaitDeclared { session: declare.session, on: declare.on, birth });
        match self.break_cycles(from, Closing::Declared(declare.on)) {
            Some(report) => Err(Refusal::Deadlock(report)),
            None => Ok(Answer::WaitDeclared),
        }
    }

    pub(super) fn withdraw_wait(&mut self, withdraw: WithdrawWait) -> Result<Answer, Refusal> {
        let from = self.session(withdraw.session)?;
        let to = self.state.session(withdraw.on);
        match to.filter(|&to| self.state.graph.has_declared(from, to)) {
            None => Err(Refusal::Unknown(Subject::DeclaredWait)),
            Some(_) => {
                self.record(Fact::WaitWithdrawn { session: withdraw.session, on: withdraw.on });
                Ok(Answer::WaitWithdrawn)
            }
        }
    }

    pub(super) fn declare_capacity(&mut self, declare: DeclareCapacity) -> Result<Answer, Refusal> {
        let DeclareCapacity { resource, capacity } = declare;
        let limits = &self.config.limits;
        if let Some(problem) = resource.problem(limits.key_bytes_max) {
            let resource = resource.as_str().chars().take(256).collect();
            return Err(Refusal::InvalidResource { resource, problem });
        }
        if capacity == Some(0) {
            return Err(Refusal::OverCapacity { resource, asked: 0, capacity: 0 });
        }
        let slots = capacity.unwrap_or(0);
        self.within(Limit::Slots, slots as usize, limits.slots_max as usize)?;
        let entry = self.state.entry(&resource);
        let old = entry.and_then(|entry| self.state.entries[entry].slots.as_ref());
        let old = old.map(|slots| slots.total);
        if old == capacity {
            return Ok(Answer::CapacityDeclared { capacity });
        }
        if old.is_none() {
            self.within(Limit::Capacities, self.state.capacities + 1, limits.capacities_max)?;
        }
        if let Some(at) = entry {
            let entry = &self.state.entries[at];
            let is_of_another_kind = old.is_none() || capacity.is_none();
            let (holds, waits) = (entry.holders.len(), entry.queue.len());
            if is_of_another_kind && holds + waits > 0 {
                return Err(Refusal::InUse { resource, holds, waits });
            }
        }
        self.change_capacity(resource, capacity, old);
        Ok(Answer::CapacityDeclared { capacity })
    }

    fn change_capacity(
        &mut self,
        resource: crate::Resource,
        capacity: Option<u32>,
        old: Option<u32>,
    ) {
        let mut freed = vec![resource.clone()];
        self.record(Fact::CapacityDeclared { resource: resource.clone(), capacity });
        let Some(entry) = self.state.entry(&resource) else { return };
        for ticket in self.state.asking_for_more_than(entry, capacity.unwrap_or(0)) {
            freed.extend(self.leave(ticket, LeaveCause::CapacityShrunk));
        }
        self.rescan(freed);
        if capacity < old {
            self.break_cycles_of_waiters(&resource);
        }
    }

    /// A smaller capacity may turn harmless waits into a deadlock, whoever asked for them.
    fn break_cycles_of_waiters(&mut self, resource: &crate::Resource) {
        let Some(entry) = self.state.entry(resource) else { return };
        let waiters: Vec<crate::SessionId> = self.state.entries[entry]
            .queue
            .iter()
            .map(|(_, queuer)| self.state.sessions[queuer.session].id)
            .collect();
        for waiter in waiters {
            if let Some(session) = self.state.session(waiter) {
                self.break_cycles(session, Closing::Shrunk);
            }
        }
    }

    fn check_not_revoking(&self, at: HoldAt) -> Result<(), Refusal> {
        let hold = &self.state.holds[at];
        match hold.revoked_at {
            Some(until) => Err(Refusal::Revoking { lock: hold.id, until }),
            None => Ok(()),
        }
    }
}

impl super::state::State {
    fn asking_for_more_than(&self, entry: EntryAt, capacity: u32) -> Vec<TicketAt> {
        let queue = self.entries[entry].queue.iter();
        queue
            .map(|(_, queuer)| queuer)
            .filter(|queuer| queuer.mode.class() == Class::Permit)
            .filter(|queuer| queuer.mode.permits() > capacity)
            .map(|queuer| queuer.ticket)
            .collect()
    }

    /// How many waits a session has, the declared ones included.
    pub(super) fn waits_of(&self, session: SessionAt) -> usize {
        self.sessions[session].tickets.len() + self.sessions[session].declared
    }
}
