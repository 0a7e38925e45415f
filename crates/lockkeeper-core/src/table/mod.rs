//! The lock table: one command in, its effects out.
//!
//! A turn has three parts. What is due by `now` ends first (save in the first turn of a rebuilt
//! table); then the command is decided, by the file named after what it is about; and each fact
//! that follows from either goes through [`LockTable::record`], which changes the [`State`] and
//! hands the fact to the journal.
//!
//! | file | decides |
//! |---|---|
//! | `acquire` | who is let in, who queues, who is refused |
//! | `rescan` | who is next when something was freed |
//! | `detect` | whether a request closes a cycle, who loses, what is released |
//! | `ending` | release, cancel, force, expiry, the end of a session |
//! | `change` | renewal, upgrade, downgrade, capacity, declared waits |
//! | `tasks` | claims of tasks, and what becomes of a task whose claim ends |
//! | `retry` | what a repeated request is told |
//! | `resume` | what a rebuilt table gives everybody before anything ends |
//!
//! `state`, `queue`, `memory`, `deadlines`, `replay` and `edges` hold the state and decide nothing;
//! `cycle` finds the cycle, `reduce` answers whether one through permits is a deadlock, and
//! `bystanders` who is on it in vain;
//! `describe` and `views` put things into words.

mod acquire;
mod bystanders;
mod change;
mod cycle;
mod deadlines;
mod describe;
mod detect;
mod edges;
mod ending;
mod memory;
mod queue;
mod reduce;
mod replay;
mod rescan;
mod resume;
mod retry;
mod state;
mod tasks;
mod views;

use crate::{
    Answer, CallId, Command, Effects, Event, Fact, OpenSession, Record, Refusal, Reign, Reply,
    SessionId, TableConfig, TicketId, Timestamp, Token,
};
use deadlines::Due;
use smallvec::smallvec;
use state::State;

/// One project's locks: who holds what, who waits for whom.
///
/// ```
/// use lockkeeper_core::*;
///
/// let mut table = LockTable::new(TableConfig::default(), Reign::first(42));
/// let mut ledger = Ledger::new(Vec::new()); // a journal in memory
/// let now = Timestamp(1_000);
///
/// let open = OpenSession { agent: "agent-coder".into(), ..OpenSession::default() };
/// let settled = table.apply(now, open).settle(&mut ledger).unwrap();
/// let Ok(Answer::SessionOpened { session }) = settled.replies()[0].outcome else { panic!() };
///
/// let ask = Acquire {
///     session,
///     resource: Resource::file("src/main.rs"),
///     mode: LockMode::Exclusive,
///     options: AskOptions::default(),
/// };
/// let settled = table.apply(now, ask).settle(&mut ledger).unwrap();
/// let Ok(Answer::Granted(grants)) = &settled.replies()[0].outcome else { panic!() };
/// assert_eq!(grants[0].token.epoch().get(), 1);
/// assert_eq!(ledger.journal().len(), 2, "the session and the grant, written before spoken of");
/// ```
#[derive(Debug)]
pub struct LockTable {
    config: TableConfig,
    state: State,
    /// The latest moment any turn was given; time never goes back.
    now: Timestamp,
    calls: u64,
    events: u64,
    /// What the present turn has caused so far.
    turn: Effects,
}

impl LockTable {
    /// A table without any lock, at the start of a reign. What its store remembers is replayed
    /// into it before the first command.
    pub fn new(config: TableConfig, reign: Reign) -> LockTable {
        LockTable {
            state: State::new(reign, &config),
            config,
            now: Timestamp(0),
            calls: 0,
            events: reign.last_event,
            turn: Effects::new(CallId(0)),
        }
    }

    /// Decides one command. Total: a refusal is a reply, never an error.
    ///
    /// Every command is answered once: in these effects, or, when it waits, in those of a later
    /// turn, by the number that [`Effects::call`] gives.
    pub fn apply(&mut self, now: Timestamp, command: impl Into<Command>) -> Effects {
        self.now = self.now.max(now);
        self.calls += 1;
        let call = CallId(self.calls);
        self.turn = Effects::new(call);
        let command = command.into();
        // What is due when a table resumes may owe that to a time in which nobody could prevent it.
        if !matches!(command, Command::Resume(_)) {
            self.end_what_is_due();
        }
        self.decide(call, command);
        self.turn.last_event = self.events;
        std::mem::replace(&mut self.turn, Effects::new(call))
    }

    /// Takes in one fact. `apply` and recovery both change the table through here, and nothing
    /// else does.
    pub fn replay(&mut self, record: &Record) {
        self.now = self.now.max(record.at);
        self.state.replay(record);
    }

    /// When `apply(now, Command::Tick)` next has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.state.deadlines.first().map(|(at, _)| at)
    }

    /// The number of the last event, for the next [`Reign`].
    pub fn last_event(&self) -> u64 {
        self.events
    }

    fn decide(&mut self, call: CallId, command: Command) {
        let outcome = match command {
            Command::OpenSession(open) => self.open_session(open),
            Command::EndSession(end) => self.end_session(end),
            Command::Acquire(ask) => {
                let wants = smallvec![(ask.resource, ask.mode)];
                return self.acquire(call, ask.session, wants, &ask.options);
            }
            Command::AcquireAll(ask) => {
                return self.acquire(call, ask.session, ask.wants.into(), &ask.options);
            }
            Command::Wait(wait) => return self.wait(call, wait),
            Command::Upgrade(upgrade) => return self.upgrade(call, upgrade),
            Command::Cancel(cancel) => self.cancel(cancel),
            Command::Release(release) => self.release(release),
            Command::Renew(renew) => self.renew(renew),
            Command::Downgrade(downgrade) => self.downgrade(downgrade),
            Command::DeclareWait(declare) => self.declare_wait(declare),
            Command::WithdrawWait(withdraw) => self.withdraw_wait(withdraw),
            Command::ForceUnlock(force) => self.force_unlock(force),
            Command::ReleaseAll(release) => self.release_all(&release),
            Command::DeclareCapacity(declare) => self.declare_capacity(declare),
            Command::ClaimTasks(claim) => self.claim_tasks(claim),
            Command::FinishTask(finish) => self.finish_task(finish),
            Command::ReopenTask(reopen) => self.reopen_task(&reopen),
            Command::ForgetTask(forget) => self.forget_task(&forget),
            Command::Resume(resume) => return self.resume(call, resume),
            Command::Tick => Ok(Answer::Ticked),
        };
        self.reply(call, outcome);
    }

    fn open_session(&mut self, open: OpenSession) -> Result<Answer, Refusal> {
        let limits = &self.config.limits;
        self.within(crate::Limit::Sessions, self.state.sessions.len() + 1, limits.sessions_max)?;
        self.within(crate::Limit::TextBytes, open.agent.len(), limits.text_bytes_max)?;
        let number = self.state.issued.sessions.checked_add(1).ok_or(Refusal::Exhausted)?;
        let epoch = self.state.reign.epoch;
        let session = SessionId::new(epoch, number);
        // Work that is said to begin in a later reign would take that reign's numbers from it.
        let newest = TicketId::new(epoch, u32::MAX);
        self.record(Fact::SessionOpened {
            session,
            agent: open.agent,
            kind: open.kind,
            priority: open.priority.clamp(-10, 10),
            birth: open.lineage.map(|lineage| lineage.birth.min(newest)),
            aborts: open.lineage.map_or(0, |lineage| lineage.aborts),
        });
        Ok(Answer::SessionOpened { session })
    }

    /// Handles everything that ended by itself, in the order in which it did. Each arm takes the
    /// deadline away, so that the loop ends.
    fn end_what_is_due(&mut self) {
        while let Some((at, due)) = self.state.deadlines.first()
            && at <= self.now
        {
            match due {
                Due::Wait(ticket) => self.time_out(ticket),
                Due::Poll(ticket) => self.abandon(ticket),
                Due::Slice(ticket) => self.answer_queued(ticket),
                Due::Hold(lock) => self.expire(lock),
                Due::Idle(session) => self.end_idle(session),
            }
            debug_assert!(!self.state.deadlines.contains(&(at, due)), "{due:?} is still due");
        }
    }

    /// The one way in which a turn changes the table.
    fn record(&mut self, fact: Fact) {
        if let Some(news) = self.news_of(&fact) {
            self.events += 1;
            push(&mut self.turn.events, Event { seq: self.events, at: self.now, news });
        }
        let record = push(&mut self.turn.records, Record { at: self.now, fact });
        self.state.replay(record);
    }

    fn reply(&mut self, call: CallId, outcome: Result<Answer, Refusal>) {
        push(&mut self.turn.replies, Reply { call, outcome });
    }

    /// The number of the next request. It counts as issued once a fact carries it.
    fn next_ticket(&self) -> Result<TicketId, Refusal> {
        match self.state.issued.tickets.checked_add(1) {
            Some(number) => Ok(TicketId::new(self.state.reign.epoch, number)),
            None => Err(Refusal::Exhausted),
        }
    }

    fn next_token(&self) -> Result<Token, Refusal> {
        match self.state.issued.tokens.checked_add(1) {
            Some(number) => Ok(Token::new(self.state.reign.epoch, number)),
            None => Err(Refusal::Exhausted),
        }
    }

    fn within(&self, limit: crate::Limit, count: usize, max: usize) -> Result<(), Refusal> {
        if count > max {
            return Err(Refusal::LimitReached { limit, max: max as u64 });
        }
        Ok(())
    }
}

/// Most turns cause one of each, so the first one gets room for itself only.
fn push<T>(list: &mut Vec<T>, one: T) -> &T {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(one);
    &list[list.len() - 1]
}
