//! Finds the deadlock that a session is on, and the cycle that shows it.

use super::{bystanders::is_one_wait, state::State};
use crate::{
    LockMode,
    graph::Why,
    places::{EntryAt, SessionAt},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A deadlock: a cycle of sessions, the requester first.
pub(super) struct Deadlock {
    pub(super) steps: Vec<Step>,
    /// Whether it took a reduction to be sure of it.
    pub(super) reduced: bool,
}

/// One step of a cycle: `session` waits, because of `why`, for the session of the next step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) session: SessionAt,
    pub(super) why: Why,
}

impl State {
    /// The deadlock that a session is on. First the fast question whether there is any cycle; only
    /// then the search for the one to report.
    pub(super) fn find_deadlock(&mut self, requester: SessionAt) -> Option<Deadlock> {
        if !self.graph.is_on_cycle(requester) {
            return None;
        }
        let definite = |session| self.definite_edges(session);
        if let Some(steps) = self.shortest_cycle(requester, definite) {
            return Some(Deadlock { steps, reduced: false });
        }
        let stuck = self.irreducible(requester);
        if !stuck.contains(&requester) {
            return None;
        }
        let steps = self.shortest_cycle(requester, |session| self.stuck_edges(session, &stuck))?;
        Some(Deadlock { steps, reduced: true })
    }

    fn definite_edges(&self, session: SessionAt) -> Vec<(SessionAt, Why)> {
        let edges = self.graph.edges_from(session).filter(|(_, why)| why.is_definite());
        edges.map(|(to, why)| (to, *why)).collect()
    }

    /// The edges between those who are stuck. The graph leads from one who waits for permits to
    /// another through whoever stands between them, stuck or not; here it must be the direct edge.
    fn stuck_edges(
        &self,
        session: SessionAt,
        stuck: &BTreeSet<SessionAt>,
    ) -> Vec<(SessionAt, Why)> {
        let mut edges = self.definite_edges(session);
        for ticket in self.sessions[session].tickets.places() {
            let ticket = &self.tickets[ticket];
            for want in &ticket.wants {
                if !matches!(want.mode, LockMode::Permit(_)) {
                    continue;
                }
                let resource = want.entry;
                let entry = &self.entries[resource];
                let holds = entry.holders.iter().map(|(holder, hold)| (holder, &self.holds[hold]));
                let holds = holds.filter(|(_, hold)| hold.revoked_at.is_none());
                let earlier = entry.queue.all_before(ticket.place(), want.mode.class().conflicts());
                let waits = earlier.map(|queuer| (queuer.session, self.tickets[queuer.ticket].id));
                let blockers = holds.map(|(holder, hold)| (holder, hold.ticket)).chain(waits);
                edges.extend(blockers.map(|(to, blocker)| {
                    (to, Why::Permit { ticket: ticket.id, resource, blocker })
                }));
            }
        }
        edges.retain(|(to, _)| stuck.contains(to) && *to != session);
        edges
    }

    /// A shortest cycle through `start`. It is canonical: where there is a choice the lower ids go
    /// first, never the order in memory, which a table rebuilt from its journal does not share.
    /// Of two edges between the same two the one that stays in the queue through which the cycle
    /// came goes first, so that whoever only stands in that queue is known for it.
    fn shortest_cycle(
        &self,
        start: SessionAt,
        edges_from: impl Fn(SessionAt) -> Vec<(SessionAt, Why)>,
    ) -> Option<Vec<Step>> {
        let mut came_from: BTreeMap<SessionAt, Step> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(session) = queue.pop_front() {
            let mut edges = edges_from(session);
            let arrives = came_from.get(&session).map(|step| step.why);
            edges.sort_by_cached_key(|(to, why)| {
                let name = |entry: EntryAt| self.entries[entry].resource.clone();
                let leaves_queue = !arrives.is_some_and(|arrives| is_one_wait(&arrives, why));
                let ids = (self.sessions[*to].id, leaves_queue, why.ticket(), why.blocker());
                (ids, why.resource().map(name))
            });
            for (to, why) in edges {
                if to == start {
                    return Some(trace(&came_from, Step { session, why }, start));
                }
                came_from.entry(to).or_insert_with(|| {
                    queue.push_back(to);
                    Step { session, why }
                });
            }
        }
        None
    }
}

/// Walks back from the step that came home.
fn trace(came_from: &BTreeMap<SessionAt, Step>, last: Step, start: SessionAt) -> Vec<Step> {
    let mut steps = vec![last];
    let mut at = last.session;
    while at != start
        && let Some(&step) = came_from.get(&at)
    {
        steps.push(step);
        at = step.session;
    }
    steps.reverse();
    steps
}
