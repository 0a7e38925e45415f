//! One thing that is to be done at a daemon, from the moment it is wished until it is answered.

use crate::{
    Grants, Question, Session,
    error::{CallError, Unavailable},
    session::Owner,
    told::Told,
    wire::{self, Attach, InProject, Open},
};
use lockkeeper_core::{Answer, Command, SessionId};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Makes the handle of a session where the answer arrives.
pub(crate) type Make = Box<dyn FnOnce(SessionId) -> Session + Send>;

pub(super) type Raw = Option<Box<RawValue>>;

pub(super) struct Call {
    pub(super) project: Arc<str>,
    pub(super) what: What,
    pub(super) tell: Tell,
    /// Whether a daemon may have heard of it.
    pub(super) is_sent: bool,
    /// Whether it was said more than once, so that an earlier one may have been done.
    pub(super) is_repeated: bool,
}

pub(super) enum What {
    Command(Command),
    Open(Open),
    /// Takes a session up again that lives by a connection.
    Attach(Attach),
    /// Asks what a session has that does not.
    Grants(Grants),
    /// A question or the like, with its parameters.
    Other(&'static str, Box<RawValue>),
}

/// Who waits for the answer.
pub(super) enum Tell {
    /// A handle: what is granted comes as guards.
    Owner(oneshot::Sender<Result<Told, CallError>>, Arc<Owner>),
    /// Somebody who wants the plain answer.
    Plain(oneshot::Sender<Result<Answer, CallError>>),
    /// Whoever wants a session.
    Open(oneshot::Sender<Result<Session, CallError>>, Make),
    /// Somebody who reads the answer himself.
    Raw(oneshot::Sender<Result<Raw, CallError>>),
    /// A lease that renews itself.
    Renewal,
    /// Nobody, but it must happen.
    Debt,
    /// Nobody: a session is taken up again.
    Attach(SessionId),
}

impl Call {
    pub(super) fn new(project: Arc<str>, what: What, tell: Tell) -> Call {
        Call { project, what, tell, is_sent: false, is_repeated: false }
    }

    /// Appends it as a line.
    pub(super) fn write(&self, id: u64, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let project = &*self.project;
        match &self.what {
            What::Command(command) => wire::write_command_line(id, project, command, to),
            What::Open(open) => {
                wire::write_line(id, wire::SESSION_OPEN, InProject { project, params: open }, to)
            }
            What::Attach(attach) => {
                let params = InProject { project, params: attach };
                wire::write_line(id, wire::SESSION_ATTACH, params, to)
            }
            What::Grants(grants) => {
                let params = InProject { project, params: grants };
                wire::write_line(id, Grants::METHOD, params, to)
            }
            What::Other(method, params) => wire::write_line(id, method, params, to),
        }
    }

    /// Whether nobody waits for the answer any more who did. What it may have brought about is
    /// taken back by a call of its own.
    pub(super) fn is_gone(&self) -> bool {
        match &self.tell {
            Tell::Owner(tell, _) => tell.is_closed(),
            Tell::Plain(tell) => tell.is_closed(),
            Tell::Open(tell, _) => tell.is_closed(),
            Tell::Raw(tell) => tell.is_closed(),
            Tell::Renewal | Tell::Debt | Tell::Attach(_) => false,
        }
    }

    /// Whether somebody waits for the answer.
    pub(super) fn is_awaited(&self) -> bool {
        !matches!(self.tell, Tell::Renewal | Tell::Debt | Tell::Attach(_))
    }

    /// Whether it may be asked for again without knowing whether it was done. What an administrator
    /// breaks might by now be somebody else's.
    pub(super) fn can_be_repeated(&self) -> bool {
        match &self.what {
            What::Command(Command::ReopenTask(reopen)) => reopen.expect_version.is_some(),
            What::Command(
                Command::ForceUnlock(_) | Command::ReleaseAll(_) | Command::ForgetTask(_),
            ) => false,
            _ => true,
        }
    }

    /// There will be no answer.
    pub(super) fn fail(self, why: &Unavailable) {
        let error = || CallError::Unavailable(why.clone());
        match self.tell {
            Tell::Owner(tell, _) => drop(tell.send(Err(error()))),
            Tell::Plain(tell) => drop(tell.send(Err(error()))),
            Tell::Open(tell, _) => drop(tell.send(Err(error()))),
            Tell::Raw(tell) => drop(tell.send(Err(error()))),
            Tell::Renewal | Tell::Debt | Tell::Attach(_) => {}
        }
    }
}
