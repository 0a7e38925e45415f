//! One connection to a daemon.

use super::{
    Address, ConnectError, Notes,
    dial::{Dialled, dial},
    notes::Listeners,
    pump::{Inbox, Outbox, pump},
};
use crate::{
    AuditFilter, AuditRow, CallError, Question, Unavailable,
    clock::Clock,
    wire::{
        self, Attach, Attached, Hello, InProject, Note, Open, Said, Status, Subscribe, Subscribed,
    },
};
use lockkeeper_core::{Answer, Command, SessionId, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{
    collections::HashMap,
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{oneshot, watch};

/// One connection to a daemon, for as long as it lasts. Cheap to clone: all clones are the same
/// connection, and requests of many tasks travel on it at once, each in one piece.
///
/// When the connection is gone, whoever waits is told [`Unavailable::Unreachable`], and so is
/// whoever asks later: connect again. A call that is dropped is forgotten here, not at the daemon;
/// what it asked for is taken back with [`lockkeeper_core::Cancel`] and its request id.
/// [`crate::LockManager::connect`] does both by itself.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use lockkeeper::{List, remote::{Address, Client}};
///
/// let client = Client::connect(&Address::Unix("/run/user/1000/lockkeeper/ab.sock".into())).await?;
/// let held = client.see("demo", List {}).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// All clones are gone when this is.
struct Handle {
    shared: Arc<Shared>,
    hello: Hello,
    clock: Clock,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.outbox.close();
    }
}

/// What the handles share with the task that moves the lines.
struct Shared {
    calls: Mutex<Calls>,
    outbox: Outbox,
    listeners: Listeners,
    ended: watch::Sender<Option<Arc<str>>>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    /// Why there will be no answers any more.
    over: Option<Arc<str>>,
}

type Outcome = Result<Option<Box<RawValue>>, CallError>;

impl Client {
    /// Connects and says hello. Needs a Tokio runtime with I/O and time, of any flavour; the
    /// connection is a task of it.
    pub async fn connect(address: &Address) -> Result<Client, ConnectError> {
        let Dialled { mut stream, hello, read, asked } = dial(address).await?;
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            outbox: Outbox::default(),
            listeners: Listeners::default(),
            ended: watch::Sender::new(None),
        });
        let end = End { shared: shared.clone(), address: address.clone() };
        tokio::spawn(async move {
            let heard = |line: &[u8]| end.shared.heard(line);
            let why = pump(&mut stream, Inbox::new(read), &end.shared.outbox, heard).await;
            end.shared.end(&format!("{}: {why}", end.address));
        });
        let clock = Clock::following(asked, hello.clock());
        Ok(Client { handle: Arc::new(Handle { shared, hello, clock }) })
    }

    /// Who is at the other end, as it said when the connection was opened.
    pub fn hello(&self) -> &Hello {
        &self.handle.hello
    }

    /// What the daemon's clock shows now, or a little more, but never less: whoever goes by this
    /// sees a lease end no later than the daemon does.
    pub fn now(&self) -> Timestamp {
        self.handle.clock.now()
    }

    /// What it says without being asked, from now on.
    pub fn notes(&self) -> Notes {
        self.handle.shared.listeners.listen()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn ended(&self) -> Arc<str> {
        let mut ended = self.handle.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            _ => "it was closed at this end".into(),
        }
    }

    /// Whether the connection still stands, as far as is known here.
    pub fn is_connected(&self) -> bool {
        self.handle.shared.ended.borrow().is_none()
    }

    /// Asks for something to be done. How a session is opened: see [`Client::open`].
    pub async fn command(
        &self,
        project: &str,
        command: impl Into<Command>,
    ) -> Result<Answer, CallError> {
        let command = command.into();
        self.ask(|id, to| wire::write_command_line(id, project, &command, to)).await
    }

    /// Asks what a project looks like.
    pub async fn see<Q: Question>(
        &self,
        project: &str,
        question: Q,
    ) -> Result<Q::Answer, CallError> {
        self.call(Q::METHOD, InProject { project, params: question }).await
    }

    /// Opens a session.
    pub async fn open(&self, project: &str, open: Open) -> Result<SessionId, CallError> {
        match self.call(wire::SESSION_OPEN, InProject { project, params: open }).await? {
            Answer::SessionOpened { session } => Ok(session),
            other => Err(garbled(format!("{other:?} for a session that is to be opened"))),
        }
    }

    /// Takes up a session again.
    pub async fn attach(&self, project: &str, attach: Attach) -> Result<Attached, CallError> {
        self.call(wire::SESSION_ATTACH, InProject { project, params: attach }).await
    }

    /// The audit log, filtered.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, CallError> {
        self.call(wire::AUDIT, filter).await
    }

    /// The names of all projects of the store.
    pub async fn projects(&self) -> Result<Vec<String>, CallError> {
        self.call(wire::PROJECTS, Nothing {}).await
    }

    /// From now on events come as [`Client::notes`].
    pub async fn subscribe(&self, to: Subscribe) -> Result<Subscribed, CallError> {
        self.call(wire::SUBSCRIBE, to).await
    }

    /// How the daemon is.
    pub async fn status(&self) -> Result<Status, CallError> {
        self.call(wire::DAEMON_STATUS, Nothing {}).await
    }

    /// Asks the daemon to stop in order, and tells how it was before; the connection ends when it
    /// does.
    pub async fn stop(&self) -> Result<Status, CallError> {
        self.call(wire::DAEMON_STOP, Nothing {}).await
    }

    /// The daemon's metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, CallError> {
        self.call(wire::METRICS, Nothing {}).await
    }

    /// Asks for anything, by the name of its method.
    pub async fn call<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        params: P,
    ) -> Result<R, CallError> {
        self.ask(|id, to| wire::write_line(id, method, &params, to)).await
    }

    /// How many calls wait for their answer.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.handle.shared.calls().waiting.len()
    }

    async fn ask<R: DeserializeOwned>(
        &self,
        write: impl FnOnce(u64, &mut Vec<u8>) -> Result<(), serde_json::Error>,
    ) -> Result<R, CallError> {
        let shared = &self.handle.shared;
        let (id, told) = shared.send(write)?;
        let _forget = Forget { shared, id };
        let outcome = told.await.unwrap_or_else(|_| Err(unreachable("the connection is gone")))?;
        let said = outcome.as_ref().map_or("null", |said| said.get());
        serde_json::from_str(said).map_err(|error| garbled(error.to_string()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("hello", self.hello()).finish_non_exhaustive()
    }
}

/// Parameters without anything in them.
#[derive(Serialize)]
struct Nothing {}

/// A call that nobody waits for any more needs no place.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

/// Tells everybody that the connection is over, also when its task is dropped with its runtime.
struct End {
    shared: Arc<Shared>,
    address: Address,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.end(&format!("{}: the runtime of the connection is gone", self.address));
    }
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request on its way.
    fn send(
        &self,
        write: impl FnOnce(u64, &mut Vec<u8>) -> Result<(), serde_json::Error>,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), CallError> {
        let (tell, told) = oneshot::channel();
        let mut calls = self.calls();
        if let Some(why) = &calls.over {
            return Err(Unavailable::Unreachable(why.clone()).into());
        }
        calls.last += 1;
        let id = calls.last;
        self.outbox
            .put(|bytes| {
                let before = bytes.len();
                write(id, bytes).inspect_err(|_| bytes.truncate(before))
            })
            .map_err(|error| garbled(error.to_string()))?;
        calls.waiting.insert(id, tell);
        Ok((id, told))
    }

    fn heard(&self, line: &[u8]) -> ControlFlow<Arc<str>> {
        let incoming: Said<'_> = match serde_json::from_slice(line) {
            Ok(incoming) => incoming,
            Err(error) => return ControlFlow::Break(format!("it does not speak: {error}").into()),
        };
        match (incoming.id, incoming.is_note()) {
            (Some(id), false) => {
                let tell = self.calls().waiting.remove(&id);
                if let Some(tell) = tell {
                    let _ = tell.send(match incoming.error {
                        Some(error) => Err(error.into()),
                        None => Ok(incoming.result.map(ToOwned::to_owned)),
                    });
                }
            }
            (_, true) => match serde_json::from_slice::<Note>(line) {
                Ok(note) => self.listeners.tell(&note),
                // A newer daemon may have more to say.
                Err(error) => tracing::debug!(%error, "a note that is not understood"),
            },
            (None, false) => {
                if let Some(error) = incoming.error {
                    return ControlFlow::Break(error.message.into());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The connection is over. The first reason counts.
    fn end(&self, why: &str) {
        let why: Arc<str> = why.into();
        let waiting = {
            let mut calls = self.calls();
            if calls.over.is_some() {
                return;
            }
            calls.over = Some(why.clone());
            std::mem::take(&mut calls.waiting)
        };
        for tell in waiting.into_values() {
            let _ = tell.send(Err(Unavailable::Unreachable(why.clone()).into()));
        }
        self.listeners.end();
        self.ended.send_replace(Some(why));
    }
}

fn unreachable(why: &str) -> CallError {
    Unavailable::Unreachable(why.into()).into()
}

/// The daemon said something that cannot be: of another version, or broken.
pub(super) fn garbled(what: String) -> CallError {
    Unavailable::Daemon { code: "garbled".into(), said: what.into() }.into()
}
