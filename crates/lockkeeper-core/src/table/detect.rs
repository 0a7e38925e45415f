//! Deadlocks: seen at the very request that closes a cycle, and broken in the same turn.
//!
//! All edges that a request adds touch its session, so one search from there sees every new cycle;
//! and if nobody waits for that session, there is none. A cycle of definite edges is a deadlock.
//! One that needs a permit edge is only a suspicion, which [`super::reduce`] confirms or clears.
//!
//! One request may close several cycles, so this loops until its session is on none. Each round
//! takes away an edge of the cycle it found: the wait of the victim, or the hold others wait for.

use super::{
    LockTable,
    cycle::{Deadlock, Step},
    state::State,
};
use crate::{
    Candidate, DeadlockReport, EdgeKind, Fact, Held, LeaveCause, LockId, LockMode, Participant,
    ReleaseCause, Resource, SessionId, TicketId, Work,
    graph::Why,
    mode::ClassSet,
    places::{EntryAt, HoldAt, SessionAt},
    victim,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What may have closed a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// A request that queued.
    Queued(TicketId),
    /// A declared wait for this session.
    Declared(SessionId),
    /// A request that was granted, at once or by an earlier verdict.
    Granted,
    /// A capacity that shrank.
    Shrunk,
}

impl LockTable {
    /// Breaks every deadlock that the session is on. The report, if the closing request itself was
    /// sacrificed.
    pub(super) fn break_cycles(
        &mut self,
        requester: SessionAt,
        closing: Closing,
    ) -> Option<Arc<DeadlockReport>> {
        let id = self.state.sessions[requester].id;
        while self.state.session(id) == Some(requester)
            && let Some(deadlock) = self.state.find_deadlock(requester)
        {
            let closing = self.state.still(closing);
            let Some((report, victim)) = self.judge(&deadlock, closing) else {
                // Declared waits alone, that no request of a table would have let in: only a
                // journal can have brought them, and nothing can be taken from them.
                return None;
            };
            let was_requester = victim == 0;
            self.sacrifice(&deadlock, victim, &report, closing);
            if was_requester && matches!(closing, Closing::Queued(_) | Closing::Declared(_)) {
                return Some(report);
            }
        }
        None
    }

    /// Names the victim and tells the whole story. The requester is participant 0. None if
    /// nobody's sacrifice would help.
    fn judge(&self, deadlock: &Deadlock, closing: Closing) -> Option<(Arc<DeadlockReport>, usize)> {
        let steps = &deadlock.steps;
        let mut wanted = self.state.wanted_holds(steps);
        let bystanders = self.state.bystanders(deadlock);
        let participants: Vec<Participant> = (0..steps.len())
            .map(|at| {
                let holds = wanted.remove(&steps[at].session).unwrap_or_default();
                self.participant(steps, at, closing, holds, bystanders[at])
            })
            .collect();
        let policy = &*self.config.victim_policy;
        let victim = match self.is_second_upgrade(closing) {
            true => 0,
            false => {
                let eligible: Vec<usize> =
                    (0..steps.len()).filter(|&at| participants[at].eligible).collect();
                let ranks: Vec<Candidate> =
                    eligible.iter().map(|&at| participants[at].rank.clone()).collect();
                eligible[victim::choose(policy, &ranks)?]
            }
        };
        let resource = self.closing_resource(steps, closing);
        let freed = participants[victim].holds.iter().map(|held| held.lock).collect();
        let report = DeadlockReport {
            at: self.now,
            resource,
            requester: participants[0].rank.session,
            victim: participants[victim].rank.session,
            policy: policy.name().to_owned(),
            freed,
            reduced: deadlock.reduced,
            participants,
        };
        Some((Arc::new(report), victim))
    }

    /// What the closing request asked for; for anything else the first resource on the cycle.
    fn closing_resource(&self, steps: &[Step], closing: Closing) -> Option<Resource> {
        let first_on_cycle = || steps.iter().find_map(|step| step.why.resource());
        let entry = match closing {
            Closing::Queued(id) if steps[0].why.ticket() != Some(id) => self
                .state
                .ticket(id)
                .and_then(|at| self.state.tickets[at].wants.first())
                .map(|want| want.entry),
            _ => first_on_cycle(),
        };
        entry.map(|entry| self.state.entries[entry].resource.clone())
    }

    fn participant(
        &self,
        steps: &[Step],
        at: usize,
        closing: Closing,
        holds: BTreeSet<(LockId, HoldAt)>,
        is_bystander: bool,
    ) -> Participant {
        let state = &self.state;
        let Step { session, why } = steps[at];
        let next = steps[(at + 1) % steps.len()].session;
        let before = &steps[(at + steps.len() - 1) % steps.len()].why;
        let ticket = why.ticket().and_then(|ticket| state.ticket(ticket));
        let ticket = ticket.map(|ticket| &state.tickets[ticket]);
        let want = ticket
            .and_then(|ticket| ticket.wants.iter().find(|want| Some(want.entry) == why.resource()));
        let asked_now = at == 0 && matches!(closing, Closing::Queued(_) | Closing::Declared(_));
        let can_lose_wait = why != Why::Declared && !is_bystander;
        let can_lose_hold = before.blocker().is_some_and(|blocker| state.ticket(blocker).is_none());
        Participant {
            rank: self.candidate(session, at == 0),
            waits_for: state.sessions[next].id,
            edge: state.kind_of(&why),
            resource: why.resource().map(|entry| state.entries[entry].resource.clone()),
            mode: want.map(|want| want.mode),
            ticket: why.ticket(),
            waiting_ms: ticket.map_or(0, |ticket| self.now.since(ticket.queued_at)),
            holds: holds.into_iter().map(|(_, hold)| self.held(hold)).collect(),
            holds_total: state.sessions[session].holds.len(),
            eligible: asked_now || can_lose_wait || can_lose_hold,
        }
    }

    fn candidate(&self, at: SessionAt, is_requester: bool) -> Candidate {
        let session = &self.state.sessions[at];
        let waiting = session.tickets.places().map(|at| self.state.tickets[at].priority);
        let oldest = session.holds.iter().map(|&hold| self.state.holds[hold].granted_at).min();
        Candidate {
            session: session.id,
            agent: session.agent.clone(),
            priority: waiting.max().unwrap_or(session.priority),
            shielded: session.aborts >= self.config.shield_after,
            aborts: session.aborts,
            work: Work::of(session.holds.len(), oldest.map_or(0, |oldest| self.now.since(oldest))),
            // Whoever waits has begun its work; for anybody else the session's age will do.
            birth: session.birth.unwrap_or(TicketId::from_u64(session.id.get())),
            is_requester,
        }
    }

    fn held(&self, at: HoldAt) -> Held {
        let hold = &self.state.holds[at];
        Held {
            lock: hold.id,
            resource: self.state.entries[hold.entry].resource.clone(),
            mode: hold.mode,
            token: hold.token,
            age_ms: self.now.since(hold.granted_at),
        }
    }

    /// Ends the victim's wait, takes from it what others on the cycle wait for, and hands it over.
    fn sacrifice(
        &mut self,
        deadlock: &Deadlock,
        victim: usize,
        report: &Arc<DeadlockReport>,
        closing: Closing,
    ) {
        let step = deadlock.steps[victim];
        let id = self.state.sessions[step.session].id;
        self.record(Fact::DeadlockFound(report.clone()));
        let mut freed = Vec::new();
        match closing {
            Closing::Declared(on) if victim == 0 => {
                self.record(Fact::WaitWithdrawn { session: id, on });
            }
            _ => {
                let asked_now = match closing {
                    Closing::Queued(ticket) if victim == 0 => Some(ticket),
                    _ => step.why.ticket(),
                };
                if let Some(ticket) = asked_now.and_then(|ticket| self.state.ticket(ticket)) {
                    freed.extend(self.leave(ticket, LeaveCause::Deadlock));
                }
            }
        }
        for &lock in &report.freed {
            if let Some(hold) = self.state.hold(lock) {
                freed.extend(self.revoke(hold));
            }
        }
        self.rescan(freed);
    }

    /// Ends a hold by force: now, or after the grace in which its guard may clean up.
    fn revoke(&mut self, at: HoldAt) -> Vec<Resource> {
        if self.config.grace.is_zero() {
            return self.end_hold(at, ReleaseCause::Deadlock);
        }
        let freed = self.end_what_builds_on(at);
        let hold = &self.state.holds[at];
        let until = self.now.after(self.config.grace).min(hold.expires_at);
        self.record(Fact::RevocationSet { lock: hold.id, until });
        freed
    }

    /// Two who turn their holds of one resource exclusive wait for each other for ever; the first
    /// was there first.
    fn is_second_upgrade(&self, closing: Closing) -> bool {
        let Closing::Queued(id) = closing else { return false };
        let Some(at) = self.state.ticket(id) else { return false };
        let ticket = &self.state.tickets[at];
        ticket.upgrade
            && ticket.wants.first().is_some_and(|want| {
                let queue = &self.state.entries[want.entry].queue;
                queue.any_before(ticket.place(), ClassSet::ALL)
            })
    }
}

impl State {
    /// What is left of the closing request: an earlier round may have let it in. Then it can no
    /// longer be refused, and its session is on the cycle like anybody else.
    fn still(&self, closing: Closing) -> Closing {
        match closing {
            Closing::Queued(ticket) if self.ticket(ticket).is_none() => Closing::Granted,
            closing => closing,
        }
    }

    pub(super) fn kind_of(&self, why: &Why) -> EdgeKind {
        match why {
            Why::Declared => EdgeKind::Declared,
            Why::Permit { .. } => EdgeKind::Permit,
            Why::Lock { blocker, .. } => match self.ticket(*blocker) {
                Some(_) => EdgeKind::Soft,
                None => EdgeKind::Hard,
            },
        }
    }

    /// For each member of a cycle its holds that other members wait for.
    fn wanted_holds(&self, steps: &[Step]) -> BTreeMap<SessionAt, BTreeSet<(LockId, HoldAt)>> {
        let members: BTreeSet<SessionAt> = steps.iter().map(|step| step.session).collect();
        let mut wanted: BTreeMap<SessionAt, BTreeSet<(LockId, HoldAt)>> = BTreeMap::new();
        for &member in &members {
            let tickets = self.sessions[member].tickets.places();
            for want in tickets.flat_map(|ticket| &self.tickets[ticket].wants) {
                for holder in self.members_holding(want.entry, &members) {
                    let hold = self.conflicting_hold(holder, want.entry, want.mode);
                    if let Some(hold) = hold.filter(|_| holder != member) {
                        wanted.entry(holder).or_default().insert((self.holds[hold].id, hold));
                    }
                }
            }
        }
        wanted
    }

    /// Looks for the few among the many, whichever are the few.
    fn members_holding(&self, entry: EntryAt, members: &BTreeSet<SessionAt>) -> Vec<SessionAt> {
        let holders = &self.entries[entry].holders;
        match holders.len() <= members.len() {
            true => holders
                .iter()
                .map(|(holder, _)| holder)
                .filter(|holder| members.contains(holder))
                .collect(),
            false => members.iter().copied().filter(|&one| holders.get(one).is_some()).collect(),
        }
    }

    fn conflicting_hold(
        &self,
        session: SessionAt,
        entry: EntryAt,
        wanted: LockMode,
    ) -> Option<HoldAt> {
        let at = self.own_hold(session, entry)?;
        let hold = &self.holds[at];
        (hold.revoked_at.is_none() && hold.mode.conflicts_with(wanted)).then_some(at)
    }
}
