//! What a server asks of a project on behalf of somebody else, as it comes off the wire.

use crate::{
    Config, LockManager, Project,
    actor::Plainly,
    error::{CallError, Unavailable},
    manager::End,
    question::Question,
};
use kameo::error::SendError;
use lockkeeper_core::{Answer, Command, Timestamp};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often one command is sent again because the actor died before it answered.
const ASK_MAX: usize = 10_000;

impl Project {
    /// Any command, with the plain answer: whoever calls this answers for what is granted.
    ///
    /// It is sent again if the actor was restarted before it answered. What waited then goes on in
    /// its place if it has a request id; without one it may be refused, because it waits already.
    pub fn command(
        &self,
        command: impl Into<Command>,
    ) -> impl Future<Output = Result<Answer, CallError>> + Send {
        self.carry_out(Box::new(command.into()))
    }

    /// The same. Many may wait for long, so the command lives apart from the future that waits.
    pub async fn carry_out(&self, command: Box<Command>) -> Result<Answer, CallError> {
        let Ok(actor) = self.actor() else { return Box::pin(self.do_it(*command)).await };
        for _ in 0..ASK_MAX {
            let (tell, told) = oneshot::channel();
            let plainly = Plainly { command: (*command).clone(), tell };
            // The mailbox has no bound, so there is always room.
            if let Err(SendError::ActorNotRunning(_)) = actor.tell(plainly).try_send() {
                return Err(Unavailable::ShutDown.into());
            }
            match told.await {
                Ok(outcome) => return outcome,
                // Whoever should have answered has died.
                Err(_) => tokio::task::yield_now().await,
            }
        }
        Err(Unavailable::Crashed.into())
    }

    /// Any question, answered once everything that was seen is on record.
    pub async fn see<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        self.line().see(question).await
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

    /// What its clock shows, and for how long it has, rounded up to microseconds.
    pub fn now_exactly(&self) -> (Timestamp, Duration) {
        self.inner().clock().now_exactly()
    }

    /// What its clock shows, by which every lease and every wait is measured.
    pub fn now(&self) -> Timestamp {
        self.inner().clock().now()
    }
}
