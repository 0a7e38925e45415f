//! Puts holds, waits and facts into the words of replies and events.

use super::{
    LockTable,
    queue::Place,
    state::{Hold, State},
};
use crate::{
    Fact, Grant, Granted, Holder, LeaveCause, LockId, LockMode, LockNews, News, Obstacle, Refusal,
    ReleaseCause, Resource, TicketId, Timestamp, WaitNews,
    places::{EntryAt, HoldAt, SessionAt, TicketAt},
};

/// How many holders a refusal names.
const NAMED_MAX: usize = 8;

impl From<&Granted> for Grant {
    fn from(granted: &Granted) -> Grant {
        Grant {
            lock: granted.lock,
            ticket: granted.ticket,
            resource: granted.resource.clone(),
            mode: granted.mode,
            token: granted.token,
            slots: granted.slots.clone(),
            expires_at: granted.expires_at,
            count: 1,
            wait_ms: granted.wait_ms,
        }
    }
}

impl State {
    pub(super) fn grant_of(&self, at: HoldAt) -> Grant {
        let hold = &self.holds[at];
        Grant {
            lock: hold.id,
            ticket: hold.ticket,
            resource: self.entries[hold.entry].resource.clone(),
            mode: hold.mode,
            token: hold.token,
            slots: hold.slots.clone(),
            expires_at: hold.expires_at,
            count: hold.count(),
            wait_ms: hold.wait_ms,
        }
    }

    /// What a request was granted, in the order of resources: its own ticket, also on a hold that
    /// an earlier one began.
    pub(super) fn grants(&self, ticket: Option<TicketId>, locks: &[LockId]) -> Vec<Grant> {
        let mut grants: Vec<Grant> = locks
            .iter()
            .filter_map(|&lock| self.hold(lock))
            .map(|hold| self.grant_of(hold))
            .map(|grant| Grant { ticket: ticket.unwrap_or(grant.ticket), ..grant })
            .collect();
        grants.sort_by(|a, b| a.resource.cmp(&b.resource));
        grants
    }

    pub(super) fn holder(&self, at: HoldAt) -> Holder {
        let hold = &self.holds[at];
        let session = &self.sessions[hold.session];
        Holder {
            resource: self.entries[hold.entry].resource.clone(),
            lock: hold.id,
            session: session.id,
            agent: session.agent.clone(),
            mode: hold.mode,
            reason: hold.reason.clone(),
            metadata: hold.metadata.clone(),
            acquired_at: hold.granted_at,
            expires_at: hold.expires_at,
            revoked_at: hold.revoked_at,
        }
    }

    /// The holders of a resource, the earliest first.
    pub(super) fn holders_of(&self, at: EntryAt) -> Vec<Holder> {
        let mut holders: Vec<Holder> =
            self.entries[at].holders.iter().map(|(_, hold)| self.holder(hold)).collect();
        holders.sort_by_key(|holder| (holder.acquired_at, holder.lock));
        holders
    }

    /// Those of the wanted resources that the rule does not let the session in on, and why.
    pub(super) fn obstacles(
        &self,
        session: SessionAt,
        place: Place,
        wants: &[(Resource, LockMode)],
    ) -> Vec<Obstacle> {
        wants
            .iter()
            .filter_map(|(resource, mode)| {
                let entry = self.entry(resource)?;
                let is_free = self.admits(entry, session, place, *mode);
                (!is_free).then(|| self.obstacle(entry, Some(session), *mode))
            })
            .collect()
    }

    /// Names the first few who stand in the way, however many they are: a refusal stays small.
    /// `own` does not stand in its own way.
    pub(super) fn obstacle(&self, at: EntryAt, own: Option<SessionAt>, mode: LockMode) -> Obstacle {
        let entry = &self.entries[at];
        let others = entry.holders.iter().filter(|&(holder, _)| Some(holder) != own);
        let mut conflicting: Vec<_> = others
            .map(|(_, hold)| (self.holds[hold].granted_at, self.holds[hold].id, hold))
            .filter(|&(_, _, hold)| self.holds[hold].mode.conflicts_with(mode))
            .collect();
        let held_by = conflicting.len();
        if held_by > NAMED_MAX {
            conflicting.select_nth_unstable(NAMED_MAX);
            conflicting.truncate(NAMED_MAX);
        }
        conflicting.sort_unstable();
        Obstacle {
            resource: entry.resource.clone(),
            holders: conflicting.into_iter().map(|(_, _, hold)| self.holder(hold)).collect(),
            held_by,
            waiting: entry.queue.len(),
        }
    }

    /// What a waiter is told that leaves its queues without a grant.
    pub(super) fn refusal_of_leaving(
        &self,
        at: TicketAt,
        cause: &LeaveCause,
        now: Timestamp,
    ) -> Refusal {
        let ticket = &self.tickets[at];
        let session = &self.sessions[ticket.session];
        match cause {
            LeaveCause::Cancelled | LeaveCause::ReleasedAll => Refusal::Cancelled,
            LeaveCause::TimedOut => {
                let wants: Vec<(Resource, LockMode)> = ticket
                    .wants
                    .iter()
                    .map(|want| (self.entries[want.entry].resource.clone(), want.mode))
                    .collect();
                let obstacles = self.obstacles(ticket.session, ticket.place(), &wants);
                Refusal::TimedOut { obstacles, waited_ms: now.since(ticket.queued_at) }
            }
            LeaveCause::Deadlock => match &session.last_deadlock {
                Some(report) => Refusal::Deadlock(report.clone()),
                None => Refusal::Cancelled,
            },
            LeaveCause::SessionEnded => Refusal::SessionEnded { session: session.id },
            LeaveCause::HoldEnded(lock) => Refusal::NotHolder { lock: *lock, holder: None },
            LeaveCause::Abandoned => Refusal::Abandoned { ticket: ticket.id },
            LeaveCause::CapacityShrunk => self.over_capacity(at),
            LeaveCause::Exhausted => Refusal::Exhausted,
        }
    }

    fn over_capacity(&self, at: TicketAt) -> Refusal {
        let wants = self.tickets[at].wants.iter();
        let mut too_many = wants.filter_map(|want| {
            let entry = &self.entries[want.entry];
            let capacity = entry.slots.as_ref()?.total;
            let asked = want.mode.permits();
            (asked > capacity).then(|| (entry.resource.clone(), asked, capacity))
        });
        match too_many.next() {
            Some((resource, asked, capacity)) => {
                Refusal::OverCapacity { resource, asked, capacity }
            }
            None => Refusal::Cancelled,
        }
    }

    /// How many stand before a request in the longest of its queues.
    pub(super) fn ahead_of(&self, at: TicketAt) -> usize {
        let ticket = &self.tickets[at];
        let place = ticket.place();
        let queues = ticket.wants.iter().map(|want| &self.entries[want.entry].queue);
        queues.map(|queue| queue.count_before(place)).max().unwrap_or(0)
    }

    fn lock_news(&self, at: HoldAt) -> LockNews {
        let hold: &Hold = &self.holds[at];
        let session = &self.sessions[hold.session];
        LockNews {
            resource: self.entries[hold.entry].resource.clone(),
            agent: session.agent.clone(),
            session: session.id,
            lock: hold.id,
            token: hold.token,
            mode: hold.mode,
            expires_at: hold.expires_at,
            wait_ms: None,
            held_ms: None,
            reason: hold.reason.clone(),
        }
    }
}

impl LockTable {
    /// What a fact means to those who watch; told just before the fact changes the table.
    pub(super) fn news_of(&self, fact: &Fact) -> Option<News> {
        match fact {
            Fact::Granted(granted) => {
                let session = self.state.session(granted.session)?;
                Some(News::Locked(LockNews {
                    resource: granted.resource.clone(),
                    agent: self.state.sessions[session].agent.clone(),
                    session: granted.session,
                    lock: granted.lock,
                    token: granted.token,
                    mode: granted.mode,
                    expires_at: granted.expires_at,
                    wait_ms: Some(granted.wait_ms),
                    held_ms: None,
                    reason: granted.reason.clone(),
                }))
            }
            Fact::Converted { lock, mode, token, .. } => {
                let mut news = self.state.lock_news(self.state.hold(*lock)?);
                news.mode = *mode;
                news.token = *token;
                Some(News::Locked(news))
            }
            Fact::Released { lock, remaining: 0, cause, .. } => {
                let hold = self.state.hold(*lock)?;
                let mut news = self.state.lock_news(hold);
                news.held_ms = Some(self.now.since(self.state.holds[hold].granted_at));
                Some(match cause {
                    ReleaseCause::Expired => News::Expired(news),
                    ReleaseCause::Forced { reason, .. } => {
                        news.reason = Some(reason.clone());
                        News::Revoked(news)
                    }
                    ReleaseCause::Deadlock | ReleaseCause::ReleasedAll => News::Revoked(news),
                    _ => News::Unlocked(news),
                })
            }
            Fact::RevocationSet { lock, until } => {
                let mut news = self.state.lock_news(self.state.hold(*lock)?);
                news.expires_at = *until;
                Some(News::Revoking(news))
            }
            Fact::Queued(queued) => {
                let session = self.state.session(queued.session)?;
                Some(News::Waiting(WaitNews {
                    resources: queued.wants.iter().map(|(name, _)| name.clone()).collect(),
                    agent: self.state.sessions[session].agent.clone(),
                    session: queued.session,
                    wait_until: queued.wait_until,
                    reason: queued.reason.clone(),
                }))
            }
            Fact::DeadlockFound(report) => Some(News::Deadlock { report: report.clone() }),
            Fact::SessionEnded { session, agent, cause } => {
                let (session, agent, cause) = (*session, agent.clone(), *cause);
                Some(News::SessionEnded { session, agent, cause })
            }
            _ => None,
        }
    }
}
