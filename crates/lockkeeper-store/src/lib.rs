//! Remembers: the records of lock tables as rows in SQLite, written in group commits.
//!
//! # What it is
//!
//! A [`Store`] keeps the facts of many projects. It takes no decision: the table has decided, the
//! store writes it down. Whoever takes a project over *claims* it, which raises the project's epoch
//! durably, and *loads* what is live; whoever claimed it before can commit nothing any more.
//!
//! A [`Writer`] is one desk in front of a store, and a thread that sits there. Turns queue up while
//! a commit runs and go into the next one together; whoever waits for a turn is told after the
//! commit.
//!
//! ```text
//!   turns ──► Writer ──► Effects::settle_groups ──► Store::commit ──► journal, one row
//!               ▲                   │                                    │ carried over, later
//!               └──── Settled ──────┘                                    ▼ and many at a time
//!                                                              audit_log + live tables
//!                                      claim, load ◄── live rows, as facts ────┘
//! ```
//!
//! A [`Snapshot`] reads a store that somebody else owns, or nobody, and leaves every byte as it is;
//! [`owner`] tells who owns it.
//!
//! # What may be relied on
//!
//! - **Written first, carried over then.** A commit adds one row with all its facts to the table
//!   `journal`. Within [`OpenOptions::lag`] they are carried over in one transaction: out of the
//!   journal, one row each into `audit_log`, whole, as JSON; and the live tables are made as they
//!   are by then. Whoever asks by [`Reader`], [`Snapshot`] or [`Store::load`] sees everything that
//!   is acknowledged; other programs see it that much later. Replaying the log gives the table, and
//!   so does [`Store::load`].
//! - **One owner.** A file is open in one process, by the lock of the operating system on a file
//!   beside it, and a project belongs to the newest claim, by its epoch in the file. Both end with
//!   whoever held them, however that ended.
//! - **All of a batch or nothing.** A batch that fails takes no other one with it.
//! - **An epoch never goes back**, not even after a power cut: raising it is always synced.
//! - **Times** are text, RFC 3339 in UTC with milliseconds, so that people and `sqlite3` can read
//!   the tables. What lies beyond the year 9999 is read back as a moment that never comes.
//!
//! # The kinds of rows in the audit log
//!
//! | `event_type` | when |
//! |---|---|
//! | `session_opened`, `session_ended` | a session came, or went |
//! | `lock_waiting` | a request took its place in its queues |
//! | `ticket_polled` | its asker was told the ticket, or came back to wait on it |
//! | `wait_left` | it left them without a grant; the details say why |
//! | `lock_granted`, `lock_reentered` | a lock is held; a hold is counted up |
//! | `lock_counted_down` | one of several acquires of a hold was given back |
//! | `lock_released` | a hold was given back, or taken back with its request or its session |
//! | `lease_expired` | its lease ended |
//! | `lock_revoked` | it was ended to break a deadlock |
//! | `force_release` | an administrator ended it; `released_by` says who |
//! | `lock_renewed`, `lock_converted` | its lease, or its mode and token, changed |
//! | `lock_revoking` | it will be revoked unless it is released before |
//! | `wait_declared`, `wait_withdrawn` | a session waits for another one, or no longer |
//! | `capacity_declared` | a resource has so many slots |
//! | `task_moved`, `task_forgotten` | a task has another version; or is gone |
//! | `remembered` | a session remembers more of a finished request than its facts tell |
//! | `resumed` | a rebuilt table is in service, with full leases |
//! | `deadlock_detected` | with the whole report |
//!
//! A row names the agent, the resource (of a batch that waits, its first one) and the token where
//! there is one. Rows are never changed; those older than [`Retention::audit`] are removed.
#![forbid(unsafe_code)]

mod audit;
mod error;
mod memory;
mod owner;
mod schema;
mod sqlite;
mod store;
mod text;
mod writer;

pub use audit::{AuditFilter, AuditRow};
pub use error::StoreError;
pub use memory::MemoryStore;
pub use owner::{Card, owner};
pub use schema::MigrationReport;
pub use sqlite::{Checkup, OpenOptions, Snapshot, SqliteStore, check, migrate};
pub use store::{Batch, Claim, Durability, PruneBefore, Reader, Store};
pub use writer::{CommitStats, Retention, Writer, WriterOptions};
