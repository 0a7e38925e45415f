//! Starts agents, watches them, and frees their locks when they die.

use crate::{
    AdminError, AgentContext, Config, LockManager, RequestFuture, Session, SessionError,
    ShutdownReport, StoreError, error::CallError,
};
use kameo::{
    actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef},
    error::{ActorStopReason, Infallible},
    mailbox,
    message::{Context, Message},
};
use lockkeeper_core::{EndCause, EndSession};
use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, IntoFuture},
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// When an agent that ended is started again. Each life is a new session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RestartAgent {
    /// Never.
    #[default]
    Never,
    /// When it panicked or was killed, at most so often in a row, each time after a longer pause. A
    /// life of more than a minute begins a new row.
    OnFailure {
        /// How often at most.
        at_most: u32,
        /// The first pause; it doubles each time, up to a minute.
        pause: Duration,
    },
    /// However it ended, until the orchestrator is shut down.
    Always {
        /// The first pause; after failures it doubles each time, up to a minute.
        pause: Duration,
    },
}

const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(10);

impl RestartAgent {
    /// How long to pause before the next life, if there is one.
    fn pause(self, failed: bool, failures: u32) -> Option<Duration> {
        let after = |pause: Duration| {
            let times = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
            pause.saturating_mul(times).min(PAUSE_MAX)
        };
        match self {
            RestartAgent::Never => None,
            RestartAgent::OnFailure { at_most, pause } => {
                (failed && failures <= at_most).then(|| after(pause))
            }
            RestartAgent::Always { pause } => Some(after(pause)),
        }
    }
}

/// Starts agent actors, each with a session of its own, and sees to it that no lock outlives its
/// agent. Lock actors are started as their projects are first named. Cheap to clone.
///
/// ```
/// use kameo::prelude::*;
/// use lockkeeper::{AgentContext, Config, Orchestrator, Resource};
///
/// #[derive(Actor)]
/// struct Coder {
///     context: AgentContext,
/// }
///
/// struct Edit(&'static str);
///
/// impl Message<Edit> for Coder {
///     type Reply = bool;
///
///     async fn handle(&mut self, edit: Edit, _: &mut Context<Self, bool>) -> bool {
///         let file = Resource::file(edit.0);
///         self.context.session().acquire(file).await.is_ok_and(|guard| guard.is_valid())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let orchestrator = Orchestrator::start(Config::in_memory()).await?;
/// let coder = orchestrator.spawn_agent("demo", "coder", |context| Coder { context }).await?;
/// assert!(coder.actor_ref().ask(Edit("src/main.rs")).await?);
/// orchestrator.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Orchestrator {
    manager: LockManager,
    warden: ActorRef<Warden>,
}

impl fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orchestrator").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Orchestrator {
    /// Opens the store and begins.
    pub async fn start(config: Config) -> Result<Orchestrator, StoreError> {
        Ok(Orchestrator::over(LockManager::open_with(config).await?))
    }

    /// Over a manager that is open already.
    pub fn over(manager: LockManager) -> Orchestrator {
        let warden = Warden::spawn_with_mailbox((), mailbox::unbounded());
        Orchestrator { manager, warden }
    }

    /// The manager.
    pub fn manager(&self) -> &LockManager {
        &self.manager
    }

    /// Starts an agent: `make` makes the actor from its context, anew for each life. Await it, or
    /// say more first.
    pub fn spawn_agent<A: Actor<Args = A>>(
        &self,
        project: &str,
        name: &str,
        make: impl FnMut(AgentContext) -> A + Send + 'static,
    ) -> AgentRequest<A> {
        self.spawn_agent_from(project, name, make)
    }

    /// The same, for actors that start from something else than themselves.
    pub fn spawn_agent_from<A: Actor>(
        &self,
        project: &str,
        name: &str,
        make: impl FnMut(AgentContext) -> A::Args + Send + 'static,
    ) -> AgentRequest<A> {
        AgentRequest {
            orchestrator: self.clone(),
            project: project.into(),
            name: name.into(),
            make: Arc::new(Mutex::new(make)),
            priority: 0,
            restart: RestartAgent::Never,
        }
    }

    /// Releases everything an agent holds, in all its sessions, and tells how many locks that were.
    pub async fn release_all(&self, project: &str, agent: &str) -> Result<usize, AdminError> {
        let project = self.manager.project(project).await.map_err(CallError::from)?;
        project.release_all(agent).await
    }

    /// Asks every agent to stop, gives them a little time, and ends the rest. When it returns,
    /// their sessions have ended, and none is started any more.
    pub async fn stop_agents(&self) {
        // No answer: the warden is gone, and nobody can be stopped any more.
        if let Ok(stops) = self.warden.ask(StopAll).send().await {
            let all = stops.into_iter().map(tokio::spawn).collect::<Vec<_>>();
            for stop in all {
                let _ = stop.await;
            }
        }
        // The news of a death may be on its way still.
        let _ = self.warden.ask(EndRest).send().await;
        let _ = self.warden.stop_gracefully().await;
        self.warden.wait_for_shutdown().await;
    }

    /// Stops the agents and shuts the manager down.
    pub async fn shutdown(self) -> ShutdownReport {
        self.stop_agents().await;
        self.manager.shutdown().await
    }
}

type Make<A> = Arc<Mutex<dyn FnMut(AgentContext) -> <A as Actor>::Args + Send>>;

/// An agent that is about to be started. Await it.
#[must_use = "a request does nothing until it is awaited"]
pub struct AgentRequest<A: Actor> {
    orchestrator: Orchestrator,
    project: Arc<str>,
    name: Arc<str>,
    make: Make<A>,
    priority: i8,
    restart: RestartAgent,
}

impl<A: Actor> fmt::Debug for AgentRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<A: Actor> AgentRequest<A> {
    /// When it is started again.
    pub fn restart(mut self, restart: RestartAgent) -> Self {
        self.restart = restart;
        self
    }

    /// What its requests weigh when a deadlock must be broken, -10 to 10: the lowest loses.
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    async fn run(self) -> Result<AgentHandle<A>, SessionError> {
        let (tell, current) = watch::channel(None);
        let (project, name) = (self.project.clone(), self.name.clone());
        let agent = Arc::new(Agent {
            manager: self.orchestrator.manager,
            warden: self.orchestrator.warden.downgrade(),
            project: self.project,
            name: self.name,
            make: self.make,
            priority: self.priority,
            restart: self.restart,
            tell,
        });
        agent.live(1, 0).await?;
        Ok(AgentHandle { project, name, current })
    }
}

impl<A: Actor> IntoFuture for AgentRequest<A> {
    type Output = Result<AgentHandle<A>, SessionError>;
    type IntoFuture = RequestFuture<'static, AgentHandle<A>, SessionError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The way to an agent, across its lives.
pub struct AgentHandle<A: Actor> {
    project: Arc<str>,
    name: Arc<str>,
    current: watch::Receiver<Option<(ActorRef<A>, Session)>>,
}

impl<A: Actor> Clone for AgentHandle<A> {
    fn clone(&self) -> Self {
        let (project, name) = (self.project.clone(), self.name.clone());
        AgentHandle { project, name, current: self.current.clone() }
    }
}

impl<A: Actor> fmt::Debug for AgentHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHandle")
            .field("project", &self.project)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<A: Actor> AgentHandle<A> {
    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The project it is in.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Its present actor; after its last life, that one's.
    pub fn actor_ref(&self) -> ActorRef<A> {
        let current = self.current.borrow();
        match &*current {
            Some((actor, _)) => actor.clone(),
            // A handle is given out only after the first life has begun.
            None => unreachable!("an agent without a first life"),
        }
    }

    /// Waits until it has ended and will not be started again.
    pub async fn finished(&self) {
        let mut current = self.current.clone();
        // The other end goes when the last life is over.
        while current.changed().await.is_ok() {}
    }
}

/// Everything that is needed for one more life.
struct Agent<A: Actor> {
    manager: LockManager,
    warden: WeakActorRef<Warden>,
    project: Arc<str>,
    name: Arc<str>,
    make: Make<A>,
    priority: i8,
    restart: RestartAgent,
    tell: watch::Sender<Option<(ActorRef<A>, Session)>>,
}

impl<A: Actor> Agent<A> {
    /// Begins a life: opens a session, links, then starts.
    async fn live(self: Arc<Self>, life: u32, failures: u32) -> Result<(), SessionError> {
        let session =
            self.manager.session(&self.project, &self.name).priority(self.priority).await?;
        let Some(warden) = self.warden.upgrade() else {
            return Err(CallError::from(crate::Unavailable::ShutDown).into());
        };
        let context = AgentContext::new(session.clone(), self.manager.clone(), life);
        let args = {
            let mut make = self.make.lock().unwrap_or_else(PoisonError::into_inner);
            make(context)
        };
        let prepared = A::prepare();
        let actor = prepared.actor_ref().clone();
        // Linked and known before its first breath, so that no death is missed.
        actor.link(&warden).await;
        let stop = {
            let actor = actor.clone();
            move || Box::pin(stop(actor.clone())) as Stop
        };
        let ward = Ward {
            name: self.name.clone(),
            end: Box::new(self.clone().ending(session.clone(), life, failures)),
            stop: Box::new(stop),
        };
        let watched = warden.ask(Watch { id: actor.id(), ward }).send().await;
        if !watched.is_ok_and(|watched| watched) {
            return Err(CallError::from(crate::Unavailable::ShutDown).into());
        }
        self.tell.send_replace(Some((actor, session)));
        prepared.spawn(args);
        Ok(())
    }

    /// What follows when this life is over.
    fn ending(
        self: Arc<Self>,
        session: Session,
        life: u32,
        failures: u32,
    ) -> impl FnOnce(bool, bool) + Send {
        let began = Instant::now();
        move |failed, again| {
            let cause = if failed { EndCause::OwnerDied } else { EndCause::Closed };
            session.owner.owe(EndSession { session: session.id(), cause }.into());
            session.owner.mark_ended();
            let failures = match failed {
                // A life that was long enough makes up for those before it.
                true if began.elapsed() > PAUSE_MAX => 1,
                true => failures + 1,
                false => 0,
            };
            if let Some(pause) = self.restart.pause(failed, failures).filter(|_| again) {
                tokio::spawn(self.again(pause, life + 1, failures));
            }
        }
    }

    fn again(
        self: Arc<Self>,
        pause: Duration,
        life: u32,
        failures: u32,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut pause = pause;
            loop {
                tokio::time::sleep(pause).await;
                let error = match self.clone().live(life, failures).await {
                    Ok(()) => return,
                    Err(error) => error,
                };
                if matches!(error, SessionError::Unavailable(crate::Unavailable::ShutDown)) {
                    return;
                }
                tracing::error!(agent = %self.name, %error, "an agent is not started again yet");
                pause = pause.saturating_mul(2).clamp(PAUSE_MIN, PAUSE_MAX);
            }
        })
    }
}

/// How long an agent may take to stop when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

async fn stop<A: Actor>(actor: ActorRef<A>) {
    let _ = actor.stop_gracefully().await;
    if tokio::time::timeout(STOP_PATIENCE, actor.wait_for_shutdown()).await.is_err() {
        actor.kill();
        actor.wait_for_shutdown().await;
    }
}

type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Hears of every agent's death.
struct Warden {
    wards: BTreeMap<ActorId, Ward>,
    /// Whether the dead may be started again.
    open: bool,
}

struct Ward {
    name: Arc<str>,
    end: Box<dyn FnOnce(bool, bool) + Send>,
    stop: Box<dyn Fn() -> Stop + Send>,
}

impl Actor for Warden {
    type Args = ();
    type Error = Infallible;

    fn name() -> &'static str {
        "Warden"
    }

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Warden { wards: BTreeMap::new(), open: true })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        if let Some(ward) = self.wards.remove(&id) {
            let failed = !matches!(reason, ActorStopReason::Normal);
            if failed {
                tracing::warn!(agent = %ward.name, %reason, "an agent died");
            }
            (ward.end)(failed, self.open);
        }
        Ok(ControlFlow::Continue(()))
    }
}

struct Watch {
    id: ActorId,
    ward: Ward,
}

impl Message<Watch> for Warden {
    /// Whether the agent may start.
    type Reply = bool;

    async fn handle(&mut self, watch: Watch, _: &mut Context<Self, bool>) -> bool {
        if self.open {
            self.wards.insert(watch.id, watch.ward);
        }
        self.open
    }
}

struct StopAll;

impl Message<StopAll> for Warden {
    type Reply = Vec<Stop>;

    async fn handle(&mut self, _: StopAll, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.open = false;
        self.wards.values().map(|ward| (ward.stop)()).collect()
    }
}

/// Ends what is left of agents that have stopped.
struct EndRest;

impl Message<EndRest> for Warden {
    type Reply = ();

    async fn handle(&mut self, _: EndRest, _: &mut Context<Self, ()>) {
        for (_, ward) in std::mem::take(&mut self.wards) {
            (ward.end)(false, false);
        }
    }
}
