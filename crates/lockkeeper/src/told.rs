//! Answers as the handles of this crate want them: whatever was granted comes as guards, and
//! whatever changed a hold is told to its guards.

use crate::{
    guard::{GuardBook, LockGuard},
    session::Owner,
};
use lockkeeper_core::{Answer, Grant, LockId, Task, Timestamp};
use std::sync::Arc;

/// An answer in which whatever was granted is held by guards already: should nobody take it, they
/// give it back.
pub(crate) enum Told {
    /// The usual case: one lock.
    Guard(LockGuard),
    Guards(Vec<LockGuard>),
    Tasks(Vec<(Task, LockGuard)>),
    Answer(Answer),
}

/// Turns grants into guards.
#[cfg(feature = "remote")]
pub(crate) fn arm(answer: Answer, owner: &Arc<Owner>) -> Told {
    arm_for(answer, owner.clone())
}

/// The same. The owner goes on into the guard: that is cheaper than to count it up and down.
pub(crate) fn arm_for(answer: Answer, owner: Arc<Owner>) -> Told {
    let guard = |grant: Grant| LockGuard::new(grant, owner.clone());
    match answer {
        Answer::Granted(grants) => match <[Grant; 1]>::try_from(grants) {
            Ok([grant]) => Told::Guard(LockGuard::new(grant, owner)),
            Err(grants) => Told::Guards(grants.into_iter().map(guard).collect()),
        },
        Answer::TasksClaimed(claimed) => {
            Told::Tasks(claimed.into_iter().map(|one| (one.task, guard(one.grant))).collect())
        }
        other => Told::Answer(other),
    }
}

/// What an answer changes for the guards of a hold.
pub(crate) enum Change {
    None,
    Converted(Box<Grant>),
    Renewed(LockId, Timestamp),
}

impl Change {
    pub(crate) fn of(answer: &Answer) -> Change {
        match answer {
            Answer::Changed(grant) => Change::Converted(grant.clone()),
            Answer::Renewed { lock, expires_at } => Change::Renewed(*lock, *expires_at),
            _ => Change::None,
        }
    }

    pub(crate) fn tell(self, book: &GuardBook) {
        match self {
            Change::None => {}
            Change::Converted(grant) => {
                if let Some(state) = book.find(grant.lock) {
                    state.converted(&grant);
                }
            }
            Change::Renewed(lock, expires_at) => {
                if let Some(state) = book.find(lock) {
                    state.renewed(expires_at);
                }
            }
        }
    }
}
