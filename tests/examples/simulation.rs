//! The multi-project simulation: what it finds, what it refuses, and that it can fail at all.

use crate::run;
use lockkeeper::{Config, LockManager, Resource};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

/// Its doorman, to be tried out: it must cry when two are inside.
#[path = "../../examples/multi_project_simulation/room.rs"]
#[allow(dead_code, reason = "the simulation uses the rest of it")]
mod room;

use room::Room;

#[test]
fn the_simulation_lets_nobody_in_twice() {
    let args = ["--seed", "7", "--seconds", "2", "--projects", "2", "--agents", "12", "--plain"];
    let output = run("multi_project_simulation", &args);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(err.is_empty(), "it has nothing to complain about: {err}");
    assert!(out.starts_with("2 projects with 12 agents each, for 2 s, seed 7\n"), "{out}");
    assert!(out.ends_with("\nnobody was ever inside twice\n"), "{out}");
    assert!(out.contains("holds, waits and sessions left: 0\n"), "{out}");

    // A row of the closing table: one cell for each project, one for all.
    let row = |label: &str| -> Vec<u64> {
        let mut lines = out.lines().filter_map(|line| line.strip_prefix(label));
        let cells = lines.next().unwrap_or_else(|| panic!("no row {label:?} in:\n{out}"));
        let cells = cells.split_whitespace().filter(|cell| *cell != "ms");
        cells.map(|cell| cell.replace(',', "").parse().expect("a number")).collect()
    };
    assert_eq!(row("  exclusive"), [1, 1, 1]);
    assert_eq!(row("left behind"), [0, 0, 0]);
    assert!(row("  readers")[2] > 1, "readers come together:\n{out}");
    for label in ["locks granted", "deadlocks broken", "leases overstayed", "agents killed"] {
        assert!(row(label)[2] > 0, "nothing happened in {label:?}:\n{out}");
    }
    assert!(row("agents started again")[2] > 0, "nobody was started again:\n{out}");
    let broken = row("deadlocks broken");
    assert_eq!(broken[0] + broken[1], broken[2], "{out}");
    assert!(out.contains("wait in a ring\n  ╭▸ "), "the first deadlocks are shown:\n{out}");
    assert!(out.contains("✗ gives way"), "and who lost:\n{out}");
}

#[test]
fn a_wrong_flag_is_explained() {
    for (args, problem) in [
        (&["--agents", "none"][..], "--agents takes a number from 1 to 1000, not \"none\""),
        (&["--agents=0"], "--agents takes a number from 1 to 1000, not \"0\""),
        (&["--seed"], "--seed needs a number"),
        (&["--live"], "what is \"--live\"?"),
        (&["--plain=yes"], "what is \"--plain\"?"),
    ] {
        let output = run("multi_project_simulation", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.starts_with(problem), "{args:?}: {err}");
        assert!(err.contains("usage: multi_project_simulation"), "{err}");
    }
    let output = run("multi_project_simulation", &["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("usage: "));
}

/// Two managers know nothing of each other, so both let somebody in: exactly what must be seen.
#[tokio::test]
async fn the_doorman_cries_when_two_are_inside() {
    let room = Room::new(Resource::file("x"), None);
    let one = LockManager::in_memory(Config::in_memory());
    let other = LockManager::in_memory(Config::in_memory());
    let one = one.session("demo", "one").await.expect("a session");
    let other = other.session("demo", "other").await.expect("a session");
    let first = one.acquire(Resource::file("x")).await.expect("free");
    let second = other.acquire(Resource::file("x")).await.expect("free, as it thinks");

    let visit = room.enter(&first).expect("valid");
    assert_eq!(room.problems(), [""; 0], "one alone is no problem");
    let also = room.enter(&second).expect("valid, too");
    let problems = room.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("were inside together"), "{problems:?}");
    assert!(problems[1].contains("is not larger than"), "{problems:?}");
    assert_eq!(room.most().exclusive, 2);

    // Both write, with the same token: the fence cannot tell them apart, but the page can.
    let seen = visit.begin(&first).ok().expect("let through");
    also.begin(&second).ok().expect("let through");
    visit.end(&first, &seen).ok().expect("let through");
    assert!(room.problems()[2].contains("the page changed under one"));
    drop((visit, also));
    assert_eq!(room.left_inside(), 0);
}

#[tokio::test]
async fn the_doorman_lets_the_next_one_in_when_a_lease_is_over() {
    let room = Room::new(Resource::file("x"), None);
    let manager = LockManager::in_memory(Config::in_memory());
    let one = manager.session("demo", "one").await.expect("a session");
    let other = manager.session("demo", "other").await.expect("a session");
    let lease = Duration::from_millis(20);
    let stale = one.acquire(Resource::file("x")).lease(lease).await.expect("free");
    let visit = room.enter(&stale).expect("valid");
    let seen = visit.begin(&stale).ok().expect("let through");

    let fresh = other.acquire(Resource::file("x")).await.expect("free when the lease is over");
    let next = room.enter(&fresh).expect("valid");
    next.begin(&fresh).ok().expect("let through");
    assert!(visit.end(&stale, &seen).is_err(), "the fence turns it away");
    assert_eq!((room.evicted.load(Relaxed), room.bounced.load(Relaxed)), (1, 1));
    assert!(room.enter(&stale).is_none(), "and so does the doorman");
    assert_eq!(room.most().exclusive, 1);
    assert_eq!(room.problems(), [""; 0]);
}
