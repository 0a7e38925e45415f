//! How the listener for HTTP is set up.

use crate::{ServeError, Token};
use std::{net::SocketAddr, time::Duration};

/// A listener for HTTP.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where.
    pub addr: SocketAddr,
    /// What a client must show as a bearer token. Without one only this machine may be listened
    /// to.
    pub token: Option<Token>,
    /// What is bounded.
    pub limits: HttpLimits,
}

impl HttpConfig {
    /// Listens there, without a token and with the usual bounds.
    pub fn at(addr: SocketAddr) -> HttpConfig {
        HttpConfig { addr, token: None, limits: HttpLimits::default() }
    }

    /// Refuses what would let everybody on the network in.
    pub fn check(&self) -> Result<(), ServeError> {
        match self.token.is_none() && !self.addr.ip().to_canonical().is_loopback() {
            true => Err(ServeError::NeedsToken { addr: self.addr }),
            false => Ok(()),
        }
    }
}

/// The bounds of HTTP. Past one of them there is a clear error, and nobody else is disturbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests that are not answered yet; as many again may wait for a lock.
    pub requests: usize,
    /// Streams of events.
    pub subscribers: usize,
    /// How long a connection may take until a request's head is whole: the first one, or the next.
    pub head_for: Duration,
    /// How long a request's body may take.
    pub body_for: Duration,
    /// How long a client may read nothing while something waits for it.
    pub unread_for: Duration,
    /// After how much silence a stream of events says that it is still there.
    pub keep_alive: Duration,
    /// How long what runs may take when the server stops.
    pub stop_for: Duration,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            body_bytes: 1 << 20,
            connections: 1024,
            requests: 512,
            subscribers: 256,
            head_for: Duration::from_secs(15),
            body_for: Duration::from_secs(30),
            unread_for: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            stop_for: Duration::from_secs(5),
        }
    }
}
