//! What a table knows, and how a fact changes it. Nothing here decides.

use super::{
    deadlines::{Deadlines, Due},
    memory::Memory,
    queue::{Place, Queue},
    tasks::Booked,
};
use crate::{
    DeadlockReport, LockId, LockMode, Reign, RequestId, Resource, SessionId, SessionKind, TicketId,
    Timestamp, Token,
    graph::WaitForGraph,
    index::Index,
    mode::{CLASSES, Class, ClassSet},
    places::{Arena, EntryAt, HoldAt, SessionAt, TicketAt},
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Sessions, resources, waits and holds of one project, and the graph between them.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) reign: Reign,
    /// The last number each counter gave out in this reign.
    pub(super) issued: Issued,
    pub(super) sessions: Arena<SessionAt, Session>,
    pub(super) entries: Arena<EntryAt, Entry>,
    pub(super) tickets: Arena<TicketAt, Ticket>,
    pub(super) holds: Arena<HoldAt, Hold>,
    pub(super) session_index: Index<SessionId, SessionAt>,
    pub(super) entry_index: Index<Resource, EntryAt>,
    pub(super) ticket_index: Index<TicketId, TicketAt>,
    pub(super) hold_index: Index<LockId, HoldAt>,
    pub(super) graph: WaitForGraph,
    /// Everything that ends by itself, in the order in which it does.
    pub(super) deadlines: Deadlines,
    pub(super) tasks: BTreeMap<Resource, Booked>,
    pub(super) capacities: usize,
    pub(super) declared_waits: usize,
    pub(super) session_idle_ms: u64,
    pub(super) remembered_max: usize,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Issued {
    pub(super) sessions: u32,
    pub(super) tickets: u32,
    pub(super) tokens: u32,
    pub(super) locks: u32,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) agent: Arc<str>,
    pub(super) kind: SessionKind,
    pub(super) priority: i8,
    /// The first ticket of its present work.
    pub(super) birth: Option<TicketId>,
    pub(super) aborts: u32,
    /// Aborted, and nothing granted since: its work goes on although it may hold nothing.
    pub(super) retrying: bool,
    pub(super) last_deadlock: Option<Arc<DeadlockReport>>,
    /// In no order; each hold knows its index, so that leaving is O(1).
    pub(super) holds: Vec<HoldAt>,
    pub(super) tickets: Tickets,
    /// How many waits it has declared; the graph knows which.
    pub(super) declared: usize,
    pub(super) memory: Memory,
    pub(super) idle_at: Option<Timestamp>,
}

/// One resource: who holds it, who waits. Gone when nobody does either and no capacity is declared.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) resource: Resource,
    pub(super) holders: Holders,
    /// How many holders of each class.
    pub(super) held: [u32; 4],
    pub(super) queue: Queue,
    /// The token of the present phase of readers and updaters.
    pub(super) generation: Option<Token>,
    pub(super) slots: Option<Slots>,
}

/// Who holds one resource, each session once. Most resources have one holder, and that one costs no
/// memory of its own.
#[derive(Debug, Default)]
pub(super) struct Holders {
    one: Option<(SessionAt, HoldAt)>,
    more: BTreeMap<SessionAt, HoldAt>,
}

/// What a session waits for, in the order of tickets. Most wait for one thing at a time, and that
/// one costs no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    all: SmallVec<[(TicketId, TicketAt); 1]>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) total: u32,
    pub(super) taken: BTreeSet<u32>,
    /// Every slot before this one is taken.
    pub(super) lowest: u32,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: TicketId,
    pub(super) session: SessionAt,
    /// What it still queues for, in the order of resources.
    pub(super) wants: SmallVec<[Want; 1]>,
    pub(super) built_on: Vec<HoldAt>,
    pub(super) upgrade: bool,
    pub(super) queued_at: Timestamp,
    pub(super) wait_until: Timestamp,
    pub(super) poll_by: Option<Timestamp>,
    pub(super) lease_ms: u64,
    pub(super) priority: i8,
    pub(super) reason: Option<Arc<str>>,
    pub(super) metadata: Option<Arc<str>>,
    pub(super) request_id: Option<RequestId>,
    /// Whether its asker knows the ticket and may come back for the outcome.
    pub(super) parked: bool,
    /// The call that waits on it, and until when. Routing, not a fact: no record restores it.
    pub(super) call: Option<crate::CallId>,
    pub(super) slice_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) entry: EntryAt,
    pub(super) mode: LockMode,
}

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) id: LockId,
    pub(super) ticket: TicketId,
    pub(super) session: SessionAt,
    pub(super) entry: EntryAt,
    pub(super) mode: LockMode,
    pub(super) token: Token,
    pub(super) slots: Vec<u32>,
    /// The requests whose acquires it consists of, the latest last; never none.
    pub(super) shares: SmallVec<[TicketId; 1]>,
    pub(super) lease_ms: u64,
    pub(super) wait_ms: u64,
    pub(super) granted_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) metadata: Option<Arc<str>>,
    /// Whether it is the claim of a task.
    pub(super) is_claim: bool,
    /// Its index in the session's holds.
    pub(super) rank: usize,
}

impl Entry {
    pub(super) fn new(resource: Resource) -> Entry {
        Entry {
            resource,
            holders: Holders::default(),
            held: [0; 4],
            queue: Queue::default(),
            generation: None,
            slots: None,
        }
    }

    /// The classes in which anybody but `except` holds it.
    pub(super) fn held_classes(&self, except: Option<Class>) -> ClassSet {
        let mut set = ClassSet::EMPTY;
        for class in CLASSES {
            let own = u32::from(except == Some(class));
            if self.held[class as usize] > own {
                set.insert(class);
            }
        }
        set
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty() && self.slots.is_none()
    }
}

impl Holders {
    pub(super) fn insert(&mut self, session: SessionAt, hold: HoldAt) {
        match self.one {
            None => self.one = Some((session, hold)),
            Some(_) => {
                self.more.insert(session, hold);
            }
        }
    }

    pub(super) fn remove(&mut self, session: SessionAt) {
        match self.one {
            Some((one, _)) if one == session => self.one = self.more.pop_first(),
            _ => {
                self.more.remove(&session);
            }
        }
    }

    pub(super) fn get(&self, session: SessionAt) -> Option<HoldAt> {
        match self.one {
            Some((one, hold)) if one == session => Some(hold),
            _ => self.more.get(&session).copied(),
        }
    }

    /// In no order that could decide anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionAt, HoldAt)> {
        self.one.into_iter().chain(self.more.iter().map(|(&session, &hold)| (session, hold)))
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.more.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.one.is_none()
    }
}

impl Tickets {
    fn find(&self, id: TicketId) -> Result<usize, usize> {
        self.all.binary_search_by_key(&id, |(id, _)| *id)
    }

    pub(super) fn insert(&mut self, id: TicketId, at: TicketAt) {
        match self.find(id) {
            Ok(place) => self.all[place].1 = at,
            // The youngest, so that nothing has to make room.
            Err(place) => self.all.insert(place, (id, at)),
        }
    }

    pub(super) fn remove(&mut self, id: TicketId) {
        if let Ok(place) = self.find(id) {
            self.all.remove(place);
            if self.all.is_empty() {
                self.all = SmallVec::new();
            }
        }
    }

    pub(super) fn get(&self, id: TicketId) -> Option<TicketAt> {
        self.find(id).ok().map(|place| self.all[place].1)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TicketId> {
        self.all.iter().map(|(id, _)| *id)
    }

    /// The earliest first.
    pub(super) fn places(&self) -> impl Iterator<Item = TicketAt> {
        self.all.iter().map(|(_, at)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Slots {
    /// The lowest free ones, or none if there are fewer than `wanted`.
    pub(super) fn lowest_free(&self, wanted: u32) -> Option<Vec<u32>> {
        let free = (self.lowest..self.total).filter(|slot| !self.taken.contains(slot));
        let slots: Vec<u32> = free.take(wanted as usize).collect();
        (slots.len() == wanted as usize).then_some(slots)
    }

    pub(super) fn take(&mut self, slots: &[u32]) {
        self.taken.extend(slots);
        while self.taken.contains(&self.lowest) {
            self.lowest += 1;
        }
    }

    pub(super) fn give_back(&mut self, slots: &[u32]) {
        for &slot in slots {
            self.taken.remove(&slot);
            self.lowest = self.lowest.min(slot);
        }
    }

    /// Whether so many more fit. Slots beyond a shrunken total still count as in use.
    pub(super) fn fits(&self, wanted: u32) -> bool {
        self.taken.len() as u64 + u64::from(wanted) <= u64::from(self.total)
    }
}

impl Ticket {
    pub(super) fn place(&self) -> Place {
        Place { holds_nothing: !self.upgrade, ticket: self.id }
    }
}

impl Hold {
    /// How many releases it needs.
    pub(super) fn count(&self) -> u32 {
        self.shares.len() as u32
    }

    /// The acquire that is named, if it is not taken back yet, or the latest that is left.
    pub(super) fn share(&self, named: Option<TicketId>) -> Option<TicketId> {
        match named {
            None => self.shares.last().copied(),
            Some(ticket) => self.has_share(ticket).then_some(ticket),
        }
    }

    pub(super) fn has_share(&self, ticket: TicketId) -> bool {
        // Who gives something back has usually got it lately.
        self.shares.iter().rev().any(|&share| share == ticket)
    }

    /// When it ends by itself.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.revoked_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    pub(super) fn due(&self) -> (Timestamp, Due) {
        (self.ends_at(), Due::Hold(self.id))
    }
}

impl State {
    pub(super) fn new(reign: crate::Reign, config: &crate::TableConfig) -> State {
        State {
            reign,
            issued: Issued::default(),
            sessions: Default::default(),
            entries: Default::default(),
            tickets: Default::default(),
            holds: Default::default(),
            session_index: Default::default(),
            entry_index: Default::default(),
            ticket_index: Default::default(),
            hold_index: Default::default(),
            graph: Default::default(),
            deadlines: Default::default(),
            tasks: Default::default(),
            capacities: 0,
            declared_waits: 0,
            session_idle_ms: crate::time::millis(config.session_idle),
            remembered_max: config.limits.remembered_per_session,
        }
    }

    pub(super) fn count_session(&mut self, id: SessionId) {
        if id.epoch() == self.reign.epoch {
            self.issued.sessions = self.issued.sessions.max(id.counter());
        }
    }

    pub(super) fn count_ticket(&mut self, id: TicketId) {
        if id.epoch() == self.reign.epoch {
            self.issued.tickets = self.issued.tickets.max(id.counter());
        }
    }

    pub(super) fn count_token(&mut self, token: Token) {
        if token.epoch() == self.reign.epoch {
            self.issued.tokens = self.issued.tokens.max(token.counter());
        }
    }

    pub(super) fn count_lock(&mut self, id: LockId) {
        if let Some(serial) = id.serial(self.reign.id_seed) {
            self.issued.locks = self.issued.locks.max(serial);
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Option<SessionAt> {
        self.session_index.get(&id)
    }

    pub(super) fn entry(&self, resource: &Resource) -> Option<EntryAt> {
        self.entry_index.get(resource)
    }

    pub(super) fn ticket(&self, id: TicketId) -> Option<TicketAt> {
        self.ticket_index.get(&id)
    }

    pub(super) fn hold(&self, id: LockId) -> Option<HoldAt> {
        self.hold_index.get(&id)
    }

    /// The session's hold of a resource.
    pub(super) fn own_hold(&self, session: SessionAt, entry: EntryAt) -> Option<HoldAt> {
        self.entries[entry].holders.get(session)
    }

    /// The ticket with which the session waits for a resource, be it to turn a hold exclusive.
    pub(super) fn own_ticket(&self, session: SessionAt, entry: EntryAt) -> Option<TicketAt> {
        self.sessions[session]
            .tickets
            .places()
            .find(|&at| self.tickets[at].wants.iter().any(|want| want.entry == entry))
    }

    /// How many holds a session has, and will have when all it waits for is granted.
    #[inline]
    pub(super) fn holds_to_come(&self, session: SessionAt) -> usize {
        let session = &self.sessions[session];
        let waits = session.tickets.places().map(|at| &self.tickets[at]);
        let coming = waits.filter(|ticket| !ticket.upgrade).map(|ticket| ticket.wants.len());
        session.holds.len() + coming.sum::<usize>()
    }

    /// The requests of the hold's session that end if it does, the earliest first.
    pub(super) fn built_upon(&self, hold: HoldAt) -> Vec<TicketAt> {
        self.sessions[self.holds[hold].session]
            .tickets
            .places()
            .filter(|&at| self.tickets[at].built_on.contains(&hold))
            .collect()
    }
}
