//! Asks the daemon to do things for one agent, and starts it if need be.
//!
//! A daemon may be gone for a moment: killed, or handing over to a newer version. Whatever is asked
//! here is asked again then, with the same request id, so that it is done once.

use super::{link, look::Look};
use crate::{
    places::Here,
    trouble::{Asker, Trouble, Wanted},
};
use lockkeeper::{
    Answer, CallError, Command, OpenSession, Question, RequestId, SessionId, SessionKind,
    Timestamp, Unavailable, remote::Client, wire::Open,
};
use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    rc::Rc,
};

/// How often something is asked again because the daemon was gone.
const AGAIN_MAX: usize = 8;

/// One agent's place to ask at.
pub(crate) struct Desk {
    pub(crate) here: Here,
    reach: Reach,
    session: Option<SessionId>,
}

/// The connection as it stands: another one when the daemon had been gone.
#[derive(Clone)]
pub(crate) struct Reach(Rc<RefCell<Client>>);

impl Reach {
    /// To a daemon that was found already.
    pub(crate) fn of(client: Client) -> Reach {
        Reach(Rc::new(RefCell::new(client)))
    }

    pub(crate) fn client(&self) -> Client {
        self.0.borrow().clone()
    }
}

impl Desk {
    /// Finds the daemon, or starts one.
    pub(crate) async fn open(here: Here) -> Result<Desk, Trouble> {
        let client = link::reach(&here).await?;
        Ok(Desk { here, reach: Reach::of(client), session: None })
    }

    /// The connection, for whoever looks on while something is asked.
    pub(crate) fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// The time on the daemon's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.reach.client().now()
    }

    /// To look around with.
    pub(crate) fn look(&self) -> Look {
        Look::through(&self.here, self.reach.client())
    }

    /// Who asks, for the words of a refusal.
    pub(crate) fn asker(&self, wanted: Wanted) -> Asker<'_> {
        let Here { agent, is_named, .. } = &self.here;
        Asker { agent, is_named: *is_named, wanted, now: self.now() }
    }

    /// Why something was not done, told to the one who asked.
    pub(crate) fn told(&self, error: &CallError, wanted: Wanted) -> Trouble {
        Trouble::call(error, &self.asker(wanted))
    }

    /// The agent's session: it lives by its leases and its tickets, not by this process. All
    /// commands of an agent share it, so that its locks and waits are seen together.
    pub(crate) async fn session(&mut self) -> Result<SessionId, Trouble> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        let open = Open {
            open: OpenSession {
                agent: self.here.agent.as_str().into(),
                kind: SessionKind::Detached,
                ..OpenSession::default()
            },
            reuse: true,
            linger_ms: 0,
        };
        let opened = self.ask(async |client, project| client.open(project, open.clone()).await);
        let session = opened.await?.map_err(|error| self.told(&error, Wanted::Admin))?;
        self.session = Some(session);
        Ok(session)
    }

    /// The session is over: the next command opens another one.
    pub(crate) fn forget_session(&mut self) {
        self.session = None;
    }

    /// Does something. The command names a request id, or does no harm when it is done twice.
    pub(crate) async fn command(
        &mut self,
        command: impl Into<Command>,
    ) -> Result<Result<Answer, CallError>, Trouble> {
        let command = command.into();
        self.ask(async |client, project| client.command(project, command.clone()).await).await
    }

    /// Asks what something is like.
    pub(crate) async fn see<Q: Question>(&mut self, question: Q) -> Result<Q::Answer, Trouble> {
        let seen = self.ask(async |client, project| client.see(project, question.clone()).await);
        seen.await?.map_err(|error| self.told(&error, Wanted::Admin))
    }

    /// Asks, and asks again where the daemon went away meanwhile. The outer error: it is gone for
    /// good.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&Client, &str) -> Result<T, CallError>,
    ) -> Result<Result<T, CallError>, Trouble> {
        let mut again = 0;
        loop {
            let client = self.reach.client();
            match question(&client, &self.here.project).await {
                Err(CallError::Unavailable(why)) if is_gone(&why) && again < AGAIN_MAX => {
                    again += 1;
                    let client = link::reach(&self.here).await?;
                    *self.reach.0.borrow_mut() = client;
                }
                answer => return Ok(answer),
            }
        }
    }
}

/// Whether the daemon is gone, or about to go: another one can be asked.
fn is_gone(why: &Unavailable) -> bool {
    match why {
        Unavailable::Unreachable(_) => true,
        Unavailable::Daemon { code, .. } => **code == *link::STOPPING,
        _ => false,
    }
}

/// A request id nobody else has.
pub(crate) fn request_id() -> RequestId {
    // Each of these states is drawn at random from the system, once a thread, and counted up.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    let process = u128::from(std::process::id());
    RequestId::new((half() << 64 | half()) ^ (process << 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn request_ids_are_all_different() {
        let ids: BTreeSet<RequestId> = (0..10_000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
