//! Who waits for whom, written out in full: every pair, every reason.

use super::{
    rules::{Scene, clash},
    state::Model,
};
use lockkeeper_core::{EdgeKind, LockId, LockMode, Resource, SessionId, TicketId};
use std::collections::BTreeSet;

/// One reason for which a session waits for another one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Edge<'m> {
    pub(crate) from: SessionId,
    pub(crate) to: SessionId,
    pub(crate) kind: EdgeKind,
    pub(crate) resource: Option<&'m Resource>,
    pub(crate) ticket: Option<TicketId>,
    pub(crate) hold: Option<LockId>,
}

impl Model {
    /// Every edge of the conflict graph. A hold under revocation ends by itself: nobody waits for
    /// its owner.
    pub(crate) fn edges(&self) -> Vec<Edge<'_>> {
        let mut edges = Vec::new();
        for wait in self.waits.values() {
            for (resource, mode) in &wait.wants {
                let edge = |to, kind, hold| Edge {
                    from: wait.session,
                    to,
                    kind,
                    resource: Some(resource),
                    ticket: Some(wait.ticket),
                    hold,
                };
                let permit = matches!(mode, LockMode::Permit(_));
                for hold in self.holds_of(resource) {
                    let lasts = hold.revoked_at.is_none() && hold.session != wait.session;
                    if lasts && clash(*mode, hold.mode) {
                        let kind = if permit { EdgeKind::Permit } else { EdgeKind::Hard };
                        edges.push(edge(hold.session, kind, Some(hold.lock)));
                    }
                }
                for earlier in self.waits.values().filter(|other| other.place() < wait.place()) {
                    if earlier.mode_for(resource).is_some_and(|ahead| clash(*mode, ahead)) {
                        let kind = if permit { EdgeKind::Permit } else { EdgeKind::Soft };
                        edges.push(edge(earlier.session, kind, None));
                    }
                }
            }
        }
        for (id, session) in &self.sessions {
            edges.extend(session.declared.iter().map(|on| Edge {
                from: *id,
                to: *on,
                kind: EdgeKind::Declared,
                resource: None,
                ticket: None,
                hold: None,
            }));
        }
        edges
    }

    /// Who can never finish, if everybody who needs nothing more finishes and gives back what it
    /// holds, and the rule of granting does the rest.
    pub(crate) fn irreducible(&self) -> BTreeSet<SessionId> {
        let mut scene = Scene::without_revoked(self);
        let mut unfinished: BTreeSet<SessionId> = self.sessions.keys().copied().collect();
        loop {
            let before = (unfinished.len(), scene.waits.len());
            let can_finish: Vec<SessionId> = unfinished
                .iter()
                .copied()
                .filter(|id| scene.waits.iter().all(|wait| wait.session != *id))
                .filter(|id| self.sessions[id].declared.iter().all(|on| !unfinished.contains(on)))
                .collect();
            for id in can_finish {
                unfinished.remove(&id);
                scene.holds.retain(|(holder, _, _)| *holder != id);
            }
            let grantable = scene.waits.iter().position(|w| scene.obstacle_of(w).is_none());
            if let Some(at) = grantable {
                let wait = scene.waits.remove(at);
                let granted = wait.wants.iter().map(|(what, mode)| (wait.session, what, *mode));
                scene.holds.extend(granted);
            }
            if before == (unfinished.len(), scene.waits.len()) {
                return unfinished;
            }
        }
    }
}

/// Who reaches whom, as rows of bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    words: usize,
    bits: Vec<u64>,
}

impl Reach {
    /// The transitive closure of the edges between `ids`, which are sorted. An edge to somebody
    /// else is dropped and counted.
    pub(crate) fn of(
        ids: &[SessionId],
        edges: impl Iterator<Item = (SessionId, SessionId)>,
    ) -> (Reach, usize) {
        let words = ids.len().div_ceil(64);
        let mut reach = Reach { words, bits: vec![0; ids.len() * words] };
        let mut strangers = 0;
        for (from, to) in edges {
            match (ids.binary_search(&from), ids.binary_search(&to)) {
                (Ok(from), Ok(to)) => reach.bits[from * words + to / 64] |= 1 << (to % 64),
                _ => strangers += 1,
            }
        }
        for via in 0..ids.len() {
            for from in 0..ids.len() {
                if reach.has(from, via) {
                    for word in 0..words {
                        reach.bits[from * words + word] |= reach.bits[via * words + word];
                    }
                }
            }
        }
        (reach, strangers)
    }

    /// Whether one reaches the other.
    pub(crate) fn has(&self, from: usize, to: usize) -> bool {
        self.bits[from * self.words + to / 64] & (1 << (to % 64)) != 0
    }

    /// Somebody who reaches itself.
    pub(crate) fn on_a_cycle(&self, count: usize) -> Option<usize> {
        (0..count).find(|&one| self.has(one, one))
    }
}
