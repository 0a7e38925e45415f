//! A daemon in a process of its own, with a store and a socket of its own.

use lockkeeper::remote::Address;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A daemon, which ends with its test.
pub(crate) struct Daemon {
    folder: TempDir,
    process: Child,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        // The path of a socket must be short, and a build folder need not be.
        let folder = TempDir::with_prefix_in("lk", "/tmp").expect("a folder in /tmp");
        let process = begin(&folder);
        Daemon { folder, process }
    }

    /// Kills it in whatever it is at.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Starts it on what the one before left behind.
    pub(crate) fn start_again(&mut self) {
        self.process = begin(&self.folder);
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.folder.path().join("s"))
    }
}

/// Starts it, and waits until it says that it serves.
fn begin(folder: &TempDir) -> Child {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lockkeeper"))
        .args(["serve", "--json"])
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
    process
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
