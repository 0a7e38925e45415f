//! What can be sent to a lock actor: every command of the core, and what this crate says to it.

use super::{
    LockActor,
    desk::{Asker, Caller},
};
use crate::{
    error::{AcquireError, CallError, Unavailable},
    guard::{HoldState, LockGuard, LockGuards, unexpected},
    session::{Owner, Session},
    told::Told,
};
use kameo::{
    message::{Context, Message},
    reply::DelegatedReply,
};
use lockkeeper_core::{
    Acquire, AcquireAll, Answer, Cancel, ClaimTasks, Command, Credential, DeclareCapacity,
    DeclareWait, Downgrade, EndSession, FinishTask, ForceUnlock, ForgetTask, Holder, OpenSession,
    Release, ReleaseAll, Renew, ReopenTask, SessionId, TicketId, Timestamp, Upgrade, Wait,
    WithdrawWait,
};
use lockkeeper_store::StoreError;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a handle of this crate asks. Grants come back as guards of the owner.
pub(crate) struct Ask {
    pub(crate) command: Command,
    pub(crate) owner: Arc<Owner>,
    pub(crate) tell: oneshot::Sender<Result<Told, CallError>>,
}

impl Message<Ask> for LockActor {
    type Reply = ();

    async fn handle(&mut self, ask: Ask, _: &mut Context<Self, ()>) {
        self.turn(ask.command, Asker::Owner(ask.tell, ask.owner).into());
    }
}

/// What a server asks on behalf of somebody else.
pub(crate) struct Plainly {
    pub(crate) command: Command,
    pub(crate) tell: oneshot::Sender<Result<Answer, CallError>>,
}

impl Message<Plainly> for LockActor {
    type Reply = ();

    async fn handle(&mut self, plainly: Plainly, _: &mut Context<Self, ()>) {
        self.turn(plainly.command, Asker::Plainly(plainly.tell).into());
    }
}

/// Opens a session and makes its handle.
pub(crate) struct OpenOwned {
    pub(crate) open: OpenSession,
    pub(crate) make: Box<dyn FnOnce(SessionId) -> Session + Send>,
}

impl Message<OpenOwned> for LockActor {
    type Reply = DelegatedReply<Result<Session, CallError>>;

    async fn handle(&mut self, it: OpenOwned, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let (later, tell) = ctx.reply_sender();
        let make = it.make;
        let then = move |told| {
            let session = match told {
                Ok(Told::Answer(Answer::SessionOpened { session })) => Ok(make(session)),
                Ok(_) => Err(unexpected(&Answer::Ticked).into()),
                Err(error) => Err(error),
            };
            if let Some(tell) = tell {
                tell.send(session);
            }
        };
        self.turn(it.open.into(), Asker::Then(None, Box::new(then)).into());
        later
    }
}

/// What must happen, sent by whatever is dropped: nobody waits for an answer. There are only these
/// few of them, which are small, because each is kept until it is on record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owed {
    Release(Release),
    Cancel(Cancel),
    EndSession(EndSession),
}

macro_rules! owed {
    ($($command:ident),*) => {$(
        impl From<$command> for Owed {
            fn from(command: $command) -> Owed {
                Owed::$command(command)
            }
        }
    )*};
}

owed!(Release, Cancel, EndSession);

impl From<Owed> for Command {
    fn from(owed: Owed) -> Command {
        match owed {
            Owed::Release(release) => release.into(),
            Owed::Cancel(cancel) => cancel.into(),
            Owed::EndSession(end) => end.into(),
        }
    }
}

impl Message<Owed> for LockActor {
    type Reply = ();

    async fn handle(&mut self, owed: Owed, _: &mut Context<Self, ()>) {
        self.turn(owed.into(), Caller::Debt(owed));
    }
}

/// Renews a lease that renews itself.
pub(crate) struct KeepAlive {
    pub(crate) owner: Arc<Owner>,
    pub(crate) state: Arc<HoldState>,
}

impl Message<KeepAlive> for LockActor {
    type Reply = ();

    async fn handle(&mut self, keep: KeepAlive, _: &mut Context<Self, ()>) {
        let renew = Renew {
            by: Credential::Session(keep.owner.session()),
            lock: keep.state.lock(),
            lease: None,
            shorten: false,
            request_id: None,
        };
        self.turn(renew.into(), Caller::Renewal(keep.state));
    }
}

/// A commit failed: this life is over, the next one begins with what is written.
pub(crate) struct JournalFailed(pub(crate) StoreError);

impl Message<JournalFailed> for LockActor {
    type Reply = ();

    async fn handle(&mut self, failed: JournalFailed, _: &mut Context<Self, ()>) {
        self.doom(failed.0);
    }
}

/// Ends all sessions of this process, and then the actor.
pub(crate) struct Shutdown;

/// What a shutdown ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShutdownDone {
    pub(crate) ended: usize,
    pub(crate) released: Vec<Holder>,
    pub(crate) failed: Option<Unavailable>,
}

impl Message<Shutdown> for LockActor {
    type Reply = DelegatedReply<Result<ShutdownDone, CallError>>;

    async fn handle(&mut self, _: Shutdown, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let (later, tell) = ctx.reply_sender();
        self.shut_down(move |done| {
            if let Some(tell) = tell {
                tell.send(Ok(done));
            }
        });
        ctx.stop();
        later
    }
}

/// Any command, for whoever answers for his grants himself, such as a server on behalf of a client
/// at the other end of a wire: nothing is released because an answer was not taken.
impl Message<Command> for LockActor {
    type Reply = DelegatedReply<Result<Answer, CallError>>;

    async fn handle(
        &mut self,
        command: Command,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let (later, tell) = ctx.reply_sender();
        self.turn(command, tell.map_or(Caller::Nobody, |tell| Asker::Plain(tell).into()));
        later
    }
}

/// The answer to a request for locks that was sent to the actor directly.
#[derive(Debug)]
#[must_use = "guards that are dropped give their locks back at once"]
pub enum Acquired {
    /// They are held.
    Held(LockGuards),
    /// The slice is over, the place in the queue is kept.
    Queued {
        /// The place.
        ticket: TicketId,
        /// How many stand before it, at most.
        ahead: usize,
        /// When it is given up unless [`Wait`] asks for it.
        poll_by: Timestamp,
    },
}

impl Acquired {
    /// The guards, if the locks are held.
    pub fn held(self) -> Option<LockGuards> {
        match self {
            Acquired::Held(guards) => Some(guards),
            Acquired::Queued { .. } => None,
        }
    }

    fn from_told(told: Result<Told, CallError>) -> Result<Acquired, AcquireError> {
        match told? {
            Told::Guard(guard) => Ok(Acquired::Held(LockGuards::new(vec![guard]))),
            Told::Guards(guards) => Ok(Acquired::Held(LockGuards::new(guards))),
            Told::Tasks(tasks) => {
                let guards: Vec<LockGuard> = tasks.into_iter().map(|(_, guard)| guard).collect();
                Ok(Acquired::Held(LockGuards::new(guards)))
            }
            Told::Answer(Answer::Queued { ticket, ahead, poll_by }) => {
                Ok(Acquired::Queued { ticket, ahead, poll_by })
            }
            Told::Answer(other) => Err(CallError::from(unexpected(&other)).into()),
        }
    }
}

/// Commands whose grants come back as guards: an answer that nobody takes gives them back.
macro_rules! guarded {
    ($($command:ident),*) => {$(
        #[doc = concat!("What [`", stringify!($command), "`] grants comes back as guards, which ")]
        /// give it back should nobody take the answer. A request that still waits keeps its place
        /// when its asker is gone, until its wait or its slice ends: only [`Cancel`] takes it
        /// back. The requests of a [`crate::Session`] do that by themselves.
        impl Message<$command> for LockActor {
            type Reply = DelegatedReply<Result<Acquired, AcquireError>>;

            async fn handle(
                &mut self,
                command: $command,
                ctx: &mut Context<Self, Self::Reply>,
            ) -> Self::Reply {
                let (later, tell) = ctx.reply_sender();
                let owner = self.bare_owner(ctx.actor_ref(), command.session);
                let then = Box::new(move |told| {
                    let acquired = Acquired::from_told(told);
                    if let Some(tell) = tell {
                        tell.send(acquired);
                    }
                });
                self.turn(command.into(), Asker::Then(Some(owner), then).into());
                later
            }
        }
    )*};
}

guarded!(Acquire, AcquireAll, Wait);

/// Commands that grant nothing, or claim for whoever answers for it himself.
macro_rules! plain {
    ($($command:ident),*) => {$(
        #[doc = concat!("[`", stringify!($command), "`], as the core answers it.")]
        impl Message<$command> for LockActor {
            type Reply = DelegatedReply<Result<Answer, CallError>>;

            async fn handle(
                &mut self,
                command: $command,
                ctx: &mut Context<Self, Self::Reply>,
            ) -> Self::Reply {
                let (later, tell) = ctx.reply_sender();
                let caller = tell.map_or(Caller::Nobody, |tell| Asker::Plain(tell).into());
                self.turn(command.into(), caller);
                later
            }
        }
    )*};
}

plain!(
    OpenSession,
    EndSession,
    Cancel,
    Release,
    Renew,
    Upgrade,
    Downgrade,
    DeclareWait,
    WithdrawWait,
    ForceUnlock,
    ReleaseAll,
    DeclareCapacity,
    ClaimTasks,
    FinishTask,
    ReopenTask,
    ForgetTask
);
