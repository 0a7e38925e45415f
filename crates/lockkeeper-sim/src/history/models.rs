//! Five published models of locks, each as what may happen one thing after the other.

use super::Hold;
use lockkeeper_core::{LockId, LockMode, SessionId};
use std::{collections::BTreeMap, fmt};

/// What a lock is, seen one operation at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockModel {
    /// A mutex that knows its owner: only the owner gives it back, and nobody takes it twice.
    Mutex,
    /// One whose owner may take it several times, and gives it back as often.
    Reentrant {
        /// How many times at most.
        max: u32,
    },
    /// A mutex with an owner whose grants carry a token, each larger than all before.
    Fenced,
    /// One whose owner may take it several times, always with the token of the first time.
    ReentrantFenced {
        /// How many times at most.
        max: u32,
    },
    /// So many permits; each is given back by whoever took it.
    Semaphore {
        /// How many.
        permits: u32,
    },
}

impl fmt::Display for LockModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockModel::Mutex => f.write_str("mutex with an owner"),
            LockModel::Reentrant { .. } => f.write_str("re-entrant mutex"),
            LockModel::Fenced => f.write_str("fenced mutex"),
            LockModel::ReentrantFenced { .. } => f.write_str("re-entrant fenced mutex"),
            LockModel::Semaphore { permits } => write!(f, "semaphore of {permits}"),
        }
    }
}

impl LockModel {
    /// Whether tokens say in which order there were grants.
    pub(super) fn has_tokens(self) -> bool {
        matches!(
            self,
            LockModel::Fenced | LockModel::ReentrantFenced { .. } | LockModel::Semaphore { .. }
        )
    }

    /// How many times one owner may take it.
    pub(super) fn max(self) -> u32 {
        match self {
            LockModel::Reentrant { max } | LockModel::ReentrantFenced { max } => max,
            _ => 1,
        }
    }

    /// How many may be inside at once.
    pub(super) fn permits(self) -> u32 {
        match self {
            LockModel::Semaphore { permits } => permits,
            _ => 1,
        }
    }
}

/// One operation of somebody.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelOp {
    /// Who.
    pub client: SessionId,
    /// What.
    pub kind: Kind,
    /// Of which hold.
    pub hold: LockId,
    /// With which token, where that is known.
    pub token: Option<u64>,
    /// How many permits.
    pub permits: u32,
    /// It happened after this moment,
    pub from: u64,
    /// and before this one. None: if it happened at all, then any time after `from`.
    pub to: Option<u64>,
}

/// What can be done to a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It is taken.
    Acquire,
    /// Its owner gives it back.
    Release,
    /// It is taken away from its owner: the lease is over, or the owner is dead. All of it.
    Lose,
}

impl fmt::Display for ModelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind {
            Kind::Acquire => "acquires",
            Kind::Release => "releases",
            Kind::Lose => "loses",
        };
        write!(f, "session {} {verb} {}", self.client, self.hold)?;
        if let Some(token) = self.token {
            write!(f, " with token {token}")?;
        }
        write!(f, " after {}", super::read::Seconds(self.from))?;
        match self.to {
            Some(to) => write!(f, " and by {}", super::read::Seconds(to)),
            None => f.write_str(", if at all"),
        }
    }
}

/// A lock at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    /// Whose it is: how often it was taken, with which token, how many permits.
    holders: BTreeMap<LockId, (SessionId, u32, u32)>,
    /// The largest token so far.
    newest: u64,
}

impl State {
    /// Whether this hold is there.
    pub fn has(&self, hold: LockId) -> bool {
        self.holders.contains_key(&hold)
    }
}

impl LockModel {
    /// What the lock is like after an operation; nothing if it is not allowed now.
    pub fn step(self, state: &State, op: &ModelOp) -> Option<State> {
        let mut next = state.clone();
        match (op.kind, state.holders.get(&op.hold).copied()) {
            (Kind::Acquire, None) => {
                let used: u32 = state.holders.values().map(|holder| holder.2).sum();
                let fits = used.checked_add(op.permits)? <= self.permits();
                let grows = !self.has_tokens() || op.token.is_none_or(|token| token > state.newest);
                if !fits || !grows {
                    return None;
                }
                if self.has_tokens() {
                    next.newest = op.token.unwrap_or(state.newest);
                }
                next.holders.insert(op.hold, (op.client, 1, op.permits));
            }
            (Kind::Acquire, Some((client, count, permits))) => {
                let same_token = !self.has_tokens() || op.token.is_none_or(|it| it == state.newest);
                if client != op.client || count >= self.max() || !same_token {
                    return None;
                }
                next.holders.insert(op.hold, (client, count + 1, permits));
            }
            (_, None) => return None,
            (_, Some((client, ..))) if client != op.client => return None,
            (Kind::Release, Some((client, count, permits))) if count > 1 => {
                next.holders.insert(op.hold, (client, count - 1, permits));
            }
            (Kind::Release | Kind::Lose, Some(_)) => {
                next.holders.remove(&op.hold);
            }
        }
        Some(next)
    }
}

/// The operations that the holds of one resource are made of. What was never granted has left no
/// trace that a model could miss.
pub fn ops_of(holds: &[&Hold]) -> Vec<ModelOp> {
    let mut ops = Vec::new();
    for hold in holds {
        let permits = match hold.mode {
            LockMode::Permit(permits) => permits,
            _ => 1,
        };
        let op = |kind, from, to| ModelOp {
            client: hold.session,
            kind,
            hold: hold.lock,
            token: Some(hold.token.get()),
            permits,
            from,
            to,
        };
        for share in &hold.shares {
            ops.push(op(Kind::Acquire, share.acquire.from, share.acquire.to));
        }
        for release in &hold.releases {
            ops.push(op(Kind::Release, release.from, release.to));
        }
        if hold.releases.len() < hold.shares.len() {
            ops.push(op(Kind::Lose, hold.end, None));
        }
    }
    ops.sort_by_key(|op| op.from);
    ops
}
