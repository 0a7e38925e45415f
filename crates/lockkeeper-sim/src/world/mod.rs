//! One project under disaster: a bench, its agents, and time.
//!
//! A world lives in *eras*. Each begins with an empty table that is set up another way, goes
//! through some thousand steps of disorder, and ends in peace: nobody begins anything new,
//! everybody finishes, and everything must come to rest within a bound. Short eras keep the
//! journal, and with it a crash and the shrinking of a failure, cheap.

mod agent;
mod ears;
mod garbage;
mod places;
mod role;

use crate::{Bench, Fences, Input, Invariant, Turn, Violation, broken, ensure, report::Tally};
use agent::{Agent, Around};
use lockkeeper_core::{
    CallId, Command, DeclareCapacity, EndCause, EndSession, Event, Fact, ForgetTask, News,
    SessionId, Task, Timestamp,
};
use places::{Places, pick, rules};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use role::Role;
use std::collections::BTreeMap;

/// Steps of an era.
const ERA: u64 = 6_000;

/// One project.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    era: u64,
    steps_left: u64,
    check: bool,
    rng: SmallRng,
    now: Timestamp,
    bench: Bench,
    fences: Fences,
    places: Places,
    agents: Vec<Agent>,
    /// Who made a call.
    callers: BTreeMap<CallId, usize>,
    /// Everything that was done in this era.
    pub(crate) inputs: Vec<Input>,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64, agents: usize, check: bool) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let places = Places::new(&mut rng, agents);
        let mut world = World {
            seed,
            era: 0,
            steps_left: 0,
            check,
            bench: Bench::new(rules(&mut rng), seed, check),
            rng,
            now: Timestamp(1_000),
            fences: Fences::default(),
            places,
            agents: Vec::new(),
            callers: BTreeMap::new(),
            inputs: Vec::new(),
            tally: Tally::default(),
        };
        world.begin(agents);
        world
    }

    /// The setup of this era: what a shrunk replay must start from.
    pub(crate) fn fresh_bench(&self) -> Bench {
        Bench::new(*self.bench.rules(), self.seed, true)
    }

    fn begin(&mut self, agents: usize) {
        self.steps_left = ERA;
        self.places = Places::new(&mut self.rng, agents);
        self.bench = Bench::new(rules(&mut self.rng), self.seed, self.check);
        self.fences = Fences::default();
        self.callers.clear();
        self.inputs.clear();
        self.agents = (0..agents)
            .map(|number| {
                let role = *pick(&mut self.rng, &Role::ALL);
                Agent::new(&format!("agent-{number}"), role, number + 1)
            })
            .collect();
    }

    /// One step: somebody does something, or time passes. Ends the era when it is over.
    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        if self.steps_left == 0 {
            self.end()?;
            self.era += 1;
            self.begin(self.agents.len());
        }
        self.steps_left -= 1;
        self.pass_time();
        match self.rng.random_range(0..3_000) {
            0..=2 => return self.crash(),
            3..=60 => {
                let command = garbage::rough_hand(&mut self.rng, &self.places, self.agents.len());
                return self.act(None, command);
            }
            61..=120 => {
                let sessions = self.sessions(None);
                let command = garbage::garbage(&mut self.rng, &self.places, &sessions);
                return self.act(None, command);
            }
            121..=330 => self.touch()?,
            _ => {}
        }
        for _ in 0..4 {
            let who = self.rng.random_range(0..self.agents.len());
            let sessions = self.sessions(Some(who));
            let around = Around { places: &self.places, sessions: &sessions };
            if let Some(command) = self.agents[who].next(&mut self.rng, &around) {
                return self.act(Some(who), command);
            }
        }
        // Everybody waits: perhaps something ends by itself.
        if let Some(deadline) = self.bench.table.next_deadline()
            && self.rng.random_bool(0.5)
        {
            self.now = self.now.max(deadline);
        }
        self.act(None, Command::Tick)
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.random_range(0..1_000) {
            0..=599 => 0,
            600..=929 => self.rng.random_range(1..20),
            930..=989 => self.rng.random_range(20..400),
            990..=997 => self.rng.random_range(400..5_000),
            // The clock jumps.
            _ => self.rng.random_range(5_000..100_000),
        };
        self.now.0 += ms;
        // A clock that goes back must not matter.
        if self.rng.random_bool(0.001) {
            self.now.0 = self.now.0.saturating_sub(50);
        }
    }

    fn sessions(&self, except: Option<usize>) -> Vec<SessionId> {
        let others = self.agents.iter().enumerate().filter(|(at, _)| Some(*at) != except);
        others.filter_map(|(_, agent)| agent.session).collect()
    }

    /// Somebody who believes to hold something uses it.
    fn touch(&mut self) -> Result<(), Violation> {
        let who = self.rng.random_range(0..self.agents.len());
        let agent = &self.agents[who];
        let known = match self.rng.random_bool(0.6) {
            true => &agent.holds,
            false => &agent.past,
        };
        if known.is_empty() {
            return Ok(());
        }
        let grant = pick(&mut self.rng, known);
        self.fences.touch(grant, &self.bench.inside)
    }

    /// Applies a command, and tells everybody what they are told.
    fn act(&mut self, who: Option<usize>, command: Command) -> Result<(), Violation> {
        self.inputs.push(Input::Command(self.now, command.clone()));
        let turn = self.bench.apply(self.now, &command)?;
        if let Some(who) = who {
            self.callers.insert(turn.call, who);
            self.agents[who].called(turn.call, &command);
        }
        for reply in &turn.replies {
            if let Some(caller) = self.callers.remove(&reply.call) {
                self.agents[caller].hear(reply.call, &reply.outcome);
            }
        }
        self.notice(&turn);
        self.tally.see(&turn, &self.bench);
        Ok(())
    }

    /// Some guards learn at once that they are lost; others go on as if nothing had happened.
    fn notice(&mut self, turn: &Turn) {
        for Event { news, .. } in &turn.events {
            match news {
                News::Expired(lost) | News::Revoked(lost) if self.rng.random_bool(0.5) => {
                    for agent in &mut self.agents {
                        agent.lose(lost.lock);
                    }
                }
                News::SessionEnded { session, .. } => {
                    for agent in &mut self.agents {
                        if agent.session == Some(*session) {
                            agent.forget_session();
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn crash(&mut self) -> Result<(), Violation> {
        let orphaned = self.rng.random_bool(0.4);
        self.inputs.push(Input::Crash(self.now, orphaned));
        let turn = self.bench.crash(self.now, orphaned)?;
        self.callers.clear();
        for agent in &mut self.agents {
            agent.coordinator_crashed();
        }
        self.notice(&turn);
        self.tally.see(&turn, &self.bench);
        self.tally.crashes += 1;
        Ok(())
    }

    /// Peace: nobody begins anything, everybody finishes, and all must come to rest.
    pub(crate) fn end(&mut self) -> Result<(), Violation> {
        let stats = self.bench.table.stats();
        let bound = 100 + 8 * (stats.holds + stats.tickets + stats.declared_waits);
        let (start, mut rounds) = (self.now, 0);
        while !self.is_at_rest() {
            rounds += 1;
            ensure(rounds <= bound, Invariant::I10, || {
                format!("after {bound} rounds of peace not at rest: {:?}", self.bench.table.stats())
            })?;
            let before = self.tally.deadlocks;
            self.wind_down()?;
            ensure(self.tally.deadlocks == before, Invariant::I10, || {
                "a deadlock although nobody asks for anything".to_owned()
            })?;
        }
        // No lease and no wait is longer than two minutes; those who wait for each other add up.
        let took = self.now.since(start);
        ensure(took <= 20 * 120_000, Invariant::I10, || format!("it took {took} ms to rest"))?;
        self.bench.check_empty(true)?;
        self.end_sessions()?;
        self.bench.check_empty(false)?;
        self.tally.fences(&self.fences);
        self.tally.inside(&self.bench.inside);
        self.tally.inside_each(&self.bench.inside);
        self.tally.cleared += self.bench.model.as_ref().map_or(0, |model| model.cleared());
        self.tally.eras += 1;
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let stats = self.bench.table.stats();
        stats.holds + stats.tickets + stats.declared_waits == 0
    }

    fn wind_down(&mut self) -> Result<(), Violation> {
        let mut idle = true;
        for who in 0..self.agents.len() {
            if let Some(command) = self.agents[who].wind_down() {
                idle = false;
                self.act(Some(who), command)?;
            }
        }
        if idle {
            match self.bench.table.next_deadline() {
                Some(deadline) => self.now = self.now.max(deadline),
                None => return self.withdraw_the_forgotten(),
            }
            self.act(None, Command::Tick)?;
        }
        Ok(())
    }

    /// Declared waits have no deadline: those that their sessions forgot end with them.
    fn withdraw_the_forgotten(&mut self) -> Result<(), Violation> {
        for view in self.bench.table.sessions() {
            if !view.declared.is_empty() {
                let end = EndSession { session: view.session, cause: EndCause::OwnerDied };
                self.act(None, end.into())?;
            }
        }
        if self.is_at_rest() {
            return Ok(());
        }
        broken(Invariant::I10, "something waits without a deadline")
    }

    fn end_sessions(&mut self) -> Result<(), Violation> {
        for view in self.bench.table.sessions() {
            let end = EndSession { session: view.session, cause: EndCause::Closed };
            self.act(None, end.into())?;
        }
        for resource in self.bench.table.resources() {
            self.act(None, DeclareCapacity { resource, capacity: None }.into())?;
        }
        for Task { resource: task, .. } in self.bench.table.tasks() {
            self.act(None, ForgetTask { task }.into())?;
        }
        Ok(())
    }
}

/// Whether a turn reports a deadlock.
pub(crate) fn deadlocks(turn: &Turn) -> impl Iterator<Item = &lockkeeper_core::DeadlockReport> {
    turn.records.iter().filter_map(|record| match &record.fact {
        Fact::DeadlockFound(report) => Some(&**report),
        _ => None,
    })
}
