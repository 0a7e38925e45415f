//! What there is to be locked in a project, and how a project is set up.

use crate::{Policy, Rules};
use lockkeeper_core::{Limits, Resource, ResourceType};
use rand::{Rng, rngs::SmallRng};
use std::time::Duration;

/// The resources of a small world.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Locked exclusively, in order or not.
    pub(crate) files: Vec<Resource>,
    /// Read and written.
    pub(crate) documents: Vec<Resource>,
    /// Wanted by everybody.
    pub(crate) hot: Resource,
    /// Declared with a capacity.
    pub(crate) models: Vec<Resource>,
    /// Claimed.
    pub(crate) tasks: Vec<Resource>,
}

impl Places {
    pub(crate) fn new(rng: &mut SmallRng, agents: usize) -> Places {
        let few = |rng: &mut SmallRng, least: usize| least + rng.random_range(0..=agents / 3);
        let name = |at: usize| char::from(b'a' + (at % 26) as u8).to_string();
        let numbered = |at: usize| match at / 26 {
            0 => name(at),
            round => format!("{}{round}", name(at)),
        };
        let files = few(rng, 3);
        let documents = few(rng, 2);
        Places {
            files: (0..files).map(|at| Resource::file(&numbered(at))).collect(),
            documents: (0..documents).map(|at| Resource::database(&numbered(at))).collect(),
            hot: Resource::new(ResourceType::from("git"), "index"),
            models: ["small", "large"].map(Resource::llm).to_vec(),
            tasks: (0..4).map(|at| Resource::task(&numbered(at))).collect(),
        }
    }

    pub(crate) fn any(&self, rng: &mut SmallRng) -> Resource {
        match rng.random_range(0..10) {
            0..=3 => pick(rng, &self.files).clone(),
            4..=6 => pick(rng, &self.documents).clone(),
            7..=8 => pick(rng, &self.models).clone(),
            // Now and then somebody locks a task without claiming it.
            _ if rng.random_bool(0.2) => pick(rng, &self.tasks).clone(),
            _ => self.hot.clone(),
        }
    }
}

/// One of several. There must be one.
pub(crate) fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// How the table of a project is set up: every project another way.
pub(crate) fn rules(rng: &mut SmallRng) -> Rules {
    let small = rng.random_bool(0.3);
    let limits = Limits {
        key_bytes_max: 64,
        text_bytes_max: 64,
        queue_length_max: if small { 4 } else { 1_000 },
        holds_per_session_max: if small { 5 } else { 1_000 },
        waits_per_session_max: if small { 2 } else { 100 },
        sessions_max: 500,
        batch_max: if small { 3 } else { 8 },
        capacities_max: 3,
        tasks_max: if small { 3 } else { 1_000 },
        lease_max: Duration::from_secs(120),
        wait_max: Duration::from_secs(90),
        remembered_per_session: *pick(rng, &[2, 8, 64]),
        ..Limits::default()
    };
    Rules {
        lease_default: Duration::from_secs(30),
        wait_default: Duration::from_secs(20),
        grace: Duration::from_millis(*pick(rng, &[0, 0, 0, 40, 2_000])),
        ticket_grace: Duration::from_millis(*pick(rng, &[200, 5_000])),
        session_idle: Duration::from_millis(*pick(rng, &[500, 20_000])),
        policy: match rng.random_bool(0.5) {
            true => Policy::LeastWork,
            false => *pick(rng, &Policy::ALL),
        },
        shield_after: *pick(rng, &[1, 3]),
        limits,
    }
}
