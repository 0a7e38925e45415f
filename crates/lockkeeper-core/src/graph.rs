//! The wait-for graph: who waits for whom, kept in petgraph as requests queue and leave.
//!
//! A node is a session that waits or is waited for, an edge says why. Each waiter points at its
//! *nearest* blockers only (see `table/edges.rs`), so the graph stays linear in holders and waiters
//! while reaching everybody the full conflict graph would reach.
//!
//! petgraph keeps the nodes and the edges; the searches are written here, because they must be
//! iterative (petgraph's own cycle checks recurse), must see edge kinds, and must give the whole
//! cycle. No result depends on the order in which petgraph happens to list edges: that order is
//! history, and a table rebuilt from its journal has another one.

use crate::{
    TicketId,
    places::{EntryAt, SessionAt},
};
use petgraph::{
    Direction::{self, Incoming, Outgoing},
    stable_graph::{DefaultIx, EdgeIndex, NodeIndex, StableDiGraph, WalkNeighbors},
    visit::{EdgeRef, IntoEdgeReferences},
};

/// Why one session waits for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// A request waits for a resource which the other holds, or waits for earlier, in a mode that
    /// conflicts. `blocker` is the ticket of that hold or wait.
    Lock { ticket: TicketId, resource: EntryAt, blocker: TicketId },
    /// The same for permits: the other *may* have to go first.
    Permit { ticket: TicketId, resource: EntryAt, blocker: TicketId },
    /// It was declared.
    Declared,
}

impl Why {
    /// The request that waits; none for a declared wait.
    pub(crate) fn ticket(&self) -> Option<TicketId> {
        match self {
            Why::Lock { ticket, .. } | Why::Permit { ticket, .. } => Some(*ticket),
            Why::Declared => None,
        }
    }

    /// What it waits for.
    pub(crate) fn resource(&self) -> Option<EntryAt> {
        match self {
            Why::Lock { resource, .. } | Why::Permit { resource, .. } => Some(*resource),
            Why::Declared => None,
        }
    }

    /// The hold or wait in its way.
    pub(crate) fn blocker(&self) -> Option<TicketId> {
        match self {
            Why::Lock { blocker, .. } | Why::Permit { blocker, .. } => Some(*blocker),
            Why::Declared => None,
        }
    }

    /// Whether the other certainly has to go first.
    pub(crate) fn is_definite(&self) -> bool {
        !matches!(self, Why::Permit { .. })
    }

    fn is_of(&self, ticket: TicketId, on: EntryAt) -> bool {
        self.ticket() == Some(ticket) && self.resource() == Some(on)
    }

    fn is_behind(&self, blocker: TicketId, on: EntryAt) -> bool {
        self.blocker() == Some(blocker) && self.resource() == Some(on)
    }
}

/// One end of a search: it takes one edge at a time, so that a hub on one side does not make the
/// other side wait.
struct Walk {
    direction: Direction,
    mark: u32,
    neighbors: Option<WalkNeighbors<DefaultIx>>,
}

impl Walk {
    fn new(direction: Direction, mark: u32) -> Walk {
        Walk { direction, mark, neighbors: None }
    }

    /// The node at the end of the next edge; none when this side has seen everything.
    fn step(
        &mut self,
        graph: &StableDiGraph<SessionAt, Why>,
        stack: &mut Vec<NodeIndex>,
    ) -> Option<NodeIndex> {
        loop {
            if let Some(next) = self.neighbors.as_mut().and_then(|walk| walk.next_node(graph)) {
                return Some(next);
            }
            let node = stack.pop()?;
            self.neighbors = Some(graph.neighbors_directed(node, self.direction).detach());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct WaitForGraph {
    graph: StableDiGraph<SessionAt, Why>,
    /// The node of each session that has one.
    nodes: Vec<Option<NodeIndex>>,
    /// For each node the number of the last search that visited it: saves clearing a set each time.
    visited: Vec<u32>,
    searches: u32,
    /// The two ends of a search, kept to save their memory.
    ahead: Vec<NodeIndex>,
    behind: Vec<NodeIndex>,
}

impl WaitForGraph {
    pub(crate) fn node_count(&self) -> usize {
        self.graph.node_count()
    }

    pub(crate) fn edge_count(&self) -> usize {
        self.graph.edge_count()
    }

    /// Whether the session neither waits nor is waited for.
    pub(crate) fn is_alone(&self, session: SessionAt) -> bool {
        self.node(session).is_none()
    }

    /// Whether anybody waits for the session. If not, it can be on no cycle: the O(1) way out.
    pub(crate) fn is_waited_for(&self, session: SessionAt) -> bool {
        self.node(session)
            .is_some_and(|node| self.graph.neighbors_directed(node, Incoming).next().is_some())
    }

    pub(crate) fn link(&mut self, from: SessionAt, to: SessionAt, why: Why) {
        debug_assert_ne!(from, to, "nobody waits for itself");
        let (from, to) = (self.node_or_new(from), self.node_or_new(to));
        self.graph.add_edge(from, to, why);
    }

    /// Takes away the edges of one request on one resource.
    pub(crate) fn unlink_ticket(&mut self, from: SessionAt, ticket: TicketId, on: EntryAt) {
        let Some(node) = self.node(from) else { return };
        let edges: Vec<EdgeIndex> = self
            .graph
            .edges_directed(node, Outgoing)
            .filter(|edge| edge.weight().is_of(ticket, on))
            .map(|edge| edge.id())
            .collect();
        self.remove(edges);
    }

    /// Takes away all edges of one request.
    pub(crate) fn unlink_request(&mut self, from: SessionAt, ticket: TicketId) {
        let Some(node) = self.node(from) else { return };
        let edges: Vec<EdgeIndex> = self
            .graph
            .edges_directed(node, Outgoing)
            .filter(|edge| edge.weight().ticket() == Some(ticket))
            .map(|edge| edge.id())
            .collect();
        self.remove(edges);
    }

    /// Takes away the edge of a waiter that leads to one hold or wait.
    pub(crate) fn unlink_blocker(&mut self, from: SessionAt, blocker: TicketId, on: EntryAt) {
        let Some(node) = self.node(from) else { return };
        let edge = self
            .graph
            .edges_directed(node, Outgoing)
            .find(|edge| edge.weight().is_behind(blocker, on))
            .map(|edge| edge.id());
        self.remove(edge);
    }

    /// Takes a declared wait away; whether there was one.
    pub(crate) fn unlink_declared(&mut self, from: SessionAt, to: SessionAt) -> bool {
        let found = self.declared_edge(from, to);
        self.remove(found);
        found.is_some()
    }

    pub(crate) fn has_declared(&self, from: SessionAt, to: SessionAt) -> bool {
        self.declared_edge(from, to).is_some()
    }

    /// Whom the session has declared to wait for, in no particular order.
    pub(crate) fn declared_by(&self, from: SessionAt) -> impl Iterator<Item = SessionAt> + '_ {
        self.edges_from(from).filter(|(_, why)| **why == Why::Declared).map(|(to, _)| to)
    }

    /// Who has declared to wait for the session, in no particular order.
    pub(crate) fn declared_on(&self, to: SessionAt) -> impl Iterator<Item = SessionAt> + '_ {
        self.node(to)
            .into_iter()
            .flat_map(|node| self.graph.edges_directed(node, Incoming))
            .filter(|edge| *edge.weight() == Why::Declared)
            .map(|edge| self.graph[edge.source()])
    }

    /// The edges that leave a session, in no particular order.
    pub(crate) fn edges_from(
        &self,
        from: SessionAt,
    ) -> impl Iterator<Item = (SessionAt, &Why)> + '_ {
        self.node(from)
            .into_iter()
            .flat_map(|node| self.graph.edges_directed(node, Outgoing))
            .map(|edge| (self.graph[edge.target()], edge.weight()))
    }

    /// Every edge, in no particular order.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (SessionAt, SessionAt, &Why)> + '_ {
        self.graph
            .edge_references()
            .map(|edge| (self.graph[edge.source()], self.graph[edge.target()], edge.weight()))
    }

    /// Whether some chain of waits leads from the session back to itself. Only says whether, so
    /// the order of edges does not matter and the search may be as fast as it can: it goes forward
    /// from the session and backward from it in turns, and is over as soon as the two meet or
    /// either side has seen everything. So it costs no more than twice the smaller side, be it that
    /// of those it waits for or that of those who wait for it.
    pub(crate) fn is_on_cycle(&mut self, session: SessionAt) -> bool {
        if !self.is_waited_for(session) {
            return false;
        }
        let Some(start) = self.node(session) else { return false };
        let forward = self.begin_search();
        let backward = forward + 1;
        self.ahead.push(start);
        self.behind.push(start);
        let mut front = Walk::new(Outgoing, forward);
        let mut back = Walk::new(Incoming, backward);
        loop {
            let WaitForGraph { graph, visited, ahead, behind, .. } = self;
            for (walk, stack, other) in
                [(&mut front, ahead, backward), (&mut back, behind, forward)]
            {
                let Some(next) = walk.step(graph, stack) else { return false };
                let mark = &mut visited[next.index()];
                if next == start || *mark == other {
                    return true;
                }
                if *mark != walk.mark {
                    *mark = walk.mark;
                    stack.push(next);
                }
            }
        }
    }

    /// The session and everybody it waits for, directly or through others; in search order.
    pub(crate) fn reachable(&mut self, session: SessionAt) -> Vec<SessionAt> {
        let Some(start) = self.node(session) else { return vec![session] };
        let search = self.begin_search();
        self.visited[start.index()] = search;
        let mut found = vec![start];
        let mut at = 0;
        while let Some(&node) = found.get(at) {
            at += 1;
            for next in self.graph.neighbors_directed(node, Outgoing) {
                if self.visited[next.index()] != search {
                    self.visited[next.index()] = search;
                    found.push(next);
                }
            }
        }
        found.into_iter().map(|node| self.graph[node]).collect()
    }

    fn declared_edge(&self, from: SessionAt, to: SessionAt) -> Option<EdgeIndex> {
        let (from, to) = (self.node(from)?, self.node(to)?);
        self.graph
            .edges_connecting(from, to)
            .find(|edge| *edge.weight() == Why::Declared)
            .map(|edge| edge.id())
    }

    /// A number that no node is marked with yet, nor with the one after it.
    fn begin_search(&mut self) -> u32 {
        self.visited.resize(self.graph.capacity().0.max(self.visited.len()), 0);
        self.ahead.clear();
        self.behind.clear();
        if self.searches > u32::MAX - 4 {
            self.searches = 0;
            self.visited.fill(0);
        }
        self.searches += 2;
        self.searches - 1
    }

    fn node(&self, session: SessionAt) -> Option<NodeIndex> {
        self.nodes.get(usize::from(session)).copied().flatten()
    }

    fn node_or_new(&mut self, session: SessionAt) -> NodeIndex {
        let at = usize::from(session);
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, None);
        }
        *self.nodes[at].get_or_insert_with(|| self.graph.add_node(session))
    }

    /// Removes edges, and the nodes that have none left.
    fn remove(&mut self, edges: impl IntoIterator<Item = EdgeIndex>) {
        for edge in edges {
            let Some((from, to)) = self.graph.edge_endpoints(edge) else { continue };
            self.graph.remove_edge(edge);
            for node in [from, to] {
                let is_bare = self.graph.neighbors_directed(node, Outgoing).next().is_none()
                    && self.graph.neighbors_directed(node, Incoming).next().is_none();
                if is_bare && let Some(session) = self.graph.remove_node(node) {
                    self.nodes[usize::from(session)] = None;
                }
            }
        }
        if self.graph.node_count() == 0 {
            self.give_back();
        }
    }

    /// An empty graph keeps no memory of how large it once was.
    fn give_back(&mut self) {
        if self.graph.capacity().0 > 4096 || self.nodes.len() > 4096 {
            *self = WaitForGraph::default();
        }
    }
}
