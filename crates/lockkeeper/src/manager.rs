//! The manager: opens the store, starts and supervises one lock actor per project, and hands out
//! sessions.

use crate::{
    LockActor,
    actor::{Keeping, LockActorArgs, OpenOwned, Shared, Shutdown, ShutdownDone},
    clock::Clock,
    config::Config,
    error::{AcquireError, CallError, SessionError, Unavailable},
    event::{Events, ProjectEvent},
    guard::{HoldState, LockGuard},
    metrics::Meter,
    project::Project,
    renewal::{Renewal, renew_in_time},
    session::{Owner, Session},
};
use kameo::{
    actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef},
    error::{ActorStopReason, Infallible, SendError},
    mailbox,
    supervision::RestartPolicy,
};
use lockkeeper_core::{Holder, Lineage, OpenSession, Resource, SessionKind};
use lockkeeper_store::{
    AuditFilter, AuditRow, Durability, OpenOptions, Reader, SqliteStore, Store, StoreError, Writer,
    WriterOptions,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::IntoFuture,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, watch},
};

/// Hands out sessions of projects. Cheap to clone; all clones are the same manager.
///
/// One process at a time has a store open. Dropping the last handle, session and guard ends the
/// sessions and closes the store; [`LockManager::shutdown`] does so in order and tells what was
/// released.
#[derive(Clone)]
pub struct LockManager {
    inner: Arc<ManagerInner>,
}

pub(crate) struct ManagerInner {
    config: Arc<Config>,
    clock: Clock,
    keeping: Keeping,
    /// None in memory, and once the store is closed.
    reader: Arc<Mutex<Option<Box<dyn Reader>>>>,
    house: ActorRef<House>,
    /// Where actors live, whoever first names their project.
    runtime: Handle,
    meter: Arc<Meter>,
    events: broadcast::Sender<Arc<ProjectEvent>>,
    projects: Mutex<HashMap<Arc<str>, Started>>,
    /// Sessions opened by an agent's name alone, while anything of them lives.
    by_agent: Mutex<HashMap<AgentOf, Weak<Owner>>>,
    renewals: mpsc::UnboundedSender<Renewal>,
}

/// A project's actor, once it runs.
type Started = watch::Receiver<Option<Running>>;

/// A project and an agent's name.
type AgentOf = (Arc<str>, Arc<str>);

/// A project whose actor runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) actor: ActorRef<LockActor>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
}

/// Starts a project's actor under supervision.
async fn start(house: ActorRef<House>, args: LockActorArgs) -> Running {
    let (name, shared) = (args.project.clone(), args.shared.clone());
    // It is never given up: what cannot be written is told to whoever asks, again and again.
    let actor = LockActor::supervise_with(&house, move || args.clone())
        .restart_policy(RestartPolicy::Transient)
        .restart_limit(u32::MAX, Duration::from_secs(1))
        .spawn_with_mailbox(mailbox::unbounded())
        .await;
    actor.wait_for_startup().await;
    Running { actor, shared, name }
}

/// Waits until it runs; not at all, if whoever starts it is gone.
async fn run_by(mut started: Started) -> Option<Running> {
    let running = started.wait_for(Option::is_some).await.ok()?;
    running.clone()
}

/// Supervises the lock actors, and nothing else.
struct House;

impl Actor for House {
    type Args = ();
    type Error = Infallible;

    fn name() -> &'static str {
        "House"
    }

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(House)
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Continue(()))
    }
}

impl LockManager {
    /// Opens a store, which is made if it is not there, and migrated if it is old.
    pub async fn open(path: impl AsRef<Path>) -> Result<LockManager, StoreError> {
        LockManager::open_with(Config::at(path)).await
    }

    /// The same, set up otherwise.
    pub async fn open_with(config: Config) -> Result<LockManager, StoreError> {
        let path = match &config.path {
            Some(path) if config.durability != Durability::Memory => path.clone(),
            _ => return Ok(LockManager::in_memory(config)),
        };
        let options = OpenOptions {
            durability: config.durability,
            reach: config.reach.clone(),
            ..OpenOptions::default()
        };
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, options)).await;
        // A panic in there has been told by the panic hook already.
        let store = opened.map_err(|_| StoreError::Closed)??;
        LockManager::over(Box::new(store), config)
    }

    /// Over a store of your own.
    pub fn over(store: Box<dyn Store>, config: Config) -> Result<LockManager, StoreError> {
        let meter = Meter::new(config.metrics);
        let options = WriterOptions {
            retention: config.retention,
            observe: meter.observer(),
            ..WriterOptions::default()
        };
        let writer = Writer::start(store, options)?;
        let reader = writer.reader()?;
        Ok(LockManager::start(Keeping::Written(writer), Some(reader), meter, config))
    }

    /// Locks that end with the process, without a file and without an audit log. What the
    /// configuration says about a file is not looked at.
    pub fn in_memory(config: Config) -> LockManager {
        let meter = Meter::new(config.metrics);
        LockManager::start(Keeping::Volatile(Arc::default()), None, meter, config)
    }

    fn start(
        keeping: Keeping,
        reader: Option<Box<dyn Reader>>,
        meter: Arc<Meter>,
        config: Config,
    ) -> LockManager {
        let (events, _) = broadcast::channel(config.events_capacity.max(1));
        let (renewals, asked) = mpsc::unbounded_channel();
        tokio::spawn(renew_in_time(asked));
        let inner = ManagerInner {
            config: Arc::new(config),
            clock: Clock::start(),
            keeping,
            reader: Arc::new(Mutex::new(reader)),
            house: House::spawn_with_mailbox((), mailbox::unbounded()),
            runtime: Handle::current(),
            meter,
            events,
            projects: Mutex::default(),
            by_agent: Mutex::default(),
            renewals,
        };
        LockManager { inner: Arc::new(inner) }
    }

    /// Opens a session: one agent in one project. Await it, or say more first.
    pub fn session(&self, project: &str, agent: &str) -> SessionRequest {
        let open = OpenSession { agent: agent.into(), ..OpenSession::default() };
        SessionRequest { manager: self.clone(), project: project.into(), open }
    }

    /// A project: its views and what an administrator may do.
    pub async fn project(&self, project: &str) -> Result<Project, Unavailable> {
        let running = self.inner.running(project).await?;
        Ok(Project::new(self.clone(), running))
    }

    /// The address of a project's lock actor, for whoever prefers messages.
    pub async fn lock_actor(&self, project: &str) -> Result<ActorRef<LockActor>, Unavailable> {
        Ok(self.inner.running(project).await?.actor)
    }

    /// Acquires an exclusive lock for an agent by its name, in the way of the earlier registries.
    /// All calls with one name are one session, for as long as it holds anything.
    pub async fn acquire(&self, agent: &str, key: ResourceKey) -> Result<LockGuard, AcquireError> {
        let session = self.session_of(&key.project_id, agent).await?;
        session.acquire(key.resource()).await
    }

    /// The same, now or never.
    pub async fn try_acquire(
        &self,
        agent: &str,
        key: ResourceKey,
    ) -> Result<LockGuard, AcquireError> {
        let session = self.session_of(&key.project_id, agent).await?;
        session.acquire(key.resource()).no_wait().await
    }

    /// The session of an agent that is known by its name alone.
    async fn session_of(&self, project: &str, agent: &str) -> Result<Session, CallError> {
        let key: AgentOf = (project.into(), agent.into());
        if let Some(owner) = self.inner.known(&key) {
            return Ok(Session { owner });
        }
        let session = self.session(project, agent).await.map_err(CallError::from)?;
        // Two first calls may have opened one each: the first one in is the agent's.
        let mut by_agent = self.inner.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        by_agent.retain(|_, owner| owner.strong_count() > 0);
        if let Some(owner) = by_agent.get(&key).and_then(Weak::upgrade) {
            return Ok(Session { owner });
        }
        by_agent.insert(key, Arc::downgrade(&session.owner));
        Ok(session)
    }

    /// Everything that happens from now on, in all projects.
    pub fn subscribe(&self) -> Events {
        Events::new(self.inner.events.subscribe(), None)
    }

    /// The audit log of all projects, filtered.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        if matches!(self.inner.keeping, Keeping::Volatile(_)) {
            return Ok(Vec::new());
        }
        let reader = self.inner.reader.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.as_mut().map_or(Err(StoreError::Closed), |reader| reader.audit(&filter))
        });
        asked.await.map_err(|_| StoreError::Closed)?
    }

    /// Ends all sessions of this process in order, closes the store, and tells what was released.
    /// Whoever still waits is refused; guards that are dropped later do nothing. With
    /// [`Config::attached_outlive`] nothing ends: all of it stays on record for the next process.
    pub async fn shutdown(self) -> ShutdownReport {
        let projects: Vec<(Arc<str>, Started)> = {
            let projects = self.inner.projects.lock().unwrap_or_else(PoisonError::into_inner);
            projects.iter().map(|(name, started)| (name.clone(), started.clone())).collect()
        };
        let mut report = ShutdownReport::default();
        for (name, started) in projects {
            let Some(running) = run_by(started).await else { continue };
            match shut_down(&running).await {
                Ok(done) => {
                    report.sessions += done.ended;
                    report.failed.extend(done.failed.map(|failed| (name.clone(), failed)));
                    report.released.insert(name, done.released);
                }
                Err(failed) => {
                    report.failed.insert(name, failed);
                }
            }
        }
        if let Keeping::Written(writer) = &self.inner.keeping {
            let (writer, reader) = (writer.clone(), self.inner.reader.clone());
            // The writer last: who closes the file last puts everything into it. That waits for the
            // disk. A panic in there has been told by the panic hook already.
            let _ = tokio::task::spawn_blocking(move || {
                drop(reader.lock().unwrap_or_else(PoisonError::into_inner).take());
                writer.close();
            })
            .await;
        }
        let _ = self.inner.house.stop_gracefully().await;
        report.released.retain(|_, released| !released.is_empty());
        report
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManager").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Ends a project's sessions; asks again if the actor was restarted meanwhile.
async fn shut_down(running: &Running) -> Result<ShutdownDone, Unavailable> {
    for _ in 0..OPEN_MAX {
        match running.actor.ask(Shutdown).send().await {
            Ok(done) => return Ok(done),
            // Somebody else has shut it down.
            Err(SendError::ActorNotRunning(_)) => return Ok(ShutdownDone::default()),
            Err(_) => {}
        }
    }
    Err(Unavailable::Crashed)
}

/// What a shutdown ended.
#[derive(Clone, Debug, Default)]
pub struct ShutdownReport {
    /// How many sessions.
    pub sessions: usize,
    /// Which locks, by project.
    pub released: BTreeMap<Arc<str>, Vec<Holder>>,
    /// Projects where this could not be written. The next process that opens the store releases
    /// what they held.
    pub failed: BTreeMap<Arc<str>, Unavailable>,
}

/// A resource and its project, in the spelling of the earlier registries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceKey {
    /// The project.
    pub project_id: String,
    /// The type: `file`, `database`, `llm`, `feature`, or any other lower-case word.
    pub resource_type: lockkeeper_core::ResourceType,
    /// The key.
    pub resource_key: String,
}

impl ResourceKey {
    /// The resource without its project.
    pub fn resource(&self) -> Resource {
        Resource::new(self.resource_type.clone(), &self.resource_key)
    }
}

/// A session that is about to be opened. Await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct SessionRequest {
    manager: LockManager,
    project: Arc<str>,
    open: OpenSession,
}

impl SessionRequest {
    /// What its requests weigh when a deadlock must be broken, -10 to 10: the lowest loses.
    pub fn priority(mut self, priority: i8) -> Self {
        self.open.priority = priority;
        self
    }

    /// It outlives this process: it lives by its leases, not by its handles.
    pub fn detached(mut self) -> Self {
        self.open.kind = SessionKind::Detached;
        self
    }

    /// It takes up the work of an earlier session, with its age.
    pub fn lineage(mut self, lineage: Lineage) -> Self {
        self.open.lineage = Some(lineage);
        self
    }

    async fn run(self) -> Result<Session, SessionError> {
        let SessionRequest { manager, project, open } = self;
        let running = manager.inner.running(&project).await.map_err(CallError::from)?;
        for _ in 0..OPEN_MAX {
            match running.actor.ask(open_owned(&manager, &running, &open)).send().await {
                Ok(session) => return Ok(session),
                Err(SendError::HandlerError(error)) => return Err(error.into()),
                Err(SendError::ActorNotRunning(_)) => {
                    return Err(CallError::from(Unavailable::ShutDown).into());
                }
                // It died before it answered; if the session was open, it is closed again.
                Err(_) => {}
            }
        }
        Err(CallError::from(Unavailable::Crashed).into())
    }
}

/// How often a session is asked for because the actor died before it answered.
const OPEN_MAX: usize = 16;

/// Opens a session whose handle is made where the answer is: should nobody take it, it closes the
/// session.
fn open_owned(manager: &LockManager, running: &Running, open: &OpenSession) -> OpenOwned {
    let (running, agent) = (running.clone(), open.agent.clone());
    let (clock, manager) = (manager.inner.clock.clone(), manager.inner.clone());
    let attached = open.kind == SessionKind::Attached;
    let make = move |session| {
        let names = (running.name.clone(), agent);
        let book = (running.shared.book.clone(), clock);
        let owner = Owner::new(running.actor, names, session, book, Some(manager), attached);
        Session { owner: Arc::new(owner) }
    };
    OpenOwned { open: open.clone(), make: Box::new(make) }
}

/// What an ask may end in, as this crate tells it.
pub(crate) fn flat<M>(error: SendError<M, CallError>) -> CallError {
    match error {
        SendError::HandlerError(error) => error,
        SendError::ActorNotRunning(_) => Unavailable::ShutDown.into(),
        _ => Unavailable::Crashed.into(),
    }
}

impl IntoFuture for SessionRequest {
    type Output = Result<Session, SessionError>;
    type IntoFuture = crate::RequestFuture<'static, Session, SessionError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl ManagerInner {
    /// The project's actor; started, if this is the first word about it. It is started by a task of
    /// its own, so that it is started once, whoever stops waiting.
    pub(crate) async fn running(&self, project: &str) -> Result<Running, Unavailable> {
        if !self.house.is_alive() {
            return Err(Unavailable::ShutDown);
        }
        let started = {
            let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
            match projects.get(project) {
                Some(started) => started.clone(),
                None => {
                    let (name, (tell, started)) = (Arc::from(project), watch::channel(None));
                    projects.insert(Arc::clone(&name), started.clone());
                    let (house, args) = (self.house.clone(), self.args_of(name));
                    self.runtime
                        .spawn(async move { tell.send_replace(Some(start(house, args).await)) });
                    started
                }
            }
        };
        run_by(started).await.ok_or(Unavailable::ShutDown)
    }

    /// The projects whose actors were started.
    pub(crate) fn started(&self) -> Vec<Arc<str>> {
        let projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        projects.keys().cloned().collect()
    }

    pub(crate) fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    fn args_of(&self, project: Arc<str>) -> LockActorArgs {
        LockActorArgs {
            project,
            keeping: self.keeping.clone(),
            config: self.config.clone(),
            clock: self.clock.clone(),
            shared: Arc::default(),
            events: self.events.clone(),
            meter: self.meter.clone(),
        }
    }

    fn known(&self, key: &AgentOf) -> Option<Arc<Owner>> {
        let by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        by_agent.get(key).and_then(Weak::upgrade)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ProjectEvent>> {
        self.events.subscribe()
    }

    pub(crate) fn keep_alive(&self, owner: &Arc<Owner>, state: &Arc<HoldState>) {
        let renewal = Renewal::new(owner, state);
        // The other end lives as long as this one.
        let _ = self.renewals.send(renewal);
    }
}

impl Drop for ManagerInner {
    /// Everything of it is gone: no handle, session or guard. Their sessions have been told to end
    /// before; the actors stop behind that, and with the last of them the writer.
    fn drop(&mut self) {
        let projects = self.projects.get_mut().unwrap_or_else(PoisonError::into_inner);
        for started in projects.values() {
            if let Some(running) = &*started.borrow() {
                let _ = running.actor.tell(Shutdown).try_send();
            }
        }
        let _ = self.house.tell(Leave).try_send();
    }
}

/// Tells the supervisor to go.
struct Leave;

impl kameo::message::Message<Leave> for House {
    type Reply = ();

    async fn handle(&mut self, _: Leave, ctx: &mut kameo::message::Context<Self, ()>) {
        ctx.stop();
    }
}

impl LockManager {
    pub(crate) fn inner(&self) -> &Arc<ManagerInner> {
        &self.inner
    }
}
