//! Remembers: the records of lock tables as rows in SQLite, written in group commits.
//!
//! # What it is
//!
//! A [`Store`] keeps the facts of many projects. It takes no decision: the table has decided, the
//! store writes it down. Whoever takes a project over *claims* it, which raises the project's epoch
//! durably, and *loads* what is live; whoever claimed it before can commit nothing any more.
//!
//! A [`Writer`] is one thread in front of a store. Turns queue up while a commit runs and go into
//! the next one together; whoever waits for a turn is told by the writer, after the commit.
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
pub use schema::MigrationReport;
pub use sqlite::{OpenOptions, SqliteStore, migrate};
pub use store::{Batch, Claim, Durability, PruneBefore, Reader, Store};
pub use writer::{CommitStats, Retention, Writer, WriterOptions};
