//! Sessions: one incarnation of an agent, the unit of ownership and of liveness.

use crate::{
    actor::Owed,
    clock::{Clock, random},
    error::{CallError, SessionError, TaskError},
    guard::{HoldState, unexpected},
    line::Line,
    manager::ManagerInner,
    request::{AcquireAllRequest, AcquireRequest, ClaimBatchRequest, ClaimRequest},
    told::Told,
};
use lockkeeper_core::{
    Answer, Command, DeclareWait, EndCause, EndSession, Grant, LockMode, RequestId, Resource,
    SessionId, Task, WithdrawWait,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Who owns holds: a session, and the way to its lock table. Guards, requests and the session's
/// handles share it; when the last of them is gone, the session ends.
pub(crate) struct Owner {
    line: Line,
    agent: Arc<str>,
    session: SessionId,
    clock: Arc<Clock>,
    /// Keeps the manager while anything is held. An owner made for a single message has none.
    manager: Option<Arc<ManagerInner>>,
    /// Whether the session ends with this owner.
    attached: bool,
    ended: AtomicBool,
    request_seed: u64,
    requests: AtomicU64,
}

impl Owner {
    pub(crate) fn new(
        line: Line,
        agent: Arc<str>,
        session: SessionId,
        clock: Clock,
        manager: Option<Arc<ManagerInner>>,
        attached: bool,
    ) -> Owner {
        Owner {
            line,
            agent,
            session,
            clock: Arc::new(clock),
            manager,
            attached,
            ended: AtomicBool::new(false),
            request_seed: random(),
            requests: AtomicU64::new(0),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn agent(&self) -> &str {
        &self.agent
    }

    pub(crate) fn hold(&self, grant: Grant) -> Arc<HoldState> {
        self.line.book().enter(grant, self.session, &self.clock)
    }

    /// A name for a request, so that it can be asked again, or taken back, without effect.
    pub(crate) fn next_request(&self) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId::new(u128::from(self.request_seed) << 64 | u128::from(count))
    }

    pub(crate) fn keep_alive(self: &Arc<Owner>, state: &Arc<HoldState>) {
        match &self.manager {
            Some(manager) => manager.keep_alive(self, state),
            None => tracing::warn!("a guard without a manager cannot be kept alive"),
        }
    }

    /// Renews a lease that renews itself.
    pub(crate) fn renew(self: &Arc<Owner>, state: Arc<HoldState>) {
        self.line.renew(self, state);
    }

    /// Something that must happen, whatever becomes of the other end meanwhile. Needs neither a
    /// runtime nor room in a mailbox.
    pub(crate) fn owe(&self, owed: Owed) {
        self.line.owe(owed);
    }

    /// Asks for something that gives no guard.
    pub(crate) async fn ask(self: &Arc<Owner>, command: Command) -> Result<Answer, CallError> {
        match self.tell_me(&command, &mut 0).await? {
            Told::Answer(answer) => Ok(answer),
            Told::Guard(_) | Told::Guards(_) | Told::Tasks(_) => {
                Err(unexpected(&Answer::Ticked).into())
            }
        }
    }

    /// Asks, and asks again if there was no answer but may be one; counts how often.
    pub(crate) async fn tell_me(
        self: &Arc<Owner>,
        command: &Command,
        tries: &mut usize,
    ) -> Result<Told, CallError> {
        self.line.ask(self, command, tries).await
    }

    pub(crate) fn mark_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.attached && !self.ended.load(Ordering::Acquire) {
            self.owe(EndSession { session: self.session, cause: EndCause::Closed }.into());
        }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("project", self.line.project())
            .field("agent", &self.agent)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// What a session had when it was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// How many locks it held.
    pub released: usize,
    /// How many waits it gave up.
    pub left: usize,
}

/// An agent's presence in a project. It ends when it is closed, or when its last handle and guard
/// are dropped; with it ends everything it holds and waits for.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) owner: Arc<Owner>,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> SessionId {
        self.owner.session
    }

    /// The agent's name.
    pub fn agent(&self) -> &str {
        &self.owner.agent
    }

    /// The project it is in.
    pub fn project(&self) -> &str {
        self.owner.line.project()
    }

    /// Asks for a lock: await the request, or say more first.
    ///
    /// ```no_run
    /// # async fn example(coder: lockkeeper::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use lockkeeper::Resource;
    /// use std::time::Duration;
    ///
    /// let guard = coder
    ///     .acquire(Resource::file("src/main.rs"))
    ///     .shared()
    ///     .wait(Duration::from_secs(10))
    ///     .reason("reading the imports")
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn acquire(&self, resource: impl Into<Resource>) -> AcquireRequest {
        AcquireRequest::new(self.owner.clone(), resource.into(), LockMode::Exclusive)
    }

    /// Asks for a lock now or never.
    pub fn try_acquire(&self, resource: impl Into<Resource>) -> AcquireRequest {
        self.acquire(resource).no_wait()
    }

    /// Asks for several locks, all or nothing: it holds none of them while it waits, so that two
    /// such requests can never wait for each other.
    pub fn acquire_all<R: Into<Resource>>(
        &self,
        resources: impl IntoIterator<Item = R>,
    ) -> AcquireAllRequest {
        let wants = resources.into_iter().map(|one| (one.into(), LockMode::Exclusive));
        AcquireAllRequest::new(self.owner.clone(), wants.collect())
    }

    /// The same, each in a mode of its own.
    pub fn acquire_each<R: Into<Resource>>(
        &self,
        wants: impl IntoIterator<Item = (R, LockMode)>,
    ) -> AcquireAllRequest {
        let wants = wants.into_iter().map(|(one, mode)| (one.into(), mode));
        AcquireAllRequest::new(self.owner.clone(), wants.collect())
    }

    /// Claims a task, now or never.
    pub fn claim(&self, task: &str) -> ClaimRequest {
        ClaimRequest::new(self.owner.clone(), Resource::task(task))
    }

    /// Claims several tasks, all or nothing, now or never.
    pub fn claim_batch<'a>(&self, tasks: impl IntoIterator<Item = &'a str>) -> ClaimBatchRequest {
        ClaimBatchRequest::new(self.owner.clone(), tasks.into_iter().map(Resource::task).collect())
    }

    /// Opens a task again that was done.
    pub async fn reopen(&self, task: &str, expect: Option<u64>) -> Result<Task, TaskError> {
        let task = Resource::task(task);
        let reopen = lockkeeper_core::ReopenTask { task, expect_version: expect };
        match self.owner.ask(reopen.into()).await? {
            Answer::TaskMoved(task) => Ok(task),
            other => Err(CallError::from(unexpected(&other)).into()),
        }
    }

    /// Says that this session waits for another one outside the lock table (a parent for its
    /// child), so that deadlocks through it are seen. Refused if it would close one.
    pub async fn declare_wait(&self, on: SessionId) -> Result<(), SessionError> {
        self.owner.ask(DeclareWait { session: self.id(), on }.into()).await?;
        Ok(())
    }

    /// Takes a declared wait back.
    pub async fn withdraw_wait(&self, on: SessionId) -> Result<(), SessionError> {
        self.owner.ask(WithdrawWait { session: self.id(), on }.into()).await?;
        Ok(())
    }

    /// Ends the session and with it all it holds and waits for, and says how much that was.
    pub async fn close(self) -> Result<Closed, SessionError> {
        self.end(EndCause::Closed).await
    }

    pub(crate) async fn end(&self, cause: EndCause) -> Result<Closed, SessionError> {
        let end = EndSession { session: self.id(), cause };
        match self.owner.ask(end.into()).await {
            Ok(Answer::SessionEnded { released, left }) => {
                self.owner.mark_ended();
                Ok(Closed { released, left })
            }
            Ok(other) => Err(CallError::from(unexpected(&other)).into()),
            Err(CallError::Refused(refusal)) => {
                self.owner.mark_ended();
                Err(CallError::Refused(refusal).into())
            }
            Err(unavailable) => {
                self.owner.owe(end.into());
                Err(unavailable.into())
            }
        }
    }
}
