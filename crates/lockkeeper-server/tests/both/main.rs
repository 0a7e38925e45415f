//! The library as its users meet it, with the locks at a daemon: the tests of the library, run over
//! a real socket. What they prove there they prove here, in the same words.
//!
//! What is only here: connections that are cut, daemons that are gone and come back.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "tests, of which the library has more"
)]

mod cuts;
mod gone;
mod place;
mod restarted;
#[path = "../../../lockkeeper/tests/library/support/mod.rs"]
mod support;

#[path = "../../../lockkeeper/tests/library/agents.rs"]
mod agents;
#[path = "../../../lockkeeper/tests/library/cancel.rs"]
mod cancel;
#[path = "../../../lockkeeper/tests/library/cancel_more.rs"]
mod cancel_more;
#[path = "../../../lockkeeper/tests/library/deadlock.rs"]
mod deadlock;
#[path = "../../../lockkeeper/tests/library/drops.rs"]
mod drops;
#[path = "../../../lockkeeper/tests/library/events.rs"]
mod events;
#[path = "../../../lockkeeper/tests/library/inside.rs"]
mod inside;
#[path = "../../../lockkeeper/tests/library/leases.rs"]
mod leases;
#[path = "../../../lockkeeper/tests/library/revoking.rs"]
mod revoking;
#[path = "../../../lockkeeper/tests/library/scripts.rs"]
mod scripts;
#[path = "../../../lockkeeper/tests/library/storm.rs"]
mod storm;
#[path = "../../../lockkeeper/tests/library/tasks.rs"]
mod tasks;
#[path = "../../../lockkeeper/tests/library/views.rs"]
mod views;
#[path = "../../../lockkeeper/tests/library/views_admin.rs"]
mod views_admin;
