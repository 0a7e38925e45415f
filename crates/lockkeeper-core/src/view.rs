//! What a table shows of itself. Views change nothing and name no tokens.

use crate::{EdgeKind, Holder, LockMode, Resource, SessionId, SessionKind, TicketId, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One resource: its holders and its queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Inspection {
    /// Which.
    pub resource: Resource,
    /// Its declared slots.
    pub capacity: Option<u32>,
    /// Who holds it, the earliest first.
    pub holders: Vec<Holder>,
    /// Who waits for it, the next first.
    pub queue: Vec<Waiter>,
}

/// One request in one queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Waiter {
    /// Its place.
    pub ticket: TicketId,
    /// Whose.
    pub session: SessionId,
    /// The agent's name.
    pub agent: Arc<str>,
    /// The mode asked for.
    pub mode: LockMode,
    /// Whether it holds the resource already and turns it exclusive.
    pub upgrade: bool,
    /// How many resources it waits for in all.
    pub batch: usize,
    /// Since when.
    pub queued_at: Timestamp,
    /// Until when at most.
    pub wait_until: Timestamp,
    /// When the ticket is dropped unless polled; none while a call waits on it.
    pub poll_by: Option<Timestamp>,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// One session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionView {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub agent: Arc<str>,
    /// How it proves that it lives.
    pub kind: SessionKind,
    /// Its own priority.
    pub priority: i8,
    /// The first ticket of its present work.
    pub birth: Option<TicketId>,
    /// How often that work has been a victim.
    pub aborts: u32,
    /// How many holds it has.
    pub holds: usize,
    /// The tickets it waits with, the earliest first.
    pub tickets: Vec<TicketId>,
    /// Whom it has declared to wait for.
    pub declared: Vec<SessionId>,
}

/// A resource people queue for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Contention {
    /// Which.
    pub resource: Resource,
    /// How many hold it.
    pub holders: usize,
    /// How many wait.
    pub waiting: usize,
    /// For how long the first of them has waited, in milliseconds.
    pub longest_wait_ms: u64,
}

/// How the leases of a table stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LeaseCounts {
    /// Holds in all.
    pub held: usize,
    /// Those whose lease ends soon, the ended ones not included.
    pub near_expiry: usize,
    /// Those whose lease has ended and is about to be noticed.
    pub expired: usize,
    /// Those that are held for long.
    pub stale: usize,
}

/// The size of a table. At rest everything but `sessions`, `capacities` and `tasks` is 0, and with
/// the sessions ended `remembered` is, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a count of what its name says")]
pub struct Stats {
    pub sessions: usize,
    pub resources: usize,
    pub capacities: usize,
    pub tasks: usize,
    pub holds: usize,
    pub tickets: usize,
    pub declared_waits: usize,
    pub graph_nodes: usize,
    pub graph_edges: usize,
    pub deadlines: usize,
    pub remembered: usize,
}

/// The wait-for graph at one moment, for people and for tests. Each waiter shows its nearest
/// blockers: whoever else blocks it is reached through them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WaitGraph {
    /// Everybody who waits or is waited for.
    pub nodes: Vec<WaitNode>,
    /// Who waits for whom.
    pub edges: Vec<WaitEdge>,
    /// The sessions on a cycle, in its order, if it is the picture of a deadlock.
    pub cycle: Vec<SessionId>,
    /// Who lost.
    pub victim: Option<SessionId>,
}

/// A session in the picture.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WaitNode {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub agent: Arc<str>,
}

/// An edge in the picture: `from` waits for `to`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WaitEdge {
    /// Who waits.
    pub from: SessionId,
    /// For whom.
    pub to: SessionId,
    /// Why.
    pub kind: EdgeKind,
    /// Over what; none for a declared wait.
    pub resource: Option<Resource>,
}
