//! The store from outside: what it promises whoever puts a table in front of it.
//!
//! | file | holds |
//! |---|---|
//! | `life.rs` | a made-up life of a table, and a table in front of a store |
//! | `replays.rs` | what is written gives the table back (I11, I15, I17) |
//! | `claims.rs` | one owner at a time, of the file and of the project (I16) |
//! | `schema.rs` | migrations, copies, and what the tables refuse by themselves |
//! | `trouble.rs` | damaged files, full disks, read-only places |
//! | `questions.rs` | the audit log, and what is removed from it |
//! | `writer.rs` | group commit, and who is told when |

mod claims;
mod life;
mod questions;
mod replays;
mod schema;
mod trouble;
mod writer;
