//! Tasks that agents claim: all or none of a request, now or never.
//!
//! A claim is an exclusive hold of the task's resource that [`ClaimTasks`] began, and nothing else
//! is one: an ordinary lock of a task merely stands in the way. As long as the hold lives the task
//! is claimed, whatever becomes of the hold's mode or count; when it ends, however it ends, the
//! task moves on in the same turn, see [`LockTable::finish_hold`].

use super::{
    LockTable,
    acquire::{Wanted, Wants},
    memory::Verb,
    queue::Place,
    rescan::Terms,
    state::State,
};
use crate::{
    Answer, ClaimTasks, ClaimedTask, Credential, Fact, FailedClaim, FinishTask, ForgetTask, Grant,
    Limit, LockId, LockMode, Outcome, Refusal, ReleaseCause, ReopenTask, Resource, ResourceProblem,
    Subject, Task, TaskClaim, TaskStatus, TicketId, WhyNotClaimed,
    places::{EntryAt, HoldAt, SessionAt},
};
use std::collections::BTreeMap;

/// What the table knows of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Booked {
    version: u64,
    status: TaskStatus,
    /// The hold that is its claim.
    claim: Option<LockId>,
}

/// What each task of a request is expected to be at, the tasks in order.
type Expected<'c> = BTreeMap<&'c Resource, Vec<u64>>;

impl State {
    pub(super) fn task(&self, resource: &Resource) -> Option<Task> {
        let (resource, &Booked { version, status, .. }) = self.tasks.get_key_value(resource)?;
        Some(Task { resource: resource.clone(), version, status })
    }

    /// A task nobody has heard of is open.
    fn task_or_new(&self, resource: &Resource) -> Task {
        let new = || Task { resource: resource.clone(), version: 0, status: TaskStatus::Open };
        self.task(resource).unwrap_or_else(new)
    }

    /// The task that a hold is the claim of.
    pub(super) fn claimed_with(&self, at: HoldAt) -> Option<Task> {
        let hold = &self.holds[at];
        if !hold.is_claim {
            return None;
        }
        let resource = &self.entries[hold.entry].resource;
        self.is_claim(resource, hold.id).then(|| self.task_or_new(resource))
    }

    pub(super) fn is_claim(&self, resource: &Resource, lock: LockId) -> bool {
        self.tasks.get(resource).is_some_and(|task| task.claim == Some(lock))
    }

    /// A journal tells the hold first, live rows tell the task first.
    #[inline(never)]
    pub(super) fn move_task(&mut self, task: &Task, lock: Option<LockId>) {
        let booked = Booked { version: task.version, status: task.status, claim: lock };
        self.tasks.insert(task.resource.clone(), booked);
        let hold = lock.and_then(|lock| self.hold(lock));
        if let Some(hold) = hold
            && self.entries[self.holds[hold].entry].resource == task.resource
        {
            self.holds[hold].is_claim = true;
        }
    }

    pub(super) fn forget_task(&mut self, task: &Resource) {
        if self.tasks.get(task).is_some_and(|task| task.status != TaskStatus::Claimed) {
            self.tasks.remove(task);
        }
    }
}

impl LockTable {
    #[inline(never)]
    pub(super) fn claim_tasks(&mut self, claim: ClaimTasks) -> Result<Answer, Refusal> {
        let session = self.session(claim.session)?;
        if let Some(answer) = self.claimed_before(session, &claim) {
            return answer;
        }
        let expected = self.expected(&claim)?;
        let ticket = self.next_ticket()?;
        let wants = self.check_claims(session, ticket, &expected)?;
        let options = claim.options;
        let terms = Terms {
            ticket,
            session,
            lease_ms: self.lease_ms(options.lease),
            wait_ms: 0,
            reason: options.reason,
            metadata: options.metadata,
            request_id: options.request_id,
            fleeting: false,
        };
        let grants = self.record_grants(&terms, wants, &[])?;
        for grant in &grants {
            let task = self.state.task_or_new(&grant.resource);
            self.record_move(task, TaskStatus::Claimed, Some(grant.lock));
        }
        Ok(self.tasks_claimed(&claim.claims, grants))
    }

    /// What a repeated claim is told.
    fn claimed_before(
        &self,
        session: SessionAt,
        claim: &ClaimTasks,
    ) -> Option<Result<Answer, Refusal>> {
        let request = claim.options.request_id?;
        if self.state.waiting_with(session, request).is_some() {
            return Some(Err(Refusal::RequestIdReused { request }));
        }
        let told = self.answered(session, Verb::Claim, request)?;
        Some(told.map(|answer| match answer {
            Answer::Granted(grants) => self.tasks_claimed(&claim.claims, grants),
            other => other,
        }))
    }

    /// The tasks of a request that is well formed, each once, and at which versions the claimer has
    /// seen them.
    fn expected<'c>(&self, claim: &'c ClaimTasks) -> Result<Expected<'c>, Refusal> {
        if claim.claims.is_empty() {
            return Err(Refusal::EmptyBatch);
        }
        self.within(Limit::Batch, claim.claims.len(), self.config.limits.batch_max)?;
        self.check_texts(&claim.options)?;
        let mut expected = Expected::new();
        for TaskClaim { task, expect_version } in &claim.claims {
            self.known_task(task)?;
            expected.entry(task).or_default().extend(expect_version);
        }
        Ok(expected)
    }

    /// The entry of a task's resource, as for any other resource.
    fn known_task(&self, task: &Resource) -> Result<Option<EntryAt>, Refusal> {
        let entry = self.known(task)?;
        if !task.is_task() {
            let resource = task.as_str().chars().take(256).collect();
            return Err(Refusal::InvalidResource { resource, problem: ResourceProblem::NotATask });
        }
        Ok(entry)
    }

    /// What a request that stays within its bounds asks for, if nothing stands in its way.
    fn check_claims(
        &self,
        session: SessionAt,
        ticket: TicketId,
        expected: &Expected<'_>,
    ) -> Result<Wants, Refusal> {
        let mut wants = Wants::with_capacity(expected.len());
        for &task in expected.keys() {
            let entry = self.known_task(task)?;
            self.check_mode(entry, task, LockMode::Exclusive)?;
            wants.push(Wanted { resource: task.clone(), mode: LockMode::Exclusive, entry });
        }
        let limits = &self.config.limits;
        let holds = self.state.holds_to_come(session) + wants.len();
        self.within(Limit::HoldsPerSession, holds, limits.holds_per_session_max)?;
        let new = expected.keys().filter(|&&task| !self.state.tasks.contains_key(task)).count();
        if new > 0 {
            self.within(Limit::Tasks, self.state.tasks.len() + new, limits.tasks_max)?;
        }
        let place = Place { holds_nothing: true, ticket };
        let failed: Vec<FailedClaim> = wants
            .iter()
            .filter_map(|want| {
                let task = self.state.task_or_new(&want.resource);
                let seen = expected.get(&want.resource).map_or(&[][..], Vec::as_slice);
                let why = self.why_not(session, place, want.entry, &task, seen)?;
                Some(FailedClaim { task, why })
            })
            .collect();
        match failed.is_empty() {
            true => Ok(wants),
            false => Err(Refusal::ClaimFailed { failed }),
        }
    }

    fn why_not(
        &self,
        session: SessionAt,
        place: Place,
        entry: Option<EntryAt>,
        task: &Task,
        seen: &[u64],
    ) -> Option<WhyNotClaimed> {
        if task.status == TaskStatus::Done {
            return Some(WhyNotClaimed::Done);
        }
        if let Some(&expected) = seen.iter().find(|&&version| version != task.version) {
            return Some(WhyNotClaimed::VersionMismatch { expected });
        }
        let entry = entry?;
        let mode = LockMode::Exclusive;
        // Its own hold is in the way as well: what it has it need not claim.
        let is_free = self.state.own_hold(session, entry).is_none()
            && self.state.admits(entry, session, place, mode);
        let obstacle = || Box::new(self.state.obstacle(entry, None, mode));
        (!is_free).then(|| WhyNotClaimed::Held(obstacle()))
    }

    /// The claims in the order of the request.
    fn tasks_claimed(&self, claims: &[TaskClaim], grants: Vec<Grant>) -> Answer {
        let mut rest: BTreeMap<Resource, Grant> =
            grants.into_iter().map(|grant| (grant.resource.clone(), grant)).collect();
        let mut grants: Vec<Grant> =
            claims.iter().filter_map(|claim| rest.remove(&claim.task)).collect();
        grants.extend(rest.into_values());
        let claimed =
            |grant: Grant| ClaimedTask { task: self.state.task_or_new(&grant.resource), grant };
        Answer::TasksClaimed(grants.into_iter().map(claimed).collect())
    }

    #[inline(never)]
    pub(super) fn finish_task(&mut self, finish: FinishTask) -> Result<Answer, Refusal> {
        if let Credential::Session(session) = finish.by
            && let Some(answer) = self.repeated(session, Verb::Finish, finish.request_id)?
        {
            return answer;
        }
        let at = self.authorize(finish.by, finish.lock)?;
        let hold = &self.state.holds[at];
        let session = self.state.sessions[hold.session].id;
        let Some(task) = self.state.claimed_with(at) else {
            let resource = self.state.entries[hold.entry].resource.clone();
            return Err(Refusal::Unknown(Subject::Task(resource)));
        };
        check_version(&task, finish.expect_version)?;
        let becomes = if finish.done { TaskStatus::Done } else { TaskStatus::Open };
        let freed = self.finish_hold(at, ReleaseCause::Released, None, None, becomes);
        let task = self.state.task_or_new(&task.resource);
        let request_id = finish.by.remembers(finish.request_id);
        if request_id.is_some() {
            let outcome = Outcome::TaskMoved(task.clone());
            self.record(Fact::Remembered { session, request_id, ticket: None, outcome });
        }
        self.rescan(freed);
        Ok(Answer::TaskMoved(task))
    }

    #[inline(never)]
    pub(super) fn reopen_task(&mut self, reopen: &ReopenTask) -> Result<Answer, Refusal> {
        let task = self.booked_task(&reopen.task)?;
        if task.status != TaskStatus::Done {
            return Err(Refusal::WrongStatus { task });
        }
        check_version(&task, reopen.expect_version)?;
        self.record_move(task, TaskStatus::Open, None);
        Ok(Answer::TaskMoved(self.state.task_or_new(&reopen.task)))
    }

    #[inline(never)]
    pub(super) fn forget_task(&mut self, forget: &ForgetTask) -> Result<Answer, Refusal> {
        let task = self.booked_task(&forget.task)?;
        if task.status == TaskStatus::Claimed {
            return Err(Refusal::WrongStatus { task });
        }
        self.record(Fact::TaskForgotten { task: task.resource });
        Ok(Answer::TaskForgotten)
    }

    fn booked_task(&self, task: &Resource) -> Result<Task, Refusal> {
        self.known_task(task)?;
        let unknown = || Refusal::Unknown(Subject::Task(task.clone()));
        self.state.task(task).ok_or_else(unknown)
    }

    /// Ends a hold that is the claim of a task, and moves the task on.
    #[inline(never)]
    pub(super) fn end_claim(&mut self, hold: HoldAt, released: Fact, becomes: TaskStatus) {
        let task = self.state.claimed_with(hold);
        self.record(released);
        if let Some(task) = task {
            self.record_move(task, becomes, None);
        }
    }

    /// The one way in which a task changes: each time by one version.
    fn record_move(&mut self, task: Task, status: TaskStatus, lock: Option<LockId>) {
        let version = task.version.saturating_add(1);
        self.record(Fact::TaskMoved { task: Task { version, status, ..task }, lock });
    }
}

fn check_version(task: &Task, seen: Option<u64>) -> Result<(), Refusal> {
    match seen {
        Some(expected) if expected != task.version => {
            Err(Refusal::VersionMismatch { task: task.clone(), expected })
        }
        _ => Ok(()),
    }
}
