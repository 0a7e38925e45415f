//! On a terminal: who has it, and what its keys do.
//!
//! The terminal is ours: we are the person at it, and `setsid` puts a program in front of it.

use crate::{path, supervisor_word};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    process::{Child, Command, ExitStatus},
};

const INTERRUPT: &[u8] = b"\x03";
const STOP: &[u8] = b"\x1a";

/// A terminal with a program in front of it.
struct Terminal {
    keyboard: File,
    program: Child,
    seen: String,
}

impl Terminal {
    /// A shell in front of it: with a prompt and job control if `script` is empty.
    fn with_shell(shell: &str, script: &str) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("there are terminals to be had");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let open = || {
            // O_NOCTTY: it is to be the program's, not ours.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(0o400);
            options.open(name.to_str().expect("UTF-8")).expect("it is there")
        };
        let mut command = Command::new("setsid");
        command.args(["--ctty", shell]);
        match script {
            "" => command.args(["--norc", "--noediting", "-i"]),
            script => command.args(["-c", script]),
        };
        command.env("PATH", path()).env("PS1", "$ ").env_remove("HISTFILE").env_remove("ENV");
        command.stdin(open()).stdout(open()).stderr(open());
        let program = command.spawn().expect("there is a `setsid`, from util-linux");
        Terminal { keyboard: File::from(ours), program, seen: String::new() }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("somebody is there");
    }

    /// Waits until this is shown, and forgets all up to it.
    fn shows(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(wanted) {
                let rest = self.seen.split_off(at + wanted.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut bytes = [0; 1000];
            // Reading from a terminal nobody sits at is an error.
            let count = self.keyboard.read(&mut bytes).unwrap_or(0);
            assert!(count > 0, "no {wanted:?} in {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// All that is shown until everybody has left.
    fn rest(mut self) -> (ExitStatus, String) {
        let mut bytes = [0; 1000];
        while let Ok(count @ 1..) = self.keyboard.read(&mut bytes) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        (self.program.wait().expect("it is ours"), self.seen)
    }
}

/// Prints the process's group and the one that has the terminal.
const WHOSE: &str = "cut -d\\  -f5,8 /proc/self/stat";

fn has_terminal(line: &str) -> bool {
    let numbers: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(numbers.len(), 2, "{line}");
    numbers[0] == numbers[1]
}

pub(crate) fn from_the_prompt_the_command_has_the_terminal() {
    let us = supervisor_word();
    let terminal = Terminal::with_shell("bash", &format!("exec {us} {WHOSE}"));
    let (status, shown) = terminal.rest();
    assert!(status.success(), "{shown}");
    assert!(has_terminal(&shown), "{shown}");
    // With company in the group it has not: they might want to read, too.
    let terminal = Terminal::with_shell("bash", &format!("exec {us} {WHOSE} | cat"));
    let (_, shown) = terminal.rest();
    assert!(!has_terminal(&shown), "{shown}");
    let terminal = Terminal::with_shell("bash", &format!("{us} {WHOSE}; {WHOSE}"));
    let (_, shown) = terminal.rest();
    let mut lines = shown.lines().map(has_terminal);
    assert_eq!([lines.next(), lines.next()], [Some(false), Some(true)], "{shown}");
}

pub(crate) fn the_interrupt_key_is_told_from_a_code() {
    let script = format!("exec {} stay", supervisor_word());
    let mut terminal = Terminal::with_shell("bash", &script);
    terminal.shows("ready");
    terminal.press(INTERRUPT);
    let (status, shown) = terminal.rest();
    assert_eq!(status.signal(), Some(2), "{status:?} {shown}");
    // A command that ends by itself when told is not to be told apart.
    let script = "trap \"kill -9 \\$!; exit 4\" INT; stay & wait";
    let script = format!("exec {} sh -c '{script}'", supervisor_word());
    let mut terminal = Terminal::with_shell("bash", &script);
    terminal.shows("ready");
    terminal.press(INTERRUPT);
    let (status, shown) = terminal.rest();
    assert_eq!(status.code(), Some(4), "{status:?} {shown}");
}

pub(crate) fn the_interrupt_key_ends_the_script_around_us() {
    let us = supervisor_word();
    let script = format!("{us} stay; echo went on");
    let mut terminal = Terminal::with_shell("bash", &script);
    terminal.shows("ready");
    terminal.press(INTERRUPT);
    let (status, shown) = terminal.rest();
    assert!(!shown.contains("went on"), "{status:?} {shown}");
    assert_eq!(status.signal(), Some(2), "{status:?} {shown}");
}

pub(crate) fn in_a_script_the_terminal_is_lent() {
    let us = supervisor_word();
    let ask = "read x </dev/tty; echo got $x";
    let script = format!("{us} sh -c '{ask}'; read y; echo then $y; {us} sh -c '{ask}'");
    for shell in ["bash", "sh"] {
        let mut terminal = Terminal::with_shell(shell, &script);
        for (keys, shown) in [("one\n", "got one"), ("two\n", "then two"), ("three\n", "got three")]
        {
            terminal.press(keys.as_bytes());
            terminal.shows(shown);
        }
        let (status, shown) = terminal.rest();
        assert!(status.success(), "{shell}: {status:?} {shown}");
    }
}

pub(crate) fn the_stop_key_stops_us_and_fg_lets_us_go_on() {
    let us = supervisor_word();
    let mut terminal = Terminal::with_shell("bash", "");
    terminal.shows("$ ");
    // Once as a command that has the terminal, and once in a pipeline, where it has not.
    for command in [format!("{us} cat"), format!("{us} cat </dev/tty | cat")] {
        terminal.press(format!("{command}; echo code=$?\n").as_bytes());
        terminal.shows("code=$?");
        terminal.press(b"one\n");
        terminal.shows("one\r\none\r\n");
        terminal.press(STOP);
        terminal.shows("Stopped");
        terminal.shows("$ ");
        // The shell has the terminal now, and the command does not read what is meant for it.
        terminal.press(b"echo $((6 * 7))\n");
        terminal.shows("\n42\r\n");
        terminal.press(b"fg\n");
        terminal.shows("cat");
        terminal.press(b"two\n");
        terminal.shows("two\r\ntwo\r\n");
        terminal.press(b"\x04");
        terminal.shows("$ ");
    }
    terminal.press(b"exit 9\n");
    let (status, shown) = terminal.rest();
    assert_eq!(status.code(), Some(9), "{shown}");
}
