//! A state without its numbers: two histories that lead to one shape go on alike.
//!
//! Ids, tickets and tokens grow for ever, and so does time, so no state ever comes back as it was.
//! What is decided by them is only which is the larger, and how far a deadline lies ahead. With
//! each number replaced by its place among those that still matter, and each moment by its distance
//! from now, the states of a small world are finitely many, and can all be looked at.

use super::{
    rules::bucket,
    state::{Finished, Hold, Model, Outcome, Session, Wait},
};
use lockkeeper_core::{LockMode, Resource, TaskStatus, Timestamp};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Which numbers are in use, in order: the place of each is its name.
struct Names {
    now: Timestamp,
    sessions: Vec<u64>,
    tickets: Vec<u64>,
    tokens: Vec<u64>,
    locks: Vec<u128>,
    out: Vec<u64>,
}

impl Model {
    /// The state with its numbers taken out, as words to compare and to hash. Left out is what
    /// decides nothing any more: since when somebody waits or has waited, the exact age of a hold
    /// within its bucket, and aborts past those that shield.
    pub fn shape(&self) -> Vec<u64> {
        let mut names = Names::of(self);
        names.word(self.stirred);
        names.word(self.sessions.len());
        for session in self.sessions.values() {
            names.session(session, self.rules.shield_after);
        }
        names.word(self.holds.len());
        self.holds.values().for_each(|hold| names.hold(hold));
        names.word(self.waits.len());
        self.waits.values().for_each(|wait| names.wait(wait));
        names.word(self.capacities.len());
        for (resource, capacity) in &self.capacities {
            names.resource(resource);
            names.word(*capacity as usize);
        }
        names.word(self.tasks.len());
        for (task, booked) in &self.tasks {
            names.resource(task);
            names.out.push(booked.version);
            names.status(booked.status);
            let lock = booked.lock.map(|lock| lock.as_u128());
            names.lock(lock);
        }
        names.word(self.generations.len());
        for (resource, token) in &self.generations {
            names.resource(resource);
            names.token(token.get());
        }
        names.out
    }
}

fn sorted<T: Ord>(numbers: impl Iterator<Item = T>) -> Vec<T> {
    numbers.collect::<BTreeSet<T>>().into_iter().collect()
}

fn place<T: Ord>(among: &[T], number: Option<T>) -> u64 {
    // 0 is none; whatever is not among them is told apart from it.
    number.map_or(0, |number| among.binary_search(&number).map_or(u64::MAX, |at| at as u64 + 1))
}

impl Names {
    fn of(model: &Model) -> Names {
        let memory = || model.sessions.values().flat_map(|one| &one.memory);
        let births = model.sessions.values().filter_map(|one| one.birth);
        let held = model.holds.values().flat_map(|hold| hold.shares.iter().chain([&hold.ticket]));
        let remembered = memory().filter_map(|finished| finished.ticket);
        let tickets =
            births.chain(held.copied()).chain(remembered).chain(model.waits.keys().copied());
        let holds = model.holds.values();
        let tokens =
            holds.clone().map(|hold| hold.token).chain(model.generations.values().copied());
        let locks = holds.map(|hold| hold.lock).chain(memory().flat_map(Finished::locks));
        Names {
            now: model.now,
            sessions: sorted(model.sessions.keys().map(|id| id.get())),
            tickets: sorted(tickets.map(|ticket| ticket.get())),
            tokens: sorted(tokens.map(|token| token.get())),
            locks: sorted(locks.map(|lock| lock.as_u128())),
            out: Vec::with_capacity(64),
        }
    }

    fn word(&mut self, word: impl TryInto<u64>) {
        self.out.push(word.try_into().unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: impl Hash) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.out.push(hasher.finish());
    }

    fn resource(&mut self, resource: &Resource) {
        self.text(resource.as_str());
    }

    fn lock(&mut self, lock: Option<u128>) {
        let place = place(&self.locks, lock);
        self.out.push(place);
    }

    fn token(&mut self, token: u64) {
        let place = place(&self.tokens, Some(token));
        self.out.push(place);
    }

    fn ticket(&mut self, ticket: Option<u64>) {
        let place = place(&self.tickets, ticket);
        self.out.push(place);
    }

    fn owner(&mut self, session: u64) {
        let place = place(&self.sessions, Some(session));
        self.out.push(place);
    }

    /// How far ahead; a moment that never comes is never nearer.
    fn ahead(&mut self, at: Option<Timestamp>) {
        let ahead = at.map(|at| match at {
            Timestamp::NEVER => u64::MAX,
            at => at.since(self.now) + 1,
        });
        self.out.push(ahead.unwrap_or(0));
    }

    fn mode(&mut self, mode: LockMode) {
        self.out.push(match mode {
            LockMode::Shared => 0,
            LockMode::Update => 1,
            LockMode::Exclusive => 2,
            LockMode::Permit(n) => 3 + u64::from(n),
        });
    }

    fn status(&mut self, status: TaskStatus) {
        self.text(format!("{status:?}"));
    }

    fn session(&mut self, session: &Session, shield_after: u32) {
        self.text(&session.agent);
        self.text(format!("{:?} {}", session.kind, session.priority));
        self.ticket(session.birth.map(|birth| birth.get()));
        self.out.push(u64::from(session.aborts.min(shield_after)));
        self.word(session.retrying);
        self.word(session.declared.len());
        session.declared.iter().for_each(|on| self.owner(on.get()));
        let idle = session.idle_since.map_or(0, |since| self.now.since(since) + 1);
        self.out.push(idle);
        self.word(session.memory.len());
        session.memory.iter().for_each(|finished| self.finished(finished));
    }

    fn finished(&mut self, finished: &Finished) {
        self.text(finished.request_id.map(|id| id.get()));
        self.ticket(finished.ticket.map(|ticket| ticket.get()));
        match &finished.outcome {
            Outcome::Refused(why) => self.text(why),
            Outcome::Renewed(lock, until) => {
                self.lock(Some(lock.as_u128()));
                self.ahead(Some(*until));
            }
            Outcome::Released(lock, remaining) => {
                self.lock(Some(lock.as_u128()));
                self.out.push(u64::from(*remaining));
            }
            Outcome::Moved(task) => {
                self.resource(&task.resource);
                self.out.push(task.version);
                self.status(task.status);
            }
            Outcome::Granted(_) | Outcome::Claimed(_) | Outcome::Converted(_) => {
                let claimed = matches!(finished.outcome, Outcome::Claimed(_));
                self.word(claimed);
                finished.locks().for_each(|lock| self.lock(Some(lock.as_u128())));
            }
        }
    }

    fn hold(&mut self, hold: &Hold) {
        self.lock(Some(hold.lock.as_u128()));
        self.owner(hold.session.get());
        self.resource(&hold.resource);
        self.mode(hold.mode);
        self.token(hold.token.get());
        self.text(&hold.slots);
        self.ticket(Some(hold.ticket.get()));
        self.word(hold.shares.len());
        hold.shares.iter().for_each(|share| self.ticket(Some(share.get())));
        self.out.push(hold.lease_ms);
        let age = bucket(self.now.since(hold.granted_at) / 1000);
        self.out.push(u64::from(age));
        self.ahead(Some(hold.expires_at));
        self.ahead(hold.revoked_at);
    }

    fn wait(&mut self, wait: &Wait) {
        self.ticket(Some(wait.ticket.get()));
        self.owner(wait.session.get());
        self.word(wait.wants.len());
        for (resource, mode) in &wait.wants {
            self.resource(resource);
            self.mode(*mode);
        }
        self.word(wait.built_on.len());
        wait.built_on.iter().for_each(|lock| self.lock(Some(lock.as_u128())));
        self.word(wait.upgrade);
        self.ahead(Some(wait.wait_until));
        self.out.push(wait.lease_ms);
        self.text(wait.priority);
        self.text(wait.request_id.map(|id| id.get()));
        self.ahead(wait.poll_by);
        self.word(wait.call.is_some());
        self.ahead(wait.slice_until);
        self.word(wait.told);
    }
}

impl Finished {
    fn locks(&self) -> impl Iterator<Item = lockkeeper_core::LockId> + '_ {
        let (one, many) = match &self.outcome {
            Outcome::Granted(locks) | Outcome::Claimed(locks) => (None, locks.as_slice()),
            Outcome::Converted(lock) | Outcome::Released(lock, _) | Outcome::Renewed(lock, _) => {
                (Some(*lock), [].as_slice())
            }
            Outcome::Moved(_) | Outcome::Refused(_) => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }
}
