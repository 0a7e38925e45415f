//! A history that a person can read: a line a command, and what came of it.

use crate::{Turn, Violation};
use lockkeeper_core::{
    Answer, AskOptions, CancelTarget, Command, Credential, Fact, LockId, Record, Refusal, Resource,
    SessionId, Timestamp,
};
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

/// The lines so far, and the names for the numbers in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) text: String,
    agents: BTreeMap<SessionId, Arc<str>>,
    locks: BTreeMap<LockId, Resource>,
}

impl Transcript {
    pub(crate) fn crash(&mut self) {
        self.text.push_str("           the coordinator crashes and recovers\n");
    }

    /// Adds a command with its outcome.
    pub(crate) fn command(
        &mut self,
        now: Timestamp,
        command: &Command,
        outcome: Result<&Turn, &Violation>,
        records: &[Record],
    ) {
        for record in records {
            match &record.fact {
                Fact::SessionOpened { session, agent, .. } => {
                    self.agents.insert(*session, agent.clone());
                }
                Fact::Granted(granted) => {
                    self.locks.insert(granted.lock, granted.resource.clone());
                }
                _ => {}
            }
        }
        let what = self.describe(command);
        let came = match outcome {
            Ok(turn) => {
                let own = turn.replies.iter().find(|reply| reply.call == turn.call);
                own.map_or_else(|| "waits".to_owned(), |reply| self.told(&reply.outcome))
            }
            Err(violation) => format!("BROKEN {:?}", violation.invariant),
        };
        // Writing to a String cannot fail.
        _ = writeln!(self.text, "{:>10} {what:<70} -> {came}", now.0);
        for record in records {
            if let Some(line) = self.fact(&record.fact) {
                _ = writeln!(self.text, "{:>14} {line}", "");
            }
        }
    }

    fn who(&self, session: SessionId) -> String {
        match self.agents.get(&session) {
            Some(agent) => format!("{agent}#{}", session.get() & 0xffff_ffff),
            None => format!("unknown session {session}"),
        }
    }

    fn what(&self, lock: LockId) -> String {
        match self.locks.get(&lock) {
            Some(resource) => format!("its hold of {resource}"),
            None => format!("unknown hold {lock}"),
        }
    }

    fn bearer(&self, by: Credential) -> String {
        match by {
            Credential::Session(session) => self.who(session),
            Credential::Token(token) => format!("bearer of token {token}"),
        }
    }

    fn describe(&self, command: &Command) -> String {
        let who = |session: SessionId| self.who(session);
        match command {
            Command::OpenSession(open) => format!(
                "{} opens a session ({:?}, priority {}, {:?})",
                open.agent, open.kind, open.priority, open.lineage
            ),
            Command::EndSession(end) => format!("{} ends: {:?}", who(end.session), end.cause),
            Command::Acquire(ask) => {
                let asked = options(&ask.options);
                format!("{} asks for {} {}{asked}", who(ask.session), ask.mode, ask.resource)
            }
            Command::AcquireAll(ask) => {
                let wants = ask.wants.iter().map(|(what, mode)| format!("{mode} {what}"));
                let wants: Vec<String> = wants.collect();
                let asked = options(&ask.options);
                format!("{} asks for all of [{}]{asked}", who(ask.session), wants.join(", "))
            }
            Command::Wait(wait) => {
                format!("{} waits on ticket {}, {:?}", who(wait.session), wait.ticket, wait.slice)
            }
            Command::Cancel(cancel) => match cancel.target {
                CancelTarget::Ticket(ticket) => {
                    format!("{} takes ticket {ticket} back", who(cancel.session))
                }
                CancelTarget::Request(request) => {
                    format!("{} takes request {request} back", who(cancel.session))
                }
            },
            Command::Release(release) => {
                let share = release.share.map(|share| format!("share {share} of "));
                let (who, what) = (self.bearer(release.by), self.what(release.lock));
                format!("{who} releases {}{what}", share.unwrap_or_default())
            }
            Command::Renew(renew) => format!(
                "{} renews {} for {:?}",
                self.bearer(renew.by),
                self.what(renew.lock),
                renew.lease
            ),
            Command::Upgrade(upgrade) => {
                let asked = options(&upgrade.options);
                format!("{} upgrades {}{asked}", who(upgrade.session), self.what(upgrade.lock))
            }
            Command::Downgrade(down) => {
                format!("{} turns {} to {}", who(down.session), self.what(down.lock), down.mode)
            }
            Command::DeclareWait(declare) => {
                format!("{} declares to wait for {}", who(declare.session), who(declare.on))
            }
            Command::WithdrawWait(withdraw) => {
                format!("{} waits no more for {}", who(withdraw.session), who(withdraw.on))
            }
            Command::ForceUnlock(force) => format!("{} unlocks {}", force.admin, force.resource),
            Command::ReleaseAll(release) => format!("everything of {} is released", release.agent),
            Command::DeclareCapacity(declare) => {
                format!("{} has capacity {:?}", declare.resource, declare.capacity)
            }
            Command::Resume(resume) => match resume.orphaned {
                true => "the table resumes, all connections are dead".to_owned(),
                false => "the table resumes".to_owned(),
            },
            Command::Tick => "time passes".to_owned(),
            Command::ClaimTasks(claim) => {
                let seen = |version: Option<u64>| version.map(|v| format!(" at version {v}"));
                let claims = claim.claims.iter().map(|claim| {
                    format!("{}{}", claim.task, seen(claim.expect_version).unwrap_or_default())
                });
                let claims: Vec<String> = claims.collect();
                let asked = options(&claim.options);
                format!("{} claims [{}]{asked}", who(claim.session), claims.join(", "))
            }
            Command::FinishTask(finish) => {
                let (who, what) = (self.bearer(finish.by), self.what(finish.lock));
                let how = if finish.done { "is done with" } else { "gives back" };
                format!("{who} {how} {what}, seen at {:?}", finish.expect_version)
            }
            Command::ReopenTask(reopen) => {
                format!("{} is opened again, seen at {:?}", reopen.task, reopen.expect_version)
            }
            Command::ForgetTask(forget) => format!("{} is forgotten", forget.task),
        }
    }

    fn told(&self, outcome: &Result<Answer, Refusal>) -> String {
        match outcome {
            Ok(Answer::Granted(grants)) => {
                let tokens = grants.iter().map(|grant| {
                    format!("{} token {} x{}", grant.resource, grant.token, grant.count)
                });
                format!("granted {}", tokens.collect::<Vec<_>>().join(", "))
            }
            Ok(Answer::Changed(grant)) => format!("{} now, token {}", grant.mode, grant.token),
            Ok(Answer::SessionOpened { session }) => format!("session {session}"),
            Ok(answer) => format!("{answer:?}"),
            Err(refusal) => format!("refused: {}", refusal.code()),
        }
    }

    /// What else happened, as far as it is no echo of the answer.
    fn fact(&self, fact: &Fact) -> Option<String> {
        Some(match fact {
            Fact::Queued(queued) => format!("queued as {}", queued.ticket),
            Fact::Granted(granted) => format!(
                "granted: {} {} to {}, ticket {}, token {}, until {}",
                granted.mode,
                granted.resource,
                self.who(granted.session),
                granted.ticket,
                granted.token,
                granted.expires_at.0
            ),
            Fact::Left { ticket, session, cause } => {
                format!("ticket {ticket} of {} leaves: {cause:?}", self.who(*session))
            }
            Fact::Released { lock, remaining, cause, .. } => {
                format!("{} counted down to {remaining}: {cause:?}", self.what(*lock))
            }
            Fact::DeadlockFound(report) => report.to_string(),
            Fact::RevocationSet { lock, until, .. } => {
                format!("{} is revoked until {}", self.what(*lock), until.0)
            }
            Fact::SessionEnded { session, cause, .. } => {
                format!("{} has ended: {cause:?}", self.who(*session))
            }
            Fact::TaskMoved { task, .. } => {
                format!("{} is {} at version {}", task.resource, task.status, task.version)
            }
            Fact::PollSet { ticket, poll_by } => format!("ticket {ticket}: poll by {poll_by:?}"),
            _ => return None,
        })
    }
}

fn options(options: &AskOptions) -> String {
    let mut text = String::new();
    if let Some(wait) = options.wait {
        _ = write!(text, ", wait {wait:?}");
    }
    if let Some(slice) = options.slice {
        _ = write!(text, ", slice {slice:?}");
    }
    if let Some(lease) = options.lease {
        _ = write!(text, ", lease {lease:?}");
    }
    if options.reentrant {
        text.push_str(", reentrant");
    }
    if let Some(request) = options.request_id {
        _ = write!(text, ", request {request}");
    }
    text
}
