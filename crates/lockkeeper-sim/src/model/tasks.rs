//! Tasks, written a second time: a list of them, and a claim is a hold that one of them names.

use super::{
    decide::{Due, refused, said},
    follow::Walk,
    invariant::{Checked, Invariant, broken, ensure},
    owed::{Expect, Freed, Fresh, NotClaimed},
    rules::{LAST, Scene},
    state::{Finished, Outcome, Verb},
};
use lockkeeper_core::{
    Answer, ClaimTasks, ClaimedTask, Command, FinishTask, ForgetTask, LockId, LockMode,
    ReleaseCause, ReopenTask, RequestId, Resource, ResourceType, SessionId, Task, TaskStatus,
};

impl Walk<'_> {
    pub(super) fn claim(&mut self, claim: &ClaimTasks) -> Due {
        let ClaimTasks { session, claims, options } = claim;
        if !self.model.sessions.contains_key(session) {
            return refused("session_ended");
        }
        if let Some(due) = self.claimed_before(claim) {
            return due;
        }
        let limits = self.model.rules.limits;
        if claims.is_empty() {
            return refused("empty_batch");
        }
        if claims.len() > limits.batch_max || self.too_long(options) {
            return refused("limit_reached");
        }
        if claims.iter().any(|claim| !self.is_task(&claim.task)) {
            return refused("invalid_resource");
        }
        if claims.iter().any(|claim| self.model.capacities.contains_key(&claim.task)) {
            return refused("wrong_mode");
        }
        let mut names: Vec<Resource> = claims.iter().map(|claim| claim.task.clone()).collect();
        names.sort();
        names.dedup();
        let new = names.iter().filter(|name| !self.model.tasks.contains_key(name)).count();
        let waits = self.model.session_waits(*session).filter(|wait| !wait.upgrade);
        let to_come: usize = waits.map(|wait| wait.wants.len()).sum();
        let held = self.model.session_holds(*session).count();
        let too_many = held + to_come + names.len() > limits.holds_per_session_max;
        if too_many || (new > 0 && self.model.tasks.len() + new > limits.tasks_max) {
            return refused("limit_reached");
        }
        let failed: Vec<(Task, NotClaimed)> = names
            .iter()
            .filter_map(|name| Some((self.model.task(name), self.not_claimed(claim, name)?)))
            .collect();
        if !failed.is_empty() {
            return Some(Expect::ClaimFailed(failed));
        }
        let wants = names.iter().map(|name| (name.clone(), LockMode::Exclusive)).collect();
        let wait = self.wait_for(*session, wants, options);
        self.owed.fresh.push_back(Fresh::Grant(wait));
        for name in names {
            self.owed.fresh.push_back(Fresh::Claim(*session, name));
        }
        None
    }

    fn is_task(&self, name: &Resource) -> bool {
        let max = self.model.rules.limits.key_bytes_max;
        name.problem(max).is_none() && name.resource_type() == ResourceType::Task
    }

    fn not_claimed(&self, claim: &ClaimTasks, name: &Resource) -> Option<NotClaimed> {
        let task = self.model.task(name);
        let mut seen = claim.claims.iter().filter(|claim| claim.task == *name);
        let other = seen.find_map(|claim| claim.expect_version.filter(|v| *v != task.version));
        let taken = self.model.holds_of(name).next().is_some();
        let scene = Scene::now(self.model);
        let passes = scene.obstacle(claim.session, name, LockMode::Exclusive, LAST).is_some();
        match (task.status, other) {
            (TaskStatus::Done, _) => Some(NotClaimed::Done),
            (_, Some(seen)) => Some(NotClaimed::Version(seen)),
            _ if taken || passes => {
                let waiting = self.model.queue_of(name).len();
                Some(NotClaimed::Held(self.model.holds_of(name).count(), waiting))
            }
            _ => None,
        }
    }

    /// What a repeated claim is told.
    fn claimed_before(&mut self, claim: &ClaimTasks) -> Option<Due> {
        let wanted = Some(claim.options.request_id?);
        if self.model.session_waits(claim.session).any(|wait| wait.request_id == wanted) {
            return Some(refused("request_id_reused"));
        }
        let finished = self.over(claim.session, wanted, Verb::Claim)?;
        if !matches!(finished.outcome, Outcome::Claimed(_)) {
            return Some(Some(self.told(&finished)));
        }
        Some(Some(match self.told(&finished) {
            Expect::Said(Answer::Granted(grants)) => {
                let names: Vec<&Resource> = grants.iter().map(|grant| &grant.resource).collect();
                self.tasks_claimed(claim, &names, &finished)
            }
            other => other,
        }))
    }

    /// The claims, in the order of the request; what it does not name any more comes last.
    fn tasks_claimed(
        &self,
        claim: &ClaimTasks,
        names: &[&Resource],
        finished: &Finished,
    ) -> Expect {
        let place = |name: &Resource| claim.claims.iter().position(|one| one.task == *name);
        let mut names: Vec<&Resource> = names.to_vec();
        names.sort_by_key(|name| (place(name).unwrap_or(usize::MAX), name.as_str().to_owned()));
        let grant = |name: &Resource| {
            let mut holds = self.model.holds_of(name);
            let hold = holds.find(|hold| hold.session == claim.session)?;
            let ticket = finished.ticket.unwrap_or(hold.ticket);
            Some(ClaimedTask { task: self.model.task(name), grant: hold.grant_to(ticket) })
        };
        let claimed = names.into_iter().filter_map(grant).collect();
        Expect::Said(Answer::TasksClaimed(claimed))
    }

    pub(super) fn finish(&mut self, finish: FinishTask) -> Due {
        let hold = match self.open_hold(finish.by, finish.lock, finish.request_id, Verb::Finish) {
            Ok(hold) => hold,
            Err(expect) => return Some(expect),
        };
        let Some(name) = self.model.task_claimed_with(hold.lock) else {
            return refused("unknown");
        };
        let task = self.model.task(&name);
        if finish.expect_version.is_some_and(|seen| seen != task.version) {
            return refused("version_mismatch");
        }
        let status = if finish.done { TaskStatus::Done } else { TaskStatus::Open };
        let moved = Task { version: task.version + 1, status, ..task };
        let (remaining, cause) = (0, ReleaseCause::Released);
        let freed = Freed { remaining, cause, share: None, request_id: None };
        self.owed.free.insert(hold.lock, freed);
        if let Some(request) = super::changes::remembered(finish.by, finish.request_id) {
            self.owed.fresh.push_back(Fresh::Remember(hold.session, request, moved.clone()));
        }
        said(Answer::TaskMoved(moved))
    }

    pub(super) fn reopen(&mut self, reopen: &ReopenTask) -> Due {
        if !self.is_task(&reopen.task) {
            return refused("invalid_resource");
        }
        if !self.model.tasks.contains_key(&reopen.task) {
            return refused("unknown");
        }
        let task = self.model.task(&reopen.task);
        if task.status != TaskStatus::Done {
            return refused("wrong_status");
        }
        if reopen.expect_version.is_some_and(|seen| seen != task.version) {
            return refused("version_mismatch");
        }
        let moved = Task { version: task.version + 1, status: TaskStatus::Open, ..task };
        self.owed.fresh.push_back(Fresh::Reopen(moved.clone()));
        said(Answer::TaskMoved(moved))
    }

    pub(super) fn forget(&mut self, forget: &ForgetTask) -> Due {
        if !self.is_task(&forget.task) {
            return refused("invalid_resource");
        }
        match self.model.tasks.get(&forget.task) {
            None => refused("unknown"),
            Some(task) if task.status == TaskStatus::Claimed => refused("wrong_status"),
            Some(_) => {
                self.owed.fresh.push_back(Fresh::Forget(forget.task.clone()));
                said(Answer::TaskForgotten)
            }
        }
    }

    /// A hold has ended: if it was a claim, the very next fact must say what becomes of the task.
    pub(super) fn claim_ended(&mut self, lock: LockId, cause: &ReleaseCause) {
        let Some(name) = self.model.task_claimed_with(lock) else { return };
        let is_done = match self.command {
            Command::FinishTask(finish) if self.obeying && finish.lock == lock => {
                finish.done && *cause == ReleaseCause::Released
            }
            _ => false,
        };
        let task = self.model.task(&name);
        let status = if is_done { TaskStatus::Done } else { TaskStatus::Open };
        self.moving = Some(Task { version: task.version + 1, status, ..task });
    }

    pub(super) fn task_moved(&mut self, task: &Task, lock: Option<LockId>) -> Checked {
        let due = match self.moving.take() {
            Some(moved) => Some((moved, None)),
            None => self.due_move(),
        };
        ensure(due.as_ref() == Some(&(task.clone(), lock)), Invariant::I20, || {
            format!("{} is {task:?} with {lock:?}, due is {due:?}", task.resource)
        })?;
        let booked = super::state::Booked { version: task.version, status: task.status, lock };
        self.model.tasks.insert(task.resource.clone(), booked);
        let Command::ClaimTasks(claim) = self.command else { return Ok(()) };
        let more = matches!(self.owed.fresh.front(), Some(Fresh::Claim(..)));
        if self.obeying && lock.is_some() && !more {
            let names: Vec<&Resource> = claim.claims.iter().map(|claim| &claim.task).collect();
            let mut once: Vec<&Resource> = names.clone();
            once.sort();
            once.dedup();
            let finished =
                Finished { request_id: None, ticket: None, outcome: Outcome::Refused("") };
            let told = self.tasks_claimed(claim, &once, &finished);
            self.replies.insert(self.call, told);
        }
        Ok(())
    }

    /// The move that the command itself must cause next.
    fn due_move(&mut self) -> Option<(Task, Option<LockId>)> {
        let fresh = self.owed.take(|fresh| match fresh {
            Fresh::Claim(..) | Fresh::Reopen(_) => Some(fresh.clone()),
            _ => None,
        });
        match fresh? {
            Fresh::Claim(session, name) => {
                let mut holds = self.model.holds_of(&name);
                let lock = holds.find(|hold| hold.session == session)?.lock;
                let task = self.model.task(&name);
                let (version, status) = (task.version + 1, TaskStatus::Claimed);
                Some((Task { version, status, ..task }, Some(lock)))
            }
            Fresh::Reopen(task) => Some((task, None)),
            _ => None,
        }
    }

    pub(super) fn task_forgotten(&mut self, task: &Resource) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Forget(name) => Some(name == task),
            _ => None,
        });
        ensure(due == Some(true), Invariant::I20, || format!("{task} is forgotten, not due"))?;
        self.model.tasks.remove(task);
        Ok(())
    }

    pub(super) fn remembered(
        &mut self,
        session: SessionId,
        request_id: Option<RequestId>,
        outcome: &lockkeeper_core::Outcome,
    ) -> Checked {
        let due = self.owed.take(|fresh| match fresh {
            Fresh::Remember(session, request, task) => Some((*session, *request, task.clone())),
            _ => None,
        });
        let Some((whose, request, task)) = due else {
            return broken(Invariant::I12, format!("{session} remembers {outcome:?}, not due"));
        };
        let same = whose == session
            && request_id == Some(request)
            && *outcome == lockkeeper_core::Outcome::TaskMoved(task.clone());
        ensure(same, Invariant::I12, || format!("{session} remembers {outcome:?}, not {task:?}"))?;
        self.model.remember(session, request_id, None, Outcome::Moved(task));
        Ok(())
    }
}
