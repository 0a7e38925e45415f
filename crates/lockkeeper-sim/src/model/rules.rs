//! The rules of granting, written a second time and as plainly as possible.

use super::state::{Model, Wait};
use lockkeeper_core::{
    Candidate, LeastWork, Limits, LockMode, LowestPriority, Requester, Resource, SessionId,
    TableConfig, VictimPolicy, Work, Youngest,
};
use std::sync::Arc;
use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

/// Which of the built-in orders a project uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in the core")]
pub enum Policy {
    LeastWork,
    Youngest,
    LowestPriority,
    Requester,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 4] =
        [Policy::LeastWork, Policy::Youngest, Policy::LowestPriority, Policy::Requester];

    /// The core's own implementation, for the table.
    pub fn for_table(self) -> Arc<dyn VictimPolicy> {
        match self {
            Policy::LeastWork => Arc::new(LeastWork),
            Policy::Youngest => Arc::new(Youngest),
            Policy::LowestPriority => Arc::new(LowestPriority),
            Policy::Requester => Arc::new(Requester),
        }
    }

    /// The name it has in reports.
    pub fn name(self) -> &'static str {
        match self {
            Policy::LeastWork => "least_work",
            Policy::Youngest => "youngest",
            Policy::LowestPriority => "lowest_priority",
            Policy::Requester => "requester",
        }
    }

    /// Whether `a` loses before `b`: the order written a second time, ties by session id.
    pub(crate) fn order(self, a: &Candidate, b: &Candidate) -> Ordering {
        let younger_first = b.birth.get().cmp(&a.birth.get());
        let order = match self {
            Policy::LeastWork => a
                .priority
                .cmp(&b.priority)
                .then(a.shielded.cmp(&b.shielded))
                .then(a.work.holds.cmp(&b.work.holds))
                .then(a.work.age.cmp(&b.work.age))
                .then(younger_first),
            Policy::Youngest => younger_first,
            Policy::LowestPriority => a.priority.cmp(&b.priority).then(younger_first),
            Policy::Requester => b.is_requester.cmp(&a.is_requester),
        };
        order.then(a.session.get().cmp(&b.session.get()))
    }
}

/// What the model has to know of a table's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How long a hold lives when the request does not say.
    pub lease_default: Duration,
    /// How long a request queues when it does not say.
    pub wait_default: Duration,
    /// How long a revoked guard may clean up.
    pub grace: Duration,
    /// How long a ticket keeps its place unpolled.
    pub ticket_grace: Duration,
    /// How long a detached session lives with nothing.
    pub session_idle: Duration,
    /// Who loses.
    pub policy: Policy,
    /// After so many aborts work is shielded.
    pub shield_after: u32,
    /// The bounds.
    pub limits: Limits,
}

impl Default for Rules {
    fn default() -> Rules {
        let table = TableConfig::default();
        Rules {
            lease_default: table.lease_default,
            wait_default: table.wait_default,
            grace: table.grace,
            ticket_grace: table.ticket_grace,
            session_idle: table.session_idle,
            policy: Policy::LeastWork,
            shield_after: table.shield_after,
            limits: table.limits,
        }
    }
}

impl Rules {
    /// The same, as the table wants it.
    pub fn table_config(&self) -> TableConfig {
        TableConfig {
            lease_default: self.lease_default,
            wait_default: self.wait_default,
            grace: self.grace,
            ticket_grace: self.ticket_grace,
            session_idle: self.session_idle,
            victim_policy: self.policy.for_table(),
            shield_after: self.shield_after,
            limits: self.limits,
        }
    }
}

/// Whether two modes exclude each other: two readers do not, a reader and an updater do not.
pub(crate) fn clash(a: LockMode, b: LockMode) -> bool {
    use LockMode::{Shared, Update};
    !matches!((a, b), (Shared, Shared) | (Shared, Update) | (Update, Shared))
}

/// Whether who holds `held` needs nothing more to do what `wanted` allows.
pub(crate) fn covers(held: LockMode, wanted: LockMode) -> bool {
    use LockMode::{Exclusive, Permit, Shared, Update};
    match (held, wanted) {
        (Permit(have), Permit(want)) => want <= have,
        (Exclusive, Shared | Update | Exclusive) | (Update, Shared | Update) => true,
        (Shared, Shared) => true,
        _ => false,
    }
}

/// How many slots a mode takes.
pub(crate) fn permits(mode: LockMode) -> u32 {
    if let LockMode::Permit(n) = mode { n } else { 0 }
}

/// The number of binary digits: the coarse bucket of a victim's work.
pub(crate) fn bucket(mut n: u64) -> u32 {
    let mut digits = 0;
    while n > 0 {
        n /= 2;
        digits += 1;
    }
    digits
}

/// What a session with so many holds would lose.
pub(crate) fn work(holds: usize, oldest_ms: u64) -> Work {
    Work { holds: bucket(holds as u64), age: bucket(oldest_ms / 1000) }
}

/// A duration in milliseconds, a started one whole.
pub(crate) fn millis(span: Duration) -> u64 {
    let whole = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let started = u64::from(!span.subsec_nanos().is_multiple_of(1_000_000));
    whole.saturating_add(started)
}

/// The place in a queue: those who turn a hold exclusive go first, then the earlier ticket.
pub(crate) type Place = (bool, u64);

/// The place of somebody who comes now and holds nothing.
pub(crate) const LAST: Place = (true, u64::MAX);

/// Who holds and who waits, as far as granting is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Scene<'m> {
    capacities: &'m BTreeMap<Resource, u32>,
    pub(crate) holds: Vec<(SessionId, &'m Resource, LockMode)>,
    pub(crate) waits: Vec<&'m Wait>,
}

/// Why somebody cannot be granted something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Obstacle {
    /// Somebody holds it, or all of it.
    Holder,
    /// Somebody came earlier.
    Waiter,
}

impl<'m> Scene<'m> {
    /// As things are. A hold under revocation stands in the way like any other.
    pub(crate) fn now(model: &'m Model) -> Scene<'m> {
        Scene {
            capacities: &model.capacities,
            holds: model.holds.values().map(|h| (h.session, &h.resource, h.mode)).collect(),
            waits: model.waits.values().collect(),
        }
    }

    /// As things will be when all revocations are over.
    pub(crate) fn without_revoked(model: &'m Model) -> Scene<'m> {
        let lasting = model.holds.values().filter(|hold| hold.revoked_at.is_none());
        Scene {
            holds: lasting.map(|h| (h.session, &h.resource, h.mode)).collect(),
            ..Scene::now(model)
        }
    }

    /// The rule of granting: compatible with every holder and with every earlier waiter.
    pub(crate) fn obstacle(
        &self,
        session: SessionId,
        resource: &Resource,
        mode: LockMode,
        place: Place,
    ) -> Option<Obstacle> {
        let holders = self.holds.iter().filter(|(_, held, _)| *held == resource);
        let taken = if let LockMode::Permit(wanted) = mode {
            let in_use: u64 = holders.map(|(_, _, held)| u64::from(permits(*held))).sum();
            let capacity = self.capacities.get(resource).copied().unwrap_or(0);
            in_use + u64::from(wanted) > u64::from(capacity)
        } else {
            let mut others = holders.filter(|(holder, _, _)| *holder != session);
            others.any(|(_, _, held)| clash(mode, *held))
        };
        let passes = || {
            self.waits.iter().filter(|earlier| earlier.place() < place).any(|earlier| {
                earlier.wants.iter().any(|(other, want)| other == resource && clash(mode, *want))
            })
        };
        if taken {
            Some(Obstacle::Holder)
        } else if passes() {
            Some(Obstacle::Waiter)
        } else {
            None
        }
    }

    /// What stands in the way of a waiter, in any of its queues.
    pub(crate) fn obstacle_of(&self, wait: &Wait) -> Option<Obstacle> {
        let place = wait.place();
        let mut wants = wait.wants.iter();
        wants.find_map(|(resource, mode)| self.obstacle(wait.session, resource, *mode, place))
    }
}
