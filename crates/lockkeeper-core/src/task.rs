//! Tasks that agents claim: each has a version, so that nobody decides on what is outdated.

use crate::Resource;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A task as it is at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its name, a resource of the type `task`.
    pub resource: Resource,
    /// Goes up by one with each transition.
    pub version: u64,
    /// Where it stands.
    pub status: TaskStatus,
}

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Free to be claimed.
    #[default]
    Open,
    /// Somebody has it.
    Claimed,
    /// Nobody needs to claim it any more.
    Done,
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskStatus::Open => "open",
            TaskStatus::Claimed => "claimed",
            TaskStatus::Done => "done",
        })
    }
}
