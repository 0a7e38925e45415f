//! Every history of a small world, not a sample of them: three owners, two resources, all modes.
//!
//! The search knows no rule of its own. Its transition function is the real [`LockTable`] under the
//! real [`Bench`]: each step is one command, followed and decided anew by the naive model, which
//! names the invariant that a turn broke (I1, I2, I5 to I15, I17, I18). A state is what the model
//! knows with its numbers taken out ([`Model::shape`]), and the edges that the table keeps. What
//! was seen before is not walked again, so the histories up to a depth are all covered, and where
//! the states come to an end, those of any length.
//!
//! The short version runs with the other tests. The long one needs an optimised build:
//! `LOCKKEEPER_EXHAUSTIVE=2 cargo test --release -p lockkeeper-sim --test exhaustive` goes two
//! steps further.
//!
//! [`LockTable`]: lockkeeper_core::LockTable
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says how much it saw")]

mod scenes;
mod search;

use lockkeeper_sim::{Invariant, Policy};
use scenes::Scene;
use search::{Fault, Found, Kind, search};

/// How many steps further than the short version.
fn further() -> usize {
    let asked = std::env::var("LOCKKEEPER_EXHAUSTIVE").ok();
    asked.map_or(0, |text| text.parse().expect("a number of steps"))
}

/// Walks a scene, and shows that what it is about did happen.
fn holds(scene: Scene, must_happen: &[Kind]) {
    let name = scene.name;
    let found = search(scene, further());
    println!("{name}: {found}");
    if let Some(broken) = &found.broken {
        panic!("{name}: {broken}");
    }
    for kind in must_happen {
        assert!(found.happened(*kind) > 0, "{name}: {kind:?} never happened, so nothing was shown");
    }
}

#[test]
fn readers_updaters_and_writers_on_two_resources() {
    use Kind::{Cancelled, Deadlock, Downgraded, Granted, Queued, Upgraded};
    holds(scenes::modes(), &[Granted, Queued, Upgraded, Downgraded, Cancelled, Deadlock]);
}

#[test]
fn batches_counted_holds_and_sessions_that_end() {
    use Kind::{BatchGranted, Crashed, Deadlock, Reentered, SessionEnded};
    holds(scenes::batches(), &[BatchGranted, Reentered, SessionEnded, Deadlock, Crashed]);
}

#[test]
fn permits_beside_locks() {
    use Kind::{Cleared, Crashed, Deadlock, Granted, Queued};
    holds(scenes::permits(), &[Granted, Queued, Deadlock, Cleared, Crashed]);
}

#[test]
fn time_passes_and_the_coordinator_dies() {
    use Kind::{Abandoned, Crashed, Expired, Renewed, Sliced, TimedOut};
    holds(scenes::time(), &[Expired, TimedOut, Abandoned, Renewed, Sliced, Crashed]);
}

#[test]
fn victims_that_are_warned_first() {
    use Kind::{Deadlock, Declared, Revoking, Upgraded};
    holds(scenes::grace(), &[Deadlock, Declared, Revoking, Upgraded]);
}

#[test]
fn requests_that_are_asked_again() {
    use Kind::{Crashed, Granted, Retried, Unlocked};
    holds(scenes::retries(), &[Granted, Retried, Unlocked, Crashed]);
}

/// What the search says of a world in which something is wrong.
fn finds(mut scene: Scene, fault: Fault) -> Found {
    scene.fault = Some(fault);
    let found = search(scene, 0);
    println!("{fault:?}: {found}");
    found
}

/// A search that cannot fail proves nothing: each fault is one that takes several steps to show.
#[test]
fn it_finds_a_table_that_forgets_whom_a_cancel_lets_in() {
    let broken = finds(scenes::modes(), Fault::ForgetsAfterCancel).broken.unwrap();
    assert_eq!(broken.invariant, Invariant::I8, "{broken}");
    // A holder, a waiter, one behind it, and the cancel: nothing shorter shows it.
    assert_eq!(broken.path.len(), 4, "{broken}");
}

#[test]
fn it_finds_a_table_that_chooses_other_victims() {
    let broken = finds(scenes::modes(), Fault::OtherVictims(Policy::Requester)).broken.unwrap();
    // The one who closes the circle is usually the youngest as well, so the order has to be odd.
    assert!(broken.path.len() >= 4, "{broken}");
}

#[test]
fn it_finds_a_lease_that_is_longer_than_it_should_be() {
    let broken = finds(scenes::time(), Fault::LongerLeases).broken.unwrap();
    assert_eq!(broken.path.len(), 1, "{broken}");
}

#[test]
fn it_finds_a_release_that_is_told_but_not_written() {
    let broken = finds(scenes::batches(), Fault::SpeaksUnwritten).broken.unwrap();
    assert!(broken.path.len() >= 2, "{broken}");
}
