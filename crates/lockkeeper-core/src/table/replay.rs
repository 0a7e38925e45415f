//! How each fact changes the table. The deciding half and recovery both come through here.
//!
//! A fact that does not fit (of a hold that is not there) changes nothing: a journal may be pruned,
//! and this crate does not panic.

use super::state::{Entry, Hold, Session, State, Ticket, Tickets, Want};
use super::{deadlines::Due, memory::Memory, queue::Queuer};
use crate::{
    Fact, Granted, LeaveCause, LockId, LockMode, Outcome, Queued, Record, Resource, SessionId,
    TicketId, Timestamp, Token,
    mode::{Class, ClassSet},
    places::{EntryAt, HoldAt, SessionAt, TicketAt},
};
use smallvec::{SmallVec, smallvec};

impl State {
    pub(super) fn replay(&mut self, record: &Record) {
        let at = record.at;
        match &record.fact {
            Fact::SessionOpened { session, agent, kind, priority, birth, aborts } => {
                if self.session(*session).is_some() {
                    return;
                }
                let opened = self.sessions.insert(Session {
                    id: *session,
                    agent: agent.clone(),
                    kind: *kind,
                    priority: *priority,
                    birth: *birth,
                    aborts: *aborts,
                    // Inherited work goes on although this session has nothing to show for it yet.
                    retrying: birth.is_some(),
                    last_deadlock: None,
                    holds: Vec::new(),
                    tickets: Tickets::default(),
                    declared: 0,
                    memory: Memory::default(),
                    idle_at: None,
                });
                self.session_index.insert(*session, opened);
                self.count_session(*session);
                self.settle_session(opened, at);
            }
            Fact::SessionEnded { session, .. } => self.end_session(*session, at),
            Fact::Queued(queued) => self.queue(queued, at),
            Fact::Left { ticket, cause, .. } => self.leave(*ticket, cause, at),
            Fact::PollSet { ticket, poll_by } => self.set_poll(*ticket, *poll_by),
            Fact::Granted(granted) => self.grant(granted, at),
            Fact::Reentered { ticket, lock, count, request_id, .. } => {
                let Some(hold) = self.hold(*lock) else { return };
                self.count_ticket(*ticket);
                if *count == self.holds[hold].count().saturating_add(1) {
                    self.holds[hold].shares.push(*ticket);
                }
                let session = self.holds[hold].session;
                self.begin_work(session, *ticket);
                self.sessions[session].retrying = false;
                self.remember_grant(session, *ticket, *request_id, *lock);
                self.finish_member(*ticket, None, at);
            }
            Fact::Released { lock, remaining, share, request_id, .. } => {
                self.release(*lock, *remaining, *share, *request_id, at);
            }
            Fact::Renewed { lock, expires_at, request_id } => {
                let Some(hold) = self.hold(*lock) else { return };
                self.change_deadline(hold, |hold| hold.expires_at = *expires_at);
                let session = self.holds[hold].session;
                if request_id.is_some() {
                    let outcome = Outcome::Renewed(*lock, *expires_at);
                    self.remember(session, *request_id, None, outcome);
                }
            }
            Fact::Converted { lock, ticket, mode, token, request_id } => {
                let Some(hold) = self.hold(*lock) else { return };
                self.count_ticket(*ticket);
                self.count_token(*token);
                if request_id.is_some() || self.is_parked(*ticket) {
                    let session = self.holds[hold].session;
                    // A downgrade carries the ticket of the hold, which is another request's.
                    let own_ticket = Some(*ticket).filter(|one| *one != self.holds[hold].ticket);
                    self.remember(session, *request_id, own_ticket, Outcome::Converted(*lock));
                }
                self.convert(hold, *ticket, *mode, *token, at);
            }
            Fact::RevocationSet { lock, until } => {
                let Some(hold) = self.hold(*lock) else { return };
                self.change_deadline(hold, |hold| hold.revoked_at = Some(*until));
                // It ends by itself: nobody waits for its session's good will any more.
                self.unlink_waiters_for(hold);
            }
            Fact::WaitDeclared { session, on, birth } => {
                let (Some(from), Some(to)) = (self.session(*session), self.session(*on)) else {
                    return;
                };
                if from == to {
                    return;
                }
                if let Some(birth) = birth {
                    self.count_ticket(*birth);
                    self.begin_work(from, *birth);
                }
                if !self.graph.has_declared(from, to) {
                    self.graph.link(from, to, crate::graph::Why::Declared);
                    self.declared_waits += 1;
                    self.sessions[from].declared += 1;
                }
                self.settle_session(from, at);
                self.settle_session(to, at);
            }
            Fact::WaitWithdrawn { session, on } => {
                let (Some(from), Some(to)) = (self.session(*session), self.session(*on)) else {
                    return;
                };
                self.withdraw(from, to);
                self.settle_session(from, at);
                self.settle_session(to, at);
            }
            Fact::CapacityDeclared { resource, capacity } => self.declare(resource, *capacity),
            Fact::TaskMoved { task, lock } => self.move_task(task, *lock),
            Fact::TaskForgotten { task } => self.forget_task(task),
            Fact::Resumed { poll_by } => self.resume(*poll_by, at),
            Fact::Remembered { session, request_id, ticket, outcome } => {
                let Some(session) = self.session(*session) else { return };
                self.remember_again(session, *request_id, *ticket, outcome.clone());
            }
            Fact::DeadlockFound(report) => {
                let Some(victim) = self.session(report.victim) else { return };
                let victim = &mut self.sessions[victim];
                victim.aborts = victim.aborts.saturating_add(1);
                victim.retrying = true;
                victim.last_deadlock = Some(report.clone());
            }
        }
    }

    fn end_session(&mut self, id: SessionId, at: Timestamp) {
        let Some(session) = self.session(id) else { return };
        let mut partners: Vec<SessionAt> = self.graph.declared_by(session).collect();
        for &to in &partners {
            self.withdraw(session, to);
        }
        let waiting_on_it: Vec<SessionAt> = self.graph.declared_on(session).collect();
        for &from in &waiting_on_it {
            self.withdraw(from, session);
        }
        partners.extend(waiting_on_it);
        // A journal ends holds and waits first; this is for one that was cut.
        for ticket in self.sessions[session].tickets.ids().collect::<Vec<_>>() {
            self.leave(ticket, &LeaveCause::SessionEnded, at);
        }
        for hold in self.sessions[session].holds.clone() {
            self.release(self.holds[hold].id, 0, None, None, at);
        }
        if let Some(idle_at) = self.sessions[session].idle_at {
            self.deadlines.remove(&(idle_at, Due::Idle(id)));
        }
        self.session_index.remove(&id);
        self.sessions.remove(session);
        for partner in partners {
            self.settle_session(partner, at);
        }
    }

    fn queue(&mut self, queued: &Queued, at: Timestamp) {
        let Some(session) = self.session(queued.session) else { return };
        if self.ticket(queued.ticket).is_some() || !self.can_queue(session, queued) {
            return;
        }
        self.count_ticket(queued.ticket);
        self.begin_work(session, queued.ticket);
        let wants: SmallVec<[Want; 1]> = queued
            .wants
            .iter()
            .map(|(resource, mode)| Want { entry: self.entry_or_new(resource), mode: *mode })
            .collect();
        let built_on = queued.built_on.iter().filter_map(|&lock| self.hold(lock)).collect();
        let ticket = self.tickets.insert(Ticket {
            id: queued.ticket,
            session,
            wants: wants.clone(),
            built_on,
            upgrade: queued.upgrade,
            queued_at: at,
            wait_until: queued.wait_until,
            poll_by: None,
            lease_ms: queued.lease_ms,
            priority: queued.priority,
            reason: queued.reason.clone(),
            metadata: queued.metadata.clone(),
            request_id: queued.request_id,
            parked: false,
            call: None,
            slice_until: None,
        });
        self.ticket_index.insert(queued.ticket, ticket);
        self.sessions[session].tickets.insert(queued.ticket, ticket);
        self.deadlines.insert((queued.wait_until, Due::Wait(queued.ticket)));
        let place = self.tickets[ticket].place();
        for want in wants {
            let queuer = Queuer { ticket, session, mode: want.mode };
            self.entries[want.entry].queue.insert(place, queuer);
            self.link_waiter(want.entry, place, want.mode.class());
            // Only an upgrade goes ahead of anybody, and what a journal of another order brings.
            let behind = self.entries[want.entry].queue.nearest_behind(Some(place), ClassSet::ALL);
            if behind.is_some() {
                self.relink_behind_new(want.entry, place, want.mode.class());
            }
        }
        self.settle_session(session, at);
    }

    /// Whether a journal's request fits the table: the rules let a session wait for a resource
    /// once, and hold it meanwhile only to turn that hold exclusive.
    fn can_queue(&self, session: SessionAt, queued: &Queued) -> bool {
        let once = queued.wants.len() < 2 || {
            let mut names: Vec<&Resource> = queued.wants.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.windows(2).all(|pair| pair[0] != pair[1])
        };
        let fits = |name: &Resource| {
            self.entry(name).is_none_or(|entry| {
                self.own_ticket(session, entry).is_none()
                    && self.own_hold(session, entry).is_some() == queued.upgrade
            })
        };
        let built_on = |lock: &LockId| {
            self.hold(*lock).is_some_and(|hold| self.holds[hold].session == session)
        };
        !queued.wants.is_empty()
            && once
            && queued.wants.iter().all(|(name, _)| fits(name))
            && queued.built_on.iter().all(built_on)
            && (!queued.upgrade || (queued.wants.len() == 1 && queued.built_on.len() == 1))
    }

    fn leave(&mut self, id: TicketId, cause: &LeaveCause, at: Timestamp) {
        let Some(ticket) = self.ticket(id) else { return };
        let session = self.tickets[ticket].session;
        if self.tickets[ticket].request_id.is_some() || self.is_parked(id) {
            let refusal = self.refusal_of_leaving(ticket, cause, at);
            let request_id = self.tickets[ticket].request_id;
            self.remember(session, request_id, Some(id), Outcome::Refused(Box::new(refusal)));
        }
        let place = self.tickets[ticket].place();
        self.graph.unlink_request(session, id);
        for want in self.tickets[ticket].wants.clone() {
            self.unqueue(ticket, want);
            self.relink_behind_gone(want.entry, place, want.mode.class());
            self.forget_if_unused(want.entry);
        }
        self.remove_ticket(ticket, at);
    }

    pub(super) fn set_poll(&mut self, id: TicketId, poll_by: Option<Timestamp>) {
        let Some(at) = self.ticket(id) else { return };
        let ticket = &mut self.tickets[at];
        if let Some(old) = ticket.poll_by {
            self.deadlines.remove(&(old, Due::Poll(id)));
        }
        ticket.poll_by = poll_by;
        if let Some(poll_by) = poll_by {
            ticket.parked = true;
            self.deadlines.insert((poll_by, Due::Poll(id)));
        }
    }

    fn grant(&mut self, granted: &Granted, at: Timestamp) {
        let Some(session) = self.session(granted.session) else { return };
        let entry_at = self.entry_or_new(&granted.resource);
        if self.hold(granted.lock).is_some() || self.own_hold(session, entry_at).is_some() {
            return self.forget_if_unused(entry_at);
        }
        self.count_ticket(granted.ticket);
        self.count_token(granted.token);
        self.count_lock(granted.lock);
        self.begin_work(session, granted.ticket);
        let hold = self.holds.insert(Hold {
            id: granted.lock,
            ticket: granted.ticket,
            session,
            entry: entry_at,
            mode: granted.mode,
            token: granted.token,
            slots: granted.slots.clone(),
            shares: smallvec![granted.ticket],
            lease_ms: granted.lease_ms,
            wait_ms: granted.wait_ms,
            granted_at: at,
            expires_at: granted.expires_at,
            revoked_at: None,
            reason: granted.reason.clone(),
            metadata: granted.metadata.clone(),
            is_claim: !self.tasks.is_empty() && self.is_claim(&granted.resource, granted.lock),
            rank: self.sessions[session].holds.len(),
        });
        self.hold_index.insert(granted.lock, hold);
        self.sessions[session].holds.push(hold);
        self.sessions[session].retrying = false;
        self.deadlines.insert(self.holds[hold].due());
        let entry = &mut self.entries[entry_at];
        entry.holders.insert(session, hold);
        entry.held[granted.mode.class() as usize] += 1;
        match granted.mode {
            LockMode::Shared | LockMode::Update => entry.generation = Some(granted.token),
            LockMode::Exclusive => {}
            LockMode::Permit(_) => {
                if let Some(slots) = &mut entry.slots {
                    slots.take(&granted.slots);
                }
            }
        }
        self.remember_grant(session, granted.ticket, granted.request_id, granted.lock);
        self.finish_member(granted.ticket, Some(entry_at), at);
        self.settle_session(session, at);
    }

    fn release(
        &mut self,
        lock: LockId,
        remaining: u32,
        share: Option<TicketId>,
        request_id: Option<crate::RequestId>,
        at: Timestamp,
    ) {
        let Some(hold) = self.hold(lock) else { return };
        let session = self.holds[hold].session;
        if request_id.is_some() {
            self.remember(session, request_id, None, Outcome::Released(lock, remaining));
        }
        if remaining > 0 {
            return self.take_share(hold, remaining, share);
        }
        // A journal ends what builds on the hold first; this is for one that was cut.
        for ticket in self.built_upon(hold) {
            let id = self.tickets[ticket].id;
            self.leave(id, &LeaveCause::HoldEnded(lock), at);
        }
        let entry_at = self.holds[hold].entry;
        self.unlink_waiters_for(hold);
        self.deadlines.remove(&self.holds[hold].due());
        self.hold_index.remove(&lock);
        let Some(ended) = self.holds.remove(hold) else { return };
        let holds = &mut self.sessions[session].holds;
        holds.swap_remove(ended.rank);
        if let Some(&moved) = holds.get(ended.rank) {
            self.holds[moved].rank = ended.rank;
        }
        let entry = &mut self.entries[entry_at];
        entry.holders.remove(session);
        entry.held[ended.mode.class() as usize] -= 1;
        entry.end_phase();
        if let Some(slots) = &mut entry.slots {
            slots.give_back(&ended.slots);
        }
        self.forget_if_unused(entry_at);
        self.settle_session(session, at);
    }

    /// Takes one acquire out of a counted hold: the one that is named, or the latest.
    fn take_share(&mut self, hold: HoldAt, remaining: u32, share: Option<TicketId>) {
        let hold = &mut self.holds[hold];
        if hold.count() != remaining.saturating_add(1) {
            return;
        }
        let at = match share {
            Some(share) => hold.shares.iter().rposition(|&one| one == share),
            None => hold.shares.len().checked_sub(1),
        };
        if let Some(at) = at {
            hold.shares.remove(at);
        }
    }

    fn convert(
        &mut self,
        hold: HoldAt,
        ticket: TicketId,
        mode: LockMode,
        token: Token,
        at: Timestamp,
    ) {
        let held = &mut self.holds[hold];
        let (old, session, entry_at) = (held.mode, held.session, held.entry);
        held.mode = mode;
        held.token = token;
        let given_back = held.slots.split_off(held.slots.len().min(mode.permits() as usize));
        let entry = &mut self.entries[entry_at];
        entry.held[old.class() as usize] -= 1;
        entry.held[mode.class() as usize] += 1;
        entry.end_phase();
        if matches!(mode.class(), Class::Shared | Class::Update) {
            entry.generation = Some(token);
        }
        if let Some(slots) = &mut entry.slots {
            slots.give_back(&given_back);
        }
        if mode == LockMode::Exclusive {
            self.sessions[session].retrying = false;
        }
        self.finish_member(ticket, Some(entry_at), at);
        let classes = ClassSet::one(old.class()).with(ClassSet::one(mode.class()));
        self.relink_behind_holds(entry_at, classes);
    }

    /// One of a ticket's resources is granted: it queues there no longer, and when it was the last
    /// one, and nothing is left to be counted up, the ticket is done.
    fn finish_member(&mut self, id: TicketId, granted: Option<EntryAt>, at: Timestamp) {
        let Some(ticket) = self.ticket(id) else { return };
        if let Some(entry) = granted
            && let Some(want) =
                self.tickets[ticket].wants.iter().copied().find(|want| want.entry == entry)
        {
            let session = self.tickets[ticket].session;
            self.graph.unlink_ticket(session, id, entry);
            self.unqueue(ticket, want);
            // Those behind it point at its ticket, and with that at the hold it became. Behind a
            // permit that is not enough: other holders of permits may stand in their way as well.
            if matches!(want.mode, LockMode::Permit(_)) {
                self.relink_behind_holds(entry, ClassSet::one(Class::Permit));
            }
        }
        if self.tickets[ticket].wants.is_empty() {
            self.remove_ticket(ticket, at);
        }
    }

    fn unqueue(&mut self, ticket: TicketAt, want: Want) {
        let place = self.tickets[ticket].place();
        self.tickets[ticket].wants.retain(|other| other.entry != want.entry);
        self.entries[want.entry].queue.remove(place, want.mode.class());
    }

    fn remove_ticket(&mut self, ticket: TicketAt, at: Timestamp) {
        let Some(gone) = self.tickets.remove(ticket) else { return };
        self.ticket_index.remove(&gone.id);
        self.sessions[gone.session].tickets.remove(gone.id);
        self.deadlines.remove(&(gone.wait_until, Due::Wait(gone.id)));
        if let Some(poll_by) = gone.poll_by {
            self.deadlines.remove(&(poll_by, Due::Poll(gone.id)));
        }
        if let Some(slice_until) = gone.slice_until {
            self.deadlines.remove(&(slice_until, Due::Slice(gone.id)));
        }
        self.settle_session(gone.session, at);
    }

    fn withdraw(&mut self, from: SessionAt, to: SessionAt) {
        if self.graph.unlink_declared(from, to) {
            self.declared_waits -= 1;
            self.sessions[from].declared -= 1;
        }
    }

    fn declare(&mut self, resource: &Resource, capacity: Option<u32>) {
        let at = self.entry_or_new(resource);
        let entry = &mut self.entries[at];
        let had = entry.slots.is_some();
        match capacity {
            Some(total) => {
                let slots = entry.slots.get_or_insert_default();
                slots.total = total;
                // A journal declares the capacity before it is used; this is for one that was cut.
                if !had {
                    for (_, hold) in entry.holders.iter() {
                        slots.take(&self.holds[hold].slots);
                    }
                }
            }
            None => entry.slots = None,
        }
        self.capacities += usize::from(capacity.is_some());
        self.capacities -= usize::from(had);
        self.forget_if_unused(at);
    }

    pub(super) fn change_deadline(&mut self, hold: HoldAt, change: impl FnOnce(&mut Hold)) {
        self.deadlines.remove(&self.holds[hold].due());
        change(&mut self.holds[hold]);
        self.deadlines.insert(self.holds[hold].due());
    }

    /// Takes away the edges of those who wait for a hold.
    fn unlink_waiters_for(&mut self, hold: HoldAt) {
        let hold = &self.holds[hold];
        let (entry, class, ticket) = (hold.entry, hold.mode.class(), hold.ticket);
        self.unlink_hold(entry, class, ticket);
    }

    fn entry_or_new(&mut self, resource: &Resource) -> EntryAt {
        let entries = &mut self.entries;
        self.entry_index
            .get_or_insert(resource.clone(), || entries.insert(Entry::new(resource.clone())))
    }

    fn forget_if_unused(&mut self, entry: EntryAt) {
        if self.entries[entry].is_forgettable()
            && let Some(gone) = self.entries.remove(entry)
        {
            self.entry_index.remove(&gone.resource);
        }
    }

    /// The first ticket of a run of work is its birth.
    fn begin_work(&mut self, session: SessionAt, ticket: TicketId) {
        self.sessions[session].birth.get_or_insert(ticket);
    }

    /// After each change to a session: its work ends when it has nothing any more, and the clock
    /// of an idle detached session starts or stops.
    fn settle_session(&mut self, at: SessionAt, now: Timestamp) {
        let session = &mut self.sessions[at];
        let has_nothing = session.holds.is_empty() && session.tickets.is_empty();
        if has_nothing && session.declared == 0 && !session.retrying {
            session.birth = None;
            session.aborts = 0;
            session.last_deadlock = None;
        }
        let is_detached = session.kind == crate::SessionKind::Detached;
        let is_idle = is_detached && has_nothing && self.graph.is_alone(at);
        match session.idle_at {
            None if is_idle => {
                let idle_at = Timestamp(now.0.saturating_add(self.session_idle_ms));
                session.idle_at = Some(idle_at);
                self.deadlines.insert((idle_at, Due::Idle(session.id)));
            }
            Some(idle_at) if !is_idle => {
                session.idle_at = None;
                self.deadlines.remove(&(idle_at, Due::Idle(session.id)));
            }
            _ => {}
        }
    }

    /// An idle session's time begins anew.
    pub(super) fn restart_idle(&mut self, at: SessionAt, now: Timestamp) {
        let session = &mut self.sessions[at];
        if let Some(old) = session.idle_at {
            let idle_at = old.max(Timestamp(now.0.saturating_add(self.session_idle_ms)));
            session.idle_at = Some(idle_at);
            self.deadlines.remove(&(old, Due::Idle(session.id)));
            self.deadlines.insert((idle_at, Due::Idle(session.id)));
        }
    }
}

impl Entry {
    /// A phase of readers and updaters is over when the last of them is gone.
    fn end_phase(&mut self) {
        if self.held[Class::Shared as usize] + self.held[Class::Update as usize] == 0 {
            self.generation = None;
        }
    }
}
