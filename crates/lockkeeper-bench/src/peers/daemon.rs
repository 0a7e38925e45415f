//! Ours as a daemon in a process of its own, and the barest client of it: JSON-RPC, one line a
//! request, written and read by hand.

use super::{
    Client, Granted, Key, Peer,
    library::PROJECT,
    server::Server,
    wire::{Address, Wire},
};
use crate::{
    place,
    trouble::{Result, trouble},
};
use rustix::process::Signal;
use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Names the program that is measured, where it is not beside this one.
pub(crate) const PROGRAM: &str = "LOCKKEEPER_BENCH_DAEMON";

/// A daemon.
pub(crate) struct Daemon {
    server: Server,
}

impl Daemon {
    /// `lockkeeper serve`, as it is shipped, with a store of its own.
    pub(crate) async fn start() -> Result<Arc<Daemon>> {
        let folder = place::folder()?;
        let store = folder.path().join("locks.db");
        Daemon::run(served()?, folder, &store, Signal::TERM).await
    }

    /// The same on this store; it will be killed in whatever it is at.
    pub(crate) async fn start_on(store: &Path) -> Result<Arc<Daemon>> {
        Daemon::run(served()?, place::folder()?, store, Signal::KILL).await
    }

    /// A daemon with other durability than the program offers: our own process once more, which
    /// serves the same way.
    pub(crate) async fn with(durability: &str) -> Result<Arc<Daemon>> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["serve", durability]);
        let folder = place::folder()?;
        let store = folder.path().join("locks.db");
        Daemon::run(command, folder, &store, Signal::TERM).await
    }

    async fn run(
        mut command: Command,
        folder: TempDir,
        store: &Path,
        end: Signal,
    ) -> Result<Arc<Daemon>> {
        let socket = folder.path().join("s");
        command.env("HOME", folder.path()).env("LOCKKEEPER_LOG", "error");
        command.env("LOCKKEEPER_STORE", store).env("LOCKKEEPER_SOCKET", socket);
        let mut server = Server::start(command, folder, end)?;
        let socket = Address::Unix(server.folder.path().join("s"));
        server.ready(|| Wire::connect(&socket)).await?;
        Ok(Arc::new(Daemon { server }))
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.server.folder.path().join("s")
    }

    /// Its store, unless it was started on another one.
    pub(crate) fn store(&self) -> PathBuf {
        self.server.folder.path().join("locks.db")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }
}

fn served() -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg("serve");
    Ok(command)
}

/// The program that was built beside this one.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = env::var_os(PROGRAM) {
        return Ok(program.into());
    }
    let own = env::current_exe()?;
    let beside = own.parent().map(|folder| folder.join("lockkeeper"));
    match beside.filter(|path| path.is_file()) {
        Some(program) => Ok(program),
        None => trouble(
            "the program `lockkeeper` is not beside this one: build it with \
             `cargo build --release`, or name it in LOCKKEEPER_BENCH_DAEMON",
        ),
    }
}

impl Peer for Arc<Daemon> {
    type Client = Caller;

    async fn client(&self, nth: usize) -> Result<Caller> {
        Caller::connect_as(self, PROJECT, &format!("agent-{nth}")).await
    }
}

/// One connection with one session.
pub(crate) struct Caller {
    wire: Wire,
    project: String,
    session: String,
    held: Vec<String>,
    /// Keeps the daemon.
    _daemon: Arc<Daemon>,
}

/// How a call ended.
pub(crate) enum Said {
    Result(String),
    Error(String),
}

impl Caller {
    /// Connects, and opens a session.
    pub(crate) async fn connect_as(
        daemon: &Arc<Daemon>,
        project: &str,
        agent: &str,
    ) -> Result<Caller> {
        let wire = Wire::connect(&Address::Unix(daemon.socket())).await?;
        let (project, session, held) = (project.to_owned(), String::new(), Vec::new());
        let mut caller = Caller { wire, project, session, held, _daemon: daemon.clone() };
        caller.session = caller.open(agent).await?;
        Ok(caller)
    }

    async fn open(&mut self, agent: &str) -> Result<String> {
        match self.call("session.open", &format!("\"agent\":\"{agent}\"")).await? {
            Said::Result(line) => Ok(after(&line, "\"session\":")?.to_owned()),
            Said::Error(line) => trouble(format!("no session: {line}")),
        }
    }

    /// Opens so many sessions more, each of which asks for a lock; nobody waits for an answer.
    pub(crate) async fn park(&mut self, count: usize, key: &Key) -> Result<()> {
        for nth in 0..count {
            let session = self.open(&format!("waits-{nth}")).await?;
            let params = format!("\"session\":{session},\"resource\":\"file:{}\"", key.text);
            self.write("acquire", &params)?;
            self.wire.send().await?;
        }
        Ok(())
    }

    /// Until so many wait, in the whole project.
    pub(crate) async fn all_wait(&mut self, count: usize) -> Result<()> {
        loop {
            let waiting = match self.call("stats", "").await? {
                Said::Result(line) => after(&line, "\"tickets\":")?.parse::<usize>()?,
                Said::Error(line) => return trouble(line),
            };
            if waiting >= count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One request and its answer.
    async fn call(&mut self, method: &str, params: &str) -> Result<Said> {
        self.write(method, params)?;
        self.wire.send().await?;
        self.read().await
    }

    fn write(&mut self, method: &str, params: &str) -> Result<()> {
        let Caller { wire, project, .. } = self;
        let comma = if params.is_empty() { "" } else { "," };
        Ok(writeln!(
            wire.out,
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\
             \"params\":{{\"project\":\"{project}\"{comma}{params}}}}}"
        )?)
    }

    /// The next answer; what the daemon says by itself meanwhile is passed over.
    async fn read(&mut self) -> Result<Said> {
        let wire = &mut self.wire;
        loop {
            let Some(end) = wire.there().iter().position(|&byte| byte == b'\n') else {
                wire.more().await?;
                continue;
            };
            let line = std::str::from_utf8(&wire.there()[..end])?;
            let said = match line {
                _ if !line.contains("\"id\":1") => None,
                _ if line.contains("\"result\":") => Some(Said::Result(line.to_owned())),
                _ => Some(Said::Error(line.to_owned())),
            };
            wire.take(end + 1);
            if let Some(said) = said {
                return Ok(said);
            }
        }
    }
}

/// What stands behind a name, up to the next sign.
fn after<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    match line.find(name).and_then(|at| line[at + name.len()..].split(['}', ',']).next()) {
        Some(found) => Ok(found),
        None => trouble(format!("no {name} in {line}")),
    }
}

impl Client for Caller {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let params = format!("\"session\":{},\"resource\":\"file:{}\"", self.session, key.text);
        match self.call("acquire", &params).await? {
            Said::Result(line) => self.held.push(after(&line, "\"lock\":")?.to_owned()),
            Said::Error(line) if line.contains("\"code\":\"deadlock\"") => {
                return Ok(Granted::Deadlock);
            }
            Said::Error(line) => return trouble(line),
        }
        Ok(Granted::Yes)
    }

    async fn acquire_all(&mut self, keys: &[Key]) -> Result<()> {
        let mut wants = String::new();
        for key in keys {
            let comma = if wants.is_empty() { "" } else { "," };
            wants.push_str(&format!("{comma}\"file:{}\"", key.text));
        }
        let params = format!("\"session\":{},\"wants\":[{wants}]", self.session);
        match self.call("acquire_all", &params).await? {
            Said::Result(line) => {
                let locks = line.split("\"lock\":").skip(1);
                let locks = locks.filter_map(|rest| rest.split(['}', ',']).next());
                self.held.extend(locks.map(str::to_owned));
            }
            Said::Error(line) => return trouble(line),
        }
        match self.held.len() == keys.len() {
            true => Ok(()),
            false => trouble("it was given less than it asked for"),
        }
    }

    async fn release(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        for lock in &held {
            let params = format!("\"session\":{},\"lock\":{lock}", self.session);
            self.write("release", &params)?;
        }
        if !held.is_empty() {
            self.wire.send().await?;
        }
        for _ in held {
            match self.read().await? {
                Said::Result(_) => {}
                // Who lost a deadlock has lost what others waited for.
                Said::Error(line) if line.contains("\"code\":\"not_holder\"") => {}
                Said::Error(line) => return trouble(line),
            }
        }
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        let params = format!("\"session\":{}", self.session);
        match self.call("session.close", &params).await? {
            Said::Result(_) => Ok(()),
            Said::Error(line) => trouble(line),
        }
    }
}
