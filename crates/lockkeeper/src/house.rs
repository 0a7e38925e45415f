//! The near end of a manager: the store, the lock actors of this process, and who supervises them.

use crate::{
    LockActor,
    actor::{Keeping, LockActorArgs, Shared, Shutdown, ShutdownDone},
    clock::Clock,
    config::Config,
    error::Unavailable,
    event::ProjectEvent,
    manager::ShutdownReport,
    metrics::Meter,
};
use kameo::{
    actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef},
    error::{ActorStopReason, Infallible, SendError},
    mailbox,
    supervision::RestartPolicy,
};
use lockkeeper_store::{AuditFilter, AuditRow, Reader, StoreError};
use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
};

/// How often something is asked for because the actor died before it answered.
pub(crate) const ASK_AGAIN: usize = 16;

/// The lock actors of this process, and where they keep what happens.
pub(crate) struct House {
    config: Arc<Config>,
    clock: Clock,
    keeping: Keeping,
    /// None in memory, and once the store is closed.
    reader: Arc<Mutex<Option<Box<dyn Reader>>>>,
    warden: ActorRef<Warden>,
    /// Where actors live, whoever first names their project.
    runtime: Handle,
    meter: Arc<Meter>,
    events: broadcast::Sender<Arc<ProjectEvent>>,
    projects: Mutex<HashMap<Arc<str>, Started>>,
}

/// A project's actor, once it runs.
type Started = watch::Receiver<Option<Running>>;

/// A project whose actor runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) actor: ActorRef<LockActor>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
}

/// Starts a project's actor under supervision.
async fn start(warden: ActorRef<Warden>, args: LockActorArgs) -> Running {
    let (name, shared) = (args.project.clone(), args.shared.clone());
    // It is never given up: what cannot be written is told to whoever asks, again and again.
    let actor = LockActor::supervise_with(&warden, move || args.clone())
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

impl House {
    pub(crate) fn new(
        keeping: Keeping,
        reader: Option<Box<dyn Reader>>,
        meter: Arc<Meter>,
        config: Config,
    ) -> House {
        let (events, _) = broadcast::channel(config.events_capacity.max(1));
        House {
            config: Arc::new(config),
            clock: Clock::start(),
            keeping,
            reader: Arc::new(Mutex::new(reader)),
            warden: Warden::spawn_with_mailbox((), mailbox::unbounded()),
            runtime: Handle::current(),
            meter,
            events,
            projects: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<ProjectEvent>> {
        self.events.subscribe()
    }

    /// The project's actor; started, if this is the first word about it. It is started by a task of
    /// its own, so that it is started once, whoever stops waiting.
    pub(crate) async fn running(&self, project: &str) -> Result<Running, Unavailable> {
        if !self.warden.is_alive() {
            return Err(Unavailable::ShutDown);
        }
        let started = {
            let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
            match projects.get(project) {
                Some(started) => started.clone(),
                None => {
                    let (name, (tell, started)) = (Arc::from(project), watch::channel(None));
                    projects.insert(Arc::clone(&name), started.clone());
                    let (warden, args) = (self.warden.clone(), self.args_of(name));
                    self.runtime
                        .spawn(async move { tell.send_replace(Some(start(warden, args).await)) });
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

    pub(crate) async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        if matches!(self.keeping, Keeping::Volatile(_)) {
            return Ok(Vec::new());
        }
        let reader = self.reader.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.as_mut().map_or(Err(StoreError::Closed), |reader| reader.audit(&filter))
        });
        asked.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn shut_down(&self) -> ShutdownReport {
        let projects: Vec<(Arc<str>, Started)> = {
            let projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
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
        if let Keeping::Written(writer) = &self.keeping {
            let (writer, reader) = (writer.clone(), self.reader.clone());
            // The writer last: who closes the file last puts everything into it. That waits for the
            // disk. A panic in there has been told by the panic hook already.
            let _ = tokio::task::spawn_blocking(move || {
                drop(reader.lock().unwrap_or_else(PoisonError::into_inner).take());
                writer.close();
            })
            .await;
        }
        let _ = self.warden.stop_gracefully().await;
        report
    }
}

impl Drop for House {
    /// Everything of it is gone: no handle, session or guard. Their sessions have been told to end
    /// before; the actors stop behind that, and with the last of them the writer.
    fn drop(&mut self) {
        let projects = self.projects.get_mut().unwrap_or_else(PoisonError::into_inner);
        for started in projects.values() {
            if let Some(running) = &*started.borrow() {
                let _ = running.actor.tell(Shutdown).try_send();
            }
        }
        let _ = self.warden.tell(Leave).try_send();
    }
}

/// Ends a project's sessions; asks again if the actor was restarted meanwhile.
async fn shut_down(running: &Running) -> Result<ShutdownDone, Unavailable> {
    for _ in 0..ASK_AGAIN {
        match running.actor.ask(Shutdown).send().await {
            Ok(done) => return Ok(done),
            // Somebody else has shut it down.
            Err(SendError::ActorNotRunning(_)) => return Ok(ShutdownDone::default()),
            Err(_) => {}
        }
    }
    Err(Unavailable::Crashed)
}

/// Supervises the lock actors, and nothing else.
struct Warden;

impl Actor for Warden {
    type Args = ();
    type Error = Infallible;

    fn name() -> &'static str {
        "Warden"
    }

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Warden)
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

/// Tells the supervisor to go.
struct Leave;

impl kameo::message::Message<Leave> for Warden {
    type Reply = ();

    async fn handle(&mut self, _: Leave, ctx: &mut kameo::message::Context<Self, ()>) {
        ctx.stop();
    }
}
