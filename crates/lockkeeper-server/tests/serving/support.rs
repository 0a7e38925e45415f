//! A daemon in a folder of its own, and somebody who speaks to it line by line.

use lockkeeper::{Config, Durability, LockManager};
use lockkeeper_server::{Server, ServerConfig, StopReport, Stopper};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

/// Longer than anything here takes, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Where a daemon lives.
#[derive(Clone)]
pub(crate) struct Place {
    folder: Arc<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: Arc::new(tempfile::tempdir().unwrap()) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/it.sock")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("locks.db")
    }

    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::at(self.socket())
    }

    pub(crate) fn config(&self) -> Config {
        Config { attached_outlive: true, ..Config::at(self.store()) }
    }

    /// A daemon as users have it.
    pub(crate) async fn start(&self) -> Daemon {
        self.start_with(self.config(), self.server()).await
    }

    pub(crate) async fn start_with(&self, config: Config, server: ServerConfig) -> Daemon {
        let deadline = tokio::time::Instant::now() + LONG;
        let manager = loop {
            match LockManager::open_with(config.clone()).await {
                Ok(manager) => break manager,
                // The one before has been killed and may still be closing.
                Err(error) if tokio::time::Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        Daemon::over(self.clone(), manager, server).await
    }

    /// A daemon whose locks are in memory.
    pub(crate) async fn start_in_memory(&self, config: Config, server: ServerConfig) -> Daemon {
        let config = Config { durability: Durability::Memory, ..config };
        Daemon::over(self.clone(), LockManager::in_memory(config), server).await
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::new(UnixStream::connect(self.socket()).await.unwrap())
    }
}

/// A daemon that serves.
pub(crate) struct Daemon {
    pub(crate) place: Place,
    pub(crate) manager: Option<LockManager>,
    pub(crate) tcp: Vec<std::net::SocketAddr>,
    stopper: Option<Stopper>,
    running: JoinHandle<StopReport>,
}

impl Daemon {
    pub(crate) async fn over(place: Place, manager: LockManager, config: ServerConfig) -> Daemon {
        let server = Server::start(manager.clone(), config).await.unwrap();
        let (tcp, stopper) = (server.tcp().to_vec(), Some(server.stopper()));
        let running = tokio::spawn(server.run());
        Daemon { place, manager: Some(manager), tcp, stopper, running }
    }

    pub(crate) async fn connect(&self) -> Wire {
        self.place.connect().await
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> StopReport {
        if let Some(stopper) = self.stopper.take() {
            stopper.stop();
        }
        self.ended().await
    }

    pub(crate) async fn ended(mut self) -> StopReport {
        (self.manager, self.stopper) = (None, None);
        tokio::time::timeout(LONG, self.running).await.expect("it ends").unwrap()
    }

    /// It is gone, as if its process had died.
    pub(crate) async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

/// Somebody at the other end of a connection.
pub(crate) struct Wire {
    read: BufReader<ReadHalf<Box<dyn Duplex>>>,
    write: WriteHalf<Box<dyn Duplex>>,
    last: u64,
    notes: VecDeque<Value>,
    answers: HashMap<u64, Value>,
}

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a request came back with.
pub(crate) type Outcome = Result<Value, Value>;

impl Wire {
    pub(crate) fn new(stream: impl Duplex + 'static) -> Wire {
        let (read, write) = tokio::io::split(Box::new(stream) as Box<dyn Duplex>);
        let read = BufReader::new(read);
        Wire { read, write, last: 0, notes: VecDeque::new(), answers: HashMap::new() }
    }

    pub(crate) async fn tcp(addr: std::net::SocketAddr) -> Wire {
        Wire::new(TcpStream::connect(addr).await.unwrap())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Says nothing more, and goes on listening.
    pub(crate) async fn hush(&mut self) {
        self.write.shutdown().await.unwrap();
    }

    /// The next line; none at the end.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        let read = self.read.read_until(b'\n', &mut line);
        match tokio::time::timeout(LONG, read).await.expect("a line or the end") {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                assert_eq!(line.last(), Some(&b'\n'), "half a line");
                Some(serde_json::from_slice(&line).unwrap())
            }
        }
    }

    pub(crate) async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.write(format!("{request}\n").as_bytes()).await;
        id
    }

    pub(crate) async fn answer(&mut self, id: u64) -> Outcome {
        loop {
            if let Some(mut answer) = self.answers.remove(&id) {
                return match answer.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(answer["result"].take()),
                };
            }
            self.hear().await;
        }
    }

    /// What it says without being asked.
    pub(crate) async fn note(&mut self) -> Value {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return note;
            }
            self.hear().await;
        }
    }

    /// The notes that came so far: the daemon says them before it answers this.
    pub(crate) async fn notes(&mut self) -> Vec<Value> {
        self.call("ping", json!({})).await.unwrap();
        self.notes.drain(..).collect()
    }

    async fn hear(&mut self) {
        let heard = self.line().await.expect("the connection stands");
        match heard.get("method") {
            Some(_) => self.notes.push_back(heard),
            None => {
                let id = heard["id"].as_u64().unwrap_or_else(|| panic!("an answer: {heard}"));
                self.answers.insert(id, heard);
            }
        }
    }

    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Outcome {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    pub(crate) async fn open(&mut self, agent: &str) -> u64 {
        self.open_as(json!({"project": "p", "agent": agent})).await
    }

    pub(crate) async fn open_detached(&mut self, agent: &str) -> u64 {
        self.open_as(json!({"project": "p", "agent": agent, "kind": "detached"})).await
    }

    pub(crate) async fn open_as(&mut self, params: Value) -> u64 {
        let opened = self.call("session.open", params).await.unwrap();
        opened["session_opened"]["session"].as_u64().unwrap()
    }

    /// Takes a lock at once, or not.
    pub(crate) async fn take(&mut self, session: u64, resource: &str) -> Outcome {
        let ask = json!({"project": "p", "session": session, "resource": resource, "wait_ms": 0});
        let mut granted = self.call("acquire", ask).await?;
        Ok(granted["granted"][0].take())
    }

    /// Asks for a lock and waits for it.
    pub(crate) async fn ask(&mut self, session: u64, resource: &str) -> u64 {
        let ask = json!({"project": "p", "session": session, "resource": resource});
        self.send("acquire", ask).await
    }

    pub(crate) async fn release(&mut self, session: u64, grant: &Value) -> Outcome {
        let lock = &grant["lock"];
        self.call("release", json!({"project": "p", "session": session, "lock": lock})).await
    }

    /// What the project looks like in numbers.
    pub(crate) async fn stats(&mut self) -> Value {
        self.call("stats", json!({"project": "p"})).await.unwrap()
    }

    /// Waits until the table is as it should be.
    pub(crate) async fn until(&mut self, holds: u64, tickets: u64) {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let stats = self.stats().await;
            if stats["holds"] == holds && stats["tickets"] == tickets {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{stats}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn until_tickets(&mut self, tickets: u64) {
        let deadline = tokio::time::Instant::now() + LONG;
        while self.stats().await["tickets"] != tickets {
            assert!(tokio::time::Instant::now() < deadline, "{tickets} tickets");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn until_sessions(&mut self, sessions: u64) {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let stats = self.stats().await;
            if stats["sessions"] == sessions {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{stats}");
            tokio::task::yield_now().await;
        }
    }
}
