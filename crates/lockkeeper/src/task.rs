//! Task claims: exclusive holds of tasks whose version moves with every transition.

use crate::{
    error::{CallError, RenewError, TaskError},
    guard::{LockGuard, unexpected},
};
use lockkeeper_core::{Answer, Credential, FinishTask, Task, Timestamp};
use std::time::Duration;

/// A task that is claimed. Dropping it gives the task back, open.
#[must_use = "a claim that is dropped gives its task back at once"]
#[derive(Debug)]
pub struct TaskGuard {
    task: Task,
    guard: LockGuard,
}

impl TaskGuard {
    pub(crate) fn new(task: Task, guard: LockGuard) -> TaskGuard {
        TaskGuard { task, guard }
    }

    /// The task as it was claimed, with its new version.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Its name, without the `task:`.
    pub fn name(&self) -> &str {
        self.task.resource.key()
    }

    /// The claim's guard: its token, its deadline, whether it was lost.
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }

    /// Sets a new end to the lease, counted from now.
    pub async fn renew(&self, lease: Duration) -> Result<Timestamp, RenewError> {
        self.guard.renew(lease).await
    }

    /// The task is done: nobody can claim it any more, unless it is reopened.
    pub async fn complete(self) -> Result<Task, TaskError> {
        self.finish(true).await
    }

    /// Gives the task back, open.
    pub async fn release(self) -> Result<Task, TaskError> {
        self.finish(false).await
    }

    async fn finish(mut self, done: bool) -> Result<Task, TaskError> {
        let owner = self.guard.owner().clone();
        let finish = FinishTask {
            by: Credential::Session(owner.session()),
            lock: self.guard.id(),
            done,
            expect_version: Some(self.task.version),
            request_id: Some(owner.next_request()),
        };
        match owner.ask(finish.into()).await {
            Ok(Answer::TaskMoved(task)) => {
                self.guard.disarm();
                Ok(task)
            }
            Ok(other) => Err(CallError::from(unexpected(&other)).into()),
            // The guard is still armed: it gives the task back, open, as soon as that can be done.
            Err(error) => Err(error.into()),
        }
    }
}
