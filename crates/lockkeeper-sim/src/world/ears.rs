//! What an agent learns from the answers it gets, and what it forgets.

use super::agent::{Agent, request_of};
use lockkeeper_core::{Answer, CallId, Command, Grant, Lineage, LockId, Refusal};

impl Agent {
    /// A call was made.
    pub(crate) fn called(&mut self, call: CallId, command: &Command) {
        self.calls.insert(call, command.clone());
    }

    /// A call was answered.
    pub(crate) fn hear(&mut self, call: CallId, outcome: &Result<Answer, Refusal>) {
        let Some(command) = self.calls.remove(&call) else { return };
        match outcome {
            Ok(Answer::SessionOpened { session }) => self.session = Some(*session),
            Ok(Answer::SessionEnded { .. }) => self.forget_session(),
            Ok(Answer::Granted(grants)) => {
                for grant in grants {
                    self.learn(grant);
                }
            }
            Ok(Answer::TasksClaimed(claimed)) => {
                for one in claimed {
                    self.seen.insert(one.task.resource.clone(), one.task.version);
                    self.learn(&one.grant);
                }
            }
            Ok(Answer::TaskMoved(task)) => {
                self.seen.insert(task.resource.clone(), task.version);
                if let Command::FinishTask(finish) = command {
                    self.lose(finish.lock);
                }
            }
            Ok(Answer::Changed(grant)) => self.learn(grant),
            Ok(Answer::Released { lock, remaining: 0 }) => self.lose(*lock),
            Ok(Answer::Queued { ticket, .. }) => self.tickets.push(*ticket),
            Ok(Answer::WaitDeclared) => {
                if let Command::DeclareWait(declare) = command {
                    self.declared.push(declare.on);
                }
            }
            Ok(_) => {}
            Err(Refusal::SessionEnded { session }) if self.session == Some(*session) => {
                self.forget_session();
            }
            Err(Refusal::ClaimFailed { failed }) => {
                self.seen
                    .extend(failed.iter().map(|one| (one.task.resource.clone(), one.task.version)));
            }
            Err(Refusal::VersionMismatch { task, .. }) => {
                self.seen.insert(task.resource.clone(), task.version);
            }
            Err(Refusal::NotHolder { lock, .. } | Refusal::StaleToken { lock }) => self.lose(*lock),
            Err(Refusal::Revoking { lock, .. }) => self.lose(*lock),
            Err(Refusal::Deadlock(report)) => {
                let own = report.victim().filter(|one| Some(one.rank.session) == self.session);
                self.lineage =
                    own.map(|one| Lineage { birth: one.rank.birth, aborts: one.rank.aborts + 1 });
            }
            Err(_) => {}
        }
    }

    /// A hold is over, and the guard was told.
    pub(crate) fn lose(&mut self, lock: LockId) {
        if let Some(at) = self.holds.iter().position(|grant| grant.lock == lock) {
            let grant = self.holds.swap_remove(at);
            self.past.push(grant);
            if self.past.len() > 6 {
                self.past.remove(0);
            }
        }
    }

    fn learn(&mut self, grant: &Grant) {
        match self.holds.iter_mut().find(|known| known.lock == grant.lock) {
            Some(known) => {
                let old = std::mem::replace(known, grant.clone());
                self.past.push(old);
            }
            None => self.holds.push(grant.clone()),
        }
    }

    /// The coordinator crashed: no call will ever be answered.
    pub(crate) fn coordinator_crashed(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        let again = calls.into_values().filter(|command| request_of(command).is_some());
        self.lost.extend(again);
    }

    pub(crate) fn forget_session(&mut self) {
        self.session = None;
        self.past.append(&mut self.holds);
        self.past.truncate(6);
        self.lost.clear();
        self.tickets.clear();
        self.made.clear();
        self.declared.clear();
    }
}
