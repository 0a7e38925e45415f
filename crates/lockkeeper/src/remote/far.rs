//! The way to one project of a daemon.

use super::{
    Link,
    call::{Call, Make, Tell, What},
};
use crate::{
    Question, Session,
    error::{CallError, Unavailable},
    guard::{GuardBook, unexpected},
    question::List,
    session::Owner,
    told::Told,
    wire::{InProject, Open},
};
use lockkeeper_core::{
    Answer, Command, Credential, EndCause, EndSession, Holder, LockId, OpenSession, Refusal, Renew,
    Resource, SessionId, SessionKind,
};
use std::sync::Arc;
use tokio::sync::oneshot;

#[derive(Clone)]
pub(crate) struct Far {
    link: Arc<Link>,
    project: Arc<str>,
    book: Arc<GuardBook>,
}

impl Far {
    pub(super) fn new(link: Arc<Link>, project: Arc<str>, book: Arc<GuardBook>) -> Far {
        Far { link, project, book }
    }

    pub(crate) fn project(&self) -> &Arc<str> {
        &self.project
    }

    pub(crate) fn book(&self) -> &Arc<GuardBook> {
        &self.book
    }

    fn wish(&self, what: What, tell: Tell) -> Result<(), CallError> {
        self.link.wish(Call::new(self.project.clone(), what, tell))
    }

    pub(crate) fn owe(&self, command: Command) {
        // Where nothing goes any more, the session ends without a word.
        let _ = self.wish(What::Command(command), Tell::Debt);
    }

    pub(crate) fn renew(&self, session: SessionId, lock: LockId) {
        // One that is on its way already does as well, even if it has to wait for a connection.
        if !self.link.state().renewing.insert(lock) {
            return;
        }
        let by = Credential::Session(session);
        let renew = Renew { by, lock, lease: None, shorten: false, request_id: None };
        if self.wish(What::Command(renew.into()), Tell::Renewal).is_err() {
            self.link.state().renewing.remove(&lock);
        }
    }

    pub(crate) async fn ask(
        &self,
        owner: &Arc<Owner>,
        mut command: Command,
    ) -> Result<Told, CallError> {
        // It may be asked twice. What an actor in this process is asked is not, and needs no name.
        match &mut command {
            Command::Release(release) => {
                release.request_id.get_or_insert_with(|| owner.next_request());
            }
            Command::Downgrade(downgrade) => {
                downgrade.request_id.get_or_insert_with(|| owner.next_request());
            }
            _ => {}
        }
        check(&command)?;
        let (tell, told) = oneshot::channel();
        self.wish(What::Command(command), Tell::Owner(tell, owner.clone()))?;
        told.await.map_err(|_| Unavailable::ShutDown)?
    }

    pub(crate) async fn open(&self, open: OpenSession, make: Make) -> Result<Session, CallError> {
        let linger_ms = match open.kind {
            SessionKind::Attached => self.link.linger_ms(),
            // It needs no connection.
            SessionKind::Detached => 0,
        };
        let open = Open { open, reuse: false, linger_ms };
        let (tell, told) = oneshot::channel();
        self.wish(What::Open(open), Tell::Open(tell, make))?;
        told.await.map_err(|_| Unavailable::ShutDown)?
    }

    pub(crate) async fn see<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        let params = InProject { project: &self.project, params: question };
        let seen = self.link.call(self.project.clone(), Q::METHOD, params).await;
        seen.map_err(|error| match error {
            CallError::Unavailable(why) => why,
            CallError::Refused(refusal) => Unavailable::Daemon {
                code: refusal.code().into(),
                said: refusal.to_string().into(),
            },
        })
    }

    pub(crate) async fn do_it(&self, command: Command) -> Result<Answer, CallError> {
        check(&command)?;
        let (tell, told) = oneshot::channel();
        self.wish(What::Command(command), Tell::Plain(tell))?;
        told.await.map_err(|_| Unavailable::ShutDown)?
    }

    /// Ends sessions; how many there were, and what they held.
    pub(super) async fn end_all(
        &self,
        sessions: &[SessionId],
    ) -> Result<(usize, Vec<Holder>), Unavailable> {
        let mut released = self.see(List {}).await?;
        released.retain(|holder| sessions.contains(&holder.session));
        let mut ended = 0;
        for &session in sessions {
            match self.do_it(EndSession { session, cause: EndCause::Closed }.into()).await {
                Ok(Answer::SessionEnded { .. }) => ended += 1,
                Ok(other) => return Err(unexpected(&other)),
                // It was over before.
                Err(CallError::Refused(_)) => {}
                Err(CallError::Unavailable(why)) => return Err(why),
            }
        }
        Ok((ended, released))
    }
}

/// Refuses what is no resource, as the lock table would. A line with it would not even be read.
fn check(command: &Command) -> Result<(), Refusal> {
    let refuse = |resource: &Resource| match resource.problem(usize::MAX) {
        None => Ok(()),
        Some(problem) => {
            let resource = resource.to_string();
            Err(Refusal::InvalidResource { resource, problem })
        }
    };
    match command {
        Command::Acquire(it) => refuse(&it.resource),
        Command::AcquireAll(it) => it.wants.iter().try_for_each(|(resource, _)| refuse(resource)),
        Command::ForceUnlock(it) => refuse(&it.resource),
        Command::DeclareCapacity(it) => refuse(&it.resource),
        Command::ClaimTasks(it) => it.claims.iter().try_for_each(|claim| refuse(&claim.task)),
        Command::ReopenTask(it) => refuse(&it.task),
        Command::ForgetTask(it) => refuse(&it.task),
        _ => Ok(()),
    }
}
