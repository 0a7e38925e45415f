//! A whole run: some projects, so many steps, one verdict.

use crate::{
    Invariant, Violation,
    report::Report,
    shrink::{Shrunk, shrink},
    world::World,
};
use std::fmt;

/// How often progress is told.
const TELL_EVERY: u64 = 4_096;
/// How many steps one project takes before it is another one's turn.
const TURN: u64 = 256;

/// What to simulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimConfig {
    /// Where everything random comes from.
    pub seed: u64,
    /// How many steps, all projects together.
    pub steps: u64,
    /// How many projects, each with a table of its own.
    pub projects: usize,
    /// How many agents in each project.
    pub agents: usize,
    /// Whether each step is checked against the model; without, the table is only driven.
    pub check: bool,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig { seed: 1, steps: 100_000, projects: 4, agents: 12, check: true }
    }
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Steps so far.
    pub steps: u64,
    /// Steps in all.
    pub steps_total: u64,
    /// Locks granted so far.
    pub grants: u64,
    /// Requests that queued so far.
    pub waits: u64,
    /// Deadlocks broken so far.
    pub deadlocks: u64,
    /// The most who were inside a resource together with somebody exclusive.
    pub max_inside: u64,
}

/// A broken promise, and how to see it again.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// What was simulated.
    pub config: SimConfig,
    /// The project in which it happened, counted from 0.
    pub project: usize,
    /// The step of the run.
    pub step: u64,
    /// The promise.
    pub invariant: Invariant,
    /// What was seen, and what was due.
    pub message: String,
    /// The shortest history found that breaks it, a line a command.
    pub transcript: String,
    /// How many commands that history has, and how many the project had seen.
    pub commands: (usize, usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SimConfig { seed, steps, projects, agents, .. } = self.config;
        writeln!(f, "broken: {}", self.invariant)?;
        writeln!(f, "  {}", self.message)?;
        writeln!(f, "  in project {} at step {}", self.project, self.step)?;
        writeln!(f, "shrunk to {} of {} commands:", self.commands.0, self.commands.1)?;
        writeln!(f, "{}", self.transcript)?;
        write!(
            f,
            "again: lockkeeper simulate --seed {seed} --steps {steps} --projects {projects} \
             --agents {agents}"
        )
    }
}

impl std::error::Error for Failure {}

/// Drives all projects through their steps, each in turn, and lets each come to rest at the end.
pub fn simulate(
    config: &SimConfig,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Box<Failure>> {
    let projects = config.projects.max(1);
    let seed_of = |project: usize| {
        config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(project as u64)
    };
    let mut worlds: Vec<World> = (0..projects)
        .map(|project| World::new(seed_of(project), config.agents.max(1), config.check))
        .collect();
    let (mut done, mut told) = (0, 0);
    while done < config.steps {
        for (project, world) in worlds.iter_mut().enumerate() {
            for _ in 0..TURN.min(config.steps - done) {
                world.step().map_err(|broken| failure(config, (project, done), world, broken))?;
                done += 1;
            }
        }
        if done - told >= TELL_EVERY {
            told = done;
            progress(&progress_of(config, done, &worlds));
        }
    }
    for (project, world) in worlds.iter_mut().enumerate() {
        world.end().map_err(|broken| failure(config, (project, done), world, broken))?;
    }
    progress(&progress_of(config, done, &worlds));
    let mut report = Report {
        seed: config.seed,
        steps: done,
        projects,
        agents: config.agents.max(1),
        checked: config.check,
        ..Report::default()
    };
    for world in &worlds {
        report.add(&world.tally);
    }
    Ok(report)
}

fn progress_of(config: &SimConfig, steps: u64, worlds: &[World]) -> Progress {
    let sum = |count: fn(&crate::report::Tally) -> u64| {
        worlds.iter().map(|world| count(&world.tally)).sum()
    };
    Progress {
        steps,
        steps_total: config.steps,
        grants: sum(|tally| tally.grants),
        waits: sum(|tally| tally.waits),
        deadlocks: sum(|tally| tally.deadlocks),
        max_inside: worlds.iter().map(|world| world.tally.exclusive_max).max().unwrap_or(0),
    }
}

fn failure(
    config: &SimConfig,
    (project, step): (usize, u64),
    world: &World,
    broken: Violation,
) -> Box<Failure> {
    let Shrunk { transcript, kept, message } =
        shrink(&world.inputs, broken.invariant, || world.fresh_bench());
    Box::new(Failure {
        config: *config,
        project,
        step,
        invariant: broken.invariant,
        message: message.unwrap_or(broken.message),
        transcript,
        commands: (kept, world.inputs.len()),
    })
}
