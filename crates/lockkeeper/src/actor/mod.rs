//! The lock actor: one per project, everything that happens to its locks goes through it.
//!
//! It owns the lock table and applies one message at a time. It never waits for the disk: what a
//! turn caused goes to the journal, and the [`desk`] speaks once it is written.
//!
//! If a commit fails, whoever waits for it is told that nothing was decided, the actor stops, and
//! its supervisor starts it again: it claims the project anew and rebuilds the table from what is
//! written. Its address stays the same, and so do guards.

mod desk;
mod journal;
mod messages;
mod query;

use crate::{
    clock::{Clock, random},
    config::Config,
    error::{CallError, Unavailable},
    guard::{GuardBook, Lost},
    house::Running,
    metrics::Meter,
    session::Owner,
};
use desk::{Asker, Caller, Desk};
use journal::Journal;
use kameo::{
    actor::{Actor, ActorId, ActorRef, WeakActorRef},
    error::{ActorStopReason, PanicError},
    mailbox::{MailboxReceiver, Signal},
};
use lockkeeper_core::{
    Command, EndCause, EndSession, LockTable, Reign, Resume, SessionId, SessionKind, Timestamp,
};
use lockkeeper_store::StoreError;
use std::{
    fmt,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::broadcast, time::Sleep};
use tracing::Instrument;

pub(crate) use journal::Keeping;
pub use messages::Acquired;
pub(crate) use messages::{
    Ask, JournalFailed, KeepAlive, OpenOwned, Owed, Plainly, Shutdown, ShutdownDone,
};
pub(crate) use query::See;

/// How soon a project that cannot be taken over is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// One project's lock coordinator, an ordinary kameo actor.
///
/// A [`crate::LockManager`] starts one for each project and supervises it; get its address with
/// [`crate::LockManager::lock_actor`]. Every command of the core is a message to it.
pub struct LockActor {
    args: LockActorArgs,
    state: State,
    /// The one timer: fires at the next deadline, or somewhat before.
    alarm: Pin<Box<Sleep>>,
    alarm_at: Option<Timestamp>,
    /// Why this life is over. It ends between two messages, never in one: what waits in the mailbox
    /// behind a message that ends the actor may be lost while the actor starts.
    doomed: Option<StoreError>,
}

impl fmt::Debug for LockActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockActor").field("project", &self.args.project).finish_non_exhaustive()
    }
}

/// What a lock actor is started with, at first and again after each death.
#[derive(Clone)]
pub struct LockActorArgs {
    pub(crate) project: Arc<str>,
    pub(crate) keeping: Keeping,
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: broadcast::Sender<Arc<crate::ProjectEvent>>,
    pub(crate) meter: Arc<Meter>,
}

impl fmt::Debug for LockActorArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockActorArgs").field("project", &self.project).finish_non_exhaustive()
    }
}

/// What outlives the lives of one actor.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) book: Arc<GuardBook>,
    /// The address of its first life, which reaches all of them. A later life has no strong address
    /// of its own: nobody holds the one it was started with, so a weak one leads nowhere.
    address: OnceLock<ActorRef<LockActor>>,
    /// What must happen and could not be written: done first in the next life.
    debts: Mutex<Vec<Owed>>,
    /// Whether the sessions of earlier processes have ended, on record.
    adopted: AtomicBool,
    /// How many lives in a row ended before their first turn was written, and why the last one did.
    failures: Mutex<(u32, Option<StoreError>)>,
}

impl Shared {
    /// A turn could not be written: tells the actor, whichever life it is in.
    pub(crate) fn failed(&self, error: &StoreError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = (failures.0.saturating_add(1), Some(error.clone()));
        drop(failures);
        if let Some(address) = self.address.get() {
            let _ = address.tell(JournalFailed(error.clone())).try_send();
        }
    }

    /// The first turn of a life is written.
    fn succeeded(&self) {
        self.adopted.store(true, Ordering::Release);
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = (0, None);
    }

    /// Why the next life had better not begin at once, and how long it should wait: a disk that
    /// lets a project be claimed but nothing be written would be claimed without end.
    fn pause(&self) -> Option<(StoreError, Duration)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, error) = (failures.0, failures.1.clone()?);
        let pause = RETRY_FIRST.saturating_mul(1 << count.saturating_sub(2).min(16));
        (count > 1).then_some((error, pause.min(RETRY_MAX)))
    }

    pub(crate) fn owe(&self, owed: Owed) {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner).push(owed);
    }

    fn take_debts(&self) -> Vec<Owed> {
        std::mem::take(&mut *self.debts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a life of the actor is in.
enum State {
    Serving(Box<Serving>),
    /// The project could not be taken over; everybody is told so until it can.
    Down {
        why: Unavailable,
        retry_at: Option<Timestamp>,
        backoff: Duration,
    },
}

struct Serving {
    table: LockTable,
    journal: Journal,
    desk: Arc<Mutex<Desk>>,
}

impl Actor for LockActor {
    type Args = LockActorArgs;
    type Error = StoreError;

    fn name() -> &'static str {
        "LockActor"
    }

    async fn on_start(args: LockActorArgs, me: ActorRef<Self>) -> Result<Self, StoreError> {
        args.shared.address.get_or_init(|| me);
        let why = Unavailable::Crashed;
        let mut actor = LockActor {
            args,
            state: State::Down { why, retry_at: None, backoff: RETRY_FIRST },
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            alarm_at: None,
            doomed: None,
        };
        match actor.args.shared.pause() {
            None => actor.take_over().await,
            Some((error, backoff)) => {
                let retry_at = Some(actor.args.clock.now().after(backoff));
                actor.state =
                    State::Down { why: Unavailable::NotServing(error), retry_at, backoff };
            }
        }
        Ok(actor)
    }

    /// A message, or the next deadline. The mailbox goes first: every turn ends what is due.
    async fn next(
        &mut self,
        _: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, StoreError> {
        loop {
            // Also after the alarm: a life must not end only when the next message comes.
            if let Some(error) = self.doomed.take() {
                return Err(error);
            }
            // Whoever is ready to ask for something does so first: all of it is written together.
            if mailbox.is_empty() && self.owes_a_write() {
                tokio::task::yield_now().await;
                if mailbox.is_empty() {
                    self.write();
                }
            }
            self.set_alarm();
            let is_set = self.alarm_at.is_some();
            tokio::select! {
                biased;
                signal = mailbox.recv() => return Ok(signal),
                () = self.alarm.as_mut(), if is_set => {
                    self.alarm_at = None;
                    self.wake().await;
                }
            }
        }
    }

    /// A defect ends this life; the next one begins with what is written.
    async fn on_panic(
        &mut self,
        _: WeakActorRef<Self>,
        error: PanicError,
    ) -> Result<ControlFlow<ActorStopReason>, StoreError> {
        tracing::error!(project = %self.args.project, %error, "the lock actor is restarted");
        Ok(ControlFlow::Break(ActorStopReason::Panicked(error)))
    }

    /// The death of a linked agent is news, not a cause of death.
    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, StoreError> {
        tracing::debug!(project = %self.args.project, %id, ?reason, "a linked actor is gone");
        Ok(ControlFlow::Continue(()))
    }
}

impl LockActor {
    /// Claims the project and rebuilds its table from what is written.
    async fn take_over(&mut self) {
        let span = tracing::info_span!("take_over", project = %self.args.project);
        self.take_over_within().instrument(span).await;
    }

    async fn take_over_within(&mut self) {
        let (claim, records) = match self.args.keeping.claim(&self.args.project).await {
            Ok(claimed) => claimed,
            Err(why) => return self.stay_down(why),
        };
        // Where the wall's time went back since, ours does not: what was written has happened.
        if let Some(latest) = records.iter().map(|record| record.at).max() {
            self.args.clock.not_before(latest);
        }
        let (epoch, last_event) = (claim.epoch, claim.last_event);
        let reign = Reign { epoch, id_seed: random(), last_event };
        let mut table = LockTable::new(self.args.config.table.clone(), reign);
        for record in &records {
            table.replay(record);
        }
        let found = table.stats();
        tracing::info!(
            project = %self.args.project,
            epoch = epoch.get(),
            sessions = found.sessions,
            holds = found.holds,
            tickets = found.tickets,
            "project taken over"
        );
        let desk = Desk::new(&self.args);
        let journal = self.args.keeping.open(claim);
        self.state =
            State::Serving(Box::new(Serving { table, journal, desk: Arc::new(Mutex::new(desk)) }));
        self.resume();
        for debt in self.args.shared.take_debts() {
            self.turn(debt.into(), Caller::Debt(debt));
        }
    }

    /// The first turn: leases begin anew, and the attached sessions of dead processes end, unless
    /// they are to outlive them.
    fn resume(&mut self) {
        let adopted = self.args.shared.adopted.load(Ordering::Acquire);
        let orphaned = !adopted && !self.args.config.attached_outlive;
        let State::Serving(serving) = &mut self.state else { return };
        let turn = serving.table.apply(self.args.clock.now(), Resume { orphaned });
        let book = &self.args.shared.book;
        let guarded: Vec<_> =
            book.all().into_iter().map(|lock| (lock, serving.table.grant(lock))).collect();
        let shared = self.args.shared.clone();
        let told = move |outcome: Result<_, _>| {
            let Ok(_) = outcome else { return };
            shared.succeeded();
            for (lock, grant) in guarded {
                match grant {
                    Some(grant) => {
                        if let Some(state) = shared.book.find(lock) {
                            state.converted(&grant);
                        }
                    }
                    None => shared.book.end(lock, Lost::Released),
                }
            }
        };
        let caller = Asker::Then(None, Box::new(told)).into();
        serving.desk().start_from(&serving.table);
        serving.journal.submit(turn, caller, &serving.desk);
    }

    fn stay_down(&mut self, why: Unavailable) {
        let backoff = match &self.state {
            State::Down { backoff, .. } => (*backoff * 2).min(RETRY_MAX),
            State::Serving(_) => RETRY_FIRST,
        };
        tracing::error!(project = %self.args.project, error = %why, "cannot take the project over");
        let retry_at = match why {
            Unavailable::ShutDown | Unavailable::NotServing(StoreError::Closed) => None,
            _ => Some(self.args.clock.now().after(backoff)),
        };
        self.state = State::Down { why, retry_at, backoff };
    }

    /// Decides one command, and leaves the telling to the desk.
    fn turn(&mut self, command: Command, caller: Caller) {
        let span = tracing::debug_span!("turn", project = %self.args.project);
        let _inside = span.enter();
        tracing::trace!(?command, "to be decided");
        match &mut self.state {
            State::Serving(serving) => {
                let now = self.args.clock.now();
                let decide = AssertUnwindSafe(|| serving.table.apply(now, command));
                match catch_unwind(decide) {
                    Ok(turn) => serving.journal.submit(turn, caller, &serving.desk),
                    Err(_) => {
                        // A defect, of ours or of somebody's victim policy. This life is over, but
                        // whoever caused it must not come back with it, and end the next one.
                        caller.unavailable(&Unavailable::Crashed, &self.args.shared);
                        tracing::error!(project = %self.args.project, "a turn panicked");
                        self.end_life();
                    }
                }
            }
            State::Down { why, .. } => caller.unavailable(why, &self.args.shared),
        }
    }

    fn owes_a_write(&self) -> bool {
        matches!(&self.state, State::Serving(serving) if serving.journal.owes_a_write())
    }

    /// Has written what was decided.
    fn write(&mut self) {
        if let State::Serving(serving) = &mut self.state {
            serving.journal.write();
        }
    }

    /// This life ends before the next message.
    fn doom(&mut self, error: StoreError) {
        self.doomed = Some(error);
    }

    /// The table may be in pieces: nothing is decided by it any more. Whoever waits asks again.
    fn end_life(&mut self) {
        let why = Unavailable::NotServing(StoreError::Closed);
        self.state = State::Down { why, retry_at: None, backoff: RETRY_FIRST };
        self.doomed = Some(StoreError::Closed);
    }

    /// Lets the table be looked at, and tells what was seen once all of it is written.
    fn look<T: Send + 'static>(
        &mut self,
        see: impl FnOnce(&LockTable, Timestamp) -> T,
        tell: impl FnOnce(Result<T, Unavailable>) + Send + 'static,
    ) {
        // Views do not end what is due, and a flood of them must not keep the alarm from doing so.
        if let State::Serving(serving) = &self.state
            && serving.table.next_deadline().is_some_and(|at| at <= self.args.clock.now())
        {
            self.turn(Command::Tick, Caller::Nobody);
        }
        match &mut self.state {
            State::Serving(serving) => {
                let seen = see(&serving.table, self.args.clock.now());
                serving.journal.after(move |outcome| tell(outcome.map(|()| seen)));
            }
            State::Down { why, .. } => tell(Err(why.clone())),
        }
    }

    /// The alarm rang.
    async fn wake(&mut self) {
        let now = self.args.clock.now();
        match &self.state {
            State::Serving(serving) => {
                if serving.table.next_deadline().is_some_and(|at| at <= now) {
                    self.turn(Command::Tick, Caller::Nobody);
                }
            }
            State::Down { retry_at, .. } => {
                if retry_at.is_some_and(|at| at <= now) {
                    self.take_over().await;
                }
            }
        }
    }

    /// Sets the alarm, if it does not ring early enough by itself. One that rings too early finds
    /// nothing to do and is set again; that is cheaper than moving it with each hold.
    fn set_alarm(&mut self) {
        let due = match &self.state {
            State::Serving(serving) => serving.table.next_deadline(),
            State::Down { retry_at, .. } => *retry_at,
        };
        if let Some(due) = due
            && self.alarm_at.is_none_or(|at| due < at)
        {
            self.alarm_at = Some(due);
            self.alarm.as_mut().reset(self.args.clock.instant(due));
        }
    }

    /// An owner for a message that came without one.
    fn bare_owner(&self, actor: &ActorRef<LockActor>, session: SessionId) -> Arc<Owner> {
        let agent = match &self.state {
            State::Serving(serving) => serving.table.agent_of(session),
            State::Down { .. } => None,
        };
        let (shared, name) = (self.args.shared.clone(), self.args.project.clone());
        let running = Running { actor: actor.clone(), shared, name };
        let clock = self.args.clock.clone();
        let agent = agent.unwrap_or_default();
        Arc::new(Owner::new(running.into(), agent, session, clock, None, false))
    }

    /// Ends every session of this process that does not outlive it; tells what they had when that
    /// is on record. Whoever still waits then hears that nothing is decided any more.
    fn shut_down(&mut self, tell: impl FnOnce(ShutdownDone) + Send + 'static) {
        let State::Serving(serving) = &mut self.state else {
            let failed = match &self.state {
                State::Down { why, .. } => Some(why.clone()),
                State::Serving(_) => None,
            };
            return tell(ShutdownDone { failed, ..ShutdownDone::default() });
        };
        let sessions = serving.table.sessions();
        let attached: Vec<SessionId> = sessions
            .iter()
            .filter(|session| session.kind == SessionKind::Attached)
            .filter(|_| !self.args.config.attached_outlive)
            .map(|session| session.session)
            .collect();
        let ended = attached.len();
        let mut released = serving.table.list();
        released.retain(|holder| attached.contains(&holder.session));
        for session in attached {
            let end = EndSession { session, cause: EndCause::Closed };
            let turn = serving.table.apply(self.args.clock.now(), end);
            serving.journal.submit(turn, Caller::Nobody, &serving.desk);
        }
        let desk = serving.desk.clone();
        serving.journal.after(move |outcome| {
            desk.lock().unwrap_or_else(PoisonError::into_inner).close();
            let failed = outcome.err();
            tell(ShutdownDone { ended, released, failed });
        });
        self.state =
            State::Down { why: Unavailable::ShutDown, retry_at: None, backoff: RETRY_FIRST };
    }
}

impl Serving {
    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Unavailable> for CallError {
    fn from(why: &Unavailable) -> CallError {
        CallError::Unavailable(why.clone())
    }
}
