//! What a session remembers of its finished requests.
//!
//! The memory is a ring per session, so that one that lives for months remembers no more than one
//! that lives for a minute.

use super::state::State;
use crate::{LockId, Outcome, RequestId, TicketId, places::SessionAt};
use std::collections::VecDeque;

/// A finished request, so that asking again changes nothing.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) request_id: Option<RequestId>,
    pub(super) ticket: Option<TicketId>,
    pub(super) outcome: Outcome,
}

/// The finished requests of a session, the latest last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    finished: VecDeque<Remembered>,
    /// A piece of the request id of each, side by side: nearly every request is a new one, and what
    /// settles that is read in one go.
    pieces: VecDeque<u32>,
}

impl Memory {
    pub(super) fn len(&self) -> usize {
        self.finished.len()
    }

    /// What is remembered, the latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Remembered> {
        self.finished.iter().rev()
    }

    /// The latest one with this request id.
    pub(super) fn with_request(&self, request: RequestId) -> Option<&Remembered> {
        let piece = piece_of(Some(request));
        // No early way out: so it is a few wide comparisons.
        let has = |some: &[u32]| some.iter().fold(false, |found, &one| found | (one == piece));
        let (front, back) = self.pieces.as_slices();
        match has(front) | has(back) {
            true => self.latest().find(|one| one.request_id == Some(request)),
            false => None,
        }
    }

    fn push(&mut self, one: Remembered, max: usize) {
        self.pieces.push_back(piece_of(one.request_id));
        self.finished.push_back(one);
        while self.finished.len() > max {
            self.finished.pop_front();
            self.pieces.pop_front();
        }
    }

    fn retain(&mut self, keep: impl FnMut(&Remembered) -> bool) {
        self.finished.retain(keep);
        self.pieces = self.finished.iter().map(|one| piece_of(one.request_id)).collect();
    }
}

fn piece_of(request: Option<RequestId>) -> u32 {
    request.map_or(0, |request| request.get() as u32)
}

/// What a request id was used for. It cannot be used for anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Acquire,
    Upgrade,
    Release,
    Renew,
    Downgrade,
    Claim,
    Finish,
}

impl Outcome {
    /// Whether a request of this kind can have ended like this.
    pub(super) fn is_of(&self, verb: Verb) -> bool {
        match self {
            Outcome::Granted(_) => matches!(verb, Verb::Acquire | Verb::Claim),
            Outcome::TaskMoved(_) => verb == Verb::Finish,
            Outcome::Converted(_) => matches!(verb, Verb::Upgrade | Verb::Downgrade),
            Outcome::Refused(_) => matches!(verb, Verb::Acquire | Verb::Upgrade),
            Outcome::Released(..) => verb == Verb::Release,
            Outcome::Renewed(..) => verb == Verb::Renew,
        }
    }
}

impl State {
    /// Adds a hold to what a request got; the members of a batch come one by one.
    pub(super) fn remember_grant(
        &mut self,
        session: SessionAt,
        ticket: TicketId,
        request_id: Option<crate::RequestId>,
        lock: LockId,
    ) {
        if request_id.is_none() && !self.is_parked(ticket) {
            return;
        }
        if let Some(last) = self.sessions[session].memory.finished.back_mut()
            && last.ticket == Some(ticket)
            && let Outcome::Granted(locks) = &mut last.outcome
        {
            locks.push(lock);
            return;
        }
        self.remember(session, request_id, Some(ticket), Outcome::Granted(vec![lock]));
    }

    /// Whether the asker knows the ticket and may come back for the outcome.
    pub(super) fn is_parked(&self, ticket: TicketId) -> bool {
        self.ticket(ticket).is_some_and(|at| self.tickets[at].parked)
    }

    /// Takes over what a store remembers: the whole outcome, whatever is known of it by now.
    #[inline(never)]
    pub(super) fn remember_again(
        &mut self,
        session: SessionAt,
        request_id: Option<crate::RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    ) {
        let is_it = |one: &Remembered| (one.request_id, one.ticket) == (request_id, ticket);
        self.sessions[session].memory.retain(|one| !is_it(one));
        self.remember(session, request_id, ticket, outcome);
    }

    pub(super) fn remember(
        &mut self,
        session: SessionAt,
        request_id: Option<crate::RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    ) {
        let one = Remembered { request_id, ticket, outcome };
        self.sessions[session].memory.push(one, self.remembered_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of several requests with one piece, also with none, the right one is found; and none that
    /// the ring has let go, or that was taken out.
    #[test]
    fn a_request_is_found_if_and_only_if_it_is_remembered() {
        const MAX: usize = 5;
        let id_of = |n: u64| (n > 0).then(|| RequestId::new(u128::from(n % 3) << 64 | 7));
        let steps = prop::collection::vec((any::<bool>(), 0..8_u64), 0..40);
        proptest!(|(steps in steps)| {
            let (mut memory, mut plain) = (Memory::default(), Vec::new());
            for (at, (is_new, n)) in steps.into_iter().enumerate() {
                let (request_id, ticket) = (id_of(n), Some(TicketId::from_u64(at as u64)));
                if is_new {
                    let outcome = Outcome::Granted(Vec::new());
                    memory.push(Remembered { request_id, ticket, outcome }, MAX);
                    plain.push((request_id, ticket));
                    plain.drain(..plain.len().saturating_sub(MAX));
                } else {
                    memory.retain(|one| one.request_id != request_id);
                    plain.retain(|one| one.0 != request_id);
                }
                prop_assert_eq!(memory.len(), plain.len());
                prop_assert_eq!(memory.pieces.len(), plain.len());
                for id in (0..8).filter_map(id_of) {
                    let wanted = plain.iter().rev().find(|one| one.0 == Some(id));
                    let found = memory.with_request(id).map(|one| one.ticket);
                    prop_assert_eq!(found, wanted.map(|one| one.1));
                }
            }
        });
    }
}
