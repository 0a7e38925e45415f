//! The model beside the table's own views.

use super::{
    graph::Reach,
    invariant::{Checked, Invariant, ensure},
    rules::millis,
    state::{Model, Wait},
};
use lockkeeper_core::{
    Holder, LockTable, Resource, SessionId, SessionKind, SessionView, Task, Timestamp, Waiter,
};
use std::collections::BTreeSet;

impl Model {
    /// Compares everything the table shows of itself with the model.
    pub fn compare(&self, table: &LockTable) -> Checked {
        self.compare_counts(table)?;
        self.compare_holds(table)?;
        self.compare_tasks(table)?;
        self.compare_queues(table)?;
        self.compare_sessions(table)?;
        self.compare_graph(table)
    }

    /// The cheap part: sizes and the next deadline.
    pub fn compare_counts(&self, table: &LockTable) -> Checked {
        let stats = table.stats();
        let declared: usize = self.sessions.values().map(|one| one.declared.len()).sum();
        let remembered: usize = self.sessions.values().map(|one| one.memory.len()).sum();
        let due = (self.sessions.len(), self.capacities.len(), self.holds.len(), self.waits.len());
        let got = (stats.sessions, stats.capacities, stats.holds, stats.tickets);
        ensure(due == got, Invariant::I15, || {
            format!("sessions, capacities, holds, tickets: due {due:?}, got {got:?}")
        })?;
        let due = (declared, remembered, self.deadline_count(), self.tasks.len());
        let got = (stats.declared_waits, stats.remembered, stats.deadlines, stats.tasks);
        ensure(due == got, Invariant::I18, || {
            format!("declared waits, remembered, deadlines, tasks: due {due:?}, got {got:?}")
        })?;
        let (due, got) = (self.next_deadline(), table.next_deadline());
        ensure(due == got, Invariant::I14, || {
            format!("the next deadline is {due:?}, the table says {got:?}")
        })
    }

    fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        let idle_ms = millis(self.rules.session_idle);
        let of_wait = |wait: &Wait| [Some(wait.wait_until), wait.poll_by, wait.slice_until];
        let waits = self.waits.values().flat_map(of_wait).flatten();
        let idle = self.sessions.values().filter_map(move |one| {
            let since = one.idle_since?;
            (one.kind == SessionKind::Detached).then(|| Timestamp(since.0.saturating_add(idle_ms)))
        });
        self.holds.values().map(|hold| hold.ends_at()).chain(waits).chain(idle)
    }

    fn deadline_count(&self) -> usize {
        self.deadlines().count()
    }

    /// When something will next happen by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines().min()
    }

    fn compare_holds(&self, table: &LockTable) -> Checked {
        let mut due: Vec<Holder> = self.holds.values().map(|hold| self.holder(hold)).collect();
        due.sort_by(|a, b| (&a.resource, a.lock).cmp(&(&b.resource, b.lock)));
        let got = table.list();
        ensure(due == got, Invariant::I15, || format!("holds: due {due:#?}, got {got:#?}"))?;
        for hold in self.holds.values() {
            let (due, got) = (Some(hold.grant()), table.grant(hold.lock));
            ensure(due == got, Invariant::I15, || format!("grant: due {due:?}, got {got:?}"))?;
        }
        Ok(())
    }

    fn compare_tasks(&self, table: &LockTable) -> Checked {
        let due: Vec<Task> = self.tasks.keys().map(|name| self.task(name)).collect();
        let got = table.tasks();
        ensure(due == got, Invariant::I15, || format!("tasks: due {due:?}, got {got:?}"))
    }

    fn known(&self) -> BTreeSet<&Resource> {
        let held = self.holds.values().map(|hold| &hold.resource);
        let wanted = self.waits.values().flat_map(|wait| wait.wants.iter().map(|(what, _)| what));
        held.chain(wanted).chain(self.capacities.keys()).collect()
    }

    fn compare_queues(&self, table: &LockTable) -> Checked {
        let known = self.known();
        let got = table.stats().resources;
        ensure(known.len() == got, Invariant::I18, || {
            format!("{} resources are known, the table says {got}", known.len())
        })?;
        for resource in known {
            let queue = self.queue_of(resource);
            let capacity = self.capacities.get(resource).copied();
            if queue.is_empty() && capacity.is_none() {
                continue;
            }
            let Some(got) = table.inspect(resource) else {
                return super::invariant::broken(
                    Invariant::I15,
                    format!("the table does not know {resource}"),
                );
            };
            let due: Vec<Waiter> =
                queue.into_iter().filter_map(|wait| self.waiter(wait, resource)).collect();
            ensure(due == got.queue, Invariant::I15, || {
                format!("queue of {resource}: due {due:#?}, got {:#?}", got.queue)
            })?;
            ensure(capacity == got.capacity, Invariant::I15, || {
                format!("capacity of {resource}: due {capacity:?}, got {:?}", got.capacity)
            })?;
        }
        Ok(())
    }

    fn waiter(&self, wait: &Wait, resource: &Resource) -> Option<Waiter> {
        Some(Waiter {
            ticket: wait.ticket,
            session: wait.session,
            agent: self.agent(wait.session),
            mode: wait.mode_for(resource)?,
            upgrade: wait.upgrade,
            batch: wait.wants.len(),
            queued_at: wait.queued_at,
            wait_until: wait.wait_until,
            poll_by: wait.poll_by,
            reason: wait.reason.clone(),
        })
    }

    fn compare_sessions(&self, table: &LockTable) -> Checked {
        let due: Vec<SessionView> = self
            .sessions
            .iter()
            .map(|(id, session)| SessionView {
                session: *id,
                agent: session.agent.clone(),
                kind: session.kind,
                priority: session.priority,
                birth: session.birth,
                aborts: session.aborts,
                holds: self.session_holds(*id).count(),
                tickets: self.session_waits(*id).map(|wait| wait.ticket).collect(),
                declared: session.declared.clone(),
            })
            .collect();
        let got = table.sessions();
        ensure(due == got, Invariant::I15, || {
            let differs = due.iter().zip(&got).find(|(due, got)| due != got);
            format!("sessions differ: {differs:#?}")
        })
    }

    /// The table's graph is compressed: who reaches whom must be the same.
    fn compare_graph(&self, table: &LockTable) -> Checked {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        let edges = self.edges();
        let shown = table.wait_graph();
        let (due, _) = Reach::of(&ids, edges.iter().map(|edge| (edge.from, edge.to)));
        let (got, strangers) = Reach::of(&ids, shown.edges.iter().map(|edge| (edge.from, edge.to)));
        ensure(due == got && strangers == 0, Invariant::I6, || {
            let missing = self.pairs(&ids, |a, b| due.has(a, b) && !got.has(a, b));
            let invented = self.pairs(&ids, |a, b| got.has(a, b) && !due.has(a, b));
            format!(
                "the graph differs: waits that the table does not see {missing:?}, that it \
                 invents {invented:?}, {strangers} strangers"
            )
        })
    }

    fn pairs(&self, ids: &[SessionId], differs: impl Fn(usize, usize) -> bool) -> Vec<String> {
        let all = (0..ids.len()).flat_map(|a| (0..ids.len()).map(move |b| (a, b)));
        let name = |at: usize| format!("{}#{}", self.agent(ids[at]), ids[at].get() & 0xffff_ffff);
        all.filter(|&(a, b)| differs(a, b))
            .map(|(a, b)| format!("{} -> {}", name(a), name(b)))
            .collect()
    }
}
