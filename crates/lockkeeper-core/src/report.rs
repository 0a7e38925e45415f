//! The story of a deadlock, complete enough to act on and to argue with.

use crate::{Candidate, LockId, LockMode, Resource, SessionId, TicketId, Timestamp, Token};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One deadlock: who was in it, who lost, and why.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeadlockReport {
    /// When.
    pub at: Timestamp,
    /// The resource whose request closed the cycle; where that was a declared wait, the first
    /// resource on the cycle.
    pub resource: Option<Resource>,
    /// Whose request closed it.
    pub requester: SessionId,
    /// Who lost.
    pub victim: SessionId,
    /// The order that chose the victim.
    pub policy: String,
    /// Everybody on the cycle, the requester first; each waits for the next, the last for the
    /// first.
    pub participants: Vec<Participant>,
    /// The victim's holds that are released by force, because others on the cycle wait for them.
    pub freed: Vec<LockId>,
    /// Whether the cycle leads through permits, so that it had to be confirmed by reduction.
    pub reduced: bool,
}

/// One session on a cycle.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Participant {
    /// What the victim is chosen by.
    #[serde(flatten)]
    pub rank: Candidate,
    /// The next session on the cycle.
    pub waits_for: SessionId,
    /// The kind of the edge to it.
    pub edge: EdgeKind,
    /// The resource of the edge; none for a declared wait.
    pub resource: Option<Resource>,
    /// The mode asked for.
    pub mode: Option<LockMode>,
    /// The ticket that waits.
    pub ticket: Option<TicketId>,
    /// For how long it has waited, in milliseconds.
    pub waiting_ms: u64,
    /// Its holds that others on the cycle wait for.
    pub holds: Vec<Held>,
    /// How many holds it has in all.
    pub holds_total: usize,
    /// Whether it could be chosen: whether ending its wait or its holds breaks the cycle. It does
    /// not where the one before it would wait for the next one instead, in the same queue.
    pub eligible: bool,
}

/// A hold of a participant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named as in a grant")]
pub struct Held {
    pub lock: LockId,
    pub resource: Resource,
    pub mode: LockMode,
    pub token: Token,
    pub age_ms: u64,
}

/// Why one session waits for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// The other holds it, in a mode that conflicts.
    Hard,
    /// The other waits for it, earlier, in a mode that conflicts.
    Soft,
    /// The other holds permits of it, or waits for some, earlier: it *may* have to go first.
    Permit,
    /// It said so.
    Declared,
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EdgeKind::Hard => "hard",
            EdgeKind::Soft => "soft",
            EdgeKind::Permit => "permit",
            EdgeKind::Declared => "declared",
        })
    }
}

impl DeadlockReport {
    /// The participant who lost.
    pub fn victim(&self) -> Option<&Participant> {
        self.participants.iter().find(|one| one.rank.session == self.victim)
    }
}

impl fmt::Display for DeadlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadlock:")?;
        for (at, one) in self.participants.iter().enumerate() {
            write!(f, "{} {}", if at == 0 { "" } else { "," }, one.rank.agent)?;
            let next = &self.participants[(at + 1) % self.participants.len()].rank.agent;
            match (&one.resource, one.edge) {
                (Some(resource), EdgeKind::Soft) => {
                    write!(f, " waits for {resource} behind {next}")?;
                }
                (Some(resource), _) => write!(f, " waits for {resource} held by {next}")?,
                (None, _) => write!(f, " has declared to wait for {next}")?,
            }
        }
        if let Some(victim) = self.victim() {
            write!(f, "; {} lost", victim.rank.agent)?;
            match self.freed.len() {
                0 => {}
                1 => f.write_str(" and one of its locks is released")?,
                n => write!(f, " and {n} of its locks are released")?,
            }
        }
        Ok(())
    }
}
