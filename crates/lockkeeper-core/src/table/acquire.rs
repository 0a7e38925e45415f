//! A request for one or several resources: let in, queued, or refused.

use super::{LockTable, memory::Verb, queue::Place, rescan::Terms};
use crate::{
    Answer, AskOptions, CallId, Fact, Limit, LockId, LockMode, Queued, Refusal, Resource,
    SessionId, TicketId,
    places::{EntryAt, SessionAt},
};
use smallvec::SmallVec;

/// A request that is well formed: what it still has to get, and what it only counts up.
struct Plan {
    session: SessionAt,
    ticket: TicketId,
    wants: Wants,
    built_on: Vec<LockId>,
}

/// Most requests are for one resource, which then needs no memory of its own.
pub(super) type Wants = SmallVec<[Wanted; 1]>;
pub(super) type Pairs = SmallVec<[(Resource, LockMode); 1]>;

/// One resource of a request, looked up once.
pub(super) struct Wanted {
    pub(super) resource: Resource,
    pub(super) mode: LockMode,
    pub(super) entry: Option<EntryAt>,
}

impl Wanted {
    fn pairs(wants: &[Wanted]) -> Vec<(Resource, LockMode)> {
        wants.iter().map(|want| (want.resource.clone(), want.mode)).collect()
    }
}

impl LockTable {
    pub(super) fn acquire(
        &mut self,
        call: CallId,
        session: SessionId,
        wants: Pairs,
        options: &AskOptions,
    ) {
        let outcome = match self.session(session) {
            Err(refusal) => Err(refusal),
            Ok(at) => {
                if self.is_repeated(call, at, Verb::Acquire, options) {
                    return;
                }
                self.plan(at, wants, options).and_then(|plan| self.try_now(plan, options))
            }
        };
        match outcome {
            Err(refusal) => self.reply(call, Err(refusal)),
            Ok(Ok(answer)) => self.reply(call, Ok(answer)),
            Ok(Err(plan)) => self.enqueue(call, plan, options),
        }
    }

    /// Everything that makes a request impossible, whoever holds what.
    fn plan(
        &self,
        session: SessionAt,
        wants: Pairs,
        options: &AskOptions,
    ) -> Result<Plan, Refusal> {
        if wants.is_empty() {
            return Err(Refusal::EmptyBatch);
        }
        let limits = &self.config.limits;
        self.within(Limit::Batch, wants.len(), limits.batch_max)?;
        self.check_texts(options)?;
        let ticket = self.next_ticket()?;
        let mut free = Wants::with_capacity(wants.len());
        let mut built_on = Vec::new();
        for (resource, mode) in self.merged(wants)? {
            let want = Wanted { entry: self.known(&resource)?, resource, mode };
            match self.own_cover(session, &want, options.reentrant)? {
                Some(lock) => built_on.push(lock),
                None => free.push(want),
            }
        }
        let wants = free;
        let holds = self.state.holds_to_come(session) + wants.len();
        self.within(Limit::HoldsPerSession, holds, limits.holds_per_session_max)?;
        Ok(Plan { session, ticket, wants, built_on })
    }

    /// Each resource once, in their order, in the strongest mode asked for. Permits and lock modes
    /// cannot both fit, whatever the resource is.
    fn merged(&self, mut wants: Pairs) -> Result<Pairs, Refusal> {
        if wants.len() == 1 {
            return Ok(wants);
        }
        for (resource, _) in &wants {
            self.known(resource)?;
        }
        wants.sort_by(|a, b| a.0.cmp(&b.0));
        let is_permit = |mode: LockMode| matches!(mode, LockMode::Permit(_));
        for pair in wants.windows(2) {
            let ((resource, one), (next, other)) = (&pair[0], &pair[1]);
            if resource == next && is_permit(*one) != is_permit(*other) {
                let slots = self.state.entry(resource);
                let slots = slots.and_then(|entry| self.state.entries[entry].slots.as_ref());
                let fits_not = is_permit(*one) == slots.is_none();
                let mode = if fits_not { *one } else { *other };
                let capacity = slots.map(|slots| slots.total);
                return Err(Refusal::WrongMode { resource: resource.clone(), mode, capacity });
            }
        }
        wants.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = kept.1.strongest(later.1);
            }
            is_same
        });
        Ok(wants)
    }

    pub(super) fn check_texts(&self, options: &AskOptions) -> Result<(), Refusal> {
        let bytes = |text: &Option<std::sync::Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let longest = bytes(&options.reason).max(bytes(&options.metadata));
        self.within(Limit::TextBytes, longest, self.config.limits.text_bytes_max)
    }

    /// The entry of a resource. What the table knows was valid when it came in; what it does not
    /// know must be.
    pub(super) fn known(&self, resource: &Resource) -> Result<Option<EntryAt>, Refusal> {
        let entry = self.state.entry(resource);
        if entry.is_none()
            && let Some(problem) = resource.problem(self.config.limits.key_bytes_max)
        {
            let resource = resource.as_str().chars().take(256).collect();
            return Err(Refusal::InvalidResource { resource, problem });
        }
        Ok(entry)
    }

    /// Whether the mode fits the resource, and whether the session holds it, or waits for it,
    /// already: its own hold, if the request may count it up.
    fn own_cover(
        &self,
        session: SessionAt,
        want: &Wanted,
        reentrant: bool,
    ) -> Result<Option<LockId>, Refusal> {
        let Wanted { resource, mode, entry } = want;
        let (mode, entry) = (*mode, *entry);
        self.check_mode(entry, resource, mode)?;
        let Some(entry) = entry else { return Ok(None) };
        if let Some(at) = self.state.own_hold(session, entry) {
            let hold = &self.state.holds[at];
            if let Some(until) = hold.revoked_at {
                return Err(Refusal::Revoking { lock: hold.id, until });
            }
            return match reentrant && hold.mode.covers(mode) {
                true => {
                    let limit = self.config.limits.holds_per_session_max;
                    self.within(Limit::HoldsPerSession, hold.shares.len() + 1, limit)?;
                    Ok(Some(hold.id))
                }
                false => Err(Refusal::AlreadyHeld { holder: Box::new(self.state.holder(at)) }),
            };
        }
        if let Some(at) = self.state.own_ticket(session, entry) {
            let ticket = self.state.tickets[at].id;
            return Err(Refusal::AlreadyWaiting { ticket, resource: resource.clone() });
        }
        Ok(None)
    }

    /// Permits need a capacity, lock modes must not have one.
    pub(super) fn check_mode(
        &self,
        entry: Option<EntryAt>,
        resource: &Resource,
        mode: LockMode,
    ) -> Result<(), Refusal> {
        let slots = entry.and_then(|entry| self.state.entries[entry].slots.as_ref());
        let capacity = slots.map(|slots| slots.total);
        match (mode, capacity) {
            (LockMode::Permit(asked), Some(capacity)) if asked == 0 || asked > capacity => {
                Err(Refusal::OverCapacity { resource: resource.clone(), asked, capacity })
            }
            (LockMode::Permit(_), None) | (LockMode::Shared, Some(_)) => {
                Err(Refusal::WrongMode { resource: resource.clone(), mode, capacity })
            }
            (LockMode::Update | LockMode::Exclusive, Some(_)) => {
                Err(Refusal::WrongMode { resource: resource.clone(), mode, capacity })
            }
            _ => Ok(()),
        }
    }

    /// Grants a request that nothing stands in the way of; gives the plan back if it must wait.
    fn try_now(
        &mut self,
        plan: Plan,
        options: &AskOptions,
    ) -> Result<Result<Answer, Plan>, Refusal> {
        let place = Place { holds_nothing: true, ticket: plan.ticket };
        let is_free = plan.wants.iter().all(|want| {
            want.entry.is_none_or(|at| self.state.admits(at, plan.session, place, want.mode))
        });
        if is_free {
            // Of a batch that lost some of its holds, those that are left do not tell the outcome.
            let is_one = plan.wants.len() == 1 && plan.built_on.is_empty();
            let fleeting = options.fleeting && options.request_id.is_some() && is_one;
            let terms = Terms {
                ticket: plan.ticket,
                session: plan.session,
                lease_ms: self.lease_ms(options.lease),
                wait_ms: 0,
                reason: options.reason.clone(),
                metadata: options.metadata.clone(),
                request_id: options.request_id,
                fleeting,
            };
            let grants = self.record_grants(&terms, plan.wants, &plan.built_on)?;
            return Ok(Ok(Answer::Granted(grants)));
        }
        if self.wait_ms(options.wait) == 0 {
            let wants = Wanted::pairs(&plan.wants);
            let obstacles = self.state.obstacles(plan.session, place, &wants);
            return Err(Refusal::Busy { obstacles });
        }
        let entries: Vec<EntryAt> = plan.wants.iter().filter_map(|want| want.entry).collect();
        self.check_room(plan.session, &entries)?;
        Ok(Err(plan))
    }

    /// Whether one more may wait: in this session, and in each of these queues.
    pub(super) fn check_room(
        &self,
        session: SessionAt,
        entries: &[EntryAt],
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let waits = self.state.waits_of(session) + 1;
        self.within(Limit::WaitsPerSession, waits, limits.waits_per_session_max)?;
        let limit = limits.queue_length_max;
        for &entry in entries {
            let entry = &self.state.entries[entry];
            if entry.queue.len() >= limit {
                let resource = entry.resource.clone();
                return Err(Refusal::QueueFull { resource, limit });
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, call: CallId, plan: Plan, options: &AskOptions) {
        let priority = options.priority.unwrap_or(self.state.sessions[plan.session].priority);
        let queued = Queued {
            ticket: plan.ticket,
            session: self.state.sessions[plan.session].id,
            wants: Wanted::pairs(&plan.wants),
            built_on: plan.built_on,
            upgrade: false,
            wait_until: crate::Timestamp(self.now.0.saturating_add(self.wait_ms(options.wait))),
            lease_ms: self.lease_ms(options.lease),
            priority: priority.clamp(-10, 10),
            reason: options.reason.clone(),
            metadata: options.metadata.clone(),
            request_id: options.request_id,
        };
        self.park(call, queued, options.slice);
    }

    /// Queues a request, breaks the deadlock if it closes one, and lets its call wait.
    pub(super) fn park(
        &mut self,
        call: CallId,
        queued: Queued,
        slice: Option<std::time::Duration>,
    ) {
        let (id, session) = (queued.ticket, queued.session);
        self.record(Fact::Queued(Box::new(queued)));
        let Some(at) = self.state.ticket(id) else { return };
        self.state.tickets[at].call = Some(call);
        if let Some(session) = self.state.session(session) {
            self.break_cycles(session, super::detect::Closing::Queued(id));
        }
        // It may be granted or refused by now; if it is, its call has been told.
        let Some(at) = self.state.ticket(id) else { return };
        if slice.is_some() {
            self.state.tickets[at].call = None;
            self.attach(call, at, slice);
        }
    }
}
