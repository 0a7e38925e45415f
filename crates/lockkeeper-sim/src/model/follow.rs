//! Following one turn: what was due ends, the command is decided, each fact must be owed.

use super::{
    invariant::{Checked, Invariant, Violation, broken, ensure},
    owed::{Expect, Fresh, Owed, told},
    rules::Scene,
    state::Model,
};
use crate::Turn;
use lockkeeper_core::{
    CallId, Command, Event, Fact, LockId, News, Record, SessionId, Task, TicketId, Timestamp,
};
use std::collections::BTreeMap;

/// The walk along one turn.
pub(super) struct Walk<'w> {
    pub(super) model: &'w mut Model,
    pub(super) command: &'w Command,
    pub(super) call: CallId,
    pub(super) owed: Owed,
    pub(super) replies: BTreeMap<CallId, Expect>,
    pub(super) records: &'w [Record],
    /// Whether the command is being obeyed; before, only what was due may happen.
    pub(super) obeying: bool,
    /// A second upgrade of one resource: it must be refused, whatever the policy.
    pub(super) second_upgrade: bool,
    /// The ticket with which the command queued.
    pub(super) asked: Option<TicketId>,
    /// The task whose claim has just ended, as it must become at once.
    pub(super) moving: Option<Task>,
    /// How many deadlocks have been found in this turn.
    pub(super) verdicts: usize,
}

impl Model {
    /// Follows one turn of the table, and says which promise it broke, if any.
    pub fn follow(&mut self, now: Timestamp, command: &Command, turn: &Turn) -> Checked {
        self.now = self.now.max(now);
        self.turns += 1;
        let walk = Walk {
            model: self,
            command,
            call: turn.call,
            owed: Owed::default(),
            replies: BTreeMap::new(),
            records: &turn.records,
            obeying: false,
            second_upgrade: false,
            asked: None,
            moving: None,
            verdicts: 0,
        };
        let replies = walk.walk()?;
        check_replies(&replies, turn)?;
        self.check_events(turn)?;
        if !turn.records.is_empty() {
            let suspicious = self.check_rest()?;
            let queued = |record: &Record| matches!(record.fact, Fact::Queued(_));
            if suspicious && turn.records.iter().any(queued) {
                self.cleared += 1;
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    fn walk(mut self) -> Result<BTreeMap<CallId, Expect>, Violation> {
        self.model.stirred = false;
        // While nobody was there nobody could renew: what is due when a table resumes must wait.
        let resumes = matches!(self.command, Command::Resume(_));
        while !resumes && let Some((invariant, what)) = self.due() {
            let Some(record) = self.records.first() else {
                return broken(invariant, format!("nothing happened, but {what}"));
            };
            self.take(record)?;
        }
        self.obeying = true;
        self.decide();
        while let Some(record) = self.records.first() {
            self.take(record)?;
        }
        if let Some(rest) = self.owed.rest() {
            let invariant = self.blame();
            return broken(invariant, format!("the command did not do all that was due: {rest}"));
        }
        match self.due() {
            Some((invariant, what)) => broken(invariant, format!("at the end of the turn {what}")),
            None => Ok(self.replies),
        }
    }

    /// The promise that is broken when a command does not do what is due.
    fn blame(&self) -> Invariant {
        match self.command {
            _ if self.verdicts > 0 => Invariant::I7,
            Command::Cancel(_) | Command::EndSession(_) | Command::ReleaseAll(_) => Invariant::I13,
            Command::Acquire(_) | Command::AcquireAll(_) if self.owed.fresh_grant() => {
                Invariant::I8
            }
            _ => Invariant::I20,
        }
    }

    /// What must happen although nobody asks for it.
    fn due(&self) -> Option<(Invariant, String)> {
        if let Some(task) = &self.moving {
            return Some((Invariant::I20, format!("a claim has ended, so that {task:?} is due")));
        }
        let (model, now) = (&*self.model, self.model.now);
        if let Some(hold) = model.holds.values().find(|hold| hold.ends_at() <= now) {
            let what = format!("hold {} on {} has ended", hold.lock, hold.resource);
            return Some((Invariant::I14, what));
        }
        for wait in model.waits.values() {
            let ends = [Some(wait.wait_until), wait.poll_by, wait.slice_until];
            if ends.into_iter().flatten().any(|end| end <= now) {
                let what = format!("the wait, the slice or the poll of {} is over", wait.ticket);
                return Some((Invariant::I10, what));
            }
            let lasts = |lock| model.holds.get(lock).is_some_and(|hold| hold.revoked_at.is_none());
            if !wait.built_on.iter().all(lasts) {
                let what = format!("ticket {} builds on a hold that ended", wait.ticket);
                return Some((Invariant::I10, what));
            }
        }
        let idle_ms = super::rules::millis(model.rules.session_idle);
        let is_idle = |since: Timestamp| since.0.saturating_add(idle_ms) <= now.0;
        let mut sessions = model.sessions.iter();
        if let Some((id, _)) = sessions.find(|(_, one)| one.idle_since.is_some_and(is_idle)) {
            return Some((Invariant::I18, format!("session {id} has been idle for too long")));
        }
        if model.waits.is_empty() || (!self.obeying && !self.model.stirred) {
            return None;
        }
        let scene = Scene::now(model);
        let free = model.waits.values().find(|wait| scene.obstacle_of(wait).is_none())?;
        let what = format!("ticket {} of {} can be granted", free.ticket, free.session);
        Some((Invariant::I8, what))
    }

    /// Takes in the next fact, or the next few where they belong together.
    fn take(&mut self, record: &Record) -> Checked {
        ensure(record.at == self.model.now, Invariant::I20, || {
            format!("a fact of {} in a turn of {}", record.at.0, self.model.now.0)
        })?;
        let resumes = matches!(self.owed.fresh.front(), Some(Fresh::Resume(_)));
        ensure(!resumes || matches!(record.fact, Fact::Resumed { .. }), Invariant::I17, || {
            format!("before the table has resumed: {:?}", record.fact)
        })?;
        let moves = self.moving.is_none() || matches!(record.fact, Fact::TaskMoved { .. });
        ensure(moves, Invariant::I20, || {
            format!("{:?} is due at once, and not {:?}", self.moving, record.fact)
        })?;
        self.model.stirred = true;
        self.model.last.fact = record.at;
        let group = self.group();
        let (facts, rest) = self.records.split_at(group.max(1));
        self.records = rest;
        match group {
            0 => self.fact(&record.fact),
            _ => self.granted(facts),
        }
    }

    /// How many of the next facts are members of one grant; 0 if the next is something else.
    fn group(&self) -> usize {
        let ticket_of = |record: &Record| match &record.fact {
            Fact::Granted(granted) => Some(granted.ticket),
            Fact::Reentered { ticket, .. } => Some(*ticket),
            Fact::Converted { ticket, .. } if self.is_upgrade(*ticket) => Some(*ticket),
            _ => None,
        };
        match self.records.first().and_then(ticket_of) {
            None => 0,
            ticket => self.records.iter().take_while(|record| ticket_of(record) == ticket).count(),
        }
    }

    fn is_upgrade(&self, ticket: TicketId) -> bool {
        let waits = self.model.waits.get(&ticket).is_some_and(|wait| wait.upgrade);
        waits || (self.owed.fresh_grant() && matches!(self.command, Command::Upgrade(_)))
    }

    pub(super) fn name(&self, session: SessionId) -> String {
        format!("{session} ({})", self.model.agent(session))
    }
}

fn check_replies(due: &BTreeMap<CallId, Expect>, turn: &Turn) -> Checked {
    for (at, reply) in turn.replies.iter().enumerate() {
        let said = || told(&reply.outcome);
        let again = turn.replies[..at].iter().any(|other| other.call == reply.call);
        ensure(!again, Invariant::I10, || format!("{:?} is answered twice", reply.call))?;
        let Some(expected) = due.get(&reply.call) else {
            let what = format!("{:?} is answered, but should wait: {}", reply.call, said());
            return broken(Invariant::I10, what);
        };
        ensure(expected.is_met_by(reply), Invariant::I20, || {
            format!("{:?} should be told {expected:?}, but was told {}", reply.call, said())
        })?;
    }
    let unanswered = due.keys().find(|call| turn.replies.iter().all(|r| r.call != **call));
    match unanswered {
        Some(call) => broken(Invariant::I10, format!("{call:?} is not told {:?}", due[call])),
        None => Ok(()),
    }
}

impl Model {
    /// News has numbers without a gap, and tells what the facts tell.
    fn check_events(&mut self, turn: &Turn) -> Checked {
        for event in &turn.events {
            ensure(
                event.seq == self.last.event + 1 && event.at == self.now,
                Invariant::I20,
                || {
                    format!(
                        "event {} at {} follows event {}",
                        event.seq, event.at.0, self.last.event
                    )
                },
            )?;
            self.last.event = event.seq;
        }
        let grants = turn.records.iter().filter_map(|record| match &record.fact {
            Fact::Granted(granted) => Some(granted.lock),
            _ => None,
        });
        let ends = turn.records.iter().filter_map(|record| match &record.fact {
            Fact::Released { lock, remaining: 0, .. } => Some(*lock),
            _ => None,
        });
        let locked = |event: &Event| match &event.news {
            News::Locked(news) => Some(news.lock),
            _ => None,
        };
        let unlocked = |event: &Event| match &event.news {
            News::Unlocked(news) | News::Expired(news) | News::Revoked(news) => Some(news.lock),
            _ => None,
        };
        check_news(grants, turn.events.iter().filter_map(locked), "locked")?;
        check_news(ends, turn.events.iter().filter_map(unlocked), "unlocked")
    }
}

/// Every fact is announced, in order; a change of mode may be announced as well.
fn check_news(
    facts: impl Iterator<Item = LockId>,
    mut news: impl Iterator<Item = LockId>,
    what: &str,
) -> Checked {
    for lock in facts {
        ensure(news.any(|announced| announced == lock), Invariant::I20, || {
            format!("no event says that {lock} was {what}")
        })?;
    }
    Ok(())
}
