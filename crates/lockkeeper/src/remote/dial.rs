//! Opens a connection and says hello.

use super::{Address, ConnectError, pump::Stream};
use crate::wire::{self, ErrorObject, HELLO, Hello, HelloAsk, Incoming, PROTOCOL, Request};
use std::{io, time::Duration};
use tokio::{
    net::{TcpStream, UnixStream},
    time::Instant,
};

/// How long a daemon may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// A connection whose other end has said who it is.
pub(super) struct Dialled {
    pub(super) stream: Stream,
    pub(super) hello: Hello,
    /// What was read behind the hello.
    pub(super) read: Vec<u8>,
    /// When the hello was asked for: the daemon's clock was read after that.
    pub(super) asked: Instant,
}

pub(super) async fn dial(address: &Address) -> Result<Dialled, ConnectError> {
    match tokio::time::timeout(HELLO_WITHIN, say_hello(address)).await {
        Ok(dialled) => dialled,
        Err(_) => {
            let source = io::Error::new(io::ErrorKind::TimedOut, "it does not say hello");
            Err(ConnectError::Io { address: address.clone(), source })
        }
    }
}

async fn say_hello(address: &Address) -> Result<Dialled, ConnectError> {
    let mut stream = open(address).await.map_err(|error| ConnectError::of(address, error))?;
    if let Stream::Unix(stream) = &stream {
        know(address, stream, rustix::process::geteuid().as_raw())?;
    }
    let token = match address {
        Address::Tcp { token, .. } => token.clone(),
        Address::Unix(_) => None,
    };
    let client = concat!("lockkeeper ", env!("CARGO_PKG_VERSION")).to_owned();
    let ask = HelloAsk { client, token };
    let io = |source| ConnectError::Io { address: address.clone(), source };
    let request = Request { jsonrpc: "2.0", id: Some(0), method: HELLO, params: ask };
    let mut line = serde_json::to_vec(&request).map_err(|error| io(error.into()))?;
    line.push(b'\n');
    let asked = Instant::now();
    // A daemon that turns somebody away may have said why and closed before it read anything.
    let written = stream.write_all(&line).await;
    let mut read = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = read.iter().position(|&byte| byte == b'\n') {
            break end;
        }
        if stream.read(&mut read).await.map_err(io)? == 0 {
            written.map_err(io)?;
            let closed = "it closed the connection without a word";
            return Err(io(io::Error::new(io::ErrorKind::UnexpectedEof, closed)));
        }
    };
    let hello = heard(address, &read[..end])?;
    read.drain(..=end);
    Ok(Dialled { stream, hello, read, asked })
}

async fn open(address: &Address) -> io::Result<Stream> {
    Ok(match address {
        Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        Address::Tcp { addr, .. } => {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
    })
}

/// Whoever can write the folder of a socket can put one of his own there. In a folder such as
/// `/tmp` that is everybody, and he could say that all is granted.
fn know(address: &Address, stream: &UnixStream, me: u32) -> Result<(), ConnectError> {
    let peer = stream.peer_cred().map_err(|error| ConnectError::of(address, error))?;
    match is_trusted(peer.uid(), me) {
        true => Ok(()),
        false => Err(ConnectError::ForeignDaemon { address: address.clone(), uid: peer.uid() }),
    }
}

fn is_trusted(uid: u32, me: u32) -> bool {
    uid == me || uid == 0
}

/// What a daemon said to the hello.
fn heard(address: &Address, line: &[u8]) -> Result<Hello, ConnectError> {
    let address = address.clone();
    let garbled = |error: serde_json::Error| ConnectError::Io {
        address: address.clone(),
        source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    };
    let incoming: Incoming = serde_json::from_slice(line).map_err(garbled)?;
    if let Some(error) = incoming.error {
        return Err(refused(address, error));
    }
    let said = incoming.result.as_ref().map_or("null", |result| result.get());
    // A daemon of another version need not even introduce itself in the same way.
    let Version { version, protocol } = serde_json::from_str(said).map_err(garbled)?;
    if protocol != PROTOCOL {
        return Err(ConnectError::OtherProtocol { address, version, protocol });
    }
    serde_json::from_str(said).map_err(garbled)
}

fn refused(address: Address, error: ErrorObject) -> ConnectError {
    match error.code {
        wire::code::FORBIDDEN => ConnectError::Refused { address, said: error.message },
        _ => ConnectError::Said { address, error: Box::new(error) },
    }
}

/// What every version of a daemon says.
#[derive(serde::Deserialize)]
struct Version {
    version: String,
    protocol: u32,
}

#[cfg(test)]
mod tests {
    use super::is_trusted;

    #[test]
    fn only_root_and_oneself_are_trusted() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
    }
}
