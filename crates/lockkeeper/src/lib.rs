//! The lock coordinator for fleets of software agents.
//!
//! Agents ask for what they want to work on (files, databases, machines, slots of a model); this
//! library decides who gets what and in which order, sees who waits for whom, and when some of them
//! could only wait for each other for ever, breaks the deadlock at the very request that closes it.
//! Locks die with their agent. Whatever is said is on record before it is said.
//!
//! ```
//! use lockkeeper::{LockManager, Resource};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("locks.db");
//! # fn write_with(_: lockkeeper::Token) -> std::io::Result<()> { Ok(()) }
//! let manager = LockManager::open(path).await?; //             embedded, durable, migrates itself
//! let coder = manager.session("demo", "agent-coder").await?; // an agent in a project
//! let guard = coder.acquire(Resource::file("src/main.rs")).await?; // waits 300 s, leased 300 s
//! write_with(guard.token())?; //                              for whatever you protect
//! guard.release().await?; //                                  or just drop it
//! # Ok(()) }
//! ```
//!
//! # Where to go from here
//!
//! | you want | look at |
//! |---|---|
//! | a lock, a shared one, a slot | [`Session::acquire`] |
//! | several locks at once | [`Session::acquire_all`] |
//! | to know what a guard can do | [`LockGuard`] |
//! | to turn stale holders away at the resource | [`FenceGate`] |
//! | agents that are started, watched and restarted | [`Orchestrator`] |
//! | tasks that exactly one agent works on | [`Session::claim`] |
//! | who holds what, who waits, what happened | [`Project`], [`LockManager::subscribe`] |
//! | a look at a store of another process, or of none | [`Snapshot`], [`store::owner`] |
//! | messages instead of methods | [`LockActor`] |
//! | the same at a daemon | `LockManager::connect`, with the feature `remote` |
//! | numbers | [`Prometheus`] |
//!
//! # How it is built
//!
//! ```text
//!   LockManager, Session, LockGuard        handles
//!            │ message              ▲ answer, lost, revoking
//!            ▼                      │
//!        LockActor              the desk, where it is committed
//!            │ command              ▲ settled
//!            ▼                      │
//!        LockTable ── records ── Writer: group commit, SQLite
//! ```
//!
//! One [`LockActor`] per project decides, one message after the other, and never waits for the
//! disk. What a turn caused goes to the writer; it commits what queued up meanwhile, and only then
//! is anybody told. No lock rule lives in this crate: they are all in `lockkeeper_core`.
#![forbid(unsafe_code)]

mod actor;
mod agent;
mod clock;
mod config;
mod error;
mod event;
mod fate;
mod fence;
mod guard;
mod house;
mod line;
mod manager;
mod metrics;
mod orchestrator;
mod project;
mod question;
mod recovery;
#[cfg(feature = "remote")]
pub mod remote;
mod renewal;
mod request;
mod served;
mod session;
mod snapshot;
mod task;
mod told;
#[cfg(feature = "remote")]
pub mod wire;

/// Stores: what [`LockManager::over`] takes, and the one in SQLite that it takes by default.
pub mod store {
    pub use lockkeeper_store::{
        Batch, Card, Checkup, Claim, MigrationReport, OpenOptions, PruneBefore, Reader,
        SqliteStore, Store, check, migrate, owner,
    };
}

/// The shared memory that `fate` is built of; its race tests bring another one.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
}

pub use actor::{Acquired, LockActor, LockActorArgs};
pub use agent::AgentContext;
pub use config::{Config, Metrics};
pub use error::{
    AcquireError, AdminError, CallError, ConvertError, ReleaseError, RenewError, SessionError,
    TaskError, Unavailable,
};
pub use event::{Events, Heard, ProjectEvent};
pub use fence::{FenceGate, Fenced};
pub use guard::{GuardWatch, LockGuard, LockGuards, Lost};
pub use lockkeeper_core::*;
pub use lockkeeper_store::{AuditFilter, AuditRow, Durability, Retention, StoreError};
pub use manager::{LockManager, ResourceKey, SessionRequest, ShutdownReport};
pub use metrics::{MetricsTaken, Prometheus};
pub use orchestrator::{AgentHandle, AgentRequest, Orchestrator, RestartAgent};
pub use project::Project;
pub use question::{
    ContentionNow, Grants, Inspect, LastEvent, Leases, List, Question, Queue, Sessions, Stale,
    StatsNow, TaskNow, Tasks, WaitGraphNow,
};
pub use request::{
    AcquireAllRequest, AcquireRequest, ClaimBatchRequest, ClaimRequest, RequestFuture,
    UpgradeRequest,
};
pub use session::{Closed, Session};
pub use snapshot::Snapshot;
pub use task::TaskGuard;
