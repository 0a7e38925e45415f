//! The first turn of a table that was rebuilt.
//!
//! While nobody was there nobody could renew, poll or come back. So nothing may end before it has
//! its full time again: this turn is the only one that does not begin with what is due.

use super::{LockTable, state::State};
use crate::{
    Answer, CallId, EndCause, Fact, LeaveCause, ReleaseCause, Resource, Resume, SessionId,
    SessionKind, TicketId, Timestamp,
    places::{HoldAt, SessionAt},
};

impl LockTable {
    #[inline(never)]
    pub(super) fn resume(&mut self, call: CallId, resume: Resume) {
        let (holds, tickets) = (self.state.holds.len(), self.state.tickets.len());
        let poll_by = self.now.after(self.config.ticket_grace);
        self.record(Fact::Resumed { poll_by });
        // After a rebuild no call waits. Should this come later, those who wait need not poll.
        for ticket in self.state.attached_tickets() {
            self.record(Fact::PollSet { ticket, poll_by: None });
        }
        let (ended, released) = if resume.orphaned { self.end_orphans() } else { (0, 0) };
        self.rescan(self.state.queued_for());
        self.end_what_is_due();
        self.reply(call, Ok(Answer::Resumed { holds, tickets, ended, released }));
    }

    /// Ends every attached session: its connection died with the process. How many there were, and
    /// how many holds they had. The caller hands over.
    fn end_orphans(&mut self) -> (usize, usize) {
        let cause = EndCause::OwnerDied;
        let orphans = self.state.attached_sessions();
        let mut released = 0;
        for &(session, at) in &orphans {
            let (left, freed) = (LeaveCause::SessionEnded, ReleaseCause::SessionEnded(cause));
            released += self.empty(at, &left, &freed).released;
            let agent = self.state.sessions[at].agent.clone();
            self.record(Fact::SessionEnded { session, agent, cause });
        }
        (orphans.len(), released)
    }
}

impl State {
    /// Gives every hold its full lease again, every ticket its time to be polled, and every idle
    /// session its time to come back. Nothing gets less than it had.
    #[inline(never)]
    pub(super) fn resume(&mut self, poll_by: Timestamp, now: Timestamp) {
        let holds: Vec<HoldAt> = self.holds.iter().map(|(at, _)| at).collect();
        for hold in holds {
            self.change_deadline(hold, |hold| {
                let full = Timestamp(now.0.saturating_add(hold.lease_ms));
                hold.expires_at = hold.expires_at.max(full);
            });
        }
        let tickets: Vec<(TicketId, Option<Timestamp>)> =
            self.tickets.iter().map(|(_, ticket)| (ticket.id, ticket.poll_by)).collect();
        for (ticket, had) in tickets {
            self.set_poll(ticket, had.max(Some(poll_by)));
        }
        let idle: Vec<SessionAt> = self.sessions.iter().map(|(at, _)| at).collect();
        for session in idle {
            self.restart_idle(session, now);
        }
    }

    /// The tickets that calls wait on, the earliest first.
    fn attached_tickets(&self) -> Vec<TicketId> {
        let attached = self.tickets.iter().filter(|(_, ticket)| ticket.call.is_some());
        let mut tickets: Vec<TicketId> = attached.map(|(_, ticket)| ticket.id).collect();
        tickets.sort_unstable();
        tickets
    }

    fn attached_sessions(&self) -> Vec<(SessionId, SessionAt)> {
        let all = self.sessions.iter();
        let mut attached: Vec<(SessionId, SessionAt)> = all
            .filter(|(_, session)| session.kind == SessionKind::Attached)
            .map(|(at, session)| (session.id, at))
            .collect();
        attached.sort_unstable();
        attached
    }

    /// Every resource somebody waits for, in order.
    fn queued_for(&self) -> Vec<Resource> {
        let queued = self.entries.iter().filter(|(_, entry)| !entry.queue.is_empty());
        let mut resources: Vec<Resource> =
            queued.map(|(_, entry)| entry.resource.clone()).collect();
        resources.sort_unstable();
        resources
    }
}
