//! The way from a handle to its project's lock table: an actor in this process, or a daemon at the
//! other end of a wire. Handles know neither; whatever they ask, owe or want to see goes this way.
#![cfg_attr(
    not(feature = "remote"),
    allow(clippy::infallible_destructuring_match, reason = "with it there are two ends")
)]

use crate::{
    LockActor, Question,
    actor::{Ask, KeepAlive, OpenOwned, Owed, See},
    error::{CallError, Unavailable},
    guard::{GuardBook, HoldState},
    house::{ASK_AGAIN, Running},
    session::{Owner, Session},
    told::Told,
};
use kameo::{actor::ActorRef, error::SendError};
use lockkeeper_core::{Answer, Command, OpenSession, SessionId};
use std::sync::Arc;
use tokio::sync::oneshot;

/// How often one request is asked again because the actor died before it answered. Whoever made it
/// die is told so; these are the deaths that others brought about.
const ASK_MAX: usize = 10_000;

/// The way to one project.
#[derive(Clone)]
pub(crate) enum Line {
    /// To an actor in this process.
    Actor(Running),
    /// To a daemon.
    #[cfg(feature = "remote")]
    Wire(crate::remote::Far),
}

impl From<Running> for Line {
    fn from(running: Running) -> Line {
        Line::Actor(running)
    }
}

impl Line {
    /// The project's name.
    pub(crate) fn project(&self) -> &Arc<str> {
        match self {
            Line::Actor(running) => &running.name,
            #[cfg(feature = "remote")]
            Line::Wire(far) => far.project(),
        }
    }

    /// The book of those holds of the project that somebody in this process has a guard of.
    pub(crate) fn book(&self) -> &Arc<GuardBook> {
        match self {
            Line::Actor(running) => &running.shared.book,
            #[cfg(feature = "remote")]
            Line::Wire(far) => far.book(),
        }
    }

    pub(crate) fn actor(&self) -> Result<&ActorRef<LockActor>, Unavailable> {
        match self {
            Line::Actor(running) => Ok(&running.actor),
            #[cfg(feature = "remote")]
            Line::Wire(_) => Err(Unavailable::Elsewhere),
        }
    }

    /// Something that must happen, whatever becomes of the other end meanwhile. Needs neither a
    /// runtime nor room in a mailbox.
    pub(crate) fn owe(&self, owed: Owed) {
        match self {
            // Where the actor has stopped for good, its shutdown has ended the session before.
            Line::Actor(running) => {
                let _ = running.actor.tell(owed).try_send();
            }
            #[cfg(feature = "remote")]
            Line::Wire(far) => far.owe(owed.into()),
        }
    }

    /// Renews a lease that renews itself.
    pub(crate) fn renew(&self, owner: &Arc<Owner>, state: Arc<HoldState>) {
        match self {
            Line::Actor(running) => {
                let _ = running.actor.tell(KeepAlive { owner: owner.clone(), state }).try_send();
            }
            #[cfg(feature = "remote")]
            Line::Wire(far) => far.renew(owner.session(), state.lock()),
        }
    }

    /// Asks on behalf of an owner, and asks again if the actor was restarted before it answered;
    /// counts how often. What is granted comes as guards.
    pub(crate) async fn ask(
        &self,
        owner: &Arc<Owner>,
        command: &Command,
        tries: &mut usize,
    ) -> Result<Told, CallError> {
        let running = match self {
            Line::Actor(running) => running,
            #[cfg(feature = "remote")]
            Line::Wire(far) => return Box::pin(far.ask(owner, command.clone())).await,
        };
        while *tries < ASK_MAX {
            *tries += 1;
            let (tell, told) = oneshot::channel();
            let ask = Ask { command: command.clone(), owner: owner.clone(), tell };
            // The mailbox has no bound, so there is always room.
            if let Err(SendError::ActorNotRunning(_)) = running.actor.tell(ask).try_send() {
                return Err(Unavailable::ShutDown.into());
            }
            // If nobody answers: the table it is rebuilt with knows the request by its id, or what
            // was granted is over, and nobody was told of it.
            if let Ok(outcome) = told.await {
                return outcome;
            }
        }
        Err(Unavailable::Crashed.into())
    }

    /// Opens a session; its handle is made where the answer is, so that a session whose handle
    /// nobody takes is closed again.
    pub(crate) async fn open(
        &self,
        open: &OpenSession,
        make: impl Fn(SessionId) -> Session + Clone + Send + 'static,
    ) -> Result<Session, CallError> {
        let running = match self {
            Line::Actor(running) => running,
            #[cfg(feature = "remote")]
            Line::Wire(far) => return far.open(open.clone(), Box::new(make)).await,
        };
        for _ in 0..ASK_AGAIN {
            let owned = OpenOwned { open: open.clone(), make: Box::new(make.clone()) };
            match running.actor.ask(owned).send().await {
                Ok(session) => return Ok(session),
                Err(SendError::HandlerError(error)) => return Err(error),
                Err(SendError::ActorNotRunning(_)) => return Err(Unavailable::ShutDown.into()),
                // It died before it answered; if the session was open, it is closed again.
                Err(_) => {}
            }
        }
        Err(Unavailable::Crashed.into())
    }

    /// Asks a question, again if the actor was restarted meanwhile.
    pub(crate) async fn see<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        let running = match self {
            Line::Actor(running) => running,
            #[cfg(feature = "remote")]
            Line::Wire(far) => return far.see(question).await,
        };
        loop {
            match running.actor.ask(See(question.clone())).send().await {
                Ok(seen) => return Ok(seen),
                Err(SendError::HandlerError(why)) => return Err(why),
                Err(SendError::ActorNotRunning(_)) => return Err(Unavailable::ShutDown),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// What an administrator wants done: once, whatever happens.
    pub(crate) async fn do_it(&self, command: Command) -> Result<Answer, CallError> {
        match self {
            Line::Actor(running) => running.actor.ask(command).send().await.map_err(flat),
            #[cfg(feature = "remote")]
            Line::Wire(far) => far.do_it(command).await,
        }
    }
}

/// What an ask may end in, as this crate tells it.
fn flat<M>(error: SendError<M, CallError>) -> CallError {
    match error {
        SendError::HandlerError(error) => error,
        SendError::ActorNotRunning(_) => Unavailable::ShutDown.into(),
        _ => Unavailable::Crashed.into(),
    }
}
