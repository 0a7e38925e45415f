//! A deadlock the table reports: is it one, and was the right one sacrificed?

use super::{
    follow::Walk,
    graph::{Edge, Reach},
    invariant::{Checked, Invariant, ensure},
    owed::{Expect, Freed},
    rules::{clash, work},
    state::Hold,
};
use lockkeeper_core::{
    Candidate, Command, DeadlockReport, EdgeKind, Held, LeaveCause, LockId, Participant,
    ReleaseCause, SessionId, TicketId,
};
use std::sync::Arc;

impl Walk<'_> {
    /// Takes in a verdict: checks every word of it, and makes its consequences due.
    pub(super) fn verdict(&mut self, report: &Arc<DeadlockReport>) -> Checked {
        self.verdicts += 1;
        let due = self.owed.rest();
        ensure(due.is_none(), Invariant::I7, || {
            format!("a deadlock is found before {} is done", due.clone().unwrap_or_default())
        })?;
        self.check_requester(report)?;
        self.check_cycle(report)?;
        self.check_certainty(report)?;
        for at in 0..report.participants.len() {
            self.check_participant(report, at)?;
        }
        let victim = self.check_victim(report)?;
        self.consequences(report, victim);
        Ok(())
    }

    /// Who closed the cycle: whoever asked just now, or any waiter of a capacity that shrank.
    fn check_requester(&self, report: &DeadlockReport) -> Checked {
        let model = &self.model;
        let who = report.requester;
        let fits = match self.command {
            Command::DeclareCapacity(declare) => {
                model.queue_of(&declare.resource).iter().any(|wait| wait.session == who)
            }
            Command::Acquire(ask) => ask.session == who,
            Command::AcquireAll(ask) => ask.session == who,
            Command::Upgrade(upgrade) => upgrade.session == who,
            Command::DeclareWait(declare) => declare.session == who,
            _ => false,
        };
        let first = report.participants.first().map(|one| one.rank.session);
        let asked = self.asked.and_then(|ticket| model.waits.get(&ticket));
        let named = match (asked, &report.resource) {
            (Some(wait), Some(resource)) => wait.mode_for(resource).is_some(),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let right = fits && self.obeying && first == Some(who) && report.at == model.now;
        ensure(right && named, Invariant::I7, || {
            format!("{} did not close a cycle over {:?}", self.name(who), report.resource)
        })
    }

    /// Every edge of the cycle is real, in full, and nobody is on it twice.
    fn check_cycle(&self, report: &DeadlockReport) -> Checked {
        let edges = self.model.edges();
        let cycle = &report.participants;
        for (at, one) in cycle.iter().enumerate() {
            let next = cycle[(at + 1) % cycle.len()].rank.session;
            let twice = cycle[..at].iter().any(|other| other.rank.session == one.rank.session);
            let real = |edge: &Edge<'_>| {
                edge.from == one.rank.session
                    && edge.to == next
                    && edge.kind == one.edge
                    && edge.resource == one.resource.as_ref()
                    && edge.ticket == one.ticket
            };
            let fits = one.waits_for == next && !twice && edges.iter().any(real);
            ensure(fits, Invariant::I7, || {
                let (from, to) = (self.name(one.rank.session), self.name(next));
                format!("{from} does not wait for {to}: {:?} over {:?}", one.edge, one.resource)
            })?;
        }
        ensure(cycle.len() > 1, Invariant::I7, || "nobody waits for itself".to_owned())
    }

    /// A cycle of definite edges, or one through permits that no reduction dissolves.
    fn check_certainty(&self, report: &DeadlockReport) -> Checked {
        let through_permits = report.participants.iter().any(|one| one.edge == EdgeKind::Permit);
        if !report.reduced {
            return ensure(!through_permits, Invariant::I7, || {
                "a cycle through permits is taken for granted".to_owned()
            });
        }
        let stuck = self.model.irreducible();
        let all = report.participants.iter().all(|one| stuck.contains(&one.rank.session));
        ensure(all, Invariant::I7, || {
            format!("a cycle through permits is reducible, only {stuck:?} are stuck")
        })?;
        let ids: Vec<SessionId> = self.model.sessions.keys().copied().collect();
        let definite = self.model.edges();
        let definite = definite.iter().filter(|edge| edge.kind != EdgeKind::Permit);
        let (reach, _) = Reach::of(&ids, definite.map(|edge| (edge.from, edge.to)));
        let requester = ids.binary_search(&report.requester);
        let sure = requester.is_ok_and(|at| reach.has(at, at));
        ensure(!sure, Invariant::I7, || "a definite cycle was passed over".to_owned())
    }

    fn check_participant(&self, report: &DeadlockReport, at: usize) -> Checked {
        let one = &report.participants[at];
        let session = one.rank.session;
        let wait = one.ticket.and_then(|ticket| self.model.waits.get(&ticket));
        let rank = self.candidate(session, at == 0);
        let members = report.participants.iter().map(|one| one.rank.session);
        let members: Vec<SessionId> = members.collect();
        let mode = wait.zip(one.resource.as_ref()).and_then(|(wait, what)| wait.mode_for(what));
        let due = Participant {
            rank,
            waits_for: one.waits_for,
            edge: one.edge,
            resource: one.resource.clone(),
            mode,
            ticket: one.ticket,
            waiting_ms: wait.map_or(0, |wait| self.model.now.since(wait.queued_at)),
            holds: self.wanted_holds(session, &members),
            holds_total: self.model.session_holds(session).count(),
            eligible: self.is_eligible(report, at),
        };
        ensure(due == *one, Invariant::I7, || format!("due {due:?}, got {one:?}"))
    }

    /// What the victim is chosen by, computed anew.
    fn candidate(&self, id: SessionId, is_requester: bool) -> Candidate {
        let model = &*self.model;
        let session = &model.sessions[&id];
        let asked = model.session_waits(id).map(|wait| wait.priority).max();
        let oldest = model.session_holds(id).map(|hold| hold.granted_at).min();
        Candidate {
            session: id,
            agent: session.agent.clone(),
            priority: asked.unwrap_or(session.priority),
            shielded: session.aborts >= model.rules.shield_after,
            aborts: session.aborts,
            work: work(
                model.session_holds(id).count(),
                oldest.map_or(0, |oldest| model.now.since(oldest)),
            ),
            birth: session.birth.unwrap_or(TicketId::from_u64(id.get())),
            is_requester,
        }
    }

    /// The holds that others on the cycle wait for.
    fn wanted_holds(&self, session: SessionId, members: &[SessionId]) -> Vec<Held> {
        let model = &*self.model;
        let wanted = |hold: &&Hold| {
            let mut others = model
                .waits
                .values()
                .filter(|wait| wait.session != session && members.contains(&wait.session));
            let clashes =
                others.any(|w| w.mode_for(&hold.resource).is_some_and(|m| clash(m, hold.mode)));
            hold.revoked_at.is_none() && clashes
        };
        let holds = model.session_holds(session).filter(wanted);
        holds
            .map(|hold| Held {
                lock: hold.lock,
                resource: hold.resource.clone(),
                mode: hold.mode,
                token: hold.token,
                age_ms: model.now.since(hold.granted_at),
            })
            .collect()
    }

    /// The ticket of this command, unless an earlier verdict has let it in.
    fn still_asked(&self) -> Option<TicketId> {
        self.asked.filter(|ticket| self.model.waits.contains_key(ticket))
    }

    /// Whether ending its wait, or its hold, would break the cycle.
    fn is_eligible(&self, report: &DeadlockReport, at: usize) -> bool {
        let cycle = &report.participants;
        let (one, before) = (&cycle[at], &cycle[(at + cycle.len() - 1) % cycle.len()]);
        let asks_now = at == 0
            && match self.command {
                Command::DeclareWait(_) => true,
                _ => self.still_asked().is_some(),
            };
        let holds_it = self.model.session_holds(one.rank.session).any(|hold| {
            Some(&hold.resource) == before.resource.as_ref() && hold.revoked_at.is_none()
        });
        let loses_hold = match before.edge {
            EdgeKind::Hard => true,
            EdgeKind::Permit => holds_it,
            EdgeKind::Soft | EdgeKind::Declared => false,
        };
        let loses_wait = one.edge != EdgeKind::Declared && !self.is_bystander(report, at);
        asks_now || loses_wait || loses_hold
    }

    /// Whether those on the cycle who stand in one queue with it close the cycle without it. Takes
    /// it out of that queue and looks.
    fn is_bystander(&self, report: &DeadlockReport, at: usize) -> bool {
        let cycle = &report.participants;
        let before = |at: usize| (at + cycle.len() - 1) % cycle.len();
        let after = |at: usize| (at + 1) % cycle.len();
        // Waited for in a queue, and waiting in the same one.
        let between = |at: usize| {
            let (one, before) = (&cycle[at], &cycle[before(at)]);
            before.edge == EdgeKind::Soft
                && before.resource == one.resource
                && matches!(one.edge, EdgeKind::Soft | EdgeKind::Hard)
        };
        if report.reduced || !between(at) {
            return false;
        }
        let (mut first, mut last) = (before(at), after(at));
        while between(first) {
            first = before(first);
        }
        while between(last) {
            last = after(last);
        }
        let (head, end) = (cycle[first].rank.session, cycle[last].rank.session);
        if head == end {
            return false;
        }
        let (head_at, own) = (first, cycle[at].rank.session);
        let mut others = vec![end];
        while first != last {
            others.push(cycle[first].rank.session);
            first = after(first);
        }
        others.retain(|session| *session != own);
        others.sort();
        let edges = self.model.edges();
        let here = edges.iter().filter(|edge| edge.resource == cycle[at].resource.as_ref());
        let pairs: Vec<_> = here.map(|edge| (edge.from, edge.to)).collect();
        let (reach, _) = Reach::of(&others, pairs.iter().copied());
        let at_of = |session| others.binary_search(&session).unwrap_or_default();
        let closes_again = reach.has(at_of(head), at_of(end));
        // Where nobody behind them can lose anything, rather all those go who do stand in the way
        // than the head alone.
        let mut lost = cycle[before(last)].edge == EdgeKind::Hard;
        while last != head_at {
            lost |= cycle[last].edge != EdgeKind::Declared;
            last = after(last);
        }
        let is_direct = pairs.contains(&(head, end));
        let joins = pairs.contains(&(head, own)) && pairs.contains(&(own, end));
        closes_again && (is_direct || lost || !joins)
    }

    /// The right one lost: the lowest of those who could, and never the oldest of the top class.
    fn check_victim(&self, report: &DeadlockReport) -> Result<usize, super::Violation> {
        let policy = self.model.rules.policy;
        let cycle = &report.participants;
        let eligible = (0..cycle.len()).filter(|&at| cycle[at].eligible);
        let lowest =
            eligible.min_by(|&a, &b| policy.order(&cycle[a].rank, &cycle[b].rank)).unwrap_or(0);
        let due = if self.second_upgrade { 0 } else { lowest };
        let freed: Vec<LockId> = cycle[due].holds.iter().map(|held| held.lock).collect();
        let right = cycle[due].rank.session == report.victim && report.policy == policy.name();
        ensure(right, Invariant::I7, || {
            let (due, got) = (self.name(cycle[due].rank.session), self.name(report.victim));
            format!("{due} should lose by {}, but {got} lost", policy.name())
        })?;
        ensure(freed == report.freed, Invariant::I7, || {
            format!("{freed:?} should be freed, but {:?} are", report.freed)
        })?;
        Ok(due)
    }

    fn consequences(&mut self, report: &Arc<DeadlockReport>, victim: usize) {
        let loser = &report.participants[victim];
        let id = loser.rank.session;
        let model = &mut *self.model;
        if let Some(session) = model.sessions.get_mut(&id) {
            session.aborts = session.aborts.saturating_add(1);
            session.retrying = true;
        }
        let asked = self.still_asked();
        let model = &mut *self.model;
        match (self.command, asked) {
            (Command::DeclareWait(declare), _) if victim == 0 => {
                self.owed.withdraw.insert((declare.session, declare.on));
                self.replies.insert(self.call, Expect::Refused("deadlock"));
            }
            (_, asked) => {
                let asked = asked.filter(|_| victim == 0);
                if let Some(ticket) = asked.or(loser.ticket) {
                    self.owed.leave.insert(ticket, LeaveCause::Deadlock);
                }
            }
        }
        let grace = model.rules.grace;
        for lock in &report.freed {
            let Some(hold) = model.holds.get(lock) else { continue };
            if grace.is_zero() {
                let cause = ReleaseCause::Deadlock;
                let freed = Freed { remaining: 0, cause, share: None, request_id: None };
                self.owed.free.insert(*lock, freed);
            } else {
                self.owed.revoke.insert(*lock, model.now.after(grace).min(hold.expires_at));
            }
        }
    }
}
