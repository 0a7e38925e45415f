//! MariaDB, in the two ways people lock with it: `GET_LOCK`, and rows that a transaction of InnoDB
//! changes. Its protocol is spoken by hand, with plain texts.

use super::{
    Client, Granted, Key, Peer,
    server::{Missing, Server, failed, installed},
    wire::{Address, Wire},
};
use crate::{
    place,
    trouble::{Result, trouble},
};
use rustix::process::Signal;
use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

/// How one locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Locks with names, which end with the connection.
    GetLock,
    /// Rows that are changed in a transaction.
    Rows,
}

/// A server.
pub(crate) struct Mariadb {
    server: Server,
}

/// More rows than any ring or batch wants.
const ROWS: usize = 4096;

impl Mariadb {
    pub(crate) async fn start() -> std::result::Result<Arc<Mariadb>, Missing> {
        let server = installed("mariadbd")?;
        let install = installed("mariadb-install-db")?;
        Mariadb::begin(&install, &server).await.map_err(|why| failed(&why))
    }

    async fn begin(install: &Path, program: &Path) -> Result<Arc<Mariadb>> {
        let folder = place::folder()?;
        let data = folder.path().join("data");
        let mut command = Command::new(install);
        command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
        command.arg("--skip-test-db").args(user());
        command.arg(format!("--datadir={}", data.display()));
        let made = command.stdin(Stdio::null()).output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return trouble(format!("mariadb-install-db: {}", said.trim()));
        }
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--skip-networking", "--max-connections=300"]);
        command.arg("--skip-name-resolve").args(user());
        command.arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", folder.path().join("s").display()));
        command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        let server = Server::start(command, folder, Signal::TERM)?;
        let mut mariadb = Mariadb { server };
        let address = mariadb.unix();
        let mut first = mariadb.server.ready(|| Connection::open(&address)).await?;
        first.run("CREATE DATABASE bench").await?;
        first
            .run("CREATE TABLE bench.locks (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB")
            .await?;
        let rows: Vec<String> = (0..ROWS).map(|id| format!("({id},0)")).collect();
        first.run(&format!("INSERT INTO bench.locks VALUES {}", rows.join(","))).await?;
        Ok(Arc::new(mariadb))
    }

    fn unix(&self) -> Address {
        Address::Unix(self.server.folder.path().join("s"))
    }
}

/// It refuses to run as root unless it is told to.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

/// A way to a server.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) mariadb: Arc<Mariadb>,
    pub(crate) by: By,
}

impl Peer for Door {
    type Client = MariadbClient;

    async fn client(&self, _: usize) -> Result<MariadbClient> {
        let mut connection = Connection::open(&self.mariadb.unix()).await?;
        connection.run("SET SESSION innodb_lock_wait_timeout = 300").await?;
        Ok(MariadbClient { connection, by: self.by, held: 0, _mariadb: self.mariadb.clone() })
    }
}

/// One connection.
pub(crate) struct MariadbClient {
    connection: Connection,
    by: By,
    held: usize,
    /// Keeps the server.
    _mariadb: Arc<Mariadb>,
}

/// What MariaDB says to whoever closed a ring.
const DEADLOCK: u16 = 1213;

impl Client for MariadbClient {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let outcome = match self.by {
            By::GetLock => {
                let ask = format!("SELECT GET_LOCK('{}', 300)", key.text);
                self.connection.ask(&ask).await?
            }
            By::Rows => {
                if self.held == 0 {
                    self.connection.run("BEGIN").await?;
                }
                let id = key.number % ROWS;
                let ask = format!("UPDATE bench.locks SET n = n + 1 WHERE id = {id}");
                self.connection.ask(&ask).await?
            }
        };
        match outcome {
            Outcome::Failed(DEADLOCK) => {
                // The transaction was rolled back; named locks stay.
                if self.by == By::Rows {
                    self.held = 0;
                }
                Ok(Granted::Deadlock)
            }
            Outcome::Ok if self.by == By::Rows => self.one_more(),
            Outcome::First(said) if said == "1" => self.one_more(),
            outcome => trouble(format!("acquire: {outcome:?}")),
        }
    }

    async fn release(&mut self) -> Result<()> {
        if self.held == 0 {
            return Ok(());
        }
        self.held = 0;
        match self.by {
            By::GetLock => match self.connection.ask("SELECT RELEASE_ALL_LOCKS()").await? {
                Outcome::First(_) => Ok(()),
                outcome => trouble(format!("release: {outcome:?}")),
            },
            By::Rows => self.connection.run("COMMIT").await,
        }
    }
}

impl MariadbClient {
    fn one_more(&mut self) -> Result<Granted> {
        self.held += 1;
        Ok(Granted::Yes)
    }
}

/// How a statement ended.
#[derive(PartialEq, Debug)]
enum Outcome {
    /// Without rows.
    Ok,
    /// With rows; the first field of the first one.
    First(String),
    /// With this error.
    Failed(u16),
}

/// What is said over one connection: packets of a length, a number, and what they say.
struct Connection {
    wire: Wire,
}

impl Connection {
    /// Connects as `root`, who has no password here.
    async fn open(address: &Address) -> Result<Connection> {
        const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
        let wire = Wire::connect(address).await?;
        let mut connection = Connection { wire };
        let greeting = connection.packet().await?;
        if greeting.first() != Some(&10) {
            return trouble("it greets in another protocol");
        }
        let mut hello = CAPABILITIES.to_le_bytes().to_vec();
        hello.extend((1u32 << 24).to_le_bytes());
        hello.push(45);
        hello.extend([0; 23]);
        hello.extend(b"root\0\0mysql_native_password\0");
        connection.write(1, &[&hello]);
        connection.wire.send().await?;
        match connection.packet().await?.first() {
            Some(0) => Ok(connection),
            said => trouble(format!("it does not let us in: {said:?}")),
        }
    }

    /// Runs a statement that gives no rows.
    async fn run(&mut self, statement: &str) -> Result<()> {
        match self.ask(statement).await? {
            Outcome::Ok => Ok(()),
            outcome => {
                let start: String = statement.chars().take(60).collect();
                trouble(format!("{start}: {outcome:?}"))
            }
        }
    }

    async fn ask(&mut self, statement: &str) -> Result<Outcome> {
        const QUERY: u8 = 3;
        self.write(0, &[&[QUERY], statement.as_bytes()]);
        self.wire.send().await?;
        let first = self.packet().await?;
        match first.first() {
            Some(0) => return Ok(Outcome::Ok),
            Some(255) => return Ok(Outcome::Failed(code(&first))),
            _ => {}
        }
        // Columns up to an end, then rows up to another one.
        while !is_end(&self.packet().await?) {}
        let mut field = None;
        loop {
            let row = self.packet().await?;
            if row.first() == Some(&255) {
                return Ok(Outcome::Failed(code(&row)));
            }
            if is_end(&row) {
                return Ok(Outcome::First(field.unwrap_or_default()));
            }
            let length = usize::from(row.first().copied().unwrap_or_default());
            let text = row.get(1..=length).unwrap_or_default();
            field.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
        }
    }

    fn write(&mut self, number: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let out = &mut self.wire.out;
        out.extend(&(length as u32).to_le_bytes()[..3]);
        out.push(number);
        parts.iter().for_each(|part| out.extend(*part));
    }

    async fn packet(&mut self) -> Result<Vec<u8>> {
        self.wire.at_least(4).await?;
        let there = self.wire.there();
        let length = u32::from_le_bytes([there[0], there[1], there[2], 0]) as usize + 4;
        self.wire.at_least(length).await?;
        let packet = self.wire.there()[4..length].to_vec();
        self.wire.take(length);
        Ok(packet)
    }
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&254) && packet.len() < 9
}

fn code(packet: &[u8]) -> u16 {
    match packet {
        [_, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}
