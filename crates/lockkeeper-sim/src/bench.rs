//! One table on the bench: beside its model, with its journal, its calls and those who are inside.

use crate::{Checked, Invariant, Model, Rules, Turn, Violation, broken, ensure, inside::Inside};
use lockkeeper_core::{
    CallId, Command, Epoch, Fact, Forgetful, Holder, Ledger, LockTable, Record, Reign,
    ReleaseCause, Resume, Timestamp,
};
use std::collections::BTreeSet;

/// What is done to a table.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// A command at a moment.
    Command(Timestamp, Command),
    /// The coordinator dies, and comes back at this moment as the next reign; with it may have
    /// died all connections.
    Crash(Timestamp, bool),
}

/// One table and everything that watches it.
#[derive(Debug)]
pub struct Bench {
    rules: Rules,
    reign: Reign,
    /// The table under test.
    pub table: LockTable,
    ledger: Ledger<Forgetful>,
    /// Its naive twin, unless it is only driven.
    pub model: Option<Model>,
    /// Everything it recorded, over all reigns.
    pub journal: Vec<Record>,
    /// Who is inside.
    pub inside: Inside,
    /// The calls that have not been answered yet.
    pub open_calls: BTreeSet<CallId>,
    turns: u64,
}

impl Bench {
    /// A fresh table; `check` puts a model beside it.
    pub fn new(rules: Rules, id_seed: u64, check: bool) -> Bench {
        let reign = Reign::first(id_seed);
        Bench {
            rules,
            reign,
            table: LockTable::new(rules.table_config(), reign),
            ledger: Ledger::new(Forgetful),
            model: check.then(|| Model::new(rules, reign.epoch, reign.last_event)),
            journal: Vec::new(),
            inside: Inside::default(),
            open_calls: BTreeSet::new(),
            turns: 0,
        }
    }

    /// How the table is set up.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Applies one command, follows it with the model, and counts who is inside.
    pub fn apply(&mut self, now: Timestamp, command: &Command) -> Result<Turn, Violation> {
        let turn = Turn::of(self.table.apply(now, command.clone()), &mut self.ledger);
        self.journal.extend_from_slice(&turn.records);
        self.turns += 1;
        let calls = self.answer_calls(&turn);
        let inside = self.inside.see(&turn.records);
        if let Some(model) = &mut self.model {
            model.follow(now, command, &turn)?;
            match turn.records.is_empty() {
                true => model.compare_counts(&self.table)?,
                false => model.compare(&self.table)?,
            }
        }
        // The model names the cause; these only name the effect, so they speak last.
        calls?;
        inside?;
        Ok(turn)
    }

    /// Each call is answered exactly once.
    fn answer_calls(&mut self, turn: &Turn) -> Checked {
        ensure(self.open_calls.insert(turn.call), Invariant::I10, || {
            format!("{:?} is given out twice", turn.call)
        })?;
        for reply in &turn.replies {
            ensure(self.open_calls.remove(&reply.call), Invariant::I10, || {
                format!("{:?} is answered, but nobody waits for that", reply.call)
            })?;
        }
        Ok(())
    }

    /// The coordinator crashes: what it wrote must give the same table again, and the next reign
    /// resumes from there.
    pub fn crash(&mut self, now: Timestamp, orphaned: bool) -> Result<Turn, Violation> {
        let again = self.replayed(self.reign);
        self.compare_replayed(&again)?;
        self.reign = Reign {
            epoch: Epoch::new(self.reign.epoch.get() + 1),
            id_seed: self.reign.id_seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1),
            last_event: self.table.last_event(),
        };
        let before = self.table.list();
        self.table = self.replayed(self.reign);
        self.ledger = Ledger::new(Forgetful);
        self.open_calls.clear();
        let same = before == self.table.list();
        ensure(same, Invariant::I15, || "a hold did not survive the crash as it was".to_owned())?;
        if let Some(model) = &mut self.model {
            model.recover(self.reign.epoch);
            model.compare(&self.table)?;
        }
        let turn = self.apply(now, &Resume { orphaned }.into())?;
        self.check_leases(&before, &turn)?;
        Ok(turn)
    }

    /// I17: no lease is shorter than it was, and none ends in the turn in which it resumes, save
    /// with its session or by a revocation.
    fn check_leases(&self, before: &[Holder], turn: &Turn) -> Checked {
        for old in before {
            let shorter =
                self.table.grant(old.lock).is_some_and(|new| new.expires_at < old.expires_at);
            let expired = turn.records.iter().any(|record| {
                matches!(&record.fact, Fact::Released { lock, cause: ReleaseCause::Expired, .. }
                    if *lock == old.lock)
            });
            ensure(!shorter && !expired, Invariant::I17, || {
                format!("the lease of {} on {} got shorter", old.lock, old.resource)
            })?;
        }
        Ok(())
    }

    fn replayed(&self, reign: Reign) -> LockTable {
        let mut table = LockTable::new(self.rules.table_config(), reign);
        for record in &self.journal {
            table.replay(record);
        }
        table
    }

    /// I15: the records replay to exactly the table.
    fn compare_replayed(&self, again: &LockTable) -> Checked {
        let same = |what: &str, same: bool| {
            ensure(same, Invariant::I15, || format!("the replayed table has other {what}"))
        };
        same("sessions", again.sessions() == self.table.sessions())?;
        same("holds", again.list() == self.table.list())?;
        same("tasks", again.tasks() == self.table.tasks())?;
        same("resources", again.resources() == self.table.resources())?;
        for resource in self.table.resources() {
            same("queues", again.inspect(&resource) == self.table.inspect(&resource))?;
        }
        for holder in self.table.list() {
            same("tokens", again.grant(holder.lock) == self.table.grant(holder.lock))?;
        }
        same("waits", again.wait_graph() == self.table.wait_graph())?;
        let (mut got, mut due) = (again.stats(), self.table.stats());
        // A call's slice is routing and no fact: nobody but the model knows whether one is pending.
        match self.model.as_ref().is_some_and(|model| !model.has_slices()) {
            true => same("deadlines", again.next_deadline() == self.table.next_deadline())?,
            false => (got.deadlines, due.deadlines) = (0, 0),
        }
        ensure(got == due, Invariant::I15, || format!("replayed {got:?}, was {due:?}"))
    }

    /// At rest nothing is left over: no hold, no wait, no edge; with the sessions and capacities
    /// gone nothing at all.
    pub fn check_empty(&self, with_sessions: bool) -> Checked {
        let mut stats = self.table.stats();
        if with_sessions {
            let idle = self.table.sessions();
            let detached = |kind| kind == lockkeeper_core::SessionKind::Detached;
            stats.deadlines -= idle.iter().filter(|one| detached(one.kind)).count();
            stats.resources -= stats.capacities;
            (stats.sessions, stats.capacities, stats.remembered) = (0, 0, 0);
            stats.tasks = 0;
        }
        ensure(stats == Default::default(), Invariant::I18, || format!("left over: {stats:?}"))?;
        match self.open_calls.first() {
            Some(call) => broken(Invariant::I10, format!("{call:?} was never answered")),
            None => Ok(()),
        }
    }
}
