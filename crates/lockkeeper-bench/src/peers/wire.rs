//! One connection, over a Unix socket or loopback, and what was read from it but not yet taken.

use crate::trouble::{Result, trouble};
use std::{net::Ipv4Addr, path::PathBuf};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// A port of loopback.
    Tcp(u16),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection.
pub(crate) struct Wire {
    stream: Stream,
    read: Vec<u8>,
    /// How much of that is taken already.
    taken: usize,
    /// What is about to be sent.
    pub(crate) out: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: &Address) -> Result<Wire> {
        let stream = match address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            Address::Tcp(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        let (read, out) = (Vec::with_capacity(4096), Vec::with_capacity(512));
        Ok(Wire { stream, read, taken: 0, out })
    }

    /// Sends what is in `out`.
    pub(crate) async fn send(&mut self) -> Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(&self.out).await?,
            Stream::Tcp(stream) => stream.write_all(&self.out).await?,
        }
        self.out.clear();
        Ok(())
    }

    /// What was read and is not taken yet.
    pub(crate) fn there(&self) -> &[u8] {
        &self.read[self.taken..]
    }

    /// Takes so many bytes of that.
    pub(crate) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.read.len() {
            self.read.clear();
            self.taken = 0;
        }
    }

    /// Reads some more.
    pub(crate) async fn more(&mut self) -> Result<()> {
        let count = match &mut self.stream {
            Stream::Unix(stream) => stream.read_buf(&mut self.read).await?,
            Stream::Tcp(stream) => stream.read_buf(&mut self.read).await?,
        };
        match count {
            0 => trouble("it closed the connection"),
            _ => Ok(()),
        }
    }

    /// Reads until so many bytes are there.
    pub(crate) async fn at_least(&mut self, count: usize) -> Result<()> {
        while self.there().len() < count {
            self.more().await?;
        }
        Ok(())
    }
}
