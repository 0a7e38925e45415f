//! What the model knows: plain lists of sessions, holds and waits.

use super::rules::{Place, Rules};
use lockkeeper_core::{
    CallId, Epoch, Grant, Holder, LockId, LockMode, RequestId, Resource, SessionId, SessionKind,
    Task, TaskStatus, TicketId, Timestamp, Token,
};
use std::{collections::BTreeMap, sync::Arc};

/// The naive twin of one lock table. It follows the table's turns, decides each anew by its own
/// rules, and says which promise a turn broke.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) rules: Rules,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) holds: BTreeMap<LockId, Hold>,
    pub(crate) waits: BTreeMap<TicketId, Wait>,
    pub(crate) capacities: BTreeMap<Resource, u32>,
    pub(crate) tasks: BTreeMap<Resource, Booked>,
    /// The token that the readers and updaters of the present phase share.
    pub(crate) generations: BTreeMap<Resource, Token>,
    pub(crate) last: Last,
    pub(crate) turns: u64,
    /// Requests after which there was a cycle through permits that is no deadlock.
    pub(crate) cleared: u64,
    /// Whether something happened since the queues were last seen at rest.
    pub(crate) stirred: bool,
}

/// The largest numbers seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Last {
    pub(crate) token: u64,
    pub(crate) ticket: u64,
    pub(crate) session: u64,
    pub(crate) event: u64,
    pub(crate) fact: Timestamp,
}

/// One task.
#[derive(Clone, Debug)]
pub(crate) struct Booked {
    pub(crate) version: u64,
    pub(crate) status: TaskStatus,
    /// The hold that claims it.
    pub(crate) lock: Option<LockId>,
}

/// One open session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) agent: Arc<str>,
    pub(crate) kind: SessionKind,
    pub(crate) priority: i8,
    pub(crate) birth: Option<TicketId>,
    pub(crate) aborts: u32,
    /// Aborted, and nothing granted since.
    pub(crate) retrying: bool,
    pub(crate) declared: Vec<SessionId>,
    /// Since when it has had nothing at all.
    pub(crate) idle_since: Option<Timestamp>,
    pub(crate) memory: Vec<Finished>,
}

/// One hold.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) lock: LockId,
    pub(crate) ticket: TicketId,
    pub(crate) session: SessionId,
    pub(crate) resource: Resource,
    pub(crate) mode: LockMode,
    pub(crate) token: Token,
    pub(crate) slots: Vec<u32>,
    /// The requests that hold it, one after the other; each gives back its own share.
    pub(crate) shares: Vec<TicketId>,
    pub(crate) lease_ms: u64,
    pub(crate) wait_ms: u64,
    pub(crate) granted_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) metadata: Option<Arc<str>>,
}

/// One request in its queues.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) ticket: TicketId,
    pub(crate) session: SessionId,
    pub(crate) wants: Vec<(Resource, LockMode)>,
    pub(crate) built_on: Vec<LockId>,
    pub(crate) upgrade: bool,
    pub(crate) queued_at: Timestamp,
    pub(crate) wait_until: Timestamp,
    pub(crate) lease_ms: u64,
    pub(crate) priority: i8,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) metadata: Option<Arc<str>>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) poll_by: Option<Timestamp>,
    pub(crate) call: Option<CallId>,
    pub(crate) slice_until: Option<Timestamp>,
    /// Whether its asker was told the ticket.
    pub(crate) told: bool,
    /// Whether what it is granted at once is remembered no longer than its hold.
    pub(crate) fleeting: bool,
}

/// A request that is over.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) ticket: Option<TicketId>,
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Granted(Vec<LockId>),
    Claimed(Vec<LockId>),
    Moved(Task),
    Converted(LockId),
    Refused(&'static str),
    Released(LockId, u32),
    Renewed(LockId, Timestamp),
}

/// What a request id is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Acquire,
    Upgrade,
    Release,
    Renew,
    Downgrade,
    Claim,
    Finish,
}

impl Finished {
    /// The same to whoever asks again with this verb; a refusal, if the id had another use.
    ///
    /// Locks and claims are told apart by what is left of them: when nothing `is_left`, whoever
    /// asks is told that it is over.
    pub(crate) fn asked_with(&self, verb: Verb, is_left: bool) -> Finished {
        let verbs: &[Verb] = match self.outcome {
            Outcome::Granted(_) | Outcome::Claimed(_) if !is_left => &[Verb::Acquire, Verb::Claim],
            Outcome::Granted(_) => &[Verb::Acquire],
            Outcome::Claimed(_) => &[Verb::Claim],
            Outcome::Moved(_) => &[Verb::Finish],
            Outcome::Converted(_) => &[Verb::Upgrade, Verb::Downgrade],
            Outcome::Refused(_) => &[Verb::Acquire, Verb::Upgrade],
            Outcome::Released(..) => &[Verb::Release],
            Outcome::Renewed(..) => &[Verb::Renew],
        };
        let mut answer = self.clone();
        if !verbs.contains(&verb) {
            answer.outcome = Outcome::Refused("request_id_reused");
        }
        answer
    }
}

impl Model {
    /// The twin of a table that was just made.
    pub fn new(rules: Rules, epoch: Epoch, last_event: u64) -> Model {
        Model {
            rules,
            epoch,
            now: Timestamp::default(),
            sessions: BTreeMap::new(),
            holds: BTreeMap::new(),
            waits: BTreeMap::new(),
            capacities: BTreeMap::new(),
            tasks: BTreeMap::new(),
            generations: BTreeMap::new(),
            last: Last { event: last_event, ..Last::default() },
            turns: 0,
            cleared: 0,
            stirred: false,
        }
    }

    /// The coordinator crashed and came back: the calls are gone, everything else stays. Time goes
    /// on from the last fact: moments at which nothing happened left no trace.
    pub fn recover(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.now = self.last.fact;
        for wait in self.waits.values_mut() {
            wait.call = None;
            wait.slice_until = None;
        }
    }

    /// After how many requests there was a cycle through permits that was no deadlock.
    pub fn cleared(&self) -> u64 {
        self.cleared
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Whether some call waits with a slice: a deadline that no record restores.
    pub fn has_slices(&self) -> bool {
        self.waits.values().any(|wait| wait.slice_until.is_some())
    }

    pub(crate) fn session_holds(&self, session: SessionId) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter(move |hold| hold.session == session)
    }

    pub(crate) fn session_waits(&self, session: SessionId) -> impl Iterator<Item = &Wait> {
        self.waits.values().filter(move |wait| wait.session == session)
    }

    pub(crate) fn holds_of<'m>(&'m self, resource: &'m Resource) -> impl Iterator<Item = &'m Hold> {
        self.holds.values().filter(move |hold| hold.resource == *resource)
    }

    pub(crate) fn queue_of<'m>(&'m self, resource: &'m Resource) -> Vec<&'m Wait> {
        let mut queue: Vec<&Wait> =
            self.waits.values().filter(|wait| wait.mode_for(resource).is_some()).collect();
        queue.sort_by_key(|wait| wait.place());
        queue
    }

    /// A task; one that nobody has heard of is open.
    pub(crate) fn task(&self, name: &Resource) -> Task {
        let (version, status) = match self.tasks.get(name) {
            Some(task) => (task.version, task.status),
            None => (0, TaskStatus::Open),
        };
        Task { resource: name.clone(), version, status }
    }

    pub(crate) fn task_claimed_with(&self, lock: LockId) -> Option<Resource> {
        let mut tasks = self.tasks.iter();
        tasks.find(|(_, task)| task.lock == Some(lock)).map(|(name, _)| name.clone())
    }

    pub(crate) fn agent(&self, session: SessionId) -> Arc<str> {
        self.sessions.get(&session).map_or_else(|| "?".into(), |one| one.agent.clone())
    }

    /// Whether a session has neither hold nor ticket nor declared wait of its own.
    pub(crate) fn has_nothing(&self, id: SessionId) -> bool {
        let declares = self.sessions.get(&id).is_some_and(|one| !one.declared.is_empty());
        !declares
            && self.session_holds(id).next().is_none()
            && self.session_waits(id).next().is_none()
    }

    /// Whether it has nothing and nobody declared to wait for it.
    pub(crate) fn is_idle(&self, id: SessionId) -> bool {
        self.has_nothing(id) && !self.sessions.values().any(|one| one.declared.contains(&id))
    }

    pub(crate) fn holder(&self, hold: &Hold) -> Holder {
        Holder {
            resource: hold.resource.clone(),
            lock: hold.lock,
            session: hold.session,
            agent: self.agent(hold.session),
            mode: hold.mode,
            reason: hold.reason.clone(),
            metadata: hold.metadata.clone(),
            acquired_at: hold.granted_at,
            expires_at: hold.expires_at,
            revoked_at: hold.revoked_at,
        }
    }
}

impl Hold {
    pub(crate) fn grant(&self) -> Grant {
        self.grant_to(self.ticket)
    }

    /// As the request knows it that has this ticket.
    pub(crate) fn grant_to(&self, ticket: TicketId) -> Grant {
        Grant {
            lock: self.lock,
            ticket,
            resource: self.resource.clone(),
            mode: self.mode,
            token: self.token,
            slots: self.slots.clone(),
            expires_at: self.expires_at,
            count: self.shares.len() as u32,
            wait_ms: self.wait_ms,
        }
    }

    /// Whether the request still has its share of the hold.
    pub(crate) fn still_belongs_to(&self, ticket: TicketId) -> bool {
        self.shares.contains(&ticket)
    }

    /// When it ends by itself.
    pub(crate) fn ends_at(&self) -> Timestamp {
        self.revoked_at.map_or(self.expires_at, |revoked| revoked.min(self.expires_at))
    }
}

impl Wait {
    pub(crate) fn place(&self) -> Place {
        (!self.upgrade, self.ticket.get())
    }

    pub(crate) fn mode_for(&self, resource: &Resource) -> Option<LockMode> {
        self.wants.iter().find(|(wanted, _)| wanted == resource).map(|(_, mode)| *mode)
    }
}
