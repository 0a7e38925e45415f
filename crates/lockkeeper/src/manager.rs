//! The manager: opens a store, or connects to a daemon that has, and hands out sessions.

use crate::{
    LockActor,
    actor::Keeping,
    clock::Clock,
    config::Config,
    error::{AcquireError, CallError, SessionError, Unavailable},
    event::Events,
    guard::{HoldState, LockGuard},
    house::House,
    line::Line,
    metrics::Meter,
    project::Project,
    renewal::{Renewal, renew_in_time},
    session::{Owner, Session},
};
use kameo::actor::ActorRef;
use lockkeeper_core::{Holder, Lineage, OpenSession, Resource, SessionKind};
use lockkeeper_store::{
    AuditFilter, AuditRow, Durability, OpenOptions, Reader, SqliteStore, Store, StoreError, Writer,
    WriterOptions,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::IntoFuture,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::mpsc;

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
    end: End,
    /// Sessions opened by an agent's name alone, while anything of them lives.
    by_agent: Mutex<HashMap<AgentOf, Weak<Owner>>>,
    renewals: mpsc::UnboundedSender<Renewal>,
}

/// Where the locks of a manager are.
pub(crate) enum End {
    /// In this process.
    House(House),
    /// At a daemon.
    #[cfg(feature = "remote")]
    Far(Arc<crate::remote::Link>),
}

/// A project and an agent's name.
type AgentOf = (Arc<str>, Arc<str>);

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
        // Nearly all such commits write to the system's memory only, which takes no longer than a
        // word to the writer's thread and back; the store says when one does not.
        let in_place = config.durability == Durability::Process;
        LockManager::written_by(Box::new(store), config, in_place)
    }

    /// Over a store of your own.
    pub fn over(store: Box<dyn Store>, config: Config) -> Result<LockManager, StoreError> {
        LockManager::written_by(store, config, false)
    }

    fn written_by(
        store: Box<dyn Store>,
        config: Config,
        in_place: bool,
    ) -> Result<LockManager, StoreError> {
        let meter = Meter::new(config.metrics);
        let options = WriterOptions {
            in_place,
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
        LockManager::of(End::House(House::new(keeping, reader, meter, config)))
    }

    pub(crate) fn of(end: End) -> LockManager {
        let (renewals, asked) = mpsc::unbounded_channel();
        tokio::spawn(renew_in_time(asked));
        let inner = ManagerInner { end, by_agent: Mutex::default(), renewals };
        LockManager { inner: Arc::new(inner) }
    }

    /// Opens a session: one agent in one project. Await it, or say more first.
    pub fn session(&self, project: &str, agent: &str) -> SessionRequest {
        let open = OpenSession { agent: agent.into(), ..OpenSession::default() };
        SessionRequest { manager: self.clone(), project: project.into(), open }
    }

    /// A project: its views and what an administrator may do.
    pub async fn project(&self, project: &str) -> Result<Project, Unavailable> {
        let line = self.inner.line(project).await?;
        Ok(Project::new(self.clone(), line))
    }

    /// The address of a project's lock actor, for whoever prefers messages. A manager that is
    /// connected to a daemon has none: [`Unavailable::Elsewhere`].
    pub async fn lock_actor(&self, project: &str) -> Result<ActorRef<LockActor>, Unavailable> {
        self.inner.line(project).await?.actor().cloned()
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
        self.inner.subscribe(None)
    }

    /// The audit log of all projects, filtered.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        match &self.inner.end {
            End::House(house) => house.audit(filter).await,
            #[cfg(feature = "remote")]
            End::Far(link) => link.audit(filter).await,
        }
    }

    /// The daemon it is connected to, or was last, as that told of itself. `None` for a manager
    /// that has its locks in this process.
    #[cfg(feature = "remote")]
    pub fn daemon(&self) -> Option<crate::wire::Hello> {
        match &self.inner.end {
            End::House(_) => None,
            End::Far(link) => Some(link.hello()),
        }
    }

    /// Ends all sessions of this process in order, closes the store, and tells what was released.
    /// Whoever still waits is refused; guards that are dropped later do nothing. With
    /// [`Config::attached_outlive`] nothing ends: all of it stays on record for the next process.
    pub async fn shutdown(self) -> ShutdownReport {
        let mut report = match &self.inner.end {
            End::House(house) => house.shut_down().await,
            #[cfg(feature = "remote")]
            End::Far(link) => link.shut_down().await,
        };
        report.released.retain(|_, released| !released.is_empty());
        report
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("LockManager");
        match &self.inner.end {
            End::House(house) => debug.field("config", house.config()),
            #[cfg(feature = "remote")]
            End::Far(link) => debug.field("daemon", link.address()),
        };
        debug.finish_non_exhaustive()
    }
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
        let line = manager.inner.line(&project).await.map_err(CallError::from)?;
        let (clock, inner) = (manager.inner.clock().clone(), manager.inner.clone());
        let (agent, of) = (open.agent.clone(), line.clone());
        let attached = open.kind == SessionKind::Attached;
        let make = move |session| {
            let (line, agent, clock) = (of.clone(), agent.clone(), clock.clone());
            let owner = Owner::new(line, agent, session, clock, Some(inner.clone()), attached);
            Session { owner: Arc::new(owner) }
        };
        Ok(line.open(&open, make).await?)
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
    /// The way to a project.
    pub(crate) async fn line(&self, project: &str) -> Result<Line, Unavailable> {
        match &self.end {
            End::House(house) => Ok(house.running(project).await?.into()),
            #[cfg(feature = "remote")]
            End::Far(link) => Ok(Line::Wire(link.project(project)?)),
        }
    }

    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    pub(crate) fn clock(&self) -> &Clock {
        match &self.end {
            End::House(house) => house.clock(),
            #[cfg(feature = "remote")]
            End::Far(link) => link.clock(),
        }
    }

    fn known(&self, key: &AgentOf) -> Option<Arc<Owner>> {
        let by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        by_agent.get(key).and_then(Weak::upgrade)
    }

    pub(crate) fn subscribe(&self, project: Option<Arc<str>>) -> Events {
        match &self.end {
            End::House(house) => Events::new(house.subscribe(), project),
            #[cfg(feature = "remote")]
            End::Far(link) => Events::far(link.subscribe(), project),
        }
    }

    pub(crate) fn keep_alive(&self, owner: &Arc<Owner>, state: &Arc<HoldState>) {
        let renewal = Renewal::new(owner, state);
        // The other end lives as long as this one.
        let _ = self.renewals.send(renewal);
    }
}

#[cfg(feature = "remote")]
impl Drop for ManagerInner {
    /// Everything of it is gone: no handle, session or guard.
    fn drop(&mut self) {
        if let End::Far(link) = &self.end {
            link.close();
        }
    }
}

impl LockManager {
    pub(crate) fn inner(&self) -> &Arc<ManagerInner> {
        &self.inner
    }
}
