//! Doubts: drives the lock table through seeded disasters beside a naive model.
//!
//! A tour of the room:
//!
//! - [`Model`] is the lock table written a second time, slowly and plainly. It follows each turn of
//!   the table, decides it anew by its own rules, and names the [`Invariant`] that a turn broke. It
//!   shares no decision with the core, only the plain data types.
//! - [`Bench`] puts a table and its model side by side, keeps the journal, counts the calls and who
//!   is [`Inside`], and lets the coordinator crash and recover.
//! - The *world* has agents of many kinds at work: in order and out of order, readers and writers,
//!   batches, permits, parents who wait for children, callers who vanish, leases that run out,
//!   clocks that jump, garbage. [`Fences`] are the resources behind the locks.
//! - [`history`] takes what real clients saw of a real service, and decides whether a lock service
//!   can have been behind it.
//! - [`simulate`] runs some projects for so many steps and ends with a [`Report`], or with a
//!   [`Failure`]: the seed, and the shortest history that [`shrink`] found.
//!
//! Everything is drawn from one seed: the same [`SimConfig`] gives the same run, record by record.
//! There is no clock here; time is a number that the world moves.
//!
//! ```
//! use lockkeeper_sim::{SimConfig, simulate};
//!
//! let config = SimConfig { seed: 5, steps: 2_000, ..SimConfig::default() };
//! let report = simulate(&config, &mut |_| {}).expect("no promise is broken");
//! assert_eq!(report.max_inside_exclusive, 1);
//! ```
#![forbid(unsafe_code)]

mod bench;
mod fence;
pub mod history;
mod inside;
mod model;
mod report;
mod shrink;
mod sim;
mod transcript;
mod turn;
mod world;

pub use bench::{Bench, Input};
pub use fence::Fences;
pub use inside::{Inside, Insider, Most};
pub use model::*;
pub use report::Report;
pub use shrink::{Shrunk, shrink};
pub use sim::{Failure, Progress, SimConfig, simulate};
pub use turn::Turn;
