//! The library as its users meet it: managers, sessions, guards, agents, messages, failures.
//!
//! Every exclusion test counts who is inside. The numbers I1 to I20 in the comments are the
//! invariants that a test guards. No test waits for a wall clock: where time matters it stands
//! still and is moved by hand ([`support::Still`]).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests"
)]

mod agents;
mod agents_life;
mod cancel;
mod cancel_more;
mod deadlock;
mod disk;
mod drops;
mod events;
mod extremes;
mod failing;
mod inside;
mod leases;
mod messages;
mod outages;
mod outlive;
mod place;
mod process;
mod restarts;
mod revoking;
mod scripts;
mod seeds;
mod storm;
mod support;
mod tasks;
mod turns;
mod views;
mod views_admin;
