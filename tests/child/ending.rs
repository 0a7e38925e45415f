//! Signals, deaths, and who is left after them.

use crate::{Running, await_process, await_stop, path, supervisor, supervisor_word};
use std::{
    fs,
    process::{Command, Stdio},
};

pub(crate) fn a_signal_to_us_is_passed_on() {
    let all = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("TERM", 15),
        ("ALRM", 14),
        ("USR1", 10),
        ("USR2", 12),
        ("WINCH", 28),
    ];
    // What these tests were started to ignore, as under `nohup`, a shell cannot undo.
    let ignored = ignored();
    let heeded = all.into_iter().filter(|(_, number)| ignored >> (number - 1) & 1 == 0);
    let heeded: Vec<&str> = heeded.map(|(name, _)| name).collect();
    assert!(heeded.contains(&"TERM"), "{heeded:?}");
    for name in heeded {
        let script = format!("trap 'echo {name}; kill -9 $! 2>&-; exit 7' {name}; stay & wait");
        let mut running = Running::shell(&script, &[]);
        assert_eq!(running.line(), "ready");
        running.signal(name);
        assert_eq!(running.rest(), (Some(7), format!("{name}\n")));
    }
}

/// The signals that this process ignores, a bit each.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(mask.expect("it says so").trim(), 16).expect("a mask")
}

pub(crate) fn a_signal_that_was_ignored_is_not_passed_on() {
    // As under `nohup`: neither we nor the command end.
    let script = format!("trap '' HUP; exec {} \"$@\"", supervisor_word());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh", "stay"]).env("PATH", path());
    let mut running = Running::of(&mut shell);
    assert_eq!(running.line(), "ready");
    running.signal("HUP");
    running.signal("TERM");
    assert_eq!(running.rest(), (Some(143), String::new()));
}

pub(crate) fn the_command_dies_of_what_we_are_told() {
    let mut running = Running::shell("stay", &[]);
    assert_eq!(running.line(), "ready");
    running.signal("TERM");
    assert_eq!(running.rest(), (Some(143), String::new()));
}

pub(crate) fn the_command_dies_with_us_at_once() {
    // Before there is anybody to watch. Many times, to hit many moments.
    for _ in 0..30 {
        let mut running = Running::of(supervisor().arg("cat").stdin(Stdio::piped()));
        let input = running.process.stdin.take();
        running.process.kill().expect("it is ours");
        assert_eq!(running.rest(), (None, String::new()));
        drop(input);
    }
    let script = "trap '' TERM HUP INT; echo ready; exec cat";
    let mut command = supervisor();
    let mut running = Running::of(command.args(["sh", "-c", script]).stdin(Stdio::piped()));
    let input = running.process.stdin.take();
    assert_eq!(running.line(), "ready");
    running.process.kill().expect("it is ours");
    assert_eq!(running.rest(), (None, String::new()));
    drop(input);
}

pub(crate) fn what_the_command_started_dies_with_us() {
    let script = "(trap '' TERM HUP INT; stay; stay) & echo $$; wait";
    let mut running = Running::shell(script, &[]);
    // Both in either order.
    let lines = [running.line(), running.line()];
    let leader = lines.iter().find(|line| *line != "ready").expect("the shell's number");
    await_process(&["__watch", leader]);
    running.process.kill().expect("it is ours");
    assert_eq!(running.rest(), (None, String::new()));
}

pub(crate) fn what_is_only_prepared_dies_with_us() {
    let mut running = Running::shell("echo wrong", &[("THEN", "prepare")]);
    assert_eq!(running.line(), "prepared");
    running.signal("TERM");
    assert_eq!(running.rest(), (Some(99), String::new()));
    let mut running = Running::shell("echo wrong", &[("THEN", "prepare")]);
    assert_eq!(running.line(), "prepared");
    running.process.kill().expect("it is ours");
    assert_eq!(running.rest(), (None, String::new()));
}

pub(crate) fn who_ignores_the_request_to_end_is_killed() {
    // The leader goes at once, what it started does not: the group outlives its leader.
    let script = "sh -c \"trap '' TERM HUP INT; stay\" & wait";
    let mut running = Running::shell(script, &[("THEN", "end"), ("GRACE", "50")]);
    assert_eq!(running.line(), "ready");
    running.signal("URG");
    assert_eq!(running.rest(), (Some(143), String::new()));
    // Nobody goes.
    let script = "trap '' TERM; exec stay";
    let mut running = Running::shell(script, &[("THEN", "end"), ("GRACE", "50")]);
    assert_eq!(running.line(), "ready");
    running.signal("URG");
    assert_eq!(running.rest(), (Some(137), String::new()));
}

pub(crate) fn who_needs_a_moment_to_end_gets_it() {
    // Only as long as needed: the grace is longer than a test may take.
    let worker = "trap 'sleep 0.2; echo clean; exit' TERM; stay & wait";
    let script = format!("sh -c \"{worker}\" & wait");
    let mut running = Running::shell(&script, &[("THEN", "end"), ("GRACE", "600000")]);
    assert_eq!(running.line(), "ready");
    running.signal("URG");
    assert_eq!(running.rest(), (Some(143), "clean\n".to_owned()));
    // And it is told when it has none.
    let mut running = Running::shell(&script, &[("THEN", "end")]);
    assert_eq!(running.line(), "ready");
    running.signal("URG");
    assert_eq!(running.rest().1, "");
}

pub(crate) fn who_is_stopped_ends_too() {
    let script = "trap 'echo clean; exit 3' TERM; echo $$; kill -STOP $$; echo wrong";
    let mut running = Running::shell(script, &[("THEN", "end"), ("GRACE", "600000")]);
    await_stop(&running.line());
    running.signal("URG");
    assert_eq!(running.rest(), (Some(3), "clean\n".to_owned()));
}

pub(crate) fn what_a_command_leaves_behind_can_be_ended() {
    let script = "(trap '' TERM; exec stay) & exit 5";
    let running = Running::shell(script, &[("GRACE", "50"), ("THEN", "end")]);
    let (code, out) = running.rest();
    assert_eq!(code, Some(5));
    assert!(["", "ready\n"].contains(&&*out), "{out}");
}

pub(crate) fn what_a_command_leaves_behind_is_left_in_peace() {
    let folder = tempfile::tempdir().expect("a folder");
    let [go, late] = ["go", "late"].map(|name| folder.path().join(name).display().to_string());
    for fifo in [&go, &late] {
        assert!(Command::new("mkfifo").arg(fifo).status().expect("mkfifo").success());
    }
    let script = format!("(read x <{late}; echo $x) & echo $$; read x <{go}");
    let mut running = Running::shell(&script, &[]);
    let leader = running.line();
    await_process(&["__watch", &leader]);
    fs::write(go, "go\n").expect("it is read");
    assert_eq!(running.process.wait().expect("it is ours").code(), Some(0));
    fs::write(late, "still here\n").expect("it is read");
    assert_eq!(running.rest(), (Some(0), "still here\n".to_owned()));
}

pub(crate) fn a_child_that_is_dropped_dies() {
    let script = "trap '' TERM; exec stay";
    let mut running = Running::shell(script, &[("THEN", "drop")]);
    assert_eq!(running.line(), "ready");
    running.signal("URG");
    assert_eq!(running.rest(), (Some(99), String::new()));
}
