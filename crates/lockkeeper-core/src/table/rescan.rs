//! Who may be let in, and who is next.
//!
//! One rule: a request is granted iff it is compatible with every holder and with every earlier
//! waiter. Nobody barges, a writer is never starved, and readers who stand together enter together.

use super::{
    LockTable,
    acquire::{Wanted, Wants},
    queue::Place,
    state::{State, Ticket, Want},
};
use crate::{
    Answer, Fact, Grant, Granted, LeaveCause, LockId, LockMode, Refusal, Resource, Token,
    mode::ClassSet,
    places::{EntryAt, SessionAt, TicketAt},
};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What a grant is made of, whether its request waited or not.
pub(super) struct Terms {
    pub(super) ticket: crate::TicketId,
    pub(super) session: SessionAt,
    pub(super) lease_ms: u64,
    pub(super) wait_ms: u64,
    pub(super) reason: Option<std::sync::Arc<str>>,
    pub(super) metadata: Option<std::sync::Arc<str>>,
    pub(super) request_id: Option<crate::RequestId>,
    pub(super) fleeting: bool,
}

impl Terms {
    pub(super) fn of(ticket: &Ticket, now: crate::Timestamp) -> Terms {
        Terms {
            ticket: ticket.id,
            session: ticket.session,
            lease_ms: ticket.lease_ms,
            wait_ms: now.since(ticket.queued_at),
            reason: ticket.reason.clone(),
            metadata: ticket.metadata.clone(),
            request_id: ticket.request_id,
            fleeting: false,
        }
    }
}

impl State {
    /// Whether the rule lets a request in on one resource.
    pub(super) fn admits(
        &self,
        at: EntryAt,
        session: SessionAt,
        place: Place,
        mode: LockMode,
    ) -> bool {
        !self.is_held_against(at, session, mode)
            && !self.entries[at].queue.any_before(place, mode.class().conflicts())
    }

    fn admits_all(&self, ticket: &Ticket) -> bool {
        let place = ticket.place();
        ticket.wants.iter().all(|want| self.admits(want.entry, ticket.session, place, want.mode))
    }

    /// Whether a holder stands in the way. The session's own hold does not: it has one only when
    /// it turns that hold exclusive.
    fn is_held_against(&self, at: EntryAt, session: SessionAt, mode: LockMode) -> bool {
        let entry = &self.entries[at];
        match mode {
            LockMode::Permit(n) => !entry.slots.as_ref().is_some_and(|slots| slots.fits(n)),
            _ if entry.holders.is_empty() => false,
            _ => {
                let own = self.own_hold(session, at).map(|hold| self.holds[hold].mode.class());
                entry.held_classes(own).intersects(mode.class().conflicts())
            }
        }
    }
}

impl LockTable {
    /// Lets in everybody who may be, on each of these resources, from the head of its queue. When
    /// a batch is let in, its other resources are looked at again, too.
    pub(super) fn rescan(&mut self, resources: Vec<Resource>) {
        let mut due = VecDeque::from(resources);
        while let Some(resource) = due.pop_front() {
            let mut cursor: Option<Place> = None;
            let mut blocked = ClassSet::EMPTY;
            // Granting may empty and forget the entry, so it is looked up each time.
            while let Some(entry) = self.state.entry(&resource)
                && let Some((place, queuer)) =
                    self.state.entries[entry].queue.nearest_behind(cursor, ClassSet::ALL)
            {
                let ticket = queuer.ticket;
                cursor = Some(place);
                if !self.state.admits_all(&self.state.tickets[ticket]) {
                    blocked.insert(queuer.mode.class());
                } else if self.state.tickets[ticket].wait_until <= self.now {
                    // Next, but too late: whose wait ran out gets nothing.
                    due.extend(self.leave(ticket, LeaveCause::TimedOut));
                } else {
                    due.extend(self.grant_waiter(ticket, &resource));
                }
                let Some(entry) = self.state.entry(&resource) else { break };
                let entry = &self.state.entries[entry];
                if entry.queue.is_settled_behind(place, blocked, entry.held_classes(None)) {
                    break;
                }
            }
        }
    }

    /// Grants a request that waited, tells its call, and names its resources other than `here`.
    fn grant_waiter(&mut self, at: TicketAt, here: &Resource) -> Vec<Resource> {
        let ticket = &self.state.tickets[at];
        let (call, upgrade) = (ticket.call, ticket.upgrade);
        let wants = ticket.wants.clone();
        let terms = Terms::of(ticket, self.now);
        let built_on: Vec<LockId> =
            ticket.built_on.iter().map(|&hold| self.state.holds[hold].id).collect();
        let names: SmallVec<[Resource; 1]> =
            wants.iter().map(|want| self.state.entries[want.entry].resource.clone()).collect();
        let outcome = if upgrade {
            self.record_upgrade(&terms, built_on.first().copied())
        } else {
            let wanted = names.iter().zip(wants).map(|(name, Want { mode, entry })| Wanted {
                resource: name.clone(),
                mode,
                entry: Some(entry),
            });
            self.record_grants(&terms, wanted.collect(), &built_on).map(Answer::Granted)
        };
        if outcome.is_err() {
            self.leave(at, LeaveCause::Exhausted);
            return names.into_vec();
        }
        if let Some(call) = call {
            self.reply(call, outcome);
        }
        names.into_iter().filter(|name| name != here).collect()
    }

    /// Records the grant of everything in `wants` and counts up everything in `built_on`. Either
    /// all of it is recorded or, if the reign ran out of numbers, nothing.
    pub(super) fn record_grants(
        &mut self,
        terms: &Terms,
        wants: Wants,
        built_on: &[LockId],
    ) -> Result<Vec<Grant>, Refusal> {
        let needed = u32::try_from(wants.len()).unwrap_or(u32::MAX);
        let issued = self.state.issued;
        if issued.tokens.max(issued.locks).checked_add(needed).is_none() {
            return Err(Refusal::Exhausted);
        }
        let session = self.state.sessions[terms.session].id;
        let mut grants = Vec::with_capacity(wants.len() + built_on.len());
        for &lock in built_on {
            let Some(hold) = self.state.hold(lock) else { continue };
            self.record(Fact::Reentered {
                ticket: terms.ticket,
                session,
                lock,
                count: self.state.holds[hold].count().saturating_add(1),
                request_id: terms.request_id,
            });
            grants.push(Grant { ticket: terms.ticket, ..self.state.grant_of(hold) });
        }
        for Wanted { resource, mode, entry } in wants {
            let token = self.token_for(entry, mode)?;
            let slots = self.slots_for(entry, mode);
            let serial = self.state.issued.locks + 1;
            let lock = LockId::mint(self.now.0, serial, self.state.reign.id_seed);
            let granted = Granted {
                lock,
                ticket: terms.ticket,
                session,
                resource,
                mode,
                token,
                slots,
                lease_ms: terms.lease_ms,
                expires_at: crate::Timestamp(self.now.0.saturating_add(terms.lease_ms)),
                wait_ms: terms.wait_ms,
                reason: terms.reason.clone(),
                metadata: terms.metadata.clone(),
                request_id: terms.request_id,
                fleeting: terms.fleeting,
            };
            grants.push(Grant::from(&granted));
            self.record(Fact::Granted(granted));
        }
        grants.sort_by(|a, b| a.resource.cmp(&b.resource));
        Ok(grants)
    }

    /// Records that a hold turned exclusive.
    pub(super) fn record_upgrade(
        &mut self,
        terms: &Terms,
        lock: Option<LockId>,
    ) -> Result<Answer, Refusal> {
        let token = self.next_token()?;
        let hold = lock.and_then(|lock| Some((lock, self.state.hold(lock)?)));
        let Some((lock, hold)) = hold else { return Err(Refusal::Cancelled) };
        self.record(Fact::Converted {
            lock,
            ticket: terms.ticket,
            mode: LockMode::Exclusive,
            token,
            request_id: terms.request_id,
        });
        let mut grant = self.state.grant_of(hold);
        grant.ticket = terms.ticket;
        grant.wait_ms = terms.wait_ms;
        Ok(Answer::Changed(grant.into()))
    }

    /// Readers and updaters of one phase share the token of its first: none of them may outdate
    /// another. Everybody else gets a new one.
    fn token_for(&self, entry: Option<EntryAt>, mode: LockMode) -> Result<Token, Refusal> {
        let generation = entry.and_then(|entry| self.state.entries[entry].generation);
        match (mode, generation) {
            (LockMode::Shared | LockMode::Update, Some(token)) => Ok(token),
            _ => self.next_token(),
        }
    }

    fn slots_for(&self, entry: Option<EntryAt>, mode: LockMode) -> Vec<u32> {
        let slots = entry.and_then(|entry| self.state.entries[entry].slots.as_ref());
        match (mode, slots) {
            (LockMode::Permit(n), Some(slots)) => slots.lowest_free(n).unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}
