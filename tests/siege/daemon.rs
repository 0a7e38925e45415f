//! A daemon in a process of its own, with a store and a socket of its own.

use lockkeeper::remote::Address;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A daemon, which ends with its test.
pub(crate) struct Daemon {
    folder: TempDir,
    process: Child,
    said: String,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// With these arguments as well, which another start does without.
    pub(crate) fn start_with(args: &[&str]) -> Daemon {
        // The path of a socket must be short, and a build folder need not be.
        let folder = TempDir::with_prefix_in("lk", "/tmp").expect("a folder in /tmp");
        let (process, said) = begin(&folder, args);
        Daemon { folder, process, said }
    }

    /// What it said when it began to serve.
    pub(crate) fn said(&self) -> serde_json::Value {
        serde_json::from_str(&self.said).expect("JSON")
    }

    /// Kills it in whatever it is at.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Starts it on what the one before left behind.
    pub(crate) fn start_again(&mut self) {
        (self.process, self.said) = begin(&self.folder, &[]);
    }

    /// Stops it where it is, as a machine that sleeps does.
    pub(crate) fn pause(&self) {
        signal(&self.process, Signal::STOP);
    }

    /// Lets it go on as if nothing had happened.
    pub(crate) fn go_on(&self) {
        signal(&self.process, Signal::CONT);
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its folder; it goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket())
    }
}

/// Sends a signal to a process that we started and that was not waited for yet.
pub(crate) fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_child(process);
    kill_process(pid, signal).expect("it is ours");
}

/// Starts it, and waits until it says that it serves.
fn begin(folder: &TempDir, args: &[&str]) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lockkeeper"))
        .args(["serve", "--json"])
        .args(args)
        .env_clear()
        .env("HOME", folder.path())
        .env("LOCKKEEPER_STORE", folder.path().join("locks.db"))
        .env("LOCKKEEPER_SOCKET", folder.path().join("s"))
        .env("LOCKKEEPER_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = String::new();
    let stdout = process.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut said).expect("it says something");
    assert!(said.contains(r#""ok":true"#), "it does not serve: {said}");
    (process, said)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
