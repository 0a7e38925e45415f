//! A house to test in: a home, a runtime folder, a repository and a store of its own, so that no
//! test meets the user's locks, and no daemon outlives its test.
#![allow(dead_code, reason = "not every tool is taken up at all times")]

use serde_json::Value;
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything here may take. Only so that a hanging program fails its test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The exit code and both outputs, for when a test fails.
    pub(crate) fn all(&self) -> String {
        format!("exit {:?}\nstdout:\n{}\nstderr:\n{}", self.code, self.out, self.err)
    }

    /// That it ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{}", self.all());
        self
    }

    /// The one object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "one object, one line: {}", self.all());
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.all()))
    }
}

/// The binary, with nothing to read.
pub(crate) fn lockkeeper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockkeeper"));
    command.stdin(Stdio::null());
    command
}

/// Runs the binary where it needs no house.
pub(crate) fn run(args: &[&str]) -> Ran {
    Ran::of(lockkeeper().args(args).output().expect("the binary starts"))
}

/// A place of its own for a test. Its daemon, if one was started, ends with it.
pub(crate) struct House {
    folder: TempDir,
    /// What was started here, by number. A test that fails leaves some of it behind.
    started: RefCell<Vec<u32>>,
}

impl House {
    pub(crate) fn new() -> House {
        // The path of a socket must be short, and a build folder need not be.
        let folder = TempDir::with_prefix_in("lk", "/tmp").expect("a folder in /tmp");
        let house = House { folder, started: RefCell::default() };
        for name in ["home", "run", "repo/.git/objects", "repo/.git/refs", "repo/src"] {
            fs::create_dir_all(house.path(name)).expect("a folder");
        }
        fs::write(house.path("repo/.git/HEAD"), "ref: refs/heads/main\n").expect("a file");
        house
    }

    /// A path in the house.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The repository commands are run in.
    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// Where the store is, if there is one already.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("home/.local/state/lockkeeper/locks.db")
    }

    /// Where its daemon listens.
    pub(crate) fn socket(&self) -> PathBuf {
        // The name follows from the store; while a daemon runs there is only one.
        let folder = fs::read_dir(self.path("run/lockkeeper")).expect("a daemon was there");
        let mut names = folder.map(|entry| entry.expect("an entry").path());
        let lock = names.find(|path| path.to_string_lossy().ends_with(".sock.lock"));
        lock.expect("a daemon was there").with_extension("")
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Gives a command the variables and the folder of this house.
    pub(crate) fn furnish(&self, command: &mut Command) {
        command.env_clear().current_dir(self.repo());
        // What coverage and address sanitizers need, and where programs are.
        for name in ["PATH", "LLVM_PROFILE_FILE", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("USER", "ann")
            .env("LOCKKEEPER_AGENT", "ann")
            .env("TERM", "dumb");
    }

    /// The binary in this house.
    pub(crate) fn command(&self) -> Command {
        let mut command = lockkeeper();
        self.furnish(&mut command);
        command
    }

    /// Runs the binary with these arguments.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_command(self.command().args(args))
    }

    /// The binary for an agent.
    pub(crate) fn command_as(&self, agent: &str) -> Command {
        let mut command = self.command();
        command.env("LOCKKEEPER_AGENT", agent);
        command
    }

    /// Runs it for an agent.
    #[track_caller]
    pub(crate) fn run_as(&self, agent: &str, args: &[&str]) -> Ran {
        self.run_command(self.command_as(agent).args(args))
    }

    /// Waits until so many wait for a resource.
    #[track_caller]
    pub(crate) fn until_waiting(&self, resource: &str, number: usize) {
        self.until(&format!("{number} wait for {resource}"), || {
            self.run(&["queue", resource, "--json"]).exits(0).json()["waiting"] == number
        });
    }

    /// Runs a command line, words apart, none of them quoted.
    #[track_caller]
    pub(crate) fn say(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command to its end, which must come. What one of ours says to a program must have the
    /// shape that is promised.
    #[track_caller]
    pub(crate) fn run_command(&self, command: &mut Command) -> Ran {
        let ran = self.finish(self.start(command));
        if command.get_program() == env!("CARGO_BIN_EXE_lockkeeper") {
            let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
            crate::schema::check(&args.collect::<Vec<_>>(), &ran);
        }
        ran
    }

    /// Starts a command whose output is to be collected.
    pub(crate) fn start(&self, command: &mut Command) -> Child {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("it starts");
        self.started.borrow_mut().push(child.id());
        child
    }

    /// Waits for the end of one that was started, and of whatever it wrote.
    pub(crate) fn finish(&self, mut child: Child) -> Ran {
        let id = child.id();
        let store = self.store();
        let (done, is_done) = std::sync::mpsc::channel();
        // If it hangs, it is ended by its own number, and its test fails with what it said. So is
        // its daemon, which may be what keeps the pipe open.
        let watch = std::thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE).is_err() {
                kill(id, "KILL");
                owner(&store).into_iter().for_each(|daemon| kill(daemon, "KILL"));
            }
        });
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("it ends");
        let is_late = done.send(()).is_err();
        watch.join().expect("the watch ends");
        let ran = Ran::of(output);
        assert!(!is_late, "it did not end in {PATIENCE:?}: {}", ran.all());
        ran
    }

    /// The process that has the store open, as it says itself.
    pub(crate) fn daemon(&self) -> Option<u32> {
        owner(&self.store())
    }
}

fn owner(store: &Path) -> Option<u32> {
    let mut card = store.as_os_str().to_owned();
    card.push(".owner");
    let card: Value = serde_json::from_str(&fs::read_to_string(card).ok()?).ok()?;
    let pid = u32::try_from(card["pid"].as_u64()?).ok()?;
    is_ours(pid).then_some(pid)
}

impl Drop for House {
    fn drop(&mut self) {
        // Whoever still waits would start the next daemon.
        for pid in self.started.borrow().iter().filter(|&&pid| is_ours(pid)) {
            kill(*pid, "KILL");
        }
        let Some(pid) = self.daemon() else { return };
        let _ = self.command().arg("stop").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_ours(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if is_ours(pid) {
            kill(pid, "KILL");
        }
    }
}

/// Sends a signal to a process this test started, by its own number.
pub(crate) fn kill(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Whether this number still is a process of the binary under test.
pub(crate) fn is_ours(pid: u32) -> bool {
    let ours = Path::new(env!("CARGO_BIN_EXE_lockkeeper")).canonicalize().ok();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    exe.is_some() && exe == ours
}
