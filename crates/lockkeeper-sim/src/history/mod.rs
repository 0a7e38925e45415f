//! Histories: what real clients saw, and whether a lock service may have been behind it.
//!
//! Each client writes down a [`Note`] when it asks for something and another one when it is told,
//! with the time of a clock that all of them share. A client that is killed, paused or cut off
//! leaves calls without an answer; whoever kills it, or cuts its connection, writes that down, too.
//! From all notes together [`check`] decides I1 to I5, and [`check_models`] whether five published
//! models of locks allow what was seen.
//!
//! | file | what it knows |
//! |---|---|
//! | `note.rs` | what is written down |
//! | `read.rs` | which answer belongs to which call, and from when to when a hold is *definite* |
//! | `order.rs` | I1, I2, I3, I5: sorted by token and swept, in n log n |
//! | `fenced.rs` | I3, I4: what the protected resources let in |
//! | `models.rs` | the five models, as what may happen one after the other |
//! | `search.rs` | whether calls that overlap can be put in an order that a model allows |
//! | `fast.rs` | the same in n log n, where tokens give the order |
//!
//! A hold is *definite* from when its client heard of it until the client asked for its release, or
//! until the end of its lease by the client's own clock, or until something happened that may have
//! ended it: the client was told so, its connection was cut, it was killed. What a client was told
//! later can prove more: a release that was acknowledged, or a renewal, had a hold to act on.
//!
//! Nothing here trusts the service that is judged: conflicts are spelled out anew, and what is not
//! known counts in its favour only.

mod fast;
mod fenced;
mod models;
mod note;
mod order;
mod read;
mod search;

pub use fast::decide;
pub use models::{Kind, LockModel, ModelOp, State, ops_of};
pub use note::{Ended, Note, What};
pub use read::{Call, Hold, Malformed, Share, Story, Touch, TouchOutcome};
pub use search::{Verdict, search};

use crate::Violation;
use lockkeeper_core::{LockMode, Resource};
use std::{collections::BTreeMap, fmt};

/// Slots of the resources that have some.
pub type Capacities = BTreeMap<Resource, u32>;

/// What a history contained: it shows that there was something to be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Calls of all kinds.
    pub calls: usize,
    /// Those without an answer.
    pub unanswered: usize,
    /// Locks that were granted.
    pub holds: usize,
    /// Acquires that counted a hold up.
    pub counted: usize,
    /// Those of which a release was acknowledged.
    pub released: usize,
    /// Those that their clients lost, or left behind when they died.
    pub lost: usize,
    /// What protected resources let in.
    pub accepted: usize,
    /// What they turned away: each a write or read that would have been lost or wrong.
    pub bounced: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls ({} without an answer), {} locks granted ({} times more by counting), {} \
             released, {} lost; protected resources let in {} and turned away {}",
            self.calls,
            self.unanswered,
            self.holds,
            self.counted,
            self.released,
            self.lost,
            self.accepted,
            self.bounced
        )
    }
}

/// Why a history is not one of a lock service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A promise is broken.
    Broken(Violation),
    /// The notes contradict themselves: whoever wrote them is wrong.
    Malformed(Malformed),
    /// No order of the calls is one that the model allows.
    NotALock {
        /// Which model.
        model: LockModel,
        /// On which resource.
        resource: Resource,
        /// Where the search was stuck.
        message: String,
    },
    /// The search was given up, so nothing is decided.
    Undecided {
        /// Which model.
        model: LockModel,
        /// On which resource.
        resource: Resource,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(violation) => violation.fmt(f),
            Fault::Malformed(malformed) => malformed.fmt(f),
            Fault::NotALock { model, resource, message } => {
                write!(f, "{resource} is not a {model}: {message}")
            }
            Fault::Undecided { model, resource } => {
                write!(f, "whether {resource} is a {model} was not decided: too many orders")
            }
        }
    }
}

impl std::error::Error for Fault {}

/// Decides I1 to I5 on everything that was written down, in n log n.
pub fn check(notes: &[Note], capacities: &Capacities) -> Result<Summary, Fault> {
    let story = Story::read(notes).map_err(Fault::Malformed)?;
    order::check(&story, capacities).map_err(Fault::Broken)?;
    fenced::check(&story).map_err(Fault::Broken)?;
    Ok(story.summary())
}

/// Up to how many operations of one resource are searched as well as decided by their tokens.
const SEARCHED: usize = 4_000;

/// How many steps a search may take.
const STEPS: usize = 2_000_000;

/// Decides whether each resource was one of the published locks: a mutex with an owner and one with
/// fencing tokens where it was held exclusively, their counting kinds where holds were counted, a
/// semaphore where there are slots. Resources with readers have no published model; they are for
/// [`check`] alone. Says how many resources were judged by how many models.
pub fn check_models(notes: &[Note], capacities: &Capacities) -> Result<usize, Fault> {
    let story = Story::read(notes).map_err(Fault::Malformed)?;
    let mut judged = 0;
    for (resource, holds) in story.by_resource() {
        let exclusive = holds.iter().all(|hold| hold.mode == LockMode::Exclusive);
        let models = match capacities.get(&resource) {
            Some(permits) => vec![LockModel::Semaphore { permits: *permits }],
            None if !exclusive => continue,
            None if holds.iter().any(|hold| hold.shares.len() > 1) => {
                let max = u32::MAX;
                vec![LockModel::Reentrant { max }, LockModel::ReentrantFenced { max }]
            }
            None => vec![LockModel::Mutex, LockModel::Fenced],
        };
        let ops = ops_of(&holds);
        for model in models {
            judge(model, &resource, &ops)?;
            judged += 1;
        }
    }
    Ok(judged)
}

fn judge(model: LockModel, resource: &Resource, ops: &[ModelOp]) -> Result<(), Fault> {
    let not_a_lock = |message| Fault::NotALock { model, resource: resource.clone(), message };
    let fast = decide(model, ops);
    if let Some(Err(message)) = fast {
        return Err(not_a_lock(message));
    }
    if fast.is_some() && ops.len() > SEARCHED {
        return Ok(());
    }
    match search(model, ops, STEPS) {
        Verdict::Linearizable(_) => Ok(()),
        Verdict::Impossible(message) => Err(not_a_lock(message)),
        // Where tokens decided it, nothing is left open.
        Verdict::Undecided if fast.is_some() => Ok(()),
        Verdict::Undecided => Err(Fault::Undecided { model, resource: resource.clone() }),
    }
}
