//! Decides who holds what: one project's locks as a pure, deterministic state machine.
//!
//! # What it is
//!
//! A [`LockTable`] takes a [`Command`] and the time, and returns [`Effects`]: what must be written,
//! and behind that, unreachable before it is written, what may then be said. It has no clock, no
//! thread, no file and no randomness, and nothing in it depends on the order of anything in memory:
//! the same commands give the same effects, and a table rebuilt from its journal goes on where the
//! lost one stopped.
//!
//! ```text
//!   Command, now ──► LockTable::apply ──► Effects ──► settle(ledger)  ──► Settled
//!                        │      ▲           records       writes           replies, events
//!                        ▼      │
//!                       facts: replay                  recovery ──► replay
//! ```
//!
//! # Where to look
//!
//! | to learn | open |
//! |---|---|
//! | what can be asked, answered, refused | `command`, `reply`, `refusal` |
//! | what is told, and what is written | `event`, `record` |
//! | why nothing is said before it is written | `effects` |
//! | which modes exclude each other | `mode` |
//! | who is let in, and who is next | `table/acquire`, `table/rescan` |
//! | how things end | `table/ending` |
//! | how tasks are claimed | `table/tasks`, `task` |
//! | how a rebuilt table begins | `table/resume` |
//! | how a fact changes the table | `table/replay` |
//! | who waits for whom | `table/edges`, `graph` |
//! | when that is a deadlock | `table/detect`, `table/cycle`, `table/reduce` |
//! | who loses | `victim` |
//! | what a table shows of itself | `table/views`, `view` |
//!
//! # What may be relied on
//!
//! - **Total.** [`LockTable::apply`] answers every command, once, in this turn or a later one. A
//!   [`Refusal`] is a reply, not an error; no input makes it panic or recurse.
//! - **One door.** [`LockTable::replay`] is the only thing that changes a table. A live turn goes
//!   through it fact by fact, and so does recovery.
//! - **Write, then speak.** [`Settled`] is made by [`Effects::settle`] alone, and only in order.
//!   Views show the table as it is, settled or not: do not speak of them before.
//! - **In the same turn.** What a turn frees it hands over; a cycle that a turn closes it breaks.
//!
//! Who drives it owes it three things: the records of each turn are written in order; after a
//! restart they are replayed into a table of a new [`Reign`] with a higher epoch, whose first
//! command is [`Resume`]; and `apply(now, Command::Tick)` is called when
//! [`LockTable::next_deadline`] has come.
#![forbid(unsafe_code)]

mod command;
mod config;
mod effects;
mod event;
mod export;
mod graph;
mod ids;
mod index;
mod mode;
mod places;
mod record;
mod refusal;
mod reply;
mod report;
mod resource;
mod table;
mod task;
mod time;
mod victim;
mod view;

pub use command::*;
pub use config::*;
pub use effects::*;
pub use event::*;
pub use ids::*;
pub use mode::LockMode;
pub use record::*;
pub use refusal::*;
pub use reply::*;
pub use report::*;
pub use resource::*;
pub use table::LockTable;
pub use task::{Task, TaskStatus};
pub use time::Timestamp;
pub use victim::{Candidate, LeastWork, LowestPriority, Requester, VictimPolicy, Work, Youngest};
pub use view::*;
