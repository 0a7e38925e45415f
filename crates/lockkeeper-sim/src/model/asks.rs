//! Requests for locks: granted, queued, or refused; and those that were seen before.

use super::{
    decide::{Due, refused},
    follow::Walk,
    owed::{Expect, Fresh},
    rules::{LAST, Scene, covers, millis, permits},
    state::{Finished, Outcome, Verb, Wait},
};
use lockkeeper_core::{
    AskOptions, Credential, LockId, LockMode, RequestId, Resource, SessionId, TicketId, Timestamp,
    Upgrade,
};
use std::{sync::Arc, time::Duration};

/// What is known of a request that was seen before.
enum Seen {
    /// Its id was used for something else.
    Otherwise,
    Waiting(TicketId),
    Over(Finished),
}

impl Walk<'_> {
    pub(super) fn acquire(
        &mut self,
        session: SessionId,
        asked: &[(Resource, LockMode)],
        options: &AskOptions,
    ) -> Due {
        if let Some(due) = self.gone_or_seen(session, options, Verb::Acquire) {
            return due;
        }
        let limits = self.model.rules.limits;
        if asked.is_empty() {
            return refused("empty_batch");
        }
        if asked.len() > limits.batch_max || self.too_long(options) {
            return refused("limit_reached");
        }
        if asked.iter().any(|(what, _)| what.problem(limits.key_bytes_max).is_some()) {
            return refused("invalid_resource");
        }
        let is_mixed = |(what, mode): &(Resource, LockMode)| {
            let is_lock = |mode: &LockMode| permits(*mode) == 0 && *mode != LockMode::Permit(0);
            asked.iter().any(|(other, with)| other == what && is_lock(with) != is_lock(mode))
        };
        if asked.iter().any(is_mixed) {
            return refused("wrong_mode");
        }
        let mut wants = Vec::new();
        let mut built_on = Vec::new();
        for (resource, mode) in merged(asked) {
            match self.member(session, &resource, mode, options.reentrant) {
                Err(code) => return refused(code),
                Ok(Some(lock)) => built_on.push(lock),
                Ok(None) => wants.push((resource, mode)),
            }
        }
        let held = self.model.session_holds(session).count();
        let waits = self.model.session_waits(session).filter(|wait| !wait.upgrade);
        let to_come: usize = waits.map(|wait| wait.wants.len()).sum();
        if held + to_come + wants.len() > limits.holds_per_session_max {
            return refused("limit_reached");
        }
        let scene = Scene::now(self.model);
        let taken = |(what, mode): &&(Resource, LockMode)| {
            scene.obstacle(session, what, *mode, LAST).is_some()
        };
        let taken = wants.iter().filter(taken).map(|(what, _)| what.clone()).collect();
        let ask = Ask { session, wants, built_on, upgrade: false };
        self.grant_or_queue(ask, taken, options)
    }

    /// The hold that a member of a batch builds on, if any, or why the whole batch is refused.
    fn member(
        &self,
        session: SessionId,
        resource: &Resource,
        mode: LockMode,
        reentrant: bool,
    ) -> Result<Option<LockId>, &'static str> {
        let capacity = self.model.capacities.get(resource).copied();
        match (mode, capacity) {
            (LockMode::Permit(n), Some(slots)) if n == 0 || n > slots => {
                return Err("over_capacity");
            }
            (LockMode::Permit(_), None) => return Err("wrong_mode"),
            (LockMode::Shared | LockMode::Update | LockMode::Exclusive, Some(_)) => {
                return Err("wrong_mode");
            }
            _ => {}
        }
        if let Some(hold) = self.model.holds_of(resource).find(|hold| hold.session == session) {
            return match reentrant && covers(hold.mode, mode) {
                _ if hold.revoked_at.is_some() => Err("revoking"),
                true if hold.shares.len() >= self.model.rules.limits.holds_per_session_max => {
                    Err("limit_reached")
                }
                true => Ok(Some(hold.lock)),
                false => Err("already_held"),
            };
        }
        let mut own = self.model.session_waits(session);
        match own.any(|wait| wait.mode_for(resource).is_some()) {
            true => Err("already_waiting"),
            false => Ok(None),
        }
    }

    /// The end that all requests for locks share.
    fn grant_or_queue(&mut self, ask: Ask, taken: Vec<Resource>, options: &AskOptions) -> Due {
        let rules = &self.model.rules;
        let span = options.wait.unwrap_or(rules.wait_default).min(rules.limits.wait_max);
        let mut wait = self.wait_of(ask, options, span);
        if let Some(hold) = wait.built_on.first().filter(|_| wait.upgrade) {
            // The lease stays as it is.
            wait.lease_ms = self.model.holds[hold].lease_ms;
        }
        if taken.is_empty() {
            // Of several locks, those that are left do not tell what there was.
            let is_one = wait.wants.len() == 1 && wait.built_on.is_empty();
            wait.fleeting = options.fleeting && options.request_id.is_some() && is_one;
            self.owed.fresh.push_back(Fresh::Grant(wait));
            return None;
        }
        if millis(span) == 0 {
            return Some(Expect::Busy(taken));
        }
        if self.waits(wait.session) >= rules.limits.waits_per_session_max {
            return refused("limit_reached");
        }
        let full = |(resource, _): &(Resource, LockMode)| {
            self.model.queue_of(resource).len() >= rules.limits.queue_length_max
        };
        if wait.wants.iter().any(full) {
            return refused("queue_full");
        }
        self.owed.fresh.push_back(Fresh::Queue(wait));
        None
    }

    fn wait_of(&self, ask: Ask, options: &AskOptions, span: Duration) -> Wait {
        let rules = &self.model.rules;
        let lease = options.lease.unwrap_or(rules.lease_default).min(rules.limits.lease_max);
        let own = self.model.sessions.get(&ask.session).map_or(0, |session| session.priority);
        Wait {
            ticket: TicketId::from_u64(0),
            session: ask.session,
            wants: ask.wants,
            built_on: ask.built_on,
            upgrade: ask.upgrade,
            queued_at: self.model.now,
            wait_until: self.model.now.after(span),
            lease_ms: millis(lease).max(1),
            priority: options.priority.unwrap_or(own).clamp(-10, 10),
            reason: options.reason.clone(),
            metadata: options.metadata.clone(),
            request_id: options.request_id,
            poll_by: None,
            call: Some(self.call),
            slice_until: options.slice.map(|slice| self.model.now.after(slice)),
            told: false,
            fleeting: false,
        }
    }

    /// A request for locks that is granted at once, or not at all.
    pub(super) fn wait_for(
        &self,
        session: SessionId,
        wants: Vec<(Resource, LockMode)>,
        options: &AskOptions,
    ) -> Wait {
        let ask = Ask { session, wants, built_on: Vec::new(), upgrade: false };
        // As long as it lasts to decide.
        self.wait_of(ask, options, Duration::from_secs(1))
    }

    pub(super) fn too_long(&self, options: &AskOptions) -> bool {
        let max = self.model.rules.limits.text_bytes_max;
        let long = |text: &Option<Arc<str>>| text.as_ref().is_some_and(|text| text.len() > max);
        long(&options.reason) || long(&options.metadata)
    }

    pub(super) fn upgrade(&mut self, upgrade: &Upgrade) -> Due {
        let session = upgrade.session;
        if let Some(due) = self.gone_or_seen(session, &upgrade.options, Verb::Upgrade) {
            return due;
        }
        let hold =
            match self.open_hold(Credential::Session(session), upgrade.lock, None, Verb::Upgrade) {
                Ok(hold) => hold,
                Err(expect) => return Some(expect),
            };
        if hold.revoked_at.is_some() {
            return refused("revoking");
        }
        match hold.mode {
            LockMode::Permit(_) => return refused("wrong_mode"),
            LockMode::Exclusive => return Some(Expect::Changed(hold.grant())),
            LockMode::Shared | LockMode::Update => {}
        }
        if self.model.session_waits(session).any(|wait| wait.mode_for(&hold.resource).is_some()) {
            return refused("already_waiting");
        }
        let wants = vec![(hold.resource.clone(), LockMode::Exclusive)];
        let ask = Ask { session, wants, built_on: vec![hold.lock], upgrade: true };
        // Two who turn their holds of one resource exclusive wait for each other for ever.
        let queue = self.model.queue_of(&hold.resource);
        self.second_upgrade = queue.first().is_some_and(|first| first.upgrade);
        let place = (false, u64::MAX);
        let obstacle =
            Scene::now(self.model).obstacle(session, &hold.resource, LockMode::Exclusive, place);
        let taken = obstacle.map(|_| hold.resource.clone()).into_iter().collect();
        self.grant_or_queue(ask, taken, &upgrade.options)
    }

    pub(super) fn wait(
        &mut self,
        session: SessionId,
        ticket: TicketId,
        slice: Option<Duration>,
    ) -> Due {
        if !self.model.sessions.contains_key(&session) {
            return refused("session_ended");
        }
        if self.model.waits.get(&ticket).is_some_and(|wait| wait.session == session) {
            self.attach(ticket, slice.map(|slice| self.model.now.after(slice)));
            return None;
        }
        let memory = &self.model.sessions[&session].memory;
        match memory.iter().rev().find(|finished| finished.ticket == Some(ticket)) {
            Some(finished) => Some(self.told(finished)),
            None => refused("unknown"),
        }
    }

    /// A new call waits on a ticket; the old one is told so.
    fn attach(&mut self, ticket: TicketId, slice_until: Option<Timestamp>) {
        let call = self.call;
        let Some(wait) = self.model.waits.get_mut(&ticket) else { return };
        if let Some(old) = wait.call.replace(call) {
            self.replies.insert(old, Expect::Refused("superseded"));
        }
        wait.slice_until = slice_until;
        if wait.poll_by.is_some() {
            self.owed.fresh.push_back(Fresh::Unpoll(ticket));
        }
    }

    /// Whether a request needs no decision: its session is over, or it was seen before.
    fn gone_or_seen(
        &mut self,
        session: SessionId,
        options: &AskOptions,
        verb: Verb,
    ) -> Option<Due> {
        if !self.model.sessions.contains_key(&session) {
            return Some(refused("session_ended"));
        }
        let until = options.slice.map(|slice| self.model.now.after(slice));
        match self.seen(session, options.request_id, verb)? {
            Seen::Otherwise => Some(refused("request_id_reused")),
            Seen::Waiting(ticket) => {
                self.attach(ticket, until);
                Some(None)
            }
            Seen::Over(finished) => Some(Some(self.told(&finished))),
        }
    }

    fn seen(&self, session: SessionId, request_id: Option<RequestId>, verb: Verb) -> Option<Seen> {
        let wanted = Some(request_id?);
        let mut waits = self.model.session_waits(session);
        if let Some(wait) = waits.find(|wait| wait.request_id == wanted) {
            return Some(match wait.upgrade == (verb == Verb::Upgrade) {
                true => Seen::Waiting(wait.ticket),
                false => Seen::Otherwise,
            });
        }
        self.over(session, request_id, verb).map(Seen::Over)
    }

    pub(super) fn told(&self, finished: &Finished) -> Expect {
        let changed = matches!(finished.outcome, Outcome::Converted(_));
        Expect::of(&finished.outcome, |lock| {
            let hold = self.model.holds.get(lock)?;
            match finished.ticket {
                // To change a mode takes no share.
                Some(ticket) if !changed => {
                    hold.still_belongs_to(ticket).then(|| hold.grant_to(ticket))
                }
                _ => Some(hold.grant()),
            }
        })
    }

    pub(super) fn over(
        &self,
        session: SessionId,
        request_id: Option<RequestId>,
        verb: Verb,
    ) -> Option<Finished> {
        let wanted = Some(request_id?);
        let memory = &self.model.sessions.get(&session)?.memory;
        let found = memory.iter().rev().find(|finished| finished.request_id == wanted)?;
        let is_left = match &found.outcome {
            Outcome::Granted(locks) | Outcome::Claimed(locks) => {
                locks.iter().any(|lock| self.model.holds.contains_key(lock))
            }
            _ => false,
        };
        Some(found.asked_with(verb, is_left))
    }
}

/// What a request asks for, before it has a ticket.
struct Ask {
    session: SessionId,
    wants: Vec<(Resource, LockMode)>,
    built_on: Vec<LockId>,
    upgrade: bool,
}

/// Each resource once, in order, with the strongest mode it was asked for.
fn merged(asked: &[(Resource, LockMode)]) -> Vec<(Resource, LockMode)> {
    let mut merged: Vec<(Resource, LockMode)> = Vec::new();
    for (resource, mode) in asked {
        match merged.iter_mut().find(|(known, _)| known == resource) {
            Some((_, strongest)) if covers(*mode, *strongest) => *strongest = *mode,
            Some(_) => {}
            None => merged.push((resource.clone(), *mode)),
        }
    }
    merged.sort_by(|a, b| a.0.cmp(&b.0));
    merged
}
