//! One agent: what it knows, and what it is up to.

use super::{
    places::{Places, pick},
    role::Role,
};
use lockkeeper_core::{
    Acquire, AcquireAll, AskOptions, CallId, Cancel, CancelTarget, ClaimTasks, Command, Credential,
    DeclareWait, Downgrade, EndCause, EndSession, FinishTask, Grant, Lineage, LockMode,
    OpenSession, Release, Renew, RequestId, Resource, ResourceType, SessionId, SessionKind,
    TaskClaim, TicketId, Upgrade, Wait, WithdrawWait,
};
use rand::{Rng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// One agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) name: Arc<str>,
    role: Role,
    pub(crate) session: Option<SessionId>,
    pub(super) lineage: Option<Lineage>,
    /// What it believes to hold.
    pub(crate) holds: Vec<Grant>,
    /// What it once held, or still believes it could.
    pub(crate) past: Vec<Grant>,
    /// Calls without an answer.
    pub(crate) calls: BTreeMap<CallId, Command>,
    /// Requests that lost their call in a crash of the coordinator.
    pub(super) lost: Vec<Command>,
    /// Tickets it was told.
    pub(super) tickets: Vec<TicketId>,
    /// Requests it made lately, with their ids.
    pub(super) made: Vec<Command>,
    pub(super) declared: Vec<SessionId>,
    /// At which versions it has seen tasks.
    pub(super) seen: BTreeMap<Resource, u64>,
    requests: u128,
}

/// What an agent sees of the others.
pub(crate) struct Around<'a> {
    pub(crate) places: &'a Places,
    pub(crate) sessions: &'a [SessionId],
}

impl Agent {
    pub(crate) fn new(name: &str, role: Role, number: usize) -> Agent {
        Agent {
            name: name.into(),
            role,
            session: None,
            lineage: None,
            holds: Vec::new(),
            past: Vec::new(),
            calls: BTreeMap::new(),
            lost: Vec::new(),
            tickets: Vec::new(),
            made: Vec::new(),
            declared: Vec::new(),
            seen: BTreeMap::new(),
            requests: (number as u128) << 64,
        }
    }

    /// What it does next; nothing while it waits patiently.
    pub(crate) fn next(&mut self, rng: &mut SmallRng, around: &Around<'_>) -> Option<Command> {
        let Some(session) = self.session else { return self.open(rng) };
        if let Some(lost) = self.lost.pop() {
            // With its request id, or without one: then it is a new request.
            return Some(lost);
        }
        if !self.calls.is_empty() && self.role != Role::Parallel {
            return self.while_waiting(rng, session);
        }
        if let Some(at) = self.tickets.len().checked_sub(1) {
            let ticket = match rng.random_bool(0.9) {
                true => self.tickets[at],
                false => self.tickets.swap_remove(at),
            };
            return Some(Wait { session, ticket, slice: slice(rng) }.into());
        }
        if self.calls.len() > 3 {
            return self.while_waiting(rng, session);
        }
        match rng.random_range(0..100) {
            0 => Some(self.say_goodbye(rng, session)),
            1..=4 => self.use_something_stale(rng, session),
            5..=9 => self.repeat(rng),
            10..=16 => self.keep_or_change(rng, session),
            17..=46 if !self.holds.is_empty() => self.give_back(rng, session),
            _ => Some(self.work(rng, session, around)),
        }
    }

    /// What it does when no new work is begun any more: it finishes, and releases.
    pub(crate) fn wind_down(&mut self) -> Option<Command> {
        let session = self.session?;
        self.lost.clear();
        if let Some(on) = self.declared.pop() {
            return Some(WithdrawWait { session, on }.into());
        }
        if let Some(grant) = self.holds.last() {
            let lock = grant.lock;
            let by = Credential::Session(session);
            return Some(Release { by, lock, share: None, request_id: None }.into());
        }
        let ticket = self.tickets.pop()?;
        Some(Wait { session, ticket, slice: None }.into())
    }

    fn open(&mut self, rng: &mut SmallRng) -> Option<Command> {
        if !self.calls.is_empty() {
            return None;
        }
        let kind = match rng.random_bool(0.2) {
            true => SessionKind::Detached,
            false => SessionKind::Attached,
        };
        let priority = if rng.random_bool(0.2) { rng.random_range(-12..=12) } else { 0 };
        let lineage = self.lineage.take();
        Some(OpenSession { agent: self.name.clone(), kind, priority, lineage }.into())
    }

    fn say_goodbye(&mut self, rng: &mut SmallRng, session: SessionId) -> Command {
        let cause = match rng.random_bool(0.5) {
            true => EndCause::OwnerDied,
            false => EndCause::Closed,
        };
        EndSession { session, cause }.into()
    }

    /// Mostly patient; sometimes it vanishes, asks again, gives something back, or dies.
    fn while_waiting(&mut self, rng: &mut SmallRng, session: SessionId) -> Option<Command> {
        match rng.random_range(0..100) {
            0..=3 => {
                let request = self.calls.values().rev().find_map(request_of)?;
                let target = CancelTarget::Request(request);
                Some(Cancel { session, target }.into())
            }
            4..=6 => self.calls.values().next_back().cloned(),
            7..=8 => self.give_back(rng, session),
            9 if rng.random_bool(0.3) => Some(self.say_goodbye(rng, session)),
            10..=14 => self.keep_or_change(rng, session),
            15..=18 => {
                let reads = |grant: &&Grant| grant.mode == LockMode::Shared;
                let lock = self.holds.iter().find(reads)?.lock;
                Some(Upgrade { session, lock, options: self.options(rng) }.into())
            }
            _ => None,
        }
    }

    /// What a careful agent never does: releases twice, renews what is gone, shows old tokens.
    fn use_something_stale(&mut self, rng: &mut SmallRng, session: SessionId) -> Option<Command> {
        if self.past.is_empty() {
            return None;
        }
        let grant = pick(rng, &self.past).clone();
        let by = match rng.random_bool(0.5) {
            true => Credential::Token(grant.token),
            false => Credential::Session(session),
        };
        let (lock, request_id) = (grant.lock, None);
        Some(match rng.random_range(0..5) {
            0..=1 => {
                let share = rng.random_bool(0.5).then_some(grant.ticket);
                Release { by, lock, share, request_id }.into()
            }
            2 => Renew { by, lock, lease: None, shorten: false, request_id }.into(),
            3 => Cancel { session, target: CancelTarget::Ticket(grant.ticket) }.into(),
            _ => Downgrade { session, lock, mode: LockMode::Shared, request_id }.into(),
        })
    }

    /// Sends again what it sent before, or takes it back after all.
    fn repeat(&mut self, rng: &mut SmallRng) -> Option<Command> {
        if self.made.is_empty() {
            return None;
        }
        let command = pick(rng, &self.made).clone();
        match (rng.random_bool(0.3), request_of(&command), self.session) {
            (true, Some(request), Some(session)) => {
                Some(Cancel { session, target: CancelTarget::Request(request) }.into())
            }
            _ => Some(command),
        }
    }

    fn keep_or_change(&mut self, rng: &mut SmallRng, session: SessionId) -> Option<Command> {
        if self.holds.is_empty() {
            return None;
        }
        let grant = pick(rng, &self.holds).clone();
        let lock = grant.lock;
        let request_id = self.request_id(rng, 0.3);
        let command: Command = match (rng.random_range(0..4), grant.mode) {
            (0..=1, _) => {
                let by = match rng.random_bool(0.3) {
                    true => Credential::Token(grant.token),
                    false => Credential::Session(session),
                };
                let shorten = rng.random_bool(0.2);
                Renew { by, lock, lease: lease(rng), shorten, request_id }.into()
            }
            (2, LockMode::Permit(n)) => {
                let mode = LockMode::Permit(n.saturating_sub(1));
                Downgrade { session, lock, mode, request_id }.into()
            }
            (_, LockMode::Exclusive) => {
                let mode = *pick(rng, &[LockMode::Shared, LockMode::Update, LockMode::Exclusive]);
                Downgrade { session, lock, mode, request_id }.into()
            }
            (2, LockMode::Update) => {
                Downgrade { session, lock, mode: LockMode::Shared, request_id }.into()
            }
            _ => Upgrade { session, lock, options: self.options(rng) }.into(),
        };
        self.note(&command);
        Some(command)
    }

    fn give_back(&mut self, rng: &mut SmallRng, session: SessionId) -> Option<Command> {
        if self.holds.is_empty() {
            return None;
        }
        let grant = pick(rng, &self.holds).clone();
        if grant.resource.resource_type() == ResourceType::Task && rng.random_bool(0.7) {
            return Some(self.finish(rng, session, &grant));
        }
        let (lock, token) = (grant.lock, grant.token);
        // A guard gives back its own share, a program whatever is left.
        let share = rng.random_bool(0.5).then_some(grant.ticket);
        let by = match rng.random_bool(0.2) {
            true => Credential::Token(token),
            false => Credential::Session(session),
        };
        let request_id = self.request_id(rng, 0.2);
        let command = Release { by, lock, share, request_id }.into();
        self.note(&command);
        Some(command)
    }

    /// The next piece of its own kind of work.
    fn work(&mut self, rng: &mut SmallRng, session: SessionId, around: &Around<'_>) -> Command {
        let places = around.places;
        let role = match rng.random_bool(0.1) {
            true => *pick(rng, &Role::ALL),
            false => self.role,
        };
        let options = self.options(rng);
        let one = |resource: Resource, mode| -> Command {
            Acquire { session, resource, mode, options: options.clone() }.into()
        };
        let command = match role {
            Role::Ordered => one(self.next_file(places), LockMode::Exclusive),
            Role::Disordered => one(pick(rng, &places.files).clone(), LockMode::Exclusive),
            Role::Parallel => {
                let (resource, mode) = self.member(rng, places);
                one(resource, mode)
            }
            Role::HotSpot => one(places.hot.clone(), LockMode::Exclusive),
            Role::Reader => one(pick(rng, &places.documents).clone(), LockMode::Shared),
            Role::Writer => one(pick(rng, &places.documents).clone(), any_mode(rng)),
            Role::Upgrader => {
                let early = [LockMode::Shared, LockMode::Update];
                let mode = *pick(rng, &early);
                let weak = self.holds.iter().find(|grant| early.contains(&grant.mode));
                match weak {
                    Some(grant) => Upgrade { session, lock: grant.lock, options }.into(),
                    None => one(pick(rng, &places.documents).clone(), mode),
                }
            }
            Role::Batcher => {
                let count = rng.random_range(0..=4);
                let wants = (0..count).map(|_| self.member(rng, places)).collect();
                AcquireAll { session, wants, options }.into()
            }
            // With a model and a file it can be in a circle through permits.
            Role::Prompter if rng.random_bool(0.35) => {
                one(pick(rng, &places.files).clone(), LockMode::Exclusive)
            }
            Role::Prompter => {
                let slots = rng.random_range(1..=3);
                one(pick(rng, &places.models).clone(), LockMode::Permit(slots))
            }
            Role::Claimer => self.claim(rng, session, places, options),
            Role::Parent => match around.sessions {
                [] => one(places.hot.clone(), LockMode::Shared),
                others => self.parent(rng, session, others),
            },
        };
        self.note(&command);
        command
    }

    /// Mostly with what it has seen; sometimes with a guess, or one task twice.
    fn claim(
        &mut self,
        rng: &mut SmallRng,
        session: SessionId,
        places: &Places,
        options: AskOptions,
    ) -> Command {
        let count = *pick(rng, &[1, 1, 1, 2, 3]);
        let claims = (0..count)
            .map(|_| {
                let task = pick(rng, &places.tasks).clone();
                let expect_version = match rng.random_range(0..10) {
                    0..=4 => None,
                    5..=8 => self.seen.get(&task).copied(),
                    _ => Some(rng.random_range(0..3)),
                };
                TaskClaim { task, expect_version }
            })
            .collect();
        ClaimTasks { session, claims, options }.into()
    }

    fn finish(&mut self, rng: &mut SmallRng, session: SessionId, grant: &Grant) -> Command {
        let by = match rng.random_bool(0.2) {
            true => Credential::Token(grant.token),
            false => Credential::Session(session),
        };
        let seen = self.seen.get(&grant.resource).copied();
        let expect_version = seen.filter(|_| rng.random_bool(0.5));
        let request_id = self.request_id(rng, 0.3);
        let done = rng.random_bool(0.4);
        let command = FinishTask { by, lock: grant.lock, done, expect_version, request_id }.into();
        self.note(&command);
        command
    }

    fn parent(&mut self, rng: &mut SmallRng, session: SessionId, others: &[SessionId]) -> Command {
        if self.declared.len() > 1 || (!self.declared.is_empty() && rng.random_bool(0.4)) {
            let at = rng.random_range(0..self.declared.len());
            let on = self.declared.swap_remove(at);
            return WithdrawWait { session, on }.into();
        }
        DeclareWait { session, on: *pick(rng, others) }.into()
    }

    fn member(&self, rng: &mut SmallRng, places: &Places) -> (Resource, LockMode) {
        let resource = places.any(rng);
        let mode = match places.models.contains(&resource) {
            true => LockMode::Permit(rng.random_range(1..=2)),
            false if places.documents.contains(&resource) && rng.random_bool(0.6) => {
                LockMode::Shared
            }
            false => any_mode(rng),
        };
        (resource, mode)
    }

    /// The first file behind all it holds: who locks in order is never in a circle with its like.
    fn next_file(&self, places: &Places) -> Resource {
        let held = |resource: &Resource| self.holds.iter().any(|grant| grant.resource == *resource);
        let behind = places.files.iter().rposition(held).map_or(0, |at| at + 1);
        places.files[behind % places.files.len()].clone()
    }

    fn options(&mut self, rng: &mut SmallRng) -> AskOptions {
        AskOptions {
            wait: *pick(rng, &WAITS),
            slice: if rng.random_bool(0.2) { slice(rng) } else { None },
            lease: lease(rng),
            reason: rng.random_bool(0.2).then(|| "because".into()),
            metadata: None,
            priority: rng.random_bool(0.1).then(|| rng.random_range(-3..=3)),
            reentrant: rng.random_bool(0.3),
            request_id: self.request_id(rng, 0.6),
            fleeting: self.requests.is_multiple_of(2),
        }
    }

    fn request_id(&mut self, rng: &mut SmallRng, chance: f64) -> Option<RequestId> {
        self.requests += 1;
        rng.random_bool(chance).then_some(RequestId::new(self.requests))
    }

    fn note(&mut self, command: &Command) {
        if request_of(command).is_some() {
            self.made.push(command.clone());
            if self.made.len() > 8 {
                self.made.remove(0);
            }
        }
    }
}

const WAITS: [Option<Duration>; 6] = [
    None,
    None,
    Some(Duration::ZERO),
    Some(Duration::from_millis(300)),
    Some(Duration::from_secs(3)),
    Some(Duration::from_secs(600)),
];

fn any_mode(rng: &mut SmallRng) -> LockMode {
    *pick(rng, &[LockMode::Shared, LockMode::Update, LockMode::Exclusive, LockMode::Exclusive])
}

fn slice(rng: &mut SmallRng) -> Option<Duration> {
    Some(Duration::from_millis(*pick(rng, &[0, 10, 200])))
}

fn lease(rng: &mut SmallRng) -> Option<Duration> {
    match rng.random_range(0..10) {
        0 => Some(Duration::ZERO),
        1..=3 => Some(Duration::from_millis(rng.random_range(1..500))),
        4..=6 => Some(Duration::from_secs(5)),
        _ => None,
    }
}

/// The id that the sender of a command chose.
pub(crate) fn request_of(command: &Command) -> Option<RequestId> {
    match command {
        Command::Acquire(ask) => ask.options.request_id,
        Command::AcquireAll(ask) => ask.options.request_id,
        Command::Upgrade(upgrade) => upgrade.options.request_id,
        Command::Release(release) => release.request_id,
        Command::Renew(renew) => renew.request_id,
        Command::Downgrade(downgrade) => downgrade.request_id,
        Command::ClaimTasks(claim) => claim.options.request_id,
        Command::FinishTask(finish) => finish.request_id,
        _ => None,
    }
}
