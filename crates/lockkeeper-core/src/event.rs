//! News for whoever watches. Emitted only when true, that is, only out of a settled turn.

use crate::{DeadlockReport, EndCause, LockId, LockMode, Resource, SessionId, Timestamp, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One piece of news.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its number in the project, without a gap.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub news: News,
}

/// What can be news.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event")]
#[non_exhaustive]
pub enum News {
    /// A lock is held.
    #[serde(rename = "resource.locked")]
    Locked(LockNews),
    /// A hold was given back.
    #[serde(rename = "resource.unlocked")]
    Unlocked(LockNews),
    /// A hold's lease ended; its guard is lost.
    #[serde(rename = "resource.expired")]
    Expired(LockNews),
    /// A hold was ended by force; its guard is lost.
    #[serde(rename = "resource.revoked")]
    Revoked(LockNews),
    /// A hold will be ended by force at `expires_at`; its guard may clean up first.
    #[serde(rename = "resource.revoking")]
    Revoking(LockNews),
    /// A request waits.
    #[serde(rename = "resource.waiting")]
    Waiting(WaitNews),
    /// A deadlock was found and broken.
    #[serde(rename = "deadlock.detected")]
    Deadlock {
        /// The whole story.
        report: Arc<DeadlockReport>,
    },
    /// A session ended.
    #[serde(rename = "session.ended")]
    SessionEnded {
        /// Which.
        session: SessionId,
        /// Whose.
        #[serde(rename = "agent_id")]
        agent: Arc<str>,
        /// Why.
        cause: EndCause,
    },
}

/// News of a hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LockNews {
    /// What is held.
    #[serde(rename = "resource_id")]
    pub resource: Resource,
    /// By which agent.
    #[serde(rename = "agent_id")]
    pub agent: Arc<str>,
    /// In which session.
    pub session: SessionId,
    /// The hold.
    #[serde(rename = "lock_id")]
    pub lock: LockId,
    /// Its token.
    pub token: Token,
    /// How it is, or was, held.
    pub mode: LockMode,
    /// When its lease, or its grace, ends.
    pub expires_at: Timestamp,
    /// How long the request for it queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long it was held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    /// What its holder wanted it for, or why it was ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// News of a wait.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WaitNews {
    /// What it waits for: each of a batch.
    #[serde(rename = "resource_ids")]
    pub resources: Vec<Resource>,
    /// Which agent.
    #[serde(rename = "agent_id")]
    pub agent: Arc<str>,
    /// In which session.
    pub session: SessionId,
    /// Until when it waits at most.
    pub wait_until: Timestamp,
    /// Why it wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}
