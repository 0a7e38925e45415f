//! What a repeated request is told: what became of the first one, and nothing happens again.

use super::{
    LockTable,
    deadlines::Due,
    memory::{Remembered, Verb},
    state::State,
};
use crate::{
    Answer, AskOptions, CallId, Fact, LockId, Outcome, Refusal, RequestId, SessionId, Subject,
    TicketId, Timestamp, Wait,
    places::{HoldAt, SessionAt, TicketAt},
    time::millis,
};
use std::time::Duration;

impl State {
    pub(super) fn waiting_with(&self, session: SessionAt, request: RequestId) -> Option<TicketAt> {
        self.sessions[session]
            .tickets
            .places()
            .find(|&ticket| self.tickets[ticket].request_id == Some(request))
    }

    /// A hold, as long as the request still has its share of it.
    pub(super) fn share_of(&self, ticket: Option<TicketId>, lock: LockId) -> Option<HoldAt> {
        let hold = self.hold(lock)?;
        ticket.is_none_or(|ticket| self.holds[hold].has_share(ticket)).then_some(hold)
    }
}

impl LockTable {
    /// Goes on waiting on a ticket, or tells what became of it.
    pub(super) fn wait(&mut self, call: CallId, wait: Wait) {
        let outcome = match self.session(wait.session) {
            Err(refusal) => Err(refusal),
            Ok(at) => match self.state.sessions[at].tickets.get(wait.ticket) {
                Some(ticket) => return self.attach(call, ticket, wait.slice),
                None => {
                    let memory = &self.state.sessions[at].memory;
                    let known = memory.latest().find(|one| one.ticket == Some(wait.ticket));
                    match known {
                        Some(known) => self.retold(known),
                        None => Err(Refusal::Unknown(Subject::Ticket(wait.ticket))),
                    }
                }
            },
        };
        self.reply(call, outcome);
    }

    /// If this is a repeated request for locks, attaches the call to it, or answers it.
    pub(super) fn is_repeated(
        &mut self,
        call: CallId,
        session: SessionAt,
        verb: Verb,
        options: &AskOptions,
    ) -> bool {
        let Some(request) = options.request_id else { return false };
        if let Some(ticket) = self.state.waiting_with(session, request) {
            match self.state.tickets[ticket].upgrade == (verb == Verb::Upgrade) {
                true => self.attach(call, ticket, options.slice),
                false => self.reply(call, Err(Refusal::RequestIdReused { request })),
            }
            return true;
        }
        let Some(outcome) = self.answered(session, verb, request) else { return false };
        self.reply(call, outcome);
        true
    }

    /// The answer to an earlier request with the same id, if there was one.
    #[allow(clippy::type_complexity, reason = "an outcome that may not be there, or not be asked")]
    pub(super) fn repeated(
        &self,
        session: SessionId,
        verb: Verb,
        request: Option<RequestId>,
    ) -> Result<Option<Result<Answer, Refusal>>, Refusal> {
        let Some(request) = request else { return Ok(None) };
        let at = self.session(session)?;
        Ok(self.answered(at, verb, request))
    }

    pub(super) fn answered(
        &self,
        session: SessionAt,
        verb: Verb,
        request: RequestId,
    ) -> Option<Result<Answer, Refusal>> {
        let known = self.state.sessions[session].memory.with_request(request)?;
        Some(match known.outcome.is_of(verb) && self.began_as(known, verb) {
            true => self.retold(known),
            false => Err(Refusal::RequestIdReused { request }),
        })
    }

    /// Whether what a request got, as far as it is still there, are claims of tasks if and only if
    /// it claims tasks now. Of what is over both are told the same.
    fn began_as(&self, known: &Remembered, verb: Verb) -> bool {
        let Outcome::Granted(locks) = &known.outcome else { return true };
        let mut held = locks.iter().filter_map(|&lock| self.state.hold(lock)).peekable();
        let is_over = held.peek().is_none();
        let claims = |at: HoldAt| {
            let hold = &self.state.holds[at];
            hold.is_claim && Some(hold.ticket) == known.ticket
        };
        is_over || held.any(claims) == (verb == Verb::Claim)
    }

    /// What a finished request amounts to by now.
    fn retold(&self, known: &Remembered) -> Result<Answer, Refusal> {
        match &known.outcome {
            Outcome::Refused(refusal) => Err((**refusal).clone()),
            &Outcome::Released(lock, remaining) => Ok(Answer::Released { lock, remaining }),
            Outcome::TaskMoved(task) => Ok(Answer::TaskMoved(task.clone())),
            &Outcome::Renewed(lock, expires_at) => Ok(Answer::Renewed { lock, expires_at }),
            &Outcome::Converted(lock) => match self.state.hold(lock) {
                Some(hold) => Ok(Answer::Changed(self.state.grant_of(hold).into())),
                None => Err(Refusal::NotHolder { lock, holder: None }),
            },
            Outcome::Granted(locks) => {
                let is_gone = |lock: &&LockId| self.state.share_of(known.ticket, **lock).is_none();
                match locks.iter().find(is_gone) {
                    Some(&lock) => Err(Refusal::NotHolder { lock, holder: None }),
                    None => Ok(Answer::Granted(self.state.grants(known.ticket, locks))),
                }
            }
        }
    }

    /// Lets a call wait on a ticket: until the wait ends, or until its slice does.
    pub(super) fn attach(&mut self, call: CallId, at: TicketAt, slice: Option<Duration>) {
        let id = self.state.tickets[at].id;
        if let Some(older) = self.state.tickets[at].call.take() {
            self.reply(older, Err(Refusal::Superseded { ticket: id }));
        }
        if self.state.tickets[at].poll_by.is_some() {
            self.record(Fact::PollSet { ticket: id, poll_by: None });
        }
        self.state.tickets[at].call = Some(call);
        let slice_until = slice.map(|slice| self.now.after(slice));
        self.set_slice(at, slice_until);
        if slice_until.is_some_and(|until| until <= self.now) {
            self.answer_queued(id);
        }
    }

    /// A call's slice is over: it is told its ticket, which now must be polled.
    pub(super) fn answer_queued(&mut self, id: TicketId) {
        let Some(at) = self.state.ticket(id) else { return };
        self.set_slice(at, None);
        let Some(call) = self.state.tickets[at].call.take() else { return };
        let poll_by = self.now.after(self.config.ticket_grace);
        self.record(Fact::PollSet { ticket: id, poll_by: Some(poll_by) });
        let ahead = self.state.ahead_of(at);
        self.reply(call, Ok(Answer::Queued { ticket: id, ahead, poll_by }));
    }

    /// Routing, not a fact: a call does not survive its process.
    fn set_slice(&mut self, at: TicketAt, until: Option<Timestamp>) {
        let id = self.state.tickets[at].id;
        if let Some(old) = self.state.tickets[at].slice_until {
            self.state.deadlines.remove(&(old, Due::Slice(id)));
        }
        self.state.tickets[at].slice_until = until;
        if let Some(until) = until {
            self.state.deadlines.insert((until, Due::Slice(id)));
        }
    }

    /// A lease as it will be: the default if none is asked for, never nothing, never too long.
    pub(super) fn lease_ms(&self, asked: Option<Duration>) -> u64 {
        let lease = asked.unwrap_or(self.config.lease_default);
        millis(lease.min(self.config.limits.lease_max)).max(1)
    }

    pub(super) fn wait_ms(&self, asked: Option<Duration>) -> u64 {
        millis(asked.unwrap_or(self.config.wait_default).min(self.config.limits.wait_max))
    }
}
