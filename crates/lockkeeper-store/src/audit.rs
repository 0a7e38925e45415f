//! The audit log, as it is read.

use lockkeeper_core::{Fact, ReleaseCause, Timestamp, Token};
use serde::{Deserialize, Serialize};

/// Which rows of the audit log. Empty means all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditFilter {
    /// Of this project.
    pub project: Option<String>,
    /// About this resource, as `type:key`.
    pub resource: Option<String>,
    /// Of this agent.
    pub agent: Option<String>,
    /// Of this kind, such as `lock_granted`.
    pub event_type: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// After this row.
    pub after_id: Option<i64>,
    /// The earliest first.
    pub oldest_first: bool,
    /// At most so many; `None` is 1,000.
    pub limit: Option<usize>,
}

/// One row: one thing that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its number in the store.
    pub id: i64,
    /// In which project.
    pub project_id: String,
    /// What kind of thing.
    pub event_type: String,
    /// When.
    pub event_time: Timestamp,
    /// By, or about, which agent.
    pub agent_id: Option<String>,
    /// About which resource.
    pub resource: Option<String>,
    /// The token of the hold it is about.
    pub token: Option<Token>,
    /// The recorded fact, whole.
    pub details: serde_json::Value,
}

/// The word for a fact in the column `event_type`: the table in [`crate`]'s documentation.
pub(crate) fn event_type(fact: &Fact) -> &'static str {
    match fact {
        Fact::SessionOpened { .. } => "session_opened",
        Fact::SessionEnded { .. } => "session_ended",
        Fact::Queued(_) => "lock_waiting",
        Fact::Left { .. } => "wait_left",
        Fact::PollSet { .. } => "ticket_polled",
        Fact::Granted(_) => "lock_granted",
        Fact::Reentered { .. } => "lock_reentered",
        Fact::Released { remaining: 1.., .. } => "lock_counted_down",
        Fact::Released { cause, .. } => match cause {
            ReleaseCause::Released
            | ReleaseCause::Cancelled
            | ReleaseCause::ReleasedAll
            | ReleaseCause::SessionEnded(_) => "lock_released",
            ReleaseCause::Expired => "lease_expired",
            ReleaseCause::Deadlock => "lock_revoked",
            ReleaseCause::Forced { .. } => "force_release",
        },
        Fact::Renewed { .. } => "lock_renewed",
        Fact::Converted { .. } => "lock_converted",
        Fact::RevocationSet { .. } => "lock_revoking",
        Fact::WaitDeclared { .. } => "wait_declared",
        Fact::WaitWithdrawn { .. } => "wait_withdrawn",
        Fact::CapacityDeclared { .. } => "capacity_declared",
        Fact::TaskMoved { .. } => "task_moved",
        Fact::TaskForgotten { .. } => "task_forgotten",
        Fact::Resumed { .. } => "resumed",
        Fact::Remembered { .. } => "remembered",
        Fact::DeadlockFound(_) => "deadlock_detected",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
