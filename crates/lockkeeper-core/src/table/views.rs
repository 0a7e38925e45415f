//! What a table shows of itself. Nothing here changes anything.

use super::{LockTable, state::State};
use crate::{
    Contention, Grant, Holder, Inspection, LeaseCounts, LockId, Resource, SessionId, SessionView,
    Stats, Task, Timestamp, WaitEdge, WaitGraph, WaitNode, Waiter,
    places::{EntryAt, SessionAt},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

impl LockTable {
    /// A resource with its holders and its queue; none if nobody holds it, waits for it, or has
    /// given it a capacity.
    pub fn inspect(&self, resource: &Resource) -> Option<Inspection> {
        let at = self.state.entry(resource)?;
        Some(Inspection {
            resource: resource.clone(),
            capacity: self.state.entries[at].slots.as_ref().map(|slots| slots.total),
            holders: self.state.holders_of(at),
            queue: self.state.waiters(at),
        })
    }

    /// Who holds a resource; the earliest, if several do.
    pub fn owner(&self, resource: &Resource) -> Option<Holder> {
        self.holders(resource).into_iter().next()
    }

    /// Who holds a resource, the earliest first.
    pub fn holders(&self, resource: &Resource) -> Vec<Holder> {
        self.state.entry(resource).map_or_else(Vec::new, |at| self.state.holders_of(at))
    }

    /// Who waits for a resource, the next first.
    pub fn queue(&self, resource: &Resource) -> Vec<Waiter> {
        self.state.entry(resource).map_or_else(Vec::new, |at| self.state.waiters(at))
    }

    /// All holds, by resource.
    pub fn list(&self) -> Vec<Holder> {
        let mut holders: Vec<Holder> =
            self.state.holds.iter().map(|(at, _)| self.state.holder(at)).collect();
        holders.sort_by(|a, b| (&a.resource, a.lock).cmp(&(&b.resource, b.lock)));
        holders
    }

    /// A hold as its holder knows it, token included.
    pub fn grant(&self, lock: LockId) -> Option<Grant> {
        self.state.hold(lock).map(|at| self.state.grant_of(at))
    }

    /// A task as it is; none if nobody has claimed it yet, or it is forgotten.
    pub fn task(&self, task: &Resource) -> Option<Task> {
        self.state.task(task)
    }

    /// Every task the table remembers, in order.
    pub fn tasks(&self) -> Vec<Task> {
        self.state.tasks.keys().filter_map(|task| self.state.task(task)).collect()
    }

    /// Every resource the table knows of, in order.
    pub fn resources(&self) -> Vec<Resource> {
        let mut resources: Vec<Resource> =
            self.state.entries.iter().map(|(_, entry)| entry.resource.clone()).collect();
        resources.sort();
        resources
    }

    /// Every open session, the earliest first.
    pub fn sessions(&self) -> Vec<SessionView> {
        let mut sessions: Vec<SessionView> =
            self.state.sessions.iter().map(|(at, _)| self.state.session_view(at)).collect();
        sessions.sort_by_key(|session| session.session);
        sessions
    }

    /// The agent's name of an open session.
    pub fn agent_of(&self, session: SessionId) -> Option<Arc<str>> {
        self.state.session(session).map(|at| self.state.sessions[at].agent.clone())
    }

    /// The resources people wait for, the longest queue first.
    pub fn contention(&self, now: Timestamp) -> Vec<Contention> {
        let contended = self.state.entries.iter().filter(|(_, entry)| !entry.queue.is_empty());
        let mut found: Vec<Contention> = contended
            .map(|(_, entry)| {
                let waits =
                    entry.queue.iter().map(|(_, queuer)| &self.state.tickets[queuer.ticket]);
                let first = waits.map(|ticket| ticket.queued_at).min();
                Contention {
                    resource: entry.resource.clone(),
                    holders: entry.holders.len(),
                    waiting: entry.queue.len(),
                    longest_wait_ms: first.map_or(0, |first| now.since(first)),
                }
            })
            .collect();
        found.sort_by(|a, b| b.waiting.cmp(&a.waiting).then_with(|| a.resource.cmp(&b.resource)));
        found
    }

    /// The holds that are at least this old, by resource.
    pub fn stale(&self, now: Timestamp, older_than: Duration) -> Vec<Holder> {
        let mut holders = self.list();
        holders.retain(|holder| holder.acquired_at.after(older_than) <= now);
        holders
    }

    /// The holds whose lease ends within this time, or has ended and is about to be noticed, by
    /// resource.
    pub fn near_expiry(&self, now: Timestamp, within: Duration) -> Vec<Holder> {
        let mut holders = self.list();
        holders.retain(|holder| holder.expires_at <= now.after(within));
        holders
    }

    /// How many leases end `soon`, have ended, or have gone on for `long`.
    pub fn lease_counts(&self, now: Timestamp, soon: Duration, long: Duration) -> LeaseCounts {
        let mut counts = LeaseCounts { held: self.state.holds.len(), ..LeaseCounts::default() };
        for (_, hold) in self.state.holds.iter() {
            let is_over = hold.expires_at <= now;
            counts.expired += usize::from(is_over);
            counts.near_expiry += usize::from(!is_over && hold.expires_at <= now.after(soon));
            counts.stale += usize::from(hold.granted_at.after(long) <= now);
        }
        counts
    }

    /// The wait-for graph, in an order that depends on nothing but the ids.
    pub fn wait_graph(&self) -> WaitGraph {
        let mut nodes: BTreeMap<crate::SessionId, WaitNode> = BTreeMap::new();
        let mut edges = Vec::new();
        for (from, to, why) in self.state.graph.edges() {
            for at in [from, to] {
                let session = &self.state.sessions[at];
                let node = WaitNode { session: session.id, agent: session.agent.clone() };
                nodes.insert(session.id, node);
            }
            edges.push(WaitEdge {
                from: self.state.sessions[from].id,
                to: self.state.sessions[to].id,
                kind: self.state.kind_of(why),
                resource: why.resource().map(|at| self.state.entries[at].resource.clone()),
            });
        }
        edges.sort();
        WaitGraph { nodes: nodes.into_values().collect(), edges, cycle: vec![], victim: None }
    }

    /// How large the table is.
    pub fn stats(&self) -> Stats {
        let state = &self.state;
        Stats {
            sessions: state.sessions.len(),
            resources: state.entries.len(),
            capacities: state.capacities,
            tasks: state.tasks.len(),
            holds: state.holds.len(),
            tickets: state.tickets.len(),
            declared_waits: state.declared_waits,
            graph_nodes: state.graph.node_count(),
            graph_edges: state.graph.edge_count(),
            deadlines: state.deadlines.len(),
            remembered: state.sessions.iter().map(|(_, session)| session.memory.len()).sum(),
        }
    }
}

impl State {
    fn waiters(&self, at: EntryAt) -> Vec<Waiter> {
        let queue = self.entries[at].queue.iter();
        queue
            .map(|(_, queuer)| {
                let ticket = &self.tickets[queuer.ticket];
                let session = &self.sessions[queuer.session];
                Waiter {
                    ticket: ticket.id,
                    session: session.id,
                    agent: session.agent.clone(),
                    mode: queuer.mode,
                    upgrade: ticket.upgrade,
                    batch: ticket.wants.len(),
                    queued_at: ticket.queued_at,
                    wait_until: ticket.wait_until,
                    poll_by: ticket.poll_by,
                    reason: ticket.reason.clone(),
                }
            })
            .collect()
    }

    fn session_view(&self, at: SessionAt) -> SessionView {
        let session = &self.sessions[at];
        let declared = self.graph.declared_by(at).map(|to| self.sessions[to].id);
        let mut declared: Vec<_> = declared.collect();
        declared.sort_unstable();
        SessionView {
            session: session.id,
            agent: session.agent.clone(),
            kind: session.kind,
            priority: session.priority,
            birth: session.birth,
            aborts: session.aborts,
            holds: session.holds.len(),
            tickets: session.tickets.ids().collect(),
            declared,
        }
    }
}
