//! PostgreSQL, in the two ways people lock with it: advisory locks, and rows in a table of locks.
//! Its protocol is spoken by hand, with statements that are prepared once for each connection.

use super::{
    Client, Granted, Key, Peer,
    server::{Missing, Server, failed, installed},
    wire::{Address, Wire},
};
use crate::{
    place,
    trouble::{Result, trouble},
};
use rand::Rng;
use rustix::process::Signal;
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// Who takes the advisory lock, waiting as long as it takes.
const ADVISORY: Statements = Statements {
    acquire: "SELECT pg_advisory_lock($1::text::bigint)",
    acquire_all: "SELECT pg_advisory_lock(key) FROM \
        (SELECT unnest($1::text::bigint[]) AS key ORDER BY 1) AS keys",
    release: "SELECT pg_advisory_unlock_all()",
};

/// One row for each lock, with its owner, and until when. Whoever finds it taken asks again.
const ROWS: Statements = Statements {
    acquire: "INSERT INTO locks VALUES ($1, pg_backend_pid(), now() + interval '30 s') \
        ON CONFLICT (resource) DO UPDATE SET owner = excluded.owner, ends = excluded.ends \
        WHERE locks.ends < now() RETURNING 1",
    acquire_all: "INSERT INTO locks SELECT key, pg_backend_pid(), now() + interval '30 s' \
        FROM (SELECT unnest($1::text[]) AS key ORDER BY 1) AS keys RETURNING 1",
    release: "DELETE FROM locks WHERE owner = pg_backend_pid()",
};

const TABLE: &str = "CREATE TABLE locks (resource text PRIMARY KEY, owner integer NOT NULL, \
    ends timestamptz NOT NULL); CREATE INDEX ON locks (owner)";

struct Statements {
    acquire: &'static str,
    acquire_all: &'static str,
    release: &'static str,
}

/// How one locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Advisory,
    /// Asks again after between half of this and all of it.
    Rows(Duration),
}

/// A server.
pub(crate) struct Postgres {
    server: Server,
    port: u16,
}

impl Postgres {
    pub(crate) async fn start() -> std::result::Result<Arc<Postgres>, Missing> {
        let (initdb, postgres) = (installed("initdb")?, installed("postgres")?);
        Postgres::begin(&initdb, &postgres).await.map_err(|why| failed(&why))
    }

    async fn begin(initdb: &Path, postgres: &Path) -> Result<Arc<Postgres>> {
        let (folder, port) = (place::folder()?, place::free_port()?);
        // It refuses to run as root, so then its folder and it are given to somebody else.
        let user = match rustix::process::geteuid().is_root() {
            true => Some(unprivileged()?),
            false => None,
        };
        let as_user = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(folder.path());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let data = folder.path().join("data");
        let mut command = as_user(initdb);
        command.args(["--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C"]);
        let made = command.arg("--pgdata").arg(&data).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return trouble(format!("initdb: {}", said.lines().last().unwrap_or_default()));
        }
        let mut command = as_user(postgres);
        command.arg("-D").arg(&data).arg("-k").arg(folder.path());
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-c", "max_connections=200", "-c", "max_locks_per_transaction=256"]);
        let server = Server::start(command, folder, Signal::INT)?;
        let mut postgres = Postgres { server, port };
        let address = postgres.unix();
        let mut first = postgres.server.ready(|| Connection::open(&address)).await?;
        first.run(TABLE).await?;
        Ok(Arc::new(postgres))
    }

    fn unix(&self) -> Address {
        Address::Unix(self.server.folder.path().join(format!(".s.PGSQL.{}", self.port)))
    }
}

/// The user and group of whoever runs databases here.
fn unprivileged() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    for name in ["postgres", "nobody"] {
        let line = users.lines().find(|line| line.split(':').next() == Some(name));
        let mut fields = line.into_iter().flat_map(|line| line.split(':').skip(2));
        if let (Some(uid), Some(gid)) = (fields.next(), fields.next()) {
            return Ok((uid.parse()?, gid.parse()?));
        }
    }
    trouble("there is no user `postgres` or `nobody` to run it as")
}

/// A way to a server.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) by: By,
}

impl Peer for Door {
    type Client = PostgresClient;

    async fn client(&self, _: usize) -> Result<PostgresClient> {
        let mut connection = Connection::open(&self.postgres.unix()).await?;
        let statements = match self.by {
            By::Advisory => ADVISORY,
            By::Rows(_) => ROWS,
        };
        connection.prepare("a", statements.acquire).await?;
        connection.prepare("m", statements.acquire_all).await?;
        connection.prepare("r", statements.release).await?;
        Ok(PostgresClient { connection, by: self.by, _postgres: self.postgres.clone() })
    }
}

/// One connection.
pub(crate) struct PostgresClient {
    connection: Connection,
    by: By,
    /// Keeps the server.
    _postgres: Arc<Postgres>,
}

impl PostgresClient {
    fn word(&self, key: &Key) -> String {
        match self.by {
            By::Advisory => key.number.to_string(),
            By::Rows(_) => key.text.to_string(),
        }
    }
}

impl Client for PostgresClient {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let word = self.word(key);
        loop {
            match (self.connection.execute("a", Some(&word)).await?, self.by) {
                (Outcome::Rows(1), _) => return Ok(Granted::Yes),
                (Outcome::Rows(_), By::Rows(most)) => {
                    let part = rand::rng().random_range(0.5..1.0);
                    tokio::time::sleep(most.mul_f64(part)).await;
                }
                (Outcome::Failed(code), _) if code == "40P01" => return Ok(Granted::Deadlock),
                (outcome, _) => return trouble(format!("acquire: {outcome:?}")),
            }
        }
    }

    async fn acquire_all(&mut self, keys: &[Key]) -> Result<()> {
        let words: Vec<String> = keys.iter().map(|key| self.word(key)).collect();
        let all = format!("{{{}}}", words.join(","));
        match self.connection.execute("m", Some(&all)).await? {
            Outcome::Rows(count) if count == keys.len() => Ok(()),
            outcome => trouble(format!("several at once: {outcome:?}")),
        }
    }

    async fn release(&mut self) -> Result<()> {
        match self.connection.execute("r", None).await? {
            Outcome::Rows(_) => Ok(()),
            Outcome::Failed(code) => trouble(format!("release: error {code}")),
        }
    }
}

/// How a statement ended.
#[derive(PartialEq, Debug)]
enum Outcome {
    /// So many rows came back, or were changed.
    Rows(usize),
    /// With this error.
    Failed(String),
}

/// What is said over one connection. Each message is a letter, its length, and what it says.
struct Connection {
    wire: Wire,
}

impl Connection {
    async fn open(address: &Address) -> Result<Connection> {
        let mut wire = Wire::connect(address).await?;
        let words = b"user\0bench\0database\0postgres\0\0";
        wire.out.extend((words.len() as u32 + 8).to_be_bytes());
        wire.out.extend(196_608u32.to_be_bytes());
        wire.out.extend(words);
        let mut connection = Connection { wire };
        connection.outcome("connect").await?;
        Ok(connection)
    }

    /// Runs statements without parameters.
    async fn run(&mut self, statements: &str) -> Result<()> {
        self.write(b'Q', &[statements.as_bytes(), b"\0"]);
        self.outcome(statements).await
    }

    async fn prepare(&mut self, name: &str, statement: &str) -> Result<()> {
        self.write(b'P', &[name.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"]);
        self.write(b'S', &[]);
        self.outcome(statement).await
    }

    async fn outcome(&mut self, what: &str) -> Result<()> {
        match self.finish().await? {
            Outcome::Rows(_) => Ok(()),
            Outcome::Failed(code) => trouble(format!("{what}: error {code}")),
        }
    }

    /// Runs what was prepared, with at most one parameter, as text.
    async fn execute(&mut self, name: &str, parameter: Option<&str>) -> Result<Outcome> {
        // No portal name, then: formats, parameters, and formats of what comes back.
        let formats = [0u8, 0];
        match parameter {
            Some(text) => {
                let length = (text.len() as u32).to_be_bytes();
                let name = [b"\0", name.as_bytes(), b"\0", &formats[..]].concat();
                self.write(b'B', &[&name, &[0, 1], &length, text.as_bytes(), &formats]);
            }
            None => {
                let name = [b"\0", name.as_bytes(), b"\0", &formats[..]].concat();
                self.write(b'B', &[&name, &[0, 0], &formats]);
            }
        }
        self.write(b'E', &[b"\0\0\0\0\0"]);
        self.write(b'S', &[]);
        self.finish().await
    }

    fn write(&mut self, letter: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let out = &mut self.wire.out;
        out.push(letter);
        out.extend((length as u32 + 4).to_be_bytes());
        parts.iter().for_each(|part| out.extend(*part));
    }

    /// Sends, and reads until it is ready for the next.
    async fn finish(&mut self) -> Result<Outcome> {
        self.wire.send().await?;
        let (mut rows, mut failed) = (0, None);
        loop {
            self.wire.at_least(5).await?;
            let there = self.wire.there();
            let letter = there[0];
            let length = u32::from_be_bytes([there[1], there[2], there[3], there[4]]);
            let length = length as usize + 1;
            self.wire.at_least(length).await?;
            let body = &self.wire.there()[5..length];
            match letter {
                b'D' => rows += 1,
                b'C' if rows == 0 => rows = changed(body),
                b'E' => failed = Some(code(body)),
                _ => {}
            }
            self.wire.take(length);
            if letter == b'Z' {
                return Ok(failed.map_or(Outcome::Rows(rows), Outcome::Failed));
            }
        }
    }
}

/// How many rows a statement changed, from what it ends with: `INSERT 0 1`, `DELETE 1`.
fn changed(body: &[u8]) -> usize {
    let text = String::from_utf8_lossy(body);
    let last = text.trim_end_matches('\0').rsplit(' ').next().unwrap_or_default();
    last.parse().unwrap_or(0)
}

/// The code of an error, from its fields.
fn code(body: &[u8]) -> String {
    let mut fields = body.split(|&byte| byte == 0);
    let code = fields.find(|field| field.first() == Some(&b'C'));
    code.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_statements_are_understood() {
        assert_eq!(changed(b"INSERT 0 1\0"), 1);
        assert_eq!(changed(b"DELETE 12\0"), 12);
        assert_eq!(changed(b"CREATE TABLE\0"), 0);
        assert_eq!(code(b"SERROR\0C40P01\0Mdeadlock detected\0\0"), "40P01");
    }
}
