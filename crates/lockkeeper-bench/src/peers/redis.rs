//! Redis, the lock most people use: `SET key token NX PX`, and a script that deletes the key if the
//! token is still there. Spoken over one connection for each client.
//!
//! Whoever does not get it waits in one of two ways: asks again after a while (what its own page
//! tells to do), or blocks on a list that the release pushes to.

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
use std::{io::Write, path::PathBuf, process::Command, sync::Arc, time::Duration};

/// How long a key lives that nobody deletes.
const LEASE_MS: &str = "30000";

const RELEASE: &str = "if redis.call('get',KEYS[1])==ARGV[1] then \
    return redis.call('del',KEYS[1]) else return 0 end";

/// The same, and wakes one who blocks. A word that nobody takes does not stay.
const RELEASE_AND_WAKE: &str = "if redis.call('get',KEYS[1])==ARGV[1] then \
    redis.call('del',KEYS[1],KEYS[2]) redis.call('lpush',KEYS[2],'1') \
    redis.call('pexpire',KEYS[2],30000) return 1 else return 0 end";

/// All of them or none.
const ACQUIRE_ALL: &str = "for _,key in ipairs(KEYS) do \
    if redis.call('exists',key)==1 then return 0 end end \
    for _,key in ipairs(KEYS) do redis.call('set',key,ARGV[1],'PX',ARGV[2]) end return 1";

const RELEASE_ALL: &str = "local count=0 for _,key in ipairs(KEYS) do \
    if redis.call('get',key)==ARGV[1] then count=count+redis.call('del',key) end end return count";

/// What Redis keeps of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeps {
    /// Nothing.
    Nothing,
    /// What is older than a second.
    EverySecond,
    /// Everything that was acknowledged.
    Always,
}

/// How one waits for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// Asks again after between half of this and all of it.
    Polls(Duration),
    /// Blocks.
    Blocks,
}

/// A server.
pub(crate) struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    pub(crate) async fn start(keeps: Keeps) -> std::result::Result<Arc<Redis>, Missing> {
        let program = installed("redis-server")?;
        let started = async {
            let (folder, port) = (place::folder()?, place::free_port()?);
            let mut command = Command::new(program);
            let (append, sync) = match keeps {
                Keeps::Nothing => ("no", "everysec"),
                Keeps::EverySecond => ("yes", "everysec"),
                Keeps::Always => ("yes", "always"),
            };
            command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
            command.args(["--port", &port.to_string(), "--appendonly", append]);
            command.args(["--appendfsync", sync, "--unixsocket"]).arg(folder.path().join("s"));
            command.arg("--dir").arg(folder.path());
            let mut server = Server::start(command, folder, Signal::TERM)?;
            let socket = Address::Unix(server.folder.path().join("s"));
            server.ready(|| Wire::connect(&socket)).await?;
            Ok(Arc::new(Redis { server, port }))
        };
        started.await.map_err(|why| failed(&why))
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.server.folder.path().join("s")
    }

    fn unix(&self) -> Address {
        Address::Unix(self.socket())
    }

    fn tcp(&self) -> Address {
        Address::Tcp(self.port)
    }
}

/// A way to a server: by which door, and how one waits.
#[derive(Clone)]
pub(crate) struct Door {
    redis: Arc<Redis>,
    address: Address,
    waits: Waits,
}

impl Door {
    /// By its socket.
    pub(crate) fn unix(redis: &Arc<Redis>, waits: Waits) -> Door {
        Door { redis: redis.clone(), address: redis.unix(), waits }
    }

    /// By loopback.
    pub(crate) fn tcp(redis: &Arc<Redis>, waits: Waits) -> Door {
        Door { redis: redis.clone(), address: redis.tcp(), waits }
    }
}

/// One connection.
pub(crate) struct RedisClient {
    wire: Wire,
    waits: Waits,
    token: String,
    release: String,
    acquire_all: String,
    release_all: String,
    held: Vec<Key>,
    /// Keeps the server.
    _redis: Arc<Redis>,
}

impl Peer for Door {
    type Client = RedisClient;

    async fn client(&self, nth: usize) -> Result<RedisClient> {
        let mut wire = Wire::connect(&self.address).await?;
        let release = match self.waits {
            Waits::Polls(_) => RELEASE,
            Waits::Blocks => RELEASE_AND_WAKE,
        };
        let release = load(&mut wire, release).await?;
        let acquire_all = load(&mut wire, ACQUIRE_ALL).await?;
        let release_all = load(&mut wire, RELEASE_ALL).await?;
        let token = format!("client-{nth}-{:016x}", rand::random::<u64>());
        let (waits, held, _redis) = (self.waits, Vec::new(), self.redis.clone());
        Ok(RedisClient { wire, waits, token, release, acquire_all, release_all, held, _redis })
    }
}

/// Tells a script, and is told its name.
async fn load(wire: &mut Wire, script: &str) -> Result<String> {
    match ask(wire, &["SCRIPT", "LOAD", script]).await? {
        Reply::Text(name) => Ok(name),
        other => trouble(format!("no name for a script: {other:?}")),
    }
}

impl RedisClient {
    async fn try_acquire(&mut self, key: &Key) -> Result<bool> {
        let words = ["SET", &key.text, &self.token, "NX", "PX", LEASE_MS];
        match ask(&mut self.wire, &words).await? {
            Reply::Status => Ok(true),
            Reply::Nil => Ok(false),
            other => trouble(format!("SET is answered with {other:?}")),
        }
    }

    /// Until asking again is worth it.
    async fn wait(&mut self, key: &Key) -> Result<()> {
        match self.waits {
            Waits::Polls(most) => {
                let part = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(most.mul_f64(part)).await;
                Ok(())
            }
            Waits::Blocks => {
                let list = waking(key);
                ask(&mut self.wire, &["BLPOP", &list, "30"]).await.map(drop)
            }
        }
    }
}

/// The list on which one blocks.
fn waking(key: &Key) -> String {
    format!("{}:wake", key.text)
}

impl Client for RedisClient {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        while !self.try_acquire(key).await? {
            self.wait(key).await?;
        }
        self.held.push(key.clone());
        Ok(Granted::Yes)
    }

    async fn acquire_all(&mut self, keys: &[Key]) -> Result<()> {
        let count = keys.len().to_string();
        let mut words = vec!["EVALSHA", &self.acquire_all, &count];
        words.extend(keys.iter().map(|key| &*key.text));
        words.extend([&*self.token, LEASE_MS]);
        match ask(&mut self.wire, &words).await? {
            Reply::Number(1) => self.held.extend_from_slice(keys),
            other => return trouble(format!("several at once: {other:?}")),
        }
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        let reply = match self.held.as_slice() {
            [] => return Ok(()),
            [key] => match self.waits {
                Waits::Polls(_) => {
                    let words = ["EVALSHA", &self.release, "1", &key.text, &self.token];
                    ask(&mut self.wire, &words).await?
                }
                Waits::Blocks => {
                    let list = waking(key);
                    let words = ["EVALSHA", &self.release, "2", &key.text, &list, &self.token];
                    ask(&mut self.wire, &words).await?
                }
            },
            keys => {
                let count = keys.len().to_string();
                let mut words = vec!["EVALSHA", &self.release_all, &count];
                words.extend(keys.iter().map(|key| &*key.text));
                words.push(&self.token);
                ask(&mut self.wire, &words).await?
            }
        };
        match reply {
            Reply::Number(count) if count == self.held.len() as i64 => self.held.clear(),
            other => return trouble(format!("it was not held any more: {other:?}")),
        }
        Ok(())
    }
}

/// What Redis answers.
#[derive(PartialEq, Debug)]
enum Reply {
    /// A word such as `OK`.
    Status,
    Number(i64),
    Text(String),
    Nil,
    /// Several; what they are is of no interest here.
    Several,
}

async fn ask(wire: &mut Wire, words: &[&str]) -> Result<Reply> {
    write!(wire.out, "*{}\r\n", words.len())?;
    for word in words {
        write!(wire.out, "${}\r\n{word}\r\n", word.len())?;
    }
    wire.send().await?;
    loop {
        if let Some((reply, length)) = read(wire.there())? {
            wire.take(length);
            return Ok(reply);
        }
        wire.more().await?;
    }
}

/// The first reply, and how long it is; none if it is not whole yet.
fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[1..end])?;
    let after = end + 2;
    Ok(match bytes[0] {
        b'+' => Some((Reply::Status, after)),
        b'-' => return trouble(format!("Redis says: {line}")),
        b':' => Some((Reply::Number(line.parse()?), after)),
        b'$' | b'*' if line.starts_with('-') => Some((Reply::Nil, after)),
        b'$' => {
            let length: usize = line.parse()?;
            match bytes.get(after..after + length + 2) {
                Some(text) => {
                    let text = String::from_utf8_lossy(&text[..length]).into_owned();
                    Some((Reply::Text(text), after + length + 2))
                }
                None => None,
            }
        }
        b'*' => {
            let mut at = after;
            for _ in 0..line.parse::<usize>()? {
                match read(&bytes[at..])? {
                    Some((_, length)) => at += length,
                    None => return Ok(None),
                }
            }
            Some((Reply::Several, at))
        }
        other => return trouble(format!("Redis says something that begins with {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_when_they_are_whole() {
        let read = |text: &str| read(text.as_bytes()).unwrap();
        assert_eq!(read("+OK\r\n"), Some((Reply::Status, 5)));
        assert_eq!(read(":-12\r\n+OK"), Some((Reply::Number(-12), 6)));
        assert_eq!(read("$-1\r\n"), Some((Reply::Nil, 5)));
        assert_eq!(read("*-1\r\n"), Some((Reply::Nil, 5)));
        assert_eq!(read("$3\r\nabc\r\n"), Some((Reply::Text("abc".to_owned()), 9)));
        assert_eq!(read("*2\r\n$1\r\na\r\n:1\r\n"), Some((Reply::Several, 15)));
        for part in ["", ":1", ":1\r", "$3\r\nab", "$3\r\nabc\r", "*2\r\n:1\r\n", "*1\r\n$1\r\n"] {
            assert_eq!(read(part), None, "{part:?}");
        }
        assert!(super::read(b"-ERR no\r\n").is_err());
    }
}
