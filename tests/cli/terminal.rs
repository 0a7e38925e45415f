//! On a terminal: the live line of a wait, colours, widths, and a question that is answered.

use crate::support::{House, kill};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// A terminal somebody sits at.
struct Terminal {
    keys: File,
    seen: Arc<Mutex<Vec<u8>>>,
    eyes: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a command at a new terminal with so many columns.
    fn start(command: &mut Command, columns: u16) -> (Terminal, Child) {
        let desk = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&desk).expect("a terminal");
        unlockpt(&desk).expect("a terminal");
        let name = ptsname(&desk, Vec::new()).expect("its name");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&desk, size).expect("its size");
        let screen: OwnedFd =
            open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its end");
        let end = || Stdio::from(screen.try_clone().expect("another one"));
        let child = command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = child.expect("it starts");
        // The command keeps the pipes it was given; let go of them, or the end is never seen.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(screen);
        let mut reader = File::from(desk.try_clone().expect("another one"));
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let written = seen.clone();
        let eyes = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other end is closed says that it fails.
            while let Ok(1..) = reader.read(&mut bytes).inspect(|&count| {
                written.lock().expect("nobody panics").extend_from_slice(&bytes[..count]);
            }) {}
        });
        (Terminal { keys: File::from(desk), seen, eyes: Some(eyes) }, child)
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("nobody panics")).into_owned()
    }

    #[track_caller]
    fn until(&self, house: &House, words: &str) {
        house.until(&format!("{words:?} is shown"), || self.seen().contains(words));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a key");
    }

    /// Everything that was shown, and the exit code.
    fn finish(mut self, mut child: Child) -> (String, Option<i32>) {
        let code = child.wait().expect("it ends").code();
        if let Some(eyes) = self.eyes.take() {
            eyes.join().expect("it is read to its end");
        }
        (self.seen(), code)
    }
}

#[test]
fn a_wait_shows_who_has_it_the_place_and_the_time_left() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs", "--reason", "renaming"]).exits(0);
    let mut ask = house.command_as("bob");
    let (terminal, child) = Terminal::start(ask.args(["acquire", "a.rs", "--wait", "50s"]), 120);
    let line =
        "\rwaiting for file:a.rs, locked by ann for 'renaming'; number 1 of 1 in the queue, ";
    terminal.until(&house, line);
    kill(child.id(), "INT");
    let (seen, code) = terminal.finish(child);
    assert_eq!(code, Some(130), "{seen:?}");
    assert!(seen.ends_with("\r\x1b[Kinterrupted; you have left the queue\r\n"), "{seen:?}");
    house.until_waiting("a.rs", 0);

    // In a narrow one it stays one line.
    let mut ask = house.command_as("bob");
    let (terminal, child) = Terminal::start(ask.args(["acquire", "a.rs", "--wait", "50s"]), 40);
    terminal.until(&house, "…");
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    let (seen, code) = terminal.finish(child);
    assert_eq!(code, Some(0), "{seen:?}");
    let shown = seen.split('\r').map(|part| part.trim_end_matches("\x1b[K"));
    let live: Vec<&str> = shown.filter(|part| part.starts_with("waiting")).collect();
    assert!(!live.is_empty() && live.iter().all(|part| part.chars().count() < 40), "{live:?}");
    assert!(seen.contains("\x1b[Kfile:a.rs is locked by bob for 5 min"), "{seen:?}");
}

#[test]
fn colours_are_for_terminals_whose_owner_wants_them() {
    let house = House::new();
    house.run_as("ann", &["acquire", &format!("{}/a.rs", "deep/".repeat(30))]).exits(0);
    let (terminal, child) = Terminal::start(house.command().arg("status"), 60);
    let (seen, code) = terminal.finish(child);
    assert!(code == Some(0) && seen.contains("\x1b[2m") && seen.contains('…'), "{seen:?}");
    let plain = seen.replace("\x1b[2m", "").replace("\x1b[0m", "");
    let rows = plain.lines().filter(|line| line.contains("ann") || line.contains("RESOURCE"));
    assert!(rows.clone().count() == 2 && rows.clone().all(|row| row.chars().count() <= 60));
    let (terminal, child) = Terminal::start(house.command().arg("status").env("NO_COLOR", "1"), 60);
    let (seen, _) = terminal.finish(child);
    assert!(!seen.contains('\x1b'), "{seen:?}");
    assert!(!house.say("status").out.contains(['\x1b', '…']), "a pipe gets all of it");
}

#[test]
fn whoever_breaks_a_lock_is_asked() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let args = ["force-unlock", "a.rs", "--reason", "ann is gone"];
    for (keys, expected) in [("n\n", Some(77)), ("\n", Some(77)), ("y\n", Some(0))] {
        let mut ask = house.command_as("bob");
        let (mut terminal, child) = Terminal::start(ask.args(args), 100);
        terminal.until(&house, "Take file:a.rs away from whoever holds it? [y/N] ");
        assert!(terminal.seen().contains("by ann, taken "), "it shows what it breaks");
        terminal.press(keys);
        let (seen, code) = terminal.finish(child);
        assert_eq!(code, expected, "{seen:?}");
        let held = if expected == Some(0) { 0 } else { 1 };
        assert_eq!(house.say("status --json").json()["held"], held);
    }
}
