//! What a server asks of a project on behalf of somebody else, as it comes off the wire.

use crate::{
    Config, LockManager, Project,
    actor::See,
    error::{CallError, Unavailable},
    manager::End,
    question::Question,
};
use kameo::error::SendError;
use lockkeeper_core::{Answer, Command, Timestamp};

/// How often one command is sent again because the actor died before it answered.
const ASK_MAX: usize = 10_000;

impl Project {
    /// Any command, with the plain answer: whoever calls this answers for what is granted.
    ///
    /// It is sent again if the actor was restarted before it answered. What waited then goes on in
    /// its place if it has a request id; without one it may be refused, because it waits already.
    pub async fn command(&self, command: impl Into<Command>) -> Result<Answer, CallError> {
        let command = command.into();
        for _ in 0..ASK_MAX {
            match self.actor()?.ask(command.clone()).send().await {
                Ok(answer) => return Ok(answer),
                Err(SendError::HandlerError(error)) => return Err(error),
                Err(SendError::ActorNotRunning(_)) => return Err(Unavailable::ShutDown.into()),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        Err(Unavailable::Crashed.into())
    }

    /// Any question, answered once everything that was seen is on record.
    pub async fn see<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        loop {
            match self.actor()?.ask(See(question.clone())).send().await {
                Ok(seen) => return Ok(seen),
                Err(SendError::HandlerError(why)) => return Err(why),
                Err(SendError::ActorNotRunning(_)) => return Err(Unavailable::ShutDown),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl LockManager {
    /// What it was set up with; nothing, if it is connected to a daemon.
    pub fn config(&self) -> Option<&Config> {
        match self.inner().end() {
            End::House(house) => Some(house.config()),
            #[cfg(feature = "remote")]
            End::Far(_) => None,
        }
    }

    /// What its clock shows, by which every lease and every wait is measured.
    pub fn now(&self) -> Timestamp {
        self.inner().clock().now()
    }
}
