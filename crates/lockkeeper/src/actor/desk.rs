//! Speaks of what is written: answers callers, tells guards, sends events, warns, counts.
//!
//! It runs where the commit was made, right after it. Whoever lost a lock hears of it before
//! anybody hears that he got it.

use super::{LockActorArgs, Owed, Shared};
use crate::{
    ProjectEvent,
    error::{CallError, Unavailable},
    guard::{GuardBook, HoldState, Lost},
    metrics::{Meter, ProjectMeter},
    session::Owner,
    told::{Change, Told, arm_for},
};
use foldhash::fast::RandomState;
use kameo::reply::ReplySender;
use lockkeeper_core::{
    Answer, CallId, DeadlockReport, Event, LockNews, LockTable, News, Refusal, Settled,
};
use lockkeeper_store::StoreError;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{broadcast, oneshot};

type ThenTold = Box<dyn FnOnce(Result<Told, CallError>) + Send>;

/// What a turn is for.
pub(super) enum Caller {
    /// Nobody: time passed.
    Nobody,
    /// Nobody, but it must happen.
    Debt(Owed),
    /// A lease that renews itself.
    Renewal(Arc<HoldState>),
    /// Somebody who waits for the answer.
    Asker(Asker),
}

/// Who waits for an answer. There may be very many, so none is large.
pub(super) enum Asker {
    /// A handle of this crate.
    Owner(oneshot::Sender<Result<Told, CallError>>, Arc<Owner>),
    /// Somebody who wants the plain answer and answers for what is granted himself.
    Plainly(oneshot::Sender<Result<Answer, CallError>>),
    /// The same, by an ask of the actor library.
    Plain(ReplySender<Result<Answer, CallError>>),
    /// Somebody else; with an owner, grants come as guards.
    Then(Option<Arc<Owner>>, ThenTold),
}

impl From<Asker> for Caller {
    fn from(asker: Asker) -> Caller {
        Caller::Asker(asker)
    }
}

/// An answer whose guards are in the book already, not sent yet.
enum Prepared {
    Nothing,
    Owner(oneshot::Sender<Result<Told, CallError>>, Result<Told, CallError>),
    Plainly(oneshot::Sender<Result<Answer, CallError>>, Result<Answer, CallError>),
    Plain(ReplySender<Result<Answer, CallError>>, Result<Answer, CallError>),
    Then(ThenTold, Result<Told, CallError>),
    /// A lease that was not renewed because its hold is over.
    Over(Arc<HoldState>),
}

impl Prepared {
    fn send(self) {
        match self {
            Prepared::Nothing => {}
            // A guard that nobody takes gives its lock back.
            Prepared::Owner(tell, told) => drop(tell.send(told)),
            Prepared::Plainly(tell, answer) => drop(tell.send(answer)),
            Prepared::Plain(tell, answer) => tell.send(answer),
            Prepared::Then(then, told) => then(told),
            Prepared::Over(state) => state.end(Lost::Released),
        }
    }
}

impl Caller {
    fn prepare(self, outcome: Result<Answer, Refusal>) -> Prepared {
        match self {
            Caller::Nobody | Caller::Debt(_) => Prepared::Nothing,
            // A new end is told to all guards; one that is being revoked knows.
            Caller::Renewal(state) => match outcome {
                Err(Refusal::NotHolder { .. } | Refusal::SessionEnded { .. }) => {
                    Prepared::Over(state)
                }
                _ => Prepared::Nothing,
            },
            Caller::Asker(asker) => asker.prepare(outcome.map_err(CallError::Refused)),
        }
    }

    /// There is no answer. What must happen is remembered for the actor's next life.
    pub(super) fn unavailable(self, why: &Unavailable, shared: &Shared) {
        match self {
            Caller::Nobody | Caller::Renewal(_) => {}
            Caller::Asker(asker) => asker.unavailable(why),
            Caller::Debt(owed) => match why {
                Unavailable::Store(_) | Unavailable::NotServing(_) => shared.owe(owed),
                // Its sessions have ended.
                Unavailable::ShutDown => {}
                // The others are said far from here.
                _ => {
                    tracing::error!(?owed, "given up: it ended the actor");
                }
            },
        }
    }

    fn agent(&self) -> &str {
        match self {
            Caller::Asker(Asker::Owner(_, owner) | Asker::Then(Some(owner), _)) => owner.agent(),
            _ => "",
        }
    }
}

impl Asker {
    fn prepare(self, outcome: Result<Answer, CallError>) -> Prepared {
        match self {
            Asker::Owner(tell, owner) => {
                Prepared::Owner(tell, outcome.map(|answer| arm_for(answer, owner)))
            }
            Asker::Plainly(tell) => Prepared::Plainly(tell, outcome),
            Asker::Plain(tell) => Prepared::Plain(tell, outcome),
            Asker::Then(owner, then) => {
                let told = outcome.map(|answer| match owner {
                    Some(owner) => arm_for(answer, owner),
                    None => Told::Answer(answer),
                });
                Prepared::Then(then, told)
            }
        }
    }

    fn unavailable(self, why: &Unavailable) {
        let error = CallError::Unavailable(why.clone());
        match self {
            Asker::Owner(tell, _) => drop(tell.send(Err(error))),
            Asker::Plainly(tell) => drop(tell.send(Err(error))),
            Asker::Plain(tell) => tell.send(Err(error)),
            Asker::Then(_, then) => then(Err(error)),
        }
    }
}

/// For how many answers of one turn memory is kept.
const PREPARED_MAX: usize = 64;

/// Speaks for one reign of one project.
pub(super) struct Desk {
    project: Arc<str>,
    shared: Arc<Shared>,
    book: Arc<GuardBook>,
    /// Calls whose answer comes in a later turn.
    waiting: HashMap<CallId, Asker, RandomState>,
    events: broadcast::Sender<Arc<ProjectEvent>>,
    meter: ProjectMeter,
    failed: Option<StoreError>,
    /// Empty between two turns: only its memory is kept, so that a turn needs none of its own.
    prepared: Vec<(Change, Prepared)>,
}

impl Desk {
    pub(super) fn new(args: &LockActorArgs) -> Desk {
        Desk {
            project: args.project.clone(),
            shared: args.shared.clone(),
            book: args.shared.book.clone(),
            waiting: HashMap::default(),
            events: args.events.clone(),
            meter: Meter::project(&args.meter),
            failed: None,
            prepared: Vec::new(),
        }
    }

    /// What the table holds when the reign begins.
    pub(super) fn start_from(&mut self, table: &LockTable) {
        self.meter.start_from(table);
    }

    /// A turn is written.
    pub(super) fn settled(&mut self, call: CallId, caller: Caller, settled: Settled) {
        let (replies, events) = settled.into_parts();
        let mut own = Some(caller);
        let mut answers = std::mem::take(&mut self.prepared);
        // Guards come into being before anything that happened in the turn is told: what was
        // granted and ended in one turn must find a guard that can learn it.
        for reply in replies {
            let caller = match reply.call == call {
                true => own.take(),
                false => self.waiting.remove(&reply.call).map(Caller::Asker),
            };
            let change = reply.outcome.as_ref().map_or(Change::None, Change::of);
            let answer = caller.map_or(Prepared::Nothing, |caller| {
                if let Err(refusal) = &reply.outcome {
                    self.meter.refused(caller.agent(), refusal);
                }
                caller.prepare(reply.outcome)
            });
            answers.push((change, answer));
        }
        for event in &events {
            self.notice(event);
        }
        for (change, answer) in answers.drain(..) {
            // Whether or not anybody still waits for the answer, the guards must know.
            change.tell(&self.book);
            answer.send();
        }
        if answers.capacity() <= PREPARED_MAX {
            self.prepared = answers;
        }
        if let Some(Caller::Asker(asker)) = own {
            self.waiting.insert(call, asker);
        }
        self.meter.waiting(self.waiting.len());
        if self.events.receiver_count() > 0 {
            for event in events {
                let project_id = self.project.clone();
                let _ = self.events.send(Arc::new(ProjectEvent { project_id, event }));
            }
        }
    }

    /// A turn could not be written, and none after it will be.
    pub(super) fn failed(&mut self, caller: Caller, error: StoreError) {
        if self.failed.is_none() {
            tracing::error!(project = %self.project, %error, "a turn could not be written");
            self.failed = Some(error.clone());
            self.shared.failed(&error);
        }
        caller.unavailable(&Unavailable::Store(error), &self.shared);
    }

    /// Nothing is decided any more. What waits keeps its place on record, but not its call.
    pub(super) fn close(&mut self) {
        for (_, asker) in self.waiting.drain() {
            asker.unavailable(&Unavailable::ShutDown);
        }
        self.meter.waiting(0);
    }

    /// Tells guards, warns and counts.
    fn notice(&mut self, event: &Event) {
        self.meter.event(event);
        match &event.news {
            News::Unlocked(news) => self.book.end(news.lock, Lost::Released),
            News::Expired(news) => {
                self.book.end(news.lock, Lost::Expired);
                self.warn("a lease ended", news);
            }
            News::Revoked(news) => {
                self.book.end(news.lock, Lost::Revoked);
                self.warn("a lock was taken away", news);
            }
            News::Revoking(news) => {
                if let Some(state) = self.book.find(news.lock) {
                    state.revoking(news.expires_at);
                }
            }
            News::Deadlock { report } => self.warn_of(report),
            News::SessionEnded { session, agent, cause } => {
                tracing::debug!(project = %self.project, %session, %agent, ?cause, "session ended");
            }
            _ => {}
        }
    }

    fn warn(&self, what: &str, news: &LockNews) {
        tracing::warn!(
            project = %self.project,
            resource = %news.resource,
            agent = %news.agent,
            lock = %news.lock,
            token = news.token.get(),
            reason = news.reason.as_deref(),
            "{what}"
        );
    }

    fn warn_of(&self, report: &DeadlockReport) {
        let participants = report.participants.iter();
        let cycle: Vec<&str> = participants.clone().map(|one| &*one.rank.agent).collect();
        let tokens: Vec<u64> =
            participants.flat_map(|one| one.holds.iter().map(|held| held.token.get())).collect();
        let victim = report.victim().map_or("", |victim| &*victim.rank.agent);
        let resource_key = report.resource.as_ref().map_or("", |resource| resource.key());
        tracing::warn!(
            project = %self.project,
            cycle = cycle.join(" -> "),
            victim,
            tokens = ?tokens,
            policy = report.policy,
            "Deadlock detected on resource {resource_key}"
        );
    }
}
