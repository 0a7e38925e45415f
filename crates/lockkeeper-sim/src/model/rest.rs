//! What must hold between two turns.

use super::{
    graph::Reach,
    invariant::{Checked, Invariant, Violation, broken, ensure},
    rules::{clash, permits},
    state::Model,
};
use lockkeeper_core::{EdgeKind, LockMode, SessionId};

impl Model {
    /// Checks the state after a turn in which something happened. Says whether there is a cycle
    /// through permits that is no deadlock.
    pub(super) fn check_rest(&self) -> Result<bool, Violation> {
        self.check_exclusion()?;
        // A circle of nothing but declared waits is one as well.
        let declared = self.sessions.values().any(|session| !session.declared.is_empty());
        match self.waits.is_empty() && !declared {
            true => Ok(false),
            false => self.check_cycles(),
        }
    }

    /// I1: holders are pairwise compatible, no slot is given twice.
    fn check_exclusion(&self) -> Checked {
        let holds: Vec<_> = self.holds.values().collect();
        for (at, a) in holds.iter().enumerate() {
            for b in holds[..at].iter().filter(|b| b.resource == a.resource) {
                let both = [a.mode, b.mode];
                let counted = both.iter().all(|mode| matches!(mode, LockMode::Permit(_)));
                let beside = match counted {
                    true => a.slots.iter().all(|slot| !b.slots.contains(slot)),
                    false => !clash(a.mode, b.mode),
                };
                ensure(beside && a.session != b.session, Invariant::I1, || {
                    let (x, y) = (self.agent(a.session), self.agent(b.session));
                    format!("{x} ({}) and {y} ({}) both hold {}", a.mode, b.mode, a.resource)
                })?;
                let shared = !counted && a.token != b.token;
                ensure(!shared, Invariant::I2, || {
                    format!("{} and {} read {} with two tokens", a.lock, b.lock, a.resource)
                })?;
            }
            ensure(a.slots.len() == permits(a.mode) as usize, Invariant::I1, || {
                format!("{} has {} and the slots {:?}", a.lock, a.mode, a.slots)
            })?;
        }
        Ok(())
    }

    /// I6: nobody waits in a circle; one through permits must be reducible.
    fn check_cycles(&self) -> Result<bool, Violation> {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        let edges = self.edges();
        let all = edges.iter().map(|edge| (edge.from, edge.to));
        let (reach, _) = Reach::of(&ids, all);
        if reach.on_a_cycle(ids.len()).is_none() {
            return Ok(false);
        }
        let definite = edges.iter().filter(|edge| edge.kind != EdgeKind::Permit);
        let (reach, _) = Reach::of(&ids, definite.map(|edge| (edge.from, edge.to)));
        if let Some(at) = reach.on_a_cycle(ids.len()) {
            let who = self.agent(ids[at]);
            return broken(Invariant::I6, format!("{who} ({}) waits in a circle", ids[at]));
        }
        let stuck = self.irreducible();
        ensure(stuck.is_empty(), Invariant::I6, || {
            let names: Vec<_> = stuck.iter().map(|id| self.agent(*id)).collect();
            format!("{names:?} can never finish: a deadlock through permits")
        })?;
        Ok(true)
    }
}
