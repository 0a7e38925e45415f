//! What a command is due to do, decided on the model's own lists.

use super::{
    follow::Walk,
    owed::{Expect, Fresh},
    rules::permits,
    state::{Hold, Wait},
};
use lockkeeper_core::{
    Answer, Command, DeclareCapacity, DeclareWait, EndCause, EndSession, ForceUnlock, LeaveCause,
    OpenSession, ReleaseAll, ReleaseCause, Resume, SessionId, SessionKind, TicketId, WithdrawWait,
};

/// What the command's own call is told in this turn; `None` while it waits.
pub(super) type Due = Option<Expect>;

pub(super) fn refused(code: &'static str) -> Due {
    Some(Expect::Refused(code))
}

pub(super) fn said(answer: Answer) -> Due {
    Some(Expect::Said(answer))
}

impl Walk<'_> {
    /// Decides the command: what becomes owed, and what its call is told at once.
    pub(super) fn decide(&mut self) {
        let due = match self.command {
            Command::OpenSession(open) => self.open(open),
            Command::EndSession(end) => self.end(*end),
            Command::Acquire(ask) => {
                let wants = [(ask.resource.clone(), ask.mode)];
                self.acquire(ask.session, &wants, &ask.options)
            }
            Command::AcquireAll(ask) => self.acquire(ask.session, &ask.wants, &ask.options),
            Command::Wait(wait) => self.wait(wait.session, wait.ticket, wait.slice),
            Command::Cancel(cancel) => self.cancel(*cancel),
            Command::Release(release) => self.release(*release),
            Command::Renew(renew) => self.renew(*renew),
            Command::Upgrade(upgrade) => self.upgrade(upgrade),
            Command::Downgrade(downgrade) => self.downgrade(*downgrade),
            Command::DeclareWait(declare) => self.declare(*declare),
            Command::WithdrawWait(withdraw) => self.withdraw(*withdraw),
            Command::ForceUnlock(force) => self.force(force),
            Command::ReleaseAll(release) => self.release_all(release),
            Command::DeclareCapacity(declare) => self.capacity(declare),
            Command::Tick => said(Answer::Ticked),
            Command::Resume(resume) => self.resume(*resume),
            Command::ClaimTasks(claim) => self.claim(claim),
            Command::FinishTask(finish) => self.finish(*finish),
            Command::ReopenTask(reopen) => self.reopen(reopen),
            Command::ForgetTask(forget) => self.forget(forget),
        };
        if let Some(expect) = due {
            self.replies.insert(self.call, expect);
        }
    }

    fn open(&mut self, open: &OpenSession) -> Due {
        let limits = &self.model.rules.limits;
        let full = self.model.sessions.len() >= limits.sessions_max;
        if full || open.agent.len() > limits.text_bytes_max {
            return refused("limit_reached");
        }
        let newest = TicketId::new(self.model.epoch, u32::MAX);
        self.owed.fresh.push_back(Fresh::Open {
            agent: open.agent.clone(),
            kind: open.kind,
            priority: open.priority.clamp(-10, 10),
            birth: open.lineage.map(|lineage| lineage.birth.min(newest)),
            aborts: open.lineage.map_or(0, |lineage| lineage.aborts),
        });
        Some(Expect::Opened)
    }

    /// Everything gets its full time again; whoever died with the process leaves all it had.
    fn resume(&mut self, resume: Resume) -> Due {
        let (holds, tickets) = (self.model.holds.len(), self.model.waits.len());
        let poll_by = self.model.now.after(self.model.rules.ticket_grace);
        self.owed.fresh.push_back(Fresh::Resume(poll_by));
        for wait in self.model.waits.values().filter(|wait| wait.call.is_some()) {
            self.owed.fresh.push_back(Fresh::Unpoll(wait.ticket));
        }
        let dies = |kind| resume.orphaned && kind == SessionKind::Attached;
        let (mut ended, mut released) = (0, 0);
        for (id, _) in self.model.sessions.iter().filter(|(_, one)| dies(one.kind)) {
            let cause = EndCause::OwnerDied;
            self.owed.leave_all(self.model.session_waits(*id), &LeaveCause::SessionEnded);
            let holds = self.model.session_holds(*id);
            released += self.owed.free_all(holds, &ReleaseCause::SessionEnded(cause));
            self.owed.end.insert(*id, cause);
            ended += 1;
        }
        said(Answer::Resumed { holds, tickets, ended, released })
    }

    fn end(&mut self, end: EndSession) -> Due {
        if !self.model.sessions.contains_key(&end.session) {
            return refused("session_ended");
        }
        let waits = self.model.session_waits(end.session);
        let left = self.owed.leave_all(waits, &LeaveCause::SessionEnded);
        let holds = self.model.session_holds(end.session);
        let released = self.owed.free_all(holds, &ReleaseCause::SessionEnded(end.cause));
        self.owed.end.insert(end.session, end.cause);
        said(Answer::SessionEnded { released, left })
    }

    pub(super) fn waits(&self, session: SessionId) -> usize {
        let declared = self.model.sessions.get(&session).map_or(0, |one| one.declared.len());
        self.model.session_waits(session).count() + declared
    }

    fn declare(&mut self, declare: DeclareWait) -> Due {
        let DeclareWait { session, on } = declare;
        if !self.model.sessions.contains_key(&session) {
            return refused("session_ended");
        }
        if on == session || !self.model.sessions.contains_key(&on) {
            return refused("unknown");
        }
        if self.model.sessions[&session].declared.contains(&on) {
            return said(Answer::WaitDeclared);
        }
        if self.waits(session) >= self.model.rules.limits.waits_per_session_max {
            return refused("limit_reached");
        }
        self.owed.fresh.push_back(Fresh::Declare { session, on });
        said(Answer::WaitDeclared)
    }

    fn withdraw(&mut self, withdraw: WithdrawWait) -> Due {
        let Some(session) = self.model.sessions.get(&withdraw.session) else {
            return refused("session_ended");
        };
        if !session.declared.contains(&withdraw.on) {
            return refused("unknown");
        }
        self.owed.withdraw.insert((withdraw.session, withdraw.on));
        said(Answer::WaitWithdrawn)
    }

    fn force(&mut self, force: &ForceUnlock) -> Due {
        let limits = self.model.rules.limits;
        if force.resource.problem(limits.key_bytes_max).is_some() {
            return refused("invalid_resource");
        }
        let mut held: Vec<&Hold> = self.model.holds_of(&force.resource).collect();
        if held.is_empty() {
            return refused("unknown");
        }
        let max = limits.text_bytes_max;
        if force.admin.len() > max || force.reason.len() > max {
            return refused("limit_reached");
        }
        held.sort_by_key(|hold| (hold.granted_at, hold.lock));
        let previous = held.iter().map(|hold| self.model.holder(hold)).collect();
        let (admin, reason) = (force.admin.clone(), force.reason.clone());
        let cause = ReleaseCause::Forced { admin, reason };
        self.owed.free_all(held.into_iter(), &cause);
        said(Answer::ForceUnlocked { previous })
    }

    fn release_all(&mut self, release: &ReleaseAll) -> Due {
        let (mut released, mut left) = (0, 0);
        for (id, session) in &self.model.sessions {
            if session.agent == release.agent {
                let waits = self.model.session_waits(*id);
                left += self.owed.leave_all(waits, &LeaveCause::ReleasedAll);
                let holds = self.model.session_holds(*id);
                released += self.owed.free_all(holds, &ReleaseCause::ReleasedAll);
            }
        }
        said(Answer::AllReleased { released, left })
    }

    fn capacity(&mut self, declare: &DeclareCapacity) -> Due {
        let DeclareCapacity { resource, capacity } = declare;
        let limits = self.model.rules.limits;
        if resource.problem(limits.key_bytes_max).is_some() {
            return refused("invalid_resource");
        }
        let had = self.model.capacities.get(resource).copied();
        let queue = self.model.queue_of(resource);
        let used = self.model.holds_of(resource).next().is_some() || !queue.is_empty();
        match (capacity, had) {
            (Some(0), _) => return refused("over_capacity"),
            (Some(slots), _) if *slots > limits.slots_max => return refused("limit_reached"),
            _ if *capacity == had => {
                return said(Answer::CapacityDeclared { capacity: *capacity });
            }
            (Some(_), None) if self.model.capacities.len() >= limits.capacities_max => {
                return refused("limit_reached");
            }
            (Some(_), None) | (None, Some(_)) if used => return refused("in_use"),
            _ => {}
        }
        if let Some(slots) = capacity {
            let too_much =
                |wait: &&Wait| wait.mode_for(resource).is_some_and(|mode| permits(mode) > *slots);
            let leaving = queue.into_iter().filter(too_much);
            self.owed.leave_all(leaving, &LeaveCause::CapacityShrunk);
        }
        self.owed
            .fresh
            .push_back(Fresh::Capacity { resource: resource.clone(), capacity: *capacity });
        said(Answer::CapacityDeclared { capacity: *capacity })
    }
}
