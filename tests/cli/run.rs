//! The verb `run`: the lines it understands, what the command gets, and the codes it ends with.

use crate::support::{House, kill};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A run whose command says things.
pub(crate) struct Running {
    pub(crate) process: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn of(command: &mut Command) -> Running {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = piped.spawn().expect("it starts");
        let out = process.stdout.take().map(BufReader::new).expect("it is a pipe");
        Running { process, out }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// What it ends with, once everybody who could write is gone: its code, stdout and stderr.
    pub(crate) fn rest(mut self) -> (Option<i32>, String, String) {
        let mut said = (String::new(), String::new());
        self.out.read_to_string(&mut said.0).expect("text");
        let mut err = self.process.stderr.take().expect("it is a pipe");
        err.read_to_string(&mut said.1).expect("text");
        (self.process.wait().expect("it is ours").code(), said.0, said.1)
    }
}

#[test]
fn the_command_runs_and_its_code_is_passed_on() {
    let house = House::new();
    for code in [0, 1, 42, 75, 255] {
        let exit = format!("exit {code}");
        house.run(&["run", "gpu:0", "--", "sh", "-c", &exit]).exits(code);
    }
    house.run(&["run", "gpu:0", "--", "sh", "-c", "kill -KILL $$"]).exits(137);
    let nothing = house.run(&["run", "gpu:0", "no-such-program"]).exits(127);
    assert_eq!(nothing.err, "lockkeeper: cannot run `no-such-program`: not found\n");
    let folder = house.run(&["run", "gpu:0", "/"]).exits(126);
    assert_eq!(folder.err, "lockkeeper: cannot run `/`: not executable (permission denied)\n");
    let free = house.run(&["check", "gpu:0", "--json"]).exits(0);
    assert_eq!(free.json()["resources"][0]["state"], "free", "{}", free.all());
}

#[test]
fn the_command_is_told_what_it_holds() {
    let house = House::new();
    let script = "for name in RESOURCE TOKEN LOCK_ID EXPIRES_AT SESSION PROJECT AGENT SOCKET; do
        eval echo \\\"\\$LOCKKEEPER_$name\\\"; done; lockkeeper status --json";
    let link = house.path("bin");
    fs::create_dir(&link).expect("a folder");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lockkeeper"), link.join("lockkeeper"))
        .expect("a link");
    let path = std::env::var("PATH").expect("UTF-8");
    let mut command = house.command();
    command.env("PATH", format!("{}:{path}", link.display())).env("LOCKKEEPER_TOKEN", "old");
    command.args(["run", "gpu:0", "src/../src/a.rs", "--as", "bob", "--", "sh", "-c", script]);
    let ran = house.run_command(&mut command).exits(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 13, "{}", ran.all());
    let mut resources = lines[0..2].to_vec();
    resources.sort_unstable();
    assert_eq!(resources, ["file:src/a.rs", "gpu:0"]);
    assert_eq!(lines[10], "bob");
    let status: Value = serde_json::from_str(lines[12]).expect("JSON");
    let listed = status["resources"].as_array().expect("a list");
    let locks: Vec<&Value> = listed.iter().map(|one| &one["holders"][0]).collect();
    for (at, resource) in lines[0..2].iter().enumerate() {
        let lock = locks.iter().find(|lock| lock["resource"] == **resource);
        let lock = lock.unwrap_or_else(|| panic!("{resource} is held: {status}"));
        assert_eq!((&lock["lock_id"], &lock["agent"]), (&lines[4 + at].into(), &"bob".into()));
        assert!(lines[2 + at].parse::<u64>().is_ok_and(|token| token > 0), "{}", ran.all());
        assert!(lines[6 + at].ends_with('Z'), "{}", ran.all());
    }
    // Whoever waits is told what for.
    assert_eq!(locks[0]["reason"], "sh");
}

#[test]
fn input_and_output_are_the_commands_own() {
    let house = House::new();
    let mut command = house.command();
    let mut process = command
        .args(["run", "gpu:0", "--", "sh", "-c", "cat; echo err >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let data = "line\n".repeat(100_000);
    let mut input = process.stdin.take().expect("it is a pipe");
    let written = data.clone();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, written.as_bytes()).expect("it is read");
    });
    let ran = house.finish(process).exits(0);
    writer.join().expect("no panic");
    assert!(ran.out == data, "{} bytes", ran.out.len());
    assert_eq!(ran.err, "err\n");
}

#[test]
fn what_is_not_obtained_is_told_and_nothing_runs() {
    let house = House::new();
    house.run_as("bob", &["acquire", "gpu:0", "--reason", "training"]).exits(0);
    let ran = "echo wrong >ran";
    let busy = house.run(&["run", "-n", "gpu:0", "--", "sh", "-c", ran]).exits(75);
    for words in ["gpu:0 is locked by bob", "for 'training'", "next: stand in the queue with -w"] {
        assert!(busy.err.contains(words), "no {words:?}: {}", busy.all());
    }
    let late = house.run(&["run", "-w", "0.03", "gpu:0", "--", "sh", "-c", ran]).exits(75);
    assert!(late.err.contains("not obtained in "), "{}", late.all());
    house.run(&["run", "-n", "-E", "9", "gpu:0", "--", "sh", "-c", ran]).exits(9);
    // All or nothing.
    house.run(&["run", "-n", "src/a.rs", "gpu:0", "--", "sh", "-c", ran]).exits(75);
    let told = house.run(&["run", "-n", "gpu:0", "--json", "--", "sh", "-c", ran]).exits(75);
    assert_eq!(told.json()["error"]["code"], "busy");
    assert!(!house.repo().join("ran").exists());
    assert_eq!(house.run(&["status", "--json"]).json()["held"], 1);
}

#[test]
fn lines_of_flock_work_as_they_are() {
    let house = House::new();
    let file = house.path("elsewhere.lock");
    let lock = file.to_str().expect("UTF-8");
    assert_eq!(house.run(&["run", "-n", lock, "echo", "-n", "a"]).exits(0).out, "a");
    assert_eq!(house.run(&["run", lock, "-c", "echo a | tr a b"]).exits(0).out, "b\n");
    house.run(&["run", "-xnw", "5", "-E", "7", lock, "sh", "-c", "exit 3"]).exits(3);
    assert!(!file.exists(), "nobody needs the file");
    // One lock, wherever it is named from.
    let mut command = house.command();
    let outer = command.args(["run", lock, "sh", "-c", "echo inside; read x"]);
    let mut running = Running::of(outer.stdin(Stdio::piped()));
    assert_eq!(running.line(), "inside");
    for folder in ["", "home", "repo/src"] {
        let mut command = house.command();
        command.current_dir(house.path(folder)).args(["run", "-n", "-E", "9", lock, "true"]);
        house.run_command(&mut command).exits(9);
    }
    // The lock space of a run around us is for paths within it.
    let nested = format!("{} run -n -E 9 {lock} true", env!("CARGO_BIN_EXE_lockkeeper"));
    house.run(&["run", "src/a.rs", "-c", &nested]).exits(9);
    drop(running.process.stdin.take());
    assert_eq!(running.rest().0, Some(1));
    let doubt = house.run(&["run", lock, "sh", "--", "x"]).exits(2);
    assert!(doubt.err.contains("is \"sh\" a resource, or the command to run?"), "{}", doubt.all());
}

#[test]
fn readers_are_inside_together() {
    let house = House::new();
    let script = "echo in; read x; echo $x";
    let mut runs: Vec<Running> = (0..3)
        .map(|_| {
            let mut command = house.command();
            command.args(["run", "-s", "docs:plan", "--", "sh", "-c", script]);
            Running::of(command.stdin(Stdio::piped()))
        })
        .collect();
    for run in &mut runs {
        assert_eq!(run.line(), "in");
    }
    house.run(&["run", "-n", "docs:plan", "true"]).exits(75);
    for mut run in runs {
        drop(run.process.stdin.take());
        assert_eq!(run.rest().0, Some(0));
    }
    house.run(&["run", "-n", "docs:plan", "true"]).exits(0);
}

#[test]
fn it_waits_until_it_is_its_turn() {
    let house = House::new();
    house.run_as("bob", &["acquire", "gpu:0"]).exits(0);
    let waiting = house.start(house.command().args(["run", "gpu:0", "--", "echo", "served"]));
    house.until_waiting("gpu:0", 1);
    house.run_as("bob", &["release", "gpu:0"]).exits(0);
    assert_eq!(house.finish(waiting).exits(0).out, "served\n");
}

#[test]
fn who_is_interrupted_has_left_the_queue() {
    let house = House::new();
    house.run_as("bob", &["acquire", "gpu:0"]).exits(0);
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let waiting = house.start(house.command().args(["run", "gpu:0", "echo", "wrong"]));
        house.until_waiting("gpu:0", 1);
        kill(waiting.id(), signal);
        let ran = house.finish(waiting).exits(code);
        assert_eq!((&*ran.out, &*ran.err), ("", "interrupted; you have left the queue\n"));
        house.until_waiting("gpu:0", 0);
    }
}

#[test]
fn two_shells_in_opposite_orders_do_not_hang() {
    let house = House::new();
    let binary = env!("CARGO_BIN_EXE_lockkeeper");
    let shell = |agent, first, second| {
        let script = format!("echo one; read x; {binary} run {second} -- echo both; echo $?");
        let mut command = house.command_as(agent);
        command.args(["run", first, "--", "sh", "-c", &script]).stdin(Stdio::piped());
        Running::of(&mut command)
    };
    let mut ann = shell("ann", "db:a", "db:b");
    let mut bob = shell("bob", "db:b", "db:a");
    assert_eq!((ann.line(), bob.line()), ("one".to_owned(), "one".to_owned()));
    drop(ann.process.stdin.take());
    house.until_waiting("db:b", 1);
    drop(bob.process.stdin.take());
    let (_, out, err) = bob.rest();
    assert_eq!(out, "79\n", "{err}");
    assert!(err.contains("deadlock"), "{err}");
    let (_, out, err) = ann.rest();
    assert_eq!(out, "both\n0\n", "{err}");
}

#[test]
fn what_an_agent_holds_otherwise_counts_in_a_deadlock() {
    let house = House::new();
    house.run_as("ann", &["acquire", "db:a"]).exits(0);
    house.run_as("bob", &["acquire", "db:b"]).exits(0);
    let ann = house.start(house.command_as("ann").args(["run", "db:b", "--", "echo", "both"]));
    house.until_waiting("db:b", 1);
    let bob = house.run_as("bob", &["run", "db:a", "--", "echo", "both"]).exits(79);
    assert!(bob.err.contains("deadlock"), "{}", bob.all());
    // Nobody but bob gave way, and so ann goes on when bob is done.
    house.run_as("bob", &["cleanup", "bob"]).exits(0);
    assert_eq!(house.finish(ann).exits(0).out, "both\n");
}

#[test]
fn a_run_that_waits_for_the_one_around_it_is_told_at_once() {
    let house = House::new();
    let nested = format!("{} run db:a -- echo wrong", env!("CARGO_BIN_EXE_lockkeeper"));
    let ran = house.run(&["run", "db:a", "-c", &nested]).exits(79);
    assert!(ran.err.contains("deadlock") && ran.out.is_empty(), "{}", ran.all());
}
