//! The verb `run` when somebody dies, or a lock is lost: who goes on, and who does not.

use crate::{
    run::Running,
    support::{House, is_ours, kill},
};
use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Says `in`, and when it is asked to end, when that was.
const TOLD: &str = "trap 'date +%s%3N; exit 3' TERM; echo $LOCKKEEPER_EXPIRES_AT; echo in
    while :; do read x; done";

/// A run of this script, with its stdin open.
fn inside(house: &House, args: &[&str], script: &str) -> Running {
    let mut command = house.command();
    command.args(["run"]).args(args).args(["--", "sh", "-c", script]).stdin(Stdio::piped());
    Running::of(&mut command)
}

#[test]
fn if_it_is_killed_the_command_dies_and_the_lock_is_free() {
    let house = House::new();
    let script = "trap '' TERM HUP INT; echo in; exec cat";
    let mut running = inside(&house, &["gpu:0"], script);
    let input = running.process.stdin.take();
    assert_eq!(running.line(), "in");
    let next = house.start(house.command().args(["run", "gpu:0", "--", "echo", "served"]));
    house.until_waiting("gpu:0", 1);
    running.process.kill().expect("it is ours");
    // Its command had the pipe, too: so it is gone.
    assert_eq!(running.rest().0, None);
    // Its lease would have lasted far longer than a test may.
    assert_eq!(house.finish(next).exits(0).out, "served\n");
    drop(input);
}

#[test]
fn what_is_taken_away_ends_with_76() {
    let house = House::new();
    let script = "trap '' TERM; sh -c \"trap '' TERM HUP INT; echo in; exec cat\"; echo wrong";
    let mut running = inside(&house, &["gpu:0"], script);
    let input = running.process.stdin.take();
    assert_eq!(running.line(), "in");
    house.run_as("bob", &["force-unlock", "gpu:0", "--reason", "a test", "--yes"]).exits(0);
    let (code, out, err) = running.rest();
    assert_eq!((code, &*out), (Some(76), ""), "{err}");
    for words in ["gpu:0 was lost while 'sh' ran: it was taken away; 'sh' was ended", "why gpu:0"] {
        assert!(err.contains(words), "no {words:?}: {err}");
    }
    drop(input);
}

#[test]
fn what_is_lost_is_an_object_for_a_program() {
    let house = House::new();
    let mut running = inside(&house, &["gpu:0", "--json"], "echo in; exec cat");
    let input = running.process.stdin.take();
    assert_eq!(running.line(), "in");
    house.run(&["cleanup", "ann"]).exits(0);
    let (code, out, err) = running.rest();
    assert_eq!((code, &*out), (Some(76), ""), "stdout is the command's: {err}");
    let told: serde_json::Value = serde_json::from_str(&err).expect("one object");
    assert_eq!((&told["exit"], &told["error"]["why"]), (&76.into(), &"taken_away".into()));
    drop(input);
}

/// A daemon that is there but does not answer: nobody else can have the lock before its lease ends,
/// and by then nobody is inside.
#[test]
fn the_command_is_ended_before_a_lease_that_cannot_be_renewed() {
    let house = House::new();
    let mut running = inside(&house, &["gpu:0", "--lease", "8s"], TOLD);
    let input = running.process.stdin.take();
    let expires_at = running.line();
    assert_eq!(running.line(), "in");
    let daemon = house.daemon().expect("a daemon");
    kill(daemon, "STOP");
    let told_at = running.line();
    let (code, _, err) = running.rest();
    kill(daemon, "CONT");
    assert_eq!(code, Some(76), "{err}");
    assert!(err.contains("its lease could not be renewed in time"), "{err}");
    let date = Command::new("date").args(["-d", &expires_at, "+%s%3N"]).output().expect("`date`");
    let expires_at: u64 = String::from_utf8_lossy(&date.stdout).trim().parse().expect("a number");
    let told_at: u64 = told_at.parse().expect("a number");
    // A third of the lease, had it been renewed once.
    assert!(told_at < expires_at + 8_000 / 3, "{told_at} {expires_at}");
    drop(input);
}

#[test]
fn a_daemon_that_dies_is_started_again_and_the_command_goes_on() {
    let house = House::new();
    let mut running = inside(&house, &["gpu:0", "--lease", "6s"], "echo in; read x; echo out");
    assert_eq!(running.line(), "in");
    let before = house.daemon().expect("a daemon");
    kill(before, "KILL");
    while is_ours(before) {
        thread::sleep(Duration::from_millis(5));
    }
    // The run itself starts another one, with whom the lock is still held, after more than a lease.
    thread::sleep(Duration::from_secs(7));
    assert!(house.daemon().is_some_and(|daemon| daemon != before), "nobody started another one");
    house.run_as("bob", &["run", "-n", "gpu:0", "true"]).exits(75);
    drop(running.process.stdin.take());
    let (code, out, err) = running.rest();
    assert_eq!((code, &*out), (Some(0), "out\n"), "{err}");
    house.run_as("bob", &["run", "-n", "gpu:0", "true"]).exits(0);
}

/// The program inside is watched by a lock of the kernel's own, which dies with its process: it
/// ends with 55 if it finds somebody inside.
#[test]
fn of_fifty_one_is_inside_while_some_are_killed() {
    let house = House::new();
    let file = house.path("inside");
    fs::write(&file, "").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let mut runs: Vec<_> = (0..50)
        .map(|_| {
            let mut command = house.command();
            command.args(["run", "gpu:0", "--", "flock", "-n", "-F", "-E", "55", file]);
            house.start(command.args(["sleep", "0.01"]))
        })
        .collect();
    // Each third one is killed: some while they wait, some inside, some before either.
    for run in runs.iter_mut().step_by(3) {
        thread::sleep(Duration::from_millis(7));
        run.kill().expect("it is ours");
    }
    for (nth, run) in runs.into_iter().enumerate() {
        let ran = house.finish(run);
        let is_killed = nth % 3 == 0;
        assert!(ran.code == Some(0) || (is_killed && ran.code.is_none()), "{nth}: {}", ran.all());
    }
    let stats = house.run(&["status", "--json"]).exits(0).json();
    assert_eq!((&stats["held"], &stats["waiting"]), (&0.into(), &0.into()), "{stats}");
}
