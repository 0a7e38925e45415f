//! What a table is told once: its defaults, its limits, its policy, and whose reign this is.

use crate::{Epoch, LeastWork, VictimPolicy};
use std::{sync::Arc, time::Duration};

/// How a table behaves.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// How long a hold lives when the request does not say.
    pub lease_default: Duration,
    /// How long a request queues when it does not say.
    pub wait_default: Duration,
    /// How long a guard that is revoked may clean up before its hold ends.
    pub grace: Duration,
    /// How long a ticket keeps its place after its call was answered.
    pub ticket_grace: Duration,
    /// How long a detached session lives with neither hold nor ticket.
    pub session_idle: Duration,
    /// Who loses in a deadlock.
    pub victim_policy: Arc<dyn VictimPolicy>,
    /// After so many aborts of one piece of work it is shielded.
    pub shield_after: u32,
    /// What is bounded, and where.
    pub limits: Limits,
}

impl Default for TableConfig {
    fn default() -> TableConfig {
        TableConfig {
            lease_default: Duration::from_secs(300),
            wait_default: Duration::from_secs(300),
            grace: Duration::ZERO,
            ticket_grace: Duration::from_secs(120),
            session_idle: Duration::from_secs(600),
            victim_policy: Arc::new(LeastWork),
            shield_after: 3,
            limits: Limits::default(),
        }
    }
}

/// The bounds of a table. Past one of them there is a typed refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a resource's key.
    pub key_bytes_max: usize,
    /// Bytes of an agent's name, a reason, or metadata.
    pub text_bytes_max: usize,
    /// Waiters on one resource.
    pub queue_length_max: usize,
    /// Holds of one session.
    pub holds_per_session_max: usize,
    /// Waits of one session, tickets and declared waits together.
    pub waits_per_session_max: usize,
    /// Sessions open at once.
    pub sessions_max: usize,
    /// Members of one batch.
    pub batch_max: usize,
    /// Resources with a declared capacity.
    pub capacities_max: usize,
    /// Slots of one such resource.
    pub slots_max: u32,
    /// Tasks that are remembered.
    pub tasks_max: usize,
    /// The longest lease; a longer one is cut to it.
    pub lease_max: Duration,
    /// The longest wait; a longer one is cut to it.
    pub wait_max: Duration,
    /// Finished requests a session remembers, so that a retry changes nothing. An older one can be
    /// neither repeated nor taken back by its id, so let it be more than a session has under way at
    /// once.
    pub remembered_per_session: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key_bytes_max: 16 * 1024,
            text_bytes_max: 64 * 1024,
            queue_length_max: 100_000,
            holds_per_session_max: 100_000,
            waits_per_session_max: 1_000,
            sessions_max: 200_000,
            batch_max: 1_000,
            capacities_max: 10_000,
            slots_max: 65_536,
            tasks_max: 1_000_000,
            lease_max: Duration::from_secs(7 * 24 * 3600),
            wait_max: Duration::from_secs(7 * 24 * 3600),
            remembered_per_session: 64,
        }
    }
}

/// One take-over of a project: what its store hands to the table that starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reign {
    /// One more than at any take-over before, made durable before the table speaks.
    pub epoch: Epoch,
    /// Drawn at random for this reign; keeps lock ids of different projects and reigns apart.
    pub id_seed: u64,
    /// The number of the last event of the reigns before.
    pub last_event: u64,
}

impl Reign {
    /// The first reign of a project that has no history.
    pub fn first(id_seed: u64) -> Reign {
        Reign { epoch: Epoch::new(1), id_seed, last_event: 0 }
    }
}
