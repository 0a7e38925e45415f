//! A project's views, and what an administrator may do to it.

use crate::{
    LockActor, LockManager, SessionRequest,
    error::{AdminError, CallError, Unavailable},
    event::Events,
    guard::unexpected,
    line::Line,
    question::{
        ContentionNow, Inspect, Leases, List, Queue, Sessions, Stale, StatsNow, TaskNow, Tasks,
        WaitGraphNow,
    },
};
use kameo::actor::ActorRef;
use lockkeeper_core::{
    Answer, Command, Contention, DeclareCapacity, ForceUnlock, Holder, Inspection, LeaseCounts,
    ReleaseAll, Resource, SessionView, Stats, Task, WaitGraph, Waiter,
};
use lockkeeper_store::{AuditFilter, AuditRow, StoreError};
use std::{fmt, time::Duration};

/// One project. Every view shows what is on record, never what is about to be.
#[derive(Clone)]
pub struct Project {
    manager: LockManager,
    line: Line,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project").field("name", self.line.project()).finish_non_exhaustive()
    }
}

impl Project {
    pub(crate) fn new(manager: LockManager, line: Line) -> Project {
        Project { manager, line }
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.line.project()
    }

    /// Opens a session in it.
    pub fn session(&self, agent: &str) -> SessionRequest {
        self.manager.session(self.line.project(), agent)
    }

    /// The address of its lock actor; if it is in a daemon, there is none here.
    pub fn actor(&self) -> Result<&ActorRef<LockActor>, Unavailable> {
        self.line.actor()
    }

    /// Everything that happens in it from now on.
    pub fn subscribe(&self) -> Events {
        self.manager.inner().subscribe(Some(self.line.project().clone()))
    }

    /// Whether anybody holds the resource.
    pub async fn is_locked(&self, resource: impl Into<Resource>) -> Result<bool, Unavailable> {
        Ok(self.get_owner(resource).await?.is_some())
    }

    /// The agent that holds the resource; the earliest, if several do.
    pub async fn get_owner(
        &self,
        resource: impl Into<Resource>,
    ) -> Result<Option<String>, Unavailable> {
        let owner = self.get_lock_info(resource).await?;
        Ok(owner.map(|holder| holder.agent.to_string()))
    }

    /// Who holds the resource, why, since when, until when; the earliest, if several do.
    pub async fn get_lock_info(
        &self,
        resource: impl Into<Resource>,
    ) -> Result<Option<Holder>, Unavailable> {
        let inspection = self.inspect(resource).await?;
        Ok(inspection.and_then(|inspection| inspection.holders.into_iter().next()))
    }

    /// The resource with all its holders and its queue; none if it is free and unknown.
    pub async fn inspect(
        &self,
        resource: impl Into<Resource>,
    ) -> Result<Option<Inspection>, Unavailable> {
        self.line.see(Inspect { resource: resource.into() }).await
    }

    /// All holds, by resource.
    pub async fn list(&self) -> Result<Vec<Holder>, Unavailable> {
        self.line.see(List {}).await
    }

    /// Who waits for the resource, the next first.
    pub async fn queue(&self, resource: impl Into<Resource>) -> Result<Vec<Waiter>, Unavailable> {
        self.line.see(Queue { resource: resource.into() }).await
    }

    /// Every open session.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, Unavailable> {
        self.line.see(Sessions {}).await
    }

    /// Who waits for whom.
    pub async fn wait_graph(&self) -> Result<WaitGraph, Unavailable> {
        self.line.see(WaitGraphNow {}).await
    }

    /// The resources people wait for, the longest queue first.
    pub async fn contention(&self) -> Result<Vec<Contention>, Unavailable> {
        self.line.see(ContentionNow {}).await
    }

    /// The size of the lock table.
    pub async fn stats(&self) -> Result<Stats, Unavailable> {
        self.line.see(StatsNow {}).await
    }

    /// The holds that are at least this old.
    pub async fn find_stale(&self, older_than: Duration) -> Result<Vec<Holder>, Unavailable> {
        self.line.see(Stale { older_than }).await
    }

    /// How many leases there are, end soon, or have gone on for long.
    pub async fn lease_counts(
        &self,
        soon: Duration,
        long: Duration,
    ) -> Result<LeaseCounts, Unavailable> {
        self.line.see(Leases { soon, long }).await
    }

    /// A task with its version, if anybody has heard of it.
    pub async fn task(&self, task: &str) -> Result<Option<Task>, Unavailable> {
        self.line.see(TaskNow { task: Resource::task(task) }).await
    }

    /// All tasks, in order.
    pub async fn tasks(&self) -> Result<Vec<Task>, Unavailable> {
        self.line.see(Tasks {}).await
    }

    /// The project's audit log, filtered.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let project = Some(self.line.project().to_string());
        self.manager.audit(AuditFilter { project, ..filter }).await
    }

    /// Ends every hold of a resource, whoever has it, and tells who had. Their guards learn it.
    pub async fn force_unlock(
        &self,
        resource: impl Into<Resource>,
        admin: &str,
        reason: &str,
    ) -> Result<Vec<Holder>, AdminError> {
        let (admin, reason) = (admin.into(), reason.into());
        match self.do_it(ForceUnlock { resource: resource.into(), admin, reason }.into()).await? {
            Answer::ForceUnlocked { previous } => Ok(previous),
            other => Err(CallError::from(unexpected(&other)).into()),
        }
    }

    /// Releases everything every session of an agent holds, gives up all their waits, and tells how
    /// many locks that were. The sessions stay open.
    pub async fn release_all(&self, agent: &str) -> Result<usize, AdminError> {
        match self.do_it(ReleaseAll { agent: agent.into() }.into()).await? {
            Answer::AllReleased { released, .. } => Ok(released),
            other => Err(CallError::from(unexpected(&other)).into()),
        }
    }

    /// Says that a resource has so many slots, or (`None`) that it has none any more.
    pub async fn declare_capacity(
        &self,
        resource: impl Into<Resource>,
        capacity: Option<u32>,
    ) -> Result<(), AdminError> {
        self.do_it(DeclareCapacity { resource: resource.into(), capacity }.into()).await?;
        Ok(())
    }

    /// Ends every lease that is over, and tells how many locks that freed. They end by themselves
    /// anyway; this is for whoever wants to be sure, and to know.
    pub async fn cleanup_expired(&self) -> Result<usize, AdminError> {
        let before = self.stats().await.map_err(CallError::from)?.holds;
        self.do_it(Command::Tick).await?;
        let after = self.stats().await.map_err(CallError::from)?.holds;
        Ok(before.saturating_sub(after))
    }

    /// Forgets a task that nobody has claimed; claimed again, it begins at version 0.
    pub async fn forget_task(&self, task: &str) -> Result<(), AdminError> {
        self.do_it(lockkeeper_core::ForgetTask { task: Resource::task(task) }.into()).await?;
        Ok(())
    }

    pub(crate) async fn do_it(&self, command: Command) -> Result<Answer, CallError> {
        self.line.do_it(command).await
    }
}
