//! The store from outside: what it promises whoever puts a table in front of it.
//!
//! | file | holds |
//! |---|---|
//! | `life.rs` | a made-up life of a table, and a table in front of a store |
//! | `replays.rs` | what is written gives the table back (I11, I15, I17) |
//! | `claims.rs` | one owner at a time, of the file and of the project (I16) |
//! | `rows.rs` | the rows that chance seldom makes |
//! | `schema.rs` | migrations, copies, and what the tables refuse by themselves |
//! | `facts.rs` | what the audit log says beside each fact |
//! | `snapshot.rs` | a look that changes nothing, whoever owns the store |
//! | `story.rs` | the recorded life of a store on a disk that is watched |
//! | `power.rs` | power cuts at any moment (I2, I11, I15) |
//! | `faults.rs` | a disk that fails at any moment (I2, I11, I15) |
//! | `damage.rs` | bytes that turn under a store, places that turn read-only |
//! | `trouble.rs` | damaged files, full disks, read-only places |
//! | `journal.rs` | what is in the journal and not in the tables yet |
//! | `backlog.rs` | what is owed to the tables: when it is carried over, and what if that fails |
//! | `questions.rs` | the audit log, and what is removed from it |
//! | `writer/` | group commit, who writes it, and who is told when |

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod backlog;
mod claims;
mod damage;
mod facts;
mod faults;
mod journal;
mod life;
mod power;
mod questions;
mod replays;
mod rows;
mod schema;
mod snapshot;
mod story;
mod trouble;
mod writer;
