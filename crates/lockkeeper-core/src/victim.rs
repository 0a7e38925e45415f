//! Who loses in a deadlock.

use crate::{SessionId, TicketId};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt, sync::Arc};

/// What is known of one participant of a deadlock when the victim is chosen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Its session.
    pub session: SessionId,
    /// Its agent's name.
    pub agent: Arc<str>,
    /// The highest priority among its waits; the session's own where it has none.
    pub priority: i8,
    /// Whether it has been a victim so often that it is spared before others.
    pub shielded: bool,
    /// How often it has been a victim since its work began.
    pub aborts: u32,
    /// What it would lose.
    pub work: Work,
    /// The first ticket of its work; survives aborts, so that waiting makes it older.
    pub birth: TicketId,
    /// Whether its request closed the cycle.
    pub is_requester: bool,
}

/// What a session would lose, in coarse buckets, so that small differences decide nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Work {
    /// The number of its holds, as a power of two: 0, 1, 2–3, 4–7, …
    pub holds: u32,
    /// The age of its oldest hold in seconds, as a power of two.
    pub age: u32,
}

impl Work {
    /// The bucket of so many holds, the oldest so many milliseconds old.
    pub fn of(holds: usize, oldest_ms: u64) -> Work {
        let bucket = |n: u64| u64::BITS - n.leading_zeros();
        Work { holds: bucket(holds as u64), age: bucket(oldest_ms / 1000) }
    }
}

/// An order of participants: the lowest loses. Ties are broken by session id, so that any order
/// gives one victim.
pub trait VictimPolicy: fmt::Debug + Send + Sync {
    /// For the report.
    fn name(&self) -> &str;

    /// `Less` when `a` should lose before `b`.
    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering;
}

/// The lowest of `(priority, shielded, work, youngest birth)` loses. The oldest of the top class
/// therefore never does.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastWork;

impl VictimPolicy for LeastWork {
    fn name(&self) -> &str {
        "least_work"
    }

    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        (a.priority, a.shielded, a.work)
            .cmp(&(b.priority, b.shielded, b.work))
            .then_with(|| b.birth.cmp(&a.birth))
    }
}

/// The youngest loses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Youngest;

impl VictimPolicy for Youngest {
    fn name(&self) -> &str {
        "youngest"
    }

    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        b.birth.cmp(&a.birth)
    }
}

/// The lowest priority loses, the youngest among equals.
#[derive(Clone, Copy, Debug, Default)]
pub struct LowestPriority;

impl VictimPolicy for LowestPriority {
    fn name(&self) -> &str {
        "lowest_priority"
    }

    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        a.priority.cmp(&b.priority).then_with(|| b.birth.cmp(&a.birth))
    }
}

/// Whoever closed the cycle loses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requester;

impl VictimPolicy for Requester {
    fn name(&self) -> &str {
        "requester"
    }

    fn order(&self, a: &Candidate, b: &Candidate) -> Ordering {
        b.is_requester.cmp(&a.is_requester)
    }
}

/// The index of the one who loses: the lowest by `policy`, ties by session id.
pub(crate) fn choose(policy: &dyn VictimPolicy, candidates: &[Candidate]) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| {
        policy
            .order(&candidates[a], &candidates[b])
            .then_with(|| candidates[a].session.cmp(&candidates[b].session))
    })
}
