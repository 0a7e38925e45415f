//! Claim, load, commit: every way in which two owners can get into each other's way.
//!
//! `world.rs` is the protocol written down, small enough to visit every state: two owners that are
//! paused wherever it hurts, commits whose outcome is never heard and that are asked for once more,
//! answers that are lost or come twice, clients that go on writing with a lock they have lost, and
//! a resource that checks tokens. `real.rs` plays made-up paths through it on two real stores that
//! have the same file open, and compares what they say with what the protocol says.
//!
//! Guarded here: I1 to I4, I15, I16, that nothing is spoken of which is not in the journal, and
//! that no acknowledged grant is lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says how much it saw")]

mod real;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use world::{Bounds, Fault, Kind, PROMISE, Protocol};

const SMALL: Bounds = Bounds { epochs: 2, calls: 2, turns: 2, attempts: 0, log: 3, writes: 2 };

/// For an optimised build, `LOCKKEEPER_EXHAUSTIVE=1 cargo test --release -p lockkeeper-store`: more
/// claims, more calls, and both. All of it larger at once is more than 24 GB.
const LARGE: [Bounds; 3] = [
    Bounds { epochs: 3, calls: 2, turns: 2, attempts: 1, log: 4, writes: 3 },
    Bounds { epochs: 2, calls: 3, turns: 2, attempts: 1, log: 4, writes: 3 },
    Bounds { epochs: 3, calls: 3, ..SMALL },
];

fn bounds() -> Vec<Bounds> {
    let asked = std::env::var("LOCKKEEPER_EXHAUSTIVE").is_ok_and(|text| text != "0");
    if asked { LARGE.to_vec() } else { vec![SMALL] }
}

#[test]
fn two_owners_keep_every_promise_in_every_state() {
    bounds().into_iter().for_each(every_state_keeps_every_promise);
}

fn every_state_keeps_every_promise(bounds: Bounds) {
    let world = Protocol::new(bounds, None);
    let began = std::time::Instant::now();
    let checker = world.clone().checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, which is all there are, {} steps, up to {} in a row, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    if let Some(path) = checker.discovery(PROMISE) {
        let wrong = path.last_state().wrong;
        panic!("{wrong:?} after {:?}", path.into_actions());
    }
    use Kind::*;
    for kind in [
        Superseded,
        SupersededAtLoad,
        Repeated,
        RepeatedUnwritten,
        ToldTheSameAgain,
        BothBelieve,
        Bounced,
        DoubleAnswer,
    ] {
        assert!(world.happened(kind) > 0, "{kind:?} never happened, so nothing was shown");
    }
}

/// The shortest way to what goes wrong.
fn finds(fault: Fault) -> &'static str {
    let world = Protocol::new(SMALL, Some(fault));
    let any = HasDiscoveries::AnyFailures;
    let checker = world.checker().threads(1).finish_when(any).spawn_bfs().join();
    let path = checker.discovery(PROMISE).unwrap_or_else(|| panic!("{fault:?} is not found"));
    let wrong = path.last_state().wrong.unwrap();
    println!("{fault:?}: {wrong}\n  {:?}", path.into_actions());
    wrong
}

#[test]
fn an_owner_that_does_not_compare_epochs_is_found() {
    assert!(finds(Fault::NoEpochCompare).starts_with("I16"));
}

/// What records nothing answers all the same: that a lock is held which is somebody else's by now.
#[test]
fn an_owner_that_answers_from_memory_is_found() {
    assert!(finds(Fault::NoEpochCompareWithoutRecords).starts_with("I16"));
}

#[test]
fn a_commit_that_can_be_repeated_is_found() {
    let wrong = finds(Fault::NoSeqCompare);
    assert!(wrong.starts_with("I1:") || wrong.starts_with("I2:"), "{wrong}");
}

#[test]
fn an_owner_that_speaks_before_it_writes_is_found() {
    assert_eq!(finds(Fault::SpeaksFirst), "a grant is spoken of that is not in the journal");
}

#[test]
fn an_owner_that_keeps_what_it_read_before_its_claim_is_found() {
    finds(Fault::ReadsBeforeItClaims);
}

#[test]
fn a_claim_that_raises_no_epoch_is_found() {
    finds(Fault::ClaimsWithoutANewEpoch);
}

#[test]
fn a_resource_that_checks_no_tokens_is_found() {
    assert!(finds(Fault::NobodyChecksTokens).starts_with("I4"));
}
